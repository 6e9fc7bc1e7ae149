//! Where alerts go in and records come out, seen from outside the host: what both kinds of queue have in common for whoever
//! measures. The host itself is never asked.

pub mod directory;
pub mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::alerts::Alerts;

/// The stream of alerts, its group, and the stream of records.
pub const STREAM: &str = "alerts";
/// The consumer group of hosts.
pub const GROUP: &str = "dossier";
/// Where records go.
pub const STORE: &str = "alerts:enriched";

/// When each alert was seen in the store, by its number.
pub type Seen = Vec<(u64, Instant)>;

/// What became of alerts.
#[derive(Debug, PartialEq, Eq)]
pub struct Tally {
    /// Records in the store.
    pub stored: u64,
    /// Dead letters.
    pub dead: u64,
}

/// A queue.
pub trait Place {
    /// Empties it, and makes what a host expects. No host runs meanwhile.
    ///
    /// # Errors
    /// It cannot be used.
    fn clear(&mut self) -> Result<()>;

    /// Puts alerts where no host sees them yet: the first so many.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn fill(&mut self, alerts: &Alerts, count: u64) -> Result<()>;

    /// Shows the host what was filled in, all at once.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn fire(&mut self) -> Result<()>;

    /// Whether this many alerts are done. Cheap: it is asked often.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn done(&mut self, count: u64) -> Result<bool>;

    /// What became of them.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn tally(&mut self) -> Result<Tally>;

    /// Some of the records, by id.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn records(&mut self) -> Result<BTreeMap<String, Value>>;

    /// The process of the queue itself, if it has one.
    fn server(&self) -> Option<u32>;

    /// Whoever sends alerts one after the other.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn sender(&self) -> Result<Box<dyn Sender>>;

    /// Watches the store until as many alerts are in it as `count` says, which may still change; or for this long. Nothing was sent
    /// yet.
    ///
    /// # Errors
    /// As [`Place::clear`].
    fn watch(&self, count: Arc<AtomicU64>, patience: Duration) -> Result<JoinHandle<Result<Seen>>>;
}

/// Sends alerts and waits for nobody.
pub trait Sender {
    /// Sends some together.
    ///
    /// # Errors
    /// The queue is gone.
    fn send(&mut self, alerts: &[Vec<u8>]) -> Result<()>;
}
