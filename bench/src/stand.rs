//! Everything that one call needs, in this process and without a queue: for the micro-benchmarks, and for the share of serde_json's time
//! that a call takes.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dossier::admin::Health;
use dossier::alert::{Alert, Decoder};
use dossier::config::Config;
use dossier::dead_letter::history::History;
use dossier::pipeline::run::{Finished, Progress, Run};
use dossier::pipeline::{Enricher, Given, Pipeline};
use dossier::plugin::Plugins;
use dossier::record::{Provenance, Record};
use dossier::tables::Tables;
use dossier::telemetry::Telemetry;
use dossier_tests::host::{Site, built};
use dossier_tests::threat_api::ThreatApi;
use jiff::Timestamp;
use tokio::runtime::Runtime;

use crate::alerts::Alerts;
use crate::site;

/// How many host calls one call of the plugin makes.
pub const TIMES: usize = 100;

/// The size of the alert, in bytes, as near as there is one.
pub const SIZE: usize = 676;

/// The host calls, as the guest `calls` names them.
pub const CALLS: [&str; 12] = [
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

/// Those of the guest `requests`; the second sends 16 at once.
pub const REQUESTS: [&str; 2] = ["send", "send-all"];

/// The step that reads the alert's addresses and looks the first one up.
pub const ONE_ADDRESS: &str = "one-address";

/// The step that looks up the address in one field.
pub const ONE_FIELD: &str = "one-field";

/// A step of the guest `calls`.
fn calls(name: &str, call: &str, times: usize, reuse: u32) -> String {
    format!(
        "[[step]]\nplugin = \"calls\"\nname = \"{name}\"\ntables = [\"blocklist\"]\nreuse = {reuse}\n\
         settings = {{ call = \"{call}\", times = {times} }}\n"
    )
}

/// The steps of the guest `requests`, and what they ask. Nothing is answered from a cache.
fn requests(api: &ThreatApi, reuse: u32) -> String {
    let url = api.url();
    let mut text = format!(
        "[http.api]\nurl = \"{url}/\"\nprivate = true\nconcurrency = 16\ncache = \"off\"\ncache_failures = \"off\"\n"
    );
    for call in REQUESTS {
        text.push_str(&format!(
            "[[step]]\nplugin = \"requests\"\nname = \"call-{call}\"\nhttp = [\"api\"]\nreuse = {reuse}\n\
             settings = {{ call = \"{call}\", times = {TIMES}, url = \"{url}/asked\" }}\n"
        ));
    }
    text
}

/// What is there beside the steps of every stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// Nothing.
    Nothing,
    /// A step for each of [`CALLS`].
    HostCalls,
    /// A step for each of [`REQUESTS`], and somebody who answers until the stand is dropped.
    Requests,
}

/// It, made once.
pub struct Stand {
    /// What calls run in.
    pub runtime: Runtime,
    /// The configuration.
    pub config: Arc<Config>,
    /// The tables.
    pub tables: Arc<Tables>,
    /// Where events go: nowhere.
    pub telemetry: Arc<Telemetry>,
    /// The alert's bytes.
    pub alert: Bytes,
    pipeline: Arc<Pipeline>,
    /// The same of the four plugins alone.
    four: Arc<Pipeline>,
    decoder: Decoder,
    _plugins: Plugins,
    _site: Site,
    _api: Option<ThreatApi>,
    _state: tempfile::TempDir,
}

