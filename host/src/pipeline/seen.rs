//! What a step was given and what it gave, for who taps it. Changes nothing, and is asked only while somebody looks on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::run::micros;
use super::{Answer, Cost, Failure, Given};
use crate::alert::observables::Observable;
use crate::record::{KnownStep, Verdict};
use crate::telemetry::tap::{Taps, Wanted};

/// A line of a tap.
#[derive(Serialize)]
struct Line<'a> {
    call: Call<'a>,
}

/// One call of a step.
#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    step: &'a str,
    stage: &'a str,
    plugin: &'a str,
    version: &'a str,
    sha256: &'a str,
    ended: Timestamp,
    /// 1 for the first, more for those after it was unavailable.
    attempt: u32,
    outcome: &'a str,
    /// What it said beside an outcome that is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// The original; decoded before, so it is JSON.
    alert: Option<&'a RawValue>,
    /// What else it was given.
    given: What<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gave: Option<Gave<'a>>,
    cached: bool,
    tables: &'a BTreeMap<String, String>,
    fuel: u64,
    memory: u64,
    duration_us: u64,
}

/// What it was given beside the alert.
#[derive(Serialize)]
struct What<'a> {
    observables: &'a [Observable],
    enrichment: BTreeMap<&'a str, &'a RawValue>,
}

/// What it gave.
#[derive(Serialize)]
struct Gave<'a> {
    fields: &'a RawValue,
    observables: &'a [Observable],
    verdict: Option<&'a Verdict>,
}

/// Shows a call to those who tap its step.
pub(super) fn offer(
    taps: &Taps,
    facts: &KnownStep,
    given: &Given,
    result: &Result<Answer, Failure>,
    cost: &Cost,
    (outcome, attempt): (&str, u32),
) {
    let wants = |wanted: &Wanted| matches!(wanted, Wanted::Step(step) if *step == facts.step);
    taps.offer(wants, || {
        let (gave, detail) = match result {
            Ok(Answer { fields, observables, verdict }) => {
                (Some(Gave { fields, observables, verdict: verdict.as_ref() }), None)
            }
            Err(Failure::NotApplicable(why) | Failure::Unavailable { reason: why, .. }) => (None, Some(why.as_str())),
            Err(Failure::Failed { detail, .. }) => (None, Some(detail.as_str())),
        };
        let call = Call {
            id: &given.alert.id,
            step: &facts.step,
            stage: facts.stage,
            plugin: &facts.plugin,
            version: &facts.version,
            sha256: &facts.sha256,
            ended: Timestamp::now(),
            attempt,
            outcome,
            detail,
            alert: serde_json::from_slice(&given.alert.bytes).ok(),
            given: What {
                observables: &given.observables,
                enrichment: given.enrichment.iter().map(|(step, fields)| (step.as_str(), &**fields)).collect(),
            },
            gave,
            cached: cost.cached,
            tables: &cost.tables,
            fuel: cost.fuel,
            memory: cost.memory,
            duration_us: micros(cost.duration),
        };
        // Texts and numbers only: nothing that cannot be written.
        serde_json::to_vec(&Line { call }).unwrap_or_default()
    });
}
