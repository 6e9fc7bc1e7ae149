//! A queue in memory, for the tests of what the command line does with a queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::dead_letter::history::History;
use crate::dead_letter::{DeadLetter, FailedStep, Reason, SCHEMA};
use crate::queue::{Again, Committed, Dead, Delivery, Depth, Held, Place, Queue, QueueError, Resent, Settled, Walk};

/// The queue: what waits, and what is dead.
#[derive(Default)]
pub struct MemoryQueue {
    waiting: Mutex<Vec<Bytes>>,
    stored: Mutex<Vec<(String, Bytes)>>,
    dead: Mutex<Vec<(Dead, Bytes)>>,
    refuses: AtomicBool,
    /// Whether what is replayed fails again at once, under a new key.
    fails_again: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryQueue {
    /// One with three dead letters: two of the alert `a`, and one that is no alert.
    pub fn filled() -> Self {
        let queue = Self::default();
        queue.bury("1-0", Some("a"), Reason::Timeout, "geo", b"1");
        queue.bury("2-0", Some("a"), Reason::Trap, "asset", b"2");
        queue.bury("3-0", None, Reason::Malformed, "-", b"3");
        queue
    }

    /// What waits.
    pub fn waiting(&self) -> Vec<Bytes> {
        lock(&self.waiting).clone()
    }

    /// The keys of what is dead.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.dead).iter().map(|(dead, _)| dead.key.clone()).collect()
    }

    /// From now on it takes no alerts.
    pub fn refuse_to_send(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// From now on everything that is replayed fails again at once.
    pub fn fail_again(&self) {
        self.fails_again.store(true, Ordering::Relaxed);
    }

    /// Adds a dead letter.
    pub fn bury(&self, key: &str, id: Option<&str>, reason: Reason, step: &str, body: &[u8]) {
        let letter = DeadLetter {
            schema: SCHEMA,
            id: id.map(str::to_owned),
            entry: Some(format!("entry-of-{key}")),
            reason,
            detail: "it\u{1b}[2J failed".to_owned(),
            step: Some(FailedStep {
                step: step.to_owned(),
                plugin: step.to_owned(),
                version: "0.1.0".to_owned(),
                sha256: "ab".repeat(32),
                calls: 2,
                fuel: 1_234_567,
                duration_us: 250_000,
            }),
            attempts: 1,
            history: History::default(),
            deliveries: 1,
            first_seen: jiff::Timestamp::UNIX_EPOCH,
            failed_at: jiff::Timestamp::UNIX_EPOCH,
            host: "0.1.0".to_owned(),
        };
        let dead = Dead { key: key.to_owned(), letter, size: body.len() as u64 };
        lock(&self.dead).push((dead, Bytes::copy_from_slice(body)));
    }

    /// Stores an alert's record under an id.
    pub fn store(&self, id: &str, alert: &str) {
        let record = format!("{{\"schema\":1,\"id\":{},\"alert\":{alert}}}", serde_json::Value::from(id));
        lock(&self.stored).push((id.to_owned(), record.into()));
    }

    /// Adds a dead letter of a version of a plugin.
    pub fn bury_with(&self, key: &str, sha256: &str, body: &[u8]) {
        self.bury(key, None, Reason::Trap, "geo", body);
        if let Some(step) = lock(&self.dead).last_mut().and_then(|(dead, _)| dead.letter.step.as_mut()) {
            sha256.clone_into(&mut step.sha256);
        }
    }

    /// Adds a dead letter of so many attempts, with these details of failures before it.
    pub fn bury_again(&self, key: &str, attempts: u32, details: &[&str]) {
        self.bury(key, None, Reason::Trap, "geo", b"{}");
        if let Some((dead, _)) = lock(&self.dead).last_mut() {
            dead.letter.attempts = attempts;
            for detail in details {
                let earlier = DeadLetter { detail: (*detail).to_owned(), ..dead.letter.clone() };
                dead.letter.history = earlier.told();
            }
        }
    }

    fn take(&self, key: &str) -> Option<(Dead, Bytes)> {
        let mut letters = lock(&self.dead);
        let at = letters.iter().position(|(dead, _)| dead.key == key)?;
        Some(letters.remove(at))
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn send(&self, alerts: &[Bytes]) -> Result<(), QueueError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(QueueError::Unavailable("no room".to_owned()));
        }
        lock(&self.waiting).extend_from_slice(alerts);
        Ok(())
    }

    async fn receive(&self, _: usize) -> Result<Vec<Delivery>, QueueError> {
        Ok(Vec::new())
    }

    async fn accuse(&self, _: &Delivery) -> Result<(), QueueError> {
        Ok(())
    }

    async fn commit(&self, _: &[Settled]) -> Result<Vec<Committed>, QueueError> {
        Ok(Vec::new())
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        Ok(Depth { waiting: lock(&self.waiting).len() as u64, dead: lock(&self.dead).len() as u64, ..Depth::default() })
    }

    async fn dead(&self, after: Option<&str>, limit: usize) -> Result<Vec<Dead>, QueueError> {
        let letters = lock(&self.dead);
        let start = after.map_or(0, |after| letters.iter().take_while(|(dead, _)| dead.key.as_str() <= after).count());
        Ok(letters[start..].iter().take(limit).map(|(dead, _)| dead.clone()).collect())
    }

    async fn dead_body(&self, key: &str) -> Result<Option<Bytes>, QueueError> {
        Ok(lock(&self.dead).iter().find(|(dead, _)| dead.key == key).map(|(_, body)| body.clone()))
    }

    async fn replay(&self, key: &str) -> Result<bool, QueueError> {
        let Some((mut dead, body)) = self.take(key) else { return Ok(false) };
        if self.fails_again.load(Ordering::Relaxed) {
            dead.key = format!("9{key}");
            dead.letter.attempts += 1;
            lock(&self.dead).push((dead, body));
        } else {
            lock(&self.waiting).push(body);
        }
        Ok(true)
    }

    async fn reenrich(&self, again: &Again) -> Result<Resent, QueueError> {
        let stored = lock(&self.stored).iter().any(|(_, record)| Some(record) == again.held.bytes.as_ref());
        if !stored {
            return Ok(Resent::Gone);
        }
        let mut waiting = lock(&self.waiting);
        if waiting.contains(&again.alert) {
            return Ok(Resent::Waits);
        }
        waiting.push(again.alert.clone());
        Ok(Resent::Sent)
    }

    async fn discard(&self, key: &str) -> Result<bool, QueueError> {
        Ok(self.take(key).is_some())
    }

    async fn record(&self, _: &str) -> Result<Option<Bytes>, QueueError> {
        Ok(None)
    }

    fn walk(&self, place: Place) -> Box<dyn Walk + '_> {
        let held = |(key, bytes): (String, Bytes)| Held { key, bytes: Some(bytes) };
        let all = match place {
            Place::Queue => (1..).map(|n| n.to_string()).zip(self.waiting()).map(held).collect(),
            Place::Store => lock(&self.stored).iter().cloned().map(held).collect(),
            Place::Dead => lock(&self.dead).iter().map(|(dead, body)| held((dead.key.clone(), body.clone()))).collect(),
        };
        Box::new(AtOnce(all))
    }

    async fn close(&self) -> Result<(), QueueError> {
        Ok(())
    }
}

/// All of a place on one page.
struct AtOnce(Vec<Held>);

#[async_trait]
impl Walk for AtOnce {
    async fn next(&mut self) -> Result<Vec<Held>, QueueError> {
        Ok(std::mem::take(&mut self.0))
    }
}
