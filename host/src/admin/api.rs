//! `/api/v1`: what the host knows of itself, as JSON, and a tap of what goes through it. Read-only. What it says is in [`report`];
//! what it is made from belongs to others.

pub(super) mod dead;
mod describe;
pub mod report;
mod tap;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use tracing::Level;
use utoipa::OpenApi as _;

use self::report::{
    Alarm, Alarms, Alerts, DeadLetters, DeadReason, Depth, Event, Events, Flow, HostLimits, Probation, Problem, Queue,
    STARTING, Status, Step, StepLimits, Steps, Table, Tables,
};
use super::parts::Inside;
use super::{Shown, json};
use crate::config::{QueueKind, StepConfig};
use crate::pipeline::LoadedStep;
use crate::telemetry::{self, Remembered};

/// How long the queue may take to answer; whoever asks would rather know the rest.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);

/// How long its dead letters may take to be counted.
const COUNT_PATIENCE: Duration = Duration::from_secs(4);

/// What there is.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/steps", get(steps))
        .route("/api/v1/dead-letters", get(dead_letters))
        .route("/api/v1/tables", get(tables))
        .route("/api/v1/alarms", get(alarms))
        .route("/api/v1/events", get(events))
        .route("/api/v1/tap", get(tap::tap))
        .route("/api/v1/openapi.json", get(openapi))
}

/// An answer that is none, with why.
pub(super) fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    json(status, &Problem { error: error.into() })
}

fn starting() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, STARTING)
}

fn seconds_since(then: SystemTime) -> f64 {
    SystemTime::now().duration_since(then).unwrap_or_default().as_secs_f64()
}

/// How the host is: the queue, its alerts, what is missing.
#[utoipa::path(
    get,
    path = "/api/v1/status",
    operation_id = "status",
    responses(
        (status = 200, description = "How it is", body = Status),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
        (status = 503, description = "The host is starting", body = Problem),
    )
)]
async fn status(State(shown): State<Shown>) -> Response {
    let Some(inside) = shown.parts.get() else { return starting() };
    let setup = inside.setup();
    let config = &setup.config;
    let problems = shown.health.problems();
    let alerts = shown.telemetry.alerts();
    json(
        StatusCode::OK,
        &Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            ready: problems.is_empty(),
            problems,
            alarms: shown.telemetry.alarms().len() as u64,
            queue: queue(&shown, inside).await,
            alerts: Alerts {
                in_flight: shown.telemetry.in_flight() as u64,
                stored: alerts.stored,
                conflicts: alerts.conflicts,
                duplicates: alerts.duplicates,
                replaced: alerts.replaced,
                kept: alerts.kept,
                dead: alerts.dead,
                lost: alerts.lost,
                verdicts: alerts.verdicts,
                duration_seconds: alerts.duration.into(),
            },
            limits: HostLimits {
                in_flight: config.host.in_flight as u64,
                in_flight_bytes: config.host.in_flight_bytes.into(),
                batch: config.queue.batch as u64,
                max_alert_size: config.queue.max_alert_size as u64,
            },
            uptime_seconds: shown.telemetry.started().elapsed().as_secs_f64(),
        },
    )
}

async fn queue(shown: &Shown, inside: &Inside) -> Queue {
    let (kind, name) = match &inside.began.config.queue.kind {
        QueueKind::Directory { path } => ("directory", path.display().to_string()),
        QueueKind::Redis(redis) => ("redis", redis.stream.clone()),
    };
    let depth = shown.telemetry.measured().map(|measured| Depth {
        measured_seconds: measured.at.saturating_duration_since(shown.telemetry.started()).as_secs_f64(),
        waiting: measured.depth.waiting,
        in_flight: measured.depth.in_flight,
        stored: measured.depth.stored,
        dead: measured.depth.dead,
        oldest_seconds: measured.depth.oldest.map(|oldest| oldest.as_secs_f64()),
        finished: measured.finished,
    });
    // Whether the queue works is said by whoever reads and commits.
    let flow = tokio::time::timeout(QUEUE_PATIENCE, inside.queue.flow()).await;
    let flow = flow.ok().and_then(Result::ok).flatten().map(|flow| Flow {
        added: flow.added,
        stored: flow.stored,
        dead: flow.dead,
        duplicates: flow.duplicates,
        kept: flow.kept,
    });
    Queue { kind: kind.to_owned(), name, depth, flow }
}

