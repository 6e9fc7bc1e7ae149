//! Panics.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

#[expect(clippy::panic, reason = "that is the mischief")]
pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    panic!("mischief was asked to panic")
}
