//! What `cargo xtask test` does of fuzzing: every file of the corpora, which holds whatever was once found, and a fixed number of mutations
//! by a fixed seed, through the same code that libFuzzer drives in `cargo xtask fuzz`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use dossier_fuzz::{TARGETS, Target, corpus, mutate};
use fastrand::Rng;

/// Feeds one input; a failure names it.
fn feed(name: &str, target: Target, what: &str, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{name} fails with {what}: {}", input.escape_ascii());
    }
}

fn replay(name: &str, mutations: usize) {
    let (_, target) = *TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let entries = std::fs::read_dir(corpus(name)).expect("each target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty());
    for (path, seed) in paths.iter().zip(&seeds) {
        feed(name, target, &path.display().to_string(), seed);
    }
    let mut random = Rng::with_seed(4711);
    for n in 0..mutations {
        let (seed, other) = (&seeds[random.usize(..seeds.len())], &seeds[random.usize(..seeds.len())]);
        feed(name, target, &format!("mutation {n}"), &mutate::mutated(&mut random, seed, other));
    }
}

#[test]
fn no_bytes_make_an_alert_that_cannot_be_stored_and_read_back() {
    replay("alert", 20_000);
}

#[test]
fn quick_and_strict_readers_accept_the_same_bytes() {
    replay("decoders", 20_000);
}

#[test]
fn no_file_makes_a_table_with_rows_that_are_no_objects() {
    replay("tables", 10_000);
}

#[test]
fn no_file_makes_a_database_hang_or_answer_nonsense() {
    replay("mmdb", 10_000);
}

#[test]
fn no_text_confuses_the_configuration() {
    replay("config", 1_000);
}

#[test]
fn no_reason_makes_a_dead_letter_unlisted_or_stuck() {
    replay("dead_letter", 1_000);
}

#[test]
fn no_host_call_does_more_than_fail_its_own_plugin() {
    replay("host_calls", 2_000);
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folder = corpus("");
    let mut found: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    found.sort();
    targets.sort();
    assert_eq!(found, targets);
}
