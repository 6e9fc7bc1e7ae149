//! What the parts of an alert's way take, one at a time and with nothing else going on: `cargo xtask bench --micro`.
//!
//! The yardstick is `a_parse_json`: what serde_json takes to make a `Value` of the alert, which has about 676 bytes. The call of
//! `one-address`, which looks one address up, is to take at most 1.8 times that fresh and 0.4 times reused. Host calls are made 100 times in
//! one call of a plugin, whose instance is reused: the figure by item is that of one host call.

#![allow(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use dossier::admin::Health;
use dossier::alert::Decoder;
use dossier::alert::observables::Finder;
use dossier::config::Config;
use dossier::pipeline::run::{Finished, Progress, Run};
use dossier::pipeline::{Enricher, Given, Pipeline};
use dossier::plugin::Plugins;
use dossier::queue::{Body, Outcome, Queue, Settled};
use dossier::record::{Provenance, Record};
use dossier::tables::Tables;
use dossier::telemetry::Telemetry;
use dossier_bench::alerts::Alerts;
use dossier_bench::site;
use dossier_tests::host::{Site, built};
use dossier_tests::redis_server::RedisServer;
use jiff::Timestamp;
use tokio::runtime::Runtime;

/// How many host calls one call of the plugin makes.
const TIMES: usize = 100;

/// How many alerts one commit takes.
const BATCH: usize = 100;

/// About how many bytes the alert has with which everything is measured.
const ALERT_BYTES: usize = 676;

/// The host calls, as the guest `calls` names them.
const HOST_CALLS: [&str; 12] = [
    "id",
    "received",
    "json",
    "get",
    "text",
    "observables",
    "enrichment",
    "enrichment-text",
    "steps",
    "lookup",
    "table-text",
    "log",
];

/// A step of the guest `calls`.
fn calls(name: &str, call: &str, times: usize, reuse: u32) -> String {
    format!(
        "[[step]]\nplugin = \"calls\"\nname = \"{name}\"\ntables = [\"blocklist\"]\nreuse = {reuse}\n\
         settings = {{ call = \"{call}\", times = {times} }}\n"
    )
}

/// Everything that a call needs, made once.
struct Stand {
    runtime: Runtime,
    config: Arc<Config>,
    pipeline: Arc<Pipeline>,
    tables: Arc<Tables>,
    telemetry: Arc<Telemetry>,
    alert: Bytes,
    _plugins: Plugins,
    _site: Site,
    _state: tempfile::TempDir,
}

