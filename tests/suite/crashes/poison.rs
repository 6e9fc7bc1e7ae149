//! Alerts that kill the host, and alerts that only happened to be there. Only a host that dies while an alert runs alone speaks against
//! that alert, and a host that was told to stop before it died does not.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use dossier_tests::alerts;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, wait_for};
use rustix::process::Signal;

use super::{PATIENT, Sent, mischief, slow};
use crate::queues::{Kind, both};

/// As `max_crashes` in `[queue]` is where nothing is said.
const MAX_CRASHES: u64 = 3;

impl Kind {
    /// What counts against alerts: each one's entry or file, with its crashes.
    fn accused(&self, site: &Site) -> Vec<(String, u64)> {
        match self {
            Self::Directory => std::fs::read_dir(site.path("queue/.state"))
                .expect("a folder of locks")
                .filter_map(|entry| {
                    let entry = entry.expect("an entry");
                    // An alert that is done in between takes its lock along.
                    let note: serde_json::Value = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
                    let crashes = note["accused"].as_u64().filter(|&crashes| crashes > 0)?;
                    Some((entry.file_name().to_string_lossy().into_owned(), crashes))
                })
                .collect(),
            Self::Redis(server) => server.ask(&["HGETALL", "alerts:accused"]).expect("the hash can be read"),
        }
    }

    /// Waits until the others know that a host which was killed is dead.
    pub fn wait_for_the_death(&self) {
        if let Self::Redis(server) = self {
            wait_for("the lease to end", || {
                server.ask::<Vec<String>>(&["KEYS", "alerts:lease:*"]).expect("KEYS").is_empty().then_some(())
            });
        }
    }
}

/// Kills a host that has one alert in its plugin.
fn make_a_suspect(kind: &Kind, site: &Site) {
    let host = site.start();
    wait_for("the alert to run", || {
        (site.status()["in_flight"] == 1 && host.processor_time() > Duration::from_millis(50)).then_some(())
    });
    host.kill();
    kind.wait_for_the_death();
}

#[test]
fn an_alert_that_kills_the_host_goes_to_the_dead_letters_after_three_crashes_alone_and_takes_no_other_along() {
    both(|kind| {
        let site = Site::new(&kind.config());
        let mut sent = Sent::send(kind, &site, 0..30, 0..0);
        let poison = br#"{"id":"poison"}"#;
        kind.put(&site, poison);
        sent.bad.insert(poison.to_vec());
        let crash = || {
            let mut command = site.program(&built("release/dossier-failpoints"), &["run", "--until-empty"]);
            command.env("DOSSIER_FAILPOINT", "alert-runs~poison");
            let killed = site.start_as(command).wait().signal() == Some(9);
            kind.wait_for_the_death();
            killed
        };
        assert!(crash(), "with the others");
        assert_eq!(kind.accused(&site), [], "it was not alone");
        // New ones have to wait until the suspects are through.
        site.send(&alerts::suricata(100..110));
        let fresh: BTreeSet<_> = (100..110).map(|n| format!("alert-{n:05}")).collect();
        for crashes in 1..=MAX_CRASHES {
            assert!(crash(), "alone, for the {crashes}. time");
            let accused = kind.accused(&site);
            assert!(matches!(&accused[..], [(_, count)] if *count == crashes), "{accused:?}");
            let records = kind.records(&site);
            let early = records.iter().filter(|record| fresh.contains(record["id"].as_str().expect("an id")));
            assert_eq!(early.count(), 0, "new alerts ran before the suspects");
        }
        assert!(!crash(), "it was run once more");
        sent.good.extend(fresh);
        sent.settled(kind, &site);
        assert_eq!(kind.dead(&site), [("host-crash".to_owned(), poison.to_vec())]);
        assert_eq!(kind.accused(&site), []);
        happened(&format!(
            "{}: 1 crash among 30 others and {MAX_CRASHES} alone; 40 innocents stored once",
            kind.name()
        ));
    });
}

#[test]
fn a_healthy_host_that_is_killed_at_any_moment_convicts_nobody() {
    both(|kind| {
        let site = mischief(kind, PATIENT);
        let alerts: Vec<_> = (0..60).flat_map(|n| slow(&format!("{n}"), 40_000_000)).collect();
        site.send(&alerts);
        let mut alone = 0;
        for _ in 0..6 {
            let host = site.start();
            host.admin();
            // Any moment: also one at which a suspect runs alone.
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..400)));
            host.kill();
            kind.wait_for_the_death();
            alone += usize::from(!kind.accused(&site).is_empty());
        }
        site.succeed(&["run", "--until-empty"]);
        let sent = Sent { good: (0..60).map(|n| n.to_string()).collect(), ..Sent::default() };
        let deliveries = sent.settled(kind, &site);
        let most = deliveries.values().max().copied().unwrap_or_default();
        happened(&format!(
            "{}: 6 kills, {alone} while a suspect ran alone, up to {most} deliveries: 60 stored, none convicted",
            kind.name()
        ));
    });
}

/// Waits until the suspect runs alone.
fn alone(kind: &Kind, site: &Site) {
    wait_for("the suspect to run alone", || (!kind.accused(site).is_empty()).then_some(()));
}

/// Lets the alert pass that was too slow for its hosts, and sees that it was not convicted.
fn finish(kind: &Kind, site: &Site) {
    site.write(
        "dossier.toml",
        format!("{}[plugins]\nauto = false\n[admin]\naddress = \"off\"\n", kind.config()).as_bytes(),
    );
    site.succeed(&["run", "--until-empty"]);
    let sent = Sent { good: ["slow".to_owned()].into(), ..Sent::default() };
    sent.settled(kind, site);
}

#[test]
fn a_grace_that_ends_while_a_suspect_runs_alone_does_not_speak_against_it() {
    both(|kind| {
        let site = mischief(kind, &format!("{PATIENT}[host]\ngrace = \"200ms\"\n"));
        site.send(&slow("slow", u64::MAX / 2));
        make_a_suspect(kind, &site);
        for _ in 0..=MAX_CRASHES {
            let host = site.start();
            alone(kind, &site);
            assert_eq!(host.stop(), Some(0));
            assert_eq!(kind.accused(&site), []);
        }
        finish(kind, &site);
        happened(&format!("{}: {} graces ended too early, not convicted", kind.name(), MAX_CRASHES + 1));
    });
}

#[test]
fn a_host_that_is_killed_after_it_was_told_to_stop_does_not_speak_against_its_suspect() {
    both(|kind| {
        let site = mischief(kind, PATIENT);
        site.send(&slow("slow", u64::MAX / 2));
        make_a_suspect(kind, &site);
        for _ in 0..=MAX_CRASHES {
            let mut host = site.start();
            alone(kind, &site);
            host.signal(Signal::TERM);
            wait_for("the note to go", || kind.accused(&site).is_empty().then_some(()));
            assert!(host.is_alive(), "it waits for the suspect");
            host.kill();
            kind.wait_for_the_death();
        }
        finish(kind, &site);
        happened(&format!("{}: {} kills within the grace, not convicted", kind.name(), MAX_CRASHES + 1));
    });
}
