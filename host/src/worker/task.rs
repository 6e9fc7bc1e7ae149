//! The tasks of alerts: decode them, run their steps, wait for retries, and hand over what they came to.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard, mpsc};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::committer::{Settling, Story};
use super::{Room, Shared};
use crate::alert::{Alert, DecodeError};
use crate::dead_letter::{DeadLetter, FailedStep, Reason};
use crate::pipeline::Pipeline;
use crate::pipeline::run::{Finished, Progress, Run, micros};
use crate::queue::{Body, Delivery, Outcome, Settled};
use crate::record::{Provenance, Record};
use crate::tables::Snapshot;
use crate::telemetry::events::QueueTrouble;

/// How long to wait before the queue is asked again to take a note back.
const ACQUIT_PAUSE: Duration = Duration::from_millis(200);

/// What alerts that were read together have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub shared: Arc<Shared>,
    /// What they go through, whatever is reloaded meanwhile.
    pub pipeline: Arc<Pipeline>,
    /// What their plugins look into, the same.
    pub tables: Arc<Snapshot>,
    /// To the committer.
    pub done: mpsc::Sender<Settling>,
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
    let Common { shared, pipeline, tables, done } = common;
    let started = Instant::now();
    let received = Timestamp::now();
    let (outcome, story) = match &delivery.body {
        Body::Refused { reason, detail } => dead(&delivery, received, started, None, (*reason, detail.clone(), None)),
        Body::Alert(bytes) => {
            let bytes = bytes.clone();
            let begun = (bytes, received, started);
            let enriched = enrich(shared, pipeline.clone(), tables.clone(), &delivery, begun, first_turn);
            let enriched = AssertUnwindSafe(enriched);
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
    let settling = Settling { settled: Settled { delivery, outcome }, story, room };
    // The committer is gone only when the host gives up; the alert stays pending then.
    let _ = done.send(settling).await;
}

/// Decodes and runs an alert; none when the host stops first. Everything that an alert could crash the host with happens in
/// its turns: a suspect's turn is its own, and noted.
async fn enrich(
    shared: &Arc<Shared>,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    delivery: &Delivery,
    (bytes, received, started): (Bytes, Timestamp, Instant),
    mut first_turn: Option<DropGuard>,
) -> Option<(Outcome, Story)> {
    let first = Turn::begin(shared, delivery).await?;
    failpoint!("alert-runs", &bytes);
    let alert = match shared.decoder.decode(bytes, received) {
        Ok(alert) => Arc::new(alert),
        Err(error) => {
            first.end(shared, delivery).await;
            let reason = match error {
                DecodeError::Malformed(_) => Reason::Malformed,
                DecodeError::NotAnObject(_) => Reason::NotAnObject,
            };
            return Some(dead(delivery, received, started, None, (reason, error.to_string(), None)));
        }
    };
    let mut run = Run::new(pipeline, tables, alert.clone(), shared.telemetry.clone());
    let mut turn = first;
    loop {
        match turn.work(shared, delivery, run.advance()).await {
            Progress::Done(finished) => {
                let end = end(shared, delivery, &alert, *finished, started);
                turn.end(shared, delivery).await;
                return Some(end);
            }
            Progress::Wait(until) => {
                turn.end(shared, delivery).await;
                first_turn.take();
                shared.stop.run_until_cancelled(tokio::time::sleep_until(until)).await?;
                turn = Turn::begin(shared, delivery).await?;
            }
        }
    }
}

/// The time in which an alert is worked on, and not only waits.
enum Turn<'a> {
    /// With others.
    Shared { _guard: RwLockReadGuard<'a, ()> },
    /// Alone, and noted: a host that dies now was crashed by this alert.
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

impl<'a> Turn<'a> {
    /// Waits for a turn; none when a suspect must not run and goes back: the host stops, or the queue refuses the note.
    async fn begin(shared: &'a Shared, delivery: &Delivery) -> Option<Self> {
        if !delivery.suspect {
            return Some(Self::Shared { _guard: shared.alone.read().await });
        }
        // A host that stops may be killed at any moment, which the note would lay to the suspect's charge.
        let guard = shared.stop.run_until_cancelled(shared.alone.write()).await?;
        match shared.queue.accuse(delivery).await {
            Ok(()) => Some(Self::Alone { _guard: guard }),
            Err(error) => {
                let error = error.to_string();
                shared.telemetry.emit(&QueueTrouble { operation: "accuse", error: &error });
                None
            }
        }
    }

    /// Works in it. When the host is told to stop meanwhile, a suspect's note is taken back at once: whoever told it may kill it when
    /// that takes too long, and then the suspect must not look guilty.
    async fn work<T>(&self, shared: &Shared, delivery: &Delivery, work: impl Future<Output = T>) -> T {
        if matches!(self, Self::Shared { .. }) {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = shared.stop.cancelled() => {}
        }
        tokio::join!(work, Self::acquit(shared, delivery)).0
    }

    /// Ends it, for others only when the note is gone: the suspect did not crash the host.
    async fn end(self, shared: &Shared, delivery: &Delivery) {
        if matches!(self, Self::Alone { .. }) {
            Self::acquit(shared, delivery).await;
        }
    }

    /// Takes the note back. A queue that refuses is asked again, for as long as the host goes on, because a note that stands counts
    /// as a crash. (A commit takes it back as well, and so does the queue when it is closed.)
    async fn acquit(shared: &Shared, delivery: &Delivery) {
        while let Err(error) = shared.queue.acquit(delivery).await {
            let error = error.to_string();
            shared.telemetry.emit(&QueueTrouble { operation: "acquit", error: &error });
            if shared.stop.run_until_cancelled(tokio::time::sleep(ACQUIT_PAUSE)).await.is_none() {
                return;
            }
        }
    }
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
        attempts: delivery.attempts.saturating_add(1),
        history: [],
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
    };
    let letter = DeadLetter {
        schema: crate::dead_letter::SCHEMA,
        id: id.map(str::to_owned),
        reason,
        detail,
        step,
        attempts: delivery.attempts.saturating_add(1),
        deliveries: delivery.deliveries,
        first_seen: delivery.first_seen.unwrap_or(received),
        failed_at: Timestamp::now(),
        host: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (Outcome::Dead(letter), story)
}
