//! One alert's task: decodes it, runs its steps, waits for retries, and hands over what it came to.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::committer::{Settling, Story};
use super::{DECODED_BYTES, Shared};
use crate::alert::{Alert, DecodeError};
use crate::dead_letter::{DeadLetter, FailedStep, Reason};
use crate::pipeline::Pipeline;
use crate::pipeline::run::{Finished, Progress, Run, micros};
use crate::queue::{Body, Delivery, Outcome, QueueError, Settled};
use crate::record::{Provenance, Record};
use crate::tables::Snapshot;

/// Takes one delivery to its end, or drops it when the host stops: it stays pending then.
pub(super) async fn run(
    shared: Arc<Shared>,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    mut delivery: Delivery,
    slot: OwnedSemaphorePermit,
    done: mpsc::Sender<Settling>,
) {
    let started = Instant::now();
    let received = Timestamp::now();
    let body = std::mem::replace(&mut delivery.body, Body::Alert(Bytes::new()));
    let (outcome, story) = match body {
        Body::Refused { reason, detail } => dead(&delivery, received, started, None, (reason, detail, None)),
        Body::Alert(bytes) => {
            let weight = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(DECODED_BYTES);
            // The semaphore is never closed; an alert without its share is dropped, which leaves it pending.
            let Ok(_share) = shared.decoded.acquire_many(weight).await else { return };
            let enriched = AssertUnwindSafe(enrich(&shared, pipeline, tables, &delivery, bytes, received, started));
            match enriched.catch_unwind().await {
                Ok(Some(end)) => end,
                Ok(None) => return,
                Err(panic) => {
                    let what = panic.downcast_ref::<&str>().copied().map(str::to_owned);
                    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                    let detail = format!("the host panicked on this alert: {what}; please report this");
                    dead(&delivery, received, started, None, (Reason::HostCrash, detail, None))
                }
            }
        }
    };
    let settling = Settling { settled: Settled { delivery, outcome }, story, slot };
    // The committer is gone only when the host gives up; the alert stays pending then.
    let _ = done.send(settling).await;
}

/// Decodes and runs an alert; none when the host stops first.
async fn enrich(
    shared: &Arc<Shared>,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    delivery: &Delivery,
    bytes: Bytes,
    received: Timestamp,
    started: Instant,
) -> Option<(Outcome, Story)> {
    let alert = match shared.decoder.decode(bytes, received) {
        Ok(alert) => Arc::new(alert),
        Err(error) => {
            let reason = match error {
                DecodeError::Malformed(_) => Reason::Malformed,
                DecodeError::NotAnObject(_) => Reason::NotAnObject,
            };
            return Some(dead(delivery, received, started, None, (reason, error.to_string(), None)));
        }
    };
    let mut run = Run::new(pipeline, tables, alert.clone(), shared.telemetry.clone());
    let mut suspect = delivery.suspect;
    loop {
        let progress = if suspect {
            let _alone = shared.alone.write().await;
            if let Err(error) = shared.queue.accuse(delivery).await {
                return give_back(shared, "accuse", &error);
            }
            let progress = run.advance().await;
            // It did not crash the host: whatever kills the host from here on, it was not this alert.
            if let Err(error) = shared.queue.acquit(delivery).await {
                return give_back(shared, "acquit", &error);
            }
            suspect = false;
            progress
        } else {
            let _together = shared.alone.read().await;
            run.advance().await
        };
        match progress {
            Progress::Done(finished) => return Some(end(shared, delivery, &alert, *finished, started)),
            Progress::Wait(until) => {
                shared.stop.run_until_cancelled(tokio::time::sleep_until(until)).await?;
            }
        }
    }
}

/// The queue refused a note about a suspect: without it the suspect must not run, so it goes back.
fn give_back(shared: &Shared, operation: &'static str, error: &QueueError) -> Option<(Outcome, Story)> {
    let event = crate::telemetry::events::QueueTrouble { operation, error: &error.to_string() };
    shared.telemetry.emit(&event);
    None
}

/// What becomes of an alert that went all its way.
fn end(shared: &Shared, delivery: &Delivery, alert: &Alert, finished: Finished, started: Instant) -> (Outcome, Story) {
    let mut finished = finished;
    if let Some((reason, detail, step)) = finished.failure.take() {
        let failure = (reason, detail, Some(step));
        let (outcome, mut story) = dead(delivery, alert.received, started, Some(&alert.id), failure);
        story.steps = finished.steps;
        return (outcome, story);
    }
    let provenance = Provenance {
        host: env!("CARGO_PKG_VERSION"),
        config_sha256: &shared.config.sha256,
        received: alert.received,
        finished: Timestamp::now(),
        duration_us: micros(started.elapsed()),
        deliveries: delivery.deliveries,
        attempts: delivery.attempts + 1,
        history: [],
        steps: &finished.steps,
    };
    match Record::new(alert, &finished.observables, &finished.enrichment, &finished.verdict, &provenance) {
        Ok(record) => {
            let story = Story {
                id: Some(alert.id.clone()),
                verdict: Some(finished.verdict.label),
                failure: None,
                failed_step: None,
                steps: finished.steps,
                started,
            };
            (Outcome::Store(record), story)
        }
        Err(error) => {
            let failure = (Reason::Malformed, format!("no record can be made of it: {error}"), None);
            dead(delivery, alert.received, started, Some(&alert.id), failure)
        }
    }
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
    };
    let letter = DeadLetter {
        schema: crate::dead_letter::SCHEMA,
        id: id.map(str::to_owned),
        reason,
        detail,
        step,
        attempts: delivery.attempts + 1,
        deliveries: delivery.deliveries,
        first_seen: delivery.first_seen.unwrap_or(received),
        failed_at: Timestamp::now(),
        host: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (Outcome::Dead(letter), story)
}
