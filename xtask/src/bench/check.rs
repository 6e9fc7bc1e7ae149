//! `cargo xtask bench --check`: whether parts of an alert's way take more instructions than they did. Counted by valgrind, so that
//! neither the clock nor what else the machine does has a part in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::setup::{self, Project, say};

/// What is counted. None of it runs WebAssembly.
const PARTS: [&str; 5] = ["decode", "observables", "look-up", "record", "log-line"];

/// How often each is done.
const TIMES: u64 = 200;

/// How far a count may be from the baseline, in percent.
const TOLERANCE: u64 = 5;

/// Where the counts are kept that are right.
const BASELINE: &str = "bench/baseline.toml";

/// What is counted within, in the program's own name for it.
const WITHIN: &str = "--toggle-collect=*::measured";

#[derive(Debug, Deserialize)]
struct Baseline {
    instructions: BTreeMap<String, u64>,
}

/// Counts, and compares with the baseline or writes it.
///
/// # Errors
/// A part takes other than the baseline says, by more than the tolerance; or nothing can be counted.
pub fn run(project: &Project, bless: bool) -> Result<()> {
    setup::valgrind()?;
    project.build()?;
    let counted =
        PARTS.iter().map(|part| Ok(((*part).to_owned(), count(project, part)?))).collect::<Result<BTreeMap<_, _>>>()?;
    let file = project.root.join(BASELINE);
    if bless {
        fs::write(&file, written(&counted)).with_context(|| format!("cannot write {BASELINE}"))?;
        println!("{}", compared(&counted, &counted).0);
        say(&format!("{BASELINE} is written"));
        return Ok(());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {BASELINE}"))?;
    let baseline: Baseline = toml::from_str(&text).with_context(|| BASELINE.to_owned())?;
    let (table, wrong) = compared(&baseline.instructions, &counted);
    println!("{table}");
    if wrong {
        bail!(
            "counts differ from {BASELINE} by more than {TOLERANCE} %. Where that is meant to be, and where it got better, type: \
             cargo xtask bench --check --bless"
        );
    }
    Ok(())
}

/// Instructions for doing a part once.
fn count(project: &Project, part: &str) -> Result<u64> {
    let folder = project.root.join("target/instructions");
    fs::create_dir_all(&folder)?;
    let file = folder.join(part);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-atstart=no", WITHIN]);
    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
    valgrind.arg(project.program("dossier-bench-instructions")).args([part, &TIMES.to_string()]);
    // Where things lie in memory must not matter, and neither must who calls.
    valgrind.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = valgrind.output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{part} cannot be counted:\n{said}");
    let counts = fs::read_to_string(&file).context("valgrind has written no counts")?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    let total: u64 = total.and_then(|total| total.trim().parse().ok()).context("valgrind's counts have no total")?;
    ensure!(total > 0, "valgrind has counted nothing of {part}: is it built with symbols?");
    Ok(total / TIMES)
}

fn written(counts: &BTreeMap<String, u64>) -> String {
    let mut text = String::from(
        "# Instructions for doing each of these once, on x86-64 with AVX2, as valgrind counts them. Written by\n\
         # `cargo xtask bench --check --bless`, compared by `cargo xtask bench --check`.\n[instructions]\n",
    );
    for (part, count) in counts {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{part} = {count}");
    }
    text
}

/// A table of both, and whether they differ too much.
fn compared(baseline: &BTreeMap<String, u64>, counted: &BTreeMap<String, u64>) -> (String, bool) {
    let mut text = format!("{:<12} {:>10} {:>10} {:>9}\n", "part", "baseline", "now", "change");
    let mut wrong = false;
    for (part, &now) in counted {
        let (before, change, note) = match baseline.get(part) {
            None => {
                wrong = true;
                ("none".to_owned(), String::new(), "  is not in the baseline")
            }
            Some(&before) => {
                let change = (now as f64 / before as f64 - 1.0) * 100.0;
                let differs = now.abs_diff(before) * 100 > before * TOLERANCE;
                wrong |= differs;
                let note = match (differs, change > 0.0) {
                    (false, _) => "",
                    (true, true) => "  MORE",
                    (true, false) => "  less: bless it",
                };
                (before.to_string(), format!("{change:+.1} %"), note)
            }
        };
        let _ = writeln!(text, "{part:<12} {before:>10} {now:>10} {change:>9}{note}");
    }
    (text.trim_end().to_owned(), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(part, count)| ((*part).to_owned(), *count)).collect()
    }

    #[test]
    fn a_count_within_the_tolerance_is_right_and_one_outside_it_is_not() {
        let baseline = counts(&[("decode", 1000)]);
        assert!(!compared(&baseline, &counts(&[("decode", 1050)])).1);
        let (text, wrong) = compared(&baseline, &counts(&[("decode", 1051)]));
        assert!(wrong && text.ends_with("+5.1 %  MORE"), "{text}");
        let (text, wrong) = compared(&baseline, &counts(&[("decode", 900)]));
        assert!(wrong && text.contains("-10.0 %  less"), "{text}");
        assert!(compared(&baseline, &counts(&[("record", 1)])).1);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let all = counts(&[("decode", 1), ("log-line", 2)]);
        let read: Baseline = toml::from_str(&written(&all)).unwrap();
        assert_eq!(read.instructions, all);
    }
}
