//! Commits what is done, many alerts at a time, and only then tells of it, while the next are committed. The one place where an alert leaves
//! the queue.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Room, Shared, Trouble};
use crate::admin::Health;
use crate::dead_letter::Reason;
use crate::queue::{Committed, Outcome, Settled};
use crate::record::{Label, StepTrace};
use crate::telemetry::alarms::Kind;
use crate::telemetry::events::{AlertFinished, CommitRefused};
use crate::telemetry::redact::Masks;
use crate::telemetry::traces::{Called, Trail};

/// How long alerts wait that were refused alone, before they are tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// How long what is done waits for others that are worked on, at most: fewer and larger commits cost less, here and at the queue.
const LINGER: Duration = Duration::from_millis(1);

/// An alert that is done and not yet committed.
pub(super) struct Settling {
    pub settled: Settled,
    pub story: Story,
    /// The alert counts as in flight until it is committed.
    pub room: Room,
}

/// Alerts that are committed, to be told of.
struct Ended {
    alerts: Vec<(Settled, Story, Committed)>,
    /// When they were.
    at: Instant,
    /// What they hold: whoever cannot write the log stops reading, so that what is in flight finds room for its lines.
    _room: Option<Room>,
}

/// What the log tells of an alert.
#[derive(Debug)]
pub(super) struct Story {
    pub id: Option<String>,
    pub verdict: Option<Label>,
    pub failure: Option<(Reason, String)>,
    /// The step that failed, if the alert is dead because of one.
    pub failed_step: Option<String>,
    pub steps: Vec<StepTrace>,
    pub started: Instant,
    /// What must not be said of it.
    pub masks: Masks,
    /// The calls of its steps, where somebody wants traces.
    pub calls: Vec<Called>,
}

/// Commits whatever is done until all senders are gone. A queue that refuses is asked again until `abandon`, and nothing is read
/// meanwhile; an alert that alone is refused waits here, in flight, and is tried again with others. When it ends, for whatever reason, the
/// host stops: nothing would come of what it read.
pub(super) async fn run(
    shared: Arc<Shared>,
    health: Arc<Health>,
    mut finished: mpsc::Receiver<Settling>,
    abandon: CancellationToken,
) {
    let batch = shared.config.queue.batch;
    let mut trouble = Trouble::new("commit", shared.telemetry.clone(), health);
    let mut settling = Vec::with_capacity(batch);
    let mut refused = Refused { alerts: Vec::new(), again_at: Instant::now() };
    // Dropped before all that is held here: what is given back while the host goes on is read once more.
    let _stop = shared.stop.clone().drop_guard();
    let (ended, told) = mpsc::channel(1);
    let teller = tokio::spawn(tell_all(shared.clone(), told));
    let mut panicked = None;
    'commits: loop {
        tokio::select! {
            taken = finished.recv_many(&mut settling, batch) => {
                if taken == 0 {
                    break;
                }
                let linger = Instant::now() + LINGER;
                while settling.len() < batch && shared.working.load(Ordering::Relaxed) > 0 {
                    let room = batch - settling.len();
                    let more = finished.recv_many(&mut settling, room);
                    if !tokio::time::timeout_at(linger, more).await.is_ok_and(|taken| taken > 0) {
                        break;
                    }
                }
            }
            () = tokio::time::sleep_until(refused.again_at), if !refused.alerts.is_empty() => {}
        }
        let again = refused.due();
        shared.refused.store(refused.alerts.len(), Ordering::Relaxed);
        let before = again.len();
        let all = again.into_iter().chain(settling.drain(..));
        let (settled, stories): (Vec<_>, Vec<_>) =
            all.map(|Settling { settled, story, room }| (settled, (story, room))).unzip();
        failpoint!("commit-begins");
        let results = loop {
            match AssertUnwindSafe(shared.queue.commit(&settled)).catch_unwind().await {
                Ok(Ok(results)) => break results,
                Ok(Err(error)) => {
                    shared.commits.send_replace(false);
                    trouble.pause(&error, &abandon).await;
                }
                Err(panic) => {
                    panicked = Some(panic);
                    // Before this batch is given back, as above.
                    shared.stop.cancel();
                    break 'commits;
                }
            }
            if abandon.is_cancelled() {
                break 'commits;
            }
        };
        failpoint!("commit-ended");
        let at = Instant::now();
        trouble.over();
        // Only a change wakes the reader.
        shared.commits.send_if_modified(|work| !std::mem::replace(work, true));
        let mut alerts = Vec::with_capacity(settled.len());
        let mut rooms: Option<Room> = None;
        for (place, ((settled, (story, room)), committed)) in settled.into_iter().zip(stories).zip(results).enumerate()
        {
            let Committed::Refused(error) = committed else {
                alerts.push((settled, story, committed));
                match &mut rooms {
                    Some(rooms) => rooms.add(room.ended()),
                    None => rooms = Some(room.ended()),
                }
                continue;
            };
            if place >= before {
                let (id, entry) = (story.id.as_deref(), settled.delivery.entry.as_str());
                story.masks.within(|| shared.telemetry.emit(&CommitRefused { id, entry, error: &error }));
            }
            let masks = story.masks.clone();
            refused.add(Settling { settled, story, room });
            let count = refused.alerts.len();
            let detail = format!("{count} cannot be committed and stay pending; the last: {}", masks.mask(&error));
            shared.telemetry.raise(Kind::CommitRefused, "", &detail);
        }
        shared.finished.fetch_add(alerts.len() as u64, Ordering::Relaxed);
        if ended.send(Ended { alerts, at, _room: rooms }).await.is_err() {
            break;
        }
        shared.refused.store(refused.alerts.len(), Ordering::Relaxed);
        if refused.alerts.is_empty() {
            shared.telemetry.clear(Kind::CommitRefused, "");
        }
    }
    drop(ended);
    let told = teller.await;
    // Whatever made it end ends the committer as well.
    if let Some(panic) = panicked.or_else(|| told.err()?.try_into_panic().ok()) {
        std::panic::resume_unwind(panic);
    }
}

