//! Another configuration while the host runs: everything that it changes is loaded aside, and swapped in at once or not at all.
//!
//! What runs alike under both goes on undisturbed, its probation too. For the rest a reload comes to what a start with the new
//! configuration would come to, but that it may take nothing away from what serves: a start can be repaired before it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::load::{Known, Outcome, Purpose, load, load_last_good, missing, second_verdict};
use super::{ALARMS, Directory, Found, Load, SETTLE, list};
use crate::pipeline::setup::Setup;
use crate::plugin::ReloadError;
use crate::plugin::loader::Loader;
use crate::telemetry::events::PluginRemoved;

/// How often a file that is being written is looked at again.
const LOOKS: u32 = 25;

/// Another configuration, and where to say what came of it.
pub(in crate::plugin) struct Renewal {
    /// The configuration and what goes with it.
    pub setup: Arc<Setup>,
    /// Takes the end of it.
    pub reply: oneshot::Sender<Result<(), ReloadError>>,
}

/// What was loaded for another configuration.
pub(super) struct Prepared {
    renewal: Renewal,
    /// What served when it was begun: it is begun anew if that has changed.
    standing: Standing,
    loaded: Result<Ready, ReloadError>,
}

/// Everything that is different under another configuration, loaded.
struct Ready {
    loader: Arc<Loader>,
    /// Plugins that run alike and are left alone.
    alike: BTreeSet<String>,
    loads: Vec<Load>,
}

/// The digest that serves of each plugin, and that of the file that is refused.
type Standing = BTreeMap<String, (Option<String>, Option<String>)>;

/// What is to be loaded.
struct Wanted {
    plugin: String,
    found: Option<Found>,
    /// SHA-256 of what serves of it.
    serving: Option<String>,
    /// The step that needs it, if one does.
    required_by: Option<String>,
}

impl Directory {
    /// Begins to load what another configuration changes.
    pub(super) fn prepare(&mut self, renewal: Renewal) {
        let standing = self.standing();
        let loader = match self.loader.renewed(Arc::clone(&renewal.setup.config)) {
            Ok(loader) => Arc::new(loader),
            Err(error) => {
                let error = ReloadError { why: error.to_string(), again: false };
                // Whoever asked may be gone, with the host.
                let _ = renewal.reply.send(Err(error));
                return;
            }
        };
        let files = list(self.folder()).unwrap_or_default();
        let config = &loader.config;
        let named = config.steps.iter().map(|step| step.plugin.clone());
        let unnamed = files.keys().filter(|_| config.plugins.auto).cloned();
        let plugins: BTreeSet<_> = named.chain(unnamed).collect();
        let alike = |plugin: &&String| self.entries.contains_key(*plugin) && self.loader.runs_alike(&loader, plugin);
        let alike: BTreeSet<_> = plugins.iter().filter(alike).cloned().collect();
        let ready = self.steps.borrow().is_some();
        let wanted = plugins.difference(&alike).map(|plugin| Wanted {
            found: files.get(plugin).cloned(),
            serving: standing.get(plugin).and_then(|(serving, _)| serving.clone()),
            // A host that is not ready anyway may go on being so.
            required_by: config
                .steps
                .iter()
                .find(|step| step.plugin == *plugin && step.required && ready)
                .map(|step| step.name.clone()),
            plugin: plugin.clone(),
        });
        let wanted: Vec<_> = wanted.collect();
        self.renewals.spawn(async move {
            let loads = join_all(wanted.into_iter().map(|wanted| load_one(&loader, wanted))).await;
            let loads: Result<Vec<_>, _> = loads.into_iter().collect();
            let loaded = loads.map(|loads| Ready { loader, alike, loads: loads.into_iter().flatten().collect() });
            Prepared { renewal, standing, loaded }
        });
    }

