//! Plugins in JavaScript: npm brings componentize-js, which is called as a library by a script of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BuildError, Say, run, works};
use crate::build::world::World;

/// Reads its standard input as a module, with the plugin's folder as the place to look for packages.
const SCRIPT: &str = include_str!("componentize.mjs");

/// Sees to it that npm has brought what `package.json` names.
pub(super) fn prepare(folder: &Path, say: Say<'_>) -> Result<(), BuildError> {
    for (tool, what) in [("node", "Node.js, which runs componentize-js"), ("npm", "npm, which brings componentize-js")]
    {
        if !works(tool, &["--version"]) {
            return Err(BuildError::Missing {
                what: format!("`{tool}` is not on PATH: {what}"),
                next: "install Node.js 20 or later (https://nodejs.org, or `sudo apt-get install nodejs npm`)".into(),
            });
        }
    }
    if is_installed(folder) {
        return Ok(());
    }
    say("npm brings what package.json names into node_modules/; that takes half a minute");
    let mut npm = Command::new("npm");
    npm.current_dir(folder).args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
    match run(npm.stdin(Stdio::null())) {
        Ok(true) => Ok(()),
        _ => Err(BuildError::Install("npm install".into())),
    }
}

/// Whether npm has run since `package.json` and `package-lock.json` were last written.
fn is_installed(folder: &Path) -> bool {
    let time = |name: &str| fs::metadata(folder.join(name)).and_then(|file| file.modified()).ok();
    let Some(installed) = time("node_modules/.package-lock.json") else { return false };
    ["package.json", "package-lock.json"].into_iter().filter_map(time).all(|changed| changed <= installed)
}

pub(super) fn build(folder: &Path) -> Result<(String, Vec<u8>), BuildError> {
    let world = World::of(folder)?;
    let package = folder.join("package.json");
    let text = fs::read_to_string(&package).map_err(|error| BuildError::project(&package, error))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| BuildError::project(&package, error))?;
    let main = json["main"].as_str().unwrap_or("plugin.js");
    let output = PathBuf::from("node_modules").join(format!(".{}.wasm", world.name));
    let mut node = Command::new("node");
    node.current_dir(folder).args(["--input-type=module", "-", main, "wit", &world.world]).arg(&output);
    let built = piped(&mut node).map_err(|error| BuildError::project(folder, format!("cannot run node: {error}")))?;
    if !built {
        return Err(BuildError::Compile(format!("componentize-js {main}")));
    }
    let output = folder.join(output);
    let bytes = fs::read(&output).map_err(|error| BuildError::project(&output, error))?;
    // It is read; what lies in node_modules/ is nobody's to keep.
    let _ = fs::remove_file(&output);
    Ok((world.name, bytes))
}

/// Gives a program the script.
fn piped(node: &mut Command) -> io::Result<bool> {
    use std::io::Write as _;
    let mut child = node.stdin(Stdio::piped()).stdout(Stdio::from(io::stderr())).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(SCRIPT.as_bytes())?;
    }
    Ok(child.wait()?.success())
}
