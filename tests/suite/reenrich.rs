//! Stored alerts that are enriched anew: what becomes of their records, of those that fail this time, of alerts that share an id, and of a
//! command or a host that is killed meanwhile.

use std::process::Stdio;
use std::time::Duration;

use dossier_tests::guest::framed;
use dossier_tests::host::{Site, wait_for};
use serde_json::{Value, json};

use crate::queues::{Kind, both};

/// Versions of the step: two that pass, and one that does not.
const FIRST: &str = "(func $enrich (param i32))";
const SECOND: &str = "(func $enrich (param i32) nop nop)";
const TRAPS: &str = "(func $enrich (param i32) unreachable)";

fn of_a_guest(kind: &Kind) -> Site {
    Site::new(&format!(
        "{}[plugins]\nprobation = {{ calls = 0, failures = 0.2 }}\n[[step]]\nplugin = \"guest\"\n",
        kind.config()
    ))
}

/// Runs all that waits by this version; gives the log.
fn run_by(site: &Site, version: &str) -> String {
    site.write("plugins/guest.wasm", &framed("guest", version));
    site.succeed(&["run", "--until-empty"])
}

fn sorted(kind: &Kind, site: &Site) -> Vec<Value> {
    let mut records = kind.records(site);
    records.sort_by_key(|record| record["id"].to_string());
    records
}

fn digest(record: &Value) -> &str {
    record["pipeline"]["steps"][0]["sha256"].as_str().expect("a digest")
}

/// Everything that was sent is where it should be, once, and the numbers add up.
fn adds_up(kind: &Kind, site: &Site) {
    site.succeed(&["verify", "--ids", "sent.ids"]);
    if matches!(kind, Kind::Redis(_)) {
        site.succeed(&["verify", "--input"]);
    }
}

fn sent(site: &Site, alerts: &str) {
    site.write("alerts.ndjson", alerts.as_bytes());
    site.succeed(&["send", "--ids", "sent.ids", "alerts.ndjson"]);
}

#[test]
fn a_stored_alert_is_enriched_anew_under_its_id_and_its_record_tells_of_the_one_before() {
    both(|kind| {
        let site = of_a_guest(kind);
        sent(&site, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"x\":\"says no id\"}\n");
        run_by(&site, FIRST);
        let first = sorted(kind, &site);
        let version = &digest(&first[0])[..8];

        let said = site.succeed(&["reenrich", "--digest", version, "--step", "guest", "--dry-run"]);
        assert!(said.contains("3  guest: plugin guest ") && said.ends_with("would send 3 of 3 records\n"), "{said}");
        assert_eq!(site.succeed(&["reenrich", "--digest", version]), "sent 3\n");
        let waits = site.succeed(&["explain", "a"]);
        assert!(waits.contains("WAITING  a\n") && waits.contains("its record is about to be replaced"), "{waits}");
        // Until a host has enriched them the records stay, and nothing is sent twice.
        assert_eq!(sorted(kind, &site), first);
        assert_eq!(site.succeed(&["reenrich", "--digest", version]), "sent 0, on their way already 3\n");
        assert_eq!(site.succeed(&["reenrich", "--all", "--limit", "1"]), "sent 0, on their way already 3\n");
        assert_eq!(site.status()["waiting"], 3);
        adds_up(kind, &site);

        let log = run_by(&site, SECOND);
        assert_eq!(log.matches("\"outcome\":\"replaced\"").count(), 3, "{log}");
        let second = sorted(kind, &site);
        assert_eq!(second.len(), 3);
        for (old, new) in first.iter().zip(&second) {
            assert_eq!((&old["id"], &old["alert"]), (&new["id"], &new["alert"]));
            assert_ne!(digest(old), digest(new));
            let step = &old["pipeline"]["steps"][0];
            let history = &new["pipeline"]["history"];
            let expected = json!([{
                "replaced_at": history[0]["replaced_at"], "first_received": old["pipeline"]["received"], "finished": old["pipeline"]["finished"], "verdict": "unknown", "score": 0,
                "step": "guest", "plugin": "guest", "version": step["version"], "sha256": step["sha256"],
            }]);
            assert_eq!((history, &new["pipeline"]["attempts"]), (&expected, &json!(2)));
            assert!(history[0]["replaced_at"].as_str() > old["pipeline"]["finished"].as_str());
        }
        adds_up(kind, &site);
        // By its index, too, only the new one is found; and the version has no results any more.
        let told = site.succeed(&["explain", "a", "--json"]);
        let told: Value = serde_json::from_str(&told).expect("it is JSON");
        assert_eq!(told["stored"].as_array().map(Vec::len), Some(1));
        assert_eq!(digest(&told["stored"][0]["record"]), digest(&second[0]));
        assert_eq!(site.succeed(&["reenrich", "--digest", version]), "sent 0\n");
        // What comes once more is a duplicate, as before.
        site.send(b"{\"id\":\"a\"}\n");
        assert!(site.succeed(&["run", "--until-empty"]).contains("\"outcome\":\"duplicate\""));
        assert_eq!(sorted(kind, &site), second);
    });
}

