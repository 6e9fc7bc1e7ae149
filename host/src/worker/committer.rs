//! Commits what is done, many alerts at a time, and only then tells of it. The one place where an alert leaves the queue.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Room, Shared, Trouble};
use crate::dead_letter::Reason;
use crate::queue::{Committed, Outcome, Settled};
use crate::record::{Label, StepTrace};
use crate::telemetry::events::AlertFinished;

/// An alert that is done and not yet committed.
pub(super) struct Settling {
    pub settled: Settled,
    pub story: Story,
    /// The alert counts as in flight until it is committed.
    pub room: Room,
}

/// What the log tells of an alert.
pub(super) struct Story {
    pub id: Option<String>,
    pub verdict: Option<Label>,
    pub failure: Option<(Reason, String)>,
    /// The step that failed, if the alert is dead because of one.
    pub failed_step: Option<String>,
    pub steps: Vec<StepTrace>,
    pub started: Instant,
}

/// Where tasks hand over what is done: what is to be stored and what is to be buried go ways of their own.
#[derive(Clone)]
pub(super) struct Done {
    pub store: mpsc::Sender<Settling>,
    pub bury: mpsc::Sender<Settling>,
}

impl Done {
    /// Hands over. The committer is gone only when the host gives up; the alert stays pending then.
    pub(super) async fn send(&self, settling: Settling) {
        let way = match settling.settled.outcome {
            Outcome::Store(_) => &self.store,
            Outcome::Dead(_) => &self.bury,
        };
        let _ = way.send(settling).await;
    }
}

/// Commits whatever is done until all senders are gone. A queue that refuses is asked again until `abandon`; gives how many
/// alerts stayed pending then.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut trouble: Trouble,
    mut finished: mpsc::Receiver<Settling>,
    abandon: CancellationToken,
) -> usize {
    let batch = shared.config.queue.batch;
    let mut settling = Vec::with_capacity(batch);
    while finished.recv_many(&mut settling, batch).await > 0 {
        let mut stories = Vec::with_capacity(settling.len());
        let mut settled = Vec::with_capacity(settling.len());
        for Settling { settled: one, story, room } in settling.drain(..) {
            stories.push((story, room));
            settled.push(one);
        }
        failpoint!("commit-begins");
        let results = loop {
            match shared.queue.commit(&settled).await {
                Ok(results) => break results,
                Err(error) => trouble.pause(&error, &abandon).await,
            }
            if abandon.is_cancelled() {
                return settled.len() + finished.len();
            }
        };
        failpoint!("commit-ended");
        trouble.over();
        for ((settled, (story, room)), committed) in settled.iter().zip(stories).zip(&results) {
            tell(&shared, settled, &story, committed);
            drop(room);
        }
    }
    0
}

fn tell(shared: &Shared, settled: &Settled, story: &Story, committed: &Committed) {
    let (id, outcome) = match committed {
        Committed::Stored => (story.id.as_deref(), "stored"),
        Committed::Conflict(id) => (Some(id.as_str()), "conflict"),
        Committed::Duplicate => (story.id.as_deref(), "duplicate"),
        Committed::Dead => (story.id.as_deref(), "dead"),
        Committed::Lost => (story.id.as_deref(), "lost"),
    };
    shared.telemetry.emit(&AlertFinished {
        id,
        entry: &settled.delivery.entry,
        outcome,
        verdict: story.verdict,
        reason: story.failure.as_ref().map(|(reason, detail)| (*reason, detail.as_str())),
        step: story.failed_step.as_deref(),
        duration: story.started.elapsed(),
        deliveries: settled.delivery.deliveries,
        steps: &story.steps,
        record: match &settled.outcome {
            Outcome::Store(record) => Some(record),
            Outcome::Dead(_) => None,
        },
    });
}
