//! A plugin that does what a plugin must not do, on request, to test that the host bears it.
//!
//! What it does is said by the string at `/mischief` of the alert, else by its setting `do`:
//! - `loop`, `trap`, `panic`, `recurse`, `grow` (memory without end), `slow` (`/spin` rounds of work).
//! - `big-answer` (a text of `/bytes` bytes, else of the setting `bytes`), `not-json`, `not-object`, `add-observable`,
//!   `bad-verdict`.
//! - `invalid`, `internal`, `unavailable` (with `/after_ms`), `not-applicable`: the failures.
//! - `log-flood`, `lookup-flood` (`/count` calls, else without end), `lookup` (of `/key` in `/table`), `http` (GET `/url`): host
//!   calls; the last two say what they got.
//! - anything else: answers `{ "calls", "configured" }`: how often this instance was called, and its settings.
//!
//! Settings: anything goes. `{"refuse": "why"}` makes `configure` fail with these words, `{"do": "configure-loop"}` makes it
//! loop, `{"do": "configure-trap"}` makes it trap.

use std::cell::Cell;

use dossier_sdk::{Alert, Answer, Failure, Label, Plugin, Verdict, http, log, tables};
use serde_json::{Value, json};

struct Mischief {
    settings: Value,
    calls: Cell<u64>,
}

/// Keeps the compiler from seeing that work is for nothing.
fn spin(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, round| std::hint::black_box(sum ^ round))
}

#[expect(unconditional_recursion, reason = "that is the mischief")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(depth + 1)) + 1)
}

fn grow() -> ! {
    let mut blocks = Vec::new();
    loop {
        blocks.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn looked_up(alert: &Alert) -> Value {
    let text = |pointer| alert.str(pointer).unwrap_or_default();
    match tables::raw(&text("/table"), &text("/key")) {
        Ok(row) => {
            json!({ "row": row.map(|row| serde_json::from_str::<Value>(&row).unwrap_or(Value::Null)) })
        }
        Err(tables::TableError::Denied(why)) => json!({ "error": "denied", "why": why }),
        Err(tables::TableError::Unavailable(why)) => json!({ "error": "unavailable", "why": why }),
        Err(tables::TableError::Broken(why)) => json!({ "error": "broken", "why": why }),
    }
}

fn requested(alert: &Alert) -> Value {
    let (error, why) = match http::get(&alert.str("/url").unwrap_or_default()) {
        Ok(response) => {
            return json!({ "status": response.status, "bytes": response.body.len(), "headers": response.headers });
        }
        Err(http::HttpError::Denied(why)) => ("denied", why),
        Err(http::HttpError::Invalid(why)) => ("invalid", why),
        Err(http::HttpError::Timeout) => ("timeout", String::new()),
        Err(http::HttpError::Unreachable(how)) => ("unreachable", how),
        Err(http::HttpError::TooLarge(bound)) => ("too-large", bound.to_string()),
    };
    json!({ "error": error, "why": why })
}

impl Plugin for Mischief {
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
        let count = |pointer| alert.get::<u64>(pointer).or_else(|| self.settings[&pointer[1..]].as_u64());
        let asked =
            alert.str("/mischief").or_else(|| self.settings["do"].as_str().map(str::to_owned)).unwrap_or_default();
        match asked.as_str() {
            "loop" => Answer::of(&json!({ "spun": spin(u64::MAX) })),
            "slow" => Answer::of(&json!({ "spun": spin(count("/spin").unwrap_or(1_000_000)) })),
            "trap" => std::process::abort(),
            #[expect(clippy::panic, reason = "that is the mischief")]
            "panic" => panic!("mischief was asked to panic"),
            "recurse" => Answer::of(&json!({ "depth": recurse(0) })),
            "grow" => grow(),
            "big-answer" => {
                let bytes = usize::try_from(count("/bytes").unwrap_or(1 << 20)).unwrap_or(usize::MAX);
                Answer::of(&json!({ "big": "x".repeat(bytes) }))
            }
            "not-json" => Ok(Answer::from_json("{ this is no JSON")),
            "not-object" => Ok(Answer::from_json("[1, 2, 3]")),
            "add-observable" => Ok(Answer::from_json("{}").observable("ip", "related", "198.51.100.7")),
            "bad-verdict" => {
                let verdict = Verdict { label: Label::Malicious, score: 255, reasons: vec!["because".into()] };
                Ok(Answer::from_json("{}").verdict(verdict))
            }
            "invalid" => Err(Failure::invalid("mischief finds the alert invalid")),
            "internal" => Err(Failure::internal("mischief is wrong")),
            "unavailable" => match count("/after_ms") {
                Some(after) => {
                    Err(Failure::unavailable_for("mischief is away", u32::try_from(after).unwrap_or(u32::MAX)))
                }
                None => Err(Failure::unavailable("mischief is away")),
            },
            "not-applicable" => Err(Failure::not_applicable("mischief has nothing to do here")),
            "log-flood" => {
                (0..count("/count").unwrap_or(u64::MAX)).for_each(|line| log::info(&format!("line {line}")));
                Answer::of(&json!({ "flooded": true }))
            }
            "lookup-flood" => {
                let table = alert.str("/table").unwrap_or_default();
                for key in 0..count("/count").unwrap_or(u64::MAX) {
                    _ = tables::raw(&table, &key.to_string());
                }
                Answer::of(&json!({ "flooded": true }))
            }
            "lookup" => Answer::of(&looked_up(alert)),
            "http" => Answer::of(&requested(alert)),
            _ => Answer::of(&json!({ "calls": self.calls.get(), "configured": self.settings })),
        }
    }
}

dossier_sdk::export!(Mischief);
