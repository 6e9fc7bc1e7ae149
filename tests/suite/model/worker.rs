//! The real worker and pipeline on the model: steps that end in every way, among them some that kill their process; hosts that die or
//! are stopped in the middle; a queue that refuses. What each alert must come to is worked out from its plan alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dossier::admin::Health;
use dossier::config::{Config, StepConfig};
use dossier::dead_letter::Reason;
use dossier::pipeline::{Answer, Cost, Enricher, Failure, Given, LoadedStep, Pipeline, Stage};
use dossier::queue::Queue;
use dossier::tables::{Snapshot, Tables};
use dossier::telemetry::Telemetry;
use dossier::worker::compute::Compute;
use dossier::worker::trial::local::InProcess;
use dossier::worker::trial::{Case, Isolation, Progress, Trial, TrialError};
use dossier::worker::{Worker, WorkerError};
use proptest::prelude::*;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::queue::{Refusal, SharedModel};
use super::state::{Model, Rules};

/// How often an alert may kill the process in which it is alone.
const MAX_CRASHES: u32 = 3;

/// How many hosts a story may take before it is taken for endless: each alert that kills takes one.
const MOST_HOSTS: u64 = 80;

/// The steps: name, stage, whether required.
const STEPS: [(&str, Stage, bool); 4] = [
    ("shape", Stage::Normalize, true),
    ("look", Stage::Enrich, true),
    ("hint", Stage::Enrich, false),
    ("judge", Stage::Verdict, true),
];

/// How a step ends for an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answers,
    NotApplicable,
    /// Not there at the first call, and then it answers.
    UnavailableOnce,
    /// Never there.
    Unavailable,
    Traps,
    Refuses,
    /// The host's own code panics.
    Panics,
    /// Its process dies: the host, or that of suspects.
    Kills,
}

const ENDS: [End; 8] = [
    End::Answers,
    End::NotApplicable,
    End::UnavailableOnce,
    End::Unavailable,
    End::Traps,
    End::Refuses,
    End::Panics,
    End::Kills,
];

/// How a host's life ends before everything is done.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// It dies after so many milliseconds.
    Dies(u64),
    /// It is stopped.
    Stops(u64),
}

/// One queue, from its alerts to its end.
#[derive(Debug, Clone)]
pub struct Story {
    /// For each alert, how each step ends.
    plans: Vec<[usize; 4]>,
    fates: Vec<Fate>,
    refusals: Vec<Option<bool>>,
}

/// Stories to be run side by side.
pub fn stories() -> impl Strategy<Value = Vec<Story>> {
    let end =
        prop_oneof![30 => 0..1usize, 3 => 1..2usize, 3 => 2..3usize, 2 => 3..4usize, 2 => 4..5usize, 1 => 5..8usize];
    let plan = [end.clone(), end.clone(), end.clone(), end];
    let fate = prop_oneof![(0..400u64).prop_map(Fate::Dies), (0..400u64).prop_map(Fate::Stops)];
    let refusal = prop_oneof![8 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let story =
        (prop::collection::vec(plan, 1..12), prop::collection::vec(fate, 0..8), prop::collection::vec(refusal, 0..8))
            .prop_map(|(plans, fates, refusals)| Story { plans, fates, refusals });
    prop::collection::vec(story, 1..24)
}

/// What an alert comes to: none when it is stored.
fn expected(plan: &[usize; 4]) -> Option<Reason> {
    for stage in Stage::ALL {
        let ends = || STEPS.iter().zip(plan).filter(move |((_, at, _), _)| *at == stage);
        // These end the host, or its task, whatever the others of the stage do.
        if ends().any(|(_, end)| matches!(ENDS[*end], End::Panics | End::Kills)) {
            return Some(Reason::HostCrash);
        }
        for ((_, _, required), end) in ends() {
            match ENDS[*end] {
                End::Traps if *required => return Some(Reason::Trap),
                End::Refuses if *required => return Some(Reason::Invalid),
                End::Unavailable if *required => return Some(Reason::Unavailable),
                _ => {}
            }
        }
    }
    None
}

/// A step that does what the alert says.
struct Planned {
    index: usize,
    /// Who was told once that it is not there.
    told: Arc<Mutex<BTreeSet<(String, usize)>>>,
    kill: Arc<Notify>,
}

#[async_trait]
impl Enricher for Planned {
    fn version(&self) -> &str {
        "1.0.0"
    }

    fn sha256(&self) -> &str {
        "abc"
    }

    async fn enrich(&self, given: Arc<Given>) -> (Result<Answer, Failure>, Cost) {
        // Others get their turns in between.
        tokio::task::yield_now().await;
        let plan =
            given.alert.value.pointer(&format!("/plan/{}", self.index)).and_then(|end| end.as_u64()).expect("a plan");
        let unavailable = || Err(Failure::Unavailable { reason: "not there".into(), after: None });
        let failed = |reason| Err(Failure::Failed { reason, detail: "as planned".into() });
        let fields = RawValue::from_string("{\"x\":1}".into()).expect("JSON");
        let answer = Ok(Answer { fields, observables: Vec::new(), verdict: None });
        let result = match ENDS[plan as usize] {
            End::Answers => answer,
            End::NotApplicable => Err(Failure::NotApplicable("nothing to do".into())),
            End::UnavailableOnce => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.insert((given.alert.id.clone(), self.index)) { unavailable() } else { answer }
            }
            End::Unavailable => unavailable(),
            End::Traps => failed(Reason::Trap),
            End::Refuses => failed(Reason::Invalid),
            End::Panics => std::panic::resume_unwind(Box::new("as planned".to_owned())),
            End::Kills => {
                self.kill.notify_one();
                std::future::pending().await
            }
        };
        (result, Cost::default())
    }
}

