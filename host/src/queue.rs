//! Where alerts wait, are stored, and go when they fail: one small trait, two kinds.
//!
//! A queue owns the promise that an alert is at every instant in the queue, in the store or in the dead letters. It knows
//! nothing of plugins or pipelines. Inside `queue/`, only `redis.rs` names Redis.

pub mod directory;
pub mod redis;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::checkup::{Gravity, NEVER_SAVED, Observation};
use crate::config::{Finding, QueueConfig, QueueKind};
use crate::dead_letter::history::History;
use crate::dead_letter::{DeadLetter, Reason};
use crate::plugin::http::SharedAnswers;
use crate::record::Record;
use crate::telemetry::Telemetry;

/// Why a queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It is not there now (no connection, loading, out of memory, disk full). Nothing was lost; the same call later may
    /// succeed.
    #[error("{0}")]
    Unavailable(String),
    /// It will not work before somebody mends something (a key of a wrong type, no permission). Nothing was lost.
    #[error("{0}")]
    Broken(String),
}

/// What the queue hands out: one alert, or what should have been one.
///
/// **Dropping a delivery leaves the alert pending**: only [`Queue::commit`] lets go of it.
#[must_use = "an alert that is dropped stays pending"]
#[derive(Debug)]
pub struct Delivery {
    /// What was read.
    pub body: Body,
    /// Where it is in the queue, for log lines: an entry id, or a file's name.
    pub entry: String,
    /// How often it was delivered since it was sent or replayed; 1 at first.
    pub deliveries: u32,
    /// How often it was processed to its end before it was replayed; 0 at first.
    pub attempts: u32,
    /// What became of it then. Where producers write beside an alert, they can write this as well.
    pub history: History,
    /// The context of the producer's trace (<https://www.w3.org/TR/trace-context/#traceparent-header>), as it wrote it.
    pub traceparent: Option<String>,
    /// The record that it is to take the place of, if it was sent to be enriched anew. Where producers write, they can write this as
    /// well; the queue looks whether it is so.
    pub replaces: Option<Replaces>,
    /// When a host first saw it, if one did before.
    pub first_seen: Option<Timestamp>,
    /// How long it waited; zero where the clocks make no sense.
    pub waited: Duration,
    /// Whether a host died with this alert in flight: it must run alone.
    pub suspect: bool,
    /// What only the queue understands: locks and leases, released when the delivery is dropped.
    pub receipt: Box<dyn Any + Send + Sync>,
}

/// A record that another is to take the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    /// What tells this record from a later one of the same alert: its entry in the store, or the SHA-256 of its file.
    pub record: String,
    /// The id that it is stored under.
    pub id: String,
}

/// A stored alert that is to be enriched anew.
#[derive(Debug, Clone)]
pub struct Again {
    /// The record as it was found: [`Held::key`] and its bytes.
    pub held: Held,
    /// The id that it is stored under.
    pub id: String,
    /// The alert in it.
    pub alert: Bytes,
    /// How often the alert was processed to its end.
    pub attempts: u32,
    /// When a host received it.
    pub first_seen: Timestamp,
    /// What became of it until now, with the record that is to be replaced.
    pub history: History,
}

/// What became of an alert that was to be enriched anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resent {
    /// It waits in the queue.
    Sent,
    /// It is on its way already.
    Waits,
    /// Its record is not that one any more.
    Gone,
    /// What leads from its id to its record is not what it should be: it alone cannot be sent before somebody mends that.
    Refused,
}

/// What a delivery holds.
#[derive(Debug)]
pub enum Body {
    /// An alert's bytes, not yet decoded.
    Alert(Bytes),
    /// No alert: bound for the dead letters. The queue keeps its bytes and puts them there by itself.
    Refused {
        /// Why.
        reason: Reason,
        /// What is wrong and what to do, for people.
        detail: String,
    },
}

/// What becomes of a delivery.
#[derive(Debug)]
pub enum Outcome {
    /// Store this record.
    Store(Record),
    /// Put the original bytes into the dead letters, with this beside them.
    Dead(DeadLetter),
}

/// A delivery with its outcome, ready to be committed.
#[derive(Debug)]
pub struct Settled {
    /// The delivery.
    pub delivery: Delivery,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What a commit did for one alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Stored under its id.
    Stored,
    /// Stored under this id, because another alert already has its own.
    Conflict(String),
    /// The same alert was stored before: let go of, not stored again.
    Duplicate,
    /// Stored in the place of the record that it replaces.
    Replaced,
    /// It failed, and the record that it was to replace stays as it was; let go of.
    Kept,
    /// In the dead letters.
    Dead,
    /// Another host took it over meanwhile: nothing was changed.
    Lost,
    /// This alert alone cannot be committed before somebody mends what is said here; it stays pending.
    Refused(String),
}

