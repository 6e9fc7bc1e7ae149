//! The sandbox and the plugins folder, with small guests written as text: each limit obeyed and violated, and what happens to
//! files that come, change and go. The real program compiles them, as it does for a host.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

#[path = "sandbox/folder.rs"]
mod folder;
#[path = "sandbox/place.rs"]
mod place;
#[path = "sandbox/versions.rs"]
mod versions;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use dossier::dead_letter::Reason;
use dossier::pipeline::Failure;

use self::place::*;

const LOOP: &str = "(loop $again (br $again))";

/// Grows by 15 pages to 1 MiB, and gives up when it may not.
const GROW: &str = "(if (i32.eq (memory.grow (i32.const 15)) (i32.const -1)) (then unreachable))";

#[tokio::test]
async fn a_guest_within_its_limits_answers_and_its_cost_is_known() {
    let (outcome, cost) = call(Guest { enrich: GROW, ..GUEST }, "memory = \"1MiB\"").await;
    assert_eq!(outcome.unwrap().fields.get(), "{}");
    assert_eq!(cost.memory, 1 << 20);
    assert!(cost.fuel > 0 && cost.fuel < 1000, "{}", cost.fuel);
}

#[tokio::test]
async fn a_trap_is_a_trap() {
    let (outcome, _) = call(Guest { enrich: "unreachable", ..GUEST }, "").await;
    assert_eq!(reason(&outcome), Some(Reason::Trap));
}

#[tokio::test]
async fn a_loop_ends_when_its_fuel_is_used_up() {
    let (outcome, cost) = call(Guest { enrich: LOOP, ..GUEST }, "fuel = 100000\ntimeout = \"60s\"").await;
    assert_eq!(reason(&outcome), Some(Reason::OutOfFuel));
    assert_eq!(cost.fuel, 100_000);
}

#[tokio::test]
async fn a_loop_with_fuel_to_spare_ends_when_its_time_is_up() {
    let (outcome, cost) = call(Guest { enrich: LOOP, ..GUEST }, "fuel = 1000000000000\ntimeout = \"100ms\"").await;
    assert_eq!(reason(&outcome), Some(Reason::Timeout));
    assert!(cost.duration >= Duration::from_millis(100) && cost.duration < Duration::from_secs(5), "{cost:?}");
}

#[tokio::test]
async fn memory_over_the_cap_is_refused_and_the_guest_that_gives_up_is_told_apart_from_a_trap() {
    let (outcome, cost) = call(Guest { enrich: GROW, ..GUEST }, "memory = \"960KiB\"").await;
    assert_eq!(reason(&outcome), Some(Reason::Memory));
    assert_eq!(cost.memory, 64 << 10);
    // Who is refused and goes on did nothing wrong.
    let modest = "(drop (memory.grow (i32.const 15)))";
    assert!(call(Guest { enrich: modest, ..GUEST }, "memory = \"960KiB\"").await.0.is_ok());
}

#[tokio::test]
async fn recursion_without_end_is_a_trap() {
    let extra = "(func $deeper (param i64) (result i64) (i64.add (call $deeper (local.get 0)) (i64.const 1)))";
    let (outcome, _) = call(Guest { enrich: "(drop (call $deeper (i64.const 0)))", extra, ..GUEST }, "").await;
    let Err(Failure::Failed { reason: Reason::Trap, detail }) = outcome else { panic!("{outcome:?}") };
    assert!(detail.contains("stack"), "{detail}");
}

#[tokio::test]
async fn each_call_has_a_fresh_instance_unless_the_step_reuses_it() {
    // The second call of one instance traps.
    let guest = Guest {
        enrich: "(if (global.get $called) (then unreachable)) (global.set $called (i32.const 1))",
        extra: "(global $called (mut i32) (i32.const 0))",
        ..GUEST
    };
    for (reuse, expected) in [(1, [None, None, None]), (2, [None, Some(Reason::Trap), None])] {
        let place = Place::new(&format!("[[step]]\nplugin = \"guest\"\nreuse = {reuse}"));
        place.put("guest.wasm", &guest.component());
        let plugins = place.start().await;
        let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
        for expected in expected {
            assert_eq!(reason(&enricher.enrich(given()).await.0), expected, "reuse = {reuse}");
        }
    }
}

#[tokio::test]
async fn a_guest_is_configured_once_and_copied_or_configured_in_each_instance_where_that_cannot_be() {
    // Growing a table is what cannot be copied; the guest itself traps when it is not configured.
    let grows = "(table 1 funcref) (func (export \"never\") (drop (table.grow 0 (ref.null func) (i32.const 1))))";
    for (extra, copied) in [("", true), (grows, false)] {
        let place = Place::new("[[step]]\nplugin = \"guest\"");
        place.put("guest.wasm", &Guest { extra, ..GUEST }.component());
        let plugins = place.start().await;
        let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
        assert!(enricher.enrich(given()).await.0.is_ok());
        let compiled = fs::read_dir(place.folder.path().join("state/compiled")).unwrap();
        let labels = compiled.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "json");
        let label = fs::read_to_string(labels.last().unwrap()).unwrap();
        assert_eq!(label.contains("\"plain\":null"), copied, "{label}");
    }
}

