//! `dossier plugin bench`: what a call costs, in fresh and in reused instances, and the limits that this suggests.
//!
//! One call at a time, as a host makes it. The rule for limits: fuel is 4 times the most that was used in a fresh instance, rounded
//! up to two digits; memory is the most that a fresh instance used, up to the next MiB; an answer may have 4 times the most bytes, up to the next
//! KiB; the time is 20 times the 99th percentile, at least 100 ms, and not suggested where the plugin may ask HTTP.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::cli::output::{Out, count, grouped, printable, remark};
use crate::config::StepConfig;
use crate::pipeline::{Answer, Failure, Given};
use crate::plugin::trial::{Trial, Web, Workshop};

use super::fixture::{Fixture, files};
use super::run::tell;
use super::trying::{Beside, Provision, Subject, alerts, given, kind};

/// Calls that are made before any is counted.
const WARM_UP: usize = 5;

/// How many calls are remembered, at most.
const MAX_SAMPLES: usize = 10_000_000;

/// What `dossier plugin bench` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin bench                              On the fixtures in tests/ that expect a result
  dossier plugin bench geo.wasm --fixture tests/private.json
  dossier plugin bench geo.wasm --alert alerts.ndjson --table geo=countries.csv --seconds 10
  dossier plugin bench geo.wasm --alert alerts.ndjson --step geo --config dossier.toml

The limits that it suggests: fuel is 4 times the most that was used, memory the most that was used up to the next MiB, an answer 4
times the largest, the time 20 times the 99th percentile.")]
pub struct Arguments {
    /// The component, or the folder of a plugin
    #[arg(value_name = "PLUGIN", default_value = ".")]
    component: PathBuf,
    /// A fixture, or a folder of them [default: tests/ beside the component, where there is no --alert]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["alert", "settings", "tables", "step", "network"])]
    fixture: Option<PathBuf>,
    /// A file with alerts, one a line; can be given more than once
    #[arg(long, value_name = "FILE")]
    alert: Vec<PathBuf>,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    provision: Provision,
}

/// A step with the alerts that it is called with.
struct Case {
    step: StepConfig,
    web: Web,
    alerts: Vec<Arc<Given>>,
}

/// What was measured of one kind of instance.
#[derive(Default)]
struct Samples {
    nanoseconds: Vec<u64>,
    fuel: Vec<u64>,
    memory: Vec<u64>,
    answer: u64,
    failed: u64,
    failure: Option<String>,
    took: Duration,
}

/// Measures.
///
/// # Errors
/// The component, an alert or a fixture cannot be used, or every call fails.
pub async fn bench<W: Write>(arguments: &Arguments, file: &Path, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let subject = Subject::read(&arguments.component)?;
    let workshop = Workshop::open()?;
    let cases = cases(arguments, &subject, file, &workshop)?;
    let alerts: usize = cases.iter().map(|case| case.alerts.len()).sum();
    let share = Duration::from_secs(arguments.seconds) / 2 / u32::try_from(cases.len()).unwrap_or(u32::MAX);
    let (mut fresh, mut reused) = (Samples::default(), Samples::default());
    let mut about = None;
    for case in &cases {
        for (samples, reuse) in [(&mut fresh, 1), (&mut reused, u32::MAX)] {
            let step = StepConfig { reuse, ..case.step.clone() };
            let loaded = workshop.load(&subject.bytes, step, &case.web).await;
            tell(&workshop.take_told());
            let trial = loaded.map_err(|why| anyhow::anyhow!("{} is refused: {why}", subject.path.display()))?;
            samples.measure(&trial, &case.alerts, share).await;
            about = Some(trial.about);
        }
    }
    let about = about.context("there is nothing to measure")?;
    writeln!(
        out,
        "{} {}, {}: {}, one call at a time\n",
        printable(&about.name),
        printable(&about.version),
        about.stage,
        count(alerts as u64, "alert")
    )?;
    if let (0, Some(failure)) = (fresh.nanoseconds.len(), &fresh.failure) {
        bail!("every call failed: {}", printable(failure));
    }
    write_table(&mut fresh, &mut reused, out)?;
    if let Some(failure) = &fresh.failure {
        remark(&format!(
            "{} failed and are not counted; the last: {}",
            count(fresh.failed, "call"),
            printable(failure)
        ));
    }
    if let Some(why) = &about.plain {
        writeln!(out, "\nIt is configured in each fresh instance, since it cannot be copied ({}).", printable(why))?;
    }
    let asks_http = about.imports.iter().any(|import| import.starts_with(&format!("{}http@", crate::plugin::PACKAGE)));
    write_limits(&mut fresh, &reused, asks_http, out)?;
    Ok(ExitCode::SUCCESS)
}

