//! `dossier verify`: what was sent is found where it is, and what is missing, double or strange is named, on both queues.

use dossier_tests::host::Site;
use dossier_tests::redis_server::RedisServer;
use serde_json::Value;

use crate::operations::mischief;
use crate::queues::{Kind, both};

/// Alerts of every kind: good ones, one that is sent twice, one whose id is another's, one without an id, some that die, and lines that
/// are no alerts.
const LINES: &[u8] =
    b"{\"id\":\"good\"}\n {\"id\": \"good-2\" , \"x\":1.50}\r\n{\"id\":\"good\"}\n{\"id\":\"good\",\"other\":true}\n\
    {\"nameless\":1}\n{\"id\":\"../../etc\"}\n{\"id\":\"bad\",\"mischief\":\"trap\"}\n{\"id\":\"no\n\xff\xfe\n[1]\n";

/// What verify says, and its exit code.
fn verified(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = site.dossier(&[&["verify", "--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    (output.status.code(), json)
}

/// Three numbers: orphans, doubles, strangers.
fn wrong(report: &Value) -> [u64; 3] {
    ["orphans", "doubles", "strangers"].map(|kind| report[kind]["count"].as_u64().expect("a number"))
}

#[test]
fn what_was_sent_is_accounted_for_while_it_waits_and_when_it_is_done() {
    both(|kind| {
        let site = mischief(kind, "");
        site.write("alerts.ndjson", LINES);
        site.succeed(&["send", "--ids", "sent.ids", "alerts.ndjson"]);
        let (code, report) = verified(&site, &["--ids", "sent.ids"]);
        assert_eq!((code, wrong(&report), &report["waiting"]), (Some(0), [0; 3], &10.into()), "{report:#}");
        site.succeed(&["run", "--until-empty"]);
        let (code, report) = verified(&site, &["--ids", "sent.ids"]);
        assert_eq!((code, wrong(&report)), (Some(0), [0; 3]), "{report:#}");
        let number = |what: &str| report[what].as_u64().expect("a number");
        assert_eq!((number("sent"), number("different")), (10, 9), "{report:#}");
        assert_eq!((number("stored"), number("dead"), number("waiting")), (5, 4, 0), "{report:#}");
        // The alerts themselves say the same as the ids that were noted.
        let (code, by_alerts) = verified(&site, &["--alerts", "alerts.ndjson"]);
        assert_eq!((code, by_alerts), (Some(0), report));
        let said = site.succeed(&["verify", "--ids", "sent.ids"]);
        assert!(said.ends_with("everything is accounted for\n"), "{said}");
    });
}

/// Deletes the record with this id.
fn lose(kind: &Kind, site: &Site, id: &str) {
    match kind {
        Kind::Directory => {
            std::fs::remove_file(site.path(&format!("queue/processed/alert-{id}.json"))).expect("the record")
        }
        Kind::Redis(server) => {
            let place: String = server.ask(&["GET", &format!("alerts:id:{id}")]).expect("the index");
            let entry = place.split(' ').next().expect("an entry");
            assert_eq!(server.ask::<u64>(&["XDEL", "alerts:enriched", entry]).expect("XDEL"), 1);
        }
    }
}

/// Stores the record with this id once more, as no host should.
fn double(kind: &Kind, site: &Site, id: &str) {
    match kind {
        Kind::Directory => {
            let file = |name: &str| site.path(&format!("queue/processed/alert-{name}.json"));
            std::fs::copy(file(id), file(&format!("{id}-again"))).expect("a copy");
        }
        Kind::Redis(server) => {
            let records = kind.records(site);
            let record = records.iter().find(|record| record["id"] == id).expect("the record");
            let add = ["XADD", "alerts:enriched", "*", "id", id, "record", &record.to_string()];
            server.ask::<String>(&add).expect("XADD");
        }
    }
}

#[test]
fn an_orphan_a_double_and_a_stranger_are_named_and_the_end_is_1() {
    both(|kind| {
        let site = mischief(kind, "");
        site.write("alerts.ndjson", b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n{\"id\":\"d\"}\n");
        site.succeed(&["send", "--ids", "sent.ids", "alerts.ndjson"]);
        site.succeed(&["run", "--until-empty"]);
        lose(kind, &site, "a");
        double(kind, &site, "b");
        kind.put(&site, b"{\"id\":\"nobody sent me\"}");
        site.write("plain.ids", b"a\nb\nc\nd\n");
        for source in [["--ids", "sent.ids"], ["--alerts", "alerts.ndjson"], ["--ids", "plain.ids"]] {
            let (code, report) = verified(&site, &source);
            assert_eq!(code, Some(1), "{report:#}");
            assert_eq!(report["orphans"]["named"][0]["alert"], "a", "{report:#}");
            assert_eq!(report["doubles"]["named"][0]["alert"], "b", "{report:#}");
            let found = report["doubles"]["named"][0]["found"].as_array().expect("a list");
            assert_eq!(found.len(), 2, "{report:#}");
            assert_eq!(report["strangers"]["named"][0]["alert"], "nobody sent me", "{report:#}");
            assert_eq!((wrong(&report)[0], wrong(&report)[2]), (1, 1), "{report:#}");
        }
        let output = site.dossier(&["verify", "--ids", "plain.ids"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("orphan    a\n") && said.contains("stranger  nobody sent me  (waits as "), "{said}");
    });
}

#[test]
fn what_a_queue_may_not_have_taken_is_noted_as_unsure() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = Site::new(&Kind::Redis(server).config());
    // The server is gone with its kind: nothing was sent, and nothing is noted.
    assert!(!site.dossier(&["send", "--ids", "sent.ids", "dossier.toml"]).status.success());
    assert!(!site.path("sent.ids").exists());

    let kind = Kind::Redis(RedisServer::with(&["--maxmemory", "8mb"]).expect("redis-server starts"));
    let site = Site::new(&kind.config());
    let alerts: String = (0..30).map(|n| format!("{{\"id\":\"{n}\",\"x\":\"{}\"}}\n", "x".repeat(500_000))).collect();
    site.write("alerts.ndjson", alerts.as_bytes());
    assert!(!site.dossier(&["send", "--ids", "sent.ids", "alerts.ndjson"]).status.success());
    let (code, report) = verified(&site, &["--ids", "sent.ids"]);
    assert_eq!((code, wrong(&report)), (Some(0), [0; 3]), "{report:#}");
    assert!(report["unsure"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn what_moves_while_it_is_looked_for_is_neither_missing_nor_double() {
    both(|kind| {
        let site = Site::new(&kind.config());
        let alerts: Vec<u8> = (0..3_000).flat_map(|n| format!("{{\"id\":\"{n}\"}}\n").into_bytes()).collect();
        site.write("alerts.ndjson", &alerts);
        site.succeed(&["send", "--ids", "sent.ids", "alerts.ndjson"]);
        let host = site.start();
        // Whatever moves meanwhile is neither missing nor double.
        loop {
            let (code, report) = verified(&site, &["--ids", "sent.ids"]);
            assert_eq!((code, wrong(&report)), (Some(0), [0; 3]), "{report:#}");
            if report["stored"] == 3_000 {
                break;
            }
        }
        assert_eq!(host.stop(), Some(0));
    });
}

#[test]
fn the_counters_of_the_streams_add_up_until_somebody_deletes_an_entry() {
    let kind = Kind::Redis(RedisServer::start().expect("redis-server starts"));
    let site = mischief(&kind, "");
    site.write("alerts.ndjson", LINES);
    site.succeed(&["send", "alerts.ndjson"]);
    let (code, report) = verified(&site, &["--input"]);
    assert_eq!((code, &report["added"], &report["waiting"]), (Some(0), &10.into(), &10.into()), "{report:#}");
    site.succeed(&["run", "--until-empty"]);
    site.succeed(&["dlq", "replay", "--all"]);
    site.succeed(&["send", "alerts.ndjson"]);
    site.succeed(&["run", "--until-empty"]);
    let (code, report) = verified(&site, &["--input"]);
    let number = |what: &str| report[what].as_u64().expect("a number");
    assert_eq!(code, Some(0), "{report:#}");
    // Ten twice, and four that were replayed: five are stored, once; twelve times something died.
    assert_eq!((number("added"), number("stored"), number("dead"), number("duplicates")), (24, 5, 12, 7), "{report:#}");
    kind.put(&site, b"{\"id\":\"trimmed\"}");
    let Kind::Redis(server) = &kind else { unreachable!("it was made so") };
    server.ask::<u64>(&["XTRIM", "alerts", "MAXLEN", "0"]).expect("XTRIM");
    let (code, report) = verified(&site, &["--input"]);
    assert_eq!((code, &report["unexplained"]), (Some(1), &1.into()), "{report:#}");
    let other = mischief(&Kind::Directory, "");
    let output = other.dossier(&["verify", "--input"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--ids or --alerts"), "{said}");
}
