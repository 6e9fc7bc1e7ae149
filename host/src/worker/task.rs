//! The tasks of alerts: decode them, run their steps, wait for retries, and hand over what they came to.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::committer::{Settling, Story};
use super::{Room, Shared, suspect};
use crate::alert::{Alert, DecodeError, Decoder};
use crate::config::Config;
use crate::dead_letter::{DeadLetter, FailedStep, Reason, history};
use crate::pipeline::Pipeline;
use crate::pipeline::run::{Finished, Progress, Run, micros};
use crate::pipeline::setup::Setup;
use crate::queue::{Body, Delivery, Outcome, Settled};
use crate::record::{Provenance, Record};
use crate::tables::Snapshot;
use crate::telemetry::redact::Masks;

/// What alerts that were read together have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub shared: Arc<Shared>,
    /// What they go through, whatever is reloaded meanwhile.
    pub pipeline: Arc<Pipeline>,
    /// The configuration that belongs to it.
    pub setup: Arc<Setup>,
    /// What their plugins look into, the same.
    pub tables: Arc<Snapshot>,
    /// To the committer.
    pub done: mpsc::Sender<Settling>,
}

/// Counts an alert as worked on, not while it waits for a time to come.
struct Working<'a>(&'a AtomicUsize);

impl<'a> Working<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a few deliveries to their ends. One that has to wait holds up no other: most never wait, and go on in their order; the others
/// go on whenever they can.
pub(super) async fn run_all(common: Common, deliveries: Vec<(Delivery, Room)>) {
    let mut waiting = FuturesUnordered::new();
    for (delivery, room) in deliveries {
        let mut alert = Box::pin(run(&common, delivery, room, None));
        if futures_util::poll!(&mut alert).is_pending() {
            waiting.push(alert);
        }
    }
    while waiting.next().await.is_some() {}
}

/// Takes a suspect to its end. `first_turn` is dropped when it was worked on for the first time, whatever came of it.
pub(super) async fn run_alone(common: Common, suspect: Delivery, room: Room, first_turn: DropGuard) {
    run(&common, suspect, room, Some(first_turn)).await;
}

/// Takes one delivery to its end, or drops it when the host stops: it stays pending then.
async fn run(common: &Common, delivery: Delivery, room: Room, first_turn: Option<DropGuard>) {
    let Common { shared, pipeline, setup, tables, done } = common;
    let started = Instant::now();
    let received = Timestamp::now();
    let masks = std::panic::catch_unwind(AssertUnwindSafe(|| match &delivery.body {
        Body::Alert(bytes) => shared.redactor.find_in(bytes),
        Body::Refused { .. } => Masks::default(),
    }));
    let (outcome, mut story) = match (&delivery.body, &masks) {
        // Without the panic's own words: nobody knows what of them must not be said.
        (_, Err(_)) => panicked(&delivery, received, started, &"what is to be masked of it cannot be found"),
        (Body::Refused { reason, detail }, Ok(_)) => {
            dead(&delivery, received, started, None, (*reason, detail.clone(), None))
        }
        (Body::Alert(bytes), Ok(masks)) => {
            let begun = (bytes.clone(), received, started);
            let (pipeline, tables) = (pipeline.clone(), tables.clone());
            let enriched = async {
                match delivery.suspect {
                    true => suspect::run(shared, pipeline, tables, &delivery, begun, first_turn).await,
                    false => enrich(shared, setup, pipeline, tables, &delivery, begun).await,
                }
            };
            match AssertUnwindSafe(masks.clone().during(enriched)).catch_unwind().await {
                Ok(Some(end)) => end,
                Ok(None) => return,
                Err(panic) => panicked(&delivery, received, started, &*panic),
            }
        }
    };
    story.masks = masks.unwrap_or_default();
    let settling = Settling { settled: Settled { delivery, outcome }, story, room };
    // The committer is gone only when the host gives up; the alert stays pending then.
    let _ = done.send(settling).await;
}

