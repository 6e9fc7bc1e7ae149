//! A hundred swaps of a plugin while its queue is never empty: good versions, broken files, half-written ones, versions that ask
//! for more, versions that trap, and versions that come back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dossier::digest::sha256_hex;
use dossier_tests::guest::framed;
use dossier_tests::happened::happened;
use dossier_tests::host::{Host, Site, wait_for};
use dossier_tests::redis_server::RedisServer;
use serde_json::Value;

use super::{alerts, greedy, put, site, told};
use crate::queues::Kind;

const SWAPS: u32 = 100;

/// How many alerts wait at least; more than are in flight.
const BACKLOG: u64 = 600;
const CHUNK: u32 = 300;

/// How a version says in the log that it failed.
const TAKEN_OUT: &str = "plugin taken out; replay what it failed on with dossier dlq replay --digest";

/// A version that works for a while (what the processor bears is what bounds the number of alerts then), does this, and
/// answers with its number.
fn version(number: u32, also: &str) -> Vec<u8> {
    framed(
        "guest",
        &format!(
            "(func $enrich (param $amount i32) (local $left i32)
               (local.set $left (i32.const 1000000))
               (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
               {also}
               (call $saw (i64.const {number})))"
        ),
    )
}

/// How many alerts are in the queue, in flight or not.
fn backlog(kind: &Kind, site: &Site) -> u64 {
    match kind {
        Kind::Directory => std::fs::read_dir(site.path("queue/pending")).expect("a folder").count() as u64,
        Kind::Redis(server) => server.ask(&["XLEN", "alerts"]).expect("the server runs"),
    }
}