fn stand(reuse: u32) -> Stand {
    let state = tempfile::tempdir().unwrap();
    let mut more: String = HOST_CALLS.iter().map(|call| calls(&format!("call-{call}"), call, TIMES, reuse)).collect();
    more.push_str(&calls("one-address", "address", 1, reuse));
    let site = site::with("kind = \"directory\"", reuse, state.path(), &more).unwrap();
    site.install("calls");
    let config = Arc::new(Config::load(&site.path("dossier.toml")).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let telemetry = Arc::new(Telemetry::default());
    let tables = Arc::new(Tables::open(&config, Arc::clone(&telemetry)).unwrap());
    let health = Arc::new(Health::default());
    let start =
        Plugins::start_with(built("release/dossier"), Arc::clone(&config), Arc::clone(&telemetry), Arc::clone(&health));
    let plugins = runtime.block_on(start).unwrap();
    let pipeline = plugins.subscribe().borrow().clone();
    let pipeline = pipeline.unwrap_or_else(|| panic!("plugins are missing: {:?}", health.problems()));
    let alert = alert().into();
    Stand { runtime, config, pipeline, tables, telemetry, alert, _plugins: plugins, _site: site, _state: state }
}

/// Of the first alerts the one whose length comes next to [`ALERT_BYTES`].
fn alert() -> Vec<u8> {
    let alerts = Alerts::load().unwrap();
    (0..1000).map(|n| alerts.nth(n)).min_by_key(|alert| alert.len().abs_diff(ALERT_BYTES)).unwrap()
}

/// Polls until the end without a scheduler in between, as a worker's task is polled that has nothing to wait for.
fn finish<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    let _guard = runtime.enter();
    let (mut future, mut context) = (std::pin::pin!(future), std::task::Context::from_waker(std::task::Waker::noop()));
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

static FRESH: LazyLock<Stand> = LazyLock::new(|| stand(1));
static REUSED: LazyLock<Stand> = LazyLock::new(|| stand(u32::MAX));

impl Stand {
    fn decoded(&self) -> dossier::alert::Alert {
        Decoder::new(&self.config.alert).decode(self.alert.clone(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn step(&self, name: &str) -> Arc<dyn Enricher> {
        let step = self.pipeline.steps().iter().find(|step| step.config.name == name);
        Arc::clone(step.and_then(|step| step.enricher.as_ref()).unwrap_or_else(|| panic!("no step {name}")))
    }

    /// An alert all the way through the four plugins.
    fn finished(&self) -> Finished {
        let four = self.pipeline.steps().iter().take(site::PLUGINS.len()).cloned().collect();
        let (pipeline, alert) = (Arc::new(Pipeline::new(four)), Arc::new(self.decoded()));
        let mut run = Run::new(pipeline, self.tables.snapshot(), alert, Arc::clone(&self.telemetry));
        match self.runtime.block_on(run.advance()) {
            Progress::Done(finished) if finished.failure.is_none() => *finished,
            other => panic!("{other:?}"),
        }
    }

    /// What a step is given whose stage is the last.
    fn given(&self) -> Arc<Given> {
        let alert = self.decoded();
        let observables = alert.observables.clone();
        let enrichment = self.finished().enrichment;
        Arc::new(Given { alert: Arc::new(alert), observables, enrichment, tables: self.tables.snapshot() })
    }

    /// Calls a step again and again.
    fn call(&self, bencher: Bencher<'_, '_>, step: &str) {
        let (step, given) = (self.step(step), self.given());
        let answer = self.runtime.block_on(step.enrich(Arc::clone(&given))).0;
        assert!(answer.is_ok(), "{answer:?}");
        bencher.bench_local(|| finish(&self.runtime, step.enrich(Arc::clone(&given))));
    }

    fn record(&self, finished: &Finished) -> Record {
        let provenance = Provenance {
            host: env!("CARGO_PKG_VERSION"),
            config_sha256: &self.config.sha256,
            received: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            duration_us: 100,
            deliveries: 1,
            attempts: 1,
            history: [],
            steps: &finished.steps,
        };
        Record::new(&self.decoded(), &finished.observables, &finished.enrichment, &finished.verdict, &provenance)
            .unwrap()
    }
}

fn main() {
    divan::main();
}

#[divan::bench]
fn a_parse_json(bencher: Bencher) {
    let alert = alert();
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

#[divan::bench(args = ["one-address", "ip-reputation", "asset", "geo", "verdict"])]
fn d_call_fresh(bencher: Bencher, step: &str) {
    FRESH.call(bencher, step);
}

#[divan::bench(args = ["one-address", "ip-reputation", "asset", "geo", "verdict"])]
fn e_call_reused(bencher: Bencher, step: &str) {
    REUSED.call(bencher, step);
}

#[divan::bench(args = HOST_CALLS)]
fn f_host_call(bencher: Bencher, call: &str) {
    REUSED.call(bencher.counter(ItemsCount::new(TIMES)), &format!("call-{call}"));
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
    let finished = FRESH.finished();
    bencher.bench_local(|| FRESH.record(black_box(&finished)));
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn j_commit_to_redis(bencher: Bencher) {
    let server = RedisServer::start().unwrap();
    let stand = &*FRESH;
    let text = format!("[queue]\nkind = \"redis\"\nurl = \"{}\"\n", server.url());
    let config = Config::parse(Path::new("dossier.toml"), &text).unwrap();
    let open = dossier::queue::open(&config.queue, Arc::clone(&stand.telemetry));
    let queue = stand.runtime.block_on(open).unwrap();
    let (alerts, finished) = (Alerts::load().unwrap(), stand.finished());
    let mut next = 0..;
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let some: Vec<Bytes> = next.by_ref().take(BATCH).map(|n| alerts.nth(n).into()).collect();
            stand.runtime.block_on(taken(queue.as_ref(), &some, &stand.record(&finished)))
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
