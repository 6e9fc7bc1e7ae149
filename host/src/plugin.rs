//! Plugins: WebAssembly components as steps. Everything that names wasmtime lies in this folder.
//!
//! A file in the plugins folder ([`directory`]) is compiled and configured in a child process ([`compiler`], [`snapshot`]),
//! compared with what its steps were granted ([`grants`]) and becomes instances ([`instance`]) in one [`engine`], which
//! ask the host for things ([`host_calls`]) in the words of the [`contract`] within their [`limits`].

mod compiler;
mod contract;
mod directory;
mod engine;
mod grants;
mod host_calls;
pub mod http;
mod instance;
mod limits;
mod loader;
mod next;
mod probation;
pub(crate) mod rehearsal;
pub(crate) mod replica;
mod result_schema;
pub(crate) mod snapshot;
pub(crate) mod trial;
mod v1;
mod versions;
mod wasi;

use std::path::PathBuf;
use std::sync::Arc;

use dossier_authoring::manifest::Manifest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::admin::Health;
use crate::config::{Config, Finding};
use crate::pipeline::setup::Setup;
use crate::pipeline::{LoadedStep, Pipeline};
use crate::telemetry::Telemetry;

pub(crate) use self::contract::PACKAGE;
pub(crate) use self::next::VERSION as PREVIEW;

/// The largest component, in bytes.
pub(crate) const MAX_COMPONENT: u64 = 64 << 20;

/// What is said about a larger one.
pub(crate) fn too_large() -> String {
    format!("it is larger than {} MiB; build it without debug information", MAX_COMPONENT >> 20)
}

/// Memory that the process which compiles may write to, in bytes: its heap and every private mapping, wasm's memories as well.
/// Address space is no measure: wasm reserves much and uses little.
pub(crate) const COMPILE_MEMORY: u64 = 3 << 30;

/// Why plugins cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    /// wasmtime does not start: not enough address space, or a machine that it does not know.
    #[error("the WebAssembly engine does not start: {0}; allow this process more address space (ulimit -v unlimited)")]
    Engine(String),
    /// The state folder cannot be used.
    #[error("the state folder {} cannot be used: {source}; make it writable or set state_dir", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] http::HttpSetupError),
}

/// Why the plugins do not run under another configuration. What they ran under before goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ReloadError {
    /// What is wrong and what to do.
    pub why: String,
    /// Whether the machine is to blame, or something that changes by itself, so that another try may work.
    pub again: bool,
}

/// The running plugins: watches their folder until it is dropped.
pub struct Plugins {
    renewals: mpsc::Sender<directory::Renewal>,
    steps: watch::Receiver<Option<Arc<Pipeline>>>,
    _task: AbortOnDropHandle<()>,
}

impl Plugins {
    /// Loads every plugin and begins to watch the folder. A bad plugin does not make it fail: it is reported as an event,
    /// and in `health` when a step requires it.
    ///
    /// # Errors
    /// [`PluginsError`], when no plugin at all could run.
    pub async fn start(
        config: Arc<Config>,
        telemetry: Arc<Telemetry>,
        health: Arc<Health>,
    ) -> Result<Self, PluginsError> {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dossier"));
        Self::start_with(program, config, telemetry, health).await
    }

    /// The same with another program for `dossier compile`, where this one is not it: in tests.
    ///
    /// # Errors
    /// As [`Plugins::start`].
    pub async fn start_with(
        program: PathBuf,
        config: Arc<Config>,
        telemetry: Arc<Telemetry>,
        health: Arc<Health>,
    ) -> Result<Self, PluginsError> {
        let state = |source| PluginsError::State { path: config.host.state_dir.clone(), source };
        let compiler =
            compiler::Compiler::new(&config.host.state_dir, program, Arc::clone(&telemetry)).map_err(state)?;
        let loader = loader::Loader::new(Arc::clone(&config), compiler, Arc::clone(&telemetry))?;
        let (directory, steps) = directory::Directory::open(loader, telemetry, health).await;
        let (renewals, receiver) = mpsc::channel(1);
        Ok(Self { renewals, steps, _task: AbortOnDropHandle::new(tokio::spawn(directory.watch(receiver))) })
    }

    /// Has everything run under another configuration, from the next alert on: its steps, with its tables. All of it or nothing: what a
    /// host that starts with it would miss keeps it out. Takes as long as compiling what is new in it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub async fn reload(&self, setup: Arc<Setup>) -> Result<(), ReloadError> {
        let (reply, replied) = oneshot::channel();
        let gone = || ReloadError {
            why: "the task that watches the plugins broke off; this is a defect of dossier, please report it"
                .to_owned(),
            again: false,
        };
        self.renewals.send(directory::Renewal { setup, reply }).await.map_err(|_| gone())?;
        replied.await.map_err(|_| gone())?
    }

    /// What alerts should run through now; none while a required plugin is missing. Looking at it is cheap.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Pipeline>>> {
        self.steps.clone()
    }
}

/// A step whose plugin is there, and what that is like.
pub struct CheckedStep {
    /// The step.
    pub step: LoadedStep,
    /// What its component imports.
    pub imports: Vec<String>,
    /// What the plugin asks for, if it says so.
    pub manifest: Option<Manifest>,
    /// Why it is configured in each instance; none when a copy of the configured one serves.
    pub plain: Option<String>,
    /// Whether a host refuses it; then only what its file shows of itself is known.
    pub refused: bool,
}

/// Loads every plugin as [`Plugins::start`] would, and gives all that is wrong, and the steps whose plugins are there. Leaves nothing behind.
pub async fn check(config: &Config) -> (Vec<Finding>, Vec<CheckedStep>) {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dossier"));
    check_with(program, config).await
}

/// The same with another program for `dossier compile`, where this one is not it: in tests.
pub async fn check_with(program: PathBuf, config: &Config) -> (Vec<Finding>, Vec<CheckedStep>) {
    let telemetry = Arc::new(Telemetry::default());
    let compiler = match compiler::Compiler::temporary(program, Arc::clone(&telemetry)) {
        Ok(compiler) => compiler,
        Err(error) => {
            return (vec![config.finding(None, format!("no plugin can be compiled: {error}"))], Vec::new());
        }
    };
    match loader::Loader::new(Arc::new(config.clone()), compiler, telemetry) {
        Ok(loader) => directory::check(&loader).await,
        Err(error) => (vec![config.finding(None, error.to_string())], Vec::new()),
    }
}
