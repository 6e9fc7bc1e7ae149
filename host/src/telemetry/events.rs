//! The events, in the order of an alert's way: the host, the queue, alerts and their steps, plugins and what they ask for,
//! tables.
//!
//! Messages and field names are stable: people search for them. Each alert gets one line at `info`, [`AlertFinished`];
//! what somebody should look at has `alarm=true` and its `name`, and counts in `dossier_alarms_total` ([`super::alarms`]). Values may come from attackers and
//! are given as they are: [`super::logging`] makes them safe and cuts them.

mod alarm;
mod alert;
mod config;
mod host;
mod http;
mod plugin;
mod queue;
mod suspect;
mod table;
#[cfg(test)]
mod tests;
mod traces;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

pub use self::alarm::{AlarmCleared, AlarmRaised};
pub use self::alert::{AlertFinished, StepCalled, StepRetried};
pub use self::config::{ConfigRefused, ConfigReloaded, ConfigUnchanged};
pub use self::host::{HostStarted, HostStopped, HostStopping};
pub use self::http::{HttpAnswered, HttpCacheTrouble, HttpCalled};
pub use self::plugin::{
    PluginDenied, PluginLoaded, PluginLogCut, PluginOnProbation, PluginPassed, PluginRefused, PluginRemoved,
    PluginSaid, PluginTakenOut, PluginUnfit,
};
pub use self::queue::{
    AlertsClaimed, CommitRefused, ConsumerShared, DeadLettersMany, EntriesLost, EntriesRescued, EntrySkipped,
    GroupRecreated, HistoryIgnored, QueueRecovered, QueueTrouble,
};
pub use self::suspect::{SuspectDied, SuspectsWait};
pub use self::table::{TableDropped, TableLoaded, TableRefused};
pub use self::traces::{TracesLost, TracesSent};

/// How many of a list's elements a line shows.
const SHOWN: usize = 100;

/// Whole microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A list for the fields that hold JSON ([`super::logging::JSON_FIELDS`]): as JSON with `{:?}`, for people with `{:#?}`.
struct List<'a, T>(&'a [T]);

impl<T: Serialize + fmt::Display> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        if f.alternate() {
            for (at, element) in shown.iter().enumerate() {
                write!(f, "{}{element}", if at == 0 { "" } else { ", " })?;
            }
            return Ok(());
        }
        f.write_str(&serde_json::to_string(shown).map_err(|_| fmt::Error)?)
    }
}
