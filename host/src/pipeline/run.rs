//! One alert's way through a pipeline: which step runs when, what is tried again, and what it comes to.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use futures_util::poll;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Answer, Cost, Failure, Given, LoadedStep, Pipeline, Stage, seen};
use crate::alert::Alert;
use crate::alert::observables::{MAX_OBSERVABLES, Observable};
use crate::dead_letter::{FailedStep, Reason};
use crate::record::{KnownStep, Label, StepTrace, Verdict};
use crate::tables::Snapshot;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{StepCalled, StepRetried};
use crate::telemetry::redact::Masks;
use crate::telemetry::traces::Called;

/// The first wait before an unavailable step is called again; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait, also when a plugin asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// An alert on its way.
///
/// [`Run::advance`] does what can be done now. A step that must be tried again later makes it come back with the time to
/// wait, so that whoever waits decides what to hold meanwhile.
pub struct Run {
    pipeline: Arc<Pipeline>,
    telemetry: Arc<Telemetry>,
    /// What the stages before this one have found, and this one is given.
    given: Arc<Given>,
    stages: std::slice::Iter<'static, Stage>,
    stage: Option<Stage>,
    verdict: Option<Verdict>,
    /// One for each step of the pipeline.
    states: Vec<State>,
    /// What was called when; none where nobody wants traces.
    calls: Option<Vec<Called>>,
}

/// What a step has done so far.
#[derive(Default)]
struct State {
    calls: u32,
    due: Option<Instant>,
    cost: Cost,
    /// What it found, until its stage is over and others may see it.
    found: Option<Answer>,
    end: Option<End>,
}

/// How a step ended.
enum End {
    Answered,
    NotApplicable(String),
    Absent,
    Failed(Reason, String),
}

/// Where an alert stands after [`Run::advance`].
#[derive(Debug)]
pub enum Progress {
    /// At its end.
    Done(Box<Finished>),
    /// Call again at this time.
    Wait(Instant),
}

/// What an alert's way came to.
#[derive(Debug)]
pub struct Finished {
    /// The observables, with those that were added.
    pub observables: Arc<Vec<Observable>>,
    /// Results by step.
    pub enrichment: Vec<(String, Box<RawValue>)>,
    /// The verdict; `unknown` when no step gave one.
    pub verdict: Verdict,
    /// What each step did; those that were not reached are missing.
    pub steps: Vec<StepTrace>,
    /// The calls of steps in the order in which they ended; empty where nobody wants traces.
    pub calls: Vec<Called>,
    /// The failure of a required step: the alert is dead.
    pub failure: Option<(Reason, String, FailedStep)>,
}

impl Run {
    /// An alert at its beginning. It sees these tables all its life.
    pub fn new(pipeline: Arc<Pipeline>, tables: Arc<Snapshot>, alert: Arc<Alert>, telemetry: Arc<Telemetry>) -> Self {
        let states = pipeline.steps.iter().map(|_| State::default()).collect();
        let observables = Arc::clone(&alert.observables);
        let given =
            Arc::new(Given { alert, observables, enrichment: Vec::with_capacity(pipeline.steps.len()), tables });
        let calls = telemetry.traces().map(|_| Vec::new());
        Self { pipeline, telemetry, given, stages: Stage::ALL.iter(), stage: None, verdict: None, states, calls }
    }

    /// Runs every step that is due, stage by stage, until the end or until something must wait.
    pub async fn advance(&mut self) -> Progress {
        loop {
            let Some(stage) = self.stage.or_else(|| self.stages.next().copied()) else { return self.finish(None) };
            self.stage = Some(stage);
            self.call_due(stage).await;
            if let Some(index) = self.dead_step() {
                return self.finish(Some(index));
            }
            if let Some(due) = self.members(stage).filter_map(|index| self.states[index].due).min() {
                return Progress::Wait(due);
            }
            self.share();
            self.stage = None;
        }
    }