/// Sends alerts so that there are always some, until told to stop; gives how many were sent and how few there ever were.
fn feed(kind: &Kind, site: &Site, stop: &AtomicBool) -> (u32, u64) {
    let (mut sent, mut least) = (CHUNK, u64::MAX);
    site.send(&alerts(0..sent));
    while !stop.load(Ordering::Relaxed) {
        let waiting = backlog(kind, site);
        least = least.min(waiting);
        if waiting < BACKLOG {
            site.send(&alerts(sent..sent + CHUNK));
            sent += CHUNK;
        } else {
            // Whoever asks without a pause takes the processor from the host.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    (sent, least)
}

/// How often a version has passed its probation.
fn passes(host: &Host, version: &[u8]) -> usize {
    let digest = sha256_hex(version);
    let passed =
        |line: &&Value| line.to_string().contains("passed its probation") && line.to_string().contains(&digest);
    host.log().iter().filter(passed).count()
}

/// What came of the swaps: the number that each version answers with that ever served, and the versions that were taken out.
#[derive(Default)]
struct Swapped {
    numbers: BTreeMap<String, u32>,
    taken_out: BTreeSet<String>,
}

impl Swapped {
    /// Swaps in what the number says, and waits until the host has dealt with it.
    fn swap(&mut self, site: &Site, host: &Host, number: u32) {
        match number % 5 {
            // Bytes that are no component, or only begin as one does.
            0 => {
                let begin: &[u8] = if number.is_multiple_of(2) { b"" } else { b"\0asm\x0d\0\x01\0" };
                let corrupt = [begin, number.to_string().repeat(100).as_bytes()].concat();
                put(site, &corrupt);
                told(host, "plugin refused", &corrupt);
            }
            // As cp does on a slow disk: in place, and whoever looks in between sees a half.
            1 => {
                let whole = self.serves(number, "");
                let (half, rest) = whole.split_at(whole.len() / 2);
                let mut file = std::fs::File::create(site.path("plugins/guest.wasm")).expect("a file");
                file.write_all(half).expect("the disk has room");
                told(host, "plugin refused", half);
                file.write_all(rest).expect("the disk has room");
                told(host, "plugin passed its probation", &whole);
            }
            2 => {
                let greedy = greedy(version(number, ""));
                put(site, &greedy);
                told(host, "plugin refused", &greedy);
            }
            // Half of the alerts are too much for it; what it answers to the others is as good as any.
            3 => {
                let bad = self.serves(number, "(if (i32.lt_u (local.get $amount) (i32.const 5)) (then unreachable))");
                put(site, &bad);
                told(host, TAKEN_OUT, &bad);
                self.taken_out.insert(sha256_hex(&bad));
            }
            // One that was good two rounds before: it has to prove itself again.
            _ => {
                let good = self.serves(number.saturating_sub(8), "");
                let passed = passes(host, &good);
                put(site, &good);
                wait_for("it to pass again", || (passes(host, &good) > passed).then_some(()));
            }
        }
    }

    fn serves(&mut self, number: u32, also: &str) -> Vec<u8> {
        let version = version(number, also);
        self.numbers.insert(sha256_hex(&version), number);
        version
    }
}

/// Ids of the records, each of which names one version that served and holds what that one answers.
fn check(records: &[Value], swapped: &Swapped) -> BTreeSet<String> {
    let id = |record: &Value| record["id"].as_str().expect("an id").to_owned();
    for record in records {
        let steps = record["pipeline"]["steps"].as_array().expect("a list");
        let number = swapped.numbers.get(steps[0]["sha256"].as_str().expect("a digest"));
        assert!(steps.len() == 1 && number.is_some(), "{record}");
        assert_eq!(record["enrichment"]["guest"]["saw"].as_u64(), number.map(|&number| number.into()), "{record}");
    }
    let ids: BTreeSet<_> = records.iter().map(id).collect();
    assert_eq!(ids.len(), records.len(), "nothing is stored twice");
    ids
}

fn a_hundred_swaps(kind: &Kind) {
    // A line for each alert would be most of what the test reads.
    let quiet = "[log]\nlevel = \"error,dossier::plugin=info\"\n";
    let mut swapped = Swapped::default();
    let site = site(kind, quiet, &swapped.serves(SWAPS, ""));
    let host = site.start();
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let (sent, least) = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(kind, &site, &stop));
        let stopped = Stop(&stop);
        told(&host, "plugin passed its probation", &version(SWAPS, ""));
        for number in 0..SWAPS {
            swapped.swap(&site, &host, number);
        }
        drop(stopped);
        feeder.join().expect("the feeder ends")
    });
    let took = started.elapsed();
    site.drained();

    let dead = site.succeed(&["dlq", "list", "--json"]);
    let dead: Vec<Value> = dead.lines().map(|letter| serde_json::from_str(letter).expect("it is JSON")).collect();
    for letter in &dead {
        assert_eq!(letter["reason"], "trap", "{letter}");
        assert!(swapped.taken_out.contains(letter["step"]["sha256"].as_str().expect("a digest")), "{letter}");
    }
    let records = kind.records(&site);
    happened(&format!(
        "{SWAPS} swaps in {} s under {sent} alerts, at least {least} in the queue: {} stored by one digest each, {} dead by {} bad \
         versions and replayed, none lost",
        took.as_secs(),
        records.len(),
        dead.len(),
        swapped.taken_out.len()
    ));
    assert!(least > 0, "the queue was empty once");
    assert_eq!(swapped.taken_out.len() as u32, SWAPS / 5);
    let stored = check(&records, &swapped);
    let on_probation = records.iter().filter(|record| {
        swapped.taken_out.contains(record["pipeline"]["steps"][0]["sha256"].as_str().expect("a digest"))
    });
    assert!(on_probation.count() > 0, "what a version answers while it is on probation counts");
    assert_eq!(stored.len() + dead.len(), sent as usize, "nothing is lost, and nothing is both");

    for digest in &swapped.taken_out {
        site.succeed(&["dlq", "replay", "--digest", &digest[..16]]);
    }
    site.drained();
    assert_eq!(site.status()["dead"], 0);
    assert_eq!(check(&kind.records(&site), &swapped).len(), sent as usize);
    assert_eq!(host.stop(), Some(0));
}

/// Stops the feeder, also when a swap fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_hundred_swaps_at_full_load_lose_and_double_nothing_on_redis() {
    a_hundred_swaps(&Kind::Redis(RedisServer::start().expect("redis-server starts")));
}

#[test]
fn a_hundred_swaps_at_full_load_lose_and_double_nothing_on_a_directory() {
    a_hundred_swaps(&Kind::Directory);
}
