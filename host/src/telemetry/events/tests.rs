use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::dead_letter::Reason;
use crate::record::{Label, Record, StepFacts, StepTrace};
use crate::telemetry::alarms::{Kind, Severity};
use crate::telemetry::logging::tests::{captured, json_lines};
use crate::telemetry::metrics::tests::parse;
use crate::telemetry::relay::Relayed;
use crate::telemetry::tap::{Taps, Wanted};
use crate::telemetry::{Event, Telemetry};

const TOOK: Duration = Duration::from_micros(812);

fn trace(step: &str, outcome: &'static str, detail: Option<&str>) -> StepTrace {
    let facts = StepFacts {
        step: step.to_owned(),
        stage: "enrich",
        plugin: step.to_owned(),
        version: "0.1.0".to_owned(),
        sha256: "aa".to_owned(),
        settings_sha256: "bb".to_owned(),
    };
    StepTrace {
        facts: Arc::new(facts.into()),
        outcome,
        detail: detail.map(str::to_owned),
        attempts: 1,
        cached: false,
        tables: BTreeMap::new(),
        fuel: 4211,
        memory: 131_072,
        duration_us: 9,
    }
}

fn finished<'a>(outcome: &'static str) -> AlertFinished<'a> {
    AlertFinished {
        id: Some("a-1"),
        entry: "1-0",
        outcome,
        verdict: None,
        reason: None,
        step: None,
        duration: TOOK,
        deliveries: 1,
        steps: &[],
        record: None,
    }
}

/// One of each event.
fn all(then: impl Fn(&dyn Event)) {
    let names = ["geo".to_owned(), "1-0".to_owned()];
    then(&AlertFinished { verdict: Some(Label::Malicious), ..finished("stored") });
    then(&StepRetried { step: "geo", id: "a-1", reason: "429", wait: TOOK });
    then(&StepCalled { step: "geo", stage: "enrich", outcome: "ok", duration: TOOK, fuel: 4211 });
    then(&ConfigReloaded { sha256: "cc", changed: &names, took: TOOK });
    then(&ConfigUnchanged { sha256: "cc" });
    then(&ConfigRefused { why: "dossier.toml:3: batch must be at least 1", serves: "cc" });
    then(&TableDropped { table: "feed" });
    then(&QueueTrouble { operation: "commit", error: "OOM" });
    then(&QueueRecovered { operation: "commit", after: TOOK });
    then(&AlertsClaimed { count: 3, from: "host-1" });
    then(&EntriesLost { entries: &names });
    then(&EntriesRescued { count: 3 });
    then(&CommitRefused { id: Some("a-1"), entry: "1-0", error: "WRONGTYPE" });
    then(&ConsumerShared { consumer: "host-1" });
    then(&DeadLettersMany { dead: 11, threshold: 10 });
    then(&EntrySkipped { entry: "link.json", why: "a symlink" });
    then(&HistoryIgnored { entry: "1-0", why: "EOF at line 1" });
    then(&GroupRecreated { stream: "alerts", group: "dossier" });
    then(&PluginLoaded { plugin: "geo", version: "0.1.0", sha256: "aa", took: TOOK, reload: true });
    then(&PluginRefused { plugin: "geo", sha256: None, why: "no component" });
    then(&PluginRemoved { plugin: "geo", policy: "serves on from memory", serves_on: true });
    let (plugin, version, sha256, why) = ("geo", "0.2.0", "bb", "10 of its first 12 calls failed (trap 10)");
    then(&PluginOnProbation { plugin, version, sha256, calls: 50, instead: Some("aa") });
    then(&PluginPassed { plugin, version, sha256, summary: "1 of its first 50 calls failed (trap 1)" });
    then(&PluginTakenOut { plugin, version, sha256, why, instead: ("0.1.0", "aa") });
    then(&PluginUnfit { plugin, version, sha256, why });
    then(&PluginSaid { step: "geo", id: Some("a-1"), level: tracing::Level::WARN, message: "odd" });
    then(&PluginLogCut { step: "geo", dropped: 7 });
    then(&PluginDenied { step: "geo", what: "table", detail: "\"secrets\" is not granted" });
    then(&HttpCalled { api: "abuseipdb", outcome: "ok", waited: TOOK, duration: TOOK });
    then(&HttpAnswered { api: "abuseipdb", source: "memory" });
    then(&HttpCacheTrouble { error: "no answer in time" });
    then(&SuspectDied { entry: "1-0", how: "signal: 11 (SIGSEGV)" });
    then(&SuspectsWait { why: "no memory" });
    then(&TableLoaded { table: "geo", rows: Some(3), duplicates: 1, sha256: "aa", took: TOOK, reload: true });
    then(&TableRefused { table: "geo", why: "line 3: no key" });
    then(&AlarmRaised { kind: Kind::SourceSilent, subject: "fw-1", detail: "nothing for 5 min" });
    then(&AlarmCleared { kind: Kind::SourceSilent, subject: "fw-1", after: TOOK });
    then(&TracesSent { spans: 4 });
    then(&TracesLost { spans: 4, error: "connection refused" });
    then(&HostStarted { admin: None, queue: "redis", steps: &names, missing: &BTreeMap::new() });
    then(&HostStopping { why: "SIGTERM" });
    then(&HostStopped { left_pending: 2 });
}

