//! Guests that misbehave when they are called: each in a real host, where its alert ends as a dead letter with the reason, the
//! host's memory stays bounded, and the next alert is fine.

use serde_json::json;

use super::all::*;
use super::trial;

#[test]
fn a_loop_ends_when_its_fuel_is_used_up() {
    trial(&LOOP, "timeout = \"60s\"", Some(json!({ "rounds": 1000 })), &json!({}), "out-of-fuel", "raise fuel");
}

#[test]
fn a_loop_with_fuel_to_spare_ends_when_its_time_is_up() {
    let limits = "fuel = 1000000000000\ntimeout = \"300ms\"";
    trial(&SLOW, limits, Some(json!({ "spin": 1000 })), &json!({ "spin": u64::MAX >> 1 }), "timeout", "raise timeout");
}

#[test]
fn a_trap_and_a_panic_are_traps() {
    trial(&TRAP, "", None, &json!({}), "trap", "unreachable");
    trial(&PANIC, "", None, &json!({}), "trap", "unreachable");
}

#[test]
fn recursion_ends_with_the_stack() {
    trial(
        &DEEP_CALLS,
        "",
        Some(json!({ "amount": 1000 })),
        &json!({ "amount": 100_000_000 }),
        "trap",
        "call stack exhausted",
    );
    // Rust keeps a part of its stack in memory, which ends first.
    trial(&RECURSE, "", Some(json!({ "depth": 100 })), &json!({}), "trap", "out of bounds memory access");
}

#[test]
fn memory_ends_at_its_cap() {
    let grown =
        trial(&GROW, "memory = \"8MiB\"", Some(json!({ "mebibytes": 2 })), &json!({}), "memory", "raise memory");
    // The cap, and what a host needs for one more alert.
    assert!(grown < (8 + 8) << 20, "{grown} bytes more");
}

#[test]
fn a_table_ends_at_its_cap() {
    // A table of one element grows to 65,536 and no further.
    trial(&TABLE_BOMB, "", Some(json!({ "amount": 65_535 })), &json!({ "amount": 65_536 }), "memory", "memory");
}

#[test]
fn handles_of_the_host_end_at_their_number() {
    trial(&HANDLE_BOMB, "", Some(json!({ "amount": 256 })), &json!({ "amount": 257 }), "trap", "resource table");
}

#[test]
fn handles_of_the_guest_end_at_their_number() {
    let (obeys, violates) = (json!({ "amount": 1024 }), json!({ "amount": 1025 }));
    trial(&OWN_HANDLE_BOMB, "", Some(obeys), &violates, "invalid-output", "handle limit");
}

#[test]
fn the_size_of_an_answer_ends_at_its_bound() {
    let (obeys, violates) = (json!({ "bytes": (64 << 10) - 10 }), json!({ "bytes": (64 << 10) - 9 }));
    trial(&BIG_ANSWER, "answer = \"64KiB\"", Some(obeys), &violates, "invalid-output", "raise answer");
}

#[test]
fn an_answer_of_a_gibibyte_is_not_copied() {
    let (obeys, violates) = (json!({ "amount": 64 }), json!({ "amount": 1 << 20 }));
    trial(&HUGE_ANSWER, "memory = \"2GiB\"", Some(obeys), &violates, "invalid-output", "fuel");
}

#[test]
fn a_line_of_a_gibibyte_is_not_copied() {
    let (obeys, violates) = (json!({ "amount": 64 }), json!({ "amount": 1 << 20 }));
    trial(&HUGE_LINE, "memory = \"2GiB\"", Some(obeys), &violates, "invalid-output", "fuel");
}

#[test]
fn an_answer_that_is_small_there_and_huge_here_is_not_copied() {
    trial(&ECHO_BOMB, "", None, &json!({ "amount": 200_000 }), "invalid-output", "fuel");
    // Few of them are copied, and refused for another reason.
    trial(&ECHO_BOMB, "", None, &json!({ "amount": 10 }), "invalid-output", "only a normalize step");
}

#[test]
fn an_answer_that_is_no_json_object_is_refused() {
    trial(&NOT_JSON, "", None, &json!({}), "invalid-output", "no JSON object");
    trial(&NOT_OBJECT, "", None, &json!({}), "invalid-output", "no JSON object");
    trial(&NOT_UTF8, "", None, &json!({ "amount": 1 }), "invalid-output", "utf-8");
    trial(&OUT_OF_BOUNDS, "", None, &json!({ "amount": 1 }), "invalid-output", "bounds");
}

#[test]
fn an_answer_that_is_not_as_the_plugins_own_schema_says_is_refused() {
    // The answers before and after it are as the schema says.
    trial(&OFF_SCHEMA, "", None, &json!({}), "invalid-output", "/calls");
}

#[test]
fn an_answer_may_have_a_hundred_levels_and_not_a_hundred_thousand() {
    let (obeys, violates) = (json!({ "depth": 100 }), json!({ "depth": 100_000 }));
    trial(&DEEP_ANSWER, "", Some(obeys), &violates, "invalid-output", "recursion limit");
}

#[test]
fn an_answer_that_its_stage_may_not_give_is_refused() {
    trial(&ADD_OBSERVABLE, "", None, &json!({}), "invalid-output", "only a normalize step");
    trial(&BAD_VERDICT, "", None, &json!({}), "invalid-output", "only a verdict step");
}

#[test]
fn what_a_plugin_says_of_its_failure_is_passed_on_and_cut() {
    trial(&INVALID, "", None, &json!({}), "invalid", "finds the alert invalid");
    trial(&INTERNAL, "", None, &json!({ "bytes": 100_000 }), "plugin-error", "mischief is wrong");
    trial(&UNAVAILABLE, "retries = 1", None, &json!({ "after_ms": 1 }), "unavailable", "mischief is away");
}

#[test]
fn a_flood_of_lines_ends_with_the_fuel() {
    trial(&LOG_FLOOD, "timeout = \"60s\"", Some(json!({ "count": 1000 })), &json!({}), "out-of-fuel", "raise fuel");
}

#[test]
fn a_flood_of_host_calls_ends_with_the_fuel() {
    let obeys = json!({ "table": "t", "count": 100 });
    trial(&LOOKUP_FLOOD, "timeout = \"60s\"", Some(obeys), &json!({ "table": "t" }), "out-of-fuel", "raise fuel");
}

#[test]
fn a_handle_that_was_never_lent_is_worth_nothing() {
    trial(&ALERT_KEPT, "", None, &json!({ "amount": 1 }), "invalid-output", "handle");
}

#[tokio::test]
async fn what_asks_politely_is_answered() {
    use super::{asked, load};
    let loaded = load(&LOOKUP, "").await.expect("the plugin is fine");
    for (guest, key, expected) in [(LOOKUP, "error", "denied"), (HTTP, "error", "invalid")] {
        let (outcome, _) = loaded.call(&asked(&guest, &json!({ "table": "other", "key": "k" }))).await;
        let fields: serde_json::Value =
            serde_json::from_str(outcome.expect("an answer").fields.get()).expect("an object");
        assert_eq!(fields[key], expected, "{fields}");
    }
    let (outcome, _) = loaded.call(&asked(&NOT_APPLICABLE, &json!({}))).await;
    assert!(matches!(outcome, Err(dossier::pipeline::Failure::NotApplicable(_))), "{outcome:?}");
}
