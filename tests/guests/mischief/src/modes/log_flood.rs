//! Logs without end, or `/count` lines.

use dossier_sdk::{Answer, Failure, log};
use serde_json::json;

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    (0..ask.count("/count").unwrap_or(u64::MAX)).for_each(|line| log::info(&format!("line {line}")));
    Answer::of(&json!({ "flooded": true }))
}
