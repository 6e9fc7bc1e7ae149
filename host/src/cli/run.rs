//! `dossier run`: the host. Puts the parts together and stops them in order.

mod reload;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use self::reload::Hangups;
use self::reload::Reloader;
use crate::admin::{self, Admin, Health, Inside, Parts};
use crate::config::{Config, ConfigError, QueueKind};
use crate::pipeline::Pipeline;
use crate::pipeline::setup::Setup;
use crate::plugin::Plugins;
use crate::queue::{self, Queue, QueueError};
use crate::tables::Tables;
use crate::telemetry::alarms::Kind;
use crate::telemetry::events::{HostStarted, HostStopping, QueueTrouble};
use crate::telemetry::redact::Redactor;
use crate::telemetry::traces::Traces;
use crate::telemetry::{Telemetry, logging};
use crate::worker::Worker;
use crate::worker::compute::Compute;
use crate::worker::trial::process::Processes;

/// How long to wait before the queue is tried again at start.
const RETRY: Duration = Duration::from_secs(1);

/// How much longer than its grace a host may take to stop: to commit what is done, to give back the rest, to write the log.
const LAST_RESORT: Duration = Duration::from_secs(15);

/// How long the last spans may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a person watches.
pub struct Watched {
    /// The folder of a plugin that is built whenever it changes, if there is one.
    pub folder: Option<PathBuf>,
}

/// Runs the host until it is told to stop, and has it reload when `hangups` come; with `until_empty` also until nothing is waiting or in flight. Where it is watched,
/// short lines for a person take the place of the log.
///
/// # Errors
/// Whatever keeps it from starting, and a queue or log that stops working for good.
pub async fn run(
    config: Config,
    hangups: Hangups,
    until_empty: bool,
    watched: Option<Watched>,
) -> anyhow::Result<ExitCode> {
    let config = Arc::new(config);
    if let Some(watched) = watched {
        return run_watched(config, hangups, until_empty, watched).await;
    }
    let log = logging::init(&config.log)?;
    let (traces, sender) = Traces::new(&config.telemetry)?.unzip();
    let telemetry = Arc::new(Telemetry::new(log.sink()).with_traces(traces));
    if let Some(sender) = sender {
        tokio::spawn(sender.run(Arc::clone(&telemetry)));
    }
    let done = work(config, Arc::clone(&telemetry), hangups, until_empty).await;
    if let Some(traces) = telemetry.traces() {
        traces.flush(FAREWELL).await;
    }
    // What was logged last, the reason of a failure perhaps, must not be lost with the process.
    log.close()?;
    done
}

async fn run_watched(
    config: Arc<Config>,
    hangups: Hangups,
    until_empty: bool,
    watched: Watched,
) -> anyhow::Result<ExitCode> {
    let screen = watch::Screen::open();
    let telemetry = Arc::new(Telemetry::default().with_listener(screen.listener()));
    let host = work(Arc::clone(&config), telemetry, hangups, until_empty);
    let done = match watched.folder {
        None => host.await,
        Some(folder) => {
            let builds = watch::rebuild(folder, config.plugins.dir.clone(), screen.listener());
            tokio::select! {
                done = host => done,
                // It goes on for ever, unless it cannot watch.
                failed = builds => failed.map(|()| ExitCode::SUCCESS),
            }
        }
    };
    // Parts of the host that end by themselves may still hold a listener; what was told until now is shown.
    tokio::task::spawn_blocking(move || screen.close_soon()).await?;
    done
}

