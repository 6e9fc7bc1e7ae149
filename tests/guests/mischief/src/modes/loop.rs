//! Computes without end, or as many rounds as `/rounds` says.

use dossier_sdk::{Answer, Failure};
use serde_json::json;

use crate::{Ask, spin};

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    Answer::of(&json!({ "spun": spin(ask.count("/rounds").unwrap_or(u64::MAX)) }))
}
