//! How many alerts a row takes in a second when they wait already, and what that costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::alerts::Alerts;
use crate::place::Tally;
use crate::process::{memory, processor_time};
use crate::row::{Row, Running};

/// How often it is asked whether the alerts are done.
const ASK: Duration = Duration::from_millis(5);

/// How often memory is looked at, where it is.
const LOOK: Duration = Duration::from_millis(50);

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The most alerts in one run: what is stored of them must have room in memory.
const MOST: f64 = 600_000.0;

/// How many alerts fill the time at this rate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of alerts is not negative")]
pub fn enough(rate: f64, seconds: f64) -> u64 {
    (rate * seconds).min(MOST) as u64
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// How many alerts.
    pub alerts: u64,
    /// From the moment that the host could see them until the last was stored.
    pub took: Duration,
    /// Processor time of the row's process.
    pub host: Duration,
    /// The same of the queue's, where it has one.
    pub server: Option<Duration>,
    /// The most memory of all hosts that was seen; only where it was looked at, which takes time of its own.
    pub memory: u64,
}

impl Throughput {
    /// Alerts in a second.
    pub fn rate(&self) -> f64 {
        self.alerts as f64 / self.took.as_secs_f64()
    }

    /// Processor time of the row's process for each alert, in microseconds.
    pub fn host_us(&self) -> f64 {
        self.host.as_secs_f64() * 1e6 / self.alerts as f64
    }

    /// The same of the queue's.
    pub fn server_us(&self) -> Option<f64> {
        Some(self.server?.as_secs_f64() * 1e6 / self.alerts as f64)
    }
}

/// Takes so many alerts through a row.
///
/// # Errors
/// It does not take all of them.
pub fn measure(row: &mut Row<'_>, alerts: &Alerts, count: u64, look: bool) -> Result<Throughput> {
    row.place.clear()?;
    row.place.fill(alerts, count)?;
    let running = row.start()?;
    through(row, &[&running], count, look)
}

/// The same through several hosts in one group.
///
/// # Errors
/// As [`measure`].
pub fn measure_group(rows: &mut [Row<'_>], alerts: &Alerts, count: u64, look: bool) -> Result<Throughput> {
    let (first, others) = rows.split_first_mut().context("there is no host")?;
    first.place.clear()?;
    first.place.fill(alerts, count)?;
    let all: Vec<_> = std::iter::once(first.start()).chain(others.iter().map(Row::start)).collect::<Result<_>>()?;
    through(first, &all.iter().collect::<Vec<_>>(), count, look)
}

/// Shows what was filled in and waits until it is stored.
fn through(row: &mut Row<'_>, hosts: &[&Running], count: u64, look: bool) -> Result<Throughput> {
    let server = row.place.server();
    let all = |what: fn(u32) -> Result<Duration>| hosts.iter().map(|host| what(host.pid)).sum::<Result<Duration>>();
    let cost = || Ok::<_, anyhow::Error>((all(processor_time)?, server.map(processor_time).transpose()?));
    let (host_before, server_before) = cost()?;
    let held = || hosts.iter().map(|host| memory(host.pid)).sum::<Result<u64>>();
    let (mut peak, mut looked) = (0, Instant::now());
    let fired = Instant::now();
    row.place.fire()?;
    while !row.place.done(count)? {
        ensure!(fired.elapsed() < PATIENCE, "row \"{}\": {count} alerts are not done after {PATIENCE:?}", row.name);
        if look && looked.elapsed() >= LOOK {
            peak = peak.max(held()?);
            looked = Instant::now();
        }
        std::thread::sleep(ASK);
    }
    let took = fired.elapsed();
    let (host, server) = cost()?;
    if look {
        peak = peak.max(held()?);
    }
    let tally = row.place.tally()?;
    ensure!(tally == Tally { stored: count, dead: 0 }, "row \"{}\": of {count} alerts: {tally:?}", row.name);
    Ok(Throughput {
        alerts: count,
        took,
        host: host - host_before,
        server: server.zip(server_before).map(|(after, before)| after - before),
        memory: peak,
    })
}
