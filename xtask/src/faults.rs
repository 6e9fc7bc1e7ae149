//! `cargo xtask faults`: every fault of tests/faults.toml by its number, what was required and what happened; the table of a whole
//! run is written into docs/reliability.md.
//!
//! It owns the order, the clock and the table. What a fault is, and whether it was survived, is its tests' affair.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::setup::{self, Project, say, seconds};
use crate::wasm;

/// Where the faults stand.
const FAULTS: &str = "tests/faults.toml";

/// Where the table of a whole run goes, between its marks.
const PAGE: &str = "docs/reliability.md";
const BEGIN: &str = "<!-- written by `cargo xtask faults`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask faults`: end -->\n";

/// How long the mix of all faults lasts where nothing else is said, in minutes. `cargo xtask test` takes seconds for it.
const MIX_MINUTES: u64 = 10;

/// What `cargo xtask faults` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The faults' numbers; all of them, and docs/reliability.md is written, when there is none
    numbers: Vec<u32>,
    /// How long the random mix of faults lasts, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = MIX_MINUTES)]
    mix: u64,
    /// The seed of the random mix, as a failed run named it
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    fault: Vec<Fault>,
}

/// A fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    number: u32,
    fault: String,
    required: String,
    /// On both kinds of queue.
    #[serde(default)]
    both: bool,
    /// In what form it is tested, where that is not plain.
    note: Option<String>,
    tests: Vec<String>,
}

/// What became of a fault.
struct Row<'a> {
    fault: &'a Fault,
    held: bool,
    happened: Vec<String>,
    took: Duration,
}

/// Does it.
///
/// # Errors
/// A number that there is not, a test that is not there, or a fault that was not survived.
pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    let faults = read(&project.root.join(FAULTS))?;
    let chosen = choose(&faults, &arguments.numbers)?;
    setup::redis()?;
    wasm::build(&project.root)?;
    project.build()?;
    project.build_with_failpoints()?;
    let suite = suite(project)?;
    let known = names(&suite)?;
    for fault in &chosen {
        ensure!(!fault.tests.is_empty(), "fault {} has no test in {FAULTS}", fault.number);
        for test in &fault.tests {
            ensure!(known.contains(test), "fault {}: there is no test {test}; mend {FAULTS}", fault.number);
        }
    }

    say("");
    let mut rows = Vec::with_capacity(chosen.len());
    for fault in chosen {
        let row = survive(project, &suite, fault, arguments)?;
        print(&row);
        rows.push(row);
    }
    let failed: Vec<_> = rows.iter().filter(|row| !row.held).map(|row| row.fault.number.to_string()).collect();
    let took: Duration = rows.iter().map(|row| row.took).sum();
    say(&format!("\nfaults: {} survived, {} not, in {}", rows.len() - failed.len(), failed.len(), seconds(took)));
    if !failed.is_empty() {
        bail!("not survived: {}; run `cargo xtask faults {}` to see why", failed.join(", "), failed[0]);
    }
    if arguments.numbers.is_empty() {
        let page = project.root.join(PAGE);
        let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
        std::fs::write(&page, with_table(&text, &table(&rows))?).with_context(|| format!("cannot write {PAGE}"))?;
        say(&format!("{PAGE} is written"));
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<Fault>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let faults: Faults = toml::from_str(&text).with_context(|| format!("{} is wrong", file.display()))?;
    for (place, fault) in (1..).zip(&faults.fault) {
        ensure!(fault.number == place, "{}: fault {} stands in place {place}", file.display(), fault.number);
    }
    Ok(faults.fault)
}

/// Those that are asked for, in their order.
fn choose<'a>(faults: &'a [Fault], numbers: &[u32]) -> Result<Vec<&'a Fault>> {
    for number in numbers {
        ensure!(
            faults.iter().any(|fault| fault.number == *number),
            "there is no fault {number}; {FAULTS} has 1 to {}",
            faults.len()
        );
    }
    Ok(faults.iter().filter(|fault| numbers.is_empty() || numbers.contains(&fault.number)).collect())
}

/// The program of the end-to-end tests, built.
fn suite(project: &Project) -> Result<PathBuf> {
    let arguments = ["test", "--release", "--workspace", "--test", "suite", "--no-run", "--message-format=json"];
    let output = project.cargo(&arguments).stderr(Stdio::inherit()).output().context("cannot start cargo test")?;
    ensure!(output.status.success(), "the tests do not compile; what is wrong stands above");
    let built = String::from_utf8_lossy(&output.stdout);
    let messages = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == "suite")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo did not say where it put the tests")
}

