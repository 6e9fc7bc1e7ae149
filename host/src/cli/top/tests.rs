use std::collections::BTreeMap;

use ratatui::backend::TestBackend;

use super::readings::tests::reading;
use super::*;
use crate::admin::api::report::{Alarm, DeadReason, Event, Probation, Table};

/// A host on a bad night.
fn night() -> History {
    let mut history = History::default();
    for (uptime, finished, waiting, added) in [(7_500.0, 100_000, 12_000, 112_003), (7_504.0, 103_000, 13_000, 116_003)]
    {
        let mut reading = reading(uptime, finished, waiting, Some(added));
        let mut reputation = reading.steps.steps[0].clone();
        reputation.step = "ip-reputation".into();
        reputation.outcomes =
            BTreeMap::from([("ok".into(), finished - 600), ("trap".into(), 500), ("timeout".into(), 100)]);
        reputation.retries = 42;
        reputation.probation = Some(Probation { calls: 13, of: 50, failed: 4, fails_at: 10 });
        reading.steps.steps.push(reputation);
        reading.steps.steps.push(crate::admin::api::report::Step {
            step: "asset\u{1b}[2J".into(),
            stage: None,
            version: None,
            sha256: None,
            ..reading.steps.steps[0].clone()
        });
        reading.status.ready = false;
        reading.status.problems = BTreeMap::from([("plugins".into(), "asset is absent".into())]);
        if let Some(dead) = &mut reading.dead_letters {
            dead.reasons = vec![DeadReason { reason: "trap".into(), step: Some("geo".into()), count: 12, last: None }];
        }
        reading.tables.tables = vec![Table {
            table: "geo".into(),
            file: "geo.mmdb".into(),
            sha256: "0123456789abcdef".repeat(4),
            rows: Some(120_430),
            duplicates: 0,
            loaded_seconds_ago: Some(7_000.0),
            changed_seconds_ago: Some(900_000.0),
            steps: vec!["geo".into()],
        }];
        reading.status.alarms = 1;
        reading.alarms.alarms = vec![Alarm {
            alarm: "plugin-missing".into(),
            severity: "critical".into(),
            subject: "asset".into(),
            detail: "its file is \u{7}absent".into(),
            since: "2026-01-02T03:04:05Z".into(),
            age_seconds: 125,
            times: 1,
            remedy: "Put the file into the plugins folder.".into(),
        }];
        let event = |level: &str, kind: &str, count| Event {
            level: level.into(),
            kind: kind.into(),
            text: "geo 0.2.0: \u{202e}10 of its first 13 calls failed".into(),
            count,
            first: "2026-01-02T03:04:05Z".into(),
            last: "2026-01-02T03:04:05Z".into(),
        };
        reading.events.events = vec![event("error", "plugin taken out", 1), event("warn", "step retried", 532)];
        history.add(reading);
    }
    history
}

