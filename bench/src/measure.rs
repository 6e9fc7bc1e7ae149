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
use crate::row::{self, Row, Same};
use crate::site;
use crate::throughput::{self, Throughput};

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
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// How many runs each latency is the median of; none with 0
    #[arg(long, default_value_t = 3)]
    latency_runs: usize,
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
    latency_runs: usize,
    seconds: f64,
    rows: Vec<Figures>,
    /// Peers that were there and did not do what they should, and why.
    failed: Vec<String>,
}

/// A row. Times are in microseconds, memory is in bytes.
#[derive(Debug, Serialize)]
struct Figures {
    name: String,
    about: String,
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
/// A row that is no peer does not take its alerts, or makes other records than those before it.
pub fn run(arguments: &Arguments) -> Result<()> {
    row::check_built();
    let (runs, seconds) = if arguments.quick { (1, 0.2) } else { (arguments.runs, arguments.seconds) };
    let latency_runs = if arguments.quick { 1 } else { arguments.latency_runs };
    let alerts = Alerts::load()?;
    let server = RedisServer::start()?;
    let state = tempfile::tempdir()?;
    let (mut known, mut failed) = (BTreeMap::new(), Vec::new());
    let mut rows = Vec::new();
    for mut row in Row::chosen(&arguments.rows, &arguments.peers, &server, state.path())? {
        match prepare(&mut row, &alerts, seconds, arguments.quick, &mut known) {
            Ok(runs) => rows.push((row, runs)),
            Err(error) if row.peer => {
                eprintln!("the row \"{}\" is left out: {error:#}", row.name);
                failed.push(format!("{}: {error:#}", row.name));
            }
            Err(error) => return Err(error),
        }
    }
    for run in 0..runs {
        for (row, runs) in &mut rows {
            let throughput = throughput::measure(row, &alerts, runs.count, false)?;
            eprintln!("run {run}, {}: {:.0} alerts/s", row.name, throughput.rate());
            runs.throughput.push(throughput);
        }
    }
    for run in 0..latency_runs {
        for (row, runs) in &mut rows {
            let rate = median(runs.throughput.iter().map(Throughput::rate));
            let half =
                latency::measure(std::slice::from_mut(row), &alerts, rate / 2.0, Duration::from_secs_f64(seconds))?;
            let low =
                latency::measure(std::slice::from_mut(row), &alerts, rate / 100.0, Duration::from_secs_f64(seconds))?;
            eprintln!("run {run}, {}: p99 {:.0} µs at half load, {:.0} µs at 1 %", row.name, half.p99, low.p99);
            runs.half_load.push(half);
            runs.low_load.push(low);
        }
    }

    let figures = rows.iter().map(|(row, runs)| figures(row, runs, &alerts)).collect();
    let (batch, reuse) = (site::BATCH, site::REUSE);
    let alerts = alerts.source.clone();
    let report = Report { alerts, batch, reuse, runs, latency_runs, seconds, rows: figures, failed };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Takes a row's first alerts through it: compares its records, and finds out how many alerts fill the time.
fn prepare(row: &mut Row<'_>, alerts: &Alerts, seconds: f64, quick: bool, known: &mut Known) -> Result<Runs> {
    let first = if quick { 300 } else { 2000 };
    let rate = throughput::measure(row, alerts, first, quick)?.rate();
    compare(row, known)?;
    let count = throughput::enough(rate, seconds).max(first);
    let again = throughput::measure(row, alerts, count, true)?;
    let count = throughput::enough(again.rate(), seconds).max(first);
    Ok(Runs { memory: again.memory, count, ..Runs::default() })
}

/// What records say, by their ids.
type Known = BTreeMap<String, [Value; 3]>;

/// Whether a row found the same as those before it: otherwise they do not do the same work.
fn compare(row: &mut Row<'_>, known: &mut Known) -> Result<()> {
    if row.same == Same::Nothing {
        return Ok(());
    }
    let (first, mut met) = (known.is_empty(), 0);
    let records = row.place.records()?;
    let count = records.len();
    for (id, record) in records {
        met += usize::from(known.contains_key(&id));
        let found = ["observables", "enrichment", "verdict"].map(|part| record[part].clone());
        for step in site::PLUGINS.iter().filter(|step| row.same == Same::All || **step != "verdict") {
            ensure!(found[1][step].is_object(), "row \"{}\": the step {step} is missing", row.name);
        }
        let before = known.entry(id).or_insert_with(|| found.clone());
        let same = match row.same {
            Same::All => *before == found,
            _ => essence(before) == essence(&found),
        };
        let differs = before.iter().zip(&found).find(|(before, found)| before != found);
        let [before, found] =
            differs.map_or_else(Default::default, |(before, found)| [before, found].map(Value::to_string));
        ensure!(same, "row \"{}\" has {found} where another has {before}", row.name);
    }
    // Alerts are the same for all, so what has other ids is not what was asked for.
    ensure!(
        first || met * 2 > count,
        "row \"{}\": {met} of its {count} records are of alerts that others had",
        row.name
    );
    Ok(())
}

/// What was looked up and what it came to, without the words.
fn essence([observables, enrichment, verdict]: &[Value; 3]) -> Value {
    let each = |list: &Value, fields: &[&str]| -> Vec<Value> {
        let one = |value: &Value| fields.iter().map(|field| value.pointer(field).cloned()).collect::<Vec<_>>();
        list.as_array().into_iter().flatten().map(|value| serde_json::json!(one(value))).collect()
    };
    // Peers look addresses up and look for nothing else.
    let addresses: Vec<_> = observables.as_array().into_iter().flatten().filter(|one| one["type"] == "ip").collect();
    serde_json::json!([
        addresses,
        enrichment["ip-reputation"]["score"],
        each(&enrichment["ip-reputation"]["addresses"], &["/address", "/score", "/feeds/0/value"]),
        each(&enrichment["geo"]["addresses"], &["/address", "/country_code"]),
        each(&enrichment["asset"]["assets"], &["/asset"]),
        enrichment["asset"]["criticality"],
        [&verdict["label"], &verdict["score"]],
    ])
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
        name: row.name.clone(),
        about: row.about.clone(),
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

/// The one in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
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
