//! Dead letters: why an alert could not be enriched. A dead letter lies beside the alert's original bytes and is everything
//! that is needed to understand the failure and to replay the alert.

pub mod history;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::history::History;

/// The number of this shape; a reader that meets a higher one must not guess. Fields that may be missing come without a new one.
pub const SCHEMA: u32 = 1;

/// Why an alert is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The queue's entry holds no alert (a Redis entry without the field `alert`).
    NoAlert,
    /// The bytes are not valid JSON.
    Malformed,
    /// The bytes are JSON, but no object.
    NotAnObject,
    /// The alert is larger than `max_alert_size`.
    TooLarge,
    /// A plugin trapped.
    Trap,
    /// A plugin used up its fuel.
    OutOfFuel,
    /// A plugin used up its memory.
    Memory,
    /// A plugin used up its time.
    Timeout,
    /// A plugin's answer is not what the contract says, or too large.
    InvalidOutput,
    /// A plugin found that the alert is not what it should be.
    Invalid,
    /// A plugin said that it is wrong itself.
    PluginError,
    /// What a plugin needs stayed away through every retry.
    Unavailable,
    /// The alert killed the process in which it ran alone, or the host panicked on it.
    HostCrash,
}

impl Reason {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 13] = [
        Self::NoAlert,
        Self::Malformed,
        Self::NotAnObject,
        Self::TooLarge,
        Self::Trap,
        Self::OutOfFuel,
        Self::Memory,
        Self::Timeout,
        Self::InvalidOutput,
        Self::Invalid,
        Self::PluginError,
        Self::Unavailable,
        Self::HostCrash,
    ];

    /// The word in records, metrics and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAlert => "no-alert",
            Self::Malformed => "malformed",
            Self::NotAnObject => "not-an-object",
            Self::TooLarge => "too-large",
            Self::Trap => "trap",
            Self::OutOfFuel => "out-of-fuel",
            Self::Memory => "memory",
            Self::Timeout => "timeout",
            Self::InvalidOutput => "invalid-output",
            Self::Invalid => "invalid",
            Self::PluginError => "plugin-error",
            Self::Unavailable => "unavailable",
            Self::HostCrash => "host-crash",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|reason| reason.as_str()).collect();
            format!("there is no reason \"{text}\"; there are {}", all.join(", "))
        })
    }
}

/// What is known of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The alert's id; none when its bytes could not be decoded.
    pub id: Option<String>,
    /// Where it was in the queue, as the log says it: an entry, or a file's name. An earlier host did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Why.
    pub reason: Reason,
    /// What happened, for people.
    pub detail: String,
    /// The step that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<FailedStep>,
    /// How often the alert was processed to its end, this time and every time before a replay.
    pub attempts: u32,
    /// Its earlier failures: it was replayed after each of them.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
    /// How often the queue delivered it since it was last sent or replayed.
    pub deliveries: u32,
    /// When a host first saw it.
    pub first_seen: Timestamp,
    /// When it failed.
    pub failed_at: Timestamp,
    /// The host's version.
    pub host: String,
}

/// The step that failed, and what its last call cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStep {
    /// The step's name.
    pub step: String,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// SHA-256 of the plugin's file.
    pub sha256: String,
    /// How often it was called.
    pub calls: u32,
    /// Fuel used by the last call.
    pub fuel: u64,
    /// Time that the last call took, in microseconds.
    pub duration_us: u64,
}
