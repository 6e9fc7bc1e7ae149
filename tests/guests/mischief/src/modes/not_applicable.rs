//! Says that there is nothing to do.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    Err(Failure::not_applicable("mischief has nothing to do here"))
}
