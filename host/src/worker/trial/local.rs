//! Runs suspects in this very process: what the process of suspects does, and a host that has none.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Case, Ended, Isolation, Progress, Trial, TrialError};
use crate::alert::{Alert, Decoder};
use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::pipeline::run::{self, Run};
use crate::tables::Snapshot;
use crate::telemetry::Telemetry;
use crate::worker::task;

/// Runs suspects here. One that kills its process kills the host, and nobody is left to count that: for tests, and for hosts whose
/// steps are not those of the configuration.
#[derive(Debug)]
pub struct InProcess {
    config: Arc<Config>,
    decoder: Arc<Decoder>,
    telemetry: Arc<Telemetry>,
}

impl InProcess {
    /// With what a host has.
    pub fn new(config: Arc<Config>, telemetry: Arc<Telemetry>) -> Self {
        Self { decoder: Arc::new(Decoder::new(&config.alert)), config, telemetry }
    }

    /// A suspect at its beginning.
    pub(super) fn begin(&self, case: Case, pipeline: &Arc<Pipeline>, tables: &Arc<Snapshot>) -> Local {
        Local {
            config: Arc::clone(&self.config),
            decoder: Arc::clone(&self.decoder),
            telemetry: Arc::clone(&self.telemetry),
            pipeline: Arc::clone(pipeline),
            tables: Arc::clone(tables),
            case,
            started: Instant::now(),
            run: None,
        }
    }
}

#[async_trait]
impl Isolation for InProcess {
    async fn admit(
        &self,
        case: Case,
        pipeline: &Arc<Pipeline>,
        tables: &Arc<Snapshot>,
    ) -> Result<Box<dyn Trial>, String> {
        Ok(Box::new(self.begin(case, pipeline, tables)))
    }
}

/// A suspect that runs here.
pub(super) struct Local {
    config: Arc<Config>,
    decoder: Arc<Decoder>,
    telemetry: Arc<Telemetry>,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    case: Case,
    started: Instant,
    /// Where it is, once it is decoded.
    run: Option<(Arc<Alert>, Run)>,
}

impl Local {
    /// Does what can be done now.
    pub(super) async fn step(&mut self) -> Progress {
        match AssertUnwindSafe(self.go()).catch_unwind().await {
            Ok(progress) => progress,
            Err(panic) => done(task::panicked(&self.case.delivery, self.case.received, self.started, &*panic)),
        }
    }

    async fn go(&mut self) -> Progress {
        let Case { bytes, received, delivery } = &self.case;
        failpoint!("suspect-runs", bytes);
        let (alert, run) = match &mut self.run {
            Some(run) => run,
            None => match task::decode(&self.decoder, delivery, (bytes.clone(), *received, self.started)) {
                Ok(alert) => {
                    let (pipeline, tables) = (Arc::clone(&self.pipeline), Arc::clone(&self.tables));
                    let run = Run::new(pipeline, tables, Arc::clone(&alert), Arc::clone(&self.telemetry));
                    self.run.insert((alert, run))
                }
                Err(end) => return done(*end),
            },
        };
        match run.advance().await {
            run::Progress::Done(finished) => done(task::end(&self.config, delivery, alert, *finished, self.started)),
            run::Progress::Wait(until) => Progress::Wait(until),
        }
    }
}

#[async_trait]
impl Trial for Local {
    async fn advance(&mut self) -> Result<Progress, TrialError> {
        Ok(self.step().await)
    }
}

fn done((outcome, story): (crate::queue::Outcome, crate::worker::committer::Story)) -> Progress {
    Progress::Done(Box::new(Ended { outcome, story }))
}
