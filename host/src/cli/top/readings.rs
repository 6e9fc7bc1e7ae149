//! Readings of a host, and the rates between two of them. Knows nothing of how they are shown.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::admin::api::report::{Alarms, DeadLetters, Events, Status, Steps, Tables};
use crate::admin::{AskError, Client};

/// Over how many seconds rates are taken, about: short enough to see a change, long enough to be still.
const WINDOW: f64 = 10.0;

/// How many readings are kept, however often somebody reads.
const KEPT: usize = 64;

/// All that a host says, at about one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    /// How it is.
    pub status: Status,
    /// Its steps.
    pub steps: Steps,
    /// Its dead letters; none while the queue does not answer.
    pub dead_letters: Option<DeadLetters>,
    /// Its tables.
    pub tables: Tables,
    /// The alarms that hold.
    pub alarms: Alarms,
    /// The last events.
    pub events: Events,
}

impl Reading {
    /// Reads a host.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn of(client: &Client) -> Result<Self, AskError> {
        let (status, steps, dead_letters, tables, alarms, events) = tokio::join!(
            client.get("/api/v1/status"),
            client.get("/api/v1/steps"),
            client.get("/api/v1/dead-letters"),
            client.get("/api/v1/tables"),
            client.get("/api/v1/alarms"),
            client.get("/api/v1/events"),
        );
        // They alone are read from the queue, which may be what is in trouble. A host that is gone answers nothing else either.
        Ok(Self {
            status: status?,
            steps: steps?,
            dead_letters: dead_letters.ok(),
            tables: tables?,
            alarms: alarms?,
            events: events?,
        })
    }
}

/// What happens in a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Over how many seconds that was seen.
    pub over_seconds: f64,
    /// Alerts that were added to the queue; none before that is known.
    pub added: Option<f64>,
    /// Alerts that left the queue, by all hosts where the queue counts them, else by this one.
    pub finished: Option<f64>,
    /// Alerts that this host let go of.
    pub finished_here: f64,
    /// How many seconds it takes until the queue is empty, if all goes on as it does; none when it does not come to that.
    pub empty_in_seconds: Option<f64>,
    /// From received to committed, of the alerts that were seen.
    pub duration: Percentiles,
    /// The steps, by name.
    pub steps: BTreeMap<String, StepRates>,
}

/// What happens in a second at a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StepRates {
    /// Calls.
    pub calls: f64,
    /// Those that failed.
    pub failures: f64,
    /// Wall-clock time of those calls, in seconds.
    pub duration: Percentiles,
    /// Their fuel.
    pub fuel: Percentiles,
}

/// Two percentiles; none where nothing was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: Option<f64>,
    /// 99 of 100 are at most this.
    pub p99: Option<f64>,
}

impl From<crate::admin::api::report::Spread> for Percentiles {
    fn from(spread: crate::admin::api::report::Spread) -> Self {
        Self { p50: spread.p50, p99: spread.p99 }
    }
}

/// The last readings of a host, the oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Reading>);

