//! The lease: the sign that this host lives, for as long as it is renewed; and giving everything back at the end.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, PoisonError};

use super::link::{Call, Source};
use super::{Shared, reply};
use crate::queue::QueueError;
use crate::telemetry::events::ConsumerShared;

static KEEP: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("keep.lua")));
static CLOSE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("close.lua")));

/// How many marks are remembered: more renewals than that are not done before what one left in the lease has ended.
const MARKS: usize = 16;

impl Shared {
    /// Renews the lease, and the idle time of what has been in flight for longer than half of it.
    ///
    /// # Errors
    /// [`QueueError::Broken`] when another host renews the same lease; then this one has none any more.
    pub(super) async fn keep(&self) -> Result<(), QueueError> {
        let lease = millis(self.lease);
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut call = Call::new(&KEEP, &[&self.keys.stream, &self.keys.lease(&self.consumer)])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(lease)
            .arg(lease / 2);
        marks.0.iter().for_each(|mark| call.push(mark));
        let parse = |answer| {
            let [mark, gone] = reply::exactly(answer)?;
            Some((reply::text(mark)?, reply::texts(gone)?))
        };
        let (mark, gone) =
            parse(self.run(&self.commands, &call).await?).ok_or_else(|| self.commands.nonsense("keep.lua"))?;
        if marks.0.front() == Some(&mark) {
            self.marks.lock().unwrap_or_else(PoisonError::into_inner).next();
        } else if !marks.0.contains(&mark) {
            if !self.has_twin.swap(true, Ordering::AcqRel) {
                self.telemetry.emit(&ConsumerShared { consumer: &self.consumer });
            }
            return self.alone();
        }
        if gone.iter().any(|entry| !self.desk.lock().holds(entry)) {
            // The look into the own pending entries finds it gone, lets go of it and tells of it.
            self.desk.lock().scan_within(std::time::Duration::ZERO);
        }
        Ok(())
    }

    /// Refuses to go on under a name that another host has, too: what is pending under it is nobody's any more.
    pub(super) fn alone(&self) -> Result<(), QueueError> {
        if self.has_twin.load(Ordering::Acquire) {
            return Err(QueueError::Broken(format!(
                "another host is the consumer {} as well, as after a copy of a running machine; this one ends, start it again",
                self.consumer
            )));
        }
        Ok(())
    }

    /// Gives back what is pending here and ends the lease.
    pub(super) async fn give_back(&self) -> Result<(), QueueError> {
        let call = Call::new(&CLOSE, &[&self.keys.stream, &self.keys.lease(&self.consumer), &self.keys.accused])
            .arg(&self.group)
            .arg(&self.consumer);
        let lost =
            reply::texts(self.run(&self.commands, &call).await?).ok_or_else(|| self.commands.nonsense("close.lua"))?;
        self.lost(lost);
        Ok(())
    }
}

/// Renews the lease until it is aborted. A renewal that fails is tried again sooner; whoever reads or commits meets the same
/// trouble and tells of it.
pub(super) async fn keep_lease(shared: Arc<Shared>) {
    // Whoever has a twin ends at the next read, and leaves the lease to it.
    while shared.alone().is_ok() {
        let wait = match shared.keep().await {
            Ok(()) => shared.lease / 3,
            Err(_) => shared.lease / 10,
        };
        tokio::time::sleep(wait).await;
    }
}

/// What renewals leave in the lease, each something that nobody else can have thought of: first what the next one will, then what
/// the last ones did.
#[derive(Debug, Clone)]
pub(super) struct Marks(VecDeque<String>);

impl Marks {
    pub(super) fn new() -> Self {
        let mut marks = Self(VecDeque::new());
        marks.next();
        marks
    }

    /// Thinks of another one for the next renewal.
    fn next(&mut self) {
        self.0.push_front(uuid::Uuid::new_v4().simple().to_string());
        self.0.truncate(MARKS);
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
