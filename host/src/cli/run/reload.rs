//! The configuration while the host runs: notices that its file changed, or that somebody asks (SIGHUP), checks all of it, and has it taken
//! over between alerts. What cannot be taken over changes nothing: what served before serves on, and an alarm holds until the file is
//! good again.
//!
//! The file is looked at twice a second instead of being watched by the kernel, for the reasons that tables are: see
//! [`crate::tables`].

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, effective};
use crate::digest::sha256_hex;
use crate::pipeline::setup::Setup;
use crate::plugin::{Plugins, ReloadError};
use crate::tables::Stamp;
use crate::telemetry::events::{ConfigRefused, ConfigReloaded, ConfigUnchanged};
use crate::telemetry::{Telemetry, logging};

/// How often the file is looked at. A change is taken once two looks in a row saw the same: somebody may still be writing.
const LOOK: Duration = Duration::from_millis(500);

/// When a configuration that may be good later is tried again, though its file is the same: at first, and at the most, doubling.
const RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Who asks for the configuration to be read again.
pub struct Hangups {
    signal: Signal,
    terminal: bool,
}

impl Hangups {
    /// Listens from now on: without that, SIGHUP ends the process.
    ///
    /// # Errors
    /// The signal cannot be caught.
    pub fn listen() -> anyhow::Result<Self> {
        let signal = signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?;
        Ok(Self { signal, terminal: std::io::stdout().is_terminal() })
    }

    /// Waits for the next one; says whether it only told that the terminal was closed, with which the host ends.
    async fn next(&mut self) -> bool {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.terminal && !std::io::stdout().is_terminal()
    }
}

/// Takes other configurations over.
pub struct Reloader {
    /// What serves.
    pub setup: Setup,
    /// What runs the steps.
    pub plugins: Arc<Plugins>,
    /// Where events go.
    pub telemetry: Arc<Telemetry>,
    /// Cancelled when the host is to stop.
    pub stop: CancellationToken,
}

/// What is known of the file.
#[derive(Default)]
struct File {
    /// As it was when it was last dealt with.
    done: Option<Stamp>,
    /// What the last look saw, when it was something else.
    seen: Option<Option<Stamp>>,
    /// Why it is refused.
    refused: Option<String>,
    /// When it is tried again all the same, and how long the pause after that is.
    retry: Option<(Instant, Duration)>,
}

impl Reloader {
    /// Watches until the host stops.
    pub async fn run(mut self, mut hangups: Hangups) {
        let mut watched = self.watch_tables();
        let mut file = File::default();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                () = self.stop.cancelled() => return,
                closed = hangups.next() => {
                    if closed {
                        return self.stop.cancel();
                    }
                    true
                }
                _ = looks.tick() => false,
            };
            let path = self.setup.config.file.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || Stamp::of(&path)).await else { return };
            let due = file.retry.is_some_and(|(at, _)| at <= Instant::now());
            if !asked && now == file.done && !due {
                file.seen = None;
                continue;
            }
            if !asked && now != file.done && file.seen.as_ref() != Some(&now) {
                file.seen = Some(now);
                continue;
            }
            file.seen = None;
            let Some(done) = self.stop.clone().run_until_cancelled(self.reload()).await else { return };
            file.done = now;
            match done {
                Ok(true) => {
                    watched.cancel();
                    watched = self.watch_tables();
                    (file.refused, file.retry) = (None, None);
                }
                Ok(false) => {
                    if asked || file.refused.is_some() {
                        self.telemetry.emit(&ConfigUnchanged { sha256: &self.setup.config.sha256 });
                    }
                    (file.refused, file.retry) = (None, None);
                }
                Err(ReloadError { why, again }) => {
                    let pause = file.retry.map_or(RETRY, |(_, pause)| pause.saturating_mul(2).min(MAX_RETRY));
                    file.retry = again.then(|| (Instant::now() + pause, pause));
                    // The same again is no news, unless somebody asked for it.
                    if asked || file.refused.as_ref() != Some(&why) {
                        self.telemetry.emit(&ConfigRefused { why: &why, serves: &self.setup.config.sha256 });
                    }
                    file.refused = Some(why);
                }
            }
        }
    }

    /// Loads tables again until the token is cancelled.
    fn watch_tables(&self) -> CancellationToken {
        let stop = self.stop.child_token();
        tokio::spawn(Arc::clone(&self.setup.tables).watch(stop.clone()));
        stop
    }

    /// Reads the file and takes it over; says whether it did, or the file is what serves.
    async fn reload(&mut self) -> Result<bool, ReloadError> {
        let began = Instant::now();
        let refused = |why: String| ReloadError { why, again: false };
        let broke_off = |error: tokio::task::JoinError| refused(format!("checking it broke off: {error}"));
        let path = self.setup.config.file.clone();
        let config = tokio::task::spawn_blocking(move || Config::load(&path)).await.map_err(broke_off)?;
        let config = config.map_err(|error| refused(error.to_string().replace('\n', "; ")))?;
        if config.sha256 == self.setup.config.sha256 {
            return Ok(false);
        }
        if config.sha256 == sha256_hex(b"") || (config.steps.is_empty() && !self.setup.config.steps.is_empty()) {
            let why = "it has no [[step]] any more, like a file that was cut short: alerts would be stored without being enriched; put back \
                       what was there, or restart the host if that is meant";
            return Err(refused(why.to_owned()));
        }
        let changes = effective::changes(&self.setup.config, &config);
        if !changes.fixed.is_empty() {
            let names: Vec<_> = changes.fixed.into_iter().collect();
            let why = format!(
                "{} cannot change while the host runs; restart it for that, or put back what was there: nothing else of the file is \
                 taken over until then",
                names.join(", ")
            );
            return Err(refused(why));
        }
        logging::filter(&config.log).map_err(|error| refused(error.to_string()))?;
        let config = Arc::new(config);
        let (before, after) = (Arc::clone(&self.setup.tables), Arc::clone(&config));
        let tables = tokio::task::spawn_blocking(move || before.renewed(&after)).await.map_err(broke_off)?;
        let tables = tables.map_err(|findings| {
            let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
            refused(findings.join("; "))
        })?;
        let tables = Arc::new(tables);
        self.plugins.reload(Arc::new(Setup::new(Arc::clone(&config), Arc::clone(&tables)))).await?;
        let before = std::mem::replace(&mut self.setup, Setup::new(config, tables));
        self.setup.tables.replaces(&before.tables);
        let changed: Vec<_> = changes.taken.into_iter().collect();
        self.telemetry.emit(&ConfigReloaded {
            sha256: &self.setup.config.sha256,
            changed: &changed,
            took: began.elapsed(),
        });
        Ok(true)
    }
}