#[test]
fn the_list_of_all_events_has_them_all() {
    let sources = [
        include_str!("alarm.rs"),
        include_str!("alert.rs"),
        include_str!("config.rs"),
        include_str!("host.rs"),
        include_str!("http.rs"),
        include_str!("plugin.rs"),
        include_str!("queue.rs"),
        include_str!("suspect.rs"),
        include_str!("table.rs"),
        include_str!("traces.rs"),
    ];
    let there = sources.iter().map(|source| source.matches("impl Event for").count()).sum::<usize>();
    let listed = std::cell::Cell::new(0);
    all(|_| listed.set(listed.get() + 1));
    assert_eq!(listed.get(), there);
}

#[test]
fn every_event_writes_one_line_and_changes_what_is_counted() {
    let telemetry = Telemetry::default();
    // What the process uses changes by itself.
    let ours = || {
        let mut samples = parse(&telemetry.scrape());
        samples.retain(|series, _| series.starts_with("dossier_"));
        samples
    };
    let lines = captured(|| {
        all(|event| {
            let before = ours();
            telemetry.emit(event);
            assert_ne!(ours(), before, "an event that counts nothing");
        });
    });
    let lines = json_lines(&lines);
    let listed = std::cell::Cell::new(0);
    all(|_| listed.set(listed.get() + 1));
    // The queue that recovered ends an alarm, which is a line of its own.
    assert_eq!(lines.len(), listed.get() + 1);
    for line in &lines {
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {line}");
        }
        assert!(line["target"].as_str().is_some_and(|target| target.starts_with("dossier::")), "{line}");
    }
    // Every alarm has its line and its count.
    let alarms: Vec<_> = lines.iter().filter(|line| line["alarm"] == true).collect();
    for line in alarms {
        let name = line["name"].as_str().expect("an alarm names itself");
        let kind = Kind::of(name).unwrap_or_else(|| panic!("{name} is in the table"));
        assert!(kind.severity() == Severity::Info || line["level"] == "warn" || line["level"] == "error", "{line}");
        assert_eq!(ours()[&format!("dossier_alarms_total{{alarm=\"{name}\"}}")], 1.0, "{name}");
    }
    assert_eq!(ours()[r#"dossier_alarms_cleared_total{alarm="queue-trouble"}"#], 1.0);
    assert_eq!(ours()[r#"dossier_alarm{alarm="queue-trouble"}"#], 0.0);
    assert_eq!(ours()[r#"dossier_alarm{alarm="plugin-removed"}"#], 1.0);
}

#[test]
fn a_stored_alert_is_one_info_line_with_its_steps_as_an_array() {
    let steps = [
        trace("geo", "ok", None),
        trace("asset", "not-applicable", Some("no address")),
        trace("whois", "timeout", Some("over 1 s")),
    ];
    let lines = captured(|| {
        Telemetry::default().emit(&AlertFinished {
            verdict: Some(Label::Malicious),
            steps: &steps,
            ..finished("stored")
        });
    });
    let [line] = &json_lines(&lines)[..] else { panic!("one line: {lines}") };
    let mut line = line.clone();
    line.as_object_mut().expect("an object").remove("time");
    assert_eq!(
        line,
        serde_json::json!({
            "level": "info", "target": "dossier::alert", "message": "alert stored", "id": "a-1", "entry": "1-0",
            "outcome": "stored", "verdict": "malicious", "duration_us": 812, "deliveries": 1,
            "steps": [
                {"step": "geo", "outcome": "ok", "duration_us": 9, "fuel": 4211},
                {"step": "asset", "outcome": "not-applicable", "duration_us": 9, "fuel": 4211},
                {"step": "whois", "outcome": "timeout", "duration_us": 9, "fuel": 4211, "detail": "over 1 s"},
            ],
        })
    );
}

#[test]
fn a_dead_alert_says_why_and_counts_by_reason_and_step() {
    let telemetry = Telemetry::default();
    let lines = captured(|| {
        telemetry.emit(&AlertFinished {
            reason: Some((Reason::OutOfFuel, "used all of 10000000")),
            step: Some("geo"),
            ..finished("dead")
        });
        telemetry.emit(&AlertFinished { id: None, reason: Some((Reason::Malformed, "line 1")), ..finished("dead") });
        telemetry.emit(&finished("duplicate"));
        telemetry.emit(&AlertFinished { verdict: Some(Label::Benign), ..finished("conflict") });
        telemetry.emit(&finished("lost"));
    });
    let lines = json_lines(&lines);
    assert_eq!(lines[0]["message"], "alert dead");
    assert_eq!(lines[0]["reason"], "out-of-fuel");
    assert_eq!(lines[0]["step"], "geo");
    assert_eq!(lines[0]["detail"], "used all of 10000000");
    assert_eq!(lines[1].get("id"), None);
    assert!(lines.iter().all(|line| line["level"] == "info"));
    let samples = parse(&telemetry.scrape());
    assert_eq!(samples[r#"dossier_dead_letters_total{reason="out-of-fuel",step="geo"}"#], 1.0);
    assert_eq!(samples[r#"dossier_dead_letters_total{reason="malformed",step=""}"#], 1.0);
    assert_eq!(samples[r#"dossier_alerts_total{outcome="dead",verdict="none"}"#], 2.0);
    assert_eq!(samples["dossier_duplicates_total"], 1.0);
    assert_eq!(samples["dossier_id_conflicts_total"], 1.0);
    assert_eq!(samples["dossier_alert_duration_seconds_count"], 5.0);
}

#[test]
fn a_plugin_that_asks_a_thousand_times_for_what_it_may_not_have_gets_one_line_and_a_count_of_a_thousand() {
    let telemetry = Telemetry::default();
    let lines = captured(|| {
        for _ in 0..1000 {
            telemetry.emit(&PluginDenied { step: "geo", what: "http", detail: "evil.example is not granted" });
        }
    });
    // A slow machine may see a second or two go by.
    assert!((1..20).contains(&lines.lines().count()), "{lines}");
    assert_eq!(parse(&telemetry.scrape())[r#"dossier_plugin_denials_total{step="geo",what="http"}"#], 1000.0);
}

#[test]
fn a_thousand_lost_entries_are_one_line_of_bounded_length() {
    let entries: Vec<_> = (0..1000).map(|at| format!("{at}-0")).collect();
    let lines = captured(|| Telemetry::default().emit(&EntriesLost { entries: &entries }));
    let [line] = &json_lines(&lines)[..] else { panic!("one line: {lines}") };
    assert_eq!(line["count"], 1000);
    assert_eq!(line["entries"].as_array().map(Vec::len), Some(SHOWN));
    assert_eq!(line["entries"][1], Value::from("1-0"));
}

#[test]
fn an_event_that_was_relayed_counts_and_says_what_it_would_have_said_at_once() {
    let (here, there) = (Telemetry::default(), Telemetry::default());
    let (sender, sent) = std::sync::mpsc::channel();
    let away = Telemetry::relaying(Box::new(move |event| sender.send(event).unwrap()));
    all(|event| {
        away.emit(event);
        let Ok(relayed) = sent.try_recv() else { return };
        let line = serde_json::to_string(&relayed).unwrap();
        let said_there = captured(|| serde_json::from_str::<Relayed>(&line).unwrap().emit(&there));
        let without_time = |lines: &str| {
            let mut lines = json_lines(lines);
            lines.iter_mut().for_each(|line| _ = line.as_object_mut().unwrap().remove("time"));
            lines
        };
        assert_eq!(without_time(&said_there), without_time(&captured(|| here.emit(event))), "{line}");
    });
    let counted = |telemetry: &Telemetry| {
        let mut samples = parse(&telemetry.scrape());
        samples.retain(|series, _| series.starts_with("dossier_"));
        samples
    };
    assert_eq!(counted(&here), counted(&there));
    assert_eq!(counted(&away), counted(&Telemetry::default()), "counted twice");
    assert!(counted(&here).iter().any(|(series, count)| series.starts_with("dossier_step_calls") && *count > 0.0));
}

#[tokio::test]
async fn a_tap_shows_what_takes_the_place_of_a_record_as_well() {
    let taps = Arc::new(Taps::default());
    let reader = taps.open(Wanted::Records(None), None).unwrap();
    let record = |id: &str| Record { id: id.into(), sha256: [0; 32], rest: ",\"alert\":{}}".into() };
    for outcome in ["duplicate", "kept", "stored", "conflict", "replaced"] {
        AlertFinished { id: Some(outcome), record: Some(&record(outcome)), ..finished(outcome) }.tap(&taps);
    }
    for outcome in ["stored", "conflict", "replaced"] {
        let line: Value = serde_json::from_slice(&reader.next().await.unwrap()).unwrap();
        assert_eq!(line["record"]["id"], outcome);
    }
}

#[test]
fn what_became_of_alerts_is_counted_whatever_verdict_they_have() {
    let telemetry = Telemetry::default();
    for verdict in [None, Some(Label::Benign), Some(Label::Malicious)] {
        for outcome in ["stored", "conflict", "duplicate", "replaced", "kept", "dead", "lost"] {
            telemetry.emit(&AlertFinished { verdict, ..finished(outcome) });
        }
    }
    let alerts = telemetry.alerts();
    let counts =
        [alerts.stored, alerts.conflicts, alerts.duplicates, alerts.replaced, alerts.kept, alerts.dead, alerts.lost];
    assert_eq!((counts, alerts.finished()), ([3; 7], 18), "all but those that others took over");
}

#[test]
fn what_has_no_id_is_called_an_entry() {
    let event = |id| AlertFinished { id, reason: Some((Reason::Malformed, "line 1")), ..finished("dead") };
    assert!(event(None).noted().unwrap().text.ends_with("(entry 1-0)"));
    assert!(event(Some("a-1")).noted().unwrap().text.ends_with("(alert a-1)"));
}
