//! Says that the alert is invalid.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    Err(Failure::invalid("mischief finds the alert invalid"))
}
