//! The model as a queue that a worker can work on. A host on it can die at any instant; and the queue can refuse, before it did what
//! it was asked or, as when a reply is lost, after.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dossier::dead_letter::Reason;
use dossier::dead_letter::history::History;
use dossier::queue::{
    Again, Body, Committed, Dead, Delivery, Depth, Outcome, Place, Queue, QueueError, Resent, Settled, Walk,
};
use tokio::sync::Notify;

use super::state::{HostId, Letter, Model};

/// How long a host that finds nothing waits for something.
const WAIT: Duration = Duration::from_millis(100);

/// How the queue refuses a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was done.
    Before,
    /// It was done, and nobody was told.
    After,
    /// The host's own code panics.
    Panic,
}

/// What hosts share.
pub struct SharedModel {
    state: Mutex<State>,
    arrived: Notify,
}

/// The queue, and what it is to do wrong.
pub struct State {
    /// The queue itself.
    pub model: Model,
    /// Why each dead letter is dead.
    pub reasons: BTreeMap<String, Reason>,
    /// How the next commits go.
    pub refusals: VecDeque<Option<Refusal>>,
    alive: Option<HostId>,
    entries: u64,
}

/// What one host sees of it.
pub struct ModelQueue {
    shared: Arc<SharedModel>,
    host: HostId,
}

struct Receipt {
    shared: Arc<SharedModel>,
    host: HostId,
    entry: String,
    end: OnceLock<Committed>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.shared.lock().model.drop(self.host, &self.entry);
        self.shared.arrived.notify_waiters();
    }
}

impl SharedModel {
    /// A queue that does as the model says.
    pub fn new(model: Model, refusals: VecDeque<Option<Refusal>>) -> Arc<Self> {
        let state = State { model, reasons: BTreeMap::new(), refusals, alive: None, entries: 0 };
        Arc::new(Self { state: Mutex::new(state), arrived: Notify::new() })
    }

    /// Everything.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics while it holds this has failed all the same.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A host begins; the one before it is over.
    pub fn begin(self: &Arc<Self>, host: HostId) -> ModelQueue {
        self.lock().alive = Some(host);
        ModelQueue { shared: Arc::clone(self), host }
    }

    /// The host dies, now: nothing that it still does has any effect.
    pub fn crash(&self) {
        let mut state = self.lock();
        if let Some(host) = state.alive.take() {
            state.model.crash(host);
        }
    }
}

impl ModelQueue {
    /// Does something, if this host lives; a dead one never comes back from a call.
    async fn alive<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let done = {
            let mut state = self.shared.lock();
            (state.alive == Some(self.host)).then(|| work(&mut state))
        };
        match done {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    fn take(&self, state: &mut State, max: usize) -> Vec<Delivery> {
        let (suspects, others) = state.model.free();
        let entries = if suspects.is_empty() { others } else { suspects };
        entries.into_iter().take(max).map(|entry| self.delivery(state, entry)).collect()
    }

    fn delivery(&self, state: &mut State, entry: String) -> Delivery {
        let (bytes, told) = state.model.take(self.host, &entry);
        let body = match told.convicted {
            true => Body::Refused { reason: Reason::HostCrash, detail: "it killed hosts".into() },
            false => Body::Alert(bytes),
        };
        let receipt =
            Receipt { shared: Arc::clone(&self.shared), host: self.host, entry: entry.clone(), end: OnceLock::new() };
        Delivery {
            traceparent: None,
            body,
            entry,
            deliveries: told.deliveries,
            attempts: told.attempts,
            history: History::default(),
            replaces: None,
            first_seen: None,
            waited: Duration::ZERO,
            suspect: told.suspect,
            receipt: Box::new(receipt),
        }
    }

    fn commit_one(&self, state: &mut State, settled: &Settled) -> Committed {
        let entry = &settled.delivery.entry;
        let receipt: &Receipt = settled.delivery.receipt.downcast_ref().expect("a receipt of this queue");
        if let Some(done) = receipt.end.get() {
            return done.clone();
        }
        let bytes = state.model.bytes(entry).expect("what was delivered is there until it is committed");
        let (store, refused) =
            (matches!(settled.outcome, Outcome::Store(_)), matches!(settled.delivery.body, Body::Refused { .. }));
        let done = state.model.may_answer(self.host, entry, &bytes, store, refused).remove(0);
        state.model.committed(self.host, entry, &bytes, &done, false);
        if let Outcome::Dead(letter) = &settled.outcome {
            let key = format!("{}", state.model.dead.len());
            state.reasons.insert(key.clone(), letter.reason);
            state.model.dead.insert(key, Letter { bytes, attempts: letter.attempts });
        }
        receipt.end.set(done.clone()).expect("asked before");
        done
    }
}

#[async_trait]
impl Queue for ModelQueue {
    async fn send(&self, alerts: &[Bytes]) -> Result<(), QueueError> {
        self.alive(|state| {
            for bytes in alerts {
                state.entries += 1;
                let entry = format!("{:08}", state.entries);
                state.model.add(&entry, bytes.clone(), 0);
            }
        })
        .await;
        Ok(())
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let arrived = self.shared.arrived.notified();
        let taken = self.alive(|state| self.take(state, max)).await;
        if !taken.is_empty() {
            return Ok(taken);
        }
        let _ = tokio::time::timeout(WAIT, arrived).await;
        Ok(self.alive(|state| self.take(state, max)).await)
    }

