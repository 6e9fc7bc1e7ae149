//! Looks up `/key` in `/table` and says what it got.

use dossier_sdk::{Answer, Failure, tables};
use serde_json::{Value, json};

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    Answer::of(&match tables::raw(&ask.text("/table"), &ask.text("/key")) {
        Ok(row) => json!({ "row": row.map(|row| serde_json::from_str::<Value>(&row).unwrap_or(Value::Null)) }),
        Err(tables::TableError::Denied(why)) => json!({ "error": "denied", "why": why }),
        Err(tables::TableError::Unavailable(why)) => json!({ "error": "unavailable", "why": why }),
        Err(tables::TableError::Broken(why)) => json!({ "error": "broken", "why": why }),
    })
}
