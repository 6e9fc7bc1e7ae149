//! Dead letters that come back: how fast, what happens when whoever replays them is killed, what becomes of those that fail again and
//! what is told of it, and which of them a new version of a plugin would let pass.

use std::process::Stdio;
use std::time::Instant;

use dossier::dead_letter::history::KEPT;
use dossier_tests::guest::framed;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, field, wait_for};
use serde_json::{Value, json};

use crate::operations::mischief;
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
        site.drained();
        let dead = host.log().iter().filter(|line| field(line, "outcome") == Some(&json!("dead"))).count();
        assert_eq!(dead, 3, "once for each replay");
        assert_eq!((letters(&site).len(), kind.records(&site).len()), (1, 2));
        happened("3 replays, attempts 1 to 4, in the DLQ once, no replay by itself");
    });
}

/// A site whose one step is to be written yet.
fn of_a_guest(kind: &Kind) -> Site {
    Site::new(&format!(
        "{}[plugins]\nprobation = {{ calls = 0, failures = 0.2 }}\n[[step]]\nplugin = \"guest\"\n",
        kind.config()
    ))
}

/// Versions of the step: two that fail, each for its reason, and one that does not.
const TRAPS: &str = "(func $enrich (param i32) unreachable)";
const TURNS: &str = "(func $enrich (param i32) (loop (br 0)))";
const PASSES: &str = "(func $enrich (param i32))";

/// Runs all that waits by this version.
fn run_by(site: &Site, version: &str) {
    site.write("plugins/guest.wasm", &framed("guest", version));
    site.succeed(&["run", "--until-empty"]);
}

