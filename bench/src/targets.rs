//! What the benchmark is to show beside its table of rows: one figure for each, beside what was aimed at.

mod long;
mod memory;
mod start;
mod swap;

use std::path::Path;

use anyhow::Result;
use dossier_tests::redis_server::RedisServer;
use serde::Serialize;

use crate::alerts::Alerts;
use crate::measure::median;
use crate::row;
use crate::stand::{Also, ONE_ADDRESS, ONE_FIELD, Stand};

/// How often each share is measured, and of how many calls.
const ROUNDS: usize = 25;
const CALLS: u32 = 2000;

/// What `dossier-bench targets` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Little of everything: shows that all of it works, and not how good it is
    #[arg(long)]
    quick: bool,
    /// How many alerts the long run takes
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    long: u64,
    /// Only the long run
    #[arg(long)]
    only_long: bool,
}

/// What was aimed at, and what it came to.
#[derive(Debug, Serialize)]
struct Target {
    what: String,
    figure: f64,
    /// The figure is to be at most this.
    at_most: f64,
    unit: &'static str,
    /// How the figure came to be, in figures.
    of: String,
}

/// A tenth of the long run.
#[derive(Debug, Serialize)]
struct Tenth {
    /// How many alerts were done at its end.
    alerts: u64,
    /// Processor time for each of its alerts, in microseconds.
    host_us: f64,
    server_us: f64,
    /// Memory at its end, in bytes.
    memory: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    targets: Vec<Target>,
    tenths: Vec<Tenth>,
}

/// Where the targets are measured.
struct Place<'a> {
    server: &'a RedisServer,
    /// Where compiled code is kept.
    state: &'a Path,
    alerts: &'a Alerts,
    quick: bool,
}

impl Place<'_> {
    /// What the configuration says of the queue.
    fn queue(&self) -> String {
        format!("kind = \"redis\"\nurl = \"{}\"", self.server.url())
    }
}

/// Measures, and prints a [`Report`].
///
/// # Errors
/// Something does not do what it should.
pub fn run(arguments: &Arguments) -> Result<()> {
    row::check_built();
    let (server, state, alerts) = (RedisServer::start()?, tempfile::tempdir()?, Alerts::load()?);
    let quick = arguments.quick;
    let place = Place { server: &server, state: state.path(), alerts: &alerts, quick };
    let mut targets = Vec::new();
    if !arguments.only_long {
        targets.extend(shares(quick)?);
        eprintln!("the shares of serde_json's time are measured");
        targets.extend(memory::measure(&place)?);
        eprintln!("memory is measured");
        targets.push(start::measure(&place)?);
        eprintln!("the start is measured");
        targets.extend(swap::measure(&place)?);
        eprintln!("swaps are measured");
    }
    let few = long::few(&place)?;
    let tenths = long::measure(&place, if quick { 20_000 } else { arguments.long })?;
    targets.extend(long::targets(&tenths, few));
    println!("{}", serde_json::to_string(&Report { targets, tenths })?);
    Ok(())
}

/// One call of a plugin that looks one address up, as a share of what serde_json takes to parse an alert. Each round measures all of them,
/// so that what the machine does meanwhile falls on all.
fn shares(quick: bool) -> Result<Vec<Target>> {
    let (fresh, reused) = (Stand::new(1, Also::Nothing)?, Stand::new(u32::MAX, Also::Nothing)?);
    let (rounds, calls) = if quick { (3, 100) } else { (ROUNDS, CALLS) };
    let cases = [
        ("the address in one field, instance reused", &reused, ONE_FIELD, 0.4),
        ("the address in one field, fresh instance", &fresh, ONE_FIELD, 1.8),
        ("one of all the addresses, instance reused", &reused, ONE_ADDRESS, 0.4),
        ("one of all the addresses, fresh instance", &fresh, ONE_ADDRESS, 1.8),
    ];
    let (mut parses, mut shares) = (Vec::new(), cases.map(|_| Vec::new()));
    for _ in 0..rounds {
        let began = std::time::Instant::now();
        for _ in 0..calls {
            let value: serde_json::Value = serde_json::from_slice(std::hint::black_box(&fresh.alert))?;
            std::hint::black_box(value);
        }
        let parse = began.elapsed().as_secs_f64();
        parses.push(parse);
        for ((_, stand, step, _), shares) in cases.iter().zip(&mut shares) {
            shares.push(stand.time(step, calls)? / parse);
        }
    }
    let parse = median(parses.into_iter()) * 1e6 / f64::from(calls);
    let target = |((what, _, _, at_most), shares): ((&str, &Stand, &str, f64), Vec<f64>)| {
        let share = median(shares.into_iter());
        Target {
            what: format!("a call that looks up {what}, as a share of serde_json's parse"),
            figure: share,
            at_most,
            unit: "",
            of: format!("{:.2} µs; parsing {} bytes takes {parse:.2} µs", share * parse, fresh.alert.len()),
        }
    };
    Ok(cases.into_iter().zip(shares).map(target).collect())
}
