//! Answers with a text of `/bytes` bytes.

use dossier_sdk::{Answer, Failure};
use serde_json::json;

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    let bytes = usize::try_from(ask.count("/bytes").unwrap_or(1 << 20)).unwrap_or(usize::MAX);
    Answer::of(&json!({ "big": "x".repeat(bytes) }))
}
