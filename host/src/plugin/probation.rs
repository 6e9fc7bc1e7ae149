//! Probation: counts how the first calls of a plugin's new version end, and decides whether it has proven itself. What follows
//! from that is up to [`super::directory`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::config::ProbationConfig;
use crate::dead_letter::Reason;
use crate::pipeline::{Answer, Cost, Enricher, Failure, Given, LoadedStep, Trial};

/// The probation of one version of a plugin, with all its steps.
pub(super) struct Probation {
    /// How many calls are looked at.
    calls: u32,
    /// With so many failures among them it has failed.
    failures: u32,
    tally: Mutex<Tally>,
    /// Told when it is decided.
    decided: Arc<Notify>,
}

/// What was seen so far.
#[derive(Default)]
struct Tally {
    calls: u32,
    failures: BTreeMap<Reason, u32>,
    decision: Option<Decision>,
}

/// What a probation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It has proven itself.
    Passed,
    /// Too many of its calls failed.
    Failed,
}

impl Probation {
    /// Begins; none where the configuration wants none.
    pub(super) fn begin(config: ProbationConfig, decided: Arc<Notify>) -> Option<Arc<Self>> {
        if config.calls == 0 {
            return None;
        }
        // Shares such as 0.2 are not exact: what they miss by must not become one call more.
        let failures = (f64::from(config.calls) * config.failures - 1e-6).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is between 0 and 1")]
        let failures = (failures as u32).max(1);
        Some(Arc::new(Self { calls: config.calls, failures, tally: Mutex::default(), decided }))
    }

    /// What was decided, if anything.
    pub(super) fn decision(&self) -> Option<Decision> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).decision
    }

    /// How it went, in words.
    pub(super) fn summary(&self) -> String {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: u32 = tally.failures.values().sum();
        let reasons: Vec<_> = tally.failures.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = if failed > 0 { format!(" ({})", reasons.join(", ")) } else { String::new() };
        format!("{failed} of its first {} calls failed{reasons}", tally.calls)
    }

    /// How far it is; none once it is decided.
    fn progress(&self) -> Option<Trial> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = tally.failures.values().sum();
        let trial = Trial { calls: tally.calls, of: self.calls, failed, fails_at: self.failures };
        tally.decision.is_none().then_some(trial)
    }

    /// A step whose calls count.
    pub(super) fn watch(self: &Arc<Self>, step: &LoadedStep) -> LoadedStep {
        let watched = |step: &Arc<dyn Enricher>| {
            Arc::new(Watched { step: Arc::clone(step), probation: Arc::clone(self) }) as Arc<dyn Enricher>
        };
        LoadedStep { enricher: step.enricher.as_ref().map(watched), ..step.clone() }
    }

    /// Ends it as a test wants it.
    #[cfg(test)]
    pub(super) fn decide(&self, passes: bool) {
        let decision = if passes { Decision::Passed } else { Decision::Failed };
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).decision = Some(decision);
    }

    /// Notes how a call ended; nothing after it is decided.
    fn note(&self, outcome: &Result<Answer, Failure>) {
        let failure = match outcome {
            // What is away is away for every version, and the call is repeated: it says nothing about this one.
            Err(Failure::Unavailable { .. }) => return,
            // The plugin works and finds fault with the alert. If that counted, whoever can send alerts could have any new
            // version taken out.
            Err(Failure::Failed { reason: Reason::Invalid, .. }) | Err(Failure::NotApplicable(_)) | Ok(_) => None,
            Err(Failure::Failed { reason, .. }) => Some(*reason),
        };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if tally.decision.is_some() {
            return;
        }
        tally.calls += 1;
        if let Some(reason) = failure {
            *tally.failures.entry(reason).or_default() += 1;
        }
        if tally.failures.values().sum::<u32>() >= self.failures {
            tally.decision = Some(Decision::Failed);
        } else if tally.calls >= self.calls {
            tally.decision = Some(Decision::Passed);
        } else {
            return;
        }
        drop(tally);
        self.decided.notify_one();
    }
}

