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
    /// What to do; empty where nothing is to be done, and never of what is a problem.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
}

/// What a queue says that no host has read since its keys are there. A host that has found nothing to read yet leaves no trace there either.
pub const NO_HOST: &str = "no host takes alerts from the stream";

/// How it is said that a server keeps all in its memory and nowhere else. That is as bad as it can be; but somebody may want it so, to try
/// things.
pub const NEVER_SAVED: &str = "nothing is ever written to disk: a restart loses all alerts, records and dead letters";

/// What to do about a problem of which nobody has said it: better than to leave somebody alone with it.
const UNSAID: &str = "look at the host's log, and at docs/operations/README.md";

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
        Self::problem(Gravity::Risk, what.into(), next.into())
    }

    /// Something that keeps the host from working.
    pub fn broken(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::problem(Gravity::Broken, what.into(), next.into())
    }

    /// The same of a message that may say itself what to do, after a semicolon; if it does not, that is done.
    pub fn broken_as_told(message: &str, otherwise: &str) -> Self {
        let (what, next) = message.rsplit_once("; ").unwrap_or((message, otherwise));
        Self::broken(what, next)
    }

    fn problem(gravity: Gravity, what: String, next: String) -> Self {
        let next = if next.trim().is_empty() { UNSAID.to_owned() } else { next };
        Self { gravity, what, next }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_left_alone_with_a_problem() {
        for next in ["", " "] {
            for problem in [Observation::risk("it is so", next), Observation::broken("it is so", next)] {
                assert_eq!(problem.next, UNSAID);
            }
        }
        let told = |message| Observation::broken_as_told(message, "do that");
        assert_eq!(told("it is so").line(), "it is so; do that");
        assert_eq!(told("it is so; or so; do this"), Observation::broken("it is so; or so", "do this"));
        assert_eq!(told("it is so; ").next, UNSAID);
    }
}
