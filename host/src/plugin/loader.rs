//! Turns a plugin's bytes into the steps that run it: all of them, or none.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dossier_authoring::manifest::Manifest;
use tokio::sync::Semaphore;

use super::compiler::{Code, CompileError, Compiler, aside};
use super::contract::Contract;
use super::engine::Sandbox;
use super::host_calls::{Grants, Messenger};
use super::http::{Asker, Http};
use super::instance::Instances;
use super::snapshot::Compiled;
use super::{PluginsError, grants, result_schema, snapshot};
use crate::config::{Config, StepConfig};
use crate::digest::sha256_hex;
use crate::pipeline::{Enricher, LoadedStep, Stage};
use crate::telemetry::Telemetry;

/// What it takes to load plugins.
pub(super) struct Loader {
    /// The configuration.
    pub config: Arc<Config>,
    sandbox: Arc<Sandbox>,
    compiler: Arc<Compiler>,
    client: Arc<Http>,
    telemetry: Arc<Telemetry>,
    /// Bounds how many children compile at once.
    compiling: Arc<Semaphore>,
}

/// A plugin's file as it was read.
pub(super) struct File {
    /// All of it.
    pub bytes: Bytes,
    /// SHA-256 of it.
    pub sha256: String,
    /// What it says that it asks for; the error is what is wrong with that.
    pub manifest: Result<Option<Manifest>, String>,
}

impl File {
    /// Looks at what was read. Takes long for a large file, so it is not for the threads that carry alerts.
    pub(super) fn read(bytes: Vec<u8>) -> Self {
        Self { sha256: sha256_hex(&bytes), manifest: Manifest::read(&bytes), bytes: bytes.into() }
    }
}

/// A loaded plugin.
pub(super) struct Loaded {
    /// SHA-256 of its file.
    pub sha256: String,
    /// Its version.
    pub version: String,
    /// What it asks for, if it says so.
    pub manifest: Option<Manifest>,
    /// The steps that it runs.
    pub steps: Vec<LoadedStep>,
    /// What was found out about it for each of them, in the same order.
    pub about: Vec<Compiled>,
}