/// Decodes and runs an alert, with others at the same time; none when the host stops first.
async fn enrich(
    shared: &Arc<Shared>,
    setup: &Setup,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    delivery: &Delivery,
    (bytes, received, started): (Bytes, Timestamp, Instant),
) -> Option<(Outcome, Story)> {
    let mut turn = shared.alone.read().await;
    let mut working = Working::begin(&shared.working);
    failpoint!("alert-runs", &bytes);
    let alert = match decode(&setup.decoder, delivery, (bytes, received, started)) {
        Ok(alert) => alert,
        Err(end) => return Some(*end),
    };
    // What somebody sends a second time says nothing of its source.
    if delivery.replaces.is_none() && delivery.attempts == 0 {
        shared.sources.heard(&alert.value);
    }
    let mut run = Run::new(pipeline, tables, alert.clone(), shared.telemetry.clone());
    loop {
        match run.advance().await {
            Progress::Done(finished) => return Some(end(&setup.config, delivery, &alert, *finished, started)),
            Progress::Wait(until) => {
                drop((turn, working));
                shared.stop.run_until_cancelled(tokio::time::sleep_until(until)).await?;
                turn = shared.alone.read().await;
                working = Working::begin(&shared.working);
            }
        }
    }
}

/// Decodes an alert; what cannot be decoded is at its end.
pub(super) fn decode(
    decoder: &Decoder,
    delivery: &Delivery,
    (bytes, received, started): (Bytes, Timestamp, Instant),
) -> Result<Arc<Alert>, Box<(Outcome, Story)>> {
    decoder.decode(bytes, received).map(Arc::new).map_err(|error| {
        let reason = match error {
            DecodeError::Malformed(_) => Reason::Malformed,
            DecodeError::NotAnObject(_) => Reason::NotAnObject,
        };
        Box::new(dead(delivery, received, started, None, (reason, error.to_string(), None)))
    })
}

/// What becomes of an alert that the host's own code panicked on.
pub(super) fn panicked(
    delivery: &Delivery,
    received: Timestamp,
    started: Instant,
    panic: &(dyn std::any::Any + Send),
) -> (Outcome, Story) {
    let what = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    let detail = format!("the host panicked on this alert: {what}; please report this");
    dead(delivery, received, started, None, (Reason::HostCrash, detail, None))
}

/// What becomes of an alert that went all its way.
pub(super) fn end(
    config: &Config,
    delivery: &Delivery,
    alert: &Alert,
    finished: Finished,
    started: Instant,
) -> (Outcome, Story) {
    let mut finished = finished;
    if let Some((reason, detail, step)) = finished.failure.take() {
        let failure = (reason, detail, Some(step));
        let (outcome, mut story) = dead(delivery, alert.received, started, Some(&alert.id), failure);
        (story.steps, story.calls) = (finished.steps, finished.calls);
        return (outcome, story);
    }
    let attempts = delivery.attempts.saturating_add(1);
    let provenance = Provenance {
        host: env!("CARGO_PKG_VERSION"),
        config_sha256: &config.sha256,
        received: alert.received,
        finished: Timestamp::now(),
        duration_us: micros(started.elapsed()),
        deliveries: delivery.deliveries,
        attempts,
        history: &delivery.history,
        history_cut: history::left_out(attempts, &delivery.history),
        steps: &finished.steps,
    };
    let record = Record::new(alert, &finished.observables, &finished.enrichment, &finished.verdict, &provenance);
    let story = Story {
        id: Some(alert.id.clone()),
        verdict: Some(finished.verdict.label),
        failure: None,
        failed_step: None,
        steps: finished.steps,
        started,
        masks: Masks::default(),
        calls: finished.calls,
    };
    (Outcome::Store(record), story)
}

fn dead(
    delivery: &Delivery,
    received: Timestamp,
    started: Instant,
    id: Option<&str>,
    (reason, detail, step): (Reason, String, Option<FailedStep>),
) -> (Outcome, Story) {
    let story = Story {
        id: id.map(str::to_owned),
        verdict: None,
        failure: Some((reason, detail.clone())),
        failed_step: step.as_ref().map(|step| step.step.clone()),
        steps: Vec::new(),
        started,
        masks: Masks::default(),
        calls: Vec::new(),
    };
    let letter = DeadLetter {
        schema: crate::dead_letter::SCHEMA,
        id: id.map(str::to_owned),
        entry: Some(delivery.entry.clone()),
        reason,
        detail,
        step,
        attempts: delivery.attempts.saturating_add(1),
        history: delivery.history.clone(),
        deliveries: delivery.deliveries,
        first_seen: delivery.first_seen.unwrap_or(received),
        failed_at: Timestamp::now(),
        host: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (Outcome::Dead(letter), story)
}
