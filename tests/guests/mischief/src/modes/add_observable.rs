//! Adds an observable, which only a step of `normalize` may.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    Ok(Answer::from_json("{}").observable("ip", "related", "198.51.100.7"))
}
