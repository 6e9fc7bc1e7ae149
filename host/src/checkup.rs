//! What was found out about something that a host stands on, how grave it is, and what to do about it. `dossier validate` and `dossier
//! doctor` show it; whoever knows the thing looks at it.

pub mod disk;

use std::time::Duration;

use serde::Serialize;

/// How grave something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gravity {
    /// As it should be.
    Fine,
    /// Worth knowing, and no danger.
    Note,
    /// Alerts or records may be lost, or work may come to a stop.
    Risk,
    /// It keeps the host from working, or takes alerts from it.
    Broken,
}

impl Gravity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Risk => "RISK",
            Self::Broken => "FAIL",
        }
    }

    /// Whether somebody must do something.
    pub fn is_problem(self) -> bool {
        self >= Self::Risk
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// How grave it is.
    pub gravity: Gravity,
    /// What is so.
    pub what: String,
    /// What to do; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
}

impl Observation {
    /// Something that is as it should be.
    pub fn fine(what: impl Into<String>) -> Self {
        Self { gravity: Gravity::Fine, what: what.into(), next: String::new() }
    }

    /// Something worth knowing.
    pub fn note(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { gravity: Gravity::Note, what: what.into(), next: next.into() }
    }

    /// Something that endangers alerts, records or work.
    pub fn risk(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { gravity: Gravity::Risk, what: what.into(), next: next.into() }
    }

    /// Something that keeps the host from working.
    pub fn broken(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { gravity: Gravity::Broken, what: what.into(), next: next.into() }
    }

    /// In one line: what is so and what to do.
    pub fn line(&self) -> String {
        match self.next.as_str() {
            "" => self.what.clone(),
            next => format!("{}; {next}", self.what),
        }
    }
}

/// A duration in its largest unit, rounded down: `59 s`, `2 h`.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
