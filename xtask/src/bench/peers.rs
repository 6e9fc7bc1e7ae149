//! What dossier is compared with, where it can be had: built and installed apart from the project, below target/.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{Project, done, say};

/// What is measured beside the rows that are always there.
pub struct Peers {
    /// What the program of the benchmark is told of them.
    pub arguments: Vec<OsString>,
    /// Those that cannot be had here, and why.
    pub missing: Vec<String>,
}

/// Builds and installs them.
pub fn set_up(project: &Project) -> Peers {
    let mut peers = Peers {
        arguments: Vec::new(),
        missing: vec![
            "extism (a crate that hosts the same kind of plugins): its releases need a wasmtime that needs a later Rust than ours"
                .to_owned(),
        ],
    };
    for (option, what, get) in
        [("--vrl", "VRL", vrl as fn(&Project) -> Result<OsString>), ("--python", "the Python worker", python)]
    {
        say(&format!("Setting up {what}."));
        match get(project) {
            Ok(program) => peers.arguments.extend([option.into(), program]),
            Err(error) => {
                let missing = format!("{what}: {error:#}");
                say(&format!("It will be missing from the table. {missing}"));
                peers.missing.push(missing);
            }
        }
    }
    peers
}

fn vrl(project: &Project) -> Result<OsString> {
    let target = project.root.join("target/peers");
    let mut cargo = project.cargo(&["build", "--release", "--locked"]);
    cargo.current_dir(project.root.join("bench/peers")).arg("--target-dir").arg(&target);
    done("cargo build in bench/peers", cargo.status())?;
    Ok(target.join("release/peer-vrl").into())
}

fn python(project: &Project) -> Result<OsString> {
    let folder = project.root.join("target/python-worker");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| -> Result<()> {
        let output = command.output().context("there is no python3")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", said.lines().last().unwrap_or_default());
        Ok(())
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let wanted = project.root.join("bench/peers/requirements.txt");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(wanted))?;
    Ok(python.into())
}
