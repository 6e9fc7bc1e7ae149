//! What follows from a probation: a version that passed is the last good one; one that failed is taken out, and the last good
//! one is put back. How calls are counted is in [`crate::plugin::probation`].

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Directory, Entry, Good, Serving};
use crate::plugin::loader::Loaded;
use crate::plugin::probation::{Decision, Probation};
use crate::plugin::versions::{Rejected, Versions};
use crate::telemetry::events::{PluginOnProbation, PluginPassed, PluginTakenOut, PluginUnfit};

impl Directory {
    /// Puts a version on probation, unless the configuration wants none.
    pub(super) fn begin_probation(
        &self,
        plugin: &str,
        loaded: &Loaded,
        bytes: Bytes,
        instead: Option<&Loaded>,
    ) -> Option<(Arc<Probation>, Bytes)> {
        let config = self.loader.config.plugins.probation;
        let probation = Probation::begin(config, Arc::clone(&self.stirred))?;
        self.telemetry.emit(&PluginOnProbation {
            plugin,
            version: &loaded.version,
            sha256: &loaded.sha256,
            calls: config.calls,
            instead: instead.map(|instead| instead.sha256.as_str()),
        });
        Some((probation, bytes))
    }

    /// Carries out what probations came to.
    pub(super) async fn judge(&mut self) {
        let decided = |entry: &Entry| entry.serving.as_ref()?.probation.as_ref()?.0.decision();
        let decided: Vec<_> =
            self.entries.iter().filter_map(|(plugin, entry)| Some((plugin.clone(), decided(entry)?))).collect();
        for (plugin, decision) in decided {
            let Some(serving) = self.entries.get_mut(&plugin).and_then(|entry| entry.serving.as_mut()) else {
                continue;
            };
            let Some((probation, bytes)) = serving.probation.take() else { continue };
            let (loaded, summary) = (Arc::clone(&serving.loaded), probation.summary());
            match decision {
                Decision::Passed => self.passed(&plugin, loaded, bytes, &summary).await,
                Decision::Failed => self.failed(&plugin, loaded, summary).await,
            }
        }
    }

    /// It is the last good version from now on.
    async fn passed(&mut self, plugin: &str, loaded: Arc<Loaded>, bytes: Bytes, summary: &str) {
        let (version, sha256) = (&loaded.version, &loaded.sha256);
        self.telemetry.emit(&PluginPassed { plugin, version, sha256, summary });
        if let Some(entry) = self.entries.get_mut(plugin) {
            entry.good = Some(Good { loaded: Arc::clone(&loaded), unproven: None });
        }
        self.publish();
        self.keep(plugin, &loaded, bytes, true).await;
    }

    /// Puts the last good version back. Where there is none, or the operator pinned this one, it serves on.
    async fn failed(&mut self, plugin: &str, loaded: Arc<Loaded>, why: String) {
        let (version, sha256) = (loaded.version.as_str(), loaded.sha256.as_str());
        let good = self.entries.get(plugin).and_then(|entry| entry.good.as_ref());
        let instead = good.filter(|good| {
            good.loaded.sha256 != sha256
                && !self.loader.is_pinned(plugin, sha256)
                && self.second_verdict(plugin, &good.loaded).is_none()
        });
        let instead = instead.map(|good| (Arc::clone(&good.loaded), good.unproven.clone()));
        let versions = Versions::of(&self.loader.config.host.state_dir);
        let Some((instead, unproven)) = instead else {
            self.telemetry.emit(&PluginUnfit { plugin, version, sha256, why: &why });
            if let Some(entry) = self.entries.get_mut(plugin) {
                entry.good = entry.good.take().filter(|good| good.loaded.sha256 != sha256);
            }
            self.publish();
            let (name, digest) = (plugin.to_owned(), sha256.to_owned());
            self.remember(plugin, move || versions.forget(&name, &digest)).await;
            return;
        };
        self.telemetry.emit(&PluginTakenOut {
            plugin,
            version,
            sha256,
            why: &why,
            instead: (&instead.version, &instead.sha256),
        });
        let probation = unproven.and_then(|bytes| self.begin_probation(plugin, &instead, bytes, None));
        if let Some(entry) = self.entries.get_mut(plugin) {
            entry.serving = Some(Serving { loaded: instead, probation });
            // What is refused by now is another file, and the one that somebody can do something about.
            entry.refused.get_or_insert_with(|| (Some(sha256.to_owned()), format!("it was taken out: {why}")));
        }
        // Alerts first; what is written is for the next start.
        self.publish();
        let rejected = Rejected { sha256: sha256.to_owned(), version: version.to_owned(), why, at: Timestamp::now() };
        let name = plugin.to_owned();
        self.remember(plugin, move || versions.reject(&name, rejected)).await;
    }

    /// Keeps a version for a start that finds another that may not serve.
    pub(super) async fn keep(&self, plugin: &str, loaded: &Loaded, bytes: Bytes, proven: bool) {
        let versions = Versions::of(&self.loader.config.host.state_dir);
        let (name, sha256) = (plugin.to_owned(), loaded.sha256.clone());
        self.remember(plugin, move || versions.keep(&name, &bytes, &sha256, proven)).await;
    }

    /// Writes to the state folder. When that fails the host goes on: only the next start knows less.
    async fn remember(&self, plugin: &str, write: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(plugin, %error, "what the next start should know of a plugin cannot be written");
        }
    }
}