#[test]
fn an_alert_that_fails_this_time_keeps_the_record_that_it_has() {
    both(|kind| {
        let site = of_a_guest(kind);
        sent(&site, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
        run_by(&site, FIRST);
        let first = sorted(kind, &site);
        assert_eq!(site.succeed(&["reenrich", "--step", "guest", "--since", "1h", "--limit", "1"]), "sent 1\n");
        let log = run_by(&site, TRAPS);
        let line = log.lines().find(|line| line.contains("\"outcome\":\"kept\"")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("\"reason\":\"trap\"") && line.contains("\"step\":\"guest\""), "{line}");
        assert_eq!(sorted(kind, &site), first);
        assert!(kind.dead(&site).is_empty());
        assert_eq!(site.status()["waiting"], 0);
        adds_up(kind, &site);
        // It is still to be done, and is.
        assert_eq!(site.succeed(&["reenrich", "--step", "guest"]), "sent 2\n");
        run_by(&site, SECOND);
        assert!(sorted(kind, &site).iter().all(|record| record["pipeline"]["attempts"] == 2));
        adds_up(kind, &site);
    });
}

#[test]
fn alerts_that_share_an_id_keep_their_places_and_space_around_an_alert_makes_it_no_other() {
    both(|kind| {
        let site = of_a_guest(kind);
        site.succeed(&["status"]);
        site.write("plugins/guest.wasm", &framed("guest", FIRST));
        let alerts = ["{\"id\":\"a\"}", "  {\"id\":\"a\",\"n\":1} \n", "\t{\"id\":\"a/b\",\"n\":2}\r\n"];
        for alert in alerts {
            kind.put(&site, alert.as_bytes());
            site.succeed(&["run", "--until-empty"]);
        }
        let first = sorted(kind, &site);
        assert_eq!(first.len(), 3);
        assert_eq!(site.succeed(&["reenrich", "--all"]), "sent 3\n");
        let log = run_by(&site, SECOND);
        for record in &first {
            let id = format!("\"id\":{}", record["id"]);
            let told = log.lines().any(|line| line.contains(&id) && line.contains("\"outcome\":\"replaced\""));
            assert!(told, "the log knows it by the id that it is stored under: {id}");
        }
        let second = sorted(kind, &site);
        let ids = |records: &[Value]| records.iter().map(|record| record["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&first), ids(&second));
        assert!(second.iter().all(|record| record["pipeline"]["attempts"] == 2), "{second:?}");
        for alert in alerts {
            kind.put(&site, alert.as_bytes());
            assert!(site.succeed(&["run", "--until-empty"]).contains("\"outcome\":\"duplicate\""), "{alert:?}");
        }
        assert_eq!(sorted(kind, &site), second);
    });
}

#[test]
fn what_a_producer_claims_to_replace_takes_no_other_alerts_place() {
    let server = dossier_tests::redis_server::RedisServer::start().expect("redis-server starts");
    let kind = Kind::Redis(server);
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    let site = of_a_guest(&kind);
    sent(&site, "{\"id\":\"a\",\"n\":1}\n");
    run_by(&site, FIRST);
    let first = sorted(&kind, &site);
    let told: Value = serde_json::from_str(&site.succeed(&["explain", "a", "--json"])).expect("it is JSON");
    let entry = told["stored"][0]["key"].as_str().expect("a key");
    for (n, mark) in [format!("{entry} a"), format!("{entry} b"), "0-1 a".to_owned(), "a".to_owned(), String::new()]
        .iter()
        .enumerate()
    {
        let alert = format!("{{\"id\":\"a\",\"n\":\"forged {n}\"}}");
        let words = ["XADD", "alerts", "*", "alert", &alert, "dossier:replace", mark];
        server.ask::<String>(&words).expect("XADD");
    }
    site.succeed(&["run", "--until-empty"]);
    let second = sorted(&kind, &site);
    // Each is another alert of the same id, stored beside the first.
    assert_eq!(second.len(), 6);
    assert_eq!(second[0], first[0]);
}

#[test]
fn a_command_that_is_killed_is_begun_again_and_each_record_is_replaced_once() {
    both(|kind| {
        let site = of_a_guest(kind);
        sent(&site, &(0..200).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<String>());
        run_by(&site, FIRST);
        let mut command = site.command(&["reenrich", "--all", "--rate", "100"]);
        let said = std::fs::File::create(site.path("said.txt")).expect("a file");
        let mut command = command.stdout(Stdio::null()).stderr(said).spawn().expect("dossier runs");
        wait_for("some to be sent", || (site.status()["waiting"].as_u64() > Some(20)).then_some(()));
        command.kill().expect("it can be killed");
        command.wait().expect("it ends");
        let before = site.status()["waiting"].as_u64().expect("a number");
        assert!(before < 200, "it was too fast");
        // A host has enriched them anew before anybody notices.
        run_by(&site, SECOND);
        let said = std::fs::read_to_string(site.path("said.txt")).expect("what it said");
        let began = said.split("--before ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let began = began.unwrap_or_else(|| panic!("it does not say how to go on: {said}"));
        let said = site.succeed(&["reenrich", "--all", "--before", began]);
        assert_eq!(said, format!("sent {}\n", 200 - before));
        run_by(&site, SECOND);
        let records = sorted(kind, &site);
        assert_eq!(records.len(), 200);
        assert!(records.iter().all(|record| record["pipeline"]["attempts"] == 2));
        adds_up(kind, &site);
    });
}

#[test]
fn what_is_not_there_or_no_time_at_all_does_not_look_like_success() {
    let site = of_a_guest(&Kind::Directory);
    sent(&site, "{\"id\":\"a\"}\n");
    run_by(&site, FIRST);
    let version = digest(&sorted(&Kind::Directory, &site)[0])[..8].to_owned();
    let said = |arguments: &[&str]| {
        let output = site.dossier(&[&["reenrich"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for nothing in [&["--step", "nosuch"], &["--digest", "12345678"]] {
        let (_, said) = said(nothing);
        assert!(said.contains("no record has the") && said.contains(&format!("guest ({version}")), "{said}");
    }
    let (code, error) = said(&["--since", "1h", "--before", "2h"]);
    assert!(code != Some(0) && error.contains("--since") && error.contains("earlier"), "{error}");
    let (_, warned) = said(&["--digest", &version, "--dry-run"]);
    assert!(warned.contains("guest.wasm is this very version"), "{warned}");
    site.write("plugins/guest.wasm", &framed("guest", SECOND));
    let (_, silent) = said(&["--digest", &version, "--dry-run"]);
    assert!(!silent.contains("this very version"), "{silent}");
}

#[test]
fn an_alert_whose_key_of_the_index_holds_something_else_is_refused_and_the_others_go_on() {
    let kind = Kind::Redis(dossier_tests::redis_server::RedisServer::start().expect("redis-server starts"));
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    let site = of_a_guest(&kind);
    sent(&site, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    run_by(&site, FIRST);
    let place: String = server.ask(&["GET", "alerts:id:a"]).expect("GET");
    for odd in [&["SET", "alerts:id:a", "nonsense"][..], &["LPUSH", "alerts:id:a", "x"]] {
        server.ask::<u64>(&["DEL", "alerts:id:a"]).expect("DEL");
        server.ask::<redis::Value>(odd).expect("it is set");
        let output = site.dossier(&["reenrich", "--all"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("alert \"a\" was not sent"), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("refused 1"), "{output:?}");
        run_by(&site, SECOND);
    }
    server.ask::<u64>(&["DEL", "alerts:id:a"]).expect("DEL");
    server.ask::<redis::Value>(&["SET", "alerts:id:a", &place]).expect("SET");
    let attempts = |record: &Value| record["pipeline"]["attempts"].clone();
    assert_eq!(sorted(&kind, &site).iter().map(attempts).collect::<Vec<_>>(), [1, 3]);
    adds_up(&kind, &site);
}

#[test]
fn hosts_that_are_killed_meanwhile_replace_each_record_once() {
    both(|kind| {
        let site = of_a_guest(kind);
        sent(&site, &(0..300).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<String>());
        run_by(&site, FIRST);
        let version = digest(&sorted(kind, &site)[0])[..8].to_owned();
        site.write("plugins/guest.wasm", &framed("guest", SECOND));
        let mut command = site.command(&["reenrich", "--digest", &version, "--rate", "150"]);
        let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("dossier runs");
        let mut kills = 0;
        while command.try_wait().expect("it can be asked").is_none() {
            let host = site.start();
            // Wherever it is then.
            let deadline = std::time::Instant::now() + Duration::from_millis(400 + 37 * kills);
            wait_for("a moment to pass", || (std::time::Instant::now() > deadline).then_some(()));
            host.kill();
            kills += 1;
        }
        assert!(kills > 1, "it was too fast");
        wait_for("dead hosts' alerts to be taken over", || {
            site.succeed(&["run", "--until-empty"]);
            let status = site.status();
            (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
        });
        let records = sorted(kind, &site);
        assert_eq!(records.len(), 300);
        for record in &records {
            assert_eq!((&record["pipeline"]["attempts"], digest(record) == version), (&json!(2), false), "{record}");
        }
        assert!(kind.dead(&site).is_empty());
        adds_up(kind, &site);
    });
}
