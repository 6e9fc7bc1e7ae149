//! Plugins in Python: pip brings componentize-py into a virtual environment in the plugin's folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{BuildError, Say, run, works};
use crate::build::world::World;

/// The module that a plugin is.
const MODULE: &str = "app";
const REQUIREMENTS: &str = "requirements.txt";
/// What of `requirements.txt` was installed.
const INSTALLED: &str = ".venv/installed.txt";

/// Sees to it that the virtual environment has what `requirements.txt` names.
pub(super) fn prepare(folder: &Path, say: Say<'_>) -> Result<(), BuildError> {
    let file = folder.join(REQUIREMENTS);
    let wanted = fs::read(&file).map_err(|error| BuildError::project(&file, error))?;
    if fs::read(folder.join(INSTALLED)).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Debian's Python has the module venv but not what it needs to put pip into an environment.
    if !works("python3", &["-c", "import venv, ensurepip"]) {
        return Err(BuildError::Missing {
            what: "`python3` with the modules venv and ensurepip is not on PATH: componentize-py lives in an environment of \
                   the plugin's own"
                .into(),
            next: "install Python 3.10 or later (https://python.org, or `sudo apt-get install python3-venv`)".into(),
        });
    }
    say("pip brings what requirements.txt names into .venv/");
    if !matches!(run(Command::new("python3").current_dir(folder).args(["-m", "venv", "--clear", ".venv"])), Ok(true)) {
        return Err(BuildError::Install("python3 -m venv .venv".into()));
    }
    let program = fs::canonicalize(folder).map_err(|error| BuildError::project(folder, error))?.join(".venv/bin/pip");
    let mut pip = Command::new(program);
    pip.current_dir(folder).args(["install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS]);
    if !matches!(run(pip.stdin(Stdio::null())), Ok(true)) {
        return Err(BuildError::Install(format!("pip install -r {REQUIREMENTS}")));
    }
    let installed = folder.join(INSTALLED);
    fs::write(&installed, wanted).map_err(|error| BuildError::project(&installed, error))
}

pub(super) fn build(folder: &Path) -> Result<(String, Vec<u8>), BuildError> {
    let world = World::of(folder)?;
    let absolute = fs::canonicalize(folder).map_err(|error| BuildError::project(folder, error))?;
    let environment = absolute.join(".venv");
    let output = environment.join(format!("{}.wasm", world.name));
    let mut tool = Command::new(environment.join("bin/componentize-py"));
    tool.current_dir(&absolute).env("VIRTUAL_ENV", &environment).env("PYTHONDONTWRITEBYTECODE", "1");
    tool.args(["--quiet", "--wit-path", "wit", "--world", &world.world, "componentize", "--stub-wasi", MODULE]);
    match run(tool.arg("--output").arg(&output).stdin(Stdio::null())) {
        Ok(true) => {}
        Ok(false) => return Err(BuildError::Compile(format!("componentize-py componentize {MODULE}"))),
        Err(error) => return Err(BuildError::project(folder, format!("cannot run componentize-py: {error}"))),
    }
    let bytes = fs::read(&output).map_err(|error| BuildError::project(&output, error))?;
    // It is read; what lies in the environment is nobody's to keep.
    let _ = fs::remove_file(&output);
    Ok((world.name, bytes))
}
