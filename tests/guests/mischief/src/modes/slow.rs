//! Computes `/spin` rounds, a million where it does not say.

use dossier_sdk::{Answer, Failure};
use serde_json::json;

use crate::{Ask, spin};

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    Answer::of(&json!({ "spun": spin(ask.count("/spin").unwrap_or(1_000_000)) }))
}
