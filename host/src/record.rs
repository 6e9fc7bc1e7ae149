//! The stored record: the alert with its dossier, as JSON.
//!
//! The original's bytes are spliced in as they are. The id stands first and apart, because only the queue knows at commit
//! whether another alert already has it.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::alert::observables::Observable;
use crate::dead_letter::history::History;

/// The number of this shape.
pub const SCHEMA: u32 = 1;

/// A record that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Record {
    /// The alert's id.
    pub id: String,
    /// SHA-256 of the alert's bytes.
    pub sha256: [u8; 32],
    /// The record's JSON after the id: begins with a comma, ends with the closing brace.
    pub rest: Bytes,
}

/// What a plugin concluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How bad it is.
    pub label: Label,
    /// 0 to 100.
    pub score: u8,
    /// Why, the weightiest reason first.
    pub reasons: Vec<String>,
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Act.
    Malicious,
    /// Look.
    Suspicious,
    /// Nothing to do.
    Benign,
    /// No step gave a verdict, or it could not tell.
    Unknown,
}

impl Label {
    /// The word in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malicious => "malicious",
            Self::Suspicious => "suspicious",
            Self::Benign => "benign",
            Self::Unknown => "unknown",
        }
    }
}

/// How the record came to be.
#[derive(Debug, Serialize)]
pub struct Provenance<'a> {
    /// The host's version.
    pub host: &'static str,
    /// SHA-256 of the configuration's file.
    pub config_sha256: &'a str,
    /// When the host received the alert.
    pub received: Timestamp,
    /// When it was done with it.
    pub finished: Timestamp,
    /// How long that took, in microseconds.
    pub duration_us: u64,
    /// How often the queue delivered the alert.
    pub deliveries: u32,
    /// How often it was processed to its end: more than 1 after a replay.
    pub attempts: u32,
    /// The failures before it, each of which a replay followed, the oldest first; the last ones of many.
    pub history: &'a History,
    /// How many more there were; missing in the JSON when there were none.
    #[serde(skip_serializing_if = "is_zero")]
    pub history_cut: u32,
    /// What each step did, in the order of the configuration.
    pub steps: &'a [StepTrace],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What one step did to one alert.
#[derive(Debug, Clone, Serialize)]
pub struct StepTrace {
    /// The step's name.
    pub step: String,
    /// Its stage.
    pub stage: &'static str,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version; empty when it is absent.
    pub version: String,
    /// SHA-256 of the plugin's file; empty when it is absent.
    pub sha256: String,
    /// SHA-256 of the step's settings.
    pub settings_sha256: String,
    /// `ok`, `not-applicable`, `absent`, or the reason of its failure when the step is not required.
    pub outcome: &'static str,
    /// What it said beside an outcome that is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How often it was called.
    pub attempts: u32,
    /// Whether what it asked for came from a cache.
    pub cached: bool,
    /// The digest of each table that answered it.
    pub tables: std::collections::BTreeMap<String, String>,
    /// Fuel used by the last call.
    pub fuel: u64,
    /// Linear memory at the end of the last call, in bytes.
    pub memory: u64,
    /// Time that the last call took, in microseconds.
    pub duration_us: u64,
}

/// The part of a record after the id.
#[derive(Serialize)]
struct Rest<'a> {
    alert: &'a RawValue,
    observables: &'a [Observable],
    enrichment: Enrichment<'a>,
    verdict: &'a Verdict,
    pipeline: &'a Provenance<'a>,
}

/// Results by step, as the plugins gave them.
struct Enrichment<'a>(&'a [(String, Box<RawValue>)]);

impl Serialize for Enrichment<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(step, fields)| (step, fields)))
    }
}

impl Record {
    /// Puts a record together.
    ///
    /// # Errors
    /// None in practice: an [`Alert`]'s bytes are JSON, and so are a step's fields.
    pub fn new(
        alert: &Alert,
        observables: &[Observable],
        enrichment: &[(String, Box<RawValue>)],
        verdict: &Verdict,
        provenance: &Provenance<'_>,
    ) -> Result<Self, serde_json::Error> {
        let original: &RawValue = serde_json::from_slice(&alert.bytes)?;
        let rest =
            Rest { alert: original, observables, enrichment: Enrichment(enrichment), verdict, pipeline: provenance };
        let mut json = Vec::with_capacity(alert.bytes.len() + 1024);
        serde_json::to_writer(&mut json, &rest)?;
        // The brace that opens the rest becomes the comma after the id.
        json[0] = b',';
        Ok(Self { id: alert.id.clone(), sha256: alert.sha256, rest: json.into() })
    }

    /// The beginning of the record under this id; [`Record::rest`] follows it.
    pub fn head(id: &str) -> String {
        format!("{{\"schema\":{SCHEMA},\"id\":{}", serde_json::Value::from(id))
    }

    /// The id that the record gets when another alert already has its own.
    pub fn conflict_id(&self) -> String {
        format!("{}~{}", self.id, &hex::encode(self.sha256)[..8])
    }

    /// The whole record under an id, as JSON.
    pub fn json(&self, id: &str) -> Vec<u8> {
        [Self::head(id).as_bytes(), &self.rest].concat()
    }
}