impl Stand {
    /// The four plugins and the guests, whose instances serve so many alerts.
    ///
    /// # Errors
    /// A plugin does not load.
    pub fn new(reuse: u32, also: Also) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let api = (also == Also::Requests).then(|| ThreatApi::start(&[]));
        let names = CALLS.iter().filter(|_| also == Also::HostCalls);
        let mut more: String = names.map(|call| calls(&format!("call-{call}"), call, TIMES, reuse)).collect();
        more.extend(api.as_ref().map(|api| requests(api, reuse)));
        more.push_str(&calls(ONE_ADDRESS, "address", 1, reuse));
        more.push_str(&calls(ONE_FIELD, "field", 1, reuse));
        let site = site::with("kind = \"directory\"", reuse, state.path(), &more)?;
        ["calls", "requests"].into_iter().for_each(|guest| site.install(guest));
        let mut config = Config::load(&site.path("dossier.toml"))?;
        // A host counts the first calls of a version apart, and has long done so when it matters what a call takes.
        config.plugins.probation.calls = 0;
        let config = Arc::new(config);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let telemetry = Arc::new(Telemetry::default());
        let tables = Tables::open(&config, Arc::clone(&telemetry));
        let tables = Arc::new(tables.map_err(|findings| anyhow::anyhow!("{findings:?}"))?);
        let health = Arc::new(Health::default());
        let (program, host) = (built("release/dossier"), Arc::clone(&health));
        let start = Plugins::start_with(program, Arc::clone(&config), Arc::clone(&telemetry), host);
        let plugins = runtime.block_on(start)?;
        let pipeline = plugins.subscribe().borrow().clone();
        let pipeline = pipeline.with_context(|| format!("plugins are missing: {:?}", health.problems()))?;
        let alert = Alerts::load()?.near(SIZE).into();
        let (_plugins, _site, _api, _state) = (plugins, site, api, state);
        let four = pipeline.steps().iter().take(site::PLUGINS.len()).cloned().collect();
        let (four, decoder) = (Arc::new(Pipeline::new(four)), Decoder::new(&config.alert));
        Ok(Self { runtime, config, tables, telemetry, alert, pipeline, four, decoder, _plugins, _site, _api, _state })
    }

    /// The alert, decoded.
    ///
    /// # Panics
    /// The alert is none.
    pub fn decoded(&self) -> Alert {
        let decoded = self.decoder.decode(self.alert.clone(), Timestamp::UNIX_EPOCH);
        decoded.unwrap_or_else(|error| panic!("the benchmark's alert: {error}"))
    }

    /// A step.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn step(&self, name: &str) -> Arc<dyn Enricher> {
        let step = self.pipeline.steps().iter().find(|step| step.config.name == name);
        Arc::clone(step.and_then(|step| step.enricher.as_ref()).unwrap_or_else(|| panic!("no step {name}")))
    }

    /// An alert all the way through the four plugins.
    ///
    /// # Panics
    /// It does not come to its end.
    pub fn finished(&self) -> Finished {
        let (pipeline, alert) = (Arc::clone(&self.four), Arc::new(self.decoded()));
        let mut run = Run::new(pipeline, self.tables.snapshot(), alert, Arc::clone(&self.telemetry));
        match self.runtime.block_on(run.advance()) {
            Progress::Done(finished) if finished.failure.is_none() => *finished,
            other => panic!("{other:?}"),
        }
    }

    /// What a step is given whose stage is the last.
    pub fn given(&self) -> Arc<Given> {
        let alert = self.decoded();
        let observables = alert.observables.clone();
        let enrichment = self.finished().enrichment;
        Arc::new(Given { alert: Arc::new(alert), observables, enrichment, tables: self.tables.snapshot() })
    }

    /// The record of an alert that came to its end.
    pub fn record(&self, alert: &Alert, finished: &Finished) -> Record {
        let provenance = Provenance {
            host: env!("CARGO_PKG_VERSION"),
            config_sha256: &self.config.sha256,
            received: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            duration_us: 100,
            deliveries: 1,
            attempts: 1,
            history: &History::default(),
            history_cut: 0,
            steps: &finished.steps,
        };
        let (observables, enrichment) = (&finished.observables, &finished.enrichment);
        Record::new(alert, observables, enrichment, &finished.verdict, &provenance)
    }

    /// Polls until the end without a scheduler in between, as an alert's task is polled that has nothing to wait for.
    pub fn finish<F: Future>(&self, future: F) -> F::Output {
        let _guard = self.runtime.enter();
        let (mut future, mut context) = (std::pin::pin!(future), Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
        }
    }

    /// What so many calls of a step take, in seconds; the first is not counted.
    ///
    /// # Errors
    /// The step gives no answer.
    pub fn time(&self, step: &str, calls: u32) -> Result<f64> {
        let (step, given) = (self.step(step), self.given());
        let call = || self.finish(step.enrich(Arc::clone(&given))).0;
        if let Err(failure) = call() {
            bail!("a step of the benchmark failed: {failure:?}");
        }
        let began = std::time::Instant::now();
        let good = (0..calls).filter(|_| call().is_ok()).count();
        ensure!(good == calls as usize, "a call of the benchmark failed");
        Ok(began.elapsed().as_secs_f64())
    }
}
