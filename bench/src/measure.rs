//! The whole measurement: which runs there are, in which order, and what is made of them.
//!
//! Runs alternate between the rows, so that what the machine does meanwhile falls on all of them; each figure is the median of its runs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use dossier_tests::redis_server::RedisServer;
use serde::Serialize;
use serde_json::Value;

use crate::alerts::Alerts;
use crate::latency::{self, Latency};
use crate::row::{self, Row};
use crate::site;
use crate::throughput::{self, Throughput};

/// The most alerts in one run: what is stored of them must have room in memory.
const MOST: f64 = 600_000.0;

/// What `dossier-bench measure` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One short run for each row: shows that all of it works, and not how fast it is
    #[arg(long)]
    quick: bool,
    /// Only these rows
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    rows: Vec<String>,
    /// How many runs each figure is the median of
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long a run is about to take, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Leave out what takes longest: latencies
    #[arg(long)]
    no_latency: bool,
    #[command(flatten)]
    peers: row::Peers,
}

/// What is measured, in figures.
#[derive(Debug, Serialize)]
struct Report {
    alerts: String,
    batch: usize,
    reuse: u32,
    runs: usize,
    seconds: f64,
    rows: Vec<Figures>,
}

/// A row. Times are in microseconds, memory is in bytes.
#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    about: &'static str,
    alerts: u64,
    /// The least, the median and the most of the runs.
    alerts_per_second: [f64; 3],
    bytes_per_second: f64,
    host_us: f64,
    server_us: Option<f64>,
    /// The median and the 99th percentile, at half of the rate above and at a hundredth of it.
    half_load: Option<[f64; 2]>,
    low_load: Option<[f64; 2]>,
    memory: u64,
}

/// What the runs of a row came to.
#[derive(Default)]
struct Runs {
    throughput: Vec<Throughput>,
    half_load: Vec<Latency>,
    low_load: Vec<Latency>,
    memory: u64,
    count: u64,
}

/// Measures, and prints a [`Report`].
///
/// # Errors
/// A row does not take its alerts, or two rows make different records of the same alert.
pub fn run(arguments: &Arguments) -> Result<()> {
    row::check_built();
    let (runs, seconds) = if arguments.quick { (1, 0.2) } else { (arguments.runs, arguments.seconds) };
    let alerts = Alerts::load()?;
    let server = RedisServer::start()?;
    let state = tempfile::tempdir()?;
    let mut rows = Row::chosen(&arguments.rows, &arguments.peers, &server, state.path())?;
    let mut all: Vec<Runs> = rows.iter().map(|_| Runs::default()).collect();

    let mut known = BTreeMap::new();
    for (row, runs) in rows.iter_mut().zip(&mut all) {
        // Twice: the first time tells how many alerts fill the time.
        let first = if arguments.quick { 300 } else { 2000 };
        let rate = throughput::measure(row, &alerts, first, arguments.quick)?.rate();
        compare(row, &mut known)?;
        runs.count = whole((rate * seconds).min(MOST)).max(first);
        let again = throughput::measure(row, &alerts, runs.count, true)?;
        runs.memory = again.memory;
        runs.count = whole((again.rate() * seconds).min(MOST)).max(first);
    }
    for run in 0..runs {
        for (row, runs) in rows.iter_mut().zip(&mut all) {
            let throughput = throughput::measure(row, &alerts, runs.count, false)?;
            eprintln!("run {run}, {}: {:.0} alerts/s", row.name, throughput.rate());
            runs.throughput.push(throughput);
        }
    }
    for run in 0..runs {
        for (row, runs) in rows.iter_mut().zip(&mut all).filter(|_| !arguments.no_latency) {
            let rate = median(runs.throughput.iter().map(Throughput::rate));
            let half = latency::measure(row, &alerts, rate / 2.0, Duration::from_secs_f64(seconds))?;
            let low = latency::measure(row, &alerts, rate / 100.0, Duration::from_secs_f64(seconds * 2.0))?;
            eprintln!("run {run}, {}: p99 {:.0} µs at half load, {:.0} µs at 1 %", row.name, half.p99, low.p99);
            runs.half_load.push(half);
            runs.low_load.push(low);
        }
    }

    let figures = rows.iter().zip(&all).map(|(row, runs)| figures(row, runs, &alerts)).collect();
    let (batch, reuse) = (site::BATCH, site::REUSE);
    let report = Report { alerts: alerts.source.clone(), batch, reuse, runs, seconds, rows: figures };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Whether a row found the same as those before it: otherwise they do not do the same work.
fn compare(row: &mut Row<'_>, known: &mut BTreeMap<String, [Value; 3]>) -> Result<()> {
    if !row.enriches {
        return Ok(());
    }
    for (id, record) in row.place.records()? {
        let [observables, enrichment, verdict] =
            ["observables", "enrichment", "verdict"].map(|part| record[part].clone());
        let found = [observables, enrichment, verdict];
        ensure!(
            found[1].as_object().is_some_and(|results| results.len() == 4),
            "row \"{}\": a step is missing",
            row.name
        );
        let before = known.entry(id).or_insert_with(|| found.clone());
        ensure!(*before == found, "row \"{}\" makes {found:?} of an alert that was {before:?} before", row.name);
    }
    Ok(())
}

fn figures(row: &Row<'_>, runs: &Runs, alerts: &Alerts) -> Figures {
    let rates = || runs.throughput.iter().map(Throughput::rate);
    let rate = median(rates());
    let server: Vec<_> = runs.throughput.iter().filter_map(Throughput::server_us).collect();
    let latency = |latencies: &[Latency]| {
        let of = |which: fn(&Latency) -> f64| median(latencies.iter().map(which));
        (!latencies.is_empty()).then(|| [of(|one| one.p50), of(|one| one.p99)])
    };
    Figures {
        name: row.name,
        about: row.about,
        alerts: runs.count,
        alerts_per_second: [rates().fold(f64::INFINITY, f64::min), rate, rates().fold(0.0, f64::max)],
        bytes_per_second: rate * alerts.mean,
        host_us: median(runs.throughput.iter().map(Throughput::host_us)),
        server_us: (!server.is_empty()).then(|| median(server.into_iter())),
        half_load: latency(&runs.half_load),
        low_load: latency(&runs.low_load),
        memory: runs.memory,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of alerts is not negative")]
fn whole(count: f64) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