    /// The steps of a stage, by index.
    fn members(&self, stage: Stage) -> impl Iterator<Item = usize> + '_ {
        self.pipeline.steps.iter().enumerate().filter(move |(_, step)| step.stage == stage).map(|(index, _)| index)
    }

    /// The first required step that failed.
    fn dead_step(&self) -> Option<usize> {
        let failed = |state: &State| matches!(state.end, Some(End::Failed(..)));
        (0..self.states.len()).find(|&index| self.pipeline.steps[index].config.required && failed(&self.states[index]))
    }

    /// Calls the steps of a stage that have not ended and whose wait, if any, is over. They run at the same time, and all
    /// of them are waited for: which failure is reported does not depend on which came first.
    async fn call_due(&mut self, stage: Stage) {
        let now = Instant::now();
        let due: Vec<usize> = self
            .members(stage)
            .filter(|&index| self.states[index].end.is_none() && self.states[index].due.is_none_or(|due| due <= now))
            .collect();
        if due.is_empty() {
            return;
        }
        let traced = self.calls.is_some();
        let calls = due.iter().map(|&index| {
            let (pipeline, given) = (self.pipeline.clone(), self.given.clone());
            on_its_own(async move {
                let enricher = pipeline.steps[index].enricher.as_deref()?;
                let began = traced.then(SystemTime::now);
                Some((enricher.enrich(given).await, began))
            })
        });
        let results = join_all(calls).await;
        let pipeline = self.pipeline.clone();
        for (index, result) in due.into_iter().zip(results) {
            match result {
                Some(((result, cost), began)) => self.settle(&pipeline.steps[index], index, result, (cost, began)),
                None => self.states[index].end = Some(End::Absent),
            }
        }
    }

    /// Notes how a call ended, and whether the step is called again.
    fn settle(
        &mut self,
        step: &LoadedStep,
        index: usize,
        result: Result<Answer, Failure>,
        (cost, began): (Cost, Option<SystemTime>),
    ) {
        let state = &mut self.states[index];
        let outcome = match &result {
            Ok(_) => "ok",
            Err(Failure::NotApplicable(_)) => "not-applicable",
            Err(Failure::Unavailable { .. }) => "unavailable",
            Err(Failure::Failed { reason, .. }) => reason.as_str(),
        };
        self.telemetry.emit(&StepCalled {
            step: &step.config.name,
            stage: step.stage.as_str(),
            outcome,
            duration: cost.duration,
            fuel: cost.fuel,
        });
        state.calls += 1;
        if self.telemetry.taps().any() {
            let facts = &self.pipeline.facts[index];
            seen::offer(self.telemetry.taps(), facts, &self.given, &result, &cost, (outcome, state.calls));
        }
        state.due = None;
        if let Some((calls, began)) = self.calls.as_mut().zip(began) {
            calls.push(Called {
                step: Arc::clone(&self.pipeline.facts[index]),
                began,
                duration: cost.duration,
                outcome,
                fuel: cost.fuel,
                cached: cost.cached,
                attempt: state.calls,
            });
        }
        state.cost = cost;
        state.end = match result {
            Ok(answer) => {
                state.found = Some(answer);
                Some(End::Answered)
            }
            Err(Failure::NotApplicable(why)) => Some(End::NotApplicable(why)),
            Err(Failure::Failed { reason, detail }) => Some(End::Failed(reason, detail)),
            Err(Failure::Unavailable { reason, .. }) if state.calls > step.config.retries => {
                let detail = format!("{reason} (called {} times)", state.calls);
                Some(End::Failed(Reason::Unavailable, detail))
            }
            Err(Failure::Unavailable { reason, after }) => {
                let wait = backoff(state.calls, after);
                state.due = Some(Instant::now() + wait);
                let id = &self.given.alert.id;
                self.telemetry.emit(&StepRetried { step: &step.config.name, id, reason: &reason, wait });
                None
            }
        };
    }

    /// Lets the following stages see what this one found. Nobody holds what was given any more, so nothing is copied.
    fn share(&mut self) {
        if self.states.iter().all(|state| state.found.is_none()) {
            return;
        }
        let given = Arc::make_mut(&mut self.given);
        // In the order of the steps, whenever they ran.
        let mut before = 0;
        for (step, state) in self.pipeline.steps.iter().zip(&mut self.states) {
            if let Some(Answer { fields, observables, verdict }) = state.found.take() {
                given.enrichment.insert(before, (step.config.name.clone(), fields));
                if !observables.is_empty() {
                    let known = Arc::make_mut(&mut given.observables);
                    for observable in observables {
                        if known.len() < MAX_OBSERVABLES && !known.contains(&observable) {
                            known.push(observable);
                        }
                    }
                }
                self.verdict = verdict.or_else(|| self.verdict.take());
            }
            before += usize::from(matches!(state.end, Some(End::Answered)));
        }
    }

    fn finish(&mut self, dead: Option<usize>) -> Progress {
        self.share();
        let failure = dead.and_then(|index| match &self.states[index].end {
            Some(End::Failed(reason, detail)) => {
                Some((*reason, detail.clone(), failed_step(&self.pipeline.steps[index], &self.states[index])))
            }
            _ => None,
        });
        let states = self.pipeline.facts.iter().zip(&mut self.states);
        let steps = states.filter_map(|(facts, state)| trace(facts, state)).collect();
        let given = Arc::make_mut(&mut self.given);
        Progress::Done(Box::new(Finished {
            observables: Arc::clone(&given.observables),
            enrichment: std::mem::take(&mut given.enrichment),
            verdict: self.verdict.take().unwrap_or(Verdict { label: Label::Unknown, score: 0, reasons: Vec::new() }),
            steps,
            calls: self.calls.take().unwrap_or_default(),
            failure,
        }))
    }
}

