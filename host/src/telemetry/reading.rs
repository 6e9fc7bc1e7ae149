//! What was counted until now, for who looks at a running host: the same numbers that `/metrics` shows. Counts nothing itself, and
//! makes no series that is not there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::distribution::Reading;
use super::metrics::{AlertLabels, DeadLabels, Metrics, StepLabel, TableLabel};
use crate::dead_letter::Reason;
use crate::queue::Depth;
use crate::record::Label;

/// How full the queue was, and when.
#[derive(Debug, Clone)]
pub struct Measured {
    /// How full.
    pub depth: Depth,
    /// When it was measured.
    pub at: Instant,
    /// How many alerts this host had brought to their end by then.
    pub finished: u64,
}

/// The alerts that this host brought to their ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// Stored under their own ids.
    pub stored: u64,
    /// Stored beside another with their id.
    pub conflicts: u64,
    /// Stored before.
    pub duplicates: u64,
    /// Stored in the place of their records.
    pub replaced: u64,
    /// Failed, while their records stay.
    pub kept: u64,
    /// Dead.
    pub dead: u64,
    /// Taken over by another host.
    pub lost: u64,
    /// The stored ones by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// From received to committed, in seconds.
    pub duration: Reading,
}

impl Alerts {
    /// Those that this host let go of.
    pub fn finished(&self) -> u64 {
        self.stored + self.conflicts + self.duplicates + self.replaced + self.kept + self.dead
    }
}

/// The calls of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Calls {
    /// How they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// How many were repeated because something was unavailable.
    pub retries: u64,
    /// Wall-clock time, in seconds.
    pub duration: Reading,
    /// Fuel.
    pub fuel: Reading,
}

impl Metrics {
    /// The alerts until now.
    pub(super) fn alerts(&self) -> Alerts {
        let count =
            |outcome, verdict| self.alerts.get(&AlertLabels { outcome, verdict }).map_or(0, |counter| counter.get());
        let labels = Label::ALL.map(Label::as_str);
        let all = |outcome| labels.iter().chain(&["none"]).map(|label| count(outcome, label)).sum();
        let verdict = |label: &'static str| (label.to_owned(), count("stored", label) + count("conflict", label));
        Alerts {
            stored: all("stored"),
            conflicts: all("conflict"),
            duplicates: all("duplicate"),
            replaced: all("replaced"),
            kept: all("kept"),
            dead: all("dead"),
            lost: all("lost"),
            verdicts: labels.map(verdict).into(),
            duration: self.alert_duration.read(),
        }
    }

    /// The calls of a step until now; none when it was never called.
    pub(super) fn calls(&self, step: &str) -> Option<Calls> {
        let series = Arc::clone(self.steps.read().unwrap_or_else(PoisonError::into_inner).get(step)?);
        let mut outcomes = BTreeMap::new();
        for (stage, outcome, _) in series.calls.read().unwrap_or_else(PoisonError::into_inner).iter() {
            // Two that came at once note the same counter twice, so it is asked for by its labels.
            let labels = super::metrics::CallLabels { step: self.name(step), stage, outcome };
            let calls = self.step_calls.get(&labels).map_or(0, |counter| counter.get());
            outcomes.entry(((*stage).to_owned(), (*outcome).to_owned())).or_insert(calls);
        }
        let mut by_outcome = BTreeMap::new();
        for ((_, outcome), calls) in outcomes {
            *by_outcome.entry(outcome).or_default() += calls;
        }
        let retries = self.step_retries.get(&StepLabel { step: self.name(step) }).map_or(0, |counter| counter.get());
        Some(Calls { outcomes: by_outcome, retries, duration: series.duration.read(), fuel: series.fuel.read() })
    }

    /// How many alerts this host put into the dead letters because of one of these steps, or none, by reason and step; no zeros.
    pub(super) fn dead<'a>(&self, steps: impl Iterator<Item = &'a str>) -> Vec<(Reason, Option<String>, u64)> {
        let mut dead = Vec::new();
        for step in std::iter::once("").chain(steps) {
            for reason in Reason::ALL {
                let labels = DeadLabels { reason: reason.as_str(), step: self.name(step) };
                let count = self.dead_letters.get(&labels).map_or(0, |counter| counter.get());
                if count > 0 {
                    dead.push((reason, Some(step.to_owned()).filter(|step| !step.is_empty()), count));
                }
            }
        }
        dead
    }

    /// When a table was loaded, in Unix seconds.
    pub(super) fn table_loaded(&self, table: &str) -> Option<f64> {
        self.table_loaded.get(&TableLabel { table: self.name(table) }).map(|loaded| loaded.get())
    }

    /// How full the queue was when it was measured last.
    pub(super) fn measured(&self) -> Option<Measured> {
        self.depth.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
