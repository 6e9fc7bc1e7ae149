//! What the queue does that it should not have to.

use std::time::Duration;

use tracing::Level;

use super::{List, micros};
use crate::telemetry::alarms::{Change, Kind};
use crate::telemetry::metrics::OperationLabel;
use crate::telemetry::{Event, Metrics, Noted, Told};

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
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::QueueTrouble, self.operation, self.error.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("queue trouble", self.operation, format!("{}: {}", self.operation, self.error))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, name = Kind::QueueTrouble.name(), operation = self.operation, error = self.error, "queue trouble"
        );
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::ERROR, format!("queue: {} failed: {}", self.operation, self.error)))
    }
}

/// The queue works again.
#[derive(Debug)]
pub struct QueueRecovered {
    /// What was tried and works again.
    pub operation: &'static str,
    /// How long it did not.
    pub after: Duration,
}

impl Event for QueueRecovered {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_recoveries.inc();
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Clear(Kind::QueueTrouble, self.operation))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::change("queue recovered", "", format!("after {:.1} s", self.after.as_secs_f64()))
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::queue", operation = self.operation, after_us = micros(self.after), "queue recovered"
        );
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

    fn noted(&self) -> Option<Noted> {
        Noted::warning("alerts claimed", "", format!("{} from {}, which is gone", self.count, self.from))
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
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(
            Kind::EntriesLost,
            "",
            format!(
                "{} entries are gone, the first: {}",
                self.entries.len(),
                self.entries.first().map_or("", String::as_str)
            )
            .into(),
        ))
    }

    fn noted(&self) -> Option<Noted> {
        let some = self.entries.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        Noted::error("entries lost", "", format!("{} vanished while they were pending: {some}", self.entries.len()))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue",
            alarm = true, name = Kind::EntriesLost.name(),
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
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::EntrySkipped, "", format!("{}: {}", self.entry, self.why).into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("entry skipped", "", format!("{}: {}", self.entry, self.why))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, name = Kind::EntrySkipped.name(), entry = self.entry, why = self.why, "entry skipped"
        );
    }
}

/// What stands beside an alert about its earlier failures cannot be read: the alert is processed as if nothing stood there.
#[derive(Debug)]
pub struct HistoryIgnored<'a> {
    /// The alert's place in the queue.
    pub entry: &'a str,
    /// What is wrong with it.
    pub why: &'a str,
}

impl Event for HistoryIgnored<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_histories.inc();
    }

    fn noted(&self) -> Option<Noted> {
        Noted::warning("history ignored", "", format!("{}: {}", self.entry, self.why))
    }

    fn log(&self) {
        tracing::warn!(target: "dossier::queue", entry = self.entry, why = self.why, "history ignored");
    }

    // Whoever may add alerts could write one line with each.
    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("history-ignored", ""))
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
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::GroupRecreated, self.stream, format!("group {}", self.group).into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("consumer group recreated", "", format!("{} of {}", self.group, self.stream))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, name = Kind::GroupRecreated.name(), stream = self.stream, group = self.group, "consumer group recreated"
        );
    }
}

/// Alerts were stored, or put into the dead letters, from this host's memory: their entries were gone from the stream. Somebody
/// trims or deletes it, or a failover lost its end; what no host held then is gone for good. An alarm.
#[derive(Debug)]
pub struct EntriesRescued {
    /// How many.
    pub count: u64,
}

impl Event for EntriesRescued {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_rescued.inc_by(self.count);
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::EntriesRescued, "", format!("{} entries were gone", self.count).into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("entries gone from the queue, stored from memory", "", self.count.to_string())
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, name = Kind::EntriesRescued.name(), count = self.count, "entries gone from the queue, stored from memory"
        );
    }
}

/// One alert cannot be committed before somebody mends something; it stays pending, and others go on. An alarm, once for each.
#[derive(Debug)]
pub struct CommitRefused<'a> {
    /// The alert's id, if it has one.
    pub id: Option<&'a str>,
    /// Its place in the queue.
    pub entry: &'a str,
    /// Why, and what to do.
    pub error: &'a str,
}

impl Event for CommitRefused<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.queue_refused.inc();
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::CommitRefused, "", self.error.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("commit refused", "", format!("{}: {}", self.id.unwrap_or(self.entry), self.error))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::queue", alarm = true, name = Kind::CommitRefused.name(), id = self.id, entry = self.entry, error = self.error, "commit refused"
        );
    }
}

/// Another host works under this host's name: it was copied while it ran. An alarm; this host ends.
#[derive(Debug)]
pub struct ConsumerShared<'a> {
    /// The name.
    pub consumer: &'a str,
}

impl Event for ConsumerShared<'_> {
    fn count(&self, _: &Metrics) {}

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::ConsumerShared, "", self.consumer.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("consumer shared", "", self.consumer)
    }

    fn log(&self) {
        tracing::error!(target: "dossier::queue", alarm = true, name = Kind::ConsumerShared.name(), consumer = self.consumer, "consumer shared");
    }
}

/// There are more dead letters than the operator wants to live with, or that is over. The first is an alarm.
#[derive(Debug)]
pub struct DeadLettersMany {
    /// How many there are.
    pub dead: u64,
    /// From how many on there is an alarm.
    pub threshold: u64,
}

impl DeadLettersMany {
    /// What stands beside the alarm.
    pub fn detail(&self) -> String {
        format!("there are {}; see dossier dlq list", self.dead)
    }
}

impl Event for DeadLettersMany {
    fn count(&self, metrics: &Metrics) {
        metrics.dead_letters_over.set((self.dead >= self.threshold).into());
    }

    fn alarm(&self) -> Option<Change<'_>> {
        if self.dead < self.threshold {
            return Some(Change::Clear(Kind::DeadLetters, ""));
        }
        Some(Change::Raise(Kind::DeadLetters, "", self.detail().into()))
    }

    fn noted(&self) -> Option<Noted> {
        match self.dead >= self.threshold {
            true => Noted::error("many dead letters", "", format!("{}; see dossier dlq list", self.dead)),
            false => Noted::change("not many dead letters any more", "", self.dead.to_string()),
        }
    }

    fn log(&self) {
        let (dead, threshold) = (self.dead, self.threshold);
        if dead >= threshold {
            tracing::error!(target: "dossier::queue", alarm = true, name = Kind::DeadLetters.name(), dead, threshold, "many dead letters");
        } else {
            tracing::info!(target: "dossier::queue", dead, threshold, "not many dead letters any more");
        }
    }
}
