//! What `export!` expands to.

use std::cell::Cell;

use extism_pdk::{Memory, ToMemory};

use crate::bindings::dossier::plugin::types;
use crate::{Alert, Plugin, settings};

/// Holds the configured plugin for as long as the instance lives.
pub struct Slot<P: 'static>(Cell<Option<&'static P>>);

impl<P: Plugin> Slot<P> {
    #[expect(clippy::new_without_default, reason = "only the macro makes one, in a const")]
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }
}

/// Configures the plugin with the call's input; 0 when it worked.
pub fn configure<P: Plugin>(slot: &Slot<P>) -> i32 {
    let input = extism_pdk::unwrap!(extism_pdk::input::<String>());
    match settings::parse(&input).and_then(P::configure) {
        Ok(plugin) => {
            slot.0.set(Some(Box::leak(Box::new(plugin))));
            0
        }
        Err(why) => failed(&why),
    }
}

/// Enriches the alert that the host holds; 0 when it worked.
pub fn enrich<P: Plugin>(slot: &Slot<P>) -> i32 {
    let Some(plugin) = slot.0.get() else { return failed("never configured") };
    match plugin.enrich(&Alert::new(&types::Alert)) {
        Ok(answer) => {
            let verdict = answer.verdict.map(|verdict| serde_json::to_string(&verdict).unwrap_or_default());
            let output = [answer.fields, verdict.unwrap_or_default()].join("\n");
            extism_pdk::unwrap!(extism_pdk::output(output));
            0
        }
        Err(failure) => failed(&format!("{failure:?}")),
    }
}

fn failed(why: &str) -> i32 {
    if let Ok(memory) = why.to_memory() {
        set_error(&memory);
    }
    1
}

fn set_error(memory: &Memory) {
    // SAFETY: a call of extism's own.
    unsafe { extism_pdk::extism::error_set(memory.offset()) }
}
