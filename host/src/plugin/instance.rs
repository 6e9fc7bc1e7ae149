//! A loaded plugin as a step: one call from the alert to the answer, within its bounds. A fresh instance for each call, or
//! one that is kept for some where the step says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use wasmtime::Store;

use super::compiler::CompileError;
use super::contract::{Plugin, Prepared};
use super::engine::Sandbox;
use super::host_calls::{Ear, Grants, State};
use super::result_schema::ResultSchema;
use super::v1::types;
use super::{limits, snapshot};
use crate::config::StepConfig;
use crate::dead_letter::Reason;
use crate::pipeline::{Answer, Cost, Enricher, Failure, Given, Stage};
use crate::telemetry::Telemetry;

/// How much fuel a call uses before other work gets its turn: some 50 µs.
const YIELD_INTERVAL: u64 = 100_000;

/// What may cross from the guest in one host call beyond the answer's bound: a request's body, keys, log lines.
const HOSTCALL_ROOM: usize = 256 << 10;

/// A plugin, compiled and configured for one step.
pub(super) struct Instances {
    /// The engine.
    pub sandbox: Arc<Sandbox>,
    /// The component with its imports.
    pub prepared: Prepared,
    /// The step.
    pub config: Arc<StepConfig>,
    /// The stage that it described.
    pub stage: Stage,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Whether it is configured in each instance, because it could not be copied.
    pub configure_each: bool,
    /// What its results must conform to, if it says so.
    pub result_schema: Option<ResultSchema>,
    /// What it may ask for.
    pub grants: Arc<Grants>,
    /// Where events go.
    pub telemetry: Arc<Telemetry>,
    /// Instances that served and may serve again.
    pub idle: Mutex<Vec<Instance>>,
}

/// An instance and how often it served.
pub(super) struct Instance {
    store: Store<State>,
    plugin: Option<Plugin>,
    served: u32,
    /// Its place among the idle ones, from the first time that it is one.
    place: Option<OwnedSemaphorePermit>,
}

/// A new store with the bounds of a step. Fuel is set by whoever calls.
///
/// # Errors
/// None in practice: fuel is on.
pub(super) fn store(
    engine: &wasmtime::Engine,
    limits: &crate::config::Limits,
    state: State,
) -> wasmtime::Result<Store<State>> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.fuel_async_yield_interval(Some(YIELD_INTERVAL))?;
    store.set_hostcall_fuel(limits.answer.saturating_add(HOSTCALL_ROOM));
    store.set_max_component_handles(super::limits::HANDLES);
    Ok(store)
}

impl Instances {
    fn fresh(&self) -> wasmtime::Result<Instance> {
        let state = State::new(
            Arc::clone(&self.grants),
            self.config.limits.memory,
            Ear::Telemetry(Arc::clone(&self.telemetry)),
        );
        let store = store(&self.sandbox.engine, &self.config.limits, state)?;
        Ok(Instance { store, plugin: None, served: 0, place: None })
    }

