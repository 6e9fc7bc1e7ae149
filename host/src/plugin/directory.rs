//! The plugins folder: notices files that come, change and go, has them loaded aside and swaps them in between alerts. What
//! cannot be loaded changes nothing: what served before serves on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dossier_authoring::manifest::Manifest;
use notify::Watcher;
use notify::event::{AccessKind, EventKind};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::compiler::{CompileError, private_dir, read_bounded, write_whole};
use super::loader::{Loaded, Loader};
use super::{CheckedStep, MAX_COMPONENT, too_large};
use crate::admin::Health;
use crate::config::Finding;
use crate::digest::sha256_hex;
use crate::pipeline::{LoadedStep, Pipeline, Stage};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{PluginLoaded, PluginRefused, PluginRemoved};

/// How often the folder is looked at even when nobody says that it changed.
const POLL: Duration = Duration::from_secs(1);

/// How long a file must stay as it is before it is read: one that is still being written is left alone.
const SETTLE: Duration = Duration::from_millis(200);

/// When a load that failed through no fault of the plugin is tried again: at first, and at the most, doubling.
const RETRY: Duration = Duration::from_secs(30);
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// What tells one state of a file from another: device time stamps, size and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file in the folder: one that can be read, or why not.
type Found = Result<Stamp, String>;

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
    serving: Option<Arc<Loaded>>,
    /// What was said about the last refusal: digest and reason.
    refused: Option<(Option<String>, String)>,
    /// When to try again although the file is the same.
    retry: Option<Instant>,
    /// How often in a row the machine was to blame.
    failures: u32,
}

