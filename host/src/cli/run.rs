//! `dossier run`.

use std::process::ExitCode;

use crate::config::Config;

/// Runs the host.
///
/// # Errors
/// Always, for now.
pub async fn run(_config: Config, _until_empty: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet")
}
