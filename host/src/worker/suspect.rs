//! A suspect's task. Whatever a host died of runs where it can take nothing else along ([`super::trial`]), alone, and before others. What
//! dies there while the host lives is counted against the alert; what dies with the host, or is ended by it, is not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::RwLockWriteGuard;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::DropGuard;

use super::Shared;
use super::committer::Story;
use super::trial::{Case, Isolation, Progress, TrialError};
use crate::pipeline::Pipeline;
use crate::queue::{Delivery, Outcome};
use crate::tables::Snapshot;
use crate::telemetry::Telemetry;
use crate::telemetry::alarms::Kind;
use crate::telemetry::events::{QueueTrouble, SuspectDied, SuspectsWait};

/// How long the host must outlive a suspect's process before that counts: whoever kills a host kills what belongs to it at the
/// same time (a container's end, a control group's), and then the alert has done nothing.
const AFTERMATH: Duration = Duration::from_secs(1);

/// How long to wait before the queue is asked again to note a crash.
const PAUSE: Duration = Duration::from_millis(200);

/// Where suspects run, and since when and why they cannot.
pub(super) struct Suspects {
    isolation: Arc<dyn Isolation>,
    waiting: Mutex<Option<(Instant, String)>>,
}

impl Suspects {
    pub(super) fn new(isolation: Arc<dyn Isolation>) -> Self {
        Self { isolation, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        // A panic elsewhere leaves a note behind that is as good as before.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why they have not been run for so long, if they have not.
    pub(super) fn wait_longer_than(&self, time: Duration) -> Option<String> {
        self.waiting().as_ref().filter(|(since, _)| since.elapsed() > time).map(|(_, why)| why.clone())
    }

    /// Notes that they can be run, or why not; each reason is told once.
    fn note(&self, telemetry: &Telemetry, why: Option<String>) {
        let mut waiting = self.waiting();
        let (since, before) = waiting.take().map_or((Instant::now(), None), |(since, before)| (since, Some(before)));
        if before == why {
            *waiting = why.map(|why| (since, why));
            return;
        }
        *waiting = why.clone().map(|why| (since, why));
        // Nobody waits for the lock while the log is waited for.
        drop(waiting);
        match why {
            Some(why) => telemetry.emit(&SuspectsWait { why: &why }),
            None => telemetry.clear(Kind::SuspectsWait, ""),
        }
    }
}

/// Takes a suspect to its end; none when the host stops, or when it goes back to the queue to be tried again. `first_turn` is dropped
/// when it has run for the first time.
pub(super) async fn run(
    shared: &Shared,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    delivery: &Delivery,
    (bytes, received, started): (Bytes, Timestamp, Instant),
    mut first_turn: Option<DropGuard>,
) -> Option<(Outcome, Story)> {
    let case = Case::new(bytes, received, delivery);
    let admitted = shared.suspects.isolation.admit(case, &pipeline, &tables);
    let mut trial = match shared.stop.run_until_cancelled(admitted).await? {
        Ok(trial) => trial,
        Err(why) => {
            shared.suspects.note(&shared.telemetry, Some(why));
            return None;
        }
    };
    shared.suspects.note(&shared.telemetry, None);
    let mut turn = alone(shared).await?;
    let mut waited = false;
    loop {
        match trial.advance().await {
            Ok(Progress::Done(ended)) => return Some(ended.at(started)),
            Ok(Progress::Wait(until)) => {
                drop(turn);
                first_turn.take();
                waited = true;
                shared.stop.run_until_cancelled(sleep_until(until)).await?;
                turn = alone(shared).await?;
            }
            // It waited in a process that another suspect killed meanwhile.
            Err(TrialError::Gone) if waited => return None,
            Err(TrialError::Gone) => {
                let why = "the process for them was gone before one could begin".to_owned();
                shared.suspects.note(&shared.telemetry, Some(why));
                return None;
            }
            Err(TrialError::Died(how)) => {
                drop(turn);
                first_turn.take();
                shared.telemetry.emit(&SuspectDied { entry: &delivery.entry, how: &how });
                failpoint!("suspect-died");
                shared.stop.run_until_cancelled(sleep(AFTERMATH)).await?;
                accuse(shared, delivery).await;
                return None;
            }
        }
    }
}

/// Waits until nothing else runs; none when the host stops first.
async fn alone(shared: &Shared) -> Option<RwLockWriteGuard<'_, ()>> {
    shared.stop.run_until_cancelled(shared.alone.write()).await
}

/// Has a crash noted. A queue that refuses is asked again, for as long as the host goes on.
async fn accuse(shared: &Shared, delivery: &Delivery) {
    while let Err(error) = shared.queue.accuse(delivery).await {
        let error = error.to_string();
        shared.telemetry.emit(&QueueTrouble { operation: "accuse", error: &error });
        if shared.stop.run_until_cancelled(sleep(PAUSE)).await.is_none() {
            return;
        }
    }
    shared.telemetry.clear(Kind::QueueTrouble, "accuse");
}
