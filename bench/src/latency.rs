//! How long an alert takes from the moment that it is sent until a reader of the store has it.
//!
//! The producer keeps to its schedule whatever happens (an open loop): it writes to a socket and leaves the answers to
//! another thread. The moment before it writes is when an alert was sent; the moment at which a reader that blocks on the store gets the
//! record is when it was stored, which is a little later than it was. Both clocks are one, and this program's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::alerts::Alerts;
use crate::row::Row;

/// The fewest alerts that are sent, and the share of them that comes first and is not counted.
const FEWEST: f64 = 30.0;
const WARM_UP: u64 = 10;

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

/// Sends alerts to a row for this long, so many in a second.
///
/// # Errors
/// Not all of them are stored.
pub fn measure(row: &mut Row<'_>, alerts: &Alerts, rate: f64, time: Duration) -> Result<Latency> {
    row.place.clear()?;
    let _running = row.start()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of alerts is not negative")]
    let count = (rate * time.as_secs_f64()).max(FEWEST) as u64;
    let watch = row.place.watch(count, time.mul_f64(2.0) + PATIENCE)?;
    let mut sender = row.place.sender()?;
    let mut sent: Vec<Instant> = Vec::with_capacity(usize::try_from(count)?);
    let began = Instant::now();
    while (sent.len() as u64) < count {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of alerts is not negative"
        )]
        let due = ((began.elapsed().as_secs_f64() * rate) as u64 + 1).min(count);
        let some: Vec<_> = (sent.len() as u64..due).map(|n| alerts.nth(n)).collect();
        let now = Instant::now();
        sender.send(&some)?;
        sent.extend(some.iter().map(|_| now));
        let next = Duration::from_secs_f64(sent.len() as f64 / rate).saturating_sub(began.elapsed());
        std::thread::sleep(if rate > TOGETHER { next.max(TICK) } else { next });
    }
    let seen = watch.join().map_err(|_| anyhow::anyhow!("the reader of the store panicked"))??;
    ensure!(seen.len() as u64 == count, "row \"{}\": {} of {count} alerts were stored in time", row.name, seen.len());
    let counted = seen.into_iter().filter(|(n, _)| *n >= count / WARM_UP);
    let took =
        counted.filter_map(|(n, stored)| Some(stored.saturating_duration_since(*sent.get(usize::try_from(n).ok()?)?)));
    let mut took: Vec<_> = took.collect();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e6;
    Ok(Latency { p50: at(50), p99: at(99) })
}
