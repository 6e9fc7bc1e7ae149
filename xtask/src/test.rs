//! `cargo xtask test`: every check and every test, what fails fast first.
//!
//! It owns the order and the summary; the tests themselves lie with what they test, the end-to-end tests in `tests/`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Project, done, say, seconds};
use crate::{docs, tidy, wasm};

/// Where tests that this machine lacks something for leave a file of their name that says why. In CI they fail instead.
const NOT_RUN: &str = "target/not-run";

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only the tests with this in their name, and none of the checks
    filter: Option<String>,
    /// What the test programs are given, as in -- --nocapture
    #[arg(last = true)]
    rest: Vec<String>,
}

/// How many tests ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// A part of the task.
struct Part {
    name: &'static str,
    work: fn(&Project, &Arguments, &mut Tally) -> Result<()>,
}

const CHECKS: &[Part] = &[
    Part { name: "formatting", work: |project, _, _| formatting(project) },
    Part {
        name: "house rules",
        work: |project, _, _| tidy::check(&project.root).and_then(|()| docs::check(&project.root)),
    },
    Part {
        name: "lints of the plugins",
        work: |project, _, _| lint(project.cargo(&["clippy"]).current_dir(project.root.join("plugins"))),
    },
    Part { name: "lints", work: |project, _, _| lint(&mut project.cargo(&["clippy", "--workspace"])) },
];

const TESTS: &[Part] = &[
    Part {
        name: "plugins, natively",
        work: |project, arguments, tally| {
            tests(
                project.cargo(&["test", "--release", "--no-fail-fast"]).current_dir(project.root.join("plugins")),
                arguments,
                tally,
            )
        },
    },
    Part { name: "plugins, for wasm", work: |project, _, _| wasm::build(&project.root) },
    Part { name: "programs", work: |project, _, _| project.build().and_then(|()| project.build_with_failpoints()) },
    Part { name: "reference of settings", work: |project, _, _| docs::check_settings(&project.root) },
    Part {
        name: "tests",
        work: |project, arguments, tally| {
            tests(&mut project.cargo(&["test", "--release", "--workspace", "--no-fail-fast"]), arguments, tally)
        },
    },
];

/// Does it.
///
/// # Errors
/// The first part that fails.
pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    // What earlier runs could not run is theirs.
    let _ = std::fs::remove_dir_all(project.root.join(NOT_RUN));
    let mut tally = Tally::default();
    let mut summary: Vec<(&str, Duration, &str)> = Vec::new();
    let set_up = Part {
        name: "set-up",
        work: |project, _, _| {
            setup::languages();
            setup::terminal();
            setup::lints(project).and_then(|()| setup::redis())
        },
    };
    let checks: &[Part] = if arguments.filter.is_some() { &[] } else { CHECKS };
    let parts: Vec<&Part> = std::iter::once(&set_up).chain(checks).chain(TESTS).collect();

    let mut failure = None;
    for part in &parts {
        if failure.is_some() {
            summary.push((part.name, Duration::ZERO, "not run"));
            continue;
        }
        say(&format!("\n== {}", part.name));
        let began = Instant::now();
        let outcome = (part.work)(project, arguments, &mut tally);
        summary.push((part.name, began.elapsed(), if outcome.is_ok() { "ok" } else { "FAILED" }));
        failure = outcome.err().map(|error| error.context(part.name));
    }

    say("\n== summary");
    for (name, took, outcome) in summary {
        let took = if outcome == "not run" { String::new() } else { seconds(took) };
        say(format!("{name:<22} {outcome:<8} {took:>12}").trim_end());
    }
    say(&format!("{:<22} {:<8} {:>12}", "all", "", seconds(started.elapsed())));
    let not_run = not_run(&project.root.join(NOT_RUN));
    say(&format!(
        "tests: {} passed, {} failed, {} not run",
        tally.passed.saturating_sub(not_run.len() as u64),
        tally.failed,
        not_run.len()
    ));
    not_run.iter().for_each(|line| say(&format!("not run: {line}")));
    failure.map_or(Ok(()), Err)
}

fn formatting(project: &Project) -> Result<()> {
    done("cargo fmt --check", project.cargo(&["fmt", "--all", "--check"]).status())?;
    let mut plugins = project.cargo(&["fmt", "--all", "--check"]);
    done("cargo fmt --check in plugins/", plugins.current_dir(project.root.join("plugins")).status())
}

fn lint(clippy: &mut Command) -> Result<()> {
    done("cargo clippy", clippy.args(["--release", "--all-targets", "--", "-D", "warnings"]).status())
}

/// Runs tests, shows what they say as they say it, and counts them.
fn tests(cargo: &mut Command, arguments: &Arguments, tally: &mut Tally) -> Result<()> {
    cargo.args(&arguments.filter).arg("--").args(&arguments.rest);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has a standard output")?;
    let mut before = *tally;
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    // Bytes, not text: what a failed test prints need not be UTF-8.
    while lines.read_until(b'\n', &mut line).context("cannot read what cargo test says")? > 0 {
        std::io::stdout().write_all(&line).context("cannot write to the standard output")?;
        if let Some(Tally { passed, failed }) = counted(&String::from_utf8_lossy(&line)) {
            before.passed += passed;
            before.failed += failed;
        }
        line.clear();
    }
    *tally = before;
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("cargo test failed; the failed tests stand above");
    }
    Ok(())
}

/// The tests that passed without having run, each with the reason.
fn not_run(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut lines: Vec<_> = entries
        .map(|entry| {
            let why = std::fs::read_to_string(entry.path()).unwrap_or_default();
            format!("{}: {why}", entry.file_name().display())
        })
        .collect();
    lines.sort();
    lines
}

/// What a test program's last line says.
fn counted(line: &str) -> Option<Tally> {
    let counts = line.trim().strip_prefix("test result: ")?;
    let number = |what: &str| {
        counts.split([';', '.']).find_map(|count| count.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    Some(Tally { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_run_is_named_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        assert!(not_run(&folder.path().join("none")).is_empty());
        std::fs::write(folder.path().join("b_test"), "no compiler").unwrap();
        std::fs::write(folder.path().join("a_test"), "no server").unwrap();
        assert_eq!(not_run(folder.path()), ["a_test: no server", "b_test: no compiler"]);
    }

    #[test]
    fn tests_are_counted_by_the_last_line_of_each_program() {
        let line = "test result: ok. 57 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s\n";
        assert_eq!(counted(line), Some(Tally { passed: 57, failed: 2 }));
        assert_eq!(counted("test something_passed ... ok\n"), None);
    }
}
