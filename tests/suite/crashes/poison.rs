//! Alerts that kill the host, and alerts that only happened to be there. What a host died of runs in a process of its own from then on: only
//! one that dies there while its host lives speaks against its alert.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use dossier_tests::alerts;
use dossier_tests::happened::happened;
use dossier_tests::host::{Host, Site, built, field, processor_time, wait_for};
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

/// The processes in which hosts of this site run suspects.
fn cells(site: &Site) -> Vec<u32> {
    let home = site.dir.path().canonicalize().expect("the site is there");
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let path = entry.ok()?.path();
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let words = std::fs::read(path.join("cmdline")).ok()?;
        let here: PathBuf = std::fs::read_link(path.join("cwd")).ok()?;
        (words == b"dossier\0trial\0" && here == home).then_some(pid)
    });
    processes.collect()
}

/// Waits until a suspect runs alone, and gives its process.
fn alone(site: &Site) -> u32 {
    wait_for("the suspect to run alone", || {
        cells(site).into_iter().find(|&cell| {
            // What it took to load everything is little: a long call is under way.
            processor_time(cell).is_some_and(|time| time > Duration::from_millis(600))
        })
    })
}

fn nobody_is_left(site: &Site) {
    wait_for("the processes of suspects to end", || cells(site).is_empty().then_some(()));
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

/// How often a host's log says this.
fn said(host: &Host, message: &str) -> usize {
    let lines = host.log();
    lines.iter().filter(|line| field(line, "message").is_some_and(|text| text == message)).count()
}

const DIED: &str = "the process that ran a suspect alone died";

#[test]
fn an_alert_that_kills_kills_one_host_and_three_processes_of_its_own_and_takes_no_other_along() {
    both(|kind| {
        let site = Site::new(&kind.config());
        let mut sent = Sent::send(kind, &site, 0..30, 0..0);
        let poison = br#"{"id":"poison"}"#;
        kind.put(&site, poison);
        sent.bad.insert(poison.to_vec());
        // Wherever it runs it kills.
        let deadly = || {
            let mut command = site.program(&built("release/dossier-failpoints"), &["run"]);
            command.env("DOSSIER_FAILPOINT", "alert-runs~poison,suspect-runs~poison");
            site.start_as(command)
        };
        assert_eq!(deadly().wait().signal(), Some(9), "with the others");
        kind.wait_for_the_death();
        assert_eq!(kind.accused(&site), [], "it was not alone");
        site.send(&alerts::suricata(100..110));
        let fresh: BTreeSet<_> = (100..110).map(|n| format!("alert-{n:05}")).collect();
        let mut host = deadly();
        for crashes in 1..MAX_CRASHES {
            wait_for("a crash to be noted", || {
                let accused = kind.accused(&site);
                assert!(accused.len() <= 1, "{accused:?}");
                (accused.first()?.1 == crashes).then_some(())
            });
        }
        site.drained();
        assert!(host.is_alive(), "it took the host along");
        assert_eq!(host.metric("dossier_suspect_crashes_total"), Some(3.0));
        assert_eq!(said(&host, DIED), 3);
        assert_eq!(host.stop(), Some(0));
        sent.good.extend(fresh);
        sent.settled(kind, &site);
        assert_eq!(kind.dead(&site), [("host-crash".to_owned(), poison.to_vec())]);
        assert_eq!(kind.accused(&site), []);
        nobody_is_left(&site);
        happened(&format!(
            "{}: 1 crash of the host, among 30 others, and {MAX_CRASHES} of processes of its own; 40 innocents stored once",
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
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..1000)));
            alone += usize::from(!cells(&site).is_empty());
            host.kill();
            kind.wait_for_the_death();
            assert_eq!(kind.accused(&site), []);
        }
        nobody_is_left(&site);
        site.succeed(&["run", "--until-empty"]);
        let sent = Sent { good: (0..60).map(|n| n.to_string()).collect(), ..Sent::default() };
        let deliveries = sent.settled(kind, &site);
        let most = deliveries.values().max().copied().unwrap_or_default();
        happened(&format!(
            "{}: 6 kills, {alone} with suspects in their process, up to {most} deliveries: 60 stored, none convicted",
            kind.name()
        ));
    });
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
fn a_host_that_is_killed_five_times_while_the_same_suspect_runs_alone_takes_its_process_along_and_convicts_nobody() {
    const KILLS: usize = 5;
    both(|kind| {
        let site = mischief(kind, PATIENT);
        site.send(&slow("slow", u64::MAX / 2));
        make_a_suspect(kind, &site);
        for _ in 0..KILLS {
            let host = site.start();
            alone(&site);
            assert_eq!(cells(&site).len(), 1);
            host.kill();
            nobody_is_left(&site);
            kind.wait_for_the_death();
            assert_eq!(kind.accused(&site), []);
        }
        finish(kind, &site);
        happened(&format!(
            "{}: {KILLS} kills while the same suspect ran alone: stored, nothing left over",
            kind.name()
        ));
    });
}

