//! `cargo xtask demo`: the sample alerts through the directory queue, with the real programs, and what became of them.
//!
//! It owns the folder `target/demo/` and the order of things. What is shown, and how, is in `view`; what happens to an alert
//! is dossier's business, which is called as people call it.

mod view;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::setup::{Project, say};
use crate::wasm;

/// What must come out as a dead letter, and why: the malformed alert and the one whose plugin loops.
const DEAD: [&str; 2] = ["malformed", "timeout"];

/// Where things lie while the demo runs. It stays there afterwards, for looking around.
struct Place {
    /// The folder that holds everything.
    folder: PathBuf,
    /// The program.
    dossier: PathBuf,
}

/// A dead letter with its original.
struct Dead {
    /// The file in `errors/`.
    file: String,
    /// The reason, as JSON.
    letter: Value,
}

/// Runs the demo.
///
/// # Errors
/// When something does not build, or what came out is not what must.
pub fn run(project: &Project) -> Result<()> {
    wasm::build(&project.root)?;
    project.build()?;

    let place = Place { folder: project.root.join("target/demo"), dossier: project.program("dossier") };
    place.prepare(&project.root)?;
    let alerts = place.folder.join("alerts.ndjson");
    let sent = fs::read_to_string(&alerts)?.lines().count();

    say("");
    say(
        "Sending the sample alerts to the queue and enriching them. The first time, the plugins are compiled for this machine.",
    );
    let began = Instant::now();
    place.call(&["send", &alerts.display().to_string()], "send.log")?;
    place.call(&["run", "--until-empty"], "run.log")?;
    let took = began.elapsed();

    let records = place.records()?;
    let dead = place.dead()?;
    let mut reasons: Vec<&str> = dead.iter().filter_map(|dead| dead.letter["reason"].as_str()).collect();
    reasons.sort_unstable();
    view::show(project, &place, &records, &dead, sent, took);
    ensure!(
        records.len() + dead.len() == sent && reasons == DEAD,
        "of {sent} alerts {} were stored, and {} are dead letters ({}); it should be all but two ({}); see {}",
        records.len(),
        dead.len(),
        reasons.join(", "),
        DEAD.join(", "),
        place.folder.join("run.log").display()
    );
    Ok(())
}

impl Place {
    /// Makes the folder as it must be before the first alert: samples and plugins as they are now, an empty queue. What the
    /// host compiled stays, so that a second run is quick.
    fn prepare(&self, root: &Path) -> Result<()> {
        for old in ["queue", "plugins"] {
            match fs::remove_dir_all(self.folder.join(old)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot empty {}", self.folder.join(old).display()));
                }
                _ => {}
            }
        }
        copy_files(&root.join("examples/demo"), &self.folder)?;
        copy_files(&root.join("target/plugins"), &self.folder.join("plugins"))?;
        copy_files(&root.join("target/guests"), &self.folder.join("plugins"))
    }

    /// Calls dossier. What it says goes to a file: the log of a host is for machines.
    fn call(&self, arguments: &[&str], log: &str) -> Result<()> {
        let log = self.folder.join(log);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let status = Command::new(&self.dossier)
            .arg("--config")
            .arg(self.folder.join("dossier.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .with_context(|| format!("cannot start {}", self.dossier.display()))?;
        if !status.success() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(20).collect();
            let last: Vec<_> = last.into_iter().rev().collect();
            bail!("dossier {} failed; its last lines:\n{}", arguments[0], last.join("\n"));
        }
        Ok(())
    }

    /// The stored records, the worst first.
    fn records(&self) -> Result<Vec<Value>> {
        let mut records = Vec::new();
        for file in listed(&self.folder.join("queue/processed"), "json")? {
            records.push(read_json(&file)?);
        }
        let score = |record: &Value| record["verdict"]["score"].as_u64();
        records.sort_by(|one, other| score(other).cmp(&score(one)).then(one["id"].as_str().cmp(&other["id"].as_str())));
        Ok(records)
    }

    /// The dead letters.
    fn dead(&self) -> Result<Vec<Dead>> {
        let mut dead = Vec::new();
        for file in listed(&self.folder.join("queue/errors"), "reason")? {
            let name = file.file_stem().context("a reason has a name")?.to_string_lossy();
            dead.push(Dead { file: format!("{name}.json"), letter: read_json(&file)? });
        }
        Ok(dead)
    }
}

fn read_json(file: &Path) -> Result<Value> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", file.display()))
}

/// The files of a folder with this extension, by name.
fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|other| other == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
