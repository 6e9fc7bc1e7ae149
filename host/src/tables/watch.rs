//! All tables of a configuration, and the task that loads one again when its file changed.
//!
//! Files are looked at twice a second instead of being watched by the kernel: it costs a few `stat` calls, and it is right
//! where notifications are not: on network file systems, behind chains of symlinks (a ConfigMap's files change when a link
//! two levels above them does), and for a file that is not there yet.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Snapshot, Table, source};
use crate::config::{Config, Finding, TableConfig};
use crate::telemetry::Telemetry;
use crate::telemetry::alarms::Kind;
use crate::telemetry::events::{TableDropped, TableLoaded, TableRefused};

/// How often files are looked at. A change is loaded once two looks in a row saw the same, so it serves after at most
/// twice this time and the time that loading takes.
const INTERVAL: Duration = Duration::from_millis(500);

/// The tables of a configuration.
#[derive(Debug)]
pub struct Tables {
    current: ArcSwap<Snapshot>,
    configs: BTreeMap<String, TableConfig>,
    /// What each file looked like just before it was loaded.
    opened: BTreeMap<String, Option<Stamp>>,
    /// How long those took that were loaded to take the place of others, which nobody was told of yet.
    untold: BTreeMap<String, Duration>,
    telemetry: Arc<Telemetry>,
}

impl Tables {
    /// Loads every table. Blocks for as long as reading the files takes.
    ///
    /// # Errors
    /// A finding for each table that cannot be loaded, with its line in the configuration.
    pub fn open(config: &Config, telemetry: Arc<Telemetry>) -> Result<Self, Vec<Finding>> {
        let tables = Self::load(config, telemetry, None)?;
        tables.tell(None);
        Ok(tables)
    }

    /// The tables of another configuration, of which nobody is told before [`Tables::replaces`]. One that is configured as before is taken
    /// over as it is. Blocks for as long as reading the other files takes.
    ///
    /// # Errors
    /// As [`Tables::open`].
    pub fn renewed(&self, config: &Config) -> Result<Self, Vec<Finding>> {
        Self::load(config, Arc::clone(&self.telemetry), Some(self))
    }

    /// Tells that these tables serve from now on in the place of others.
    pub fn replaces(&self, before: &Self) {
        self.tell(Some(before));
        for table in before.configs.keys().filter(|table| !self.configs.contains_key(*table)) {
            self.telemetry.emit(&TableDropped { table });
            self.telemetry.clear(Kind::TableRefused, table);
            self.telemetry.clear(Kind::TableStale, table);
        }
    }

    fn tell(&self, before: Option<&Self>) {
        let tables = self.snapshot();
        for (name, took) in &self.untold {
            if let Some(table) = tables.get(name) {
                let reload = before.is_some_and(|before| before.configs.contains_key(name));
                emit_loaded(&self.telemetry, name, table, *took, reload);
            }
        }
    }

    fn load(config: &Config, telemetry: Arc<Telemetry>, before: Option<&Self>) -> Result<Self, Vec<Finding>> {
        let mut tables = Snapshot::new();
        let (mut opened, mut untold) = (BTreeMap::new(), BTreeMap::new());
        let mut findings = Vec::new();
        let wherever = |table: &TableConfig| TableConfig { line: 0, ..table.clone() };
        for (name, table) in &config.tables {
            let same = before.filter(|before| before.configs.get(name).map(wherever) == Some(wherever(table)));
            if let Some(before) = same
                && let Some(loaded) = before.snapshot().get(name)
            {
                tables.insert(name.clone(), Arc::clone(loaded));
                opened.insert(name.clone(), before.opened.get(name).cloned().flatten());
                continue;
            }
            let begun = Instant::now();
            let stamp = Stamp::of(&table.file);
            match Table::load(table) {
                Ok(loaded) => {
                    untold.insert(name.clone(), begun.elapsed());
                    tables.insert(name.clone(), Arc::new(loaded));
                    opened.insert(name.clone(), stamp);
                }
                Err(error) => findings.push(config.finding(Some(table.line), format!("table \"{name}\": {error}"))),
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let current = ArcSwap::from_pointee(tables);
        Ok(Self { current, configs: config.tables.clone(), opened, untold, telemetry })
    }

    /// The tables as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Loads tables again whose files changed, within two seconds of the change and the time that loading takes, until it
    /// is stopped. A file that cannot be used, or that is gone, changes nothing: what served before serves on, and an event
    /// says so once. To be run once.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        if self.configs.is_empty() {
            return;
        }
        let mut watched: Vec<Watched> = self
            .configs
            .iter()
            .map(|(name, config)| Watched {
                name: name.clone(),
                config: config.clone(),
                done: self.opened.get(name).cloned().flatten(),
                serves: self.opened.get(name).cloned().flatten(),
                seen: None,
                refused: None,
            })
            .collect();
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let tables = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || {
                watched.iter_mut().for_each(|table| table.look(&tables));
                watched
            });
            watched = match look.await {
                Ok(watched) => watched,
                Err(error) => {
                    // The runtime ends, or loading panicked, which is told by the panic itself.
                    let why = format!("tables are no longer loaded again: {error}; restart the host");
                    self.telemetry.emit(&TableRefused { table: "*", why: &why });
                    return;
                }
            };
        }
    }

    fn replace(&self, name: &str, table: Table) {
        let mut tables = Snapshot::clone(&self.current.load());
        tables.insert(name.to_owned(), Arc::new(table));
        self.current.store(Arc::new(tables));
    }
}

