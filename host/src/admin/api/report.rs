//! What `/api/v1` says, as types: the host writes them, `dossier top` reads them, and the OpenAPI description is made of them. New
//! members may come; none goes, and none changes what it means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::telemetry::Reading;

/// How the host is: the whole picture in one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The host's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it began. Counters begin at 0 with it, and rates are differences of counters over differences of this.
    pub uptime_seconds: f64,
    /// Whether it takes alerts.
    pub ready: bool,
    /// What is missing where it is not ready, by part.
    pub problems: BTreeMap<String, String>,
    /// How many alarms hold; which, says `/api/v1/alarms`.
    pub alarms: u64,
    /// Where alerts wait.
    pub queue: Queue,
    /// What became of the alerts that this host took.
    pub alerts: Alerts,
    /// What bounds the host.
    pub limits: HostLimits,
}

/// Where alerts wait. Hosts that share a queue say the same of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// `directory` or `redis`.
    pub kind: String,
    /// The directory, or the stream.
    pub name: String,
    /// How full it is; null before it was measured for the first time.
    pub depth: Option<Depth>,
    /// What ever went through it; null where the queue does not count (a directory, a Redis before 7.0) or does not answer.
    pub flow: Option<Flow>,
}

/// How full the queue was when it was measured last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Depth {
    /// When that was: seconds since the host began.
    pub measured_seconds: f64,
    /// Alerts that no host has taken: the lag.
    pub waiting: u64,
    /// Alerts that a host has taken and not let go of, this one or another.
    pub in_flight: u64,
    /// Records in the store.
    pub stored: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long the oldest alert has been in the queue; null when it is empty.
    pub oldest_seconds: Option<f64>,
    /// How many alerts this host had brought to their end by then.
    pub finished: u64,
}

/// What ever went through the queue, by all hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// Alerts added; a dead letter that was replayed counts once more.
    pub added: u64,
    /// Records stored.
    pub stored: u64,
    /// Dead letters made.
    pub dead: u64,
    /// Alerts that were stored before.
    pub duplicates: u64,
    /// Alerts that were to be enriched anew and failed: their records stay as they were. An earlier host does not say it.
    #[serde(default)]
    pub kept: u64,
}

/// What became of the alerts that this host took since it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    /// Those that it has in flight now.
    pub in_flight: u64,
    /// Stored under their own ids.
    pub stored: u64,
    /// Stored beside another alert with the same id.
    pub conflicts: u64,
    /// Stored before, and not again.
    pub duplicates: u64,
    /// Enriched anew, in the places of their records. An earlier host does not say it.
    #[serde(default)]
    pub replaced: u64,
    /// To be enriched anew, and failed: their records stay as they were. An earlier host does not say it.
    #[serde(default)]
    pub kept: u64,
    /// Put into the dead letters.
    pub dead: u64,
    /// Taken over by another host.
    pub lost: u64,
    /// The stored ones by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// From received to committed, in seconds.
    pub duration_seconds: Spread,
}

/// What bounds the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostLimits {
    /// How many alerts are in flight, at most.
    pub in_flight: u64,
    /// How many bytes of them.
    pub in_flight_bytes: u64,
    /// How many alerts are read and committed together, at most.
    pub batch: u64,
    /// The largest alert, in bytes.
    pub max_alert_size: u64,
}

/// How values are spread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: f64,
    /// Half of them were at most about this; null when there were none.
    pub p50: Option<f64>,
    /// Of a hundred, 99 were at most about this.
    pub p99: Option<f64>,
    /// How many fell into each bucket, in rising order.
    pub buckets: Vec<Bucket>,
}

/// Values up to a bound and above the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// The bound; null for the last bucket, which has none.
    pub up_to: Option<f64>,
    /// How many.
    pub count: u64,
}

/// The steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Steps {
    /// Seconds since the host began.
    pub uptime_seconds: f64,
    /// One for each, in the order of the configuration; those that no configuration names follow.
    pub steps: Vec<Step>,
}

