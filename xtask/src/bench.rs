//! `cargo xtask bench`: builds what is measured, has it measured by the programs of `bench/`, prints tables and writes them into
//! docs/performance.md.
//!
//! It owns the tables and what stands around them: machine, versions, settings. What is measured and how is the programs' affair.

mod check;
mod page;
mod peers;
mod rows;
mod scaling;
mod targets;

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use self::peers::Peers;
use crate::setup::{self, Project, done, say, seconds};
use crate::wasm;

/// How many alerts the long run takes in a whole run, and in a quick one.
const LONG: u64 = 500_000;

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Little of everything: whether all of it works, not how fast it is. Writes nothing
    #[arg(long)]
    quick: bool,
    /// Only these rows, as in floor,fresh, and nothing else. Writes nothing
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', group = "part")]
    rows: Vec<String>,
    /// How many runs each figure of a row is the median of
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only how figures change with workers, hosts, batch, size, steps, language and plugins in the folder. Writes nothing
    #[arg(long, group = "part")]
    scaling: bool,
    /// Only what was aimed at beside rates: calls, memory, start, swap of a plugin, a long run. Writes nothing
    #[arg(long, group = "part")]
    targets: bool,
    /// Only the long run, with so many alerts: whether cost and memory stay as they are. Writes nothing
    #[arg(long, value_name = "ALERTS", group = "part")]
    long: Option<u64>,
    /// Only the micro-benchmarks: what the parts of an alert's way take
    #[arg(long, group = "part")]
    micro: bool,
    /// Only count the instructions of five parts, and compare them with those in bench/baseline.toml
    #[arg(long, group = "part")]
    check: bool,
    /// With --check: take the counts as the right ones
    #[arg(long, requires = "check")]
    bless: bool,
}

/// Does it.
///
/// # Errors
/// Something does not build, a row does not do what it should, or a count is another than before.
pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    if arguments.check {
        return check::run(project, arguments.bless);
    }
    setup::redis()?;
    wasm::build(&project.root)?;
    project.build()?;
    if arguments.micro {
        let micro = ["bench", "--profile", "release", "--workspace", "--bench", "micro"];
        return done("cargo bench", project.cargo(&micro).status());
    }
    setup::languages();
    let began = Instant::now();
    let program = Program { project, quick: arguments.quick };
    if arguments.scaling {
        let report: scaling::Report = program.ask("scaling", &[])?;
        print!("{}{}", report.cells().on_screen(), report.notes());
    } else if arguments.targets || arguments.long.is_some() {
        let report = program.targets(arguments.long, arguments.long.is_some())?;
        print!("{}\n{}", targets::cells(&report.targets).on_screen(), report.tenths().on_screen());
    } else if !arguments.rows.is_empty() {
        let wanted: Vec<&str> = arguments.rows.iter().map(String::as_str).collect();
        let peers = peers::set_up(project, &wanted);
        let report = program.rows(arguments, &peers)?;
        print!("{}\n{}", report.cells().on_screen(), targets::cells(&report.targets()).on_screen());
    } else {
        whole(&program, arguments)?;
    }
    say(&format!("It took {}.", seconds(began.elapsed())));
    Ok(())
}

/// Everything, into the page.
fn whole(program: &Program<'_>, arguments: &Arguments) -> Result<()> {
    let peers = if arguments.quick { Peers::default() } else { peers::set_up(program.project, &peers::ALL) };
    say("Measuring. It takes about a quarter of an hour and wants the machine for itself.");
    let began = Instant::now();
    let rows = program.rows(arguments, &peers)?;
    println!("{}", rows.cells().on_screen());
    let aims = program.targets(None, false)?;
    let scaling: scaling::Report = program.ask("scaling", &[])?;
    let took = began.elapsed();
    println!("{}", scaling.cells().on_screen());
    let tenths = aims.tenths();
    let all: Vec<_> = rows.targets().into_iter().chain(aims.targets).chain(scaling.targets()).collect();
    let all = targets::cells(&all);
    println!("{}", all.on_screen());
    if arguments.quick {
        return Ok(());
    }
    let results = format!(
        "Machine: {}.\n\nVersions: {}.\n\nSettings: {}. It took {}.\n\n### Rows\n{}\n{}\n### Targets\n{}\n### A long run, in tenths\n{}\n\
         ### One thing at a time\nThe row fresh, with one thing changed.\n\n{}\n{}",
        page::machine(),
        page::versions(&peers.versions),
        rows.settings(),
        seconds(took),
        rows.cells().in_page(),
        rows.notes(&peers.missing),
        all.in_page(),
        tenths.in_page(),
        scaling.cells().in_page(),
        scaling.notes(),
    );
    page::write(program.project, &results)?;
    say(&format!("{} is written", page::PAGE));
    Ok(())
}

/// The program that measures.
struct Program<'a> {
    project: &'a Project,
    quick: bool,
}

impl Program<'_> {
    fn rows(&self, arguments: &Arguments, peers: &Peers) -> Result<rows::Report> {
        let mut words = vec!["--runs".into(), arguments.runs.to_string().into()];
        if !arguments.rows.is_empty() {
            words.extend(["--rows".into(), arguments.rows.join(",").into()]);
        }
        words.extend(peers.arguments.clone());
        self.ask("measure", &words)
    }

    fn targets(&self, long: Option<u64>, only_long: bool) -> Result<targets::Report> {
        let mut words = vec!["--long".into(), long.unwrap_or(LONG).to_string().into()];
        words.extend(only_long.then(|| "--only-long".into()));
        self.ask("targets", &words)
    }

    /// Runs one of its parts and reads what it prints at the end.
    fn ask<T: DeserializeOwned>(&self, part: &str, arguments: &[std::ffi::OsString]) -> Result<T> {
        let mut measure = Command::new(self.project.program("dossier-bench"));
        measure.arg(part).args(self.quick.then_some("--quick")).args(arguments).current_dir(&self.project.root);
        measure.env("PEER_GUESTS", peers::guests(self.project));
        let output = measure.stderr(Stdio::inherit()).output().context("cannot start it")?;
        ensure!(output.status.success(), "the measurement failed; what is wrong stands above");
        let text = String::from_utf8(output.stdout).context("the figures are no text")?;
        let last = text.lines().last().context("there are no figures")?;
        serde_json::from_str(last).context("the figures are not what was expected")
    }
}
