//! Says that what it needs is away, for `/after_ms` where the alert says so.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    Err(match ask.count("/after_ms") {
        Some(after) => Failure::unavailable_for("mischief is away", u32::try_from(after).unwrap_or(u32::MAX)),
        None => Failure::unavailable("mischief is away"),
    })
}
