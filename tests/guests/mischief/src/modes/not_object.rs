//! Answers with JSON that is no object.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    Ok(Answer::from_json("[1, 2, 3]"))
}
