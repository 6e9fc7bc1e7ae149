//! The plugins folder: notices files that come, change and go, has them loaded aside and swaps them in between alerts. What
//! cannot be loaded changes nothing: what served before serves on. A new version is on probation first, and the last good one
//! is put back when it fails.

mod folder;
mod judge;
mod load;
mod renew;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use notify::Watcher;
use notify::event::{AccessKind, EventKind};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::folder::{Found, list};
use self::load::{Candidate, Known, Outcome, Purpose, load, missing, second_verdict};
pub(super) use self::load::{check, rehearse};
use self::renew::Prepared;
pub(super) use self::renew::Renewal;
use super::loader::{Loaded, Loader};
use super::probation::Probation;
use crate::admin::Health;
use crate::pipeline::setup::Setup;
use crate::pipeline::{LoadedStep, Pipeline};
use crate::telemetry::Telemetry;
use crate::telemetry::alarms::Kind;
use crate::telemetry::events::{PluginLoaded, PluginRefused, PluginRemoved};

/// How often the folder is looked at even when nobody says that it changed.
const POLL: Duration = Duration::from_secs(1);

/// How long a file must stay as it is before it is read: one that is still being written is left alone.
const SETTLE: Duration = Duration::from_millis(200);

/// When a load that failed through no fault of the plugin is tried again: at first, and at the most, doubling.
const RETRY: Duration = Duration::from_secs(30);
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// The alarms about one plugin. Events raise them; they are over when the plugin's state says so.
const ALARMS: [Kind; 5] =
    [Kind::PluginRefused, Kind::PluginTakenOut, Kind::PluginUnfit, Kind::PluginRemoved, Kind::PluginOnProbation];

/// What is known of one plugin.
#[derive(Default)]
struct Entry {
    /// The state of the file that was dealt with last.
    dealt_with: Option<Found>,
    /// A newer state, and since when the file is in it.
    settling: Option<(Found, Instant)>,
    /// Whether it is being loaded.
    loading: bool,
    /// What serves.
    serving: Option<Serving>,
    /// The version to go back to: the last that has proven itself or, in want of one, the first, while it has not failed.
    good: Option<Good>,
    /// What was said about the last refusal: digest and reason.
    refused: Option<(Option<String>, String)>,
    /// When to try again although the file is the same.
    retry: Option<Instant>,
    /// How often in a row the machine was to blame.
    failures: u32,
}

impl Entry {
    /// Whether an alarm about it may still hold.
    fn may_hold(&self, kind: Kind) -> bool {
        match kind {
            Kind::PluginRefused | Kind::PluginTakenOut => self.refused.is_some(),
            Kind::PluginOnProbation => self.serving.as_ref().is_some_and(|serving| serving.probation.is_some()),
            // It failed if it serves without a probation, and is not the one to go back to.
            Kind::PluginUnfit => self.serving.as_ref().is_some_and(|serving| {
                let good = self.good.as_ref().map(|good| &good.loaded.sha256);
                serving.probation.is_none() && good != Some(&serving.loaded.sha256)
            }),
            Kind::PluginRemoved => self.dealt_with.is_none(),
            _ => true,
        }
    }
}

/// A version to go back to.
struct Good {
    loaded: Arc<Loaded>,
    /// Its bytes, while it has proven nothing: then it is on probation again when it is put back.
    unproven: Option<Bytes>,
}

/// A version that serves.
struct Serving {
    loaded: Arc<Loaded>,
    /// Its probation, and its bytes, which are kept once it has passed.
    probation: Option<(Arc<Probation>, Bytes)>,
}

impl Serving {
    /// Its steps. While it is on probation, their calls count.
    fn steps(&self) -> impl Iterator<Item = LoadedStep> + '_ {
        self.loaded.steps.iter().map(|step| match &self.probation {
            Some((probation, _)) => probation.watch(step),
            None => step.clone(),
        })
    }
}

/// The load of one plugin's file.
struct Load {
    plugin: String,
    found: Found,
    took: Duration,
    outcome: Outcome,
}