impl Loader {
    /// # Errors
    /// [`PluginsError`].
    pub(super) fn new(
        config: Arc<Config>,
        compiler: Compiler,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, PluginsError> {
        let sandbox = Sandbox::new(&config).map_err(|error| PluginsError::Engine(format!("{error:#}")))?;
        let shared = crate::queue::shared_answers(&config.queue, &telemetry);
        let client = Http::new(&config.http, shared, Arc::clone(&telemetry))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            config,
            sandbox: Arc::new(sandbox),
            compiler: Arc::new(compiler),
            client: Arc::new(client),
            telemetry,
            compiling: Arc::new(Semaphore::new(processors.min(4))),
        })
    }

    /// What it takes under another configuration. What can go on goes on: the engine and its pool, interfaces with their caches.
    ///
    /// # Errors
    /// [`PluginsError`].
    pub(super) fn renewed(&self, config: Arc<Config>) -> Result<Self, PluginsError> {
        let sandbox = match self.sandbox.fits(&config) {
            true => Arc::clone(&self.sandbox),
            false => Arc::new(Sandbox::new(&config).map_err(|error| PluginsError::Engine(format!("{error:#}")))?),
        };
        Ok(Self {
            sandbox,
            compiler: Arc::clone(&self.compiler),
            client: Arc::new(self.client.renewed(&config.http)?),
            telemetry: Arc::clone(&self.telemetry),
            compiling: Arc::clone(&self.compiling),
            config,
        })
    }

    /// From now on alerts are served: what is compiled gives way to them.
    pub(super) fn serves(&self) {
        self.compiler.serves();
    }

    /// Whether what runs a plugin would be the same under another configuration.
    pub(super) fn runs_alike(&self, other: &Self, plugin: &str) -> bool {
        let (before, after) = (&self.config, &other.config);
        let steps = |loader: &Self| {
            let wherever = |step: StepConfig| StepConfig { line: step.line.map(|_| 0), ..step };
            loader.steps_of(plugin).into_iter().map(wherever).collect::<Vec<_>>()
        };
        let steps = (steps(self), steps(other));
        let mut apis = steps.0.iter().flat_map(|step| &step.http);
        steps.0 == steps.1
            && apis.all(|api| before.http.get(api) == after.http.get(api))
            && (before.plugins.preview, before.plugins.probation) == (after.plugins.preview, after.plugins.probation)
            // One that no step names must not have the name of a step.
            && (self.is_named(plugin) || self.has_step(plugin) == other.has_step(plugin))
    }

    fn has_step(&self, name: &str) -> bool {
        self.config.steps.iter().any(|step| step.name == name)
    }

    /// Whether a step of the configuration names the plugin.
    pub(super) fn is_named(&self, plugin: &str) -> bool {
        self.config.steps.iter().any(|step| step.plugin == plugin)
    }

    /// Whether a step says that the plugin must have this SHA-256.
    pub(super) fn is_pinned(&self, plugin: &str, sha256: &str) -> bool {
        self.config.steps.iter().any(|step| step.plugin == plugin && step.sha256.as_deref() == Some(sha256))
    }

    /// The steps that a plugin runs.
    pub(super) fn steps_of(&self, plugin: &str) -> Vec<StepConfig> {
        let named: Vec<_> = self.config.steps.iter().filter(|step| step.plugin == plugin).cloned().collect();
        if named.is_empty() { vec![StepConfig::unnamed(plugin)] } else { named }
    }

    /// Loads a plugin for all its steps. What the version before it asked for bounds what this one may ask for without
    /// having been granted it.
    ///
    /// # Errors
    /// The first step that cannot be, and why.
    pub(super) async fn load(
        &self,
        plugin: &str,
        file: &File,
        before: Option<&Manifest>,
    ) -> Result<Loaded, CompileError> {
        let File { bytes, sha256, manifest } = file;
        snapshot::check_header(bytes).map_err(CompileError::Refused)?;
        let manifest = manifest.clone().map_err(CompileError::Refused)?;
        let mut steps = Vec::new();
        let mut about = Vec::new();
        let mut version = String::new();
        for step in self.steps_of(plugin) {
            let name = step.name.clone();
            let reviewed = grants::check_review(sha256, manifest.as_ref(), before, &step);
            let loaded = match reviewed.map_err(CompileError::Refused) {
                Ok(()) => self.load_step(bytes, sha256, manifest.as_ref(), step).await,
                Err(error) => Err(error),
            };
            let (loaded, compiled) = loaded.map_err(|error| match error {
                CompileError::Refused(why) if self.is_named(plugin) => {
                    CompileError::Refused(format!("step \"{name}\": {why}"))
                }
                error => error,
            })?;
            version = loaded.version.clone();
            about.push(compiled);
            steps.push(LoadedStep {
                config: Arc::clone(&loaded.config),
                stage: loaded.stage,
                settings_sha256: sha256_hex(loaded.config.settings.as_bytes()),
                enricher: Some(loaded as Arc<dyn Enricher>),
            });
        }
        Ok(Loaded { sha256: sha256.clone(), version, manifest, steps, about })
    }

    /// Loads a version for a step that another process of this host has loaded for it, and so checked; `file` reads its component
    /// where the code was not kept.
    ///
    /// # Errors
    /// [`CompileError`].
    pub(super) async fn load_same(
        &self,
        step: StepConfig,
        sha256: &str,
        file: impl FnOnce() -> Result<Bytes, CompileError> + Send + 'static,
    ) -> Result<LoadedStep, CompileError> {
        let code = match self.compiler.kept(&self.sandbox, sha256, &step).await? {
            Some(code) => code,
            None => self.compiler.code(&self.sandbox, &aside(file).await??, sha256, &step).await?,
        };
        let client = Arc::clone(&self.client) as Arc<dyn Messenger>;
        let instances = instances(&self.sandbox, &code, sha256, step, client, &self.telemetry).await?;
        Ok(LoadedStep {
            config: Arc::clone(&instances.config),
            stage: instances.stage,
            settings_sha256: sha256_hex(instances.config.settings.as_bytes()),
            enricher: Some(Arc::new(instances)),
        })
    }

    async fn load_step(
        &self,
        bytes: &Bytes,
        sha256: &str,
        manifest: Option<&Manifest>,
        step: StepConfig,
    ) -> Result<(Arc<Instances>, Compiled), CompileError> {
        let refused = CompileError::Refused;
        let code = {
            let _turn = self.compiling.acquire().await.map_err(|error| CompileError::Failed(error.to_string()))?;
            self.compiler.code(&self.sandbox, bytes, sha256, &step).await?
        };
        let compiled = &code.compiled;
        if compiled.name != step.plugin {
            return Err(refused(format!(
                "its description names it \"{}\"; rename its file to {}.wasm",
                compiled.name, compiled.name
            )));
        }
        let stage = compiled.stage().ok_or_else(|| refused(format!("\"{}\" is no stage", compiled.stage)))?;
        if step.line.is_none() {
            if stage != Stage::Enrich {
                return Err(refused(format!(
                    "no [[step]] names it, and only plugins of the stage enrich run without one (it is of {}); add a \
                     [[step]] with plugin = \"{}\"",
                    stage.as_str(),
                    step.plugin
                )));
            }
            if self.has_step(&step.name) {
                return Err(refused(format!(
                    "a step of another plugin is named \"{0}\"; add a [[step]] with plugin = \"{0}\" and another name",
                    step.name
                )));
            }
        }
        let contract = Contract::from_version(&compiled.contract)
            .ok_or_else(|| refused(format!("\"{}\" is no version of the contract", compiled.contract)))?;
        if !contract.is_released() && !self.config.plugins.preview {
            return Err(refused(format!(
                "it is made for version {} of the contract, which is in development; build it against wit/v1, or set preview = \
                 true in [plugins] to try it",
                compiled.contract
            )));
        }
        grants::check_granted(&compiled.imports, manifest, &step).map_err(refused)?;
        let client = Arc::clone(&self.client) as Arc<dyn Messenger>;
        let instances = instances(&self.sandbox, &code, sha256, step, client, &self.telemetry).await?;
        Ok((Arc::new(instances), code.compiled))
    }
}

