//! Alarms that come and go, where no other event says so.

use std::time::Duration;

use super::micros;
use crate::telemetry::alarms::{Change, Kind, Severity};
use crate::telemetry::metrics::AlarmLabel;
use crate::telemetry::{Event, Metrics, Noted};

/// An alarm holds from now on.
#[derive(Debug)]
pub struct AlarmRaised<'a> {
    /// Which.
    pub kind: Kind,
    /// What it is about; may be empty.
    pub subject: &'a str,
    /// What was seen.
    pub detail: &'a str,
}

impl Event for AlarmRaised<'_> {
    fn count(&self, _: &Metrics) {}

    fn log(&self) {
        macro_rules! raise {
            ($level:ident) => {
                tracing::$level!(
                    target: "dossier::alarm",
                    alarm = true,
                    name = self.kind.name(),
                    subject = self.subject,
                    detail = self.detail,
                    remedy = self.kind.remedy(),
                    "alarm raised"
                )
            };
        }
        match self.kind.severity() {
            Severity::Critical => raise!(error),
            Severity::Warning | Severity::Info => raise!(warn),
        }
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(self.kind, self.subject, self.detail.into()))
    }

    fn noted(&self) -> Option<Noted> {
        let text = format!("{} {}: {}", self.kind.name(), self.subject, self.detail);
        match self.kind.severity() {
            Severity::Critical => Noted::error("alarm raised", self.kind.name(), text),
            Severity::Warning | Severity::Info => Noted::warning("alarm raised", self.kind.name(), text),
        }
    }
}

/// An alarm is over.
#[derive(Debug)]
pub struct AlarmCleared<'a> {
    /// Which.
    pub kind: Kind,
    /// What it was about.
    pub subject: &'a str,
    /// How long it held.
    pub after: Duration,
}

impl Event for AlarmCleared<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.alarms_cleared.get_or_create(&AlarmLabel { alarm: self.kind.name() }).inc();
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::alarm",
            name = self.kind.name(),
            subject = self.subject,
            after_us = micros(self.after),
            "alarm cleared"
        );
    }

    fn noted(&self) -> Option<Noted> {
        let text = format!("{} {}, after {} s", self.kind.name(), self.subject, self.after.as_secs());
        Noted::change("alarm cleared", self.kind.name(), text)
    }
}