/// The folder, while it is watched.
pub(super) struct Directory {
    loader: Arc<Loader>,
    telemetry: Arc<Telemetry>,
    health: Arc<Health>,
    entries: BTreeMap<String, Entry>,
    loads: JoinSet<Load>,
    /// The configuration that took the place of the one that the host began with, if one did.
    setup: Option<Arc<Setup>>,
    /// Another configuration that is being prepared: one at a time.
    renewals: JoinSet<Prepared>,
    steps: watch::Sender<Option<Arc<Pipeline>>>,
    /// Whether what there was at the start is still being loaded.
    starting: bool,
    /// Says that something changed, or that a probation is decided.
    stirred: Arc<Notify>,
    /// Watches as long as it lives; none where the system cannot, and the poll has to do.
    watcher: Option<notify::RecommendedWatcher>,
}

impl Directory {
    /// Loads everything that is there.
    pub(super) async fn open(
        loader: Loader,
        telemetry: Arc<Telemetry>,
        health: Arc<Health>,
    ) -> (Self, watch::Receiver<Option<Arc<Pipeline>>>) {
        let (steps, receiver) = watch::channel(None);
        let mut directory = Self {
            loader: Arc::new(loader),
            telemetry,
            health,
            entries: BTreeMap::new(),
            loads: JoinSet::new(),
            setup: None,
            renewals: JoinSet::new(),
            steps,
            starting: true,
            stirred: Arc::default(),
            watcher: None,
        };
        // Watched before it is read, so that nothing slips in between.
        directory.listen();
        directory.scan();
        let mut loads = Vec::new();
        while let Some(load) = directory.loads.join_next().await {
            loads.extend(load);
        }
        // In the order of the configuration: of two verdict plugins the first one counts, whichever compiles faster.
        let order = |plugin: &str| directory.loader.config.steps.iter().position(|step| step.plugin == plugin);
        loads.sort_by_cached_key(|load| (order(&load.plugin).unwrap_or(usize::MAX), load.plugin.clone()));
        for load in loads {
            directory.finish(load).await;
        }
        directory.starting = false;
        directory.loader.serves();
        directory.publish();
        (directory, receiver)
    }

    /// Watches for ever, and takes other configurations over; ends by being dropped.
    pub(super) async fn watch(mut self, mut renewals: mpsc::Receiver<Renewal>) {
        let mut next = Instant::now() + SETTLE;
        loop {
            let stirred = Arc::clone(&self.stirred);
            tokio::select! {
                () = stirred.notified() => {}
                () = tokio::time::sleep_until(next) => {}
                Some(renewal) = renewals.recv(), if self.renewals.is_empty() => self.prepare(renewal),
                Some(prepared) = self.renewals.join_next() => {
                    self.judge().await;
                    // One that panicked took the way to whoever waits for it along, who is told by that.
                    if let Ok(prepared) = prepared {
                        self.renew(prepared).await;
                    }
                }
                Some(load) = self.loads.join_next() => {
                    // What is decided is decided about what serves now.
                    self.judge().await;
                    match load {
                        Ok(load) => {
                            self.finish(load).await;
                            self.publish();
                        }
                        // A load that panicked: try everything that is marked as loading once more, later.
                        Err(_) => self.entries.values_mut().for_each(|entry| {
                            if std::mem::take(&mut entry.loading) {
                                entry.retry = Some(Instant::now() + RETRY);
                            }
                        }),
                    }
                }
            }
            self.judge().await;
            if self.watcher.is_none() {
                self.listen();
            }
            let settling = self.scan();
            next = Instant::now() + if settling { SETTLE } else { POLL };
        }
    }

    fn folder(&self) -> &Path {
        &self.loader.config.plugins.dir
    }

