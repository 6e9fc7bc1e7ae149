//! The way of an alert with steps that are plain Rust, so that every order of outcomes can be had.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

use bytes::Bytes;

use super::*;
use crate::alert::Decoder;
use crate::config::{AlertConfig, StepConfig};
use crate::pipeline::Enricher;
use crate::telemetry::redact::Redactor;

type Script = Box<dyn Fn(&Given, u32) -> Result<Answer, Failure> + Send + Sync>;

/// A step that does what its script says, at once or later; counts its calls.
struct Scripted {
    script: Script,
    calls: AtomicU32,
    later: bool,
}

#[async_trait::async_trait]
impl Enricher for Scripted {
    fn version(&self) -> &str {
        "1.0.0"
    }

    fn sha256(&self) -> &str {
        "abc"
    }

    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.later {
            tokio::task::yield_now().await;
        }
        ((self.script)(&given, call), Cost { fuel: 7, ..Cost::default() })
    }
}

fn step(
    name: &str,
    stage: Stage,
    script: impl Fn(&Given, u32) -> Result<Answer, Failure> + Send + Sync + 'static,
) -> LoadedStep {
    scripted(name, stage, false, script)
}

fn scripted(
    name: &str,
    stage: Stage,
    later: bool,
    script: impl Fn(&Given, u32) -> Result<Answer, Failure> + Send + Sync + 'static,
) -> LoadedStep {
    let config = StepConfig { required: true, retries: 2, ..StepConfig::unnamed(name) };
    LoadedStep {
        config: Arc::new(config),
        stage,
        settings_sha256: "s".into(),
        enricher: Some(Arc::new(Scripted { script: Box::new(script), calls: AtomicU32::new(0), later })),
    }
}

fn optional(mut step: LoadedStep) -> LoadedStep {
    let config = StepConfig { required: false, ..(*step.config).clone() };
    step.config = Arc::new(config);
    step
}

fn fields(json: &str) -> Answer {
    let fields = RawValue::from_string(json.to_owned()).expect("test JSON");
    Answer { fields, observables: Vec::new(), verdict: None }
}

fn failed(reason: Reason) -> Result<Answer, Failure> {
    Err(Failure::Failed { reason, detail: "because".into() })
}

fn unavailable() -> Result<Answer, Failure> {
    Err(Failure::Unavailable { reason: "api down".into(), after: None })
}

/// Runs to the end; gives it and how often there was a wait.
async fn run(steps: Vec<LoadedStep>) -> (Finished, u32) {
    let decoder = Decoder::new(&AlertConfig { id: vec!["/id".into()], observables: Vec::new() });
    let alert = decoder
        .decode(Bytes::from_static(br#"{"id":"a","src_ip":"1.2.3.4"}"#), jiff::Timestamp::UNIX_EPOCH)
        .expect("a good alert");
    let pipeline = Arc::new(Pipeline::new(steps));
    let mut run = Run::new(pipeline, Arc::default(), Arc::new(alert), Arc::default());
    let mut waits = 0;
    loop {
        match run.advance().await {
            Progress::Done(finished) => return (*finished, waits),
            Progress::Wait(until) => {
                waits += 1;
                tokio::time::sleep_until(until).await;
            }
        }
    }
}

#[tokio::test]
async fn the_next_stage_sees_what_a_stage_found_and_its_own_stage_does_not() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watch = |name: &'static str, seen: &Arc<Mutex<Vec<String>>>| {
        let seen = seen.clone();
        move |given: &Given, _| {
            let names: Vec<_> = given.enrichment.iter().map(|(step, _)| step.as_str()).collect();
            seen.lock().expect("test lock").push(format!("{name} sees [{}]", names.join(" ")));
            Ok(fields(r#"{"a":1}"#))
        }
    };
    // The verdict stands first in the configuration and runs last all the same.
    let steps = vec![
        step("verdict", Stage::Verdict, watch("verdict", &seen)),
        step("b", Stage::Enrich, watch("b", &seen)),
        step("c", Stage::Enrich, watch("c", &seen)),
        step("a", Stage::Normalize, watch("a", &seen)),
    ];
    let (finished, _) = run(steps).await;
    let seen = seen.lock().expect("test lock").clone();
    assert_eq!(seen, ["a sees []", "b sees [a]", "c sees [a]", "verdict sees [b c a]"]);
    assert!(finished.failure.is_none());
    assert_eq!(finished.verdict.label, Label::Unknown);
    assert_eq!(
        finished.steps.iter().map(|step| step.facts.step.as_str()).collect::<Vec<_>>(),
        ["verdict", "b", "c", "a"]
    );
}

#[tokio::test]
async fn an_observable_that_normalize_adds_is_seen_later_and_stored_once() {
    let added = || Observable { kind: "ip".into(), role: "related".into(), value: "9.9.9.9".into() };
    let normalize = move |_: &Given, _| Ok(Answer { observables: vec![added(), added()], ..fields("{}") });
    let enrich = |given: &Given, _| {
        assert!(given.observables.iter().any(|observable| observable.value == "9.9.9.9"));
        Ok(fields("{}"))
    };
    let (finished, _) = run(vec![step("n", Stage::Normalize, normalize), step("e", Stage::Enrich, enrich)]).await;
    assert_eq!(finished.observables.len(), 2);
}

#[tokio::test]
async fn a_required_step_that_fails_makes_the_alert_dead_and_later_stages_do_not_run() {
    let steps = vec![
        step("good", Stage::Enrich, |_, _| Ok(fields("{}"))),
        step("bad", Stage::Enrich, |_, _| failed(Reason::Trap)),
        step("worse", Stage::Enrich, |_, _| failed(Reason::Timeout)),
        step("verdict", Stage::Verdict, |_, _| panic!("a stage after a failure must not run")),
    ];
    let (finished, _) = run(steps).await;
    let (reason, detail, step) = finished.failure.expect("the alert is dead");
    assert_eq!((reason, detail.as_str(), step.step.as_str(), step.fuel), (Reason::Trap, "because", "bad", 7));
}

#[tokio::test]
async fn an_optional_step_that_fails_is_recorded_and_sends_nothing_away() {
    let (finished, _) = run(vec![
        optional(step("bad", Stage::Enrich, |_, _| failed(Reason::Memory))),
        optional(LoadedStep { enricher: None, ..step("gone", Stage::Enrich, |_, _| unavailable()) }),
        step("nothing", Stage::Enrich, |_, _| Err(Failure::NotApplicable("no address".into()))),
    ])
    .await;
    assert!(finished.failure.is_none());
    assert!(finished.enrichment.is_empty());
    let outcomes: Vec<_> = finished.steps.iter().map(|step| (step.outcome, step.detail.as_deref())).collect();
    assert_eq!(outcomes, [("memory", Some("because")), ("absent", None), ("not-applicable", Some("no address"))]);
}

#[tokio::test]
async fn an_unavailable_step_is_called_again_and_its_neighbours_are_not() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let (finished, waits) = run(vec![
        step("flaky", Stage::Enrich, |_, call| if call < 3 { unavailable() } else { Ok(fields("{}")) }),
        step("steady", Stage::Enrich, move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(fields("{}"))
        }),
    ])
    .await;
    assert!(finished.failure.is_none());
    assert_eq!((waits, finished.steps[0].attempts, calls.load(Ordering::Relaxed)), (2, 3, 1));
}

