//! Loads one file of the plugins folder aside: whether it may serve, and what can serve in its place. Changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dossier_authoring::manifest::Manifest;
use dossier_authoring::outline;

use super::Good;
use super::folder::{Found, list, read};
use crate::config::Finding;
use crate::pipeline::{LoadedStep, Stage};
use crate::plugin::compiler::{CompileError, read_bounded};
use crate::plugin::loader::{File, Loaded, Loader};
use crate::plugin::versions::{Rejected, Versions};
use crate::plugin::{CheckedStep, MAX_COMPONENT, too_large};

/// What is known of a plugin when its file is loaded.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// What serves.
    pub serving: Option<Arc<Loaded>>,
    /// The last good version, if it is loaded.
    pub good: Option<Arc<Loaded>>,
}

/// Why a file is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The host starts: if the file may not serve, the last good version does.
    Start,
    /// The file came or changed while the host runs: if it may not serve, what serves goes on or, in want of that, the last
    /// good version does.
    Reload,
    /// Only to see what is wrong.
    Check,
}

/// How loading a file ended.
pub(super) enum Outcome {
    /// It changed while it was read: nothing is known.
    Changed,
    /// The bytes with this SHA-256 served when the load began.
    Same(String),
    /// It can serve.
    Loaded(Candidate),
    /// It is refused; the last good version can serve instead.
    Refused {
        /// SHA-256 of the file, if it could be read.
        sha256: Option<String>,
        /// Why, and what to do.
        why: String,
        /// The last good version, where nothing serves.
        instead: Option<Candidate>,
        /// Whether the machine is to blame, so that another try may work.
        again: bool,
    },
}

/// A version that can serve.
pub(super) struct Candidate {
    /// The version.
    pub loaded: Arc<Loaded>,
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether it has proven itself before.
    pub proven: bool,
    /// Whether no version of the plugin is kept yet.
    pub first: bool,
    /// The last good version, if it was not known before, is another one and can be loaded.
    pub good: Option<Good>,
}

/// A file that is not to serve.
struct Refusal {
    sha256: Option<String>,
    why: String,
    again: bool,
}

impl Refusal {
    fn of(sha256: &str, error: CompileError) -> Self {
        let again = matches!(error, CompileError::Failed(_));
        Self { sha256: Some(sha256.to_owned()), why: error.to_string(), again }
    }
}

/// What is remembered of a plugin, as far as it matters for a file of it.
struct Remembered {
    rejected: Option<Rejected>,
    unproven: bool,
    last_good: Option<File>,
}

/// Loads a plugin from its file.
pub(super) async fn load(loader: &Loader, plugin: &str, found: &Found, known: Known, purpose: Purpose) -> Outcome {
    match try_load(loader, plugin, found, &known, purpose).await {
        Ok(outcome) => outcome,
        Err(Refusal { sha256, mut why, again }) => {
            let mut instead = None;
            // While the host runs, too: the file may have been away for a moment, or not whole when the host started.
            let nothing = purpose == Purpose::Reload && known.serving.is_none();
            if purpose == Purpose::Start || nothing {
                instead = load_last_good(loader, plugin, sha256.as_deref()).await;
            }
            if instead.is_some() {
                why.push_str("; the last good one serves on");
            }
            Outcome::Refused { sha256, why, instead, again }
        }
    }
}

