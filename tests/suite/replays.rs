//! Dead letters that come back: how fast, what happens when whoever replays them is killed, what becomes of those that fail again, and
//! which of them a new version of a plugin would let pass.

use std::process::Stdio;
use std::time::Instant;

use dossier_tests::guest::framed;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, field, wait_for};
use serde_json::{Value, json};

use crate::operations::{drained, mischief};
use crate::queues::{Kind, both};

/// The dead letters.
fn letters(site: &Site) -> Vec<Value> {
    let listed = site.succeed(&["dlq", "list", "--json"]);
    listed.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[test]
fn a_replayed_dead_letter_that_fails_again_keeps_its_attempts_and_does_not_come_back_by_itself() {
    both(|kind| {
        let site = mischief(kind, "");
        site.send(b"{\"id\":\"bad\",\"mischief\":\"trap\"}\n{\"id\":\"good\"}\n");
        site.succeed(&["run", "--until-empty"]);
        let [first] = &letters(&site)[..] else { panic!("one dead letter") };
        assert_eq!(first["attempts"], 1);
        let host = site.start();
        host.admin();
        for attempts in 2..=4 {
            // It fails again while the replay is still at work, or just after it: either way the replay ends.
            assert_eq!(site.succeed(&["dlq", "replay", "--all"]), "replayed 1\n");
            let again = wait_for("it to fail again", || {
                letters(&site).into_iter().find(|letter| letter["attempts"] == attempts)
            });
            assert_eq!(letters(&site).len(), 1);
            assert_eq!((&again["id"], &again["reason"]), (&json!("bad"), &json!("trap")));
            assert_eq!(again["first_seen"], first["first_seen"]);
            assert!(again["failed_at"].as_str() > first["failed_at"].as_str());
        }
        // A good alert behind it: when that is done, a loop would have shown.
        site.send(b"{\"id\":\"last\"}\n");
        drained(&site);
        let dead = host.log().iter().filter(|line| field(line, "outcome") == Some(&json!("dead"))).count();
        assert_eq!(dead, 3, "once for each replay");
        assert_eq!((letters(&site).len(), kind.records(&site).len()), (1, 2));
        happened("3 replays, attempts 1 to 4, in the DLQ once, no replay by itself");
    });
}

/// A hundred alerts that a version of the plugin trapped on.
fn a_hundred_victims(kind: &Kind) -> Site {
    let site = Site::new(&format!(
        "{}[plugins]\nprobation = {{ calls = 0, failures = 0.2 }}\n[[step]]\nplugin = \"guest\"\n",
        kind.config()
    ));
    site.write("plugins/guest.wasm", &framed("guest", "(func $enrich (param i32) unreachable)"));
    let alerts: String = (0..100).map(|n| format!("{{\"id\":\"{n}\",\"amount\":{}}}\n", n % 10)).collect();
    site.write("alerts.ndjson", alerts.as_bytes());
    site.succeed(&["send", "--ids", "sent.ids", "alerts.ndjson"]);
    site.succeed(&["run", "--until-empty"]);
    assert_eq!(site.status()["dead"], 100);
    site
}

#[test]
fn a_replay_that_is_killed_goes_on_when_it_is_begun_again_and_takes_nothing_twice() {
    both(|kind| {
        let site = a_hundred_victims(kind);
        let mut replay = site.command(&["dlq", "replay", "--all", "--rate", "50"]);
        let mut replay = replay.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("dossier runs");
        wait_for("some to be replayed", || (site.status()["waiting"].as_u64() >= Some(10)).then_some(()));
        replay.kill().expect("it runs");
        replay.wait().expect("it ends");
        let status = site.status();
        let (waiting, dead) = (status["waiting"].as_u64(), status["dead"].as_u64());
        assert!(dead > Some(0) && waiting.zip(dead).is_some_and(|(waiting, dead)| waiting + dead == 100), "{status}");
        let rest = dead.expect("a number");
        assert_eq!(site.succeed(&["dlq", "replay", "--all", "--rate", "1000"]), format!("replayed {rest}\n"));
        assert_eq!((&site.status()["waiting"], &site.status()["dead"]), (&json!(100), &json!(0)));
        site.succeed(&["verify", "--ids", "sent.ids"]);
        site.write("plugins/guest.wasm", &framed("guest", "(func $enrich (param i32))"));
        site.succeed(&["run", "--until-empty"]);
        let records = kind.records(&site);
        assert_eq!(records.len(), 100);
        assert!(records.iter().all(|record| record["pipeline"]["attempts"] == 2), "{}", records[0]);
        site.succeed(&["verify", "--ids", "sent.ids"]);
    });
}

#[test]
fn a_replay_is_no_faster_than_its_rate() {
    let site = a_hundred_victims(&Kind::Directory);
    let began = Instant::now();
    let output = site.dossier(&["dlq", "replay", "--all", "--rate", "100"]);
    let took = began.elapsed();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "replayed 100\n");
    assert!(took.as_millis() >= 980, "{took:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("100 dead letters at 100 a second: about 1.0 s") && said.contains("--before 2"), "{said}");
    assert_eq!(site.dossier(&["dlq", "replay", "--all", "--rate", "0"]).status.code(), Some(2));
}

#[test]
fn a_new_version_is_tried_on_the_dead_letters_and_only_those_that_pass_are_moved() {
    both(|kind| {
        let site = a_hundred_victims(kind);
        // Better, but no good for three in ten.
        let better = framed(
            "guest",
            "(func $enrich (param $amount i32) (if (i32.lt_u (local.get $amount) (i32.const 3)) (then unreachable)))",
        );
        site.write("new/guest.wasm", &better);
        let before = letters(&site);
        let with = ["dlq", "replay", "--all", "--with", "new/guest.wasm"];
        let said = site.succeed(&[&with[..], &["--dry-run", "--json"]].concat());
        let fates: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
        assert_eq!(fates.len(), 100);
        for fate in &fates {
            let number: u32 = fate["id"].as_str().and_then(|id| id.parse().ok()).expect("a number");
            let expected = if number % 10 < 3 { "would-fail" } else { "would-pass" };
            assert_eq!((&fate["outcome"], &fate["was"]), (&json!(expected), &json!("trap")), "{fate}");
            if expected == "would-fail" {
                assert_eq!((&fate["reason"], &fate["step"]), (&json!("trap"), &json!("guest")), "{fate}");
                assert!(fate["detail"].as_str().is_some_and(|detail| detail.contains("unreachable")), "{fate}");
            }
        }
        assert_eq!(letters(&site), before, "a dry run changes nothing");
        let said = site.succeed(&[&with[..], &["--dry-run"]].concat());
        assert!(said.ends_with("would pass 70, would fail again 30\n"), "{said}");

        let output = site.dossier(&with);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.ends_with("replayed 70, would fail and stay 30\n"), "{said}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("guest.wasm is another file"));
        assert_eq!((&site.status()["waiting"], &site.status()["dead"]), (&json!(70), &json!(30)));
        assert!(letters(&site).iter().all(|letter| letter["attempts"] == 1), "those that stay were not touched");
        std::fs::rename(site.path("new/guest.wasm"), site.path("plugins/guest.wasm")).expect("the plugin in its place");
        site.succeed(&["run", "--until-empty"]);
        assert_eq!((kind.records(&site).len(), letters(&site).len()), (70, 30));
        site.succeed(&["verify", "--ids", "sent.ids"]);
    });
}

#[test]
fn a_component_that_cannot_take_its_plugins_place_is_refused_and_nothing_is_moved() {
    let site = a_hundred_victims(&Kind::Directory);
    site.write("other.wasm", &framed("guest", "(func $enrich (param i32))"));
    site.write("guest.wasm", b"\0asm no component");
    for (file, what) in
        [("other.wasm", "rename its file to guest.wasm"), ("guest.wasm", "cannot be run"), ("none.wasm", "none.wasm")]
    {
        let output = site.dossier(&["dlq", "replay", "--all", "--with", file]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(what), "{said}");
    }
    assert_eq!(site.status()["dead"], 100);
}
