//! Events of a process that the host has started, on their way to the host, which counts and logs them as its own.
//!
//! Only what happens while alerts run goes this way. What a process tells of its own start is nobody's business: when that fails
//! it says so in its answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::Level;

use super::Telemetry;
use super::events::{
    HttpAnswered, HttpCacheTrouble, HttpCalled, PluginDenied, PluginLogCut, PluginSaid, StepCalled, StepRetried,
};
use crate::dead_letter::Reason;

/// An event in a form that can be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the events")]
pub enum Relayed {
    /// [`StepCalled`]
    StepCalled { step: String, stage: String, outcome: String, duration: Duration, fuel: u64 },
    /// [`StepRetried`]
    StepRetried { step: String, id: String, reason: String, wait: Duration },
    /// [`PluginSaid`]
    PluginSaid { step: String, id: Option<String>, level: String, message: String },
    /// [`PluginLogCut`]
    PluginLogCut { step: String, dropped: u64 },
    /// [`PluginDenied`]
    PluginDenied { step: String, what: String, detail: String },
    /// [`HttpCalled`]
    HttpCalled { api: String, outcome: String, waited: Duration, duration: Duration },
    /// [`HttpAnswered`]
    HttpAnswered { api: String, source: String },
    /// [`HttpCacheTrouble`]
    HttpCacheTrouble { error: String },
}

/// Takes events to whoever counts and logs them.
pub type Relay = Box<dyn Fn(Relayed) + Send + Sync>;

impl Relayed {
    /// Counts and logs it here.
    pub fn emit(&self, telemetry: &Telemetry) {
        match self {
            Self::StepCalled { step, stage, outcome, duration, fuel } => telemetry.emit(&StepCalled {
                step,
                stage: word(stage),
                outcome: word(outcome),
                duration: *duration,
                fuel: *fuel,
            }),
            Self::StepRetried { step, id, reason, wait } => {
                telemetry.emit(&StepRetried { step, id, reason, wait: *wait });
            }
            Self::PluginSaid { step, id, level, message } => {
                let level = level.parse().unwrap_or(Level::INFO);
                telemetry.emit(&PluginSaid { step, id: id.as_deref(), level, message });
            }
            Self::PluginLogCut { step, dropped } => telemetry.emit(&PluginLogCut { step, dropped: *dropped }),
            Self::PluginDenied { step, what, detail } => {
                telemetry.emit(&PluginDenied { step, what: word(what), detail });
            }
            Self::HttpCalled { api, outcome, waited, duration } => {
                telemetry.emit(&HttpCalled { api, outcome: word(outcome), waited: *waited, duration: *duration })
            }
            Self::HttpAnswered { api, source } => telemetry.emit(&HttpAnswered { api, source: word(source) }),
            Self::HttpCacheTrouble { error } => telemetry.emit(&HttpCacheTrouble { error }),
        }
    }
}

/// The words of labels: there are few, and none comes from outside.
const WORDS: [&str; 18] = [
    "normalize",
    "enrich",
    "verdict",
    "ok",
    "not-applicable",
    "absent",
    "table",
    "http",
    "client-error",
    "server-error",
    "timeout",
    "unreachable",
    "too-large",
    "no-turn",
    "memory",
    "shared",
    "in-flight",
    "api",
];

/// A word of a label as the host writes it; `unknown` for one that there is not.
pub(crate) fn word(text: &str) -> &'static str {
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    reasons.chain(WORDS).find(|word| *word == text).unwrap_or("unknown")
}
