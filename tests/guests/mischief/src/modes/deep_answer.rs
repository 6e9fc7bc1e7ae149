//! Answers with JSON of `/depth` levels.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    // The object itself is the first level.
    let inside = usize::try_from(ask.count("/depth").unwrap_or(100_000)).unwrap_or(usize::MAX).saturating_sub(1);
    Ok(Answer::from_json(format!("{{\"deep\":{}{}}}", "[".repeat(inside), "]".repeat(inside))))
}