fn cases(arguments: &Arguments, subject: &Subject, file: &Path, workshop: &Workshop) -> anyhow::Result<Vec<Case>> {
    if !arguments.alert.is_empty() {
        let stand = arguments.provision.stand(subject, file, workshop)?;
        let mut all = Vec::new();
        for path in &arguments.alert {
            for alert in alerts(path)? {
                let given = given(&stand.decoder, &stand.tables, alert, Beside::default());
                all.push(given.with_context(|| printable(&path.display().to_string()))?);
            }
        }
        ensure!(!all.is_empty(), "there is no alert in what --alert names");
        return Ok(vec![Case { step: stand.step, web: stand.web, alerts: all }]);
    }
    let path = arguments
        .fixture
        .clone()
        .unwrap_or_else(|| subject.path.parent().map_or_else(|| PathBuf::from("tests"), |folder| folder.join("tests")));
    let mut cases = Vec::new();
    for file in files(&path).context("give it alerts with --alert, or fixtures with --fixture")? {
        let fixture = Fixture::read(&file, subject)?;
        let fails = fixture.expected.as_ref().and_then(|expected| expected.failure.as_ref());
        if fails.is_some_and(|failure| failure.kind != "not-applicable") {
            continue;
        }
        let web = Web::Recorded(Arc::new(fixture.recorded(None)));
        cases.push(Case { step: fixture.step, web, alerts: vec![fixture.given] });
    }
    ensure!(!cases.is_empty(), "every fixture in {} expects a failure", printable(&path.display().to_string()));
    Ok(cases)
}

impl Samples {
    /// Calls until the time is over, at least once with each alert.
    async fn measure(&mut self, trial: &Trial, alerts: &[Arc<Given>], time: Duration) {
        for given in alerts.iter().cycle().take(WARM_UP) {
            trial.call(Arc::clone(given)).await;
        }
        let began = Instant::now();
        for (at, given) in alerts.iter().cycle().enumerate() {
            if at >= alerts.len() && (began.elapsed() >= time || self.nanoseconds.len() >= MAX_SAMPLES) {
                break;
            }
            let called = trial.call(Arc::clone(given)).await;
            match &called.outcome {
                Ok(answer) => self.answer = self.answer.max(size(answer)),
                Err(Failure::NotApplicable(_)) => {}
                Err(failure) => {
                    let (kind, detail) = kind(failure);
                    self.failed += 1;
                    self.failure = Some(format!("{kind}: {detail}"));
                    continue;
                }
            }
            self.nanoseconds.push(u64::try_from(called.cost.duration.as_nanos()).unwrap_or(u64::MAX));
            self.fuel.push(called.cost.fuel);
            self.memory.push(called.cost.memory);
        }
        self.took += began.elapsed();
    }
}

/// The bytes of an answer that its limit counts.
fn size(answer: &Answer) -> u64 {
    let observables = answer.observables.iter().map(|one| one.kind.len() + one.role.len() + one.value.len());
    let reasons = answer.verdict.iter().flat_map(|verdict| verdict.reasons.iter().map(String::len));
    (answer.fields.get().len() + observables.sum::<usize>() + reasons.sum::<usize>()) as u64
}

