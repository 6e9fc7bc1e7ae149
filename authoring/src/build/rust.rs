//! Plugins in Rust: cargo, and the componentizing after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::{BuildError, Say, run};
use crate::component;
use crate::toolchain::{TARGET, Toolchain};

pub(super) fn prepare(folder: &Path, say: Say<'_>) -> Result<(), BuildError> {
    toolchain(folder, say).map(drop)
}

pub(super) fn build(folder: &Path, say: Say<'_>) -> Result<(String, Vec<u8>), BuildError> {
    let toolchain = toolchain(folder, say)?;
    let package = Package::of(folder, toolchain)?;
    let tool = format!("cargo build --release --target {TARGET}");
    match run(toolchain.build(folder).args(["--package", &package.id])) {
        Ok(true) => {}
        Ok(false) => return Err(BuildError::Compile(tool)),
        Err(error) => return Err(BuildError::project(folder, format!("cannot run cargo: {error}"))),
    }
    let module = package.target.join(TARGET).join("release").join(format!("{}.wasm", package.library));
    let module = fs::read(&module).map_err(|error| BuildError::project(&module, error))?;
    Ok((package.name, component::encode(&module)?))
}

fn toolchain(folder: &Path, say: Say<'_>) -> Result<Toolchain, BuildError> {
    Ok(Toolchain::find(&folder.join("target/rustup-cannot"), say)?)
}

/// What cargo knows of the package in a folder.
struct Package {
    name: String,
    /// How cargo knows it: something that it depends on may have the same name.
    id: String,
    /// The name of its library, as the file is called.
    library: String,
    /// Where cargo puts what it builds.
    target: PathBuf,
}

impl Package {
    fn of(folder: &Path, toolchain: Toolchain) -> Result<Self, BuildError> {
        let file = folder.join("Cargo.toml");
        let output = toolchain
            .cargo()
            .current_dir(folder)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| BuildError::project(&file, format!("cannot run cargo: {error}")))?;
        if !output.status.success() {
            return Err(BuildError::Compile("cargo metadata".into()));
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| BuildError::project(&file, error))?;
        let here = fs::canonicalize(&file).map_err(|error| BuildError::project(&file, error))?;
        let is_here = |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == here);
        let package = metadata["packages"].as_array().into_iter().flatten().find(is_here);
        let package = package.ok_or_else(|| BuildError::project(&file, "it has no [package]"))?;
        let is_library = |target: &&Value| {
            target["crate_types"].as_array().into_iter().flatten().any(|kind| kind.as_str() == Some("cdylib"))
        };
        let library = package["targets"].as_array().into_iter().flatten().find(is_library).ok_or_else(|| {
            BuildError::project(&file, "it makes no wasm; write `[lib]` and `crate-type = [\"cdylib\"]` in it")
        })?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            name: text(&package["name"]),
            id: text(&package["id"]),
            library: text(&library["name"]).replace('-', "_"),
            target: text(&metadata["target_directory"]).into(),
        })
    }
}
