//! Calls itself without end, or `/depth` times.

use dossier_sdk::{Answer, Failure};
use serde_json::json;

use crate::Ask;

/// Not a loop, whatever the compiler knows.
fn deeper(left: u64) -> u64 {
    match std::hint::black_box(left) {
        0 => 0,
        left => std::hint::black_box(deeper(left - 1)) + 1,
    }
}

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    Answer::of(&json!({ "depth": deeper(ask.count("/depth").unwrap_or(u64::MAX)) }))
}
