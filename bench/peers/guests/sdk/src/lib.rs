//! The interface of dossier's SDK over extism, so that the plugins' source compiles as it is: the modules that say nothing of
//! components are the SDK's own files; the types and the host are here.
//!
//! The host answers one function, `ask(what, one, two)`. Its answer begins with a byte that says whether there is any.

#[path = "../../../../../sdk/src/address.rs"]
mod address;
#[path = "../../../../../sdk/src/alert.rs"]
mod alert;
#[path = "../../../../../sdk/src/answer.rs"]
mod answer;
pub mod bindings;
#[path = "../../../../../sdk/src/failure.rs"]
mod failure;
mod host;
#[path = "../../../../../sdk/src/http.rs"]
pub mod http;
#[path = "../../../../../sdk/src/log.rs"]
pub mod log;
#[path = "../../../../../sdk/src/object.rs"]
mod object;
pub mod runtime;
#[path = "../../../../../sdk/src/settings.rs"]
mod settings;
#[path = "../../../../../sdk/src/tables.rs"]
pub mod tables;

pub use address::{Found, Scope, addresses, parse_address};
pub use alert::Alert;
pub use bindings::dossier::plugin::types::{Answer, Failure, Label, Observable, Retry, Stage, Verdict};
pub use object::Object;
pub use settings::NoSettings;
pub use {extism_pdk, serde, serde_json};

/// As the SDK's.
pub trait Plugin: Sized + 'static {
    const STAGE: Stage = Stage::Enrich;
    const RESULT_SCHEMA: Option<&str> = None;
    type Settings: serde::de::DeserializeOwned;
    fn configure(settings: Self::Settings) -> Result<Self, String>;
    fn enrich(&self, alert: &Alert<'_>) -> Result<Answer, Failure>;
}

/// As the SDK's: exports `configure`, whose input is the settings, and `enrich`, whose output is the fields and, in a line of its own, the
/// verdict.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::runtime::Slot<$plugin> = const { $crate::runtime::Slot::new() };
            }

            #[unsafe(no_mangle)]
            pub extern "C" fn configure() -> i32 {
                PLUGIN.with(|slot| $crate::runtime::configure(slot))
            }

            #[unsafe(no_mangle)]
            pub extern "C" fn enrich() -> i32 {
                PLUGIN.with(|slot| $crate::runtime::enrich(slot))
            }
        };
    };
}
