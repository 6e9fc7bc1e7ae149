//! The queue as a model, checked against both real ones by the same operations in any order; and the worker with its pipeline on that
//! model, with steps that end in any way and hosts that die at any time.
//!
//! What fails is written into `model/regressions.txt` and tried first from then on. Without `PROPTEST_CASES` every run tries the same
//! series, so that a change is judged by what it changed; `PROPTEST_CASES=500` tries so many others, and new ones each time.

mod limits;
mod operation;
mod place;
mod queue;
mod real;
mod state;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dossier_tests::redis_server::RedisServer;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use tokio::task::JoinSet;

use self::operation::{Operation, series};
use self::place::Place;
use self::real::Pair;

/// Tries so many values of a strategy, or as many as `PROPTEST_CASES` says, those that failed before first. Each is several series
/// side by side.
fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/suite/model/regressions.txt");
    let mut config = Config { max_shrink_iters: 300, max_shrink_time: 120_000, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
        config.rng_seed = RngSeed::Fixed(11);
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS)));
    let run = TestRunner::new(config).run(strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

/// Runs series of anything side by side, because much of their time is waiting.
fn side_by_side<T, F: Future<Output = ()> + Send + 'static>(all: Vec<T>, run: impl Fn(T) -> F) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut tasks: JoinSet<()> = all.into_iter().map(run).collect();
        while let Some(done) = tasks.join_next().await {
            if let Err(error) = done {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
}

async fn run_on(place: Place, operations: Vec<Operation>) {
    Pair::new(place).await.run(&operations).await;
}

#[test]
fn redis_does_what_the_model_says_whatever_happens_in_any_order() {
    let server = Arc::new(RedisServer::start().expect("redis-server starts"));
    let streams = AtomicU64::new(0);
    check(6, &series(), |all| {
        side_by_side(all, |operations| {
            let stream = format!("alerts{}", streams.fetch_add(1, Ordering::Relaxed));
            run_on(Place::Redis { server: Arc::clone(&server), stream }, operations)
        });
    });
}

#[test]
fn the_directory_does_what_the_model_says_whatever_happens_in_any_order() {
    check(3, &series(), |all| {
        side_by_side(all, |operations| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            run_on(Place::Directory(folder), operations)
        });
    });
}

#[test]
fn a_host_that_is_only_to_empty_the_queue_ends_when_suspects_cannot_be_run_and_does_the_others_first() {
    side_by_side(vec![()], |()| worker::run_without_room());
}

#[test]
fn no_more_alerts_and_no_more_bytes_of_them_are_worked_on_than_the_configuration_says() {
    side_by_side(vec![("in_flight = 4", 4), ("in_flight = 100\nin_flight_bytes = \"1000B\"", 3)], |(config, most)| {
        limits::at_most(config, most)
    });
}

#[test]
fn a_host_that_cannot_commit_any_more_ends_and_says_so() {
    // More than one: which of two threads is faster is not the same each time.
    side_by_side(vec![(); 16], |()| limits::panics_in_a_commit());
}

#[test]
fn alerts_that_a_host_lets_go_of_when_it_stops_are_counted_however_they_waited() {
    side_by_side(vec![()], |()| limits::stops_in_the_middle());
}

#[test]
fn every_alert_ends_once_and_as_its_steps_say_however_often_hosts_die() {
    check(6, &worker::stories(), |all| side_by_side(all, worker::run));
}