/// The process of suspects, played: one that is killed is gone, and the host lives on.
struct Cell {
    within: InProcess,
    told: Arc<Mutex<BTreeSet<(String, usize)>>>,
}

struct Inmate {
    suspect: Box<dyn Trial>,
    kill: Arc<Notify>,
}

#[async_trait]
impl Isolation for Cell {
    async fn admit(&self, case: Case, _: &Arc<Pipeline>, tables: &Arc<Snapshot>) -> Result<Box<dyn Trial>, String> {
        let kill = Arc::new(Notify::new());
        let suspect = self.within.admit(case, &pipeline(&self.told, &kill), tables).await?;
        Ok(Box::new(Inmate { suspect, kill }))
    }
}

#[async_trait]
impl Trial for Inmate {
    async fn advance(&mut self) -> Result<Progress, TrialError> {
        tokio::select! {
            biased;
            progress = self.suspect.advance() => progress,
            () = self.kill.notified() => Err(TrialError::Died("as planned".into())),
        }
    }
}

fn pipeline(told: &Arc<Mutex<BTreeSet<(String, usize)>>>, kill: &Arc<Notify>) -> Arc<Pipeline> {
    let step = |(index, (name, stage, required)): (usize, &(&str, Stage, bool))| LoadedStep {
        config: Arc::new(StepConfig { required: *required, retries: 1, ..StepConfig::unnamed(name) }),
        stage: *stage,
        settings_sha256: "s".into(),
        enricher: Some(Arc::new(Planned { index, told: Arc::clone(told), kill: Arc::clone(kill) })),
    };
    Arc::new(Pipeline::new(STEPS.iter().enumerate().map(step).collect()))
}

/// No process can be started.
struct NoRoom;

#[async_trait]
impl Isolation for NoRoom {
    async fn admit(&self, _: Case, _: &Arc<Pipeline>, _: &Arc<Snapshot>) -> Result<Box<dyn Trial>, String> {
        Err("no room".to_owned())
    }
}

/// A host that is only to empty the queue, and cannot run what another one died of.
pub async fn run_without_room() {
    let config = Config::parse(Path::new("dossier.toml"), "[host]\ngrace = \"300ms\"\n");
    let config = Arc::new(config.unwrap_or_else(|error| panic!("{error}")));
    let shared = SharedModel::new(Model::new(Rules::Redis, MAX_CRASHES), VecDeque::new());
    let first = shared.begin(1);
    let alerts = ["{\"id\":\"0\",\"plan\":[0,0,0,0]}", "{\"id\":\"1\",\"plan\":[0,0,0,0]}"].map(Bytes::from);
    first.send(&alerts[..1]).await.expect("sent");
    assert_eq!(first.receive(1).await.expect("received").len(), 1);
    let suspect = first.receive(1).await.expect("it was dropped, and comes again");
    shared.crash();
    drop(suspect);
    let second = shared.begin(2);
    second.send(&alerts[1..]).await.expect("sent");
    let telemetry = Arc::new(Telemetry::default());
    let (_pipelines, steps) = watch::channel(Some(pipeline(&Arc::default(), &Arc::default())));
    let health = Arc::new(Health::default());
    let worker = Worker {
        config: Arc::clone(&config),
        queue: Arc::new(second),
        pipeline: steps,
        tables: Arc::new(Tables::open(&config, Arc::clone(&telemetry)).unwrap_or_else(|_| panic!("no tables"))),
        isolation: Arc::new(NoRoom),
        telemetry: Arc::clone(&telemetry),
        health: Arc::clone(&health),
        compute: Compute::start().expect("threads"),
        stop: CancellationToken::new(),
    };
    let ended = worker.run(true).await;
    assert!(matches!(&ended, Err(WorkerError::Suspects(why)) if why == "no room"), "{ended:?}");
    assert!(telemetry.alarms().list()[0].detail.contains("no room"));
    let state = shared.lock();
    assert_eq!(state.model.backlog().into_values().collect::<Vec<_>>(), alerts[..1], "the suspect waits");
    assert_eq!(state.model.store.len(), 1, "the other one is stored");
    assert!(telemetry.scrape().contains("dossier_alarms_total{alarm=\"suspects-wait\"} 1"), "{}", telemetry.scrape());
}