impl History {
    /// Adds one. Another process than before is another host: what was read before says nothing of it.
    pub fn add(&mut self, reading: Reading) {
        let now = reading.status.uptime_seconds;
        let same = |last: &Reading| last.status.pid == reading.status.pid && last.status.uptime_seconds <= now;
        if self.0.back().is_some_and(|last| !same(last)) {
            self.0.clear();
        }
        self.0.push_back(reading);
        // One that is older than the window stays, so that there always is one to compare with.
        while self.0.len() > KEPT || self.0.get(1).is_some_and(|next| now - next.status.uptime_seconds >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// The last one.
    pub fn last(&self) -> Option<&Reading> {
        self.0.back()
    }

    /// Whether all rates are known, over so many seconds at least.
    pub fn is_telling(&self, over: f64) -> bool {
        self.rates().is_some_and(|rates| rates.added.is_some() && rates.over_seconds >= over)
    }

    /// The rates between the oldest and the newest; none before there are two.
    pub fn rates(&self) -> Option<Rates> {
        let (old, new) = (self.0.front()?, self.0.back()?);
        let over = new.status.uptime_seconds - old.status.uptime_seconds;
        if over <= 0.0 {
            return None;
        }
        let (added, finished) = self.queue(old, new, over);
        let waits = new.status.queue.depth.as_ref().map_or(0, |depth| depth.waiting + depth.in_flight);
        let shrinks = finished.zip(added).map(|(finished, added)| finished - added);
        // One that shrinks slower than this is not being emptied.
        let empty_in_seconds =
            shrinks.filter(|shrinks| *shrinks > 0.1 && waits > 0).map(|shrinks| float(waits) / shrinks);
        Some(Rates {
            over_seconds: over,
            added,
            finished,
            finished_here: rise(done(&old.status), done(&new.status), over),
            empty_in_seconds,
            duration: new.status.alerts.duration_seconds.since(&old.status.alerts.duration_seconds).into(),
            steps: steps(old, new, over),
        })
    }

    /// Alerts added and finished in a second, by all hosts.
    fn queue(&self, old: &Reading, new: &Reading, over: f64) -> (Option<f64>, Option<f64>) {
        if let (Some(old), Some(new)) = (&old.status.queue.flow, &new.status.queue.flow) {
            let left = |flow: &crate::admin::api::report::Flow| flow.stored + flow.dead + flow.duplicates + flow.kept;
            return (Some(rise(old.added, new.added, over)), Some(rise(left(old), left(new), over)));
        }
        let finished = rise(done(&old.status), done(&new.status), over);
        // What came is what there is more of, and what went. Both are known of the moments at which the host has measured.
        let depths = self.0.iter().filter_map(|reading| reading.status.queue.depth.as_ref());
        let last = new.status.queue.depth.as_ref();
        let added = last.zip(depths.clone().next()).and_then(|(last, first)| {
            let over = last.measured_seconds - first.measured_seconds;
            let were = |depth: &crate::admin::api::report::Depth| depth.waiting + depth.in_flight + depth.finished;
            (over > 0.0).then(|| rise(were(first), were(last), over))
        });
        (added, Some(finished))
    }
}

/// The alerts that this host let go of.
fn done(status: &Status) -> u64 {
    let alerts = &status.alerts;
    alerts.stored + alerts.conflicts + alerts.duplicates + alerts.replaced + alerts.kept + alerts.dead
}

fn steps(old: &Reading, new: &Reading, over: f64) -> BTreeMap<String, StepRates> {
    let before = |name: &str| old.steps.steps.iter().find(|step| step.step == name);
    let rates = |step: &crate::admin::api::report::Step| {
        let failures = |step: &crate::admin::api::report::Step| step.failures().map(|(_, count)| count).sum::<u64>();
        let Some(earlier) = before(&step.step) else { return (step.step.clone(), StepRates::default()) };
        let rates = StepRates {
            calls: rise(earlier.calls, step.calls, over),
            failures: rise(failures(earlier), failures(step), over),
            duration: step.duration_seconds.since(&earlier.duration_seconds).into(),
            fuel: step.fuel.since(&earlier.fuel).into(),
        };
        (step.step.clone(), rates)
    };
    new.steps.steps.iter().map(rates).collect()
}

/// By how much a counter rose in a second; one that fell did not rise.
fn rise(old: u64, new: u64, over: f64) -> f64 {
    float(new.saturating_sub(old)) / over
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 alerts")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::api::report::{self, Alerts, Depth, Flow, Queue, Spread};

    /// A host with one step, so many seconds after it began, that has brought so many alerts to their end while others wait.
    pub fn reading(uptime: f64, finished: u64, waiting: u64, flow: Option<u64>) -> Reading {
        let spread = |count| Spread {
            count,
            buckets: vec![report::Bucket { up_to: Some(0.001), count }, report::Bucket { up_to: None, count: 0 }],
            ..Spread::default()
        };
        Reading {
            status: Status {
                version: "0.1.0".into(),
                pid: 7,
                uptime_seconds: uptime,
                ready: true,
                problems: BTreeMap::new(),
                alarms: 0,
                queue: Queue {
                    kind: "redis".into(),
                    name: "alerts".into(),
                    depth: Some(Depth {
                        // Measured every two seconds.
                        measured_seconds: (uptime / 2.0).floor() * 2.0,
                        waiting,
                        in_flight: 3,
                        stored: 1_234_567,
                        dead: 12,
                        oldest_seconds: Some(3.25),
                        finished,
                    }),
                    flow: flow.map(|added| Flow { added, stored: finished, dead: 0, duplicates: 0, kept: 0 }),
                },
                alerts: Alerts {
                    in_flight: 3,
                    stored: finished,
                    conflicts: 0,
                    duplicates: 0,
                    replaced: 0,
                    kept: 0,
                    dead: 0,
                    lost: 0,
                    verdicts: BTreeMap::new(),
                    duration_seconds: spread(finished),
                },
                limits: report::HostLimits {
                    in_flight: 256,
                    in_flight_bytes: 1 << 24,
                    batch: 100,
                    max_alert_size: 1 << 20,
                },
            },
            steps: Steps {
                uptime_seconds: uptime,
                steps: vec![report::Step {
                    step: "geo".into(),
                    stage: Some("enrich".into()),
                    plugin: "geo".into(),
                    version: Some("0.1.0".into()),
                    sha256: Some("abcdef0123456789".repeat(4)),
                    required: true,
                    probation: None,
                    alarms: Vec::new(),
                    calls: finished,
                    outcomes: BTreeMap::from([("ok".into(), finished - finished / 10), ("trap".into(), finished / 10)]),
                    retries: 0,
                    duration_seconds: spread(finished),
                    fuel: spread(finished),
                    limits: report::StepLimits { fuel: 50_000_000, timeout_seconds: 1.0, memory: 1 << 24, reuse: 1 },
                    tables: vec!["geo".into()],
                    http: Vec::new(),
                }],
            },
            dead_letters: Some(DeadLetters {
                total: Some(12),
                alarm_from: 10_000,
                counted: 12,
                reasons: Vec::new(),
                since_start: Vec::new(),
            }),
            tables: Tables { tables: Vec::new() },
            alarms: Alarms { alarms: Vec::new(), total: 0 },
            events: Events { events: Vec::new() },
        }
    }

    fn history(readings: impl IntoIterator<Item = Reading>) -> History {
        let mut history = History::default();
        readings.into_iter().for_each(|reading| history.add(reading));
        history
    }

    #[test]
    fn rates_are_what_came_between_two_readings() {
        assert_eq!(history([reading(10.0, 1_000, 0, None)]).rates(), None);
        let rates = history([reading(10.0, 1_000, 500, Some(0)), reading(12.0, 1_200, 400, Some(50))]).rates().unwrap();
        assert_eq!((rates.added, rates.finished, rates.finished_here), (Some(25.0), Some(100.0), 100.0));
        assert_eq!(rates.empty_in_seconds, Some(403.0 / 75.0));
        let geo = &rates.steps["geo"];
        assert_eq!((geo.calls, geo.failures, geo.duration.p99), (100.0, 10.0, Some(0.00099)));
    }

    #[test]
    fn where_the_queue_does_not_count_what_came_is_what_is_there_and_what_went() {
        let rates = history([reading(10.0, 1_000, 500, None), reading(12.5, 1_200, 700, None)]).rates().unwrap();
        assert_eq!((rates.added, rates.empty_in_seconds), (Some(200.0), None));
        let unmeasured = history([reading(10.0, 1_000, 500, None), reading(11.0, 1_100, 500, None)]);
        assert!(!unmeasured.is_telling(0.0), "the host has not measured again");
    }

    #[test]
    fn what_is_enriched_anew_leaves_the_queue_as_well() {
        let later = |flow: Option<u64>| {
            let mut later = reading(12.0, 1_000, 0, flow);
            (later.status.alerts.replaced, later.status.alerts.kept, later.status.alerts.duplicates) = (60, 30, 10);
            if let Some(flow) = &mut later.status.queue.flow {
                (flow.stored, flow.kept, flow.duplicates) = (1_060, 30, 10);
            }
            later
        };
        for flow in [None, Some(0)] {
            let rates = history([reading(10.0, 1_000, 0, flow), later(flow)]).rates().unwrap();
            assert_eq!((rates.finished_here, rates.finished), (50.0, Some(50.0)));
        }
    }

    #[test]
    fn a_host_that_began_anew_is_another_host() {
        let mut history = history([reading(100.0, 1_000, 0, None), reading(2.0, 5, 0, None)]);
        assert_eq!(history.rates(), None);
        let mut other = reading(3.0, 10, 0, None);
        other.status.pid = 8;
        history.add(other);
        assert_eq!(history.rates(), None);
    }

    #[test]
    fn no_more_is_kept_than_the_window_needs() {
        let often = history((0..10_000).map(|n| reading(f64::from(n) / 1_000.0, 10, 0, None)));
        assert_eq!(often.0.len(), KEPT);
        let seldom = history((0..100).map(|n| reading(f64::from(n) * 60.0, 10, 0, None)));
        assert_eq!(seldom.0.len(), 2);
        assert_eq!(seldom.rates().unwrap().over_seconds, 60.0);
    }
}
