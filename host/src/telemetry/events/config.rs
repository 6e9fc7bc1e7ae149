//! The configuration, while the host runs.

use std::time::Duration;

use tracing::Level;

use super::{List, micros};
use crate::telemetry::alarms::{Change, Kind};
use crate::telemetry::metrics::unix_seconds;
use crate::telemetry::{Event, Metrics, Told};

/// Another configuration serves, from the next alert on.
#[derive(Debug)]
pub struct ConfigReloaded<'a> {
    /// SHA-256 of its file.
    pub sha256: &'a str,
    /// What is different: sections by name.
    pub changed: &'a [String],
    /// How long it took to check and to load.
    pub took: Duration,
}

impl Event for ConfigReloaded<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.config_reloads.inc();
        metrics.config_refused.set(0);
        metrics.config_loaded.set(unix_seconds());
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Clear(Kind::ConfigRefused, ""))
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::config",
            sha256 = self.sha256,
            changed = ?List(self.changed),
            duration_us = micros(self.took),
            "configuration reloaded"
        );
    }

    fn told(&self) -> Option<Told> {
        let changed = if self.changed.is_empty() { "comments".to_owned() } else { self.changed.join(", ") };
        Some(Told::line(Level::INFO, format!("configuration reloaded: {changed}")))
    }
}

/// The configuration's file is what serves: it is again, after it was refused, or somebody asked.
#[derive(Debug)]
pub struct ConfigUnchanged<'a> {
    /// SHA-256 of it.
    pub sha256: &'a str,
}

impl Event for ConfigUnchanged<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.config_unchanged.inc();
        metrics.config_refused.set(0);
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Clear(Kind::ConfigRefused, ""))
    }

    fn log(&self) {
        tracing::info!(target: "dossier::config", sha256 = self.sha256, "configuration unchanged");
    }
}

/// The configuration's file was refused; what served before serves on. An alarm.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    /// Why, with the lines, and what to do.
    pub why: &'a str,
    /// SHA-256 of what serves on.
    pub serves: &'a str,
}

impl Event for ConfigRefused<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.config_refusals.inc();
        metrics.config_refused.set(1);
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::ConfigRefused, "", self.why.into()))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::config",
            alarm = true,
            name = Kind::ConfigRefused.name(),
            why = self.why,
            serves = self.serves,
            "configuration refused; what served before serves on"
        );
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::ERROR, format!("configuration refused: {}", self.why)))
    }
}
