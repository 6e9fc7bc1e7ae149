//! Looks up keys in `/table` without end, or `/count` of them.

use dossier_sdk::{Answer, Failure, tables};
use serde_json::json;

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    let table = ask.text("/table");
    for key in 0..ask.count("/count").unwrap_or(u64::MAX) {
        _ = tables::raw(&table, &key.to_string());
    }
    Answer::of(&json!({ "flooded": true }))
}