async fn try_load(
    loader: &Loader,
    plugin: &str,
    found: &Found,
    known: &Known,
    purpose: Purpose,
) -> Result<Outcome, Refusal> {
    let refused = |why: String| Refusal { sha256: None, why, again: false };
    let failed = |why: String| Refusal { sha256: None, why, again: true };
    let stamp = found.clone().map_err(refused)?;
    let path = loader.config.plugins.dir.join(format!("{plugin}.wasm"));
    let file = aside(move || Ok(read(&path, stamp)?.map(File::read))).await;
    let Some(file) = file.map_err(|error| failed(format!("it cannot be read: {error}")))? else {
        return Ok(Outcome::Changed);
    };
    let sha256 = &file.sha256;
    if known.serving.as_ref().is_some_and(|serving| serving.sha256 == *sha256) {
        return Ok(Outcome::Same(file.sha256));
    }
    if file.bytes.len() as u64 > MAX_COMPONENT {
        return Err(refused(too_large()));
    }
    let remembered = remember(loader, plugin, sha256).await.map_err(failed)?;
    let pinned = loader.is_pinned(plugin, sha256);
    if let Some(rejected) = remembered.rejected.filter(|_| !pinned) {
        let why = format!(
            "it was taken out at {}: {}; put another version here, or, if it is to serve all the same, pin it with sha256 = \
             \"{sha256}\" in its [[step]]",
            rejected.at.strftime("%Y-%m-%d %H:%M:%SZ"),
            rejected.why
        );
        return Err(Refusal { sha256: Some(sha256.clone()), why, again: false });
    }
    // The version before is the one that has proven itself, be it from before this start; in want of that, what serves. One
    // that does not say what it asks for asks for nothing.
    let last_good = remembered.last_good;
    let before = match (&known.good, &last_good, &known.serving) {
        (Some(good), ..) => Some(good.manifest.clone().unwrap_or_default()),
        (None, Some(last_good), _) => Some(last_good.manifest.clone().ok().flatten().unwrap_or_default()),
        (None, None, serving) => serving.as_ref().map(|serving| serving.manifest.clone().unwrap_or_default()),
    };
    let loaded = loader.load(plugin, &file, before.as_ref()).await.map_err(|error| Refusal::of(sha256, error))?;
    let is_last_good = last_good.as_ref().is_some_and(|last_good| last_good.sha256 == *sha256);
    let good = match &last_good {
        Some(last_good) if known.good.is_none() && !is_last_good && !pinned && purpose != Purpose::Check => {
            let loaded = loader.load(plugin, last_good, None).await.ok();
            let unproven = remembered.unproven.then(|| last_good.bytes.clone());
            loaded.map(|loaded| Good { loaded: Arc::new(loaded), unproven })
        }
        _ => None,
    };
    Ok(Outcome::Loaded(Candidate {
        loaded: Arc::new(loaded),
        proven: is_last_good && !remembered.unproven,
        first: last_good.is_none(),
        good,
        bytes: file.bytes,
    }))
}

/// The last good version, unless it is the one that was just refused.
pub(super) async fn load_last_good(loader: &Loader, plugin: &str, refused: Option<&str>) -> Option<Candidate> {
    let Remembered { unproven, last_good, .. } = remember(loader, plugin, refused.unwrap_or_default()).await.ok()?;
    let file = last_good.filter(|file| Some(file.sha256.as_str()) != refused)?;
    let loaded = loader.load(plugin, &file, None).await.ok()?;
    Some(Candidate { loaded: Arc::new(loaded), bytes: file.bytes, proven: !unproven, first: false, good: None })
}

/// Looks up what is remembered of a plugin and of one version of it.
async fn remember(loader: &Loader, plugin: &str, sha256: &str) -> Result<Remembered, String> {
    let versions = Versions::of(&loader.config.host.state_dir);
    let (plugin, sha256) = (plugin.to_owned(), sha256.to_owned());
    let remembered = aside(move || {
        let last_good = versions.last_good(&plugin).map(File::read);
        Ok(Remembered {
            rejected: versions.rejected(&plugin, &sha256),
            unproven: last_good.as_ref().is_some_and(|file| versions.is_unproven(&plugin, &file.sha256)),
            last_good,
        })
    });
    remembered.await.map_err(|error| error.to_string())
}

/// Does what blocks where it may.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Loads everything once, and gives all that is wrong, and the steps that are not.
pub(in crate::plugin) async fn check(loader: &Loader) -> (Vec<Finding>, Vec<CheckedStep>) {
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
        let file: PathBuf = folder.join(format!("{plugin}.wasm"));
        let why = match load(loader, plugin, found, Known::default(), Purpose::Check).await {
            Outcome::Loaded(candidate) => {
                let loaded = &candidate.loaded;
                steps.extend(loaded.steps.iter().zip(&loaded.about).map(|(step, about)| CheckedStep {
                    step: step.clone(),
                    imports: about.imports.clone(),
                    plain: about.plain.clone(),
                    manifest: loaded.manifest.clone(),
                    refused: false,
                }));
                continue;
            }
            Outcome::Refused { why, .. } => why,
            Outcome::Changed | Outcome::Same(_) => "it is being written; try again when that is done".to_owned(),
        };
        steps.extend(refused_steps(loader, plugin, &file).await);
        let line = config.steps.iter().find(|step| step.plugin == *plugin).and_then(|step| step.line);
        findings.push(match line {
            Some(_) => config.finding(line, format!("{} is refused: {why}", file.display())),
            None => Finding { file, line, message: why },
        });
    }
    findings.extend(
        second_verdict(steps.iter().filter(|checked| !checked.refused).map(|checked| &checked.step))
            .map(|why| config.finding(None, why)),
    );
    (findings, steps)
}

