//! Says that it is wrong itself, with a text of `/bytes` more bytes.

use dossier_sdk::{Answer, Failure};

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    let more = usize::try_from(ask.count("/bytes").unwrap_or_default()).unwrap_or_default();
    Err(Failure::internal(format!("mischief is wrong{}", "!".repeat(more))))
}