    fn take_idle(&self) -> Option<Instance> {
        if self.config.reuse <= 1 {
            return None;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, mut instance: Instance) {
        instance.served += 1;
        if instance.served >= self.config.reuse {
            return;
        }
        if instance.place.is_none() {
            // No place left: one instance more or less to make, so it is let go.
            let Ok(place) = Arc::clone(&self.sandbox.idle).try_acquire_owned() else { return };
            instance.place = Some(place);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
    }

    /// Checks an answer against the contract and the plugin's own schema.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, answer: limits::RawAnswer) -> Result<Answer, String> {
        let answer = answer.check(self.stage, self.config.limits.answer)?;
        if let Some(schema) = &self.result_schema {
            schema.check(&answer.fields)?;
        }
        Ok(answer)
    }

    /// Makes the instance if it is new, and configures it where that could not be copied. The store has no alert yet: all that
    /// the plugin can do meanwhile is log. The inner error is the plugin's own.
    async fn ready<'a>(
        &self,
        store: &mut Store<State>,
        plugin: &'a mut Option<Plugin>,
    ) -> wasmtime::Result<Result<&'a Plugin, String>> {
        if let Some(plugin) = plugin {
            return Ok(Ok(plugin));
        }
        let new = self.prepared.instantiate(store).await?;
        if self.configure_each
            && let Err(why) = new.configure(store, &self.config.settings).await?
        {
            return Ok(Err(why));
        }
        Ok(Ok(plugin.insert(new)))
    }

    /// Gets the instance ready, gives it its alert and calls it.
    async fn run(
        &self,
        instance: &mut Instance,
        begin: impl FnOnce(&mut State),
    ) -> wasmtime::Result<Result<types::Answer, types::Failure>> {
        let Instance { store, plugin, .. } = instance;
        match self.ready(store, plugin).await? {
            Ok(plugin) => {
                begin(store.data_mut());
                store.data_mut().rewind();
                plugin.enrich(store).await
            }
            Err(why) => {
                let why = format!("configure refused the settings that it took before: {why}");
                Ok(Err(types::Failure::Internal(why)))
            }
        }
    }

    /// Makes an instance, configures it where each one is, and throws it away: whether it fits its bounds.
    ///
    /// # Errors
    /// Why it does not; or the machine has no room for it.
    pub(super) async fn try_out(&self) -> Result<(), CompileError> {
        let refused = |why: String| Err(CompileError::Refused(why));
        let failed = |error: &dyn std::fmt::Display| CompileError::Failed(format!("no sandbox: {error}"));
        let _running = self.sandbox.running.acquire().await.map_err(|error| failed(&error))?;
        let Instance { mut store, mut plugin, .. } = self.fresh().map_err(|error| failed(&error))?;
        let limits = &self.config.limits;
        store.set_fuel(limits.fuel).map_err(|error| failed(&error))?;
        let made = timeout_at(Instant::now() + limits.timeout, self.ready(&mut store, &mut plugin)).await;
        let failure = match made {
            Ok(Ok(Ok(_))) => return Ok(()),
            Ok(Ok(Err(why))) => return refused(snapshot::refused_settings(why)),
            Ok(Err(error)) => limits::failure(&error, &store.data().memory),
            Err(_) => {
                return refused(
                    "making an instance takes longer than its timeout; raise timeout in its [[step]]".into(),
                );
            }
        };
        match failure {
            Failure::Failed { reason, detail } => refused(format!("no instance can be made ({reason}): {detail}")),
            Failure::Unavailable { reason, .. } | Failure::NotApplicable(reason) => Err(CompileError::Failed(reason)),
        }
    }
}

/// A call that failed because a request did is worth repeating once that request is sent again.
fn not_before(failure: Failure, fails_until: Option<Instant>) -> Failure {
    match (failure, fails_until) {
        (Failure::Unavailable { reason, after }, Some(until)) => {
            // A little more, so that it is over then.
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(5);
            Failure::Unavailable { reason, after: Some(after.unwrap_or_default().max(left)) }
        }
        (failure, _) => failure,
    }
}

/// Takes a place, at once where there is one: waiting in line costs, even when nobody is there. None when the host stops.
async fn turn(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => Some(place),
        Err(_) => Arc::clone(places).acquire_owned().await.ok(),
    }
}

#[async_trait]
impl Enricher for Instances {
    fn version(&self) -> &str {
        &self.version
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost) {
        // Waiting for room is no fault of the call: its time begins with its turn.
        let Some(_running) = turn(&self.sandbox.running).await else {
            return (Err(Failure::Unavailable { reason: "the host is stopping".into(), after: None }), Cost::default());
        };
        let turn = turn(&self.sandbox.computing).await;
        let limits = &self.config.limits;
        let started = Instant::now();
        let deadline = started + limits.timeout;
        let instance = self.take_idle().map_or_else(|| self.fresh(), Ok);
        let mut instance = match instance.and_then(|mut instance| {
            instance.store.set_fuel(limits.fuel)?;
            Ok(instance)
        }) {
            Ok(instance) => instance,
            Err(error) => {
                let failed = Failure::Unavailable { reason: format!("no sandbox: {error}"), after: None };
                return (Err(failed), Cost::default());
            }
        };
        let begin = |state: &mut State| state.begin(given, deadline, turn);
        let called = timeout_at(deadline, self.run(&mut instance, begin)).await;

        let ended = instance.store.data_mut().end();
        let left = instance.store.get_fuel().unwrap_or_default().saturating_sub(ended.owed);
        let cost = Cost {
            fuel: limits.fuel.saturating_sub(left),
            memory: instance.store.data().memory.used() as u64,
            duration: started.elapsed(),
            tables: ended.tables,
            cached: ended.cached,
        };
        let outcome = match called {
            Ok(Ok(answer)) => {
                self.keep(instance);
                match answer {
                    Ok(answer) => self.check(answer.into()).map_err(|detail| Failure::Failed {
                        reason: Reason::InvalidOutput,
                        detail: limits::cut(detail),
                    }),
                    Err(failure) => Err(not_before(failure.into(), ended.fails_until)),
                }
            }
            Ok(Err(error)) => Err(limits::failure(&error, &instance.store.data().memory)),
            Err(_) => Err(Failure::Failed {
                reason: Reason::Timeout,
                detail: format!(
                    "the call did not end within {:?}; raise timeout in its [[step]] if that is too little",
                    limits.timeout
                ),
            }),
        };
        (outcome, cost)
    }
}
