//! What a swap of a plugin does to the alerts of that moment: the 99th percentile of those that are sent while a new version is noticed,
//! compiled and taken, beside that of the second before. First of versions that were never there, then of two that were.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dossier_tests::host::built;

use super::{Place, Target};
use crate::latency::{self, Latency, Way};
use crate::measure::median;
use crate::row::Row;
use crate::site::Plan;
use crate::throughput::{self, enough};

const SWAPS: usize = 10;

/// How long before each swap is looked at.
const BEFORE: Duration = Duration::from_secs(1);

/// How long a new version serves until then, so that nothing of its swap is left.
const SETTLED: Duration = Duration::from_millis(500);

/// Which share of the most that the host can do is sent.
const LOAD: f64 = 0.5;

/// The plugin that is swapped.
const PLUGIN: &str = "geo";

/// What the log says then.
const LOADED: &[u8] = b"\"plugin loaded\"";

/// How long a swap may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// When a new version was put into the folder, and when it served.
type Swap = (Instant, Instant);

pub(super) fn measure(place: &Place<'_>) -> Result<Vec<Target>> {
    let site = Plan::new(&place.queue(), place.state, 1).build()?;
    let mut row = Row::host("swap", site, place.server)?;
    let count = if place.quick { 300 } else { 5000 };
    let rate = throughput::measure(&mut row, place.alerts, count, false)?.rate();
    let rate = throughput::measure(&mut row, place.alerts, enough(rate, 1.0).max(count), false)?.rate() * LOAD;
    let swaps = if place.quick { 2 } else { SWAPS };

    row.place.clear()?;
    let running = row.start()?;
    let (folder, log) = (row.site.path("plugins"), row.site.path("log.ndjson"));
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let swapper = std::thread::spawn(move || {
        let versions = (0..swaps).chain((0..swaps).map(|number| number % 2));
        let done = versions.map(|version| swap(&folder, &log, version)).collect::<Result<Vec<Swap>>>();
        std::thread::sleep(BEFORE / 2);
        ended.store(true, Ordering::Relaxed);
        done
    });
    let time = (SETTLED + BEFORE + Duration::from_secs(1)) * u32::try_from(2 * swaps)?;
    let ways = latency::send(&mut row, place.alerts, rate, time, |_| !over.load(Ordering::Relaxed))?;
    let done = swapper.join().map_err(|_| anyhow::anyhow!("the thread that swaps plugins panicked"))??;
    drop(running);
    let (new, known) = done.split_at(swaps);
    Ok(vec![
        target("a swap of a plugin", new, &ways, rate)?,
        target("a swap to a version that is compiled", known, &ways, rate)?,
    ])
}

/// What swaps of one kind came to.
fn target(what: &str, swaps: &[Swap], ways: &[Way], rate: f64) -> Result<Target> {
    let p99 = |from: Instant, to: Instant| {
        let sent = |way: &&Way| way.sent >= from && way.sent < to;
        Latency::of(ways.iter().filter(sent).map(Way::took)).map(|latency| latency.p99)
    };
    let mut ratios = Vec::new();
    let (mut before, mut during, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for &(put, served) in swaps {
        let (earlier, meanwhile) = (p99(put - BEFORE, put)?, p99(put, served)?);
        ratios.push(meanwhile / earlier);
        before.push(earlier / 1e3);
        during.push(meanwhile / 1e3);
        took.push((served - put).as_secs_f64() * 1e3);
    }
    let number = ratios.len();
    let [before, during, took] = [before, during, took].map(|all| median(all.into_iter()));
    Ok(Target {
        what: format!("p99 of alerts sent during {what}, beside p99 before it"),
        figure: median(ratios.into_iter()),
        at_most: 1.2,
        unit: "",
        of: format!(
            "median of {number} swaps of {took:.0} ms at half load ({rate:.0}/s): {during:.2} ms, and {before:.2} ms before"
        ),
    })
}

/// Waits a while, puts a new version of the plugin into the folder, and waits until it serves.
fn swap(folder: &Path, log: &Path, version: usize) -> Result<Swap> {
    std::thread::sleep(SETTLED + BEFORE);
    let mut bytes = fs::read(built(&format!("plugins/{PLUGIN}.wasm")))?;
    // A custom section: a version of its own that does the same.
    bytes.extend_from_slice(&[0, 6, 4, b's', b'w', b'a', b'p', u8::try_from(version)?]);
    let half = folder.join(".swap");
    fs::write(&half, bytes)?;
    // Only what is written from now on is read, so that looking costs little.
    let mut log = fs::File::open(log)?;
    log.seek(SeekFrom::End(0))?;
    let mut said = Vec::new();
    let put = Instant::now();
    fs::rename(half, folder.join(format!("{PLUGIN}.wasm"))).context("the plugin cannot be replaced")?;
    loop {
        // What was read last may end within the words.
        said.drain(..said.len().saturating_sub(LOADED.len()));
        log.read_to_end(&mut said)?;
        if memchr::memmem::find(&said, LOADED).is_some() {
            return Ok((put, Instant::now()));
        }
        ensure!(put.elapsed() < PATIENCE, "a new version of {PLUGIN} does not serve after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