/// A step whose calls count.
struct Watched {
    step: Arc<dyn Enricher>,
    probation: Arc<Probation>,
}

#[async_trait]
impl Enricher for Watched {
    fn version(&self) -> &str {
        self.step.version()
    }

    fn sha256(&self) -> &str {
        self.step.sha256()
    }

    fn probation(&self) -> Option<Trial> {
        self.probation.progress()
    }

    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost) {
        let (outcome, cost) = self.step.enrich(given).await;
        self.probation.note(&outcome);
        (outcome, cost)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn begin(calls: u32, failures: f64) -> Arc<Probation> {
        Probation::begin(ProbationConfig { calls, failures }, Arc::default()).unwrap()
    }

    fn fine() -> Result<Answer, Failure> {
        let fields = RawValue::from_string("{}".into()).unwrap();
        Ok(Answer { fields, observables: Vec::new(), verdict: None })
    }

    fn failed(reason: Reason) -> Result<Answer, Failure> {
        Err(Failure::Failed { reason, detail: "why".into() })
    }

    fn notes(probation: &Probation, count: u32, outcome: impl Fn() -> Result<Answer, Failure>) -> Option<Decision> {
        (0..count).for_each(|_| probation.note(&outcome()));
        probation.decision()
    }

    #[test]
    fn a_version_with_fewer_failures_than_the_share_passes_at_the_end_and_not_before() {
        let probation = begin(50, 0.2);
        assert_eq!(notes(&probation, 9, || failed(Reason::Trap)), None);
        assert_eq!(notes(&probation, 40, fine), None);
        assert_eq!(notes(&probation, 1, fine), Some(Decision::Passed));
        assert_eq!(notes(&probation, 50, || failed(Reason::Trap)), Some(Decision::Passed), "what is decided stays so");
    }

    #[test]
    fn a_version_that_reaches_the_share_fails_at_once() {
        let probation = begin(50, 0.2);
        assert_eq!(notes(&probation, 3, fine), None);
        assert_eq!(notes(&probation, 9, || failed(Reason::Timeout)), None);
        assert_eq!(notes(&probation, 1, || failed(Reason::OutOfFuel)), Some(Decision::Failed));
        assert_eq!(probation.summary(), "10 of its first 13 calls failed (out-of-fuel 1, timeout 9)");
    }

    #[test]
    fn shares_are_counted_as_people_do() {
        for (calls, share, failures) in [(50, 0.2, 10), (100, 0.07, 7), (10, 0.25, 3), (3, 0.01, 1), (5, 1.0, 5)] {
            let probation = begin(calls, share);
            assert_eq!(notes(&probation, failures - 1, || failed(Reason::Memory)), None, "{calls} {share}");
            assert_eq!(notes(&probation, 1, || failed(Reason::Memory)), Some(Decision::Failed), "{calls} {share}");
        }
        assert!(Probation::begin(ProbationConfig { calls: 0, failures: 0.2 }, Arc::default()).is_none());
    }

    #[test]
    fn what_is_unavailable_does_not_count_and_what_the_plugin_finds_invalid_is_no_failure() {
        let probation = begin(10, 0.2);
        let away = || Err(Failure::Unavailable { reason: "away".into(), after: None });
        assert_eq!(notes(&probation, 100, away), None);
        assert_eq!(notes(&probation, 5, || failed(Reason::Invalid)), None);
        assert_eq!(notes(&probation, 5, || Err(Failure::NotApplicable("no".into()))), Some(Decision::Passed));
        assert_eq!(probation.summary(), "0 of its first 10 calls failed");
        for reason in [Reason::InvalidOutput, Reason::PluginError] {
            assert_eq!(notes(&begin(10, 0.2), 2, || failed(reason)), Some(Decision::Failed), "{reason}");
        }
    }
}
