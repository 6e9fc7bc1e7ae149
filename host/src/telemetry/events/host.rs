//! The host's own life.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tracing::Level;

use super::List;
use crate::telemetry::{Event, Metrics, Noted, Told};

/// The host takes alerts, or would if nothing were missing.
#[derive(Debug)]
pub struct HostStarted<'a> {
    /// Where the admin address listens, if it does.
    pub admin: Option<SocketAddr>,
    /// The kind of queue.
    pub queue: &'static str,
    /// The steps.
    pub steps: &'a [String],
    /// What it waits for, by part.
    pub missing: &'a BTreeMap<String, String>,
}

impl Event for HostStarted<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.ready.set(self.missing.is_empty().into());
    }

    fn noted(&self) -> Option<Noted> {
        let missing: Vec<_> = self.missing.iter().map(|(part, why)| format!("{part}: {why}")).collect();
        match missing.is_empty() {
            true => Noted::change("host ready", "", format!("steps: {}", self.steps.join(", "))),
            false => Noted::warning("host not ready", "", missing.join("; ")),
        }
    }

    fn log(&self) {
        if !self.missing.is_empty() {
            return tracing::warn!(
                target: "dossier::host",
                version = env!("CARGO_PKG_VERSION"),
                pid = std::process::id(),
                admin = self.admin.map(tracing::field::display),
                queue = self.queue,
                missing = ?self.missing,
                "host not ready; it reads no alerts until nothing is missing"
            );
        }
        tracing::info!(
            target: "dossier::host",
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            admin = self.admin.map(tracing::field::display),
            queue = self.queue,
            steps = ?List(self.steps),
            "host ready"
        );
    }

    fn told(&self) -> Option<Told> {
        if !self.missing.is_empty() {
            let missing: Vec<_> = self.missing.values().map(String::as_str).collect();
            return Some(Told::line(Level::WARN, format!("not ready: {}", missing.join("; "))));
        }
        let steps = if self.steps.is_empty() { "none".to_owned() } else { self.steps.join(", ") };
        Some(Told::line(Level::INFO, format!("ready; steps: {steps}")))
    }
}

/// The host stops reading and finishes what is in flight.
#[derive(Debug)]
pub struct HostStopping {
    /// `SIGTERM`, `SIGINT`, `queue empty`.
    pub why: &'static str,
}

impl Event for HostStopping {
    fn count(&self, metrics: &Metrics) {
        metrics.ready.set(0);
    }

    fn noted(&self) -> Option<Noted> {
        Noted::change("host stopping", "", self.why)
    }

    fn log(&self) {
        tracing::info!(target: "dossier::host", why = self.why, "host stopping");
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::INFO, format!("stopping: {}", self.why)))
    }
}

/// The host is done.
#[derive(Debug)]
pub struct HostStopped {
    /// Alerts that it let go of: the grace was too short for them, or they had to wait. They stay pending.
    pub left_pending: usize,
}

impl Event for HostStopped {
    fn count(&self, metrics: &Metrics) {
        metrics.ready.set(0);
        metrics.left_pending.set(i64::try_from(self.left_pending).unwrap_or(i64::MAX));
    }

    fn log(&self) {
        if self.left_pending == 0 {
            tracing::info!(target: "dossier::host", left_pending = 0, "host stopped");
        } else {
            tracing::warn!(target: "dossier::host", left_pending = self.left_pending, "host stopped");
        }
    }
}