    async fn accuse(&self, suspect: &Delivery) -> Result<(), QueueError> {
        self.alive(|state| state.model.accuse(self.host, &suspect.entry)).await;
        Ok(())
    }

    async fn commit(&self, settled: &[Settled]) -> Result<Vec<Committed>, QueueError> {
        self.alive(|state| {
            let refusal = state.refusals.pop_front().flatten();
            if refusal == Some(Refusal::Before) {
                return Err(QueueError::Unavailable("as the test wants, before".into()));
            }
            if refusal == Some(Refusal::Panic) {
                std::panic::resume_unwind(Box::new("as the test wants"));
            }
            let done = settled.iter().map(|one| self.commit_one(state, one)).collect();
            match refusal {
                None => Ok(done),
                Some(_) => Err(QueueError::Unavailable("as the test wants, after".into())),
            }
        })
        .await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        Ok(self
            .alive(|state| {
                let (suspects, others) = state.model.free();
                let waiting = suspects.len() + others.len();
                Depth {
                    waiting: waiting as u64,
                    in_flight: (state.model.backlog().len() - waiting) as u64,
                    stored: state.model.store.len() as u64,
                    dead: state.model.dead.len() as u64,
                    oldest: None,
                }
            })
            .await)
    }

    async fn dead(&self, _: Option<&str>, _: usize) -> Result<Vec<Dead>, QueueError> {
        Err(QueueError::Broken("a worker does not look at dead letters".into()))
    }

    async fn dead_body(&self, key: &str) -> Result<Option<Bytes>, QueueError> {
        Ok(self.alive(|state| state.model.dead.get(key).map(|letter| letter.bytes.clone())).await)
    }

    async fn replay(&self, _: &str) -> Result<bool, QueueError> {
        Err(QueueError::Broken("a worker does not replay".into()))
    }

    async fn reenrich(&self, _: &Again) -> Result<Resent, QueueError> {
        Err(QueueError::Broken("a worker does not send alerts again".into()))
    }

    async fn discard(&self, _: &str) -> Result<bool, QueueError> {
        Err(QueueError::Broken("a worker does not discard".into()))
    }

    async fn record(&self, _: &str) -> Result<Option<Bytes>, QueueError> {
        Err(QueueError::Broken("a worker does not read the store".into()))
    }

    fn walk(&self, _: Place) -> Box<dyn Walk + '_> {
        unreachable!("a worker walks through nothing")
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.alive(|state| {
            state.model.close(self.host);
            state.alive = None;
        })
        .await;
        Ok(())
    }
}
