//! Rehearsals: the whole pipeline as a host would run it, with one plugin's file in the place of its own. For whoever wants to know
//! what a new version would do to alerts before it serves.
//!
//! Tables, settings, grants and limits are the configuration's, and HTTP is really asked. Nothing is stored or moved, and
//! the plugins folder stays as it is.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::compiler::Compiler;
use super::directory;
use super::loader::{File, Loader};
use crate::alert::{DecodeError, Decoder};
use crate::config::{Config, ConfigError};
use crate::dead_letter::Reason;
use crate::pipeline::Pipeline;
use crate::pipeline::run::{Progress, Run};
use crate::tables::{Snapshot, Tables};
use crate::telemetry::Telemetry;

/// A pipeline with one plugin replaced.
pub(crate) struct Rehearsal {
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    decoder: Decoder,
    max_alert_size: usize,
    telemetry: Arc<Telemetry>,
}

/// Why an alert would be dead.
#[derive(Debug)]
pub(crate) struct WouldFail {
    /// The reason.
    pub reason: Reason,
    /// What happened, for people.
    pub detail: String,
    /// The step, if one failed.
    pub step: Option<String>,
}

impl Rehearsal {
    /// Loads everything. `plugin` is the name of the plugin that `component` takes the place of.
    ///
    /// # Errors
    /// A table cannot be loaded, or the pipeline would not run.
    pub(crate) async fn open(config: &Config, plugin: &str, component: Vec<u8>) -> anyhow::Result<Self> {
        let telemetry = Arc::new(Telemetry::default());
        let tables = Tables::open(config, Arc::clone(&telemetry)).map_err(ConfigError)?.snapshot();
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dossier"));
        let compiler = Compiler::for_trials(program, Arc::clone(&telemetry))?;
        let loader = Loader::new(Arc::new(config.clone()), compiler, Arc::clone(&telemetry))?;
        let file = tokio::task::spawn_blocking(move || File::read(component)).await?;
        let steps = directory::rehearse(&loader, plugin, &file).await.map_err(anyhow::Error::msg)?;
        Ok(Self {
            pipeline: Arc::new(Pipeline::new(steps)),
            tables,
            decoder: Decoder::new(&config.alert),
            max_alert_size: config.queue.max_alert_size,
            telemetry,
        })
    }

    /// Runs an alert to its end, retries included: none when it would be stored.
    pub(crate) async fn run(&self, alert: Bytes) -> Option<WouldFail> {
        let fails = |reason, detail| Some(WouldFail { reason, detail, step: None });
        if alert.len() > self.max_alert_size {
            let detail = format!("{} bytes are more than max_alert_size in [queue] allows", alert.len());
            return fails(Reason::TooLarge, detail);
        }
        let alert = match self.decoder.decode(alert, Timestamp::now()) {
            Ok(alert) => Arc::new(alert),
            Err(error @ DecodeError::Malformed(_)) => return fails(Reason::Malformed, error.to_string()),
            Err(error @ DecodeError::NotAnObject(_)) => return fails(Reason::NotAnObject, error.to_string()),
        };
        let (pipeline, tables) = (Arc::clone(&self.pipeline), Arc::clone(&self.tables));
        let mut run = Run::new(pipeline, tables, alert, Arc::clone(&self.telemetry));
        loop {
            match run.advance().await {
                Progress::Wait(until) => tokio::time::sleep_until(until).await,
                Progress::Done(finished) => {
                    let (reason, detail, step) = finished.failure?;
                    return Some(WouldFail { reason, detail, step: Some(step.step) });
                }
            }
        }
    }
}