/// How loading a file ended.
enum Outcome {
    /// It changed while it was read: nothing is known.
    Changed,
    /// The bytes serve already.
    Same,
    /// It can serve.
    Loaded(Loaded, Vec<u8>),
    /// It is refused; the bytes that served last before this start can serve instead.
    Refused { sha256: Option<String>, why: String, instead: Option<Loaded> },
    /// The machine is to blame.
    Failed { sha256: Option<String>, why: String },
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
    steps: watch::Sender<Option<Arc<Pipeline>>>,
    /// Whether what there was at the start is still being loaded.
    starting: bool,
    /// Says that something changed.
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
        directory.publish();
        (directory, receiver)
    }

    /// Watches for ever; ends by being dropped.
    pub(super) async fn watch(mut self) {
        let mut next = Instant::now() + SETTLE;
        loop {
            let stirred = Arc::clone(&self.stirred);
            tokio::select! {
                () = stirred.notified() => {}
                () = tokio::time::sleep_until(next) => {}
                Some(load) = self.loads.join_next() => {
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
            let serving = entry.serving.clone();
            let loader = Arc::clone(&self.loader);
            let starting = self.starting;
            self.loads.spawn(async move {
                let started = Instant::now();
                let outcome = load(&loader, &plugin, &found, serving, starting).await;
                Load { plugin, found, took: started.elapsed(), outcome }
            });
        }
        settling
    }

    /// Takes over what a load gave.
    async fn finish(&mut self, load: Load) {
        let Load { plugin, found, took, outcome } = load;
        let outcome = match outcome {
            Outcome::Loaded(loaded, bytes) => match self.second_verdict(&plugin, &loaded) {
                Some(why) => Outcome::Refused { sha256: Some(loaded.sha256), why, instead: None },
                None => Outcome::Loaded(loaded, bytes),
            },
            Outcome::Refused { sha256, why, instead } => {
                let instead = instead.filter(|instead| self.second_verdict(&plugin, instead).is_none());
                Outcome::Refused { sha256, why, instead }
            }
            outcome => outcome,
        };
        let entry = self.entries.entry(plugin.clone()).or_default();
        entry.loading = false;
        entry.dealt_with = Some(found);
        let mut complaint = None;
        match outcome {
            // Looked at again at the next scan, once it is settled.
            Outcome::Changed => entry.dealt_with = None,
            Outcome::Same => entry.refused = None,
            Outcome::Loaded(loaded, bytes) => {
                self.telemetry.emit(&PluginLoaded {
                    plugin: &plugin,
                    version: &loaded.version,
                    sha256: &loaded.sha256,
                    took,
                    reload: entry.serving.is_some(),
                });
                entry.refused = None;
                entry.failures = 0;
                entry.serving = Some(Arc::new(loaded));
                self.keep_last_good(plugin, bytes).await;
                return;
            }
            Outcome::Refused { sha256, why, instead } => {
                if let Some(instead) = instead {
                    entry.serving = Some(Arc::new(instead));
                }
                complaint = Some((sha256, why));
            }
            Outcome::Failed { sha256, why } => {
                let wait = RETRY.saturating_mul(1 << entry.failures.min(16)).min(MAX_RETRY);
                entry.failures += 1;
                entry.retry = Some(Instant::now() + wait);
                complaint = Some((sha256, why));
            }
        }
        if complaint.is_some() && entry.refused != complaint {
            entry.refused = complaint;
            if let Some((sha256, why)) = &entry.refused {
                self.telemetry.emit(&PluginRefused { plugin: &plugin, sha256: sha256.as_deref(), why });
            }
        }
    }

    /// Why a plugin cannot serve beside the others: there can be one verdict only.
    fn second_verdict(&self, plugin: &str, loaded: &Loaded) -> Option<String> {
        let others = self.entries.iter().filter(|(other, _)| *other != plugin);
        let serving = others.filter_map(|(_, entry)| entry.serving.as_ref()).flat_map(|serving| &serving.steps);
        second_verdict(serving.chain(&loaded.steps))
    }

    /// Deals with a file that is gone.
    fn remove(&mut self, plugin: &str) {
        let Some(entry) = self.entries.get_mut(plugin) else { return };
        entry.dealt_with = None;
        entry.settling = None;
        entry.refused = None;
        let Some(serving) = &entry.serving else { return };
        let serves_on = serving.steps.iter().any(|step| step.config.required);
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
                .and_then(|loaded| loaded.steps.iter().find(|step| step.config.name == config.name));
            if loaded.is_none() && config.required {
                missing.push(self.missing(&config.name, &config.plugin));
            }
            steps.push(loaded.cloned().unwrap_or_else(|| LoadedStep {
                config: Arc::new(config.clone()),
                stage: Stage::Enrich,
                settings_sha256: sha256_hex(config.settings.as_bytes()),
                enricher: None,
            }));
        }
        let unnamed = self.entries.iter().filter(|(plugin, _)| !self.loader.is_named(plugin));
        steps.extend(unnamed.filter_map(|(_, entry)| entry.serving.as_ref()).flat_map(|loaded| loaded.steps.clone()));
        let ready = missing.is_empty();
        self.health.set("plugins", (!ready).then(|| missing.join("; ")));
        self.steps.send_replace(ready.then(|| Arc::new(Pipeline::new(steps))));
    }

    /// Why a required step has no plugin.
    fn missing(&self, step: &str, plugin: &str) -> String {
        match self.entries.get(plugin).and_then(|entry| entry.refused.as_ref()) {
            Some((_, why)) => format!("plugin \"{plugin}\" is refused: {why}"),
            None => missing(step, &self.folder().join(format!("{plugin}.wasm"))),
        }
    }

    /// Keeps the bytes that serve, for a start that finds others that do not.
    async fn keep_last_good(&self, plugin: String, bytes: Vec<u8>) {
        let path = last_good(&self.loader, &plugin);
        let kept = tokio::task::spawn_blocking(move || {
            if fs::read(&path).is_ok_and(|old| old == bytes) {
                return Ok(());
            }
            private_dir(path.parent().unwrap_or(Path::new(".")))?;
            write_whole(&path, &bytes)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(plugin, %error, "the last good plugin cannot be kept");
        }
    }
}

/// Where the last good bytes of a plugin lie.
fn last_good(loader: &Loader, plugin: &str) -> PathBuf {
    loader.config.host.state_dir.join("last-good").join(format!("{plugin}.wasm"))
}

fn missing(step: &str, path: &Path) -> String {
    format!("step \"{step}\": {} is not there; put the plugin there, or set required = false", path.display())
}

fn second_verdict<'a>(steps: impl Iterator<Item = &'a LoadedStep>) -> Option<String> {
    let names: Vec<_> =
        steps.filter(|step| step.stage == Stage::Verdict).map(|step| format!("\"{}\"", step.config.name)).collect();
    (names.len() > 1).then(|| format!("there can be one verdict step only, not {}; take one out", names.join(" and ")))
}

/// The plugins in a folder, by the stem of their files.
fn list(folder: &Path) -> io::Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // Dot files are being written, or nobody's business.
        let Some((stem, extension)) =
            name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty() && !name.starts_with('.'))
        else {
            continue;
        };
        let state = match (extension, fs::symlink_metadata(&path)) {
            ("cwasm", Ok(_)) if !folder.join(format!("{stem}.wasm")).exists() => {
                Err("machine code (.cwasm) is never loaded from here; put the .wasm file here".to_owned())
            }
            ("wasm", Ok(metadata)) if metadata.is_symlink() => {
                Err("it is a symbolic link; put the file itself here".to_owned())
            }
            ("wasm", Ok(metadata)) if !metadata.is_file() => Err("it is no file".to_owned()),
            ("wasm", Ok(_)) if !stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => {
                Err("its name may hold letters, digits, '-', '_' and '.' only; rename it".to_owned())
            }
            ("wasm", Ok(metadata)) => Ok(Stamp::of(&metadata)),
            _ => continue,
        };
        found.insert(stem.to_owned(), state);
    }
    Ok(found)
}

