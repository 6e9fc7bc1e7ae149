//! What bounds the worker, and how it ends: on the model, with one step that is plain Rust.

use std::collections::VecDeque;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dossier::admin::Health;
use dossier::config::{Config, StepConfig};
use dossier::pipeline::{Answer, Cost, Enricher, Failure, Given, LoadedStep, Pipeline, Stage};
use dossier::tables::Tables;
use dossier::telemetry::Telemetry;
use dossier::worker::compute::Compute;
use dossier::worker::trial::local::InProcess;
use dossier::worker::{Worker, WorkerError};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::queue::{Refusal, SharedModel};
use super::state::{Model, Rules};

/// How many alerts are sent.
const ALERTS: usize = 40;

/// How long each of them is, in bytes.
const LENGTH: usize = 300;

/// A step that takes a while, and knows how many alerts it had at once.
#[derive(Default)]
struct Slow {
    now: AtomicU32,
    most: AtomicU32,
}

#[async_trait]
impl Enricher for Slow {
    fn version(&self) -> &str {
        "1.0.0"
    }

    fn sha256(&self) -> &str {
        "abc"
    }

    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost) {
        let result = match given.alert.value.pointer("/wait").and_then(|wait| wait.as_str()) {
            Some("ever") => pending().await,
            Some("retry") => {
                Err(Failure::Unavailable { reason: "not there".into(), after: Some(Duration::from_secs(60)) })
            }
            _ => {
                self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.now.fetch_sub(1, Ordering::SeqCst);
                let fields = RawValue::from_string("{}".into()).expect("JSON");
                Ok(Answer { fields, observables: Vec::new(), verdict: None })
            }
        };
        (result, Cost::default())
    }
}

/// A worker with this step on a queue.
struct Bench {
    shared: Arc<SharedModel>,
    step: Arc<Slow>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
    worker: Worker,
    _pipelines: watch::Sender<Option<Arc<Pipeline>>>,
}

fn set_up(host: &str, refusals: VecDeque<Option<Refusal>>) -> Bench {
    let config = Config::parse(Path::new("dossier.toml"), &format!("[host]\n{host}\n"));
    let config = Arc::new(config.unwrap_or_else(|error| panic!("{error}")));
    let shared = SharedModel::new(Model::new(Rules::Redis, 3), refusals);
    let (step, telemetry, stop) = (Arc::new(Slow::default()), Arc::new(Telemetry::default()), CancellationToken::new());
    let loaded = LoadedStep {
        config: Arc::new(StepConfig { required: true, retries: 1, ..StepConfig::unnamed("slow") }),
        stage: Stage::Enrich,
        settings_sha256: "s".into(),
        enricher: Some(Arc::clone(&step) as Arc<dyn Enricher>),
    };
    let (_pipelines, pipeline) = watch::channel(Some(Arc::new(Pipeline::new(vec![loaded]))));
    let worker = Worker {
        queue: Arc::new(shared.begin(1)),
        pipeline,
        tables: Arc::new(Tables::open(&config, Arc::clone(&telemetry)).unwrap_or_else(|_| panic!("no tables"))),
        isolation: Arc::new(InProcess::new(Arc::clone(&config), Arc::clone(&telemetry))),
        telemetry: Arc::clone(&telemetry),
        health: Arc::new(Health::default()),
        compute: Compute::start().expect("threads"),
        stop: stop.clone(),
        config,
    };
    Bench { shared, step, telemetry, stop, worker, _pipelines }
}

fn alert(id: usize, wait: &str) -> Bytes {
    let (begin, end) = (format!("{{\"id\":\"{id}\",\"wait\":\"{wait}\",\"rest\":\""), "\"}");
    Bytes::from(format!("{begin}{}{end}", "x".repeat(LENGTH - begin.len() - end.len())))
}

/// With this configuration no more than so many alerts are worked on at once, and so many are.
pub async fn at_most(config: &str, most: u32) {
    let Bench { shared, step, worker, _pipelines, .. } = set_up(config, VecDeque::new());
    let alerts: Vec<_> = (0..ALERTS).map(|id| alert(id, "")).collect();
    worker.queue.send(&alerts).await.expect("sent");
    worker.run(true).await.expect("the queue is emptied");
    assert_eq!(shared.lock().model.store.len(), ALERTS);
    assert_eq!(step.most.load(Ordering::SeqCst), most, "{config}");
}

/// The host's own code panics in its first commit.
pub async fn panics_in_a_commit() {
    let Bench { shared, telemetry, stop, worker, _pipelines, .. } =
        set_up("grace = \"1s\"", VecDeque::from([Some(Refusal::Panic)]));
    worker.queue.send(&[alert(0, "")]).await.expect("sent");
    let ended = tokio::time::timeout(Duration::from_secs(30), worker.run(false)).await.expect("it ends by itself");
    assert!(matches!(ended, Err(WorkerError::Committer)), "{ended:?}");
    assert!(stop.is_cancelled() && shared.lock().model.store.is_empty());
    assert_eq!(left_pending(&telemetry), "1");
}

/// How many alerts the host says it let go of.
fn left_pending(telemetry: &Telemetry) -> String {
    let scraped = telemetry.scrape();
    let line = scraped.lines().find_map(|line| line.strip_prefix("dossier_left_pending_alerts "));
    line.expect("the metric is there").into()
}

/// The host stops while one alert hangs and one waits to be tried again.
pub async fn stops_in_the_middle() {
    let Bench { shared, telemetry, stop, worker, _pipelines, .. } =
        set_up("in_flight = 2\ngrace = \"200ms\"", VecDeque::new());
    worker.queue.send(&[alert(0, "ever"), alert(1, "retry")]).await.expect("sent");
    let host = tokio::spawn(worker.run(false));
    let retried = async {
        while !telemetry.scrape().contains("outcome=\"unavailable\"} 1") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), retried).await.expect("both are worked on");
    stop.cancel();
    host.await.expect("it does not panic").expect("it ends well");
    assert_eq!(left_pending(&telemetry), "2");
    assert_eq!(shared.lock().model.backlog().len(), 2);
}
