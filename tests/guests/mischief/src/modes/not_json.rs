//! Answers with what is no JSON.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    Ok(Answer::from_json("{ this is no JSON"))
}
