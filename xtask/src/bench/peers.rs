//! What dossier is compared with, where it can be had: built and installed apart from the project, below target/.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dossier_authoring::toolchain::TARGET;

use crate::setup::{Project, done, say};
use crate::wasm;

/// What is measured beside the rows that are always there.
#[derive(Debug, Default)]
pub struct Peers {
    /// What the program of the benchmark is told of them.
    pub arguments: Vec<OsString>,
    /// Which versions they are.
    pub versions: Vec<String>,
    /// Those that cannot be had here, and why.
    pub missing: Vec<String>,
}

/// Every row of a peer.
pub const ALL: [&str; 4] = ["vrl", "extism", "extism-fresh", "python"];

/// Builds and installs those that these rows are of.
pub fn set_up(project: &Project, rows: &[&str]) -> Peers {
    let mut peers = Peers::default();
    let kinds = [
        ("vrl", "VRL", vrl as fn(&Project) -> Result<(OsString, String)>),
        ("extism", "extism", extism),
        ("python", "the Python worker", python),
    ];
    for (name, what, get) in kinds.into_iter().filter(|(name, ..)| rows.iter().any(|row| row.starts_with(name))) {
        say(&format!("Setting up {what}."));
        match get(project) {
            Ok((program, versions)) => {
                peers.arguments.extend([format!("--{name}").into(), program]);
                peers.versions.push(versions);
            }
            Err(error) => {
                let missing = format!("{what}: {error:#}");
                say(&format!("It will be missing from the table. {missing}"));
                peers.missing.push(missing);
            }
        }
    }
    peers
}

/// Where the guests of extism are.
pub fn guests(project: &Project) -> PathBuf {
    project.root.join("target/wasm").join(TARGET).join("release")
}

fn vrl(project: &Project) -> Result<(OsString, String)> {
    Ok((library(project, "peer-vrl")?, locked(project, "vrl")?))
}

/// The version of a crate that a peer is made with.
fn locked(project: &Project, name: &str) -> Result<String> {
    let lock: toml::Table = std::fs::read_to_string(project.root.join("bench/peers/Cargo.lock"))?.parse()?;
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let version = packages.filter(|one| one["name"].as_str() == Some(name)).find_map(|one| one["version"].as_str());
    Ok(format!("{name} {}", version.with_context(|| format!("bench/peers has no {name}"))?))
}

/// A peer that is a library. The first time takes some minutes.
fn library(project: &Project, package: &str) -> Result<OsString> {
    let target = project.root.join("target/peers");
    let mut cargo = project.cargo(&["build", "--release", "--locked", "--package", package, "--target-dir"]);
    cargo.arg(&target).current_dir(project.root.join("bench/peers"));
    done("cargo build in bench/peers", cargo.status())?;
    let file = format!("{}{}{}", std::env::consts::DLL_PREFIX, package.replace('-', "_"), std::env::consts::DLL_SUFFIX);
    Ok(target.join("release").join(file).into())
}

/// extism, and the plugins as its guests.
fn extism(project: &Project) -> Result<(OsString, String)> {
    let mut cargo = wasm::toolchain(&project.root)?.build(&project.root.join("bench/peers/guests"));
    done("cargo build in bench/peers/guests", cargo.args(["--locked", "--quiet"]).status())?;
    Ok((library(project, "peer-extism")?, locked(project, "extism")?))
}

fn python(project: &Project) -> Result<(OsString, String)> {
    let folder = project.root.join("target/python-worker");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| -> Result<String> {
        let output = command.output().context("there is no python3")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", said.lines().last().unwrap_or_default());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let wanted = project.root.join("bench/peers/requirements.txt");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(wanted))?;
    let asked = "import platform, redis, maxminddb as m; \
                 print(f'Python {platform.python_version()} with redis-py {redis.__version__} and maxminddb {m.__version__}')";
    let versions = run(Command::new(&python).args(["-c", asked]))?;
    Ok((python.into(), versions))
}
