//! Whether an alert costs as much after many as at the beginning, and whether memory grows: a long run, looked at in tenths. The producer
//! keeps a bounded number of alerts queued, the output is drained, and what is remembered of alerts goes after ten seconds.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use redis::Connection;

use super::{Place, Target, Tenth};
use crate::measure::median;
use crate::place::{STORE, STREAM};
use crate::process::{memory, processor_time};
use crate::row::Row;
use crate::site::Plan;
use crate::throughput;

/// How many alerts are queued at most, and how many are sent together.
const QUEUED: u64 = 50_000;
const TOGETHER: u64 = 1000;

/// How long nothing may be stored.
const PATIENCE: Duration = Duration::from_secs(30);

/// How few alerts the cost after many is compared with, and how often, since processor time is told in hundredths of a second.
const FEW: u64 = 1000;
const TIMES: u32 = 10;

/// What an alert costs in microseconds where a host that was just started takes only a few.
pub(super) fn few(place: &Place<'_>) -> Result<f64> {
    let mut row = Row::host("few", Plan::new(&queue(place), place.state, 1).build()?, place.server)?;
    let runs = (0..TIMES).map(|_| throughput::measure(&mut row, place.alerts, FEW, false).map(|run| run.host_us()));
    Ok(runs.sum::<Result<f64>>()? / f64::from(TIMES))
}

pub(super) fn measure(place: &Place<'_>, count: u64) -> Result<Vec<Tenth>> {
    let site = Plan::new(&queue(place), place.state, 1).build()?;
    let mut row = Row::host("long", site, place.server)?;
    row.place.clear()?;
    let running = row.start()?;
    let log = OpenOptions::new().write(true).open(row.site.path("log.ndjson"))?;
    let server = place.server.pid();
    let cost =
        || Ok::<_, anyhow::Error>((processor_time(running.pid)?, server.map_or(Ok(Duration::ZERO), processor_time)?));
    let mut connection = place.server.connection()?;
    let (mut sent, mut done, mut tenths) = (0, 0, Vec::new());
    let (mut before, mut done_before, mut moved) = (cost()?, 0, Instant::now());
    while done < count {
        let room = QUEUED.saturating_sub(sent - done).min(count - sent).min(TOGETHER);
        send(&mut connection, place, sent, room)?;
        sent += room;
        let drained: u64 = redis::cmd("XTRIM").arg(STORE).arg("MAXLEN").arg(0).query(&mut connection)?;
        if drained > 0 {
            (done, moved) = (done + drained, Instant::now());
            // What the log says is not needed, and would fill the disk.
            log.set_len(0)?;
        } else if room == 0 {
            ensure!(moved.elapsed() < PATIENCE, "the long run stands still after {done} alerts");
            std::thread::sleep(Duration::from_millis(1));
        }
        if done >= count * (tenths.len() as u64 + 1) / 10 {
            let now = cost()?;
            let each =
                |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / (done - done_before) as f64;
            let (host_us, server_us) = (each(now.0, before.0), each(now.1, before.1));
            tenths.push(Tenth { alerts: done, host_us, server_us, memory: memory(running.pid)? });
            (before, done_before) = (now, done);
        }
    }
    let dead: u64 = redis::cmd("XLEN").arg("alerts:dlq").query(&mut connection)?;
    ensure!(done == count && dead == 0, "of {count} alerts {done} were stored and {dead} are dead letters");
    Ok(tenths)
}

/// The queue of both.
fn queue(place: &Place<'_>) -> String {
    format!("{}\ndedupe_window = \"10s\"", place.queue())
}

fn send(connection: &mut Connection, place: &Place<'_>, first: u64, count: u64) -> Result<()> {
    let mut some = redis::pipe();
    for n in first..first + count {
        some.cmd("XADD").arg(STREAM).arg("*").arg("alert").arg(place.alerts.nth(n)).ignore();
    }
    if count > 0 {
        some.exec(connection)?;
    }
    Ok(())
}

/// What the tenths come to; `few` is what an alert costs where there are only a few.
pub(super) fn targets(tenths: &[Tenth], few: f64) -> Vec<Target> {
    let costs = || tenths.iter().map(|tenth| tenth.host_us);
    let (middle, most) = (median(costs()), costs().fold(0.0, f64::max));
    let alerts = tenths.last().map_or(0, |tenth| tenth.alerts);
    // By the end of the second tenth everything has the size that it keeps.
    let (settled, end) = (tenths.get(1), tenths.last());
    let mb = |tenth: Option<&Tenth>| tenth.map_or(0.0, |tenth| tenth.memory as f64 / 1e6);
    vec![
        Target {
            what: format!("cost of an alert over {alerts}, the median tenth, beside the first {FEW}"),
            figure: middle / few,
            at_most: 1.1,
            unit: "",
            of: format!("{middle:.1} µs, and {few:.1} µs (mean of {TIMES} starts)"),
        },
        Target {
            what: format!("cost of an alert over {alerts}: the dearest tenth, beside the median tenth"),
            figure: most / middle,
            at_most: 1.1,
            unit: "",
            of: format!("{most:.1} µs, and {middle:.1} µs"),
        },
        Target {
            what: format!("memory that grows over {alerts} alerts, from the second tenth on (Pss)"),
            figure: mb(end) - mb(settled),
            at_most: 2.0,
            unit: "MB",
            of: format!("{:.1} MB, and {:.1} MB at the end", mb(settled), mb(end)),
        },
    ]
}