#[test]
fn the_record_of_an_alert_that_failed_twice_tells_of_both_failures_in_their_order() {
    both(|kind| {
        let site = of_a_guest(kind);
        site.send(b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
        run_by(&site, TRAPS);
        let first = letters(&site);
        assert!(first.iter().all(|letter| letter.get("history").is_none()), "{first:?}");
        assert_eq!(site.succeed(&["dlq", "replay", "--all"]), "replayed 2\n");
        run_by(&site, TURNS);
        let [second, _] = &letters(&site)[..] else { panic!("two dead letters") };
        let first = first.iter().find(|letter| letter["id"] == second["id"]).expect("it was dead before");
        let key = second["key"].as_str().expect("a key");
        let shown = site.succeed(&["dlq", "show", key]);
        let before: Vec<_> = shown.lines().filter(|line| line.starts_with("before ")).collect();
        assert!(before.len() == 1 && before[0].contains(" trap in guest (guest "), "{shown}");
        site.succeed(&["dlq", "replay", key]);
        run_by(&site, PASSES);
        let [record] = &kind.records(&site)[..] else { panic!("one record") };
        let pipeline = &record["pipeline"];
        let failure = |letter: &Value| {
            json!({
                "failed_at": letter["failed_at"], "reason": letter["reason"], "step": "guest", "plugin": "guest",
                "version": letter["step"]["version"], "sha256": letter["step"]["sha256"], "detail": letter["detail"],
            })
        };
        assert_eq!((&first["reason"], &second["reason"]), (&json!("trap"), &json!("out-of-fuel")));
        assert_eq!(second["history"], json!([failure(first)]));
        assert_eq!(pipeline["history"], json!([failure(first), failure(second)]));
        assert_eq!((&pipeline["attempts"], pipeline.get("history_cut")), (&json!(3), None));
        assert_ne!(first["step"]["sha256"], second["step"]["sha256"]);
    });
}

#[test]
fn a_host_that_is_killed_with_a_replayed_alert_takes_nothing_of_its_history_with_it() {
    both(|kind| {
        let site = of_a_guest(kind);
        site.send(b"{\"id\":\"a\"}\n");
        run_by(&site, TRAPS);
        site.succeed(&["dlq", "replay", "--all"]);
        let cut = |failpoint: &str| {
            let mut command = site.program(&built("release/dossier-failpoints"), &["run", "--until-empty"]);
            let status = command.env("DOSSIER_FAILPOINT", failpoint).output().expect("it runs").status;
            assert!(!status.success(), "{failpoint} was not met");
        };
        for failpoint in ["alerts-read=1", "commit-begins=1"] {
            cut(failpoint);
        }
        run_by(&site, TURNS);
        site.succeed(&["dlq", "replay", "--all"]);
        site.write("plugins/guest.wasm", &framed("guest", PASSES));
        cut("commit-begins=1");
        site.succeed(&["run", "--until-empty"]);
        let [record] = &kind.records(&site)[..] else { panic!("one record") };
        let pipeline = &record["pipeline"];
        let history = pipeline["history"].as_array().expect("a list");
        let reasons: Vec<_> = history.iter().filter_map(|failure| failure["reason"].as_str()).collect();
        assert_eq!((reasons, &pipeline["attempts"]), (vec!["trap", "out-of-fuel"], &json!(3)));
        assert_eq!(pipeline["deliveries"], 2, "it was in flight when the host died");
        assert!(history[0]["failed_at"].as_str() < history[1]["failed_at"].as_str());
    });
}

#[test]
fn a_history_holds_the_last_failures_and_the_number_of_those_before_them() {
    both(|kind| {
        let site = of_a_guest(kind);
        site.send(b"{\"id\":\"a\"}\n");
        let mut failed = Vec::new();
        for _ in 0..KEPT + 2 {
            run_by(&site, TRAPS);
            failed.push(letters(&site)[0]["failed_at"].clone());
            site.succeed(&["dlq", "replay", "--all"]);
        }
        run_by(&site, PASSES);
        let pipeline = &kind.records(&site)[0]["pipeline"];
        let history = pipeline["history"].as_array().expect("a list");
        let told: Vec<_> = history.iter().map(|failure| failure["failed_at"].clone()).collect();
        assert_eq!(told, failed[2..]);
        assert_eq!((&pipeline["attempts"], &pipeline["history_cut"]), (&json!(KEPT + 3), &json!(2)));
    });
}

#[test]
fn what_somebody_writes_as_the_history_of_an_alert_costs_no_alert() {
    both(|kind| {
        let site = of_a_guest(kind);
        site.write("plugins/guest.wasm", &framed("guest", PASSES));
        let nonsense = ["", "nonsense", "[{}]", "{\"schema\":9}", &"[".repeat(70_000)];
        for (n, text) in nonsense.iter().enumerate() {
            let alert = format!("{{\"id\":\"{n}\"}}");
            match kind {
                Kind::Directory => {
                    site.write(&format!("queue/errors/alert-{n}.reason"), text.as_bytes());
                    site.write(&format!("queue/pending/alert-{n}.json"), alert.as_bytes());
                }
                Kind::Redis(server) => {
                    let words = ["XADD", "alerts", "*", "alert", &alert, "dossier:history", text];
                    server.ask::<String>(&words).expect("XADD");
                }
            }
        }
        let host = site.start();
        host.admin();
        wait_for("all to be stored", || (kind.records(&site).len() == nonsense.len()).then_some(()));
        for record in kind.records(&site) {
            let pipeline = &record["pipeline"];
            assert_eq!((&pipeline["history"], &pipeline["attempts"]), (&json!([]), &json!(1)));
        }
        let ignored = host.metric("dossier_queue_ignored_histories_total");
        assert_eq!(ignored, Some(nonsense.len() as f64));
        host.told("history ignored", "");
        assert_eq!(host.stop(), Some(0));
    });
}

/// A hundred alerts that a version of the plugin trapped on.
fn a_hundred_victims(kind: &Kind) -> Site {
    let site = of_a_guest(kind);
    site.write("plugins/guest.wasm", &framed("guest", TRAPS));
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
        run_by(&site, PASSES);
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
    site.write("other.wasm", &framed("guest", PASSES));
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
