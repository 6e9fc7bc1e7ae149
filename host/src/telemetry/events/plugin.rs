//! Plugins: their files, what they say and what they ask for.

use std::time::Duration;

use tracing::Level;

use super::micros;
use crate::telemetry::alarms::{Change, Kind};
use crate::telemetry::metrics::{DeniedLabels, PluginLabel, SaidLabels, StepLabel};
use crate::telemetry::relay::Relayed;
use crate::telemetry::{Event, Metrics, Noted, Told};

/// As much of a digest as people look at.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

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
        metrics.plugin_probation.get_or_create(&label).set(0);
    }

    fn noted(&self) -> Option<Noted> {
        let what = if self.reload { "in place of another" } else { "the first" };
        let text = format!("{} {} ({}), {what}", self.plugin, self.version, short(self.sha256));
        Noted::change("plugin loaded", format!("{} {}", self.plugin, self.sha256), text)
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

    fn told(&self) -> Option<Told> {
        let digest = short(self.sha256);
        let what = if self.reload { "reloaded" } else { "loaded" };
        let line = format!("plugin {} {} {what} in {} ms ({digest})", self.plugin, self.version, self.took.as_millis());
        Some(Told::line(Level::INFO, line))
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
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::PluginRefused, self.plugin, self.why.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("plugin refused", self.plugin, format!("{}: {}", self.plugin, self.why))
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::plugin",
            alarm = true, name = Kind::PluginRefused.name(),
            plugin = self.plugin,
            sha256 = self.sha256,
            why = self.why,
            "plugin refused"
        );
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::ERROR, format!("plugin {} refused: {}", self.plugin, self.why)))
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
        if !self.serves_on {
            metrics.plugin_gone(self.plugin);
        }
    }

    fn alarm(&self) -> Option<Change<'_>> {
        self.serves_on.then(|| Change::Raise(Kind::PluginRemoved, self.plugin, self.policy.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::warning("plugin removed", self.plugin, format!("{}: {}", self.plugin, self.policy))
    }

    fn log(&self) {
        tracing::warn!(
            target: "dossier::plugin",
            alarm = self.serves_on.then_some(true),
            name = self.serves_on.then(|| Kind::PluginRemoved.name()),
            plugin = self.plugin,
            policy = self.policy,
            "plugin removed"
        );
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::WARN, format!("plugin {} removed: {}", self.plugin, self.policy)))
    }
}

/// A plugin's version that has proven nothing yet serves: its first calls are looked at.
#[derive(Debug)]
pub struct PluginOnProbation<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// Its version.
    pub version: &'a str,
    /// SHA-256 of its file.
    pub sha256: &'a str,
    /// How many calls are looked at.
    pub calls: u32,
    /// SHA-256 of the version that is put back should it fail; none where there is no other.
    pub instead: Option<&'a str>,
}

impl Event for PluginOnProbation<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.plugin_probation.get_or_create(&PluginLabel { plugin: metrics.name(self.plugin) }).set(1);
        metrics.plugin_probations.get_or_create(&PluginLabel { plugin: metrics.name(self.plugin) }).inc();
    }

    fn alarm(&self) -> Option<Change<'_>> {
        let (version, digest) = (self.version, short(self.sha256));
        let detail =
            format!("version {version} ({digest}) is on probation: its first {} calls are looked at", self.calls);
        Some(Change::Raise(Kind::PluginOnProbation, self.plugin, detail.into()))
    }

    fn noted(&self) -> Option<Noted> {
        let text = format!("{} {} ({}): its first {} calls", self.plugin, self.version, short(self.sha256), self.calls);
        Noted::change("plugin on probation", format!("{} {}", self.plugin, self.sha256), text)
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::plugin",
            alarm = true,
            name = Kind::PluginOnProbation.name(),
            plugin = self.plugin,
            version = self.version,
            sha256 = self.sha256,
            calls = self.calls,
            instead = self.instead,
            "plugin on probation"
        );
    }
}

/// A version passed its probation: it is the last good one now.
#[derive(Debug)]
pub struct PluginPassed<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// Its version.
    pub version: &'a str,
    /// SHA-256 of its file.
    pub sha256: &'a str,
    /// How it went.
    pub summary: &'a str,
}

impl Event for PluginPassed<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.plugin_probation.get_or_create(&PluginLabel { plugin: metrics.name(self.plugin) }).set(0);
    }

    fn noted(&self) -> Option<Noted> {
        let text = format!("{} {}: {}", self.plugin, self.version, self.summary);
        Noted::change("plugin passed its probation", format!("{} {}", self.plugin, self.sha256), text)
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::plugin",
            plugin = self.plugin,
            version = self.version,
            sha256 = self.sha256,
            summary = self.summary,
            "plugin passed its probation"
        );
    }
}