/// What a terminal of this size shows.
fn shown(view: &mut View, width: u16, height: u16) -> Vec<String> {
    let client = Client::new("127.0.0.1:9464", None).unwrap();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = "03:04:06 UTC";
    terminal.draw(|frame| paint(frame, &client, view, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn every_size_shows_what_matters_first_and_nothing_drives_the_terminal() {
    for (width, height) in [(80, 24), (40, 10), (200, 60), (1, 1), (10, 3), (500, 2)] {
        let mut view = View { history: night(), ..View::default() };
        let lines = shown(&mut view, width, height);
        assert_eq!(lines.len(), usize::from(height));
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:#?}");
        if width >= 40 && height >= 10 {
            let text = lines.join("\n");
            for word in ["NOT READY", "backlog 13,003", "grows by 250/s", "in 1,000/s", "out 750/s"] {
                assert!(text.contains(word), "{width}x{height} without {word}:\n{text}");
            }
        }
    }
}

#[test]
fn a_usual_terminal_shows_all_of_it() {
    let mut view = View { history: night(), ..View::default() };
    let text = shown(&mut view, 80, 30).join("\n");
    println!("{text}");
    for word in [
        "plugins: asset is absent",
        "plugin-missing asset for 2 m: its file is \\u{7}absent",
        "→ Put the file",
        "STEP",
        "750",
        "trap 500, timeout",
        "asset\\u{1b}[2J",
        "absent",
        "dead letters 12",
        "trap in geo",
        "plugin taken out  geo 0.2.0: \\u{202e}10 of its first",
        "step retried ×532",
        "03:04:06 UTC  q ends",
    ] {
        assert!(text.contains(word), "without {word}:\n{text}");
    }
    let wide = shown(&mut view, 200, 60).join("\n");
    for word in [
        "DIGEST",
        "abcdef012345",
        "PROBATION",
        "4/13 of 50",
        "trap 500, timeout 100, retried 42",
        "P50",
        "USED BY",
        "120,430",
    ] {
        assert!(wide.contains(word), "without {word}:\n{wide}");
    }
}

#[test]
fn what_does_not_fit_can_be_scrolled_to_and_no_further() {
    let mut view = View { history: night(), ..View::default() };
    let first = shown(&mut view, 40, 10);
    assert!(first.last().is_some_and(|line| line.contains("more")), "{first:#?}");
    view.scrolled = 10_000;
    let last = shown(&mut view, 40, 10);
    assert!(last[8].contains("geo") && !last[9].contains("more"), "{last:#?}");
    assert_ne!(first, last);
}

#[test]
fn a_host_that_went_away_is_said_to_be_gone_and_its_last_picture_stays() {
    let error = AskError::NoAnswer { at: "127.0.0.1:9464".into(), why: "connection \u{1b}refused".into() };
    let mut view = View { history: night(), trouble: Some((error, Instant::now())), ..View::default() };
    let lines = shown(&mut view, 80, 24);
    assert!(
        lines[23].contains("old by 0.0 s: no host answers at 127.0.0.1:9464: connection \\u{1b}refused"),
        "{lines:#?}"
    );
    assert!(lines.join("\n").contains("backlog 13,003"));
    assert!(lines[0].contains("NO ANSWER") && !lines[0].to_lowercase().contains("ready"), "{lines:#?}");
}

#[test]
fn a_host_that_is_starting_is_waited_for() {
    let error = AskError::Starting { at: "127.0.0.1:9464".into() };
    let mut view = View { trouble: Some((error, Instant::now())), ..View::default() };
    let lines = shown(&mut view, 80, 24);
    assert_eq!(lines[0], "dossier at 127.0.0.1:9464   STARTING");
    assert!(lines[23].starts_with("the host at 127.0.0.1:9464 is starting"), "{lines:#?}");
}

#[test]
fn alarms_that_are_only_worth_knowing_share_a_line() {
    let mut reading = night().last().unwrap().clone();
    let of = |alarm: &str, severity: &str, subject: &str| Alarm {
        alarm: alarm.into(),
        severity: severity.into(),
        subject: subject.into(),
        ..reading.alarms.alarms[0].clone()
    };
    let mut alarms = vec![of("table-stale", "warning", "a"), of("table-stale", "warning", "b")];
    alarms.extend(["geo", "asset", "verdict"].map(|plugin| of("plugin-on-probation", "info", plugin)));
    reading.alarms.alarms = alarms;
    let lines: Vec<_> = page("here", &reading, None, true, 120).iter().map(ToString::to_string).collect();
    let with = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((with("table-stale"), with("plugin-on-probation geo, asset, verdict for")), (2, 1), "{lines:#?}");
    assert_eq!(with("plugin-on-probation"), 1, "{lines:#?}");
}

#[test]
fn what_was_enriched_anew_is_counted() {
    let mut reading = night().last().unwrap().clone();
    let lines = |reading: &Reading| {
        page("here", reading, None, true, 200).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(!lines(&reading).contains("anew") && !lines(&reading).contains("kept"));
    (reading.status.alerts.replaced, reading.status.alerts.kept) = (6_000, 7);
    let shown = lines(&reading);
    assert!(shown.contains("6,000 enriched anew") && shown.contains("7 kept as they were"), "{shown}");
}
