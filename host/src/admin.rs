//! The admin address: `/metrics`, `/healthz`, `/readyz` and `/api/v1`. Read-only.
//!
//! Whoever can reach it may be slow, many or hostile; the host goes on all the same. There are at most [`CONNECTIONS`] at
//! once (the oldest makes place for one more), each serves one request and ends within [`PATIENCE`], whatever it is doing;
//! bodies are not read. Taps alone last longer and make place for nobody: there are few of them, and one that is not read is closed.
//! Where others than this machine can reach it, whoever asks must know the token ([`access`]).

mod access;
pub mod api;
mod ask;
mod parts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use self::access::Access;
use self::api::dead::Counts;
pub use self::ask::{AskError, Client};
pub use self::parts::{Inside, Parts};
use crate::config::Token;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::redact::Redactor;

/// How many connections there are at once.
pub const CONNECTIONS: usize = 32;

/// How long a connection may live, reading, answering and writing together.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long connections may go on at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// What keeps the host from being ready, by part. Set by whoever knows, read by `/readyz`.
#[derive(Debug, Default)]
pub struct Health {
    problems: Mutex<BTreeMap<String, String>>,
}

impl Health {
    /// Says that a part is not ready, or that it is.
    pub fn set(&self, part: &str, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(part.to_owned(), problem),
            None => problems.remove(part),
        };
    }

    /// What is not ready, and why.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why there is no admin address.
#[derive(Debug, thiserror::Error)]
#[error(
    "admin address {address} cannot be listened on; choose another as address in [admin], or port 0 for any that is free"
)]
pub struct AdminError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

/// Listens on the admin address. With port 0 the system chooses one: ask the listener for it.
///
/// # Errors
/// [`AdminError`] when it is taken, not this machine's, or not allowed.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).await.map_err(|error| AdminError { address, error })
}

/// What answers are made from, and who gets them.
#[derive(Default)]
pub struct Admin {
    /// What was counted.
    pub telemetry: Arc<Telemetry>,
    /// What is missing.
    pub health: Arc<Health>,
    /// The host's parts, once they are there.
    pub parts: Parts,
    /// What whoever asks must know.
    pub token: Option<Token>,
    /// What must not be shown of alerts; there from the start, because whoever looks on may come before anything else.
    pub redactor: Redactor,
}

/// Answers until `shutdown`, then gives what it has begun a second to end.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    serve_bounded(listener, router(admin), shutdown, CONNECTIONS, PATIENCE).await;
}

/// How long a connection may last, when it is not [`PATIENCE`].
#[derive(Debug, Default)]
struct Lease(OnceLock<CancellationToken>);

impl Lease {
    /// Lets the connection last until this is cancelled. Only the first one counts.
    fn prolong(&self, until: CancellationToken) {
        // A connection serves one request.
        let _ = self.0.set(until);
    }

    fn is_prolonged(&self) -> bool {
        self.0.get().is_some()
    }

    /// Comes back when the connection must end.
    async fn over(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
        if let Some(until) = self.0.get() {
            until.cancelled().await;
        }
    }
}