    /// Takes another configuration over, if nothing is in its way.
    pub(super) async fn renew(&mut self, prepared: Prepared) {
        let Prepared { renewal, standing, loaded } = prepared;
        if standing != self.standing() {
            // What has changed meanwhile must not be undone.
            return self.prepare(renewal);
        }
        let ready = loaded.and_then(|ready| match self.verdicts(&ready) {
            None => Ok(ready),
            Some(why) => Err(ReloadError { why, again: false }),
        });
        let taken = match ready {
            Ok(ready) => {
                self.setup = Some(Arc::clone(&renewal.setup));
                self.take_over(ready).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        // Whoever asked may be gone, with the host.
        let _ = renewal.reply.send(taken);
    }

    async fn take_over(&mut self, ready: Ready) {
        let Ready { loader, alike, loads } = ready;
        self.loader = loader;
        // What is being loaded for the configuration before is looked at again.
        self.loads = tokio::task::JoinSet::new();
        let there: BTreeSet<_> = loads.iter().map(|load| load.plugin.clone()).chain(alike.iter().cloned()).collect();
        for (plugin, _) in
            self.entries.iter().filter(|(plugin, entry)| entry.serving.is_some() && !there.contains(*plugin))
        {
            let policy = "the configuration asks for it no longer";
            self.telemetry.emit(&PluginRemoved { plugin, policy, serves_on: false });
        }
        for plugin in self.entries.keys().filter(|plugin| !there.contains(*plugin)) {
            ALARMS.into_iter().for_each(|kind| self.telemetry.clear(kind, plugin));
        }
        self.entries.retain(|plugin, _| there.contains(plugin));
        for (plugin, entry) in &mut self.entries {
            entry.loading = false;
            if alike.contains(plugin) {
                continue;
            }
            *entry = super::Entry::default();
        }
        for load in loads {
            let (plugin, gone) = (load.plugin.clone(), load.found.as_ref().is_err_and(|why| why == GONE));
            self.finish(load).await;
            if let Some(entry) = self.entries.get_mut(&plugin).filter(|_| gone) {
                entry.dealt_with = None;
            }
        }
        self.publish();
    }

    /// Why these steps cannot serve together with those that are left alone.
    fn verdicts(&self, ready: &Ready) -> Option<String> {
        let alike = ready.alike.iter().filter_map(|plugin| self.entries.get(plugin)?.serving.as_ref());
        let loaded = ready.loads.iter().filter_map(|load| match &load.outcome {
            Outcome::Loaded(candidate) => Some(&candidate.loaded),
            Outcome::Refused { instead, .. } => instead.as_ref().map(|candidate| &candidate.loaded),
            Outcome::Changed | Outcome::Same(_) => None,
        });
        let alike = alike.map(|serving| &serving.loaded);
        second_verdict(alike.chain(loaded).flat_map(|loaded| &loaded.steps))
    }

    fn standing(&self) -> Standing {
        let of = |(plugin, entry): (&String, &super::Entry)| {
            let serving = entry.serving.as_ref().map(|serving| serving.loaded.sha256.clone());
            let refused = entry.refused.as_ref().and_then(|(sha256, _)| sha256.clone());
            (plugin.clone(), (serving, refused))
        };
        self.entries.iter().map(of).collect()
    }
}

/// What is said of a file that is not there, whose plugin serves on.
const GONE: &str = "its file is gone";

/// Loads a plugin for another configuration; none when there is nothing to load.
///
/// # Errors
/// The configuration would take it away: it serves now, or a step needs it.
async fn load_one(loader: &Loader, wanted: Wanted) -> Result<Option<Load>, ReloadError> {
    let Wanted { plugin, found, serving, required_by } = wanted;
    let started = Instant::now();
    let loaded =
        |found: Found, took: Duration, outcome| Ok(Some(Load { plugin: plugin.clone(), found, took, outcome }));
    let folder = &loader.config.plugins.dir;
    let Some(mut found) = found else {
        // One that serves from memory serves on, as long as it is needed.
        let Some(step) = required_by else { return Ok(None) };
        let last_good = load_last_good(loader, &plugin, None).await;
        return match last_good.filter(|candidate| Some(&candidate.loaded.sha256) == serving.as_ref()) {
            Some(candidate) => loaded(Err(GONE.to_owned()), started.elapsed(), Outcome::Loaded(candidate)),
            None => {
                // Taken over by itself once it is there, as by a host that starts with it.
                let why = missing(&step, &folder.join(format!("{plugin}.wasm")));
                Err(ReloadError { why, again: true })
            }
        };
    };
    let mut looks = 0;
    let outcome = loop {
        match load(loader, &plugin, &found, Known::default(), Purpose::Start).await {
            Outcome::Changed if looks < LOOKS => {
                looks += 1;
                tokio::time::sleep(SETTLE).await;
                let now = list(folder).ok().and_then(|mut files| files.remove(&plugin));
                found = now.unwrap_or_else(|| Err(GONE.to_owned()));
            }
            outcome => break outcome,
        }
    };
    let refused = match &outcome {
        Outcome::Loaded(_) | Outcome::Same(_) => None,
        Outcome::Changed => Some(("it is being written".to_owned(), true)),
        // What was put back before is put back again; nothing older takes the place of what serves.
        Outcome::Refused { instead: Some(instead), .. }
            if serving.is_none() || serving.as_ref() == Some(&instead.loaded.sha256) =>
        {
            None
        }
        Outcome::Refused { why, again, .. } => Some((why.clone(), *again)),
    };
    let needed = loader.is_named(&plugin) && (serving.is_some() || required_by.is_some());
    match refused.filter(|_| needed) {
        Some((why, again)) => {
            let line = loader.config.steps.iter().find(|step| step.plugin == plugin).and_then(|step| step.line);
            let why = loader.config.finding(line, format!("plugin \"{plugin}\" would be refused: {why}")).to_string();
            Err(ReloadError { why, again })
        }
        None => loaded(found, started.elapsed(), outcome),
    }
}