/// Loads every table of a configuration and lets it go again.
///
/// Gives a finding for each that cannot be loaded, with its line in the configuration.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, table) in &config.tables {
        let table_config = table.clone();
        let error = match tokio::task::spawn_blocking(move || Table::load(&table_config).map(drop)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("loading it failed: {error}"),
        };
        findings.push(config.finding(Some(table.line), format!("table \"{name}\": {error}")));
    }
    findings
}

fn emit_loaded(telemetry: &Telemetry, name: &str, table: &Table, took: Duration, reload: bool) {
    telemetry.emit(&TableLoaded {
        table: name,
        rows: table.rows(),
        duplicates: table.duplicates(),
        sha256: table.sha256(),
        took,
        reload,
    });
}

/// What a file looks like from outside. Two that look the same are taken to be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None when there is no such file.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let data = std::fs::metadata(file).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// A table while it is watched.
struct Watched {
    name: String,
    config: TableConfig,
    /// The file as it was when it was last loaded or refused.
    done: Option<Stamp>,
    /// The file as it was when what serves was loaded.
    serves: Option<Stamp>,
    /// What the last look saw, when it was something else.
    seen: Option<Option<Stamp>>,
    /// The digest of what was refused last, or why it could not even be read; none when the file's content serves.
    refused: Option<String>,
}

impl Watched {
    fn look(&mut self, tables: &Tables) {
        let now = Stamp::of(&self.config.file);
        if now == self.done {
            self.seen = None;
        } else if self.seen.as_ref() != Some(&now) {
            // Somebody may still be writing it: wait until it stays as it is.
            self.seen = Some(now);
        } else {
            self.seen = None;
            self.load(tables, now);
        }
        self.age(tables);
    }

    /// Raises or clears the alarm about a table that is too old. By the wall clock, which files have too.
    fn age(&self, tables: &Tables) {
        let Some((bound, stamp)) = self.config.max_age.zip(self.serves.as_ref()) else { return };
        let age = jiff::Timestamp::now().as_second().saturating_sub(stamp.modified.0);
        let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
        let stale = (age > bound).then(|| {
            let (hours, of) = (age.as_secs() / 3600, bound.as_secs() / 3600);
            match of {
                0 => format!("its file is {} s old; max_age is {} s", age.as_secs(), bound.as_secs()),
                _ => format!("its file is {hours} h old; max_age is {of} h"),
            }
        });
        tables.telemetry.hold(Kind::TableStale, &self.name, stale.as_deref());
    }

    fn load(&mut self, tables: &Tables, now: Option<Stamp>) {
        let begun = Instant::now();
        let loaded = Table::load(&self.config);
        if Stamp::of(&self.config.file) != now {
            // It changed while it was read; the next look sees that.
            return;
        }
        self.done = now;
        match loaded {
            Ok(table) => {
                self.serves.clone_from(&self.done);
                let serves = tables.snapshot().get(&self.name).is_some_and(|old| old.sha256() == table.sha256());
                // The same content again is no news, unless it is what ends a refusal.
                if !serves || self.refused.is_some() {
                    emit_loaded(&tables.telemetry, &self.name, &table, begun.elapsed(), true);
                }
                if !serves {
                    tables.replace(&self.name, table);
                }
                self.refused = None;
            }
            Err(error) => {
                // A file that was only touched is not refused a second time.
                let content = source::digest(&self.config.file).unwrap_or_else(|error| error.to_string());
                if self.refused.as_ref() != Some(&content) {
                    let why = format!("{error}; what was loaded before serves on");
                    tables.telemetry.emit(&TableRefused { table: &self.name, why: &why });
                    self.refused = Some(content);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