/// Runs a story with as many hosts as it takes, and looks what became of every alert.
pub async fn run(story: Story) {
    let config = Config::parse(Path::new("dossier.toml"), "[host]\nin_flight = 4\ngrace = \"1s\"\n");
    let config = Arc::new(config.unwrap_or_else(|error| panic!("{error}")));
    let refusal = |after: bool| if after { Refusal::After } else { Refusal::Before };
    let refusals: VecDeque<_> = story.refusals.iter().map(|one| one.map(refusal)).collect();
    let shared = SharedModel::new(Model::new(Rules::Redis, MAX_CRASHES), refusals);
    let alert = |(id, plan): (usize, &[usize; 4])| Bytes::from(format!("{{\"id\":\"{id}\",\"plan\":{plan:?}}}"));
    let alerts: Vec<_> = story.plans.iter().enumerate().map(alert).collect();
    let sent: BTreeSet<Bytes> = alerts.iter().cloned().collect();
    shared.begin(0).send(&alerts).await.expect("sent");

    let told: Arc<Mutex<BTreeSet<_>>> = Arc::default();
    let mut fates = story.fates.iter().copied();
    for life in 1.. {
        assert!(life < MOST_HOSTS, "the queue is never empty: {:?}", shared.lock().model.backlog());
        let kill = Arc::new(Notify::new());
        let (stop, telemetry) = (CancellationToken::new(), Arc::new(Telemetry::default()));
        let (_pipelines, steps) = watch::channel(Some(pipeline(&told, &kill)));
        let worker = Worker {
            config: Arc::clone(&config),
            queue: Arc::new(shared.begin(life)),
            pipeline: steps,
            tables: Arc::new(Tables::open(&config, Arc::clone(&telemetry)).unwrap_or_else(|_| panic!("no tables"))),
            isolation: Arc::new(Cell {
                within: InProcess::new(Arc::clone(&config), Arc::clone(&telemetry)),
                told: Arc::clone(&told),
            }),
            telemetry,
            health: Arc::new(Health::default()),
            compute: Compute::start().expect("threads"),
            stop: stop.clone(),
        };
        let fate = fates.next();
        let mut host = tokio::spawn(worker.run(fate.is_none()));
        let over = async {
            match fate {
                Some(Fate::Dies(after) | Fate::Stops(after)) => tokio::time::sleep(Duration::from_millis(after)).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = &mut host => Some(ended),
            () = kill.notified() => None,
            () = over => match fate {
                Some(Fate::Stops(_)) => {
                    stop.cancel();
                    // It may still be killed while it is being stopped.
                    tokio::select! {
                        ended = &mut host => Some(ended),
                        () = kill.notified() => None,
                    }
                }
                _ => None,
            },
        };
        match ended {
            Some(ended) => ended.expect("the worker does not panic").expect("the worker ends well"),
            None => {
                shared.crash();
                host.abort();
                let _ = host.await;
            }
        }
        let state = shared.lock();
        state.model.check_all(&sent);
        if fate.is_none() && state.model.backlog().is_empty() {
            break;
        }
    }
    let state = shared.lock();
    let dead: BTreeMap<_, _> = state
        .model
        .dead
        .iter()
        .map(|(key, letter)| (letter.bytes.clone(), (state.reasons[key], letter.attempts)))
        .collect();
    assert_eq!(dead.len(), state.model.dead.len(), "an alert is dead twice");
    for (bytes, plan) in alerts.iter().zip(&story.plans) {
        let stored = state.model.store.values().filter(|there| *there == bytes).count();
        let right = expected(plan);
        assert_eq!(dead.get(bytes).copied(), right.map(|reason| (reason, 1)), "{bytes:?}: dead, and what is right");
        assert_eq!(stored, usize::from(right.is_none()), "{bytes:?}: how often it is stored");
    }
}