/// The steps of a plugin that is refused, with what its file shows of itself.
async fn refused_steps(loader: &Loader, plugin: &str, file: &Path) -> Vec<CheckedStep> {
    let steps: Vec<_> = loader.config.steps.iter().filter(|step| step.plugin == plugin).cloned().collect();
    let file = file.to_owned();
    // A link is refused without being followed, and shows nothing.
    let read = move || if file.is_symlink() { Ok(Vec::new()) } else { read_bounded(&file, MAX_COMPONENT) };
    let Ok(bytes) = aside(read).await else { return Vec::new() };
    let (imports, manifest) = (outline::read(&bytes).imports, Manifest::read(&bytes).ok().flatten());
    let of = |config| CheckedStep {
        step: LoadedStep::absent(config),
        imports: imports.clone(),
        manifest: manifest.clone(),
        plain: None,
        refused: true,
    };
    steps.into_iter().map(of).collect()
}

/// The steps that a host would run if it started now and a plugin's file were this one. Changes nothing.
///
/// # Errors
/// Why it would not serve: this file is refused, or a required plugin is missing.
pub(in crate::plugin) async fn rehearse(loader: &Loader, plugin: &str, file: &File) -> Result<Vec<LoadedStep>, String> {
    let config = &loader.config;
    let folder = &config.plugins.dir;
    let unreadable = |error| format!("the plugins folder {} cannot be read: {error}", folder.display());
    let files = list(folder).map_err(unreadable)?;
    let instead = loader.load(plugin, file, None).await.map_err(|error| error.to_string())?;
    let mut serving = BTreeMap::from([(plugin.to_owned(), Arc::new(instead))]);
    let mut refused = BTreeMap::new();
    for (other, found) in files.iter().filter(|(other, _)| *other != plugin) {
        if !config.plugins.auto && !loader.is_named(other) {
            continue;
        }
        match load(loader, other, found, Known::default(), Purpose::Start).await {
            Outcome::Loaded(candidate) | Outcome::Refused { instead: Some(candidate), .. } => {
                serving.insert(other.clone(), candidate.loaded);
            }
            Outcome::Refused { why, instead: None, .. } => _ = refused.insert(other.clone(), why),
            Outcome::Changed | Outcome::Same(_) => {
                return Err(format!("{other}.wasm is being written; try again when that is done"));
            }
        }
    }
    let mut steps = Vec::new();
    for step in &config.steps {
        let loaded = serving.get(&step.plugin);
        let loaded = loaded.and_then(|loaded| loaded.steps.iter().find(|loaded| loaded.config.name == step.name));
        match loaded {
            Some(loaded) => steps.push(loaded.clone()),
            None if step.required => {
                return Err(match refused.get(&step.plugin) {
                    Some(why) => format!("plugin \"{}\" is refused: {why}", step.plugin),
                    None => missing(&step.name, &folder.join(format!("{}.wasm", step.plugin))),
                });
            }
            None => steps.push(LoadedStep::absent(step.clone())),
        }
    }
    let unnamed = serving.iter().filter(|(plugin, _)| !loader.is_named(plugin));
    steps.extend(unnamed.flat_map(|(_, loaded)| loaded.steps.iter().cloned()));
    match second_verdict(steps.iter()) {
        None => Ok(steps),
        Some(why) => Err(why),
    }
}

/// What is said of a required step whose plugin is not there.
pub(super) fn missing(step: &str, path: &Path) -> String {
    format!("step \"{step}\": {} is not there; put the plugin there, or set required = false", path.display())
}

/// Why these steps cannot serve together: there can be one verdict only.
pub(super) fn second_verdict<'a>(steps: impl Iterator<Item = &'a LoadedStep>) -> Option<String> {
    let names: Vec<_> =
        steps.filter(|step| step.stage == Stage::Verdict).map(|step| format!("\"{}\"", step.config.name)).collect();
    (names.len() > 1).then(|| format!("there can be one verdict step only, not {}; take one out", names.join(" and ")))
}