/// A step, and what its calls came to since the host began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// `normalize`, `enrich` or `verdict`; null where its plugin is not there.
    pub stage: Option<String>,
    /// Its plugin.
    pub plugin: String,
    /// The plugin's version; null where it is not there.
    pub version: Option<String>,
    /// SHA-256 of the plugin's file; null where it is not there.
    pub sha256: Option<String>,
    /// Whether its failure sends an alert to the dead letters.
    pub required: bool,
    /// How the probation of the plugin's version goes; null when it is on none.
    pub probation: Option<Probation>,
    /// The alarms that hold about its plugin: a file that is refused, a probation that was failed.
    pub alarms: Vec<String>,
    /// How many calls ended.
    pub calls: u64,
    /// How they ended: `ok`, `not-applicable`, `unavailable`, or the reason of a failure.
    pub outcomes: BTreeMap<String, u64>,
    /// How many were repeated because something was unavailable.
    pub retries: u64,
    /// Wall-clock time of a call, in seconds.
    pub duration_seconds: Spread,
    /// Fuel of a call.
    pub fuel: Spread,
    /// What bounds one call.
    pub limits: StepLimits,
    /// The tables that it may look into.
    pub tables: Vec<String>,
    /// The HTTP interfaces that it may ask.
    pub http: Vec<String>,
}

impl Step {
    /// How many of its calls failed: all but answers, those that did not apply, and those that are repeated because something was
    /// unavailable.
    pub fn failures(&self) -> impl Iterator<Item = (&str, u64)> {
        let failed = |(outcome, count): (&String, &u64)| match outcome.as_str() {
            "ok" | "not-applicable" => 0,
            "unavailable" => count.saturating_sub(self.retries),
            _ => *count,
        };
        self.outcomes.iter().map(move |one| (one.0.as_str(), failed(one))).filter(|(_, count)| *count > 0)
    }
}

/// How the probation of a plugin's version goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Probation {
    /// The calls that were looked at.
    pub calls: u32,
    /// How many are looked at in all.
    pub of: u32,
    /// Those that failed.
    pub failed: u32,
    /// With so many it is taken out.
    pub fails_at: u32,
}

/// What bounds one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepLimits {
    /// Fuel.
    pub fuel: u64,
    /// Wall-clock time, in seconds.
    pub timeout_seconds: f64,
    /// Memory, in bytes.
    pub memory: u64,
    /// How many alerts one instance may serve.
    pub reuse: u32,
}

/// The dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    /// How many there are; null before the queue was measured for the first time.
    pub total: Option<u64>,
    /// From how many on there is an alarm.
    pub alarm_from: u64,
    /// The oldest so many were looked at for what follows.
    pub counted: u64,
    /// Why they are there, what is most first.
    pub reasons: Vec<DeadReason>,
    /// Those that this host made since it began, whether they are still there or not.
    pub since_start: Vec<DeadReason>,
}

/// Dead letters with one reason and one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadReason {
    /// The reason.
    pub reason: String,
    /// The step that failed; null where none did.
    pub step: Option<String>,
    /// How many.
    pub count: u64,
    /// When the last one failed; null where that is not known.
    #[schema(format = DateTime)]
    pub last: Option<String>,
}

/// The tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tables {
    /// One for each, by name.
    pub tables: Vec<Table>,
}

/// A table that serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    /// Its name.
    pub table: String,
    /// Its file.
    pub file: String,
    /// SHA-256 of what was loaded.
    pub sha256: String,
    /// Its rows; null where the format does not tell.
    pub rows: Option<u64>,
    /// Rows whose key came again later.
    pub duplicates: u64,
    /// How long ago it was loaded.
    pub loaded_seconds_ago: Option<f64>,
    /// How long ago its file was changed; null when it cannot be looked at.
    pub changed_seconds_ago: Option<f64>,
    /// The steps that may look into it.
    pub steps: Vec<String>,
}

/// The alarms that hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alarms {
    /// The gravest first, of those the oldest; at most 200.
    pub alarms: Vec<Alarm>,
    /// How many hold, in all.
    #[serde(default)]
    pub total: u64,
}

/// An alarm that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// Its name.
    pub alarm: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// What it is about: a plugin, a table, a source, an operation; may be empty.
    pub subject: String,
    /// What was said last; may hold what senders of alerts wrote.
    pub detail: String,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: String,
    /// For how long, in seconds.
    pub age_seconds: u64,
    /// How often it was raised since.
    pub times: u64,
    /// What to do.
    pub remedy: String,
}

/// The last things that somebody should know of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The newest first.
    pub events: Vec<Event>,
}

/// Something that happened, perhaps more than once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// `error`, `warn`, or `info` for something that was done.
    pub level: String,
    /// What it is, as the log calls it.
    pub kind: String,
    /// What happened the last time, for people; may hold what senders of alerts wrote.
    pub text: String,
    /// How often it happened, since it is remembered.
    pub count: u64,
    /// When it happened first.
    #[schema(format = DateTime)]
    pub first: String,
    /// When it happened last.
    #[schema(format = DateTime)]
    pub last: String,
}

