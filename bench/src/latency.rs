//! How long an alert takes from the moment that it is sent until a reader of the store has it.
//!
//! The producer keeps to its schedule whatever happens (an open loop): it writes to a socket and leaves the answers to
//! another thread. An alert was sent when the schedule wants it, however late the producer came to run; the moment at which a reader that
//! blocks on the store gets the record is when it was stored, which is a little later than it was. Both clocks are one, and this program's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::alerts::Alerts;
use crate::row::Row;

/// The fewest alerts that are sent, and the share of them that comes first and is not counted: one in so many.
const FEWEST: f64 = 30.0;
const WARM_UP: usize = 10;

/// At more alerts a second than this they are sent together, this often: more system calls would measure the producer.
const TOGETHER: f64 = 1000.0;
const TICK: Duration = Duration::from_millis(1);

/// How long the last alerts may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// Half of the alerts took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

impl Latency {
    /// Of alerts that took this long.
    ///
    /// # Errors
    /// There are none.
    pub fn of(took: impl Iterator<Item = Duration>) -> Result<Self> {
        let mut took: Vec<_> = took.collect();
        ensure!(!took.is_empty(), "no alert was sent while latencies were measured");
        took.sort_unstable();
        let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e6;
        Ok(Self { p50: at(50), p99: at(99) })
    }
}

/// Sends alerts to a row, or to several hosts in one group, for this long, so many in a second.
///
/// # Errors
/// Not all of them are stored.
pub fn measure(rows: &mut [Row<'_>], alerts: &Alerts, rate: f64, time: Duration) -> Result<Latency> {
    rows.iter_mut().try_for_each(|row| row.place.clear())?;
    let _running = rows.iter().map(Row::start).collect::<Result<Vec<_>>>()?;
    let row = rows.first_mut().context("there is no host")?;
    let fewest = Duration::from_secs_f64(FEWEST / rate);
    let ways = send(row, alerts, rate, time.max(fewest), |elapsed| elapsed < time.max(fewest))?;
    Latency::of(ways[ways.len() / WARM_UP..].iter().map(Way::took))
}

/// The way of one alert.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// When it was to be sent.
    pub sent: Instant,
    /// When it was seen in the store.
    pub stored: Instant,
}

impl Way {
    /// How long it took.
    pub fn took(&self) -> Duration {
        self.stored.saturating_duration_since(self.sent)
    }
}

/// Sends alerts, so many in a second, while `go_on` says so of the time since the first; about `time` is how long that will be. A host
/// runs, and the queue is empty. Gives the ways of all alerts in the order in which they were sent.
///
/// # Errors
/// Not all of them are stored.
pub fn send(
    row: &mut Row<'_>,
    alerts: &Alerts,
    rate: f64,
    time: Duration,
    go_on: impl Fn(Duration) -> bool,
) -> Result<Vec<Way>> {
    let count = Arc::new(AtomicU64::new(u64::MAX));
    let watch = row.place.watch(Arc::clone(&count), time.mul_f64(2.0) + PATIENCE)?;
    let mut sender = row.place.sender()?;
    let mut sent: Vec<Instant> = Vec::new();
    let began = Instant::now();
    let due = |n: usize| {
        let at = n as f64 / rate;
        let tick = TICK.as_secs_f64();
        began + Duration::from_secs_f64(if rate > TOGETHER { (at / tick).ceil() * tick } else { at })
    };
    while go_on(began.elapsed()) {
        let (now, before) = (Instant::now(), sent.len());
        sent.extend((before..).map(due).take_while(|due| *due <= now));
        let some: Vec<_> = (before..sent.len()).map(|n| alerts.nth(n as u64)).collect();
        sender.send(&some)?;
        std::thread::sleep(due(sent.len()).saturating_duration_since(Instant::now()));
    }
    count.store(sent.len() as u64, Ordering::Relaxed);
    let seen = watch.join().map_err(|_| anyhow::anyhow!("the reader of the store panicked"))??;
    ensure!(seen.len() == sent.len(), "row \"{}\": {} of {} alerts were stored", row.name, seen.len(), sent.len());
    let way = |(n, stored)| Some(Way { sent: *sent.get(usize::try_from(n).ok()?)?, stored });
    let mut ways: Vec<_> = seen.into_iter().filter_map(way).collect();
    ways.sort_unstable_by_key(|way| way.sent);
    Ok(ways)
}