/// Does what can be done at once here, and the rest in a task of its own. Most calls are done at once. Those that compute for longer would
/// take each other's time where they share a task, and so a thread, while the clock of each runs and other threads have nothing to do.
async fn on_its_own<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> T {
    let mut call = Box::pin(Masks::current().during(call));
    if let Poll::Ready(result) = poll!(&mut call) {
        return result;
    }
    match AbortOnDropHandle::new(tokio::spawn(call)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// How long to wait after this many calls: exponential, with jitter so that alerts that failed together do not come back
/// together; at least what the plugin asked for, at most [`LONGEST_WAIT`].
fn backoff(calls: u32, after: Option<Duration>) -> Duration {
    let full = FIRST_WAIT.saturating_mul(1 << calls.saturating_sub(1).min(16));
    let jittered = full.mul_f64(0.5 + fastrand::f64() / 2.0);
    jittered.max(after.unwrap_or_default()).min(LONGEST_WAIT)
}

/// What a step did; none when it was not reached.
fn trace(facts: &Arc<KnownStep>, state: &mut State) -> Option<StepTrace> {
    let (outcome, detail) = match state.end.take()? {
        End::Answered => ("ok", None),
        End::NotApplicable(why) => ("not-applicable", Some(why)),
        End::Absent => ("absent", None),
        End::Failed(reason, detail) => (reason.as_str(), Some(detail)),
    };
    Some(StepTrace {
        facts: Arc::clone(facts),
        outcome,
        detail,
        attempts: state.calls,
        cached: state.cost.cached,
        tables: std::mem::take(&mut state.cost.tables),
        fuel: state.cost.fuel,
        memory: state.cost.memory,
        duration_us: micros(state.cost.duration),
    })
}

fn failed_step(step: &LoadedStep, state: &State) -> FailedStep {
    let enricher = step.enricher.as_deref();
    FailedStep {
        step: step.config.name.clone(),
        plugin: step.config.plugin.clone(),
        version: enricher.map_or("", |enricher| enricher.version()).to_owned(),
        sha256: enricher.map_or("", |enricher| enricher.sha256()).to_owned(),
        calls: state.calls,
        fuel: state.cost.fuel,
        duration_us: micros(state.cost.duration),
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
