//! The events, in the order of an alert's way: the host, the queue, steps and what they ask for, plugins, tables.

use std::time::Duration;

use super::{Event, Metrics};
use crate::dead_letter::Reason;
use crate::record::{Label, StepTrace};

/// Declares an event: its fields, and what is still to be written by hand is its `impl Event`.
macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name $(<$life>)? { $($(#[$field_doc])* pub $field: $type,)* }

        impl $(<$life>)? Event for $name $(<$life>)? {
            fn count(&self, _metrics: &Metrics) {}
            fn log(&self) { tracing::info!(event = ?self); }
        }
    )*};
}

events! {
    /// An alert came to its end: the one line that every alert gets.
    AlertFinished<'a> {
        /// The alert's id; none when it could not be decoded.
        id: Option<&'a str>,
        /// Where it was in the queue.
        entry: &'a str,
        /// `stored`, `conflict`, `duplicate`, `dead` or `lost`.
        outcome: &'static str,
        /// The verdict of a stored one.
        verdict: Option<Label>,
        /// Why a dead one is dead, and the detail.
        reason: Option<(Reason, &'a str)>,
        /// From received to committed.
        duration: Duration,
        /// How often it was delivered.
        deliveries: u32,
        /// What the steps did.
        steps: &'a [StepTrace],
    }
    /// A step is called again later.
    StepRetried<'a> {
        /// The step.
        step: &'a str,
        /// The alert.
        id: &'a str,
        /// What was not there.
        reason: &'a str,
        /// How long it waits.
        wait: Duration,
    }
    /// One call of a step ended.
    StepCalled<'a> {
        /// The step.
        step: &'a str,
        /// Its stage.
        stage: &'static str,
        /// `ok`, `not-applicable`, `unavailable`, or the reason of its failure.
        outcome: &'static str,
        /// How long it took.
        duration: Duration,
        /// The fuel that it used.
        fuel: u64,
    }
    /// The queue refused something; reading stops until it works again. An alarm.
    QueueTrouble<'a> {
        /// What was tried: `receive`, `commit`, …
        operation: &'static str,
        /// What it said.
        error: &'a str,
    }
    /// The queue works again.
    QueueRecovered {
        /// How long it did not.
        after: Duration,
    }
    /// Alerts of a host that is gone were taken over.
    AlertsClaimed<'a> {
        /// How many.
        count: usize,
        /// Whose they were.
        from: &'a str,
    }
    /// Entries vanished from the queue while they were pending: somebody trimmed or deleted them. An alarm.
    EntriesLost<'a> {
        /// Their ids.
        entries: &'a [String],
    }
    /// A file in the queue's folder was left where it is: it is no plain file, or cannot be read. An alarm, once for each.
    EntrySkipped<'a> {
        /// Its name.
        entry: &'a str,
        /// Why, and what to do.
        why: &'a str,
    }
    /// The stream or its group was gone and was made again. An alarm.
    GroupRecreated<'a> {
        /// The stream.
        stream: &'a str,
        /// The group.
        group: &'a str,
    }
    /// A plugin was loaded, or a new version of it swapped in.
    PluginLoaded<'a> {
        /// The plugin.
        plugin: &'a str,
        /// Its version.
        version: &'a str,
        /// SHA-256 of its file.
        sha256: &'a str,
        /// How long reading, checking and compiling took.
        took: Duration,
        /// Whether another version served before.
        reload: bool,
    }
    /// A plugin's file was refused; what served before serves on. An alarm.
    PluginRefused<'a> {
        /// The plugin.
        plugin: &'a str,
        /// SHA-256 of its file, if it could be read.
        sha256: Option<&'a str>,
        /// Why, and what to do.
        why: &'a str,
    }
    /// A plugin's file is gone.
    PluginRemoved<'a> {
        /// The plugin.
        plugin: &'a str,
        /// What the host does now.
        policy: &'static str,
    }
    /// A plugin wrote a line.
    PluginSaid<'a> {
        /// The step.
        step: &'a str,
        /// The alert; none while it configures.
        id: Option<&'a str>,
        /// How much it matters.
        level: tracing::Level,
        /// The line, cut to its bound.
        message: &'a str,
    }
    /// A plugin wrote more than it may in one call.
    PluginLogCut<'a> {
        /// The step.
        step: &'a str,
        /// How many lines were dropped.
        dropped: u64,
    }
    /// A plugin asked for what it was not granted.
    PluginDenied<'a> {
        /// The step.
        step: &'a str,
        /// `table` or `http`.
        what: &'static str,
        /// Which one, and why not.
        detail: &'a str,
    }
    /// A plugin's HTTP request ended.
    HttpCalled<'a> {
        /// The interface's name in the configuration.
        api: &'a str,
        /// `ok`, `client-error`, `server-error`, `timeout`, `unreachable`, `too-large`.
        outcome: &'static str,
        /// How long it took.
        duration: Duration,
    }
    /// A table was loaded, or loaded again.
    TableLoaded<'a> {
        /// The table.
        table: &'a str,
        /// Its rows; none where the format does not tell.
        rows: Option<usize>,
        /// Rows whose key came again later: the last one counts.
        duplicates: usize,
        /// SHA-256 of its file.
        sha256: &'a str,
        /// How long it took.
        took: Duration,
        /// Whether it was loaded before.
        reload: bool,
    }
    /// A table's file was refused; what served before serves on. An alarm.
    TableRefused<'a> {
        /// The table.
        table: &'a str,
        /// Why, with the line, and what to do.
        why: &'a str,
    }
    /// The host is ready.
    HostReady<'a> {
        /// Where the admin address listens, if it does.
        admin: Option<std::net::SocketAddr>,
        /// The kind of queue.
        queue: &'static str,
        /// The steps.
        steps: &'a [String],
    }
    /// The host stops reading and finishes what is in flight.
    HostStopping {
        /// `SIGTERM`, `SIGINT`, `queue empty`.
        why: &'static str,
    }
    /// The host is done.
    HostStopped {
        /// Alerts that the grace was too short for: they stay pending.
        left_pending: usize,
    }
}