async fn serve_bounded(
    mut listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    connections: usize,
    patience: Duration,
) {
    let mut tasks = JoinSet::new();
    // The oldest first. Who came first and is still here is slow, and makes place for who comes next.
    let mut open: VecDeque<(AbortHandle, Arc<Lease>)> = VecDeque::new();
    loop {
        tokio::select! {
            // axum's accept, because it waits out errors such as too many open files.
            (stream, _) = axum::serve::Listener::accept(&mut listener) => {
                // Taps are bounded by themselves.
                open.retain(|(task, lease)| !task.is_finished() && !lease.is_prolonged());
                if open.len() >= connections && let Some((oldest, _)) = open.pop_front() {
                    oldest.abort();
                }
                let lease = Arc::<Lease>::default();
                let task = tasks.spawn(answer(stream, router.clone(), Arc::clone(&lease), patience));
                open.push_back((task, lease));
            }
            Some(_) = tasks.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    let all = async { while tasks.join_next().await.is_some() {} };
    // Who has no answer by then gets none.
    let _ = tokio::time::timeout(FAREWELL, all).await;
}

/// Serves one request. Connections are not kept: idle ones would take the place of others.
async fn answer(stream: TcpStream, router: Router, lease: Arc<Lease>, patience: Duration) {
    let router = router.layer(Extension(Arc::clone(&lease)));
    let answered = http1::Builder::new()
        .keep_alive(false)
        // The time-out around everything covers it; this one would need a timer of its own.
        .header_read_timeout(None)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        // Whether a client got its answer is the client's business.
        _ = answered => {}
        () = lease.over(patience) => {}
    }
}

/// What the answers are made from.
#[derive(Clone)]
struct Shown {
    telemetry: Arc<Telemetry>,
    health: Arc<Health>,
    parts: Parts,
    dead: Arc<Counts>,
    redactor: Redactor,
}

fn router(admin: Admin) -> Router {
    let Admin { telemetry, health, parts, token, redactor } = admin;
    let access = Arc::new(Access::new(token.as_ref()));
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(api::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here; see / for what there is\n") })
        .layer(axum::middleware::from_fn_with_state(access, access::guard))
        .with_state(Shown { telemetry, health, parts, dead: Arc::default(), redactor })
}

async fn index() -> &'static str {
    concat!(
        "dossier ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/metrics  what was counted, as OpenMetrics text\n/healthz  200 while the host lives\n",
        "/readyz   200 while the host takes alerts, 503 and why otherwise\n",
        "/api/v1/status, steps, dead-letters, tables, alarms, events\n",
        "          what dossier top shows, as JSON\n",
        "/api/v1/tap  what is stored, or what ?step= is given and gives, as it happens\n",
        "/api/v1/openapi.json  all of this, for programs\n"
    )
}

/// What was counted, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "The token is missing or wrong", body = api::report::Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = api::report::Problem),
    )
)]
async fn metrics(State(shown): State<Shown>) -> Response {
    shown.telemetry.ready(shown.health.problems().is_empty());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shown.telemetry.scrape()).into_response()
}

/// What `/healthz` says.
#[derive(Serialize, ToSchema)]
struct Alive {
    /// The host's version.
    version: &'static str,
    /// Seconds since it began.
    uptime_seconds: u64,
}

/// Whether the host lives. The one path that needs no token.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    responses((status = 200, description = "It lives", body = Alive)),
    security(())
)]
async fn healthz(State(shown): State<Shown>) -> Response {
    let uptime_seconds = shown.telemetry.started().elapsed().as_secs();
    json(StatusCode::OK, &Alive { version: env!("CARGO_PKG_VERSION"), uptime_seconds })
}

/// What `/readyz` says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Whether the host takes alerts.
    pub ready: bool,
    /// What is missing, by part.
    pub problems: BTreeMap<String, String>,
    /// The alarms that hold, by name and subject: the gravest 200.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notices: BTreeMap<String, String>,
    /// How many alarms hold, in all; left out where none does.
    #[serde(default, skip_serializing_if = "is_none")]
    pub alarms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// Whether the host takes alerts: the queue answers, and every required plugin is loaded. Says what is missing.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    responses(
        (status = 200, description = "It does", body = Ready),
        (status = 401, description = "The token is missing or wrong", body = api::report::Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = api::report::Problem),
        (status = 503, description = "It does not, and why", body = Ready),
    )
)]
async fn readyz(State(shown): State<Shown>) -> Response {
    let problems = shown.health.problems();
    let ready = problems.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let (alarms, held) = shown.telemetry.alarms().list_and_len();
    let notices = alarms
        .into_iter()
        .map(|alarm| (format!("{} {}", alarm.alarm, alarm.subject).trim_end().to_owned(), alarm.detail));
    json(status, &Ready { ready, problems, notices: notices.collect(), alarms: held as u64 })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        // A map with keys that are no strings would do it; there is none.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