/// How full everything is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// Alerts that no host has taken.
    pub waiting: u64,
    /// Alerts that a host has taken and not let go of.
    pub in_flight: u64,
    /// Records in the store.
    pub stored: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long the oldest alert that waits or is in flight has been there; none when there is none.
    pub oldest: Option<Duration>,
}

/// When a source was heard last, by any host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The source.
    pub source: String,
    /// How long ago.
    pub ago: Duration,
}

/// How much room the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// How many bytes are used, by whatever shares it.
    pub used: u64,
    /// How many there are.
    pub total: u64,
    /// What is meant, for people.
    pub place: String,
}

/// A dead letter where it lies.
#[derive(Debug, Clone)]
pub struct Dead {
    /// Its name in the dead letters, unique: what `dossier dlq` takes as ID (it takes an alert's id as well).
    pub key: String,
    /// What is known of the failure.
    pub letter: DeadLetter,
    /// The size of the original, in bytes.
    pub size: u64,
}

/// The places where an alert can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It waits, or a host has it in flight.
    Queue,
    /// Its record is stored.
    Store,
    /// It is a dead letter.
    Dead,
}

/// Something that lies in one of the [`Place`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name there: an entry id, or a file's name.
    pub key: String,
    /// An alert's exact bytes or, in the store, the record; none where it holds neither (an entry without the field `alert`).
    pub bytes: Option<Bytes>,
}

/// What went through a queue since it is there, as the queue itself has counted. A dead letter that was replayed counts once
/// more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Alerts that were ever added.
    pub added: u64,
    /// Those that wait or are in flight.
    pub waiting: u64,
    /// Records that were ever stored.
    pub stored: u64,
    /// Dead letters that there ever were.
    pub dead: u64,
    /// Alerts that were let go of because they were stored before.
    pub duplicates: u64,
    /// Alerts that were to be enriched anew and failed: let go of, their records as they were.
    pub kept: u64,
}

/// A way through one [`Place`], a page at a time. Changes nothing, and holds nobody up: what comes or goes meanwhile may be
/// seen or not, and what stays is seen once.
#[async_trait]
pub trait Walk: Send {
    /// The next page, bounded by bytes and by number; empty at the end.
    ///
    /// # Errors
    /// [`QueueError`]; the way ends there, and somebody who must see everything begins anew.
    async fn next(&mut self) -> Result<Vec<Held>, QueueError>;
}

/// A place where alerts wait.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds alerts, bytes as they are; all of them are durable when it returns, as far as the queue is.
    ///
    /// # Errors
    /// [`QueueError`]; some of the alerts may have been added.
    async fn send(&self, alerts: &[Bytes]) -> Result<(), QueueError>;

    /// Takes up to `max` alerts; waits about a second for the first and then returns none. Suspects come first, and a
    /// result that holds a suspect holds nothing else.
    ///
    /// Cancel safe: an alert that was taken and not returned is delivered again.
    ///
    /// # Errors
    /// [`QueueError`]; nothing was taken.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError>;

    /// Notes durably that the process in which this suspect ran alone died of it. It counts once for each delivery, however often it
    /// is said; with `max_crashes` of them the alert is delivered as [`Body::Refused`].
    ///
    /// # Errors
    /// [`QueueError`]; it may be noted or not: say it again.
    async fn accuse(&self, suspect: &Delivery) -> Result<(), QueueError>;

    /// Stores, or puts into the dead letters, and lets go; gives what it did for each, in the same order. May be called
    /// again with the same alerts after an error, or with those that were refused: it then does what is left.
    ///
    /// # Errors
    /// [`QueueError`]; each alert is either done or still pending.
    async fn commit(&self, settled: &[Settled]) -> Result<Vec<Committed>, QueueError>;

    /// How full everything is.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn depth(&self) -> Result<Depth, QueueError>;

    /// What waits and cannot be taken before somebody mends something, by name: files that this host may not read.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn stuck(&self) -> Result<Vec<String>, QueueError> {
        Ok(Vec::new())
    }

    /// The dead letters, the oldest first: at most `limit` that follow the key `after`.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn dead(&self, after: Option<&str>, limit: usize) -> Result<Vec<Dead>, QueueError>;

    /// A dead letter's original bytes; none when there is no such dead letter. What held no alert gives its fields as JSON.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn dead_body(&self, key: &str) -> Result<Option<Bytes>, QueueError>;

    /// Moves a dead letter back into the queue, in one atomic step, its attempts and its history kept; false when it is gone already.
    ///
    /// # Errors
    /// [`QueueError`]; it is where it was.
    async fn replay(&self, key: &str) -> Result<bool, QueueError>;

    /// Sends a stored alert through the pipeline again. Its record stays until the new one takes its place, under the same id and in one
    /// atomic step; if it fails this time, the record stays for good.
    ///
    /// # Errors
    /// [`QueueError`]; it may have been sent.
    async fn reenrich(&self, again: &Again) -> Result<Resent, QueueError>;

    /// Deletes a dead letter for good; false when it is gone already.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn discard(&self, key: &str) -> Result<bool, QueueError>;

    /// Reads the store: the record with this alert id; none when there is none.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn record(&self, id: &str) -> Result<Option<Bytes>, QueueError>;

    /// Reads the store: the records with this alert id, and those beside them whose id is `<id>~…`: other alerts with the same id, or
    /// alerts whose own id says so; and the record whose [`Held::key`] this is.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn stored(&self, id: &str) -> Result<Vec<Held>, QueueError> {
        walk_for(self.walk(Place::Store), id).await
    }

    /// Where a stored alert waits that was sent to be enriched anew ([`Held::key`] in the queue), by the record that it replaces; none when
    /// it does not.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn sent_again(&self, _record: &Held, _id: &str) -> Result<Option<String>, QueueError> {
        Ok(None)
    }

    /// Begins a way through all that lies in a place, in no particular order.
    fn walk(&self, place: Place) -> Box<dyn Walk + '_>;

    /// What went through the queue, seen in one instant; none where the queue does not count.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn flow(&self) -> Result<Option<Flow>, QueueError> {
        Ok(None)
    }

    /// Notes that these sources were heard just now, and gives all that any host has heard of late: so that hosts which share the queue,
    /// and the next start, know of each other. Nothing where the queue has no place for it. Bounded; what is older than `forget` goes.
    ///
    /// # Errors
    /// [`QueueError`]; nothing else suffers from it.
    async fn hear(&self, _heard: &[String], _forget: Duration) -> Result<Vec<Heard>, QueueError> {
        Ok(Vec::new())
    }

    /// How much room the store has; none where nobody knows.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn room(&self) -> Result<Option<Room>, QueueError> {
        Ok(None)
    }

    /// Clean shutdown: what this host still holds goes back and counts as never delivered; leases are given up.
    ///
    /// # Errors
    /// [`QueueError`]; others take over when the lease ends.
    async fn close(&self) -> Result<(), QueueError>;
}