/// Links code for a step, and makes one instance to see whether it fits its bounds. Nobody has compared its imports with the
/// step's grants yet, or its name with the step's plugin.
///
/// # Errors
/// Why it cannot run.
pub(super) async fn instances(
    sandbox: &Arc<Sandbox>,
    code: &Code,
    sha256: &str,
    step: StepConfig,
    client: Arc<dyn Messenger>,
    telemetry: &Arc<Telemetry>,
) -> Result<Instances, CompileError> {
    let refused = CompileError::Refused;
    let compiled = &code.compiled;
    let stage = compiled.stage().ok_or_else(|| refused(format!("\"{}\" is no stage", compiled.stage)))?;
    let contract = Contract::from_version(&compiled.contract)
        .ok_or_else(|| refused(format!("\"{}\" is no version of the contract", compiled.contract)))?;
    let prepared = snapshot::linker(&sandbox.engine, contract, &compiled.imports)
        .and_then(|linker| linker.instantiate_pre(&code.component).map_err(|error| format!("{error:#}")))
        .and_then(|pre| contract.prepare(pre).map_err(|error| format!("{error:#}")))
        .map_err(refused)?;
    let grants = Grants {
        step: step.name.clone(),
        tables: step.tables.clone(),
        http: Asker::new(step.http.clone(), step.http_concurrency),
        log_lines: step.limits.log_lines,
        client: Some(client),
    };
    let instances = Instances {
        sandbox: Arc::clone(sandbox),
        prepared,
        config: Arc::new(step),
        stage,
        version: compiled.version.clone(),
        sha256: sha256.to_owned(),
        configure_each: compiled.plain.is_some(),
        result_schema: compiled.result_schema.as_deref().map(result_schema::parse).transpose().map_err(refused)?,
        grants: Arc::new(grants),
        telemetry: Arc::clone(telemetry),
        idle: Mutex::default(),
    };
    instances.try_out().await?;
    Ok(instances)
}
