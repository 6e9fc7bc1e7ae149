//! Guests of `wasi:*`: what they find is an empty world, what they print becomes bounded log lines, and neither clocks nor random
//! numbers make one alert give two results. What they see is written in docs/plugins/wasi.md.

use std::time::{Duration, Instant};

use dossier_tests::guest::{Guest, no_c};
use dossier_tests::host::{field, wait_for};
use dossier_tests::not_run::not_run;
use serde_json::{Value, json};

use super::all::*;
use super::{load, site, trial};

/// What a guest answers in three calls, in fresh instances and in one that is kept.
async fn answers(guest: &Guest) -> Vec<Value> {
    let mut answers = Vec::new();
    for reuse in [1, 100] {
        let loaded = load(guest, &format!("reuse = {reuse}")).await.expect("a good plugin");
        for _ in 0..3 {
            answers.push(loaded.fields(0).await);
        }
    }
    answers
}

#[tokio::test]
async fn random_numbers_and_clocks_are_the_same_for_every_call_in_fresh_and_in_kept_instances() {
    for guest in [DICE, DICE_AT_START, INSECURE_DICE, STOPWATCH, SLEEPER, WALL_CLOCK] {
        let answers = answers(&guest).await;
        assert!(answers[0]["saw"].is_u64(), "{}: {answers:?}", guest.name);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{}: {answers:?}", guest.name);
    }
}

#[tokio::test]
async fn the_wall_clock_stands_at_the_beginning_of_1970() {
    let loaded = load(&WALL_CLOCK, "").await.expect("a good plugin");
    assert_eq!(loaded.fields(0).await["saw"], 0);
}

#[tokio::test]
async fn waiting_takes_no_time_and_the_clock_says_that_it_did() {
    let loaded = load(&SLEEPER, "timeout = \"5s\"").await.expect("a good plugin");
    let began = Instant::now();
    let passed = loaded.fields(3600).await["saw"].as_u64().expect("a time");
    assert!(Duration::from_nanos(passed) >= Duration::from_secs(3600), "{passed}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn sockets_and_names_are_refused() {
    let loaded = load(&SOCKET, "").await.expect("a good plugin");
    // Access denied, access denied, permanent resolver failure.
    assert_eq!(loaded.fields(0).await["saw"], 101_101_120);
}

#[tokio::test]
async fn a_guest_that_holds_a_handle_is_configured_in_each_instance() {
    let loaded = load(&KEEPS_HANDLE, "").await.expect("a good plugin");
    assert!(loaded.is_plain());
    loaded.fields(0).await;
    assert!(!load(&DICE, "").await.expect("a good plugin").is_plain());
}

#[test]
fn the_size_of_one_helping_of_random_bytes_ends_at_its_bound() {
    let (obeys, violates) = (json!({ "amount": 4096 }), json!({ "amount": 4097 }));
    trial(&BIG_RANDOM, "", Some(obeys), &violates, "invalid-output", "exceeds limit 4096");
}

#[test]
fn a_flood_of_calls_of_wasi_ends_with_the_time() {
    let limits = "fuel = 1000000000000\ntimeout = \"300ms\"";
    trial(
        &RANDOM_FLOOD,
        limits,
        Some(json!({ "amount": 10 })),
        &json!({ "amount": 2_000_000_000 }),
        "timeout",
        "300ms",
    );
}

/// The lines that a guest wrote, and how many more were dropped, for an alert with this amount.
fn printed(guest: &Guest, alert: &Value) -> (Vec<String>, u64, Value) {
    let site = site(guest, "timeout = \"10s\"");
    let host = site.start();
    host.admin();
    site.send(format!("{alert}\n").as_bytes());
    site.drained();
    let log = wait_for("the end of the alert", || {
        Some(host.log()).filter(|log| log.iter().any(|line| field(line, "outcome").is_some()))
    });
    let lines = log.iter().filter_map(|line| Some(field(line, "text")?.as_str()?.to_owned())).collect();
    let dropped = log.iter().filter_map(|line| field(line, "dropped")?.as_u64()).sum();
    let record = site.processed().pop().unwrap_or_else(|| panic!("no record: {log:?}")).1;
    (lines, dropped, record["enrichment"][guest.plugin()].clone())
}

#[test]
fn what_is_printed_becomes_as_many_log_lines_as_the_step_may_write() {
    let (lines, dropped, _) = printed(&PRINT_FLOOD, &json!({ "id": "a", "amount": 64 }));
    assert_eq!((lines.len(), dropped), (64, 0));
    assert!(lines.iter().all(|line| line == "a line of 32 bytes, with its end"), "{lines:?}");
    let (lines, dropped, _) = printed(&PRINT_FLOOD, &json!({ "id": "a", "amount": 100_000 }));
    assert_eq!(lines.len(), 64);
    assert!(dropped > 1000, "{dropped}");
}

#[test]
fn a_program_in_c_finds_no_files_no_variables_no_arguments_no_input_and_no_peer() {
    if let Some(why) = no_c() {
        not_run("a_program_in_c_finds_no_files_no_variables_no_arguments_no_input_and_no_peer", &why);
        return;
    }
    let (lines, dropped, found) = printed(&LOOKS_AROUND, &json!({ "id": "a" }));
    for what in ["file", "written", "folder", "root"] {
        assert!(found[what].as_u64() > Some(0), "{what}: {found}");
    }
    for what in ["arguments", "variables", "input", "now"] {
        assert_eq!(found[what], 0, "{what}: {found}");
    }
    assert_eq!(found["path"], false);
    assert_eq!(found["dice"], "0 03070b0f13171b1f");
    assert_eq!((&found["slept"], &found["passed"]), (&json!(0), &json!(3600)));
    assert_eq!((lines.join("|"), dropped), ("on the standard output, line 0|on the standard error".to_owned(), 0));
    let (lines, dropped, _) = printed(&LOOKS_AROUND, &json!({ "id": "a", "lines": 200 }));
    assert_eq!((lines.len(), dropped), (64, 137));
}

#[tokio::test]
async fn a_program_in_c_answers_the_same_every_time() {
    if let Some(why) = no_c() {
        not_run("a_program_in_c_answers_the_same_every_time", &why);
        return;
    }
    let answers = answers(&LOOKS_AROUND).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
