#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]
//! What a dossier plugin is written with.
//!
//! A plugin is a WebAssembly component that the host calls once for each alert. This crate turns the contract
//! (`wit/v1/plugin.wit`) into a trait, [`Plugin`], and one macro, [`export!`]. A whole plugin:
//!
//! ```
//! use dossier_sdk::serde::{Deserialize, Serialize};
//! use dossier_sdk::{Alert, Answer, Failure, Plugin, tables};
//!
//! #[derive(Deserialize)]
//! #[serde(crate = "dossier_sdk::serde", default)]
//! struct Settings { table: String }
//! impl Default for Settings { fn default() -> Self { Self { table: "owners".into() } } }
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(crate = "dossier_sdk::serde")]
//! struct Owner { owner: String }
//!
//! struct Owners(Settings);
//! impl Plugin for Owners {
//!     type Settings = Settings;
//!     fn configure(settings: Settings) -> Result<Self, String> { Ok(Self(settings)) }
//!     fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
//!         for host in alert.observables_of("host") {
//!             if let Some(owner) = tables::lookup::<Owner>(&self.0.table, &host.value)? { return Answer::of(&owner); }
//!         }
//!         Err(Failure::not_applicable("no host that has an owner"))
//!     }
//! }
//! dossier_sdk::export!(Owners);
//!
//! // The same code runs natively in a test, against tables of its own:
//! use dossier_sdk::{serde_json::json, testing};
//! let case = testing::Case::new(json!({})).observable("host", "destination", "dc01").row("owners", "dc01", json!({"owner": "it"}));
//! let owners = testing::configure::<Owners>(json!({})).unwrap();
//! assert_eq!(case.run(&owners).unwrap().fields, r#"{"owner":"it"}"#);
//! ```
//!
//! The crate of a plugin has `crate-type = ["cdylib"]`, and its name, version and description in `Cargo.toml` are what
//! the plugin says about itself; the host wants the name to be the stem of the `.wasm` file. `plugins/` in the
//! repository is a workspace of such crates, and `cargo xtask plugins` builds it.
//!
//! # What a plugin must keep to
//! - It is configured once; the host then snapshots its memory and begins **every** alert with a copy. Whatever
//!   [`Plugin::configure`] leaves behind is there for each alert, whatever [`Plugin::enrich`] leaves behind is not.
//! - It has no files, no environment, no clock, no randomness and no threads. [`Alert::received`] is the only time.
//! - A panic is logged with its place and ends the call as a trap; a [`Failure`] says what the host should do.
//!
//! What this crate does not own: limits and grants. They are the host's, and no plugin can see or change them.

mod address;
mod alert;
mod allocator;
mod answer;
pub mod bindings;
mod failure;
#[cfg(target_arch = "wasm32")]
#[path = "host_wasm.rs"]
mod host;
#[cfg(not(target_arch = "wasm32"))]
#[path = "host_native.rs"]
mod host;
pub mod http;
pub mod log;
mod object;
#[doc(hidden)]
pub mod runtime;
mod settings;
pub mod tables;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use address::{Found, Scope, addresses, parse_address};
pub use alert::Alert;
pub use bindings::dossier::plugin::types::{Answer, Description, Failure, Label, Observable, Retry, Stage, Verdict};
pub use object::Object;
pub use settings::NoSettings;
pub use {serde, serde_json};

/// A plugin, configured. [`export!`] makes a component of it.
pub trait Plugin: Sized + 'static {
    /// The stage that the plugin is made for.
    const STAGE: Stage = Stage::Enrich;

    /// A JSON Schema of the plugin's results, as text; none when any object will do. The host checks every answer against it.
    /// `wit/v1` says which keywords it may use.
    const RESULT_SCHEMA: Option<&str> = None;

    /// The settings that the operator may give: JSON, read by serde. A key that this type does not have is refused with
    /// its name, with or without `deny_unknown_fields` (which lists the right ones beside it). Every setting should have
    /// a default. A plugin without settings says [`NoSettings`].
    type Settings: serde::de::DeserializeOwned;

    /// Makes the plugin from its settings. Called once at load, before any alert; `tables` and `http` answer `denied`
    /// meanwhile. What it makes must be plain memory.
    ///
    /// # Errors
    /// The plugin's own words, for the operator; the host then refuses the plugin.
    fn configure(settings: Self::Settings) -> Result<Self, String>;

    /// Enriches one alert.
    ///
    /// # Errors
    /// See [`Failure`]: each kind has its own way.
    fn enrich(&self, alert: &Alert<'_>) -> Result<Answer, Failure>;
}

/// Makes the component's exports of a [`Plugin`]. Once in a crate, at its top.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the exports are called by their names")]
        const _: () = {
            struct Component;

            ::std::thread_local! {
                static PLUGIN: $crate::runtime::Slot<$plugin> = const { $crate::runtime::Slot::new() };
            }

            impl $crate::bindings::exports::dossier::plugin::enricher::Guest for Component {
                fn describe() -> $crate::Description {
                    $crate::Description {
                        name: ::std::env!("CARGO_PKG_NAME").into(),
                        version: ::std::env!("CARGO_PKG_VERSION").into(),
                        summary: ::std::env!("CARGO_PKG_DESCRIPTION").into(),
                        stage: <$plugin as $crate::Plugin>::STAGE,
                        result_schema: <$plugin as $crate::Plugin>::RESULT_SCHEMA.map(::std::convert::Into::into),
                    }
                }

                fn configure(settings: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|slot| slot.configure(&settings))
                }

                fn enrich(
                    alert: &$crate::bindings::dossier::plugin::types::Alert,
                ) -> ::std::result::Result<$crate::Answer, $crate::Failure> {
                    PLUGIN.with(|slot| slot.enrich(alert))
                }
            }

    $crate::bindings::export!(Component with_types_in $crate::bindings);
        };

        const _: () = {
            const fn is_a_plugin<P: $crate::Plugin>() {}
            is_a_plugin::<$plugin>()
        };
    };
}
