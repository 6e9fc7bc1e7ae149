//! A loaded plugin as a step: one call from the alert to the answer, within its bounds. A fresh instance for each call, or
//! one that is kept for some where the step says so.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use wasmtime::Store;

use super::contract::{Plugin, Prepared};
use super::engine::Sandbox;
use super::host_calls::{Ear, Grants, State};
use super::limits;
use super::result_schema::ResultSchema;
use super::v1::types;
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
    /// Its place among the idle ones while it is one.
    place: Option<tokio::sync::OwnedSemaphorePermit>,
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
        let mut instance = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        instance.place = None;
        Some(instance)
    }

    fn keep(&self, mut instance: Instance) {
        instance.served += 1;
        if instance.served >= self.config.reuse {
            return;
        }
        // No place left: one instance more or less to make, so it is let go.
        let Ok(place) = Arc::clone(&self.sandbox.idle).try_acquire_owned() else { return };
        instance.place = Some(place);
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

    /// Makes the instance if it is new, and calls it.
    async fn run(&self, instance: &mut Instance) -> wasmtime::Result<Result<types::Answer, types::Failure>> {
        let Instance { store, plugin, .. } = instance;
        let plugin = match plugin {
            Some(plugin) => plugin,
            None => {
                let new = self.prepared.instantiate(store).await?;
                if self.configure_each
                    && let Err(why) = new.configure(store, &self.config.settings).await?
                {
                    let why = format!("configure refused the settings that it took before: {why}");
                    return Ok(Err(types::Failure::Internal(why)));
                }
                plugin.insert(new)
            }
        };
        store.data_mut().rewind();
        plugin.enrich(store).await
    }

    /// Makes an instance and throws it away: whether it fits its bounds.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) async fn try_out(&self) -> Result<(), String> {
        let _running = self.sandbox.running.acquire().await.map_err(|error| error.to_string())?;
        let mut instance = self.fresh().map_err(|error| error.to_string())?;
        let limits = &self.config.limits;
        let made = async {
            instance.store.set_fuel(limits.fuel)?;
            self.prepared.instantiate(&mut instance.store).await
        };
        let failure = match timeout_at(Instant::now() + limits.timeout, made).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => limits::failure(&error, &instance.store.data().memory),
            Err(_) => {
                return Err("making an instance takes longer than its timeout; raise timeout in its [[step]]".into());
            }
        };
        match failure {
            Failure::Failed { reason, detail } => Err(format!("no instance can be made ({reason}): {detail}")),
            Failure::Unavailable { reason, .. } | Failure::NotApplicable(reason) => Err(reason),
        }
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
        let Ok(_running) = self.sandbox.running.acquire().await else {
            return (Err(Failure::Unavailable { reason: "the host is stopping".into(), after: None }), Cost::default());
        };
        let turn = Arc::clone(&self.sandbox.computing).acquire_owned().await.ok();
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
        instance.store.data_mut().begin(given, deadline, turn);
        let called = timeout_at(deadline, self.run(&mut instance)).await;

        let (tables, owed) = instance.store.data_mut().end();
        let left = instance.store.get_fuel().unwrap_or_default().saturating_sub(owed);
        let cost = Cost {
            fuel: limits.fuel.saturating_sub(left),
            memory: instance.store.data().memory.used() as u64,
            duration: started.elapsed(),
            tables,
            cached: false,
        };
        let outcome = match called {
            Ok(Ok(answer)) => {
                self.keep(instance);
                match answer {
                    Ok(answer) => self.check(answer.into()).map_err(|detail| Failure::Failed {
                        reason: Reason::InvalidOutput,
                        detail: limits::cut(detail),
                    }),
                    Err(failure) => Err(failure.into()),
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
