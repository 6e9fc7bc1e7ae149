//! The floor: what the queue and the client library can do when nothing is done with an alert. No decoding, no script, no log.

use anyhow::Result;

use crate::stream;

/// Moves alerts until it is killed.
///
/// # Errors
/// As [`stream::run`].
pub fn run(url: &str) -> Result<()> {
    stream::run(url, vec![Ok])
}