    fn listen(&mut self) {
        let stirred = Arc::clone(&self.stirred);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Looking at the folder is an event too, and must not lead to the next look.
            let looked = event
                .is_ok_and(|event| matches!(event.kind, EventKind::Access(AccessKind::Open(_) | AccessKind::Read)));
            if !looked {
                stirred.notify_one();
            }
        });
        self.watcher = watcher.ok().and_then(|mut watcher| {
            watcher.watch(&self.loader.config.plugins.dir, notify::RecursiveMode::NonRecursive).ok()?;
            Some(watcher)
        });
    }

    /// Looks at the folder and has loaded what is new. Says whether something is not settled yet.
    fn scan(&mut self) -> bool {
        let Ok(found) = list(self.folder()) else {
            // The folder itself is gone or closed to us. Whatever serves, serves on; the poll will see it come back.
            self.watcher = None;
            return false;
        };
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(plugin, entry)| entry.dealt_with.is_some() && !entry.loading && !found.contains_key(*plugin))
            .map(|(plugin, _)| plugin.clone())
            .collect();
        for plugin in &gone {
            self.remove(plugin);
        }
        if !gone.is_empty() {
            self.publish();
        }
        let now = Instant::now();
        let mut settling = false;
        for (plugin, found) in found {
            if !self.loader.config.plugins.auto && !self.loader.is_named(&plugin) {
                continue;
            }
            let entry = self.entries.entry(plugin.clone()).or_default();
            let retry = entry.retry.is_some_and(|retry| retry <= now);
            if entry.loading || (entry.dealt_with.as_ref() == Some(&found) && !retry) {
                entry.settling = None;
                continue;
            }
            let since = match &entry.settling {
                Some((state, since)) if *state == found => *since,
                _ => now,
            };
            entry.settling = Some((found.clone(), since));
            if !self.starting && !retry && now - since < SETTLE {
                settling = true;
                continue;
            }
            entry.settling = None;
            entry.retry = None;
            entry.loading = true;
            let serving = entry.serving.as_ref().map(|serving| Arc::clone(&serving.loaded));
            let known = Known { serving, good: entry.good.as_ref().map(|good| Arc::clone(&good.loaded)) };
            let loader = Arc::clone(&self.loader);
            let purpose = if self.starting { Purpose::Start } else { Purpose::Reload };
            self.loads.spawn(async move {
                let started = Instant::now();
                let outcome = load(&loader, &plugin, &found, known, purpose).await;
                Load { plugin, found, took: started.elapsed(), outcome }
            });
        }
        settling
    }

    /// Takes over what a load gave.
    async fn finish(&mut self, load: Load) {
        let Load { plugin, found, took, outcome } = load;
        let entry = self.entries.entry(plugin.clone()).or_default();
        entry.loading = false;
        let (sha256, why, instead, again) = match outcome {
            // Looked at again at the next scan, once it is settled; or gone, which the next scan sees.
            Outcome::Changed => return,
            Outcome::Same(sha256) => {
                // Unless it was taken out meanwhile: then the next scan has it looked at again.
                if entry.serving.as_ref().is_some_and(|serving| serving.loaded.sha256 == sha256) {
                    entry.dealt_with = Some(found);
                    entry.refused = None;
                }
                return;
            }
            Outcome::Loaded(candidate) => {
                entry.dealt_with = Some(found);
                match self.second_verdict(&plugin, &candidate.loaded) {
                    None => return self.serve(plugin, candidate, took).await,
                    Some(why) => (Some(candidate.loaded.sha256.clone()), why, None, false),
                }
            }
            Outcome::Refused { sha256, why, instead, again } => {
                entry.dealt_with = Some(found);
                (sha256, why, instead, again)
            }
        };
        if let Some(instead) = instead
            && self.second_verdict(&plugin, &instead.loaded).is_none()
        {
            self.serve(plugin.clone(), instead, took).await;
        }
        let entry = self.entries.entry(plugin.clone()).or_default();
        if again {
            let wait = RETRY.saturating_mul(1 << entry.failures.min(16)).min(MAX_RETRY);
            entry.failures += 1;
            entry.retry = Some(Instant::now() + wait);
        }
        let complaint = Some((sha256, why));
        if entry.refused != complaint {
            entry.refused = complaint;
            if let Some((sha256, why)) = &entry.refused {
                self.telemetry.emit(&PluginRefused { plugin: &plugin, sha256: sha256.as_deref(), why });
            }
        }
    }

    /// Puts a version in place of what serves; one that has proven nothing yet is on probation.
    async fn serve(&mut self, plugin: String, candidate: Candidate, took: Duration) {
        let Candidate { loaded, bytes, proven, first, good } = candidate;
        let entry = self.entries.entry(plugin.clone()).or_default();
        // What proved itself or failed while this one was loaded is known here.
        let good = entry.good.take().or(good).filter(|good| good.loaded.sha256 != loaded.sha256);
        self.telemetry.emit(&PluginLoaded {
            plugin: &plugin,
            version: &loaded.version,
            sha256: &loaded.sha256,
            took,
            reload: entry.serving.is_some(),
        });
        (entry.refused, entry.failures) = (None, 0);
        let probation = match proven {
            true => None,
            false => self.begin_probation(&plugin, &loaded, bytes.clone(), good.as_ref().map(|good| &*good.loaded)),
        };
        let is_proven = probation.is_none();
        let entry = self.entries.entry(plugin.clone()).or_default();
        // In want of one that has proven itself, the first one is better than none.
        entry.good = match good {
            Some(good) if !is_proven => Some(good),
            _ => Some(Good { loaded: Arc::clone(&loaded), unproven: (!is_proven).then(|| bytes.clone()) }),
        };
        entry.serving = Some(Serving { loaded: Arc::clone(&loaded), probation });
        if is_proven || first {
            self.keep(&plugin, &loaded, bytes, is_proven).await;
        }
    }

    /// Why a plugin cannot serve beside the others: there can be one verdict only.
    fn second_verdict(&self, plugin: &str, loaded: &Loaded) -> Option<String> {
        let others = self.entries.iter().filter(|(other, _)| *other != plugin);
        let serving = others.filter_map(|(_, entry)| entry.serving.as_ref());
        second_verdict(serving.flat_map(|serving| &serving.loaded.steps).chain(&loaded.steps))
    }

    /// Deals with a file that is gone.
    fn remove(&mut self, plugin: &str) {
        let Some(entry) = self.entries.get_mut(plugin) else { return };
        entry.dealt_with = None;
        entry.settling = None;
        entry.refused = None;
        let Some(serving) = &entry.serving else { return };
        let serves_on = serving.loaded.steps.iter().any(|step| step.config.required);
        let policy = if serves_on {
            "a step requires it: it serves on from memory; put its file back before the host is restarted"
        } else {
            entry.serving = None;
            "no step requires it: alerts go on without it"
        };
        self.telemetry.emit(&PluginRemoved { plugin, policy, serves_on });
    }

    /// Says what alerts should run through now.
    fn publish(&self) {
        let serving = |plugin: &str| self.entries.get(plugin).and_then(|entry| entry.serving.as_ref());
        let mut steps = Vec::new();
        let mut missing = Vec::new();
        for config in &self.loader.config.steps {
            let loaded = serving(&config.plugin)
                .and_then(|serving| serving.steps().find(|step| step.config.name == config.name));
            let absent = (loaded.is_none() && config.required).then(|| self.missing(&config.name, &config.plugin));
            self.telemetry.hold(Kind::PluginMissing, &config.name, absent.as_deref());
            missing.extend(absent);
            steps.push(loaded.unwrap_or_else(|| LoadedStep::absent(config.clone())));
        }
        let unnamed = self.entries.iter().filter(|(plugin, _)| !self.loader.is_named(plugin));
        steps.extend(unnamed.filter_map(|(_, entry)| entry.serving.as_ref()).flat_map(Serving::steps));
        let ready = missing.is_empty();
        // Another configuration may not name a step any more that lacked its plugin.
        for step in self.telemetry.alarms().subjects(Kind::PluginMissing) {
            if !self.loader.config.steps.iter().any(|config| config.name == step) {
                self.telemetry.clear(Kind::PluginMissing, &step);
            }
        }
        for (plugin, entry) in &self.entries {
            for kind in ALARMS.into_iter().filter(|kind| !entry.may_hold(*kind)) {
                self.telemetry.clear(kind, plugin);
            }
        }
        self.health.set("plugins", (!ready).then(|| missing.join("; ")));
        self.steps.send_replace(ready.then(|| Arc::new(Pipeline::of(self.setup.clone(), steps))));
    }

    /// Why a required step has no plugin.
    fn missing(&self, step: &str, plugin: &str) -> String {
        match self.entries.get(plugin).and_then(|entry| entry.refused.as_ref()) {
            Some((_, why)) => format!("plugin \"{plugin}\" is refused: {why}"),
            None => missing(step, &self.folder().join(format!("{plugin}.wasm"))),
        }
    }
}
