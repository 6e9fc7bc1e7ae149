//! Hosts that are killed with -9: wherever it hurts, and at any moment. Whatever happens, every alert that was sent ends in the store or
//! among the dead letters, once.
//!
//! A host is cut at a failpoint by `dossier-failpoints`, the same program built for tests; the host that comes after it is `dossier`.

mod again;
mod clock;
mod disk;
mod hosts;
mod ids;
mod poison;
mod steps;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use dossier_tests::alerts;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, wait_for};
use serde_json::Value;

use crate::queues::{Kind, both};

/// Runs `dossier` to its end; true when it was killed at the failpoint, false when it ended well without having met it.
fn cut(site: &Site, arguments: &[&str], failpoint: &str) -> bool {
    let mut command = site.program(&built("release/dossier-failpoints"), arguments);
    let output = command.env("DOSSIER_FAILPOINT", failpoint).output().expect("dossier-failpoints runs");
    let said = || String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    match output.status.signal() {
        Some(9) => true,
        _ if output.status.success() => false,
        _ => panic!("{arguments:?} with {failpoint} ended with {}: {}", output.status, said()),
    }
}

/// What was sent, by what has to become of it.
#[derive(Default, Clone)]
struct Sent {
    /// The ids of alerts that are to be stored.
    good: BTreeSet<String>,
    /// The bytes of those that are to be buried.
    bad: BTreeSet<Vec<u8>>,
}

impl Sent {
    /// Sends alerts that no plugin is needed for: good ones, and some that are no objects.
    fn send(kind: &Kind, site: &Site, good: std::ops::Range<u32>, bad: std::ops::Range<u32>) -> Self {
        site.send(&alerts::suricata(good.clone()));
        let bad: BTreeSet<_> = bad.map(|n| format!("[{n}]").into_bytes()).collect();
        bad.iter().for_each(|bytes| kind.put(site, bytes));
        Self { good: good.map(|n| format!("alert-{n:05}")).collect(), bad }
    }

    /// Sees to it that everything is where it belongs, once, and nothing else anywhere. Gives how often each alert was delivered.
    fn settled(&self, kind: &Kind, site: &Site) -> BTreeMap<String, u64> {
        let records = kind.records(site);
        let id = |record: &Value| record["id"].as_str().expect("an id").to_owned();
        let mut stored: Vec<_> = records.iter().map(id).collect();
        stored.sort();
        assert_eq!(stored, self.good.iter().cloned().collect::<Vec<_>>(), "stored");
        let mut dead: Vec<_> = kind.dead(site).into_iter().map(|(_, bytes)| bytes).collect();
        dead.sort();
        assert_eq!(dead, self.bad.iter().cloned().collect::<Vec<_>>(), "dead");
        let status = site.status();
        assert_eq!((&status["waiting"], &status["in_flight"]), (&0.into(), &0.into()), "{status}");
        records
            .iter()
            .map(|record| (id(record), record["pipeline"]["deliveries"].as_u64().expect("a number")))
            .collect()
    }
}

/// Kills a host that has twenty good alerts and five bad ones to do, lets another one finish them, and gives what was stored and dead at
/// the kill, and how many were delivered again.
fn killed(kind: &Kind, failpoint: &str) -> (u64, u64, usize) {
    if let Kind::Redis(server) = kind {
        // Another one may have been killed on it before.
        let _: String = server.ask(&["FLUSHALL"]).expect("FLUSHALL");
    }
    // More than one batch, however quick the steps are.
    let site = Site::new(&format!("{}batch = 10\n", kind.config()));
    let sent = Sent::send(kind, &site, 0..20, 0..5);
    assert!(cut(&site, &["run", "--until-empty"], failpoint), "{failpoint} was not met");
    let status = site.status();
    let count = |what: &str| status[what].as_u64().expect("a number");
    let left = (count("stored"), count("dead"));
    assert!(left.0 + left.1 <= 25, "{status}");
    site.succeed(&["run", "--until-empty"]);
    let deliveries = sent.settled(kind, &site);
    (left.0, left.1, deliveries.values().filter(|&&count| count > 1).count())
}

#[test]
fn a_host_that_is_killed_after_reading_leaves_alerts_that_are_delivered_again_and_stored_once() {
    both(|kind| {
        let (stored, dead, again) = killed(kind, "alerts-read=1");
        assert_eq!((stored, dead), (0, 0));
        assert!(again > 0, "nothing was delivered again");
        happened(&format!("{}: {again} of 20 delivered again, all stored once, 5 of 5 dead once", kind.name()));
    });
}

