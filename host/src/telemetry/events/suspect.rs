//! Alerts that may kill the host, and the process that they run in.

use tracing::Level;

use crate::telemetry::alarms::{Change, Kind};
use crate::telemetry::{Event, Metrics, Noted, Told};

/// The process that ran nothing but this alert died of it. An alarm: the alert is tried again, and dead after `max_crashes` of these.
#[derive(Debug)]
pub struct SuspectDied<'a> {
    /// Where the alert is in the queue.
    pub entry: &'a str,
    /// How the process ended, and what it said last.
    pub how: &'a str,
}

impl Event for SuspectDied<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.suspect_crashes.inc();
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::SuspectDied, "", format!("alert {}: {}", self.entry, self.how).into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("the process that ran a suspect alone died", "", format!("{}: {}", self.entry, self.how))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::alert",
            alarm = true, name = Kind::SuspectDied.name(),
            entry = self.entry,
            how = self.how,
            "the process that ran a suspect alone died"
        );
    }

    fn told(&self) -> Option<Told> {
        let line = format!("alert {} killed the process that ran nothing else: {}", self.entry, self.how);
        Some(Told::line(Level::ERROR, line))
    }
}

/// Suspects cannot be run, because there is no process for them; they wait, and other alerts go on. An alarm, once for each reason.
#[derive(Debug)]
pub struct SuspectsWait<'a> {
    /// Why.
    pub why: &'a str,
}

impl Event for SuspectsWait<'_> {
    fn count(&self, _: &Metrics) {}

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::SuspectsWait, "", self.why.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("suspects cannot be run and wait", "", self.why)
    }

    fn log(&self) {
        tracing::error!(target: "dossier::alert", alarm = true, name = Kind::SuspectsWait.name(), why = self.why, "suspects cannot be run and wait");
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::ERROR, format!("alerts that a host died of wait: {}", self.why)))
    }
}