/// The least, the median and the 99th percentile.
fn spread(values: &mut [u64]) -> [u64; 3] {
    values.sort_unstable();
    let at = |share: usize| values.get((values.len().saturating_sub(1)) * share / 100).copied().unwrap_or_default();
    [at(0), at(50), at(99)]
}

/// How a figure is shown.
type Shown = fn(u64) -> String;

fn write_table<W: Write>(fresh: &mut Samples, reused: &mut Samples, out: &mut Out<W>) -> std::io::Result<()> {
    let time = |nanoseconds: u64| match nanoseconds {
        0..10_000_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        _ => format!("{:.1} ms", nanoseconds as f64 / 1e6),
    };
    let kib = |bytes: u64| format!("{} KiB", grouped(bytes >> 10));
    writeln!(out, "{:<10} {:<7} {:>12} {:>12} {:>12} {:>14}", "", "", "min", "median", "p99", "calls/s")?;
    for (name, samples) in [("fresh", &mut *fresh), ("reused", &mut *reused)] {
        let each = samples.nanoseconds.len() as f64 / samples.took.as_secs_f64().max(1e-9);
        let rows: [(&str, &mut Vec<u64>, Shown); 3] = [
            ("time", &mut samples.nanoseconds, time),
            ("fuel", &mut samples.fuel, grouped),
            ("memory", &mut samples.memory, kib),
        ];
        for (at, (what, values, shown)) in rows.into_iter().enumerate() {
            let [least, median, most] = spread(values).map(shown);
            let (name, each) = if at == 0 { (name, grouped(each as u64)) } else { ("", String::new()) };
            let line = format!("{name:<10} {what:<7} {least:>12} {median:>12} {most:>12} {each:>14}");
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(())
}

fn write_limits<W: Write>(
    fresh: &mut Samples,
    reused: &Samples,
    asks_http: bool,
    out: &mut Out<W>,
) -> std::io::Result<()> {
    let most = |values: &[u64]| values.iter().copied().max().unwrap_or_default();
    let fuel = two_digits(most(&fresh.fuel).saturating_mul(4));
    // What an instance that is kept has grown to says how long this ran, not what a call takes.
    let memory = most(&fresh.memory).div_ceil(1 << 20).max(1);
    let answer = fresh.answer.max(reused.answer).saturating_mul(4).div_ceil(1 << 10).max(1);
    // Not the slowest: that is often the machine's doing.
    let timeout = (spread(&mut fresh.nanoseconds)[2].saturating_mul(20) / 1_000_000).div_ceil(50).max(2) * 50;
    writeln!(out, "\nLimits for its [[step]]:\n")?;
    writeln!(out, "fuel = {}  # 4 times the most that was used", grouped(fuel).replace(',', "_"))?;
    writeln!(out, "memory = \"{memory}MiB\"  # the most that was used, up to the next MiB")?;
    writeln!(out, "answer = \"{answer}KiB\"  # 4 times the largest")?;
    if !asks_http {
        writeln!(out, "timeout = \"{timeout}ms\"  # 20 times the 99th percentile")?;
    }
    Ok(())
}

/// Rounded up to two digits that are not zero.
fn two_digits(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_up_to_two_digits() {
        for (number, rounded) in
            [(0, 0), (7, 7), (99, 99), (100, 100), (101, 110), (12_345, 13_000), (990_001, 1_000_000)]
        {
            assert_eq!(two_digits(number), rounded, "{number}");
        }
    }

    #[test]
    fn the_spread_of_nothing_and_of_something() {
        assert_eq!(spread(&mut []), [0, 0, 0]);
        assert_eq!(spread(&mut [3]), [3, 3, 3]);
        assert_eq!(spread(&mut (0..=100).rev().collect::<Vec<_>>()), [0, 50, 99]);
    }
}