/// Tells of what is committed, until nothing more is.
async fn tell_all(shared: Arc<Shared>, mut ended: mpsc::Receiver<Ended>) {
    while let Some(Ended { alerts, at, _room }) = ended.recv().await {
        shared.telemetry.together(|| {
            for (settled, story, committed) in &alerts {
                story.masks.within(|| tell(&shared, settled, story, (committed, at)));
            }
        });
    }
}

/// Alerts that cannot be committed while others can.
struct Refused {
    alerts: Vec<Settling>,
    again_at: Instant,
}

impl Refused {
    /// Takes them out when it is time to try them again.
    fn due(&mut self) -> Vec<Settling> {
        if self.alerts.is_empty() || Instant::now() < self.again_at {
            return Vec::new();
        }
        std::mem::take(&mut self.alerts)
    }

    /// Keeps one.
    fn add(&mut self, alert: Settling) {
        // The first one counts: others that keep coming must not put it off for ever.
        if self.alerts.is_empty() {
            self.again_at = Instant::now() + REFUSED_PAUSE;
        }
        self.alerts.push(alert);
    }
}

fn tell(shared: &Shared, settled: &Settled, story: &Story, (committed, at): (&Committed, Instant)) {
    let (id, outcome) = match committed {
        Committed::Stored => (story.id.as_deref(), "stored"),
        Committed::Conflict(id) => (Some(id.as_str()), "conflict"),
        Committed::Duplicate => (story.id.as_deref(), "duplicate"),
        // Stored under the id of the record that was, which is not the alert's own where another alert has that.
        Committed::Replaced => {
            let replaces = settled.delivery.replaces.as_ref().map(|replaces| replaces.id.as_str());
            (replaces.or(story.id.as_deref()), "replaced")
        }
        Committed::Kept => (story.id.as_deref(), "kept"),
        Committed::Dead => (story.id.as_deref(), "dead"),
        Committed::Lost => (story.id.as_deref(), "lost"),
        // It is not at its end: it is told of as `CommitRefused`.
        Committed::Refused(_) => return,
    };
    let event = AlertFinished {
        id,
        entry: &settled.delivery.entry,
        outcome,
        verdict: story.verdict,
        reason: story.failure.as_ref().map(|(reason, detail)| (*reason, detail.as_str())),
        step: story.failed_step.as_deref(),
        duration: at.saturating_duration_since(story.started),
        deliveries: settled.delivery.deliveries,
        steps: &story.steps,
        record: match &settled.outcome {
            Outcome::Store(record) => Some(record),
            Outcome::Dead(_) => None,
        },
    };
    let traceparent = settled.delivery.traceparent.as_deref();
    shared.telemetry.finished(&event, &Trail { traceparent, calls: &story.calls, masks: story.masks.clone() });
}