#[test]
fn a_host_that_is_killed_together_with_the_process_of_its_suspect_does_not_speak_against_it() {
    both(|kind| {
        let site = Site::new(&kind.config());
        let sent = Sent::send(kind, &site, 0..1, 0..0);
        let killed = |failpoints: &str| {
            let mut command = site.program(&built("release/dossier-failpoints"), &["run", "--until-empty"]);
            command.env("DOSSIER_FAILPOINT", failpoints);
            assert_eq!(site.start_as(command).wait().signal(), Some(9));
            kind.wait_for_the_death();
        };
        killed("alert-runs=1");
        for _ in 0..=MAX_CRASHES {
            // The process first, and the host as soon as it has heard of it.
            killed("suspect-runs=1,suspect-died=1");
            assert_eq!(kind.accused(&site), []);
        }
        site.succeed(&["run", "--until-empty"]);
        sent.settled(kind, &site);
        happened(&format!("{}: {} kills of host and process, not convicted", kind.name(), MAX_CRASHES + 1));
    });
}

#[test]
fn a_grace_that_ends_while_a_suspect_runs_alone_does_not_speak_against_it() {
    both(|kind| {
        let site = mischief(kind, &format!("{PATIENT}[host]\ngrace = \"200ms\"\n"));
        site.send(&slow("slow", u64::MAX / 2));
        make_a_suspect(kind, &site);
        for _ in 0..=MAX_CRASHES {
            let host = site.start();
            let cell = alone(&site);
            // Whoever stops a service tells all of its processes (systemd does, and a terminal's Ctrl-C).
            let cell =
                rustix::process::Pid::from_raw(i32::try_from(cell).expect("a process id")).expect("a process id");
            rustix::process::kill_process(cell, Signal::TERM).expect("it runs");
            rustix::process::kill_process(cell, Signal::INT).expect("it runs");
            assert_eq!(host.stop(), Some(0));
            nobody_is_left(&site);
            assert_eq!(kind.accused(&site), []);
        }
        finish(kind, &site);
        happened(&format!("{}: {} graces ended too early, not convicted", kind.name(), MAX_CRASHES + 1));
    });
}

#[test]
fn a_suspect_that_ends_within_the_grace_is_stored_and_told_of_and_counted_as_any_other() {
    both(|kind| {
        let site = mischief(kind, &format!("{PATIENT}[host]\ngrace = \"50s\"\n"));
        site.send(&slow("slow", 3_000_000_000));
        make_a_suspect(kind, &site);
        let host = site.start();
        wait_for("the suspect to run", || {
            cells(&site).into_iter().find(|&cell| processor_time(cell) > Some(Duration::from_millis(600)))
        });
        host.signal(Signal::TERM);
        let line = host.told("alert stored", "slow");
        let steps = field(&line, "steps").expect("its steps").to_string();
        assert!(steps.contains("mischief") && steps.contains("ok"), "{steps}");
        let sent = Sent { good: ["slow".to_owned()].into(), ..Sent::default() };
        assert_eq!(host.wait().code(), Some(0));
        let deliveries = sent.settled(kind, &site);
        assert_eq!(deliveries["slow"], 2);
        happened(&format!("{}: stored within the grace", kind.name()));
    });
}

/// A table that is broken while the host serves the old one: the process of suspects cannot load it.
#[test]
fn suspects_that_cannot_be_run_wait_with_an_alarm_while_others_go_on() {
    let kind = Kind::Directory;
    let site = mischief(&kind, PATIENT);
    let host = site.start();
    host.admin();
    site.write("t.txt", b"");
    host.told("table refused", "t.txt");
    // What another host left when it died.
    let suspect = "alert-suspect.json";
    let note = format!("{:127}\n", "{\"deliveries\":1,\"accused\":0,\"first_seen\":\"2026-01-01T00:00:00Z\"}");
    site.write(&format!("queue/.state/{suspect}.lock"), note.as_bytes());
    site.write("queue/half", &slow("suspect", 1_000));
    std::fs::rename(site.path("queue/half"), site.path(&format!("queue/pending/{suspect}"))).expect("in its place");
    host.told("suspects cannot be run and wait", "t.txt");
    site.send(&slow("other", 1_000));
    wait_for("the other one", || (kind.records(&site).len() == 1).then_some(()));
    let (ready, notices) = host.get("/readyz");
    assert!(ready == 200 && notices.contains("wait"), "{ready} {notices}");
    site.write("t.txt", b"key\n");
    site.drained();
    let sent = Sent { good: ["suspect", "other"].map(str::to_owned).into(), ..Sent::default() };
    sent.settled(&kind, &site);
    wait_for("the notice to go", || (!host.get("/readyz").1.contains("suspects")).then_some(()));
    let calls = "dossier_step_calls_total{step=\"mischief\",stage=\"enrich\",outcome=\"ok\"}";
    assert_eq!(host.metric(calls), Some(2.0), "the calls in the other process count as well");
    assert_eq!(host.stop(), Some(0));
    happened("directory: waited with an alarm while its table was broken, another alert stored meanwhile; then stored");
}
