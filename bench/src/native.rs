//! A host whose four steps are plain Rust: what is left when nothing is sandboxed. Queue, worker, record, commit and log are the
//! same, and so are the tables; only a call is a call. Its steps do the work of the plugins in `plugins/`, for the settings that
//! the benchmark gives them; `measure` sees to it that their records say the same.

mod asset;
mod geo;
mod reputation;
mod verdict;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use async_trait::async_trait;
use dossier::admin::Health;
use dossier::config::{Config, StepConfig};
use dossier::dead_letter::Reason;
use dossier::digest::sha256_hex;
use dossier::pipeline::{Answer, Cost, Enricher, Failure, Given, LoadedStep, Pipeline, Stage};
use dossier::record::Verdict;
use dossier::tables::Tables;
use dossier::telemetry::events::HostStarted;
use dossier::telemetry::{Telemetry, logging};
use dossier::worker::Worker;
use dossier::worker::compute::Compute;
use dossier::worker::trial::local::InProcess;
use dossier_sdk::{Scope, parse_address};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs until it is killed.
///
/// # Errors
/// Whatever keeps a host from starting.
pub fn run(file: &Path) -> Result<()> {
    let config = Arc::new(Config::load(file)?);
    tokio::runtime::Runtime::new()?.block_on(async {
        let log = logging::init(&config.log)?;
        let telemetry = Arc::new(Telemetry::new(log.sink()));
        let tables = Tables::open(&config, telemetry.clone());
        let tables = Arc::new(tables.map_err(|findings| anyhow::anyhow!("{findings:?}"))?);
        let stop = CancellationToken::new();
        tokio::spawn(tables.clone().watch(stop.clone()));
        let queue = dossier::queue::open(&config.queue, telemetry.clone()).await?;
        let steps = config.steps.iter().map(step).collect::<Result<Vec<_>>>()?;
        let (_steps, pipeline) = watch::channel(Some(Arc::new(Pipeline::new(steps))));
        let names: Vec<_> = config.steps.iter().map(|step| step.name.clone()).collect();
        telemetry.emit(&HostStarted { admin: None, queue: "redis", steps: &names, missing: &BTreeMap::new() });
        let health = Arc::new(Health::default());
        // `dossier trial` would know nothing of these steps.
        let isolation = Arc::new(InProcess::new(config.clone(), telemetry.clone()));
        let compute = Compute::start()?;
        let worker = Worker { config, queue, pipeline, tables, telemetry, health, isolation, compute, stop };
        tokio::spawn(worker.run(false)).await??;
        Ok(log.close()?)
    })
}

fn step(config: &StepConfig) -> Result<LoadedStep> {
    let settings = config.settings.as_str();
    let (stage, call): (_, Box<dyn Plain>) = match config.plugin.as_str() {
        "ip-reputation" => (Stage::Enrich, Box::new(serde_json::from_str::<reputation::Reputation>(settings)?)),
        "asset" => (Stage::Enrich, Box::new(asset::Assets { table: "assets" })),
        "geo" => (Stage::Enrich, Box::new(geo::Geo { table: "geo" })),
        "verdict" => (Stage::Verdict, Box::new(verdict::Judge::default())),
        other => anyhow::bail!("there is no plain Rust for {other}"),
    };
    // A digest, so that its records are as long as others.
    let native = Native { call, sha256: sha256_hex(config.plugin.as_bytes()) };
    let settings_sha256 = sha256_hex(config.settings.as_bytes());
    Ok(LoadedStep { config: Arc::new(config.clone()), stage, settings_sha256, enricher: Some(Arc::new(native)) })
}

/// A step that is a function.
trait Plain: Send + Sync {
    fn enrich(&self, alert: &mut Case<'_>) -> Result<Answer, Failure>;
}

struct Native {
    call: Box<dyn Plain>,
    sha256: String,
}

#[async_trait]
impl Enricher for Native {
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost) {
        let started = Instant::now();
        let mut case = Case { given: &given, used: BTreeMap::new() };
        let outcome = self.call.enrich(&mut case);
        (outcome, Cost { duration: started.elapsed(), tables: case.used, ..Cost::default() })
    }
}

/// An alert and what was looked up for it.
struct Case<'a> {
    given: &'a Given,
    used: BTreeMap<String, String>,
}

/// An address of an alert, once, with its roles.
struct Found {
    text: String,
    roles: Vec<String>,
    scope: Scope,
}

impl Case<'_> {
    /// The row with this key.
    fn row<T: DeserializeOwned>(&mut self, table: &str, key: &str) -> Result<Option<T>, Failure> {
        let loaded = self.given.tables.get(table).context("the table is not loaded").map_err(failed)?;
        if !self.used.contains_key(table) {
            self.used.insert(table.to_owned(), loaded.sha256().to_owned());
        }
        let row = loaded.lookup(key).map_err(failed)?;
        row.map(|row| serde_json::from_str(&row).map_err(failed)).transpose()
    }

    /// The result of an earlier step.
    fn earlier<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, Failure> {
        let result = self.given.enrichment.iter().find(|(name, _)| name == step);
        result.map(|(_, result)| serde_json::from_str(result.get()).map_err(failed)).transpose()
    }

    fn addresses(&self) -> Result<Vec<Found>, Failure> {
        let mut addresses: Vec<Found> = Vec::new();
        for observable in self.given.observables.iter().filter(|observable| observable.kind == "ip") {
            let Some(address) = parse_address(&observable.value) else { continue };
            let (text, role) = (address.to_string(), &observable.role);
            match addresses.iter_mut().find(|found| found.text == text) {
                Some(found) if found.roles.contains(role) => {}
                Some(found) => found.roles.push(role.clone()),
                None => addresses.push(Found { text, roles: vec![role.clone()], scope: Scope::of(address) }),
            }
        }
        let none = || Failure::NotApplicable("no address in the alert".into());
        (!addresses.is_empty()).then_some(addresses).ok_or_else(none)
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed { reason: Reason::PluginError, detail: error.to_string() }
}

fn answer(result: &impl Serialize, verdict: Option<Verdict>) -> Result<Answer, Failure> {
    Ok(Answer { fields: to_raw_value(result).map_err(failed)?, observables: Vec::new(), verdict })
}
