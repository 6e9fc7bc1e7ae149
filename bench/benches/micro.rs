//! What the parts of an alert's way take, one at a time and with nothing else going on: `cargo xtask bench --micro`.
//!
//! The yardstick is `a_parse_json`: what serde_json takes to make a `Value` of the alert. Host calls are made 100 times in
//! one call of a plugin, whose instance is reused: the figure by item is that of one host call.

#![allow(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use dossier::alert::Decoder;
use dossier::alert::observables::Finder;
use dossier::config::Config;
use dossier::queue::{Body, Outcome, Queue, Settled};
use dossier::record::Record;
use dossier_bench::alerts::Alerts;
use dossier_bench::stand::{Also, CALLS, REQUESTS, Stand, TIMES};
use dossier_tests::redis_server::RedisServer;
use jiff::Timestamp;

/// How many alerts one commit takes.
const BATCH: usize = 100;

static FRESH: LazyLock<Stand> = LazyLock::new(|| Stand::new(1, Also::HostCalls).unwrap());
static REUSED: LazyLock<Stand> = LazyLock::new(|| Stand::new(u32::MAX, Also::HostCalls).unwrap());

/// Calls a step again and again.
fn call(stand: &Stand, bencher: Bencher<'_, '_>, step: &str) {
    let (step, given) = (stand.step(step), stand.given());
    let answer = stand.runtime.block_on(step.enrich(Arc::clone(&given))).0;
    assert!(answer.is_ok(), "{answer:?}");
    bencher.bench_local(|| stand.finish(step.enrich(Arc::clone(&given))));
}

fn main() {
    divan::main();
}

#[divan::bench]
fn a_parse_json(bencher: Bencher) {
    let alert = Alerts::load().unwrap().nth(1);
    bencher.bench_local(|| serde_json::from_slice::<serde_json::Value>(black_box(&alert)).unwrap());
}

#[divan::bench]
fn b_decode(bencher: Bencher) {
    let stand = &*FRESH;
    let decoder = Decoder::new(&stand.config.alert);
    bencher.bench_local(|| decoder.decode(black_box(&stand.alert).clone(), Timestamp::UNIX_EPOCH).unwrap());
}

#[divan::bench]
fn c_observables(bencher: Bencher) {
    let alert = FRESH.decoded().value;
    let finder = Finder::new(&[]);
    bencher.bench_local(|| finder.find(black_box(&alert)));
}

#[divan::bench(args = ["one-address", "one-field", "ip-reputation", "asset", "geo", "verdict"])]
fn d_call_fresh(bencher: Bencher, step: &str) {
    call(&FRESH, bencher, step);
}

#[divan::bench(args = ["one-address", "one-field", "ip-reputation", "asset", "geo", "verdict"])]
fn e_call_reused(bencher: Bencher, step: &str) {
    call(&REUSED, bencher, step);
}

#[divan::bench(args = CALLS)]
fn f_host_call(bencher: Bencher, name: &str) {
    call(&REUSED, bencher.counter(ItemsCount::new(TIMES)), &format!("call-{name}"));
}

#[divan::bench(args = REQUESTS, sample_count = 20, sample_size = 1)]
fn f_host_call_http(bencher: Bencher, name: &str) {
    let stand = Stand::new(u32::MAX, Also::Requests).unwrap();
    let (step, given) = (stand.step(&format!("call-{name}")), stand.given());
    let call = || stand.runtime.block_on(step.enrich(Arc::clone(&given))).0;
    assert!(call().is_ok());
    bencher.counter(ItemsCount::new(TIMES)).bench_local(call);
}

#[divan::bench(args = [("blocklist", "77.90.185.20"), ("geo", "77.90.185.20"), ("assets", "192.168.55.199")])]
fn g_look_up(bencher: Bencher, (table, key): (&str, &str)) {
    let tables = FRESH.tables.snapshot();
    bencher.bench_local(|| tables[table].lookup(black_box(key)).unwrap().map(|row| row.len()));
}

#[divan::bench]
fn h_whole_pipeline_fresh(bencher: Bencher) {
    bencher.bench_local(|| FRESH.finished());
}

#[divan::bench]
fn i_record(bencher: Bencher) {
    let (alert, finished) = (FRESH.decoded(), FRESH.finished());
    bencher.bench_local(|| FRESH.record(black_box(&alert), black_box(&finished)));
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn j_commit_to_redis(bencher: Bencher) {
    let server = RedisServer::start().unwrap();
    commit(bencher, &format!("kind = \"redis\"\nurl = \"{}\"", server.url()));
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn k_commit_to_directory(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    commit(bencher, &format!("kind = \"directory\"\npath = {:?}", folder.path()));
}

/// Commits alerts to a queue that holds no others.
fn commit(bencher: Bencher, queue: &str) {
    let stand = &*FRESH;
    let config = Config::parse(Path::new("dossier.toml"), &format!("[queue]\n{queue}\n")).unwrap();
    let open = dossier::queue::open(&config.queue, Arc::clone(&stand.telemetry));
    let queue = stand.runtime.block_on(open).unwrap();
    let (alerts, finished) = (Alerts::load().unwrap(), stand.finished());
    let mut next = 0..;
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let some: Vec<Bytes> = next.by_ref().take(BATCH).map(|n| alerts.nth(n).into()).collect();
            stand.runtime.block_on(taken(queue.as_ref(), &some, &stand.record(&stand.decoded(), &finished)))
        })
        .bench_local_values(|settled| stand.runtime.block_on(queue.commit(&settled)).unwrap());
}

/// Alerts that are sent, taken and done, and not committed.
async fn taken(queue: &dyn Queue, alerts: &[Bytes], record: &Record) -> Vec<Settled> {
    queue.send(alerts).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < alerts.len() {
        taken.extend(queue.receive(alerts.len()).await.unwrap());
    }
    let settle = |delivery: dossier::queue::Delivery| {
        let Body::Alert(bytes) = &delivery.body else { panic!("no alert: {:?}", delivery.body) };
        let id = dossier::alert::id_of_bytes(bytes);
        let record = Record { id, sha256: dossier::digest::sha256(bytes), rest: record.rest.clone() };
        Settled { delivery, outcome: Outcome::Store(record) }
    };
    taken.into_iter().map(settle).collect()
}
