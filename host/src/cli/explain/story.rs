//! A stored record as it is read back. Lenient: what another version left out or added is no reason to show nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::dead_letter::history::History;

/// A record.
#[derive(Debug, Deserialize)]
pub struct Story {
    /// The number of its shape.
    #[serde(default)]
    pub schema: u32,
    /// The id that it is stored under.
    pub id: String,
    /// The original.
    pub alert: Box<RawValue>,
    /// What could be looked up.
    #[serde(default)]
    pub observables: Vec<Seen>,
    /// What each step answered.
    #[serde(default)]
    pub enrichment: BTreeMap<String, Value>,
    /// What was concluded.
    #[serde(default)]
    pub verdict: Judged,
    /// How it came to be.
    #[serde(default)]
    pub pipeline: Way,
}

/// An observable.
#[derive(Debug, Deserialize)]
pub struct Seen {
    /// `ip`, `host` and so on.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its part in the alert.
    #[serde(default)]
    pub role: String,
    /// What it is.
    #[serde(default)]
    pub value: String,
}

/// A verdict.
#[derive(Debug, Default, Deserialize)]
pub struct Judged {
    /// `malicious`, `suspicious`, `benign` or `unknown`.
    #[serde(default)]
    pub label: String,
    /// 0 to 100.
    #[serde(default)]
    pub score: u64,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// How a record came to be.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Way {
    /// The host's version.
    pub host: String,
    /// SHA-256 of its configuration.
    pub config_sha256: String,
    /// When the host received the alert.
    pub received: Option<Timestamp>,
    /// When it was done with it.
    pub finished: Option<Timestamp>,
    /// How long that took, in microseconds.
    pub duration_us: u64,
    /// How often the queue delivered the alert.
    pub deliveries: u32,
    /// How often it was processed to its end.
    pub attempts: u32,
    /// What came before.
    pub history: History,
    /// How many more there were.
    pub history_cut: u32,
    /// What each step did.
    pub steps: Vec<Trace>,
}

/// What a step did.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// Its name.
    pub step: String,
    /// Its stage.
    pub stage: String,
    /// Its plugin.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// SHA-256 of the plugin's file.
    pub sha256: String,
    /// `ok`, `not-applicable`, `absent`, or why it failed.
    pub outcome: String,
    /// What it said beside an outcome that is not `ok`.
    pub detail: Option<String>,
    /// How often it was called.
    pub attempts: u32,
    /// Whether what it asked for came from a cache.
    pub cached: bool,
    /// The digest of each table that answered it.
    pub tables: BTreeMap<String, String>,
    /// Fuel used by the last call.
    pub fuel: u64,
    /// Linear memory at the end of the last call, in bytes.
    pub memory: u64,
    /// Time that the last call took, in microseconds.
    pub duration_us: u64,
}

impl Story {
    /// Reads a record.
    ///
    /// # Errors
    /// It is none.
    pub fn read(record: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(record)
    }
}
