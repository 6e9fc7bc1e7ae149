//! A plugin that does what a plugin must not do, on request, to test that the host bears it.
//!
//! What it does is said by the string at `/mischief` of the alert, else by its setting `do`: the name of a file in `modes/`, with
//! `-` for `_`. Anything else is answered with `{ "calls", "configured" }`: how often this instance was called, and its settings.
//!
//! Settings: anything goes. `{"refuse": "why"}` makes `configure` fail with these words, `{"do": "configure-loop"}` makes it
//! loop, `{"do": "configure-trap"}` makes it trap.

use std::cell::Cell;

use dossier_sdk::{Alert, Answer, Failure, Plugin};
use serde_json::{Value, json};

/// What was asked for.
struct Ask<'a> {
    alert: &'a Alert<'a>,
    settings: &'a Value,
}

impl Ask<'_> {
    /// How much of it: a number in the alert, else in the settings.
    fn count(&self, pointer: &str) -> Option<u64> {
        self.alert.get::<u64>(pointer).or_else(|| self.settings[&pointer[1..]].as_u64())
    }

    /// A text in the alert.
    fn text(&self, pointer: &str) -> String {
        self.alert.str(pointer).unwrap_or_default()
    }
}

/// Keeps the compiler from seeing that work is for nothing.
fn spin(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, round| std::hint::black_box(sum ^ round))
}

/// Takes in a module for each mode, and finds the one that was asked for.
macro_rules! modes {
    ($($mode:ident)*) => {
        mod modes {
            $(pub mod $mode;)*
        }

        fn run(mode: &str, ask: &Ask<'_>) -> Option<Result<Answer, Failure>> {
            $(if mode == stringify!($mode).trim_start_matches("r#").replace('_', "-") {
                return Some(modes::$mode::enrich(ask));
            })*
            None
        }
    };
}

modes! {
    add_observable bad_verdict big_answer deep_answer grow http internal invalid log_flood lookup lookup_flood
    not_applicable not_json not_object off_schema panic r#loop recurse slow trap unavailable
}

struct Mischief {
    settings: Value,
    calls: Cell<u64>,
}

impl Plugin for Mischief {
    const RESULT_SCHEMA: Option<&str> = Some(r#"{"properties":{"calls":{"type":"integer"}}}"#);
    type Settings = Value;

    fn configure(settings: Value) -> Result<Self, String> {
        if let Some(why) = settings["refuse"].as_str() {
            return Err(why.into());
        }
        match settings["do"].as_str() {
            Some("configure-loop") => _ = spin(u64::MAX),
            Some("configure-trap") => std::process::abort(),
            _ => {}
        }
        Ok(Self { settings, calls: Cell::new(0) })
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        self.calls.set(self.calls.get() + 1);
        let ask = Ask { alert, settings: &self.settings };
        let mode =
            alert.str("/mischief").or_else(|| self.settings["do"].as_str().map(str::to_owned)).unwrap_or_default();
        run(&mode, &ask)
            .unwrap_or_else(|| Answer::of(&json!({ "calls": self.calls.get(), "configured": self.settings })))
    }
}

dossier_sdk::export!(Mischief);
