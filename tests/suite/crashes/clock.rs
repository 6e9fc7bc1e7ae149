//! A wall clock that jumps by an hour, there and back, while a host (and its Redis) is at work. The jump is made before libc: the processes
//! see it as they would see a real one, and the clock that only ever goes forward is left alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, wait_for};
use dossier_tests::redis_server::RedisServer;

use super::{mischief, slow};
use crate::queues::Kind;

/// A clock that can be moved, for the processes that are started with it.
struct Clock {
    folder: tempfile::TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("suite/crashes/clock.c");
        let output =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(clock.library()).arg(source).output();
        let output = output.expect("a C compiler links every Rust program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        clock.shift(0);
        clock
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("shift")
    }

    /// Moves it so many seconds away from the true time.
    fn shift(&self, seconds: i64) {
        let half = self.folder.path().join("half");
        std::fs::write(&half, seconds.to_string()).expect("a file");
        std::fs::rename(half, self.file()).expect("the file in its place");
    }

    /// The variables of a process that sees it.
    fn variables(&self) -> [String; 2] {
        [format!("LD_PRELOAD={}", self.library().display()), format!("CLOCK_SHIFT={}", self.file().display())]
    }

    /// A host that sees it.
    fn start(&self, site: &Site) -> dossier_tests::host::Host {
        let variables = self.variables();
        let dossier = built("release/dossier");
        let words = [&variables[0], &variables[1], dossier.to_str().expect("a plain path"), "run"];
        site.start_as(site.program(Path::new("env"), &words))
    }
}

/// How long a call of the plugin may take.
const TIMEOUT: Duration = Duration::from_secs(5);

#[test]
fn a_clock_that_jumps_an_hour_there_and_back_ends_no_call_early_or_late_and_loses_nothing() {
    let clock = Clock::new();
    let variables = clock.variables();
    let launcher = ["env", &variables[0], &variables[1]];
    let server = RedisServer::under(&launcher, &[]).expect("redis-server starts");
    for kind in [Kind::Directory, Kind::Redis(server)] {
        clock.shift(0);
        let step = format!(
            "[[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\nretries = 2\n\
             timeout = \"{}s\"\nfuel = 1_000_000_000_000\n",
            TIMEOUT.as_secs()
        );
        let site = mischief(&kind, &step);
        let host = clock.start(&site);
        host.admin();
        let mut expected = 0;
        let mut took = Vec::new();
        let mut ages = Vec::new();
        // Forward, back by more than that, and home.
        for (round, seconds) in [3600, -3600, 0].into_iter().enumerate() {
            let id = |what: &str| format!("{what}-{round}");
            // One call goes on for ever, one is away for a while, many are short.
            site.send(format!("{{\"id\":\"{}\",\"mischief\":\"loop\"}}\n", id("loop")).as_bytes());
            let began = Instant::now();
            site.send(format!("{{\"id\":\"{}\",\"mischief\":\"unavailable\"}}\n", id("away")).as_bytes());
            site.send(&(0..20).flat_map(|n| slow(&format!("{}-{n}", id("short")), 20_000_000)).collect::<Vec<_>>());
            wait_for("the calls to run", || (site.status()["in_flight"].as_u64() > Some(0)).then_some(()));
            clock.shift(seconds);
            site.send(&(20..40).flat_map(|n| slow(&format!("{}-{n}", id("short")), 20_000_000)).collect::<Vec<_>>());
            expected += 40;
            let age = || {
                let metrics = host.get("/metrics").1;
                let line = metrics.lines().find_map(|line| line.strip_prefix("dossier_queue_oldest_age_seconds "));
                line.and_then(|age| age.parse::<f64>().ok()).expect("the age of the oldest")
            };
            let mut oldest = 0.0_f64;
            wait_for("the endless call to end", || {
                let now = age();
                assert!(now >= 0.0, "{now}");
                oldest = oldest.max(now);
                kind.dead(&site)
                    .iter()
                    .any(|(_, bytes)| bytes.starts_with(format!("{{\"id\":\"loop-{round}").as_bytes()))
                    .then_some(())
            });
            let call = began.elapsed();
            let limits = TIMEOUT - Duration::from_millis(100)..TIMEOUT + Duration::from_secs(30);
            assert!(limits.contains(&call), "a jump of {seconds} s ended a call after {call:?}");
            took.push(call);
            wait_for("the others", || {
                (kind.records(&site).len() == expected && kind.dead(&site).len() == 2 * (round + 1)).then_some(())
            });
            // What waited across a jump, or is looked at by a clock that is ahead, seems an hour older at most, and never less than
            // nothing.
            assert!(oldest <= 3600.0 + 60.0, "a jump of {seconds} s made an age of {oldest} s");
            ages.push(oldest);
        }
        // Else the clock was not moved at all, and nothing is shown.
        assert!(ages.iter().any(|age| *age > 3000.0), "no jump was seen: {ages:?}");
        let mut reasons: Vec<_> = kind.dead(&site).into_iter().map(|(reason, _)| reason).collect();
        reasons.sort();
        assert_eq!(reasons, ["timeout", "timeout", "timeout", "unavailable", "unavailable", "unavailable"]);
        let ids: std::collections::BTreeSet<_> =
            kind.records(&site).iter().map(|record| record["id"].to_string()).collect();
        assert_eq!(ids.len(), 120);
        assert_eq!(host.stop(), Some(0));
        let took: Vec<_> = took.iter().map(|took| format!("{:.1}", took.as_secs_f64())).collect();
        happened(&format!(
            "{}: +1 h, -2 h, +1 h: endless calls ended after {} s (limit {} s), ages at most {:.0} s, 120 stored once",
            kind.name(),
            took.join(", "),
            TIMEOUT.as_secs(),
            ages.iter().copied().fold(0.0, f64::max)
        ));
    }
}