/// A version failed its probation, and the last good one was put back. An alarm.
#[derive(Debug)]
pub struct PluginTakenOut<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// The version that failed.
    pub version: &'a str,
    /// SHA-256 of its file, by which its victims among the dead letters are found.
    pub sha256: &'a str,
    /// How it went.
    pub why: &'a str,
    /// Version and SHA-256 of what serves instead.
    pub instead: (&'a str, &'a str),
}

impl Event for PluginTakenOut<'_> {
    fn count(&self, metrics: &Metrics) {
        let label = PluginLabel { plugin: metrics.name(self.plugin) };
        metrics.plugin_probation.get_or_create(&label).set(0);
        metrics.plugin_rollbacks.get_or_create(&label).inc();
        metrics.plugin_serves(self.plugin, self.instead.0, self.instead.1);
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(
            Kind::PluginTakenOut,
            self.plugin,
            format!(
                "version {} ({}): it was taken out: {}; {} serves again",
                self.version,
                short(self.sha256),
                self.why,
                self.instead.0
            )
            .into(),
        ))
    }

    fn noted(&self) -> Option<Noted> {
        let (digest, instead) = (short(self.sha256), self.instead.0);
        let text = format!("{} {} ({digest}): {}; {instead} serves again", self.plugin, self.version, self.why);
        Noted::error("plugin taken out", format!("{} {}", self.plugin, self.sha256), text)
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::plugin",
            alarm = true, name = Kind::PluginTakenOut.name(),
            plugin = self.plugin,
            version = self.version,
            sha256 = self.sha256,
            why = self.why,
            instead_version = self.instead.0,
            instead_sha256 = self.instead.1,
            "plugin taken out; replay what it failed on with dossier dlq replay --digest"
        );
    }

    fn told(&self) -> Option<Told> {
        let line = format!(
            "plugin {} {} taken out ({}): {}; {} serves again",
            self.plugin,
            self.version,
            short(self.sha256),
            self.why,
            self.instead.0
        );
        Some(Told::line(Level::ERROR, line))
    }
}

/// A version failed its probation and serves on: there is no other, or the operator pinned it. An alarm.
#[derive(Debug)]
pub struct PluginUnfit<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// Its version.
    pub version: &'a str,
    /// SHA-256 of its file.
    pub sha256: &'a str,
    /// How it went.
    pub why: &'a str,
}

impl Event for PluginUnfit<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.plugin_probation.get_or_create(&PluginLabel { plugin: metrics.name(self.plugin) }).set(0);
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(
            Kind::PluginUnfit,
            self.plugin,
            format!("version {} ({}): {}", self.version, short(self.sha256), self.why).into(),
        ))
    }

    fn noted(&self) -> Option<Noted> {
        let text = format!("{} {}: {}; it serves on", self.plugin, self.version, self.why);
        Noted::error("plugin failed its probation", format!("{} {}", self.plugin, self.sha256), text)
    }

    fn log(&self) {
        tracing::error!(
            target: "dossier::plugin",
            alarm = true, name = Kind::PluginUnfit.name(),
            plugin = self.plugin,
            version = self.version,
            sha256 = self.sha256,
            why = self.why,
            "plugin failed its probation and serves on, for there is no other that may"
        );
    }

    fn told(&self) -> Option<Told> {
        let line = format!("plugin {} {} serves on though {}", self.plugin, self.version, self.why);
        Some(Told::line(Level::ERROR, line))
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

    fn told(&self) -> Option<Told> {
        Some(Told::line(self.level, format!("{} says: {}", self.step, self.message)))
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::PluginSaid {
            step: self.step.to_owned(),
            id: self.id.map(str::to_owned),
            level: self.level.to_string(),
            message: self.message.to_owned(),
        })
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

    fn noted(&self) -> Option<Noted> {
        let text = format!("{}: {} lines more than its log_lines", self.step, self.dropped);
        Noted::warning("plugin log cut", self.step, text)
    }

    fn log(&self) {
        tracing::warn!(target: "dossier::plugin", step = self.step, dropped = self.dropped, "plugin log cut");
    }

    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("log-cut", self.step))
    }

    fn told(&self) -> Option<Told> {
        let lines = if self.dropped == 1 { "line was" } else { "lines were" };
        let line = format!("{} said more than its log_lines: {} {lines} dropped", self.step, self.dropped);
        Some(Told::line(Level::WARN, line))
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::PluginLogCut { step: self.step.to_owned(), dropped: self.dropped })
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

    fn noted(&self) -> Option<Noted> {
        Noted::warning(
            "plugin denied",
            format!("{} {}", self.step, self.what),
            format!("{}: {}", self.step, self.detail),
        )
    }

    fn log(&self) {
        tracing::warn!(
            target: "dossier::plugin", step = self.step, what = self.what, detail = self.detail, "plugin denied"
        );
    }

    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("denied", self.step))
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::WARN, format!("{} was denied: {}", self.step, self.detail)))
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::PluginDenied {
            step: self.step.to_owned(),
            what: self.what.to_owned(),
            detail: self.detail.to_owned(),
        })
    }
}
