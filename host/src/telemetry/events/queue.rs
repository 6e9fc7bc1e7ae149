//! What the queue does that it should not have to.

use std::time::Duration;

use tracing::Level;

use super::{List, micros};
use crate::telemetry::metrics::OperationLabel;
use crate::telemetry::{Event, Metrics, Told};

/// The queue refused something; reading stops until it works again. An alarm.
#[derive(Debug)]
pub struct QueueTrouble<'a> {
    /// What was tried: `receive`, `commit`, …
    pub operation: &'static str,
    /// What it said.
    pub error: &'a str,
}

impl Event for QueueTrouble<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_troubles.get_or_create(&OperationLabel { operation: self.operation }).inc();
        metrics.alarm("queue-trouble");
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, operation = self.operation, error = self.error, "queue trouble"
        );
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::ERROR, format!("queue: {} failed: {}", self.operation, self.error)))
    }
}

/// The queue works again.
#[derive(Debug)]
pub struct QueueRecovered {
    /// How long it did not.
    pub after: Duration,
}

impl Event for QueueRecovered {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_recoveries.inc();
    }

    fn log(&self) {
        tracing::info!(target: "dossier::queue", after_us = micros(self.after), "queue recovered");
    }
}

/// Alerts of a host that is gone were taken over.
#[derive(Debug)]
pub struct AlertsClaimed<'a> {
    /// How many.
    pub count: usize,
    /// Whose they were.
    pub from: &'a str,
}

impl Event for AlertsClaimed<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_claimed.inc_by(self.count as u64);
    }

    fn log(&self) {
        tracing::warn!(target: "dossier::queue", count = self.count, from = self.from, "alerts claimed");
    }
}

/// Entries vanished from the queue while they were pending: somebody trimmed or deleted them. An alarm.
#[derive(Debug)]
pub struct EntriesLost<'a> {
    /// Their ids.
    pub entries: &'a [String],
}

impl Event for EntriesLost<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_lost.inc_by(self.entries.len() as u64);
        metrics.alarm("entries-lost");
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue",
            alarm = true,
            count = self.entries.len(),
            entries = ?List(self.entries),
            "entries lost"
        );
    }
}

/// A file in the queue's folder was left where it is: it is no plain file, or cannot be read. An alarm, once for each.
#[derive(Debug)]
pub struct EntrySkipped<'a> {
    /// Its name.
    pub entry: &'a str,
    /// Why, and what to do.
    pub why: &'a str,
}

impl Event for EntrySkipped<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_skipped.inc();
        metrics.alarm("entry-skipped");
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, entry = self.entry, why = self.why, "entry skipped"
        );
    }
}

/// The stream or its group was gone and was made again. An alarm.
#[derive(Debug)]
pub struct GroupRecreated<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The group.
    pub group: &'a str,
}

impl Event for GroupRecreated<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_groups.inc();
        metrics.alarm("group-recreated");
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, stream = self.stream, group = self.group, "consumer group recreated"
        );
    }
}