async fn work(
    config: Arc<Config>,
    telemetry: Arc<Telemetry>,
    hangups: Hangups,
    until_empty: bool,
) -> anyhow::Result<ExitCode> {
    let health = Arc::new(Health::default());
    health.set("start", Some("the host is starting".to_owned()));

    let stop = CancellationToken::new();
    stop_on_signals(&stop, &telemetry, config.host.grace)?;
    let parts = Parts::default();
    let admin = match config.admin.address {
        Some(address) => {
            let listener = admin::bind(address).await?;
            let address = listener.local_addr().context("the admin address cannot be read")?;
            let (telemetry, health, parts) = (telemetry.clone(), health.clone(), parts.clone());
            let redactor = Redactor::new(&config.log.redact);
            let shown = Admin { telemetry, health, parts, token: config.admin.token.clone(), redactor };
            tokio::spawn(admin::serve(listener, shown, CancellationToken::new()));
            Some(address)
        }
        None => None,
    };

    let tables = Arc::new(Tables::open(&config, telemetry.clone()).map_err(ConfigError)?);
    let started = stop.run_until_cancelled(Plugins::start(config.clone(), telemetry.clone(), health.clone())).await;
    let Some(plugins) = started else { return Ok(ExitCode::SUCCESS) };
    let plugins = Arc::new(plugins.context("the plugin runtime cannot be set up")?);
    let Some(queue) = open_queue(&config, &telemetry, &health, &stop, until_empty).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    health.set("start", None);

    let pipeline = plugins.subscribe();
    let began = Arc::new(Setup::new(config.clone(), tables.clone()));
    parts.are(Inside { began, queue: queue.clone(), pipeline: pipeline.clone() });
    let steps = pipeline.borrow().as_deref().map(step_names).unwrap_or_default();
    let kind = match config.queue.kind {
        QueueKind::Directory { .. } => "directory",
        QueueKind::Redis(_) => "redis",
    };
    telemetry.emit(&HostStarted { admin, queue: kind, steps: &steps, missing: &health.problems() });
    if until_empty && let Some(missing) = health.problems().get("plugins") {
        anyhow::bail!("a required plugin is missing: {missing}");
    }
    let reloader = Reloader {
        setup: Setup::new(config.clone(), tables.clone()),
        // The worker needs them to its end, which is later than that of reloading.
        plugins: plugins.clone(),
        telemetry: telemetry.clone(),
        stop: stop.clone(),
    };
    let reloads = AbortOnDropHandle::new(tokio::spawn(reloader.run(hangups)));
    let isolation = Arc::new(Processes::of_this_program(config.clone(), telemetry.clone()));
    let compute = Compute::start().context("cannot start the threads that alerts are worked on")?;
    let worker = Worker { config, queue, pipeline, tables, telemetry, health, isolation, compute, stop };
    // On a thread of the runtime's: this one would have to be woken up for each read.
    let worker = AbortOnDropHandle::new(tokio::spawn(worker.run(until_empty)));
    worker.await.context("the worker broke off")??;
    drop(reloads);
    Ok(ExitCode::SUCCESS)
}

/// Opens the queue; waits for one that is not there yet, unless the host is only to empty it. None when it is told to stop.
async fn open_queue(
    config: &Config,
    telemetry: &Arc<Telemetry>,
    health: &Health,
    stop: &CancellationToken,
    until_empty: bool,
) -> anyhow::Result<Option<Arc<dyn Queue>>> {
    let began = Instant::now();
    loop {
        let Some(opened) = stop.run_until_cancelled(queue::open(&config.queue, telemetry.clone())).await else {
            return Ok(None);
        };
        match opened {
            Ok(queue) => {
                health.set("queue open", None);
                telemetry.clear(Kind::QueueTrouble, "open");
                return Ok(Some(queue));
            }
            Err(QueueError::Unavailable(error)) if !until_empty || began.elapsed() < config.host.grace => {
                telemetry.emit(&QueueTrouble { operation: "open", error: &error });
                health.set("queue open", Some(error));
            }
            Err(error) => return Err(error).context("the queue cannot be opened"),
        }
        stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
    }
}

/// Ends the process at once: the last resort when something that is waited for never comes.
fn give_up(why: &str) -> ! {
    eprintln!("error: {why}; what was in flight is still pending");
    std::process::exit(1)
}

/// Cancels `stop` at SIGTERM or SIGINT; ends the process at the second one, or when stopping takes much longer than the grace.
fn stop_on_signals(stop: &CancellationToken, telemetry: &Arc<Telemetry>, grace: Duration) -> anyhow::Result<()> {
    let patience = grace + LAST_RESORT;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let (stop, telemetry) = (stop.clone(), telemetry.clone());
    tokio::spawn(async move {
        let why = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        // First of all: the log may be blocked.
        stop.cancel();
        std::thread::spawn(move || {
            std::thread::sleep(patience);
            give_up(&format!("the host did not stop within {} s", patience.as_secs()));
        });
        telemetry.emit(&HostStopping { why });
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        give_up("told to stop twice");
    });
    Ok(())
}

fn step_names(pipeline: &Pipeline) -> Vec<String> {
    pipeline.steps().iter().map(|step| step.config.name.clone()).collect()
}