#[tokio::test]
async fn more_calls_at_once_than_the_pool_holds_wait_for_room() {
    let place = Place::new("[host]\nin_flight = 1\n[[step]]\nplugin = \"guest\"\nfuel = 1000000000\ntimeout = \"60s\"");
    let enrich = "(local.set 0 (i32.const 300000))
                  (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))";
    place.put("guest.wasm", &Guest { enrich, ..GUEST }.component());
    let plugins = place.start().await;
    let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let enricher = Arc::clone(&enricher);
                async move { enricher.enrich(given()).await.0.is_ok() }
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
}

#[tokio::test]
async fn a_start_or_configure_that_loops_or_traps_is_refused_and_nothing_is_read() {
    for (guest, why) in [
        (Guest { extra: "(func $start (loop $again (br $again))) (start $start)", ..GUEST }, "out-of-fuel"),
        (Guest { configure: LOOP, ..GUEST }, "out-of-fuel"),
        (Guest { configure: "unreachable", ..GUEST }, "trap"),
    ] {
        let place = Place::new("[[step]]\nplugin = \"guest\"");
        place.put("guest.wasm", &guest.component());
        let plugins = place.start().await;
        assert!(now(&plugins).is_none());
        let problem = place.problem().unwrap();
        assert!(problem.contains("start or configure") && problem.contains(why), "{problem}");
    }
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let whole = GUEST.component();
    let evil = wat::parse_str("(component (import \"evil:corp/exec\" (func)))").unwrap();
    let bare = wat::parse_str("(component)").unwrap();
    let other = Guest { name: "other", ..GUEST }.component();
    let core = wat::parse_str("(module)").unwrap();
    for (bytes, why) in [
        (&b""[..], "empty"),
        (b"\x7fELF machine code", "no WebAssembly component"),
        (b"(component)", "no WebAssembly component"),
        (&core, "core module"),
        (&whole[..whole.len() / 2], "not a valid plugin"),
        (&evil, "does not export dossier:plugin/enricher@1.0.0"),
        (&bare, "does not export dossier:plugin/enricher@1.0.0"),
        (&other, "rename its file to other.wasm"),
    ] {
        let place = Place::new("[[step]]\nplugin = \"guest\"");
        place.put("guest.wasm", bytes);
        let plugins = place.start().await;
        assert!(now(&plugins).is_none());
        let problem = place.problem().unwrap();
        assert!(problem.contains(why), "{why}: {problem}");
        assert!(place.findings().await.iter().any(|finding| finding.contains(why)));
    }
}

#[tokio::test]
async fn a_plugin_whose_memory_does_not_fit_its_cap_is_refused_at_load() {
    let place = Place::new("[[step]]\nplugin = \"guest\"\nmemory = \"64KiB\"");
    // A second memory makes two pages together.
    place.put("guest.wasm", &Guest { extra: "(memory $second 1)", ..GUEST }.component());
    let plugins = place.start().await;
    assert!(now(&plugins).is_none());
    assert!(place.problem().unwrap().contains("memory"), "{:?}", place.problem());
}

#[tokio::test]
async fn a_named_step_needs_its_grants_and_an_unnamed_plugin_does_not() {
    let asking =
        GUEST.component_with(r#"(import "dossier:plugin/tables@1.0.0" "lookup" (func (param i32 i32 i32 i32 i32)))"#);
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    place.put("guest.wasm", &asking);
    let plugins = place.start().await;
    assert!(now(&plugins).is_none());
    assert!(
        place.problem().unwrap().contains("it imports tables, which the step is not granted"),
        "{:?}",
        place.problem()
    );

    let place = Place::new("");
    place.put("guest.wasm", &asking);
    assert_eq!(now(&place.start().await).unwrap().steps().len(), 1);
}

#[tokio::test]
async fn a_component_of_a_wasi_toolchain_gets_the_same_random_numbers_every_time() {
    let place = Place::new("");
    let import = r#"(import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))"#;
    // Any other number than the first of the fixed row is a trap.
    let enrich = "(if (i64.ne (call $random) (i64.const 0x0001020304050607)) (then unreachable))";
    place.put("guest.wasm", &Guest { enrich, ..GUEST }.component_with(import));
    let plugins = place.start().await;
    let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
    for _ in 0..2 {
        let (outcome, _) = enricher.enrich(given()).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