/// The records on a way through the store that are stored under an id or beside it: the slow way, which always works.
async fn walk_for(mut walk: Box<dyn Walk + '_>, id: &str) -> Result<Vec<Held>, QueueError> {
    let mut found = Vec::new();
    loop {
        let page = walk.next().await?;
        if page.is_empty() {
            return Ok(found);
        }
        let is_its = |held: &Held| held.bytes.as_deref().is_some_and(|record| is_beside(record, id));
        found.extend(page.into_iter().filter(is_its));
    }
}

/// Whether a record is stored under this id, or as `<id>~…`.
fn is_beside(record: &[u8], id: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        id: std::borrow::Cow<'a, str>,
    }
    let head: Result<Head<'_>, _> = serde_json::from_slice(record);
    head.is_ok_and(|head| head.id.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('~')))
}

/// Opens the queue of a configuration: connects, and makes what is missing.
///
/// # Errors
/// [`QueueError`] when it cannot be reached or made.
pub async fn open(config: &QueueConfig, telemetry: Arc<Telemetry>) -> Result<Arc<dyn Queue>, QueueError> {
    Ok(match &config.kind {
        QueueKind::Directory { path } => Arc::new(directory::DirectoryQueue::open(path, config, telemetry).await?),
        QueueKind::Redis(redis) => Arc::new(redis::RedisQueue::open(redis, config, telemetry).await?),
    })
}

/// What hosts that share the queue also share: answers of HTTP interfaces. None where the queue has no room for them. Opens
/// no connection.
pub fn shared_answers(config: &QueueConfig, telemetry: &Arc<Telemetry>) -> Option<Arc<dyn SharedAnswers>> {
    match &config.kind {
        QueueKind::Directory { .. } => None,
        QueueKind::Redis(redis) => Some(Arc::new(redis::RedisAnswers::new(redis, Arc::clone(telemetry)).ok()?)),
    }
}

/// Looks at the queue without changing it: what `dossier validate` and `dossier doctor` show.
pub async fn check(config: &QueueConfig) -> Vec<Observation> {
    match &config.kind {
        QueueKind::Directory { path } => directory::check(path).await,
        QueueKind::Redis(redis) => redis::check(redis, config.dlq_alarm).await,
    }
}

/// Turns what [`check`] found broken into findings about the configuration.
pub fn findings(config: &crate::config::Config, observations: &[Observation]) -> Vec<Finding> {
    // A server that forgets is no fault of the configuration, which somebody may be trying.
    let is_fault = |one: &&Observation| one.gravity == Gravity::Broken && !one.what.ends_with(NEVER_SAVED);
    let broken = observations.iter().filter(is_fault);
    broken.map(|broken| config.finding(None, format!("queue: {}", broken.line()))).collect()
}
