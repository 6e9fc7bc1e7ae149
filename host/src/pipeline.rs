//! The stages and steps that an alert goes through. A step is anything that answers; that it is a WebAssembly plugin is
//! known in [`crate::plugin`] only.

pub mod run;
mod seen;
pub mod setup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::setup::Setup;
use crate::alert::Alert;
use crate::alert::observables::Observable;
use crate::config::StepConfig;
use crate::dead_letter::Reason;
use crate::digest::sha256_hex;
use crate::record::{KnownStep, StepFacts, Verdict};
use crate::tables::Snapshot;

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// First: may add observables.
    Normalize,
    /// Then: looks things up.
    Enrich,
    /// Last: gives the verdict.
    Verdict,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 3] = [Self::Normalize, Self::Enrich, Self::Verdict];

    /// The word in records, configuration and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normalize => "normalize",
            Self::Enrich => "enrich",
            Self::Verdict => "verdict",
        }
    }
}

/// What a step is given: the alert, and what earlier stages found. Shared by the steps of one stage.
#[derive(Debug, Clone)]
pub struct Given {
    /// The alert.
    pub alert: Arc<Alert>,
    /// Its observables with those that `normalize` steps added.
    pub observables: Arc<Vec<Observable>>,
    /// Results of earlier stages by step, as JSON objects.
    pub enrichment: Vec<(String, Box<RawValue>)>,
    /// The tables as they were when the alert began.
    pub tables: Arc<Snapshot>,
}

/// What a step answers.
#[derive(Debug)]
pub struct Answer {
    /// A JSON object.
    pub fields: Box<RawValue>,
    /// Observables to add; empty but in a `normalize` step.
    pub observables: Vec<Observable>,
    /// The verdict; none but in a `verdict` step.
    pub verdict: Option<Verdict>,
}

/// How a call ended, if not with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// There is nothing for this step in the alert. No failure.
    NotApplicable(String),
    /// Call again later, not before this time has passed.
    Unavailable {
        /// What is not there.
        reason: String,
        /// The least time to wait, if the plugin said one.
        after: Option<Duration>,
    },
    /// Do not call again: the alert is dead, or its record says so.
    Failed {
        /// Why.
        reason: Reason,
        /// What happened, for people.
        detail: String,
    },
}

/// What a call cost and used.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// Fuel used.
    pub fuel: u64,
    /// Linear memory at the end, in bytes.
    pub memory: u64,
    /// Wall-clock time.
    pub duration: Duration,
    /// The digest of each table that answered.
    pub tables: BTreeMap<String, String>,
    /// Whether an HTTP answer came from a cache.
    pub cached: bool,
}

/// How the probation of a plugin's version goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The calls that were looked at.
    pub calls: u32,
    /// How many are looked at in all.
    pub of: u32,
    /// Those that failed.
    pub failed: u32,
    /// With so many it is taken out.
    pub fails_at: u32,
}

/// Something that enriches alerts.
#[async_trait]
pub trait Enricher: Send + Sync {
    /// The plugin's version.
    fn version(&self) -> &str;

    /// SHA-256 of the plugin's file.
    fn sha256(&self) -> &str;

    /// How its probation goes; none when it is on none.
    fn probation(&self) -> Option<Trial> {
        None
    }

    /// Calls it once. Bounded in every way: it always comes back, within its time limit.
    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost);
}

/// A step as it is loaded now.
#[derive(Clone)]
pub struct LoadedStep {
    /// What the configuration says of it.
    pub config: Arc<StepConfig>,
    /// Its stage.
    pub stage: Stage,
    /// SHA-256 of its settings.
    pub settings_sha256: String,
    /// What answers; none when its plugin is absent and not required.
    pub enricher: Option<Arc<dyn Enricher>>,
}

impl LoadedStep {
    /// A step that nothing answers for.
    pub fn absent(config: StepConfig) -> Self {
        let settings_sha256 = sha256_hex(config.settings.as_bytes());
        Self { config: Arc::new(config), stage: Stage::Enrich, settings_sha256, enricher: None }
    }

    fn facts(&self) -> StepFacts {
        let (version, sha256) = self.enricher.as_deref().map_or(("", ""), |it| (it.version(), it.sha256()));
        StepFacts {
            step: self.config.name.clone(),
            stage: self.stage.as_str(),
            plugin: self.config.plugin.clone(),
            version: version.to_owned(),
            sha256: sha256.to_owned(),
            settings_sha256: self.settings_sha256.clone(),
        }
    }
}

/// The steps that alerts go through, until a reload makes another one. An alert is finished by the pipeline it began with.
pub struct Pipeline {
    steps: Vec<LoadedStep>,
    /// What was reloaded with them; none where nothing was.
    setup: Option<Arc<Setup>>,
    /// What records say of each of them.
    facts: Vec<Arc<KnownStep>>,
}

impl Pipeline {
    /// A pipeline of these steps; their results stand in this order.
    pub fn new(steps: Vec<LoadedStep>) -> Self {
        Self::of(None, steps)
    }

    /// The same with the configuration that they belong to; none where that is the one that the host began with.
    pub fn of(setup: Option<Arc<Setup>>, steps: Vec<LoadedStep>) -> Self {
        let facts = steps.iter().map(|step| Arc::new(step.facts().into())).collect();
        Self { steps, setup, facts }
    }

    /// The configuration that was reloaded with it, and what goes with that; none where the host still has the one that it began with.
    pub fn setup(&self) -> Option<&Arc<Setup>> {
        self.setup.as_ref()
    }

    /// The steps, in the configuration's order.
    pub fn steps(&self) -> &[LoadedStep] {
        &self.steps
    }

    /// What answers for each of them.
    pub fn cast(&self) -> Vec<Cast> {
        let cast = |step: &LoadedStep| Cast {
            step: step.config.name.clone(),
            plugin: step.config.plugin.clone(),
            sha256: step.enricher.as_ref().map(|enricher| enricher.sha256().to_owned()),
        };
        self.steps.iter().map(cast).collect()
    }
}

/// What answers for a step: enough to make the same pipeline in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cast {
    /// The step's name.
    pub step: String,
    /// Its plugin.
    pub plugin: String,
    /// SHA-256 of the plugin's file; none when nothing answers.
    pub sha256: Option<String>,
}
