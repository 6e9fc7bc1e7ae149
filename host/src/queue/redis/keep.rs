//! The lease: the sign that this host lives, for as long as it is renewed; and giving everything back at the end.

use std::sync::{Arc, LazyLock};

use super::link::{Call, Source};
use super::{Shared, reply};
use crate::queue::QueueError;

static KEEP: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("keep.lua")));
static CLOSE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("close.lua")));

impl Shared {
    /// Renews the lease, and the idle time of what has been in flight for longer than half of it.
    pub(super) async fn keep(&self) -> Result<(), QueueError> {
        let lease = millis(self.lease);
        let call = Call::new(&KEEP, &[&self.keys.stream, &self.keys.lease(&self.consumer)])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(lease)
            .arg(lease / 2);
        let gone =
            reply::texts(self.run(&self.commands, &call).await?).ok_or_else(|| self.commands.nonsense("keep.lua"))?;
        if gone.iter().any(|entry| !self.desk.lock().holds(entry)) {
            // The look into the own pending entries finds it gone, lets go of it and tells of it.
            self.desk.lock().scan_within(std::time::Duration::ZERO);
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
    loop {
        let wait = match shared.keep().await {
            Ok(()) => shared.lease / 3,
            Err(_) => shared.lease / 10,
        };
        tokio::time::sleep(wait).await;
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
