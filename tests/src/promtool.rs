//! Prometheus' `promtool`: the one that is installed, or else the one in Debian's package, unpacked below `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host::root;

/// A `promtool` that can be run.
///
/// # Errors
/// It is not installed, and there is no `apt-get` that could fetch it.
pub fn promtool() -> Result<PathBuf> {
    let runs =
        |program: &Path| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let installed = PathBuf::from("promtool");
    if runs(&installed) {
        return Ok(installed);
    }
    let folder = root().join("target/tools/promtool");
    let unpacked = folder.join("usr/bin/promtool");
    if runs(&unpacked) {
        return Ok(unpacked);
    }
    std::fs::create_dir_all(&folder)?;
    // Of the package only the one program is unpacked: all of it would be ten times as large. Needs no root.
    let script = "apt-get download prometheus >&2 && \
                  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb";
    let output = Command::new("sh").args(["-ec", script]).current_dir(&folder).output().context("there is no sh")?;
    ensure!(
        output.status.success() && runs(&unpacked),
        "promtool is not installed, and Debian's package prometheus cannot be fetched: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(unpacked)
}
