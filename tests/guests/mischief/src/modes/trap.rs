//! Runs an instruction that traps.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    std::process::abort()
}
