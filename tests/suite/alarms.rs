//! Alarms: each is raised by a real host in which its cause is there, and cleared when it is gone; and the rules for Prometheus. That of two
//! hosts of one name is in `redis_faults`.

use std::process::Command;
use std::time::{Duration, SystemTime};

use dossier_tests::host::{Host, Site, field, root, wait_for};
use dossier_tests::not_run::not_run;
use dossier_tests::prometheus::program;
use dossier_tests::redis_server::RedisServer;
use serde_json::{Value, json};

use crate::operations::mischief;
use crate::queues::{Kind, both};

fn is(line: &Value, message: Option<&str>, alarm: &str, subject: Option<&str>) -> bool {
    let says = |name: &str, what: &str| field(line, name).and_then(Value::as_str) == Some(what);
    let raised = match message {
        Some(message) => says("message", message),
        None => field(line, "alarm") == Some(&json!(true)),
    };
    raised && says("name", alarm) && subject.is_none_or(|subject| says("subject", subject))
}

fn lines(host: &Host, message: Option<&str>, alarm: &str, subject: Option<&str>) -> usize {
    host.log().iter().filter(|line| is(line, message, alarm, subject)).count()
}

/// Whether `/readyz` shows an alarm, with or without a subject.
fn noticed(host: &Host, alarm: &str) -> bool {
    let body = host.get("/readyz").1;
    [format!("\"{alarm}\""), format!("\"{alarm} ")].iter().any(|name| body.contains(name))
}

/// Waits until an alarm is told of and shown everywhere.
fn raised(host: &Host, alarm: &str) {
    wait_for(&format!("the alarm {alarm}"), || (lines(host, None, alarm, None) > 0).then_some(()));
    wait_for("it to be shown", || {
        let held = host.metric(&format!("dossier_alarm{{alarm=\"{alarm}\"}}"))? >= 1.0;
        (held && noticed(host, alarm)).then_some(())
    });
    assert!(host.metric(&format!("dossier_alarms_total{{alarm=\"{alarm}\"}}")) >= Some(1.0));
}

/// Waits until it is over.
fn over(host: &Host, alarm: &str) {
    wait_for(&format!("the end of {alarm}"), || {
        let cleared = lines(host, Some("alarm cleared"), alarm, None) > 0;
        (cleared && host.metric(&format!("dossier_alarm{{alarm=\"{alarm}\"}}")) == Some(0.0)).then_some(())
    });
    assert!(!noticed(host, alarm));
    assert!(host.metric(&format!("dossier_alarms_cleared_total{{alarm=\"{alarm}\"}}")) >= Some(1.0));
}

/// An alert of a source.
fn heard(kind: &Kind, site: &Site, source: &str) {
    let id = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later").as_nanos();
    kind.put(site, format!("{{\"id\":\"{id}\",\"source\":\"{source}\"}}").as_bytes());
}

#[test]
fn a_source_that_falls_silent_is_named_until_it_is_heard_again_and_after_a_restart_too() {
    both(|kind| {
        let site = Site::new(&format!("{}[alarms]\nsilence = \"2s\"\n", kind.config()));
        let host = site.start();
        host.admin();
        wait_for("two sources to be watched", || {
            heard(kind, &site, "fw-1");
            heard(kind, &site, "fw-2");
            (host.metric("dossier_sources") == Some(2.0)).then_some(())
        });
        let silent = |host: &Host| lines(host, Some("alarm raised"), "source-silent", Some("fw-1")) > 0;
        wait_for("the silence", || {
            heard(kind, &site, "fw-2");
            silent(&host).then_some(())
        });
        raised(&host, "source-silent");
        assert_eq!(lines(&host, None, "source-silent", Some("fw-2")), 0);
        assert_eq!(host.stop(), Some(0));

        let host = site.start();
        host.admin();
        wait_for("the silence to be told of again", || {
            heard(kind, &site, "fw-2");
            silent(&host).then_some(())
        });
        wait_for("it to be heard", || {
            heard(kind, &site, "fw-1");
            (lines(&host, Some("alarm cleared"), "source-silent", Some("fw-1")) > 0).then_some(())
        });
    });
}

