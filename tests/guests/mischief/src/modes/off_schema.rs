//! Answers with what its own schema does not allow.

use dossier_sdk::{Answer, Failure};
use serde_json::json;

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    Answer::of(&json!({ "calls": "many" }))
}