#[test]
fn a_host_that_is_killed_before_the_commit_leaves_alerts_that_are_delivered_again_and_stored_once() {
    both(|kind| {
        // The second commit: the first one has been told to the host.
        for failpoint in ["commit-begins=1", "commit-begins=2"] {
            let (stored, dead, again) = killed(kind, failpoint);
            happened(&format!(
                "{}, {failpoint}: {stored} stored and {dead} dead before, {again} delivered again, all once",
                kind.name()
            ));
        }
    });
}

#[test]
fn a_host_that_is_killed_after_the_commit_has_its_alerts_stored_once() {
    both(|kind| {
        let failpoints: &[&str] = match kind {
            // The server has done it, and the host has seen nothing of the answer but that it came.
            Kind::Redis(_) => &["redis-committed=1", "redis-committed=2", "commit-ended=1"],
            Kind::Directory => &["commit-ended=1"],
        };
        for failpoint in failpoints {
            let (stored, dead, again) = killed(kind, failpoint);
            assert!(stored + dead > 0, "{failpoint}: nothing had been committed");
            happened(&format!(
                "{}, {failpoint}: {stored} stored and {dead} dead before, {again} delivered again, all once",
                kind.name()
            ));
        }
    });
}

#[test]
fn a_host_that_is_killed_in_the_middle_of_writing_dead_letters_has_each_there_once() {
    both(|kind| {
        let site = Site::new(&kind.config());
        let sent = Sent::send(kind, &site, 0..0, 0..60);
        let failpoint = match kind {
            // Some are there, the others are not: each script buries its own, whole.
            Kind::Redis(_) => "redis-committed=1",
            // The third one's reason is there, and its bytes are not.
            Kind::Directory => "file-replaced=3",
        };
        assert!(cut(&site, &["run", "--until-empty"], failpoint), "{failpoint} was not met");
        let before = kind.dead(&site).len();
        site.succeed(&["run", "--until-empty"]);
        sent.settled(kind, &site);
        assert!(before < 60, "all of them were there already");
        happened(&format!("{}: {before} of 60 there when it was killed, 60 after, each once", kind.name()));
    });
}

/// A site whose one step is the guest that misbehaves.
fn mischief(kind: &Kind, more: &str) -> Site {
    let site = Site::new(&format!(
        "{}[tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://127.0.0.1:9\"\n{more}",
        kind.config()
    ));
    site.install("mischief");
    site.write("t.txt", b"key\n");
    site
}

/// A step of the guest that misbehaves, which may compute for long.
const PATIENT: &str = r#"
[[step]]
plugin = "mischief"
tables = ["t"]
http = ["api"]
timeout = "60s"
fuel = 1_000_000_000_000
"#;

/// An alert that computes for so many rounds.
fn slow(id: &str, rounds: u64) -> Vec<u8> {
    format!("{{\"id\":\"{id}\",\"mischief\":\"slow\",\"spin\":{rounds}}}\n").into_bytes()
}

#[test]
fn a_host_that_is_killed_while_a_plugin_runs_leaves_alerts_that_are_delivered_again_and_stored_once() {
    both(|kind| {
        let site = mischief(kind, PATIENT);
        site.send(&[slow("a", 1_000), slow("b", 1_000)].concat());
        let host = site.start();
        wait_for("the quick ones", || (site.status()["stored"] == 2).then_some(()));
        // These two are in the plugin from now on: nothing else takes time.
        site.send(&[slow("c", 3_000_000_000), slow("d", 3_000_000_000)].concat());
        wait_for("the slow ones", || (site.status()["in_flight"] == 2).then_some(()));
        let before = host.processor_time();
        wait_for("the plugin to run", || (host.processor_time() > before + Duration::from_millis(100)).then_some(()));
        assert_eq!(site.status()["in_flight"], 2);
        host.kill();
        site.succeed(&["run", "--until-empty"]);
        let sent = Sent { good: ["a", "b", "c", "d"].map(str::to_owned).into(), ..Sent::default() };
        let deliveries = sent.settled(kind, &site);
        assert_eq!(deliveries.values().copied().collect::<Vec<_>>(), [1, 1, 2, 2]);
        happened(&format!("{}: 2 alerts were in a plugin; delivered twice, stored once", kind.name()));
    });
}