#[test]
fn what_is_replayed_or_enriched_anew_is_no_sign_of_life_of_its_source() {
    both(|kind| {
        let site = mischief(kind, "retries = 0\n[alarms]\nsilence = \"2s\"\n");
        let host = site.start();
        host.admin();
        kind.put(&site, br#"{"id":"fails","mischief":"trap","source":"fw-1"}"#);
        wait_for("both sources to be watched", || {
            heard(kind, &site, "fw-1");
            heard(kind, &site, "fw-2");
            (host.metric("dossier_sources") == Some(2.0)).then_some(())
        });
        wait_for("the silence of one", || {
            heard(kind, &site, "fw-2");
            (lines(&host, Some("alarm raised"), "source-silent", Some("fw-1")) > 0).then_some(())
        });
        let outcomes = |outcome: &str| {
            let is = |line: &Value| field(line, "outcome").and_then(Value::as_str) == Some(outcome);
            host.log().into_iter().filter(is).count()
        };
        let stored = kind.records(&site).len();
        assert_eq!(site.succeed(&["dlq", "replay", "--all"]).lines().last(), Some("replayed 1"));
        site.succeed(&["reenrich", "--step", "mischief"]);
        wait_for("all of it to be done again", || {
            heard(kind, &site, "fw-2");
            (outcomes("replaced") >= stored && kind.dead(&site).len() == 1).then_some(())
        });
        // A source that says something itself is heard after that, and this one still is not.
        for _ in 0..10 {
            heard(kind, &site, "fw-2");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(lines(&host, Some("alarm cleared"), "source-silent", Some("fw-1")), 0);
        heard(kind, &site, "fw-1");
        wait_for("it to be heard", || {
            (lines(&host, Some("alarm cleared"), "source-silent", Some("fw-1")) > 0).then_some(())
        });
    });
}

#[test]
fn more_sources_than_can_be_watched_are_an_alarm() {
    both(|kind| {
        let site = Site::new(&format!("{}[alarms]\nsilence = \"30s\"\n", kind.config()));
        let host = site.start();
        host.admin();
        let many: String = (0..6000).map(|n| format!("{{\"id\":\"{n}\",\"source\":\"invented-{n}\"}}\n")).collect();
        site.send(many.as_bytes());
        raised(&host, "sources-many");
    });
}

#[test]
fn a_queue_in_which_nothing_moves_is_stalled_and_its_oldest_alert_is_late() {
    both(|kind| {
        let site = mischief(kind, "retries = 100\n[alarms]\nstalled = \"1s\"\noldest = \"1s\"\n");
        let host = site.start();
        kind.put(&site, br#"{"id":"held","mischief":"unavailable"}"#);
        raised(&host, "queue-stalled");
        raised(&host, "queue-late");
        kind.put(&site, br#"{"id":"other"}"#);
        wait_for("something to move", || {
            (lines(&host, Some("alarm cleared"), "queue-stalled", None) > 0).then_some(())
        });
        assert_eq!(lines(&host, Some("alarm cleared"), "queue-late", None), 0, "it still waits");
    });
}

#[test]
fn dead_letters_are_an_alarm_when_there_are_many_and_when_they_come_fast() {
    both(|kind| {
        let site = Site::new(&format!("{}dlq_alarm = 3\n[alarms]\ndead_letters = \"2/min\"\n", kind.config()));
        let host = site.start();
        host.admin();
        // What there is at the start is no growth.
        wait_for("a first look", || host.metric("dossier_queue_dead_letters"));
        for n in 0..3 {
            kind.put(&site, format!("broken {n}").as_bytes());
        }
        raised(&host, "dead-letters");
        raised(&host, "dead-letters-grow");
        match kind {
            Kind::Directory => std::fs::read_dir(site.path("queue/errors"))
                .expect("a folder of dead letters")
                .for_each(|letter| std::fs::remove_file(letter.expect("a letter").path()).expect("it can be removed")),
            Kind::Redis(server) => assert_eq!(server.ask::<u64>(&["DEL", "alerts:dlq"]).expect("DEL"), 1),
        }
        over(&host, "dead-letters");
        assert_eq!(host.metric("dossier_alarm{alarm=\"dead-letters-grow\"}"), Some(1.0), "they came all the same");
    });
}

#[test]
fn plugins_that_are_missing_refused_removed_or_on_probation_are_alarms_for_as_long_as_they_are() {
    let kind = Kind::Directory;
    let site = mischief(&kind, "[plugins]\nprobation = { calls = 5, failures = 0.5 }\n");
    let file = site.path("plugins/mischief.wasm");
    std::fs::rename(&file, site.path("aside.wasm")).expect("the plugin was there");
    let host = site.start();
    raised(&host, "plugin-missing");
    assert_eq!(host.get("/readyz").0, 503);
    std::fs::copy(site.path("aside.wasm"), site.path("plugins/.part")).expect("a copy");
    std::fs::rename(site.path("plugins/.part"), &file).expect("the plugin in its place");
    over(&host, "plugin-missing");
    raised(&host, "plugin-on-probation");
    let send = |mischief: &str, from: u32| {
        (from..from + 6)
            .for_each(|n| kind.put(&site, format!("{{\"id\":\"{n}\",\"mischief\":\"{mischief}\"}}").as_bytes()));
    };
    send("trap", 0);
    raised(&host, "plugin-unfit");
    over(&host, "plugin-on-probation");

    std::fs::remove_file(&file).expect("the plugin was there");
    raised(&host, "plugin-removed");
    site.write("plugins/mischief.wasm", b"\0asm this is no component");
    raised(&host, "plugin-refused");
    over(&host, "plugin-removed");
    site.install("mischief");
    over(&host, "plugin-refused");
}

#[test]
fn a_table_that_is_refused_or_too_old_is_an_alarm_until_its_file_is_made_anew() {
    let config = "[queue]\nkind = \"directory\"\n[tables.t]\nfile = \"t.csv\"\nkey = \"ip\"\nmax_age = \"1h\"\n";
    let site = Site::new(config);
    site.write("t.csv", b"ip,owner\n192.0.2.1,it\n");
    let old = SystemTime::now() - Duration::from_secs(7200);
    let file = std::fs::File::options().write(true).open(site.path("t.csv")).expect("the table");
    file.set_modified(old).expect("the file can be touched");
    let host = site.start();
    raised(&host, "table-stale");
    site.write("t.csv", b"ip,owner\ntoo,many,cells\n");
    raised(&host, "table-refused");
    site.write("t.csv", b"ip,owner\n192.0.2.1,it\n");
    over(&host, "table-refused");
    over(&host, "table-stale");
}

#[test]
fn a_store_without_much_room_is_an_alarm() {
    both(|kind| {
        let site = Site::new(&format!("{}[alarms]\nstore = 0.000001\n", kind.config()));
        raised(&site.start(), "store-full");
    });
}

#[test]
fn a_server_that_is_gone_and_a_group_that_is_deleted_and_an_alert_that_is_refused_are_alarms() {
    let server = RedisServer::start().expect("redis-server starts");
    let kind = Kind::Redis(server);
    let Kind::Redis(server) = &kind else { unreachable!("it is Redis") };
    let site = Site::new(&format!("{}[alarms]\nkeep = \"2s\"\n", kind.config()));
    let host = site.start();
    host.admin();
    server.ask::<u64>(&["SADD", "alerts:id:odd", "x"]).expect("SADD");
    kind.put(&site, br#"{"id":"odd"}"#);
    raised(&host, "commit-refused");
    server.ask::<u64>(&["DEL", "alerts:id:odd"]).expect("DEL");
    over(&host, "commit-refused");
    server.ask::<()>(&["FLUSHALL"]).expect("FLUSHALL");
    raised(&host, "group-recreated");
    over(&host, "group-recreated");
    server.kill();
    raised(&host, "queue-trouble");
    server.launch().expect("redis-server starts again");
    over(&host, "queue-trouble");
}

#[test]
fn entries_that_somebody_deletes_are_an_alarm_whether_a_host_has_them_in_memory_or_nobody_has() {
    let kind = Kind::Redis(RedisServer::start().expect("redis-server starts"));
    let Kind::Redis(server) = &kind else { unreachable!("it is Redis") };
    let site = mischief(&kind, "retries = 2\n");
    let host = site.start();
    host.admin();
    // One that the host holds: it is waiting for its next try.
    kind.put(&site, br#"{"id":"held","mischief":"unavailable"}"#);
    wait_for("the first try", || {
        host.metric("dossier_step_retries_total{step=\"mischief\"}").filter(|tries| *tries > 0.0)
    });
    kind.disturb(&site);
    raised(&host, "entries-rescued");
    assert_eq!(host.metric("dossier_alarm{alarm=\"entries-lost\"}"), Some(0.0));

    // One that another consumer took, which is gone.
    host.kill();
    kind.put(&site, br#"{"id":"lost"}"#);
    let read = ["XREADGROUP", "GROUP", "dossier", "gone", "COUNT", "9", "STREAMS", "alerts", ">"];
    server.ask::<redis::Value>(&read).expect("XREADGROUP");
    kind.disturb(&site);
    let host = site.start();
    raised(&host, "entries-lost");
}

#[test]
fn what_is_no_file_among_the_alerts_is_an_alarm_for_a_while() {
    let site = Site::new("[queue]\nkind = \"directory\"\n[alarms]\nkeep = \"2s\"\n");
    let host = site.start();
    host.admin();
    std::os::unix::fs::symlink("/etc/hostname", site.path("queue/pending/link.json")).expect("a link");
    raised(&host, "entry-skipped");
    over(&host, "entry-skipped");
}

#[test]
fn promtool_finds_no_fault_in_the_rules_and_each_of_them_fires() {
    let promtool = match program("promtool") {
        Ok(promtool) => promtool,
        Err(error) => {
            return not_run("alarms::promtool_finds_no_fault_in_the_rules_and_each_of_them_fires", &error.to_string());
        }
    };
    let folder = root().join("deploy/prometheus");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]] {
        let output = Command::new(&promtool).args(arguments).current_dir(&folder).output().expect("promtool runs");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
        println!("{said}");
    }
    // Every rule is fired by a test of its own.
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of rules");
    let (rules, tests) = (read("alerts.yml"), read("alerts-test.yml"));
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!names.is_empty());
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n        exp_alerts:\n          - exp_labels:")), "{name}");
    }
}
