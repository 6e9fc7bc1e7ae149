//! Plugins: their files, what they say and what they ask for.

use std::time::Duration;

use tracing::Level;

use super::micros;
use crate::telemetry::metrics::{DeniedLabels, PluginLabel, SaidLabels, StepLabel};
use crate::telemetry::{Event, Metrics};

/// A plugin was loaded, or a new version of it swapped in.
#[derive(Debug)]
pub struct PluginLoaded<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// Its version.
    pub version: &'a str,
    /// SHA-256 of its file.
    pub sha256: &'a str,
    /// How long reading, checking and compiling took.
    pub took: Duration,
    /// Whether another version served before.
    pub reload: bool,
}

impl Event for PluginLoaded<'_> {
    fn count(&self, metrics: &Metrics) {
        let label = PluginLabel { plugin: metrics.name(self.plugin) };
        metrics.plugin_serves(self.plugin, self.version, self.sha256);
        metrics.plugin_loads.get_or_create(&label).inc();
        metrics.plugin_reloads.get_or_create(&label).inc_by(u64::from(self.reload));
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::plugin",
            plugin = self.plugin,
            version = self.version,
            sha256 = self.sha256,
            duration_us = micros(self.took),
            reload = self.reload,
            "plugin loaded"
        );
    }
}

/// A plugin's file was refused; what served before serves on. An alarm.
#[derive(Debug)]
pub struct PluginRefused<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// SHA-256 of its file, if it could be read.
    pub sha256: Option<&'a str>,
    /// Why, and what to do.
    pub why: &'a str,
}

impl Event for PluginRefused<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.plugin_refusals.get_or_create(&PluginLabel { plugin: metrics.name(self.plugin) }).inc();
        metrics.alarm("plugin-refused");
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::plugin",
            alarm = true,
            plugin = self.plugin,
            sha256 = self.sha256,
            why = self.why,
            "plugin refused"
        );
    }
}

/// A plugin's file is gone. An alarm where a step requires the plugin, which then serves on from memory until the host ends.
#[derive(Debug)]
pub struct PluginRemoved<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// What the host does now.
    pub policy: &'static str,
    /// Whether it serves on from memory.
    pub serves_on: bool,
}

impl Event for PluginRemoved<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.plugin_removals.get_or_create(&PluginLabel { plugin: metrics.name(self.plugin) }).inc();
        if self.serves_on {
            metrics.alarm("plugin-removed");
        } else {
            metrics.plugin_gone(self.plugin);
        }
    }

    fn log(&self) {
        tracing::warn!(
            target: "dossier::plugin",
            alarm = self.serves_on.then_some(true),
            plugin = self.plugin,
            policy = self.policy,
            "plugin removed"
        );
    }
}

/// A plugin wrote a line.
#[derive(Debug)]
pub struct PluginSaid<'a> {
    /// The step.
    pub step: &'a str,
    /// The alert; none while it configures.
    pub id: Option<&'a str>,
    /// How much it matters.
    pub level: Level,
    /// The line, cut to its bound.
    pub message: &'a str,
}

impl Event for PluginSaid<'_> {
    fn count(&self, metrics: &Metrics) {
        let level = match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        metrics.plugin_lines.get_or_create(&SaidLabels { step: metrics.name(self.step), level }).inc();
    }

    fn log(&self) {
        // A level must be known where a line is written in the code, so there is one line for each.
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(
                    target: "dossier::plugin", step = self.step, id = self.id, text = self.message, "plugin said"
                )
            };
        }
        match self.level {
            Level::ERROR => say!(error),
            Level::WARN => say!(warn),
            Level::INFO => say!(info),
            Level::DEBUG => say!(debug),
            Level::TRACE => say!(trace),
        }
    }
}

/// A plugin wrote more than it may in one call.
#[derive(Debug)]
pub struct PluginLogCut<'a> {
    /// The step.
    pub step: &'a str,
    /// How many lines were dropped.
    pub dropped: u64,
}

impl Event for PluginLogCut<'_> {
    fn count(&self, metrics: &Metrics) {
        let label = StepLabel { step: metrics.name(self.step) };
        metrics.plugin_lines_dropped.get_or_create(&label).inc_by(self.dropped);
    }

    fn log(&self) {
        tracing::warn!(target: "dossier::plugin", step = self.step, dropped = self.dropped, "plugin log cut");
    }

    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("log-cut", self.step))
    }
}

/// A plugin asked for what it was not granted.
#[derive(Debug)]
pub struct PluginDenied<'a> {
    /// The step.
    pub step: &'a str,
    /// `table` or `http`.
    pub what: &'static str,
    /// Which one, and why not.
    pub detail: &'a str,
}

impl Event for PluginDenied<'_> {
    fn count(&self, metrics: &Metrics) {
        let labels = DeniedLabels { step: metrics.name(self.step), what: self.what };
        metrics.plugin_denials.get_or_create(&labels).inc();
    }

    fn log(&self) {
        tracing::warn!(
            target: "dossier::plugin", step = self.step, what = self.what, detail = self.detail, "plugin denied"
        );
    }

    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("denied", self.step))
    }
}
