//! Alerts and the steps that they go through.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::Level;

use super::{List, micros};
use crate::dead_letter::Reason;
use crate::record::{Label, Record, StepTrace};
use crate::telemetry::metrics::{AlertLabels, DeadLabels, StepLabel};
use crate::telemetry::relay::Relayed;
use crate::telemetry::tap::{Taps, Wanted};
use crate::telemetry::{Event, Metrics, Noted, Told};

/// How much of what an optional step said of its failure stands in the alert's line, in bytes.
const STEP_DETAIL: usize = 256;

/// An alert came to its end: the one line that every alert gets.
#[derive(Debug)]
pub struct AlertFinished<'a> {
    /// The alert's id; none when it could not be decoded.
    pub id: Option<&'a str>,
    /// Where it was in the queue.
    pub entry: &'a str,
    /// `stored`, `conflict`, `duplicate`, `replaced`, `kept`, `dead` or `lost`.
    pub outcome: &'static str,
    /// The verdict of a stored one.
    pub verdict: Option<Label>,
    /// Why a dead one is dead, and the detail.
    pub reason: Option<(Reason, &'a str)>,
    /// The step that failed, if a dead one died of one.
    pub step: Option<&'a str>,
    /// From received to committed.
    pub duration: Duration,
    /// How often it was delivered.
    pub deliveries: u32,
    /// What the steps did.
    pub steps: &'a [StepTrace],
    /// What is stored of it; none of a dead one.
    pub record: Option<&'a Record>,
}

impl Event for AlertFinished<'_> {
    fn count(&self, metrics: &Metrics) {
        let verdict = self.verdict.map_or("none", Label::as_str);
        metrics.alerts.get_or_create(&AlertLabels { outcome: self.outcome, verdict }).inc();
        metrics.alert_duration.observe(self.duration.as_secs_f64());
        match self.outcome {
            "conflict" => _ = metrics.id_conflicts.inc(),
            "duplicate" => _ = metrics.duplicates.inc(),
            "dead" => {
                let reason = self.reason.map_or("", |(reason, _)| reason.as_str());
                let step = metrics.name(self.step.unwrap_or_default());
                metrics.dead_letters.get_or_create(&DeadLabels { reason, step }).inc();
            }
            _ => {}
        }
    }

    fn tap(&self, taps: &Taps) {
        // What is stored now; a duplicate was shown when it was stored.
        let stored = matches!(self.outcome, "stored" | "conflict" | "replaced");
        let (Some(record), Some(id), true) = (self.record, self.id, stored) else { return };
        let wants = |wanted: &Wanted| match wanted {
            Wanted::Records(verdict) => verdict.is_none_or(|verdict| self.verdict == Some(verdict)),
            Wanted::Step(_) => false,
        };
        taps.offer(wants, || [b"{\"record\":", Record::head(id).as_bytes(), &record.rest, b"}"].concat());
    }

    fn noted(&self) -> Option<Noted> {
        let (reason, detail) = self.reason.filter(|_| self.outcome == "dead")?;
        let step = self.step.unwrap_or_default();
        let whose = if step.is_empty() { String::new() } else { format!("{step}: ") };
        // What could not be decoded has no id of its own; `dossier explain` knows it by its entry.
        let which = self.id.map_or_else(|| format!("entry {}", self.entry), |id| format!("alert {id}"));
        Noted::error("alert dead", format!("{reason} {step}"), format!("{whose}{reason}: {detail} ({which})"))
    }

    fn log(&self) {
        let message = match self.outcome {
            "stored" => "alert stored",
            "conflict" => "alert stored beside another with its id",
            "duplicate" => "alert was stored before",
            "replaced" => "alert enriched anew, in the place of its record",
            "kept" => "alert not enriched anew: its record stays as it was",
            "dead" => "alert dead",
            "lost" => "alert taken over by another host",
            _ => "alert finished",
        };
        let steps: Vec<_> = self.steps.iter().map(Brief::of).collect();
        tracing::info!(
            target: "dossier::alert",
            message,
            id = self.id,
            entry = self.entry,
            outcome = self.outcome,
            verdict = self.verdict.map(Label::as_str),
            reason = self.reason.map(|(reason, _)| reason.as_str()),
            step = self.step,
            detail = self.reason.map(|(_, detail)| detail),
            duration_us = micros(self.duration),
            deliveries = self.deliveries,
            steps = ?List(&steps),
        );
    }

    fn told(&self) -> Option<Told> {
        let dossier = self.record.and_then(|record| {
            // The record without its id: the first brace is missing.
            let json = [b"{\"schema\":1", &*record.rest].concat();
            serde_json::from_slice::<Dossier>(&json).ok()
        });
        let id = self.id.unwrap_or(self.entry);
        let took = self.duration.as_secs_f64() * 1e3;
        let first = match (&self.reason, &dossier) {
            (Some((reason, detail)), _) => {
                let step = self.step.map(|step| format!("{step}: ")).unwrap_or_default();
                format!("alert {id} {} in {took:.1} ms: {step}{reason}: {detail}", self.outcome)
            }
            (None, Some(Dossier { verdict, .. })) => {
                format!("alert {id} {} in {took:.1} ms: {} {}", self.outcome, verdict.label, verdict.score)
            }
            (None, None) => format!("alert {id} {} in {took:.1} ms", self.outcome),
        };
        let results = dossier.map(|dossier| dossier.enrichment).unwrap_or_default();
        let step = |trace: &StepTrace| {
            let said = match (results.get(&trace.facts.step), &trace.detail) {
                (Some(fields), _) => fields.get().to_owned(),
                (None, Some(detail)) => format!("{}: {detail}", trace.outcome),
                (None, None) => trace.outcome.to_owned(),
            };
            format!("{} {said}", trace.facts.step)
        };
        let level = if self.reason.is_some() { Level::ERROR } else { Level::INFO };
        Some(Told { level, lines: std::iter::once(first).chain(self.steps.iter().map(step)).collect() })
    }
}

