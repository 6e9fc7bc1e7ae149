//! `dossier trial`: the process in which a host runs alerts that a host has died of. Hidden: only a host speaks its language.

use std::io::{self, BufReader};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{Config, ConfigError};
use crate::pipeline::{Cast, Pipeline};
use crate::plugin::replica;
use crate::tables::{Snapshot, Tables};
use crate::telemetry::Telemetry;
use crate::worker::trial::child::{Voice, serve};
use crate::worker::trial::local::InProcess;
use crate::worker::trial::wire::{Answer, Request, read_blocking};

/// How much memory one alert may take beyond what its plugins may, and beyond what many copies of all that is in flight would.
const ROOM: u64 = 1 << 30;

/// Runs suspects until the host is gone.
pub fn run() -> ExitCode {
    let done = tokio::runtime::Runtime::new().context("cannot start the runtime").and_then(|runtime| {
        let done = runtime.block_on(work());
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn work() -> anyhow::Result<()> {
    // Whoever stops the host stops it; it says by itself when this process is of no more use.
    let _deaf = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()?;
    let (sender, mut requests) = mpsc::channel(1);
    std::thread::spawn(move || listen(&sender));
    let voice = Arc::new(Voice::stdout()?);
    let Some((Request::Prepare { file, text, cast }, _)) = requests.recv().await else {
        anyhow::bail!("only a host can use this");
    };
    let to_host = Arc::clone(&voice);
    let telemetry = Arc::new(Telemetry::relaying(Box::new(move |event| {
        // A host that is gone needs no events; the thread that listens to it ends the process.
        let _ = to_host.say(&Answer::Event(event), b"");
    })));
    let config = Arc::new(Config::parse(&file, &text)?);
    let (pipeline, tables) = match load(&config, &cast, &telemetry).await {
        Ok(loaded) => loaded,
        Err(error) => return Ok(voice.say(&Answer::Refused { why: format!("{error:#}") }, b"")?),
    };
    bound(&config)?;
    voice.say(&Answer::Ready, b"")?;
    let isolation = InProcess::new(config, telemetry);
    Ok(serve(&isolation, pipeline, tables, &mut requests, &voice).await?)
}

/// Hands over what the host says. When the host is gone the process ends at once, whatever it is doing.
fn listen(sender: &mpsc::Sender<(Request, Bytes)>) {
    let mut from = BufReader::new(io::stdin().lock());
    while let Ok(Some(request)) = read_blocking(&mut from) {
        if sender.blocking_send(request).is_err() {
            return;
        }
    }
    let _ = kill_process(getpid(), Signal::KILL);
}

async fn load(
    config: &Arc<Config>,
    cast: &[Cast],
    telemetry: &Arc<Telemetry>,
) -> anyhow::Result<(Arc<Pipeline>, Arc<Snapshot>)> {
    let tables = Tables::open(config, Arc::clone(telemetry)).map_err(ConfigError)?.snapshot();
    let pipeline = replica::pipeline(config, cast, Arc::clone(telemetry)).await?;
    Ok((Arc::new(pipeline), tables))
}

/// Bounds what this process may write to by what it has now, plugins and tables loaded, and what one alert can need: what eats memory
/// ends here, and not when the machine's is used up. Address space is no measure: wasm reserves much and uses little.
fn bound(config: &Config) -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.parse().ok());
    // Where the system does not say, there is nothing to go by.
    let Some(data): Option<u64> = data else { return Ok(()) };
    let plugins: u64 = config.steps.iter().map(|step| step.limits.memory as u64).sum();
    let in_flight = u64::from(config.host.in_flight_bytes).max(config.queue.max_alert_size as u64);
    let limit = data * 1024 + plugins.saturating_mul(4) + in_flight.saturating_mul(32) + ROOM;
    let before = rustix::process::getrlimit(Resource::Data);
    let current = Some(before.current.map_or(limit, |before| before.min(limit)));
    Ok(setrlimit(Resource::Data, Rlimit { current, maximum: before.maximum })?)
}