/// Reads a file once, unless it changes meanwhile: none.
fn read(path: &Path, stamp: Stamp) -> io::Result<Option<Vec<u8>>> {
    let bytes = read_bounded(path, MAX_COMPONENT)?;
    let after = Stamp::of(&fs::symlink_metadata(path)?);
    Ok((after == stamp).then_some(bytes))
}

/// Loads a plugin from its file.
async fn load(loader: &Loader, plugin: &str, found: &Found, serving: Option<Arc<Loaded>>, starting: bool) -> Outcome {
    let refused = |sha256, why| Outcome::Refused { sha256, why, instead: None };
    let stamp = match found {
        Ok(stamp) => *stamp,
        Err(why) => return refused(None, why.clone()),
    };
    let path = loader.config.plugins.dir.join(format!("{plugin}.wasm"));
    let read = tokio::task::spawn_blocking(move || {
        read(&path, stamp).map(|bytes| bytes.map(|bytes| (sha256_hex(&bytes), bytes)))
    });
    let (sha256, bytes) = match read.await {
        Ok(Ok(Some(read))) => read,
        Ok(Ok(None)) => return Outcome::Changed,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Outcome::Changed,
        Ok(Err(error)) => return Outcome::Failed { sha256: None, why: format!("it cannot be read: {error}") },
        Err(error) => return Outcome::Failed { sha256: None, why: error.to_string() },
    };
    if serving.as_ref().is_some_and(|serving| serving.sha256 == sha256) {
        return Outcome::Same;
    }
    if bytes.len() as u64 > MAX_COMPONENT {
        return refused(None, too_large());
    }
    let last_good = starting.then(|| read_bounded(&last_good(loader, plugin), MAX_COMPONENT).ok()).flatten();
    // What asked for less may be what serves, or what served before this start.
    let before = match &serving {
        Some(serving) => serving.manifest.clone(),
        None => last_good.as_ref().and_then(|bytes| Manifest::read(bytes).ok().flatten()),
    };
    let why = match loader.load(plugin, &bytes, before.as_ref()).await {
        Ok(loaded) => return Outcome::Loaded(loaded, bytes),
        Err(CompileError::Failed(why)) => return Outcome::Failed { sha256: Some(sha256), why },
        Err(CompileError::Refused(why)) => why,
    };
    let mut instead = None;
    if let Some(bytes) = last_good.filter(|bytes| sha256_hex(bytes) != sha256) {
        instead = loader.load(plugin, &bytes, None).await.ok();
    }
    let why = if instead.is_some() { format!("{why}; the last good one serves on") } else { why };
    Outcome::Refused { sha256: Some(sha256), why, instead }
}

/// Loads everything once, and gives all that is wrong, and the steps that are not.
pub(super) async fn check(loader: &Loader) -> (Vec<Finding>, Vec<CheckedStep>) {
    let config = &loader.config;
    let folder = &config.plugins.dir;
    let mut findings = Vec::new();
    let files = list(folder).unwrap_or_else(|error| {
        if !config.steps.is_empty() {
            let message =
                format!("the plugins folder {} cannot be read: {error}; set dir in [plugins]", folder.display());
            findings.push(config.finding(None, message));
        }
        BTreeMap::new()
    });
    let mut steps = Vec::new();
    for step in config.steps.iter().filter(|step| step.required && !files.contains_key(&step.plugin)) {
        let message = missing(&step.name, &folder.join(format!("{}.wasm", step.plugin)));
        findings.push(config.finding(step.line, message));
    }
    for (plugin, found) in &files {
        if !config.plugins.auto && !loader.is_named(plugin) {
            continue;
        }
        let file = folder.join(format!("{plugin}.wasm"));
        let why = match load(loader, plugin, found, None, false).await {
            Outcome::Loaded(loaded, _) => {
                let Loaded { steps: loaded, about, manifest, .. } = loaded;
                steps.extend(loaded.into_iter().zip(about).map(|(step, about)| CheckedStep {
                    step,
                    imports: about.imports,
                    plain: about.plain,
                    manifest: manifest.clone(),
                }));
                continue;
            }
            Outcome::Refused { why, .. } | Outcome::Failed { why, .. } => why,
            Outcome::Changed | Outcome::Same => "it is being written; try again when that is done".to_owned(),
        };
        let line = config.steps.iter().find(|step| step.plugin == *plugin).and_then(|step| step.line);
        findings.push(match line {
            Some(_) => config.finding(line, format!("{} is refused: {why}", file.display())),
            None => Finding { file, line, message: why },
        });
    }
    findings.extend(second_verdict(steps.iter().map(|checked| &checked.step)).map(|why| config.finding(None, why)));
    (findings, steps)
}
