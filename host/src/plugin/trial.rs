//! Trials: a component as a step would run it, wherever its file lies, called at will with tables and HTTP answers of whoever
//! tries it. For the author's commands; the host itself never comes by here.
//!
//! Everything that bounds a plugin in the host bounds it here: it is compiled in a child process, and each call has its fuel,
//! memory and time. Only two things are left out: nobody compares its name with a file's, or its imports with grants. What it
//! was not given answers `denied`, as in a host.

pub(crate) mod recorded;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::compiler::Compiler;
use super::engine::Sandbox;
use super::host_calls::Messenger;
use super::http::{Answered, Asker, Http, HttpError, Request};
use super::instance::Instances;
use super::snapshot::{self, Compiled};
use super::{PluginsError, loader};
use crate::config::{Config, HttpConfig, StepConfig};
use crate::digest::sha256_hex;
use crate::pipeline::{Answer, Cost, Enricher as _, Failure, Given};
use crate::telemetry::{Telemetry, Told};

use self::recorded::Recorded;
pub(crate) use super::compiler::CompileError;

/// The largest memory that a trial can have, in bytes: all that wasm can address.
const MAX_MEMORY: usize = 1 << 32;

/// How much of what is told is kept for one call: a plugin may log without end.
const MAX_TOLD: usize = 256;

/// Where components are tried. Leaves nothing behind but compiled code, among the caches of whoever tries them.
pub(crate) struct Workshop {
    sandbox: Arc<Sandbox>,
    compiler: Compiler,
    telemetry: Arc<Telemetry>,
    told: Arc<Mutex<Vec<Told>>>,
}

/// What answers a plugin's HTTP requests.
#[derive(Clone)]
pub(crate) enum Web {
    /// Nothing: every request is denied, with what to do about it.
    Off(&'static str),
    /// What was recorded.
    Recorded(Arc<Recorded>),
    /// The network.
    Real(Arc<Http>),
}

/// A component that can be called.
pub(crate) struct Trial {
    /// What it is.
    pub about: Compiled,
    instances: Instances,
    told: Arc<Mutex<Vec<Told>>>,
}

/// A call that ended.
pub(crate) struct Called {
    /// Its end.
    pub outcome: Result<Answer, Failure>,
    /// What it cost.
    pub cost: Cost,
    /// What it said and was denied.
    pub told: Vec<Told>,
}

impl Workshop {
    /// A workshop.
    ///
    /// # Errors
    /// [`PluginsError`]: no plugin at all could run.
    pub(crate) fn open() -> Result<Self, PluginsError> {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dossier"));
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let kept = Arc::clone(&told);
        let telemetry = Telemetry::default().with_listener(Box::new(move |line| {
            let mut told = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < MAX_TOLD {
                told.push(line);
            }
        }));
        let telemetry = Arc::new(telemetry);
        let compiler = Compiler::for_trials(program, Arc::clone(&telemetry))
            .map_err(|source| PluginsError::State { path: std::env::temp_dir(), source })?;
        // One call at a time, with as much memory as anybody may ask for.
        let mut config = standard();
        config.host.in_flight = 1;
        let mut largest = StepConfig::unnamed("trial");
        largest.limits.memory = MAX_MEMORY;
        config.steps = vec![largest];
        let sandbox = Sandbox::new(&config).map_err(|error| PluginsError::Engine(format!("{error:#}")))?;
        Ok(Self { sandbox: Arc::new(sandbox), compiler, telemetry, told })
    }

    /// Compiles and configures a component with a step's settings and says what it is.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) async fn describe(&self, component: &[u8], step: &StepConfig) -> Result<Compiled, CompileError> {
        snapshot::check_header(component).map_err(CompileError::Refused)?;
        let code =
            self.compiler.code(&self.sandbox, &Bytes::copy_from_slice(component), &sha256_hex(component), step).await?;
        Ok(code.compiled)
    }

    /// Loads a component as a step.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) async fn load(&self, component: &[u8], step: StepConfig, web: &Web) -> Result<Trial, CompileError> {
        snapshot::check_header(component).map_err(CompileError::Refused)?;
        let sha256 = sha256_hex(component);
        let code = self.compiler.code(&self.sandbox, &Bytes::copy_from_slice(component), &sha256, &step).await?;
        let instances = loader::instances(&self.sandbox, &code, &sha256, step, web.messenger(), &self.telemetry);
        let instances = instances.await?;
        Ok(Trial { about: code.compiled, instances, told: Arc::clone(&self.told) })
    }

    /// Interfaces that are asked over the network, as a host asks them.
    ///
    /// # Errors
    /// [`PluginsError::Http`].
    pub(crate) fn network(
        &self,
        interfaces: &std::collections::BTreeMap<String, HttpConfig>,
    ) -> Result<Arc<Http>, PluginsError> {
        Ok(Arc::new(Http::new(interfaces, None, Arc::clone(&self.telemetry))?))
    }

    /// What was told since this was last asked: by what was compiled, too.
    pub(crate) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Trial {
    /// Calls it once.
    pub(crate) async fn call(&self, given: Arc<Given>) -> Called {
        let (outcome, cost) = self.instances.enrich(given).await;
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        Called { outcome, cost, told }
    }
}

/// A configuration in which nothing is set.
pub(crate) fn standard() -> Config {
    // Nothing is wrong with a text that says nothing; were there something, the defaults would still be there.
    let (config, _) = Config::examine_text(std::path::Path::new("dossier.toml"), "");
    config.unwrap_or_else(|| unreachable!("an empty text is TOML"))
}

impl Web {
    fn messenger(&self) -> Arc<dyn Messenger> {
        match self {
            Self::Off(advice) => Arc::new(Off(advice)),
            Self::Recorded(recorded) => Arc::clone(recorded) as Arc<dyn Messenger>,
            Self::Real(http) => Arc::clone(http) as Arc<dyn Messenger>,
        }
    }
}

/// Denies every request.
struct Off(&'static str);

#[async_trait]
impl Messenger for Off {
    async fn send(&self, _: &Asker, request: Request, _: Instant) -> Answered {
        let Request { method, url, .. } = request;
        let url = &url[..url.floor_char_boundary(256)];
        Answered::own(Err(HttpError::Denied(format!("{method} {url} was not sent; {}", self.0))))
    }
}