/// The steps as they are loaded, each with what serves; those of the configuration while a required plugin is missing.
fn loaded(shown: &Shown) -> Vec<(Arc<StepConfig>, Option<LoadedStep>)> {
    let Some(inside) = shown.parts.get() else { return Vec::new() };
    let pipeline = inside.pipeline.borrow().clone();
    match pipeline {
        Some(pipeline) => pipeline.steps().iter().map(|step| (Arc::clone(&step.config), Some(step.clone()))).collect(),
        None => inside.setup().config.steps.iter().map(|step| (Arc::new(step.clone()), None)).collect(),
    }
}

/// The steps: what serves, and what its calls came to.
#[utoipa::path(
    get,
    path = "/api/v1/steps",
    operation_id = "steps",
    responses(
        (status = 200, description = "The steps", body = Steps),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
        (status = 503, description = "The host is starting", body = Problem),
    )
)]
async fn steps(State(shown): State<Shown>) -> Response {
    if shown.parts.get().is_none() {
        return starting();
    }
    let uptime_seconds = shown.telemetry.started().elapsed().as_secs_f64();
    let alarms = shown.telemetry.alarms().list();
    let steps = loaded(&shown).into_iter().map(|(config, step)| one_step(&shown, &alarms, &config, step)).collect();
    json(StatusCode::OK, &Steps { uptime_seconds, steps })
}

fn one_step(
    shown: &Shown,
    alarms: &[telemetry::alarms::Alarm],
    config: &StepConfig,
    loaded: Option<LoadedStep>,
) -> Step {
    let calls = shown.telemetry.calls(&config.name);
    let stage = loaded.as_ref().map(|step| step.stage.as_str().to_owned());
    let enricher = loaded.and_then(|step| step.enricher);
    let (outcomes, retries, duration, fuel) = match calls {
        Some(calls) => (calls.outcomes, calls.retries, calls.duration.into(), calls.fuel.into()),
        None => Default::default(),
    };
    Step {
        step: config.name.clone(),
        stage: stage.filter(|_| enricher.is_some()),
        plugin: config.plugin.clone(),
        version: enricher.as_ref().map(|enricher| enricher.version().to_owned()),
        sha256: enricher.as_ref().map(|enricher| enricher.sha256().to_owned()),
        required: config.required,
        probation: enricher.and_then(|enricher| enricher.probation()).map(|trial| Probation {
            calls: trial.calls,
            of: trial.of,
            failed: trial.failed,
            fails_at: trial.fails_at,
        }),
        alarms: alarms
            .iter()
            .filter(|alarm| alarm.alarm.starts_with("plugin-") && alarm.subject == config.plugin)
            .map(|alarm| alarm.alarm.clone())
            .collect(),
        calls: outcomes.values().sum(),
        outcomes,
        retries,
        duration_seconds: duration,
        fuel,
        limits: StepLimits {
            fuel: config.limits.fuel,
            timeout_seconds: config.limits.timeout.as_secs_f64(),
            memory: config.limits.memory as u64,
            reuse: config.reuse,
        },
        tables: config.tables.clone(),
        http: config.http.clone(),
    }
}

/// The dead letters by reason. The oldest 5,000 are looked at, at most every five seconds.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters",
    operation_id = "dead_letters",
    responses(
        (status = 200, description = "Why they are there", body = DeadLetters),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
        (status = 503, description = "The host is starting, or the queue does not answer", body = Problem),
    )
)]
async fn dead_letters(State(shown): State<Shown>) -> Response {
    let Some(inside) = shown.parts.get() else { return starting() };
    let counted = tokio::time::timeout(COUNT_PATIENCE, shown.dead.of(inside.queue.as_ref())).await;
    let why = match counted {
        Ok(Ok(counted)) => return counted_dead(&shown, inside, counted),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it says nothing for {} s", COUNT_PATIENCE.as_secs()),
    };
    problem(StatusCode::SERVICE_UNAVAILABLE, format!("the queue does not answer: {why}"))
}