/// Every test's name.
fn names(suite: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new(suite).arg("--list").output().context("cannot list the tests")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs a fault's tests, one after the other.
fn survive<'a>(project: &Project, suite: &Path, fault: &'a Fault, arguments: &Arguments) -> Result<Row<'a>> {
    let mut row = Row { fault, held: true, happened: Vec::new(), took: Duration::ZERO };
    for test in &fault.tests {
        let mut command = Command::new(suite);
        command.args(["--exact", test, "--nocapture"]).current_dir(project.root.join("tests"));
        command.env("DOSSIER_MIX_SECONDS", (arguments.mix * 60).to_string());
        if let Some(seed) = arguments.seed {
            command.env("DOSSIER_MIX_SEED", seed.to_string());
        }
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run a test")?;
        let stderr = child.stderr.take().context("a test has a standard error")?;
        let errors = std::thread::spawn(move || std::io::read_to_string(stderr));
        let stdout = child.stdout.take().context("a test has a standard output")?;
        let mut said = String::new();
        let mut queue = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what a test says")?;
            if let Some((_, happened)) = line.split_once("happened: ") {
                // Some say themselves on which one it was.
                let known = happened.trim().starts_with(queue.trim_end_matches(": "));
                row.happened.push(format!("{}{}", if known { "" } else { &queue }, happened.trim()));
            } else if let Some((_, kind)) = line.strip_suffix(" queue").and_then(|line| line.split_once("on the ")) {
                // A test of both kinds says which one begins.
                queue = format!("{kind}: ");
            }
            said.push_str(&line);
            said.push('\n');
        }
        let held = child.wait().context("cannot wait for a test")?.success();
        row.took += began.elapsed();
        if !held {
            row.held = false;
            say(&said);
            say(&errors.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.unwrap_or_default());
        }
    }
    Ok(row)
}

fn print(row: &Row<'_>) {
    let fault = row.fault;
    let held = if row.held { "ok" } else { "NOT SURVIVED" };
    let both = if fault.both { " (both queues)" } else { "" };
    say(&format!("{:>2}  {}{both}: {held}, {} ms", fault.number, fault.fault, row.took.as_millis()));
    say(&format!("      required: {}", fault.required));
    row.happened.iter().for_each(|happened| say(&format!("      happened: {happened}")));
    if let Some(note) = &fault.note {
        say(&format!("      note: {note}"));
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = String::from("| # | fault | required | what happened | ms |\n|---:|---|---|---|---:|\n");
    for row in rows {
        let fault = row.fault;
        let both = if fault.both { "; both queues" } else { "" };
        let note = fault.note.as_ref().map_or(String::new(), |note| format!(" *({note})*"));
        let happened = row.happened.join("; ");
        let cells = [
            fault.number.to_string(),
            format!("{}{both}{note}", fault.fault),
            fault.required.clone(),
            if happened.is_empty() { "as required".to_owned() } else { happened },
            row.took.as_millis().to_string(),
        ];
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

/// The page with another table.
fn with_table(page: &str, table: &str) -> Result<String> {
    let around = || {
        let (before, rest) = page.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}{table}{END}{after}"))
    };
    around().with_context(|| format!("{PAGE} has lost the marks of its table: {} and {}", BEGIN.trim(), END.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Vec<Fault> {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FAULTS)).unwrap()
    }

    #[test]
    fn every_fault_is_there_with_a_test() {
        let faults = faults();
        assert_eq!(faults.len(), 55);
        let without: Vec<_> = faults.iter().filter(|fault| fault.tests.is_empty()).map(|fault| fault.number).collect();
        assert_eq!(without, Vec::<u32>::new(), "faults without a test");
    }

    #[test]
    fn a_number_that_there_is_not_is_named() {
        let faults = faults();
        assert_eq!(choose(&faults, &[3, 1]).unwrap().len(), 2);
        assert!(choose(&faults, &[1, 56]).unwrap_err().to_string().contains("no fault 56"));
    }

    #[test]
    fn only_what_is_between_the_marks_is_written() {
        let page = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(with_table(&page, "new\n").unwrap(), format!("a\n{BEGIN}new\n{END}b\n"));
        assert!(with_table("a", "new").is_err());
    }
}