/// What a [`Problem`] says of a host that is not there yet.
pub const STARTING: &str = "the host is starting; ask again in a moment, or see /readyz";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong and what to do.
    pub error: String,
}

impl From<Reading> for Spread {
    fn from(reading: Reading) -> Self {
        let bucket = |(bound, count): (f64, u64)| Bucket { up_to: Some(bound).filter(|it| it.is_finite()), count };
        let spread = Self {
            count: reading.count,
            sum: reading.sum,
            p50: None,
            p99: None,
            buckets: reading.buckets.into_iter().map(bucket).collect(),
        };
        Self { p50: spread.quantile(0.5), p99: spread.quantile(0.99), ..spread }
    }
}

impl Spread {
    /// The value that this share of all values does not exceed, as far as the buckets tell: within one, values are taken to be
    /// spread evenly, and those above the last bound to be at it. None when there are no values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a share of counts is about right anyway")]
        let wanted = self.buckets.iter().map(|bucket| bucket.count).sum::<u64>() as f64 * share;
        let (mut below, mut bound) = (0.0, 0.0);
        for Bucket { up_to, count } in self.buckets.iter().filter(|_| wanted > 0.0) {
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let count = *count as f64;
            let Some(up_to) = *up_to else { return Some(bound) };
            if count > 0.0 && below + count >= wanted {
                return Some(bound + (up_to - bound) * (wanted - below) / count);
            }
            (below, bound) = (below + count, up_to);
        }
        None
    }

    /// What came since an earlier reading of the same.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |at: usize| earlier.buckets.get(at).map_or(0, |bucket| bucket.count);
        let bucket =
            |(at, now): (usize, &Bucket)| Bucket { count: now.count.saturating_sub(before(at)), ..now.clone() };
        let spread = Self {
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum - earlier.sum,
            p50: None,
            p99: None,
            buckets: self.buckets.iter().enumerate().map(bucket).collect(),
        };
        Self { p50: spread.quantile(0.5), p99: spread.quantile(0.99), ..spread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(counts: [u64; 4]) -> Spread {
        let bounds = [1.0, 2.0, 10.0, f64::INFINITY];
        Spread::from(Reading {
            sum: 0.0,
            count: counts.iter().sum(),
            buckets: bounds.into_iter().zip(counts).collect(),
        })
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_as_far_as_the_bucket_is_needed() {
        assert_eq!((spread([0; 4]).p50, spread([0; 4]).p99), (None, None));
        assert_eq!((spread([10, 0, 0, 0]).p50, spread([10, 0, 0, 0]).p99), (Some(0.5), Some(0.99)));
        assert_eq!((spread([50, 0, 50, 0]).p50, spread([50, 0, 50, 0]).p99), (Some(1.0), Some(9.84)));
        assert_eq!(spread([0, 0, 0, 1]).p50, Some(10.0), "all that is known is that it is more");
    }

    #[test]
    fn what_stays_unavailable_after_the_last_retry_is_a_failure() {
        let step = |retries: u64| -> Step {
            let json = serde_json::json!({"step": "geo", "stage": null, "plugin": "geo", "version": null, "sha256": null, "required": true,
                "probation": null, "alarms": [], "calls": 21, "retries": retries,
                "outcomes": {"ok": 10, "not-applicable": 1, "unavailable": 9, "trap": 1},
                "duration_seconds": Spread::default(), "fuel": Spread::default(), "tables": [], "http": [],
                "limits": {"fuel": 1, "timeout_seconds": 1.0, "memory": 1, "reuse": 1}});
            serde_json::from_value(json).unwrap()
        };
        let failures =
            |retries| step(retries).failures().map(|(kind, count)| (kind.to_owned(), count)).collect::<Vec<_>>();
        assert_eq!(failures(0), [("trap".to_owned(), 1), ("unavailable".to_owned(), 9)]);
        assert_eq!(failures(6), [("trap".to_owned(), 1), ("unavailable".to_owned(), 3)]);
        assert_eq!(failures(9), [("trap".to_owned(), 1)]);
    }

    #[test]
    fn what_came_since_is_told_apart_from_what_was_before() {
        let (before, now) = (spread([1_000_000, 0, 0, 0]), spread([1_000_000, 10, 0, 0]));
        assert!(now.p99.is_some_and(|p99| p99 < 1.0));
        let recent = now.since(&before);
        assert_eq!((recent.count, recent.p50, recent.p99), (10, Some(1.5), Some(1.99)));
    }
}
