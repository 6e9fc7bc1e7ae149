//! Tools that come as Python packages, each set in an environment of its own below `target/`, at the versions that the tests were
//! written for.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::root;

/// The folder of programs of an environment of this name that holds these packages; it is made where there is none, and made anew where
/// it holds others.
///
/// # Errors
/// There is no Python with the modules `venv` and `ensurepip`, or pip cannot install a package.
pub fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let place = root().join("target").join(name);
    let (programs, noted, wanted) = (place.join("bin"), place.join("installed.txt"), packages.join(" "));
    // Tests that run at once wait for the first of them.
    std::fs::create_dir_all(root().join("target/tools"))?;
    let lock = std::fs::File::create(root().join("target/tools").join(format!("{name}.lock")))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if std::fs::read_to_string(&noted).is_ok_and(|installed| installed == wanted) {
        return Ok(programs);
    }
    let works = |command: &mut Command| {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        silent.status().is_ok_and(|status| status.success())
    };
    if !works(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        bail!("python3 with the modules venv and ensurepip is not here (sudo apt-get install python3-venv)");
    }
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
    let made = works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place)) && works(&mut pip);
    ensure!(made, "pip cannot install {wanted}");
    std::fs::write(&noted, wanted).with_context(|| noted.display().to_string())?;
    Ok(programs)
}
