//! `cargo xtask bench`: builds what is measured, has it measured by the program of `bench/`, prints the table and writes it into
//! docs/performance.md.
//!
//! It owns the table and what stands around it: machine, versions, settings. What is measured and how is the program's affair.

mod peers;

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Deserialize;

use self::peers::Peers;
use crate::setup::{self, Project, done, say};
use crate::wasm;

/// Where the table of a whole run goes, between its marks.
const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- written by `cargo xtask bench`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask bench`: end -->\n";

/// What each row is to reach: its name, beside which row, and how much of that row's rate.
const AIMS: [(&str, &str, f64); 5] = [
    ("fresh", "floor", 0.25),
    ("fresh", "native", 0.4),
    ("reuse", "floor", 0.45),
    ("reuse", "vrl", 1.0),
    ("fresh", "python", 4.0),
];

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One short run for each row: whether all of it works, not how fast it is. Writes nothing
    #[arg(long)]
    quick: bool,
    /// Only these rows, as in floor,fresh. Writes nothing
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    rows: Vec<String>,
    /// How many runs each figure is the median of
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The micro-benchmarks in place of the table: what the parts of an alert's way take
    #[arg(long)]
    micro: bool,
}

/// What the program says. Times are in microseconds, memory is in bytes.
#[derive(Debug, Deserialize)]
struct Report {
    alerts: String,
    batch: usize,
    reuse: u32,
    runs: usize,
    seconds: f64,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    about: String,
    alerts: u64,
    alerts_per_second: [f64; 3],
    bytes_per_second: f64,
    host_us: f64,
    server_us: Option<f64>,
    half_load: Option<[f64; 2]>,
    low_load: Option<[f64; 2]>,
    memory: u64,
}

/// Does it.
///
/// # Errors
/// Something does not build, or a row does not do what it should.
pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    setup::redis()?;
    wasm::build(&project.root)?;
    project.build()?;
    if arguments.micro {
        return done(
            "cargo bench",
            project.cargo(&["bench", "--profile", "release", "--workspace", "--bench", "micro"]).status(),
        );
    }
    let mut measure = Command::new(project.program("dossier-bench"));
    measure.args(["measure", "--runs", &arguments.runs.to_string()]);
    if arguments.quick {
        measure.arg("--quick");
    }
    if !arguments.rows.is_empty() {
        measure.args(["--rows", &arguments.rows.join(",")]);
    }
    let whole = !arguments.quick && arguments.rows.is_empty();
    let peers = if whole { peers::set_up(project) } else { Peers { arguments: Vec::new(), missing: Vec::new() } };
    measure.args(&peers.arguments);
    say("Measuring. It takes some minutes and wants the machine for itself.");
    let output = measure.current_dir(&project.root).stderr(Stdio::inherit()).output().context("cannot start it")?;
    ensure!(output.status.success(), "the measurement failed; what is wrong stands above");
    let text = String::from_utf8(output.stdout).context("the figures are no text")?;
    let last = text.lines().last().context("there are no figures")?;
    let report: Report = serde_json::from_str(last).context("the figures are not what was expected")?;
    println!("{}", on_screen(&report));
    aims(&report).iter().for_each(|aim| println!("{aim}"));
    if !whole {
        return Ok(());
    }
    let file = project.root.join(PAGE);
    let page = fs::read_to_string(&file).with_context(|| format!("cannot read {PAGE}"))?;
    fs::write(&file, with_results(&page, &results(&report, &peers.missing))?)
        .with_context(|| format!("cannot write {PAGE}"))?;
    say(&format!("{PAGE} is written"));
    Ok(())
}

const HEAD: [&str; 10] = [
    "row",
    "alerts/s",
    "of the floor",
    "MB/s",
    "CPU µs",
    "CPU µs, Redis",
    "half load: p50, p99 ms",
    "1 %: p50, p99 ms",
    "memory MB",
    "what it is",
];

/// The table's cells, as both tables show them.
fn cells(report: &Report) -> Vec<[String; HEAD.len()]> {
    let floor = rate(report, "floor");
    let latency = |of: Option<[f64; 2]>| {
        of.map_or_else(|| "–".into(), |[p50, p99]| format!("{:.2}, {:.2}", p50 / 1e3, p99 / 1e3))
    };
    let row = |row: &Row| {
        [
            row.name.clone(),
            format!("{:.0}", row.alerts_per_second[1]),
            floor.map_or_else(|| "–".into(), |floor| format!("{:.3}", row.alerts_per_second[1] / floor)),
            format!("{:.1}", row.bytes_per_second / 1e6),
            format!("{:.1}", row.host_us),
            row.server_us.map_or_else(|| "–".into(), |us| format!("{us:.1}")),
            latency(row.half_load),
            latency(row.low_load),
            format!("{:.1}", row.memory as f64 / 1e6),
            row.about.clone(),
        ]
    };
    report.rows.iter().map(row).collect()
}

fn rate(report: &Report, name: &str) -> Option<f64> {
    report.rows.iter().find(|row| row.name == name).map(|row| row.alerts_per_second[1])
}

/// What was aimed at and what it came to.
fn aims(report: &Report) -> Vec<String> {
    let aim = |(name, beside, share): &(&str, &str, f64)| {
        let reached = rate(report, name)? / rate(report, beside)?;
        let word = if reached >= *share { "reached" } else { "not reached" };
        Some(format!("{name} is at {reached:.3} of {beside}; the aim is {share}: {word}"))
    };
    AIMS.iter().filter_map(aim).collect()
}

fn on_screen(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEAD);
    table.add_rows(cells(report));
    for column in 1..HEAD.len() - 1 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What stands between the marks.
fn results(report: &Report, missing: &[String]) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(text, "Machine: {}.\n", machine());
    let _ = writeln!(text, "Versions: {}.\n", versions());
    let _ = writeln!(
        text,
        "Settings: {}; {} alerts read and committed together; rows that reuse an instance do so {} times; Redis on the same machine, \
         over a unix socket, nothing written to disk; {} runs of about {} s each, the rows in turn, and each figure is the median.\n",
        report.alerts, report.batch, report.reuse, report.runs, report.seconds
    );
    let _ = writeln!(text, "| {} |\n|---|{}---|", HEAD.join(" | "), "---:|".repeat(HEAD.len() - 2));
    for cells in cells(report) {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push('\n');
    for row in &report.rows {
        let [least, _, most] = row.alerts_per_second;
        let _ = writeln!(text, "- {}: {} alerts a run, from {least:.0}/s to {most:.0}/s.", row.name, row.alerts);
    }
    missing.iter().for_each(|peer| {
        let _ = writeln!(text, "- Not available: {peer}.");
    });
    text.push('\n');
    aims(report).iter().for_each(|aim| {
        let _ = writeln!(text, "- {aim}.");
    });
    text
}

fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let value = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let gigabytes =
        value(&memory, "MemTotal").split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {}, {gigabytes} GiB, Linux {}", value(&cpus, "model name"), kernel.trim())
}

fn versions() -> String {
    let first = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
    };
    let commit = first("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    let redis = first("redis-server", &["--version"]);
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default();
    format!(
        "dossier {} ({commit}), {}, redis-server {redis}",
        env!("CARGO_PKG_VERSION"),
        first("rustc", &["--version"])
    )
}

/// The page with other results.
fn with_results(page: &str, results: &str) -> Result<String> {
    let around = || {
        let (before, rest) = page.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}{results}{END}{after}"))
    };
    around().with_context(|| format!("{PAGE} has lost the marks of its results: {} and {}", BEGIN.trim(), END.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |name: &str, rate: f64| Row {
            name: name.into(),
            about: "a row".into(),
            alerts: 1,
            alerts_per_second: [rate, rate, rate],
            bytes_per_second: rate,
            host_us: 1.0,
            server_us: None,
            half_load: Some([1000.0, 2000.0]),
            low_load: None,
            memory: 1 << 20,
        };
        let rows = vec![row("floor", 100.0), row("fresh", 25.0), row("reuse", 44.0)];
        Report { alerts: "alerts".into(), batch: 100, reuse: 1000, runs: 5, seconds: 3.0, rows }
    }

    #[test]
    fn an_aim_that_is_missed_is_said() {
        let aims = aims(&report());
        assert_eq!(aims[0], "fresh is at 0.250 of floor; the aim is 0.25: reached");
        assert_eq!(aims[1], "reuse is at 0.440 of floor; the aim is 0.45: not reached");
    }

    #[test]
    fn only_what_is_between_the_marks_is_written() {
        let page = format!("a\n{BEGIN}old\n{END}b\n");
        let page = with_results(&page, &results(&report(), &[])).unwrap();
        assert!(page.starts_with("a\n") && page.ends_with("b\n") && !page.contains("old"));
        assert!(page.contains("| fresh | 25 | 0.250 |") && page.contains("| 1.00, 2.00 | – |"));
        assert!(with_results("a", "new").is_err());
    }
}
