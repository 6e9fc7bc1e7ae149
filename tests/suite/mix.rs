//! A mix of faults under load, made from a seed: hosts killed, stopped and frozen, Redis killed, frozen and robbed of its scripts, its
//! group and its clients, plugins swapped, dead letters replayed, and alerts of every kind. In the end the faults stop, the
//! queue is emptied, and `dossier verify` says whether every alert is where it should be, once.
//!
//! `DOSSIER_MIX_SECONDS` says how long it lasts, `DOSSIER_MIX_SEED` which one it is.

mod lanes;
mod plan;

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dossier_tests::happened::happened;
use dossier_tests::host::{Site, field};
use dossier_tests::redis_server::RedisServer;
use serde_json::Value;

use self::lanes::{Mix, put, version};
use crate::queues::Kind;

/// How long it lasts where nothing is said, in seconds.
const SECONDS: u64 = 8;

/// How many lines a host that is killed may take with it: those of alerts that it has just committed, and what its log has not written yet.
const UNTOLD: u64 = 500;

/// How long the queue may take to be emptied in the end.
const DRAIN: Duration = Duration::from_secs(120);

/// Says the seed at the beginning, and once more when it has failed.
struct Seed(u64, &'static str);

impl Seed {
    fn new(kind: &'static str) -> Self {
        let seed = number("DOSSIER_MIX_SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed} on the {kind} queue");
        Self(seed, kind)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, kind) = self;
            eprintln!("seed {seed} failed on the {kind} queue; the same again: cargo xtask faults 51 --seed {seed}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// A site of two steps: one that misbehaves when an alert asks for it, and one that is swapped.
fn site(kind: &Kind) -> Site {
    let config = kind.config().replace("[queue]\n", "[queue]\nmax_alert_size = \"64KiB\"\n");
    let site = Site::new(&format!(
        "{config}[host]\ngrace = \"10s\"\n[plugins]\nprobation = {{ calls = 20, failures = 0.3 }}\n\
         [tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://127.0.0.1:9\"\n\
         [[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\n\
         fuel = 10_000_000_000\ntimeout = \"100ms\"\nmemory = \"4MiB\"\nretries = 1\n\
         [[step]]\nplugin = \"guest\"\n"
    ));
    site.write("t.txt", b"key\n");
    site.write("sent.ids", b"");
    site.install("mischief");
    put(&site, &version(0, ""));
    site
}

fn mix(kind: &Kind, name: &'static str) {
    let seed = Seed::new(name);
    let time = Duration::from_secs(number("DOSSIER_MIX_SECONDS").unwrap_or(SECONDS));
    let site = site(kind);
    let mix = Mix {
        kind,
        site: &site,
        seed: seed.0,
        until: Instant::now() + time,
        over: AtomicBool::new(false),
        done: Mutex::default(),
        kills: AtomicU64::new(0),
        lines: AtomicU64::new(0),
        memory: AtomicU64::new(0),
    };
    mix.run();

    // The faults are over: what is left is finished.
    put(&site, &version(0, ""));
    let mut host = site.command(&["run", "--until-empty"]);
    let log = std::fs::File::options().append(true).open(site.path("log.ndjson")).expect("a log");
    let mut host = host.stdout(log).spawn().expect("dossier runs");
    let deadline = Instant::now() + DRAIN;
    let ended = loop {
        if let Some(ended) = host.try_wait().expect("the host can be asked") {
            break ended;
        }
        if Instant::now() >= deadline {
            let _ = host.kill();
            let _ = host.wait();
            panic!("the queue is not empty after {DRAIN:?}: {}", site.status());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(ended.success(), "the host that empties the queue ended with {ended}");

    let verified = site.dossier(&["verify", "--ids", "sent.ids", "--json"]);
    let ledger: Value = serde_json::from_slice(&verified.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&verified.stderr)));
    assert!(verified.status.success() && ledger["accounted"] == true, "{ledger:#}");
    assert_eq!(ledger["waiting"], 0, "{ledger:#}");

    if let Kind::Redis(_) = kind {
        let counted = site.dossier(&["verify", "--input"]);
        assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stdout));
    }

    let count = |what: &str| ledger[what].as_u64().expect("a number");
    let told = told(&site);
    let of = |outcome: &str| told.get(outcome).copied().unwrap_or_default();
    let (stored, said) = (count("stored"), of("stored") + of("conflict"));
    let kills = mix.kills.load(Ordering::Relaxed);
    assert!(said <= stored, "{said} alerts were said to be stored, and {stored} are");
    assert!(stored - said <= kills * UNTOLD, "{} of {stored} alerts have no line ({kills} kills)", stored - said);
    assert!(count("sent") > 0 && stored > 0 && count("dead") > 0, "{ledger:#}");

    let done = mix.done.lock().expect("nobody panicked while this was held");
    let load = ["Sent", "NotSent"];
    let faults: u64 = done.iter().filter(|(what, _)| !load.contains(&what.as_str())).map(|(_, count)| count).sum();
    let listed: Vec<_> = done.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("{}; told {told:?}; {ledger}", listed.join(", "));
    happened(&format!(
        "{name}: seed {}, {} s, {faults} faults ({kills} hosts killed), {} alerts sent (and {} unsure): {stored} stored, {} dead, none lost \
         or doubled; {} lines went with killed hosts; {} MB at most",
        seed.0,
        time.as_secs(),
        count("sent"),
        count("unsure"),
        count("dead"),
        stored - said,
        mix.memory.load(Ordering::Relaxed) >> 20,
    ));
}

/// How many alerts came to which end, as the log says.
fn told(site: &Site) -> BTreeMap<String, u64> {
    let log = std::fs::File::open(site.path("log.ndjson")).expect("a log");
    let mut told = BTreeMap::new();
    for line in std::io::BufReader::new(log).split(b'\n') {
        let line = line.expect("the log can be read");
        // The last line of a host that was killed may not be whole.
        let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
        let outcome = field(&line, "outcome").and_then(Value::as_str);
        if let (Some(outcome), Some(_)) = (outcome, field(&line, "entry")) {
            *told.entry(outcome.to_owned()).or_default() += 1;
        }
    }
    told
}

#[test]
fn a_mix_of_faults_loses_and_doubles_nothing_on_redis() {
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    mix(&Kind::Redis(server.expect("redis-server starts")), "redis");
}

#[test]
fn a_mix_of_faults_loses_and_doubles_nothing_on_a_directory() {
    mix(&Kind::Directory, "directory");
}