/// What of a record is told.
#[derive(Deserialize)]
struct Dossier {
    #[serde(default)]
    enrichment: BTreeMap<String, Box<RawValue>>,
    verdict: Judged,
}

#[derive(Deserialize)]
struct Judged {
    label: String,
    score: u8,
}

/// What of a step's trace stands in the alert's line.
#[derive(Serialize)]
struct Brief<'a> {
    step: &'a str,
    outcome: &'static str,
    duration_us: u64,
    fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl<'a> Brief<'a> {
    fn of(trace: &'a StepTrace) -> Self {
        // Why an optional step failed stands in the record only; the log must tell of every failure.
        let failed = !matches!(trace.outcome, "ok" | "not-applicable" | "absent");
        let detail = trace.detail.as_deref().filter(|_| failed);
        Self {
            step: &trace.facts.step,
            outcome: trace.outcome,
            duration_us: trace.duration_us,
            fuel: trace.fuel,
            detail: detail.map(|detail| &detail[..detail.floor_char_boundary(STEP_DETAIL)]),
        }
    }
}

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}µs", self.step, self.outcome, self.duration_us)?;
        if let Some(detail) = self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

/// A step is called again later.
#[derive(Debug)]
pub struct StepRetried<'a> {
    /// The step.
    pub step: &'a str,
    /// The alert.
    pub id: &'a str,
    /// What was not there.
    pub reason: &'a str,
    /// How long it waits.
    pub wait: Duration,
}

impl Event for StepRetried<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.step_retries.get_or_create(&StepLabel { step: metrics.name(self.step) }).inc();
    }

    fn noted(&self) -> Option<Noted> {
        Noted::warning("step retried", self.step, format!("{}: {}", self.step, self.reason))
    }

    fn log(&self) {
        tracing::warn!(
            target: "dossier::step",
            step = self.step,
            id = self.id,
            reason = self.reason,
            wait_us = micros(self.wait),
            "step retried"
        );
    }

    fn told(&self) -> Option<Told> {
        let line = format!(
            "{} is unavailable for alert {}: {}; again in {} ms",
            self.step,
            self.id,
            self.reason,
            self.wait.as_millis()
        );
        Some(Told::line(Level::WARN, line))
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::StepRetried {
            step: self.step.to_owned(),
            id: self.id.to_owned(),
            reason: self.reason.to_owned(),
            wait: self.wait,
        })
    }
}

/// One call of a step ended.
#[derive(Debug)]
pub struct StepCalled<'a> {
    /// The step.
    pub step: &'a str,
    /// Its stage.
    pub stage: &'static str,
    /// `ok`, `not-applicable`, `unavailable`, or the reason of its failure.
    pub outcome: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// The fuel that it used.
    pub fuel: u64,
}

impl Event for StepCalled<'_> {
    fn count(&self, metrics: &Metrics) {
        let series = metrics.step(self.step);
        metrics.step_called(&series, self.stage, self.outcome);
        series.duration.observe(self.duration.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a histogram's sum is a float anyway")]
        series.fuel.observe(self.fuel as f64);
    }

    /// At `debug`: how the calls ended stands in the alert's line.
    fn log(&self) {
        tracing::debug!(
            target: "dossier::step",
            step = self.step,
            stage = self.stage,
            outcome = self.outcome,
            duration_us = micros(self.duration),
            fuel = self.fuel,
            "step called"
        );
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::StepCalled {
            step: self.step.to_owned(),
            stage: self.stage.to_owned(),
            outcome: self.outcome.to_owned(),
            duration: self.duration,
            fuel: self.fuel,
        })
    }
}
