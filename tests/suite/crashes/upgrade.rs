//! Another version takes over: what an older one had waiting and in flight is finished.

use std::process::Command;
use std::time::Duration;

use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, root, wait_for};
use serde_json::Value;

use super::{PATIENT, Sent, mischief, slow};
use crate::queues::{Kind, both};

/// Puts there what the first version left.
fn of_version_0_1_0(kind: &Kind, site: &Site) {
    let fixture = root().join("tests/fixtures/queue-0.1.0");
    match kind {
        Kind::Directory => {
            let copied = Command::new("cp").arg("-r").arg(fixture.join("directory")).arg(site.path("queue")).status();
            assert!(copied.expect("cp runs").success());
            std::fs::rename(site.path("queue/state"), site.path("queue/.state")).expect("the folder of locks");
        }
        Kind::Redis(server) => {
            let commands = std::fs::read_to_string(fixture.join("redis.ndjson")).expect("the fixture is there");
            for line in commands.lines() {
                let words: Vec<String> = serde_json::from_str(line).expect("a command");
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                let _: redis::Value = server.ask(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
}

#[test]
fn what_the_first_version_left_waiting_in_flight_and_dead_is_finished() {
    both(|kind| {
        let site = Site::new(&kind.config());
        of_version_0_1_0(kind, &site);
        let status = site.status();
        assert_eq!((&status["waiting"], &status["stored"], &status["dead"]), (&3.into(), &1.into(), &1.into()));
        // It was stored by the old one: this one knows.
        site.send(b"{\"id\":\"stored\",\"n\":1}\n");
        site.succeed(&["dlq", "replay", "dead"]);
        site.succeed(&["run", "--until-empty"]);
        let sent = Sent {
            good: ["stored", "dead", "in flight", "replayed", "waiting"].map(str::to_owned).into(),
            ..Sent::default()
        };
        let deliveries = sent.settled(kind, &site);
        // It was delivered twice by the old one, and ran alone when that died.
        assert_eq!((deliveries["in flight"], deliveries["waiting"]), (3, 1));
        let records = kind.records(&site);
        let attempts = |id: &str| {
            let record = records.iter().find(|record| record["id"] == id).expect("a record");
            record["pipeline"]["attempts"].as_u64().expect("a number")
        };
        assert_eq!((attempts("replayed"), attempts("dead"), attempts("in flight")), (2, 2, 1));
        // What it noted of their failures is told, as far as it noted it: a file that says why, or only how often.
        let told = |id: &str| {
            let record = records.iter().find(|record| record["id"] == id).expect("a record");
            let history = record["pipeline"]["history"].as_array().expect("a list");
            history.iter().filter_map(|failure| failure["reason"].as_str()).collect::<Vec<_>>()
        };
        let replayed = match kind {
            Kind::Directory => vec!["trap"],
            Kind::Redis(_) => Vec::new(),
        };
        assert_eq!((told("dead"), told("replayed"), told("in flight").len()), (vec!["trap"], replayed, 0));
        happened(&format!(
            "{}: 3 pending and 1 dead of version 0.1.0 stored once, 1 stored known as such",
            kind.name()
        ));
    });
}

#[test]
fn what_one_build_had_in_flight_when_it_was_killed_another_one_finishes() {
    both(|kind| {
        let site = mischief(kind, PATIENT);
        site.send(&(0..40).flat_map(|n| slow(&n.to_string(), 40_000_000)).collect::<Vec<_>>());
        let builds = ["release/dossier-failpoints", "release/dossier"];
        let host = site.start_as(site.program(&built(builds[0]), &["run"]));
        let (stored, in_flight) = wait_for("some to be stored", || {
            let status = site.status();
            let count = |what: &str| status[what].as_u64().unwrap_or_default();
            (count("stored") > 0 && count("in_flight") > 0).then(|| (count("stored"), count("in_flight")))
        });
        host.kill();
        site.succeed(&["run", "--until-empty"]);
        let sent = Sent { good: (0..40).map(|n| n.to_string()).collect(), ..Sent::default() };
        let deliveries = sent.settled(kind, &site);
        let again = deliveries.values().filter(|&&count| count > 1).count();
        assert!(again > 0, "nothing was in flight");
        happened(&format!(
            "{}: killed with {stored} stored and {in_flight} in flight; another build stored the rest, {again} of them again in hand",
            kind.name()
        ));
    });
}

/// A host that is asked to stop while it works on much.
#[test]
fn sigterm_under_load_ends_within_the_grace_with_all_that_was_in_flight_stored() {
    const GRACE: Duration = Duration::from_secs(20);
    both(|kind| {
        let site = mischief(kind, &format!("{PATIENT}[host]\ngrace = \"{}s\"\nin_flight = 16\n", GRACE.as_secs()));
        site.send(&(0..400).flat_map(|n| slow(&n.to_string(), 10_000_000)).collect::<Vec<_>>());
        let host = site.start();
        wait_for("the host to be at work", || {
            let status = site.status();
            (status["stored"].as_u64() > Some(20) && status["in_flight"].as_u64() > Some(4)).then_some(())
        });
        let asked = std::time::Instant::now();
        assert_eq!(host.stop(), Some(0));
        let took = asked.elapsed();
        assert!(took < GRACE, "it took {took:?}");
        let status = site.status();
        let (stored, waiting) = (status["stored"].as_u64().unwrap_or(0), status["waiting"].as_u64().unwrap_or(0));
        assert_eq!((stored + waiting, &status["in_flight"], &status["dead"]), (400, &Value::from(0), &Value::from(0)));
        assert!(waiting > 0, "it had nothing left to do: no load");
        site.succeed(&["run", "--until-empty"]);
        let sent = Sent { good: (0..400).map(|n| n.to_string()).collect(), ..Sent::default() };
        let deliveries = sent.settled(kind, &site);
        assert!(deliveries.values().all(|&count| count == 1), "something in flight was given up");
        happened(&format!(
            "{}: exit 0 after {} ms with {waiting} waiting; none delivered twice",
            kind.name(),
            took.as_millis()
        ));
    });
}