#[tokio::test]
async fn a_step_that_is_called_again_does_not_see_what_its_own_stage_found_meanwhile() {
    let flaky = |given: &Given, call| {
        assert!(given.enrichment.is_empty() && given.observables.len() == 1);
        if call < 2 { unavailable() } else { Ok(fields("{}")) }
    };
    let added = || Observable { kind: "ip".into(), role: "related".into(), value: "9.9.9.9".into() };
    let steady = move |_: &Given, _| Ok(Answer { observables: vec![added()], ..fields("{}") });
    let (finished, waits) =
        run(vec![step("flaky", Stage::Normalize, flaky), step("steady", Stage::Normalize, steady)]).await;
    let names: Vec<_> = finished.enrichment.iter().map(|(step, _)| step.as_str()).collect();
    assert_eq!((names, waits, finished.observables.len()), (vec!["flaky", "steady"], 1, 2));
}

#[tokio::test]
async fn a_step_that_stays_unavailable_makes_the_alert_dead_after_its_retries() {
    let (finished, waits) = run(vec![step("down", Stage::Enrich, |_, _| unavailable())]).await;
    let (reason, detail, step) = finished.failure.expect("the alert is dead");
    assert_eq!((reason, step.calls, waits), (Reason::Unavailable, 3, 2));
    assert!(detail.contains("api down"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_not_done_at_once_run_on_as_many_threads_as_there_are() {
    // Each keeps its thread until the other one keeps a second.
    let both: Arc<(Mutex<u32>, Condvar)> = Arc::default();
    let meets = |name| {
        let both = Arc::clone(&both);
        scripted(name, Stage::Enrich, true, move |_, _| {
            let (here, changed) = &*both;
            let mut count = here.lock().expect("test lock");
            *count += 1;
            changed.notify_all();
            let waited = changed.wait_timeout_while(count, Duration::from_secs(20), |count| *count < 2);
            assert!(!Masks::current().is_empty(), "what must not be said of the alert is known on every thread");
            if waited.expect("test lock").1.timed_out() { failed(Reason::Timeout) } else { Ok(fields("{}")) }
        })
    };
    let masks = Redactor::new(&["/id".to_owned()]).find_in(br#"{"id":"secret"}"#);
    let (finished, _) = masks.during(run(vec![meets("one"), meets("other")])).await;
    assert!(finished.failure.is_none(), "{:?}", finished.failure);
}

#[tokio::test]
async fn a_call_that_panics_later_panics_in_its_alerts_task() {
    let panics = scripted("panics", Stage::Enrich, true, |_, _| std::panic::resume_unwind(Box::new("as planned")));
    let ended = tokio::spawn(run(vec![panics])).await;
    assert_eq!(ended.err().map(|error| error.into_panic().downcast_ref::<&str>().copied()), Some(Some("as planned")));
}

#[test]
fn waits_grow_are_jittered_and_bounded() {
    for calls in 1..40 {
        let wait = backoff(calls, None);
        assert!(wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT);
    }
    assert!(backoff(4, None) >= FIRST_WAIT * 4);
    assert_eq!(backoff(1, Some(Duration::from_secs(3))), Duration::from_secs(3));
    assert_eq!(backoff(1, Some(Duration::from_secs(3600))), LONGEST_WAIT);
}