fn counted_dead(shown: &Shown, inside: &Inside, counted: dead::Counted) -> Response {
    let steps = loaded(shown);
    let since_start = shown.telemetry.dead(steps.iter().map(|(step, _)| step.name.as_str()));
    json(
        StatusCode::OK,
        &DeadLetters {
            total: shown.telemetry.measured().map(|measured| measured.depth.dead),
            alarm_from: inside.began.config.queue.dlq_alarm,
            counted: counted.number,
            reasons: counted.reasons,
            since_start: since_start
                .into_iter()
                .map(|(reason, step, count)| DeadReason { reason: reason.to_string(), step, count, last: None })
                .collect(),
        },
    )
}

/// The tables: what serves, and how old it is.
#[utoipa::path(
    get,
    path = "/api/v1/tables",
    operation_id = "tables",
    responses(
        (status = 200, description = "The tables", body = Tables),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
        (status = 503, description = "The host is starting", body = Problem),
    )
)]
async fn tables(State(shown): State<Shown>) -> Response {
    let Some(inside) = shown.parts.get() else { return starting() };
    let steps = loaded(&shown);
    let mut tables = Vec::new();
    let setup = inside.setup();
    for (name, table) in setup.tables.snapshot().iter() {
        let Some(config) = setup.config.tables.get(name) else { continue };
        let changed = tokio::fs::metadata(&config.file).await.and_then(|file| file.modified()).ok();
        let loaded = shown.telemetry.table_loaded(name).and_then(|then| Duration::try_from_secs_f64(then).ok());
        tables.push(Table {
            table: name.clone(),
            file: config.file.display().to_string(),
            sha256: table.sha256().to_owned(),
            rows: table.rows().map(|rows| rows as u64),
            duplicates: table.duplicates() as u64,
            loaded_seconds_ago: loaded.map(|then| seconds_since(SystemTime::UNIX_EPOCH + then)),
            changed_seconds_ago: changed.map(seconds_since),
            steps: steps
                .iter()
                .filter(|(step, _)| step.tables.contains(name))
                .map(|(step, _)| step.name.clone())
                .collect(),
        });
    }
    json(StatusCode::OK, &Tables { tables })
}

/// The alarms that hold, with what to do.
#[utoipa::path(
    get,
    path = "/api/v1/alarms",
    operation_id = "alarms",
    responses(
        (status = 200, description = "The gravest first", body = Alarms),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
    )
)]
async fn alarms(State(shown): State<Shown>) -> Response {
    let alarm = |alarm: telemetry::alarms::Alarm| Alarm {
        alarm: alarm.alarm,
        severity: alarm.severity.as_str().to_owned(),
        subject: alarm.subject,
        detail: alarm.detail,
        since: alarm.since.to_string(),
        age_seconds: alarm.age_seconds,
        times: alarm.times,
        remedy: alarm.remedy,
    };
    let (alarms, total) = shown.telemetry.alarms().list_and_len();
    json(StatusCode::OK, &Alarms { alarms: alarms.into_iter().map(alarm).collect(), total: total as u64 })
}

/// The last things that somebody should know of: troubles, refusals, plugins and tables that came and went.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    operation_id = "events",
    responses(
        (status = 200, description = "The newest first", body = Events),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
    )
)]
async fn events(State(shown): State<Shown>) -> Response {
    let event = |Remembered { noted, first, last, count }: Remembered| Event {
        level: match noted.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => "info",
        }
        .to_owned(),
        kind: noted.kind.to_owned(),
        text: noted.text,
        count,
        first: first.to_string(),
        last: last.to_string(),
    };
    json(StatusCode::OK, &Events { events: shown.telemetry.remembered().into_iter().map(event).collect() })
}

/// This description.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "openapi",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json"),
        (status = 401, description = "The token is missing or wrong", body = Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = Problem),
    )
)]
async fn openapi() -> Response {
    json(StatusCode::OK, &describe::Description::openapi())
}
