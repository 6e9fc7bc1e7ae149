//! What alarms are made of and hosts that share the folder must share: when which source was heard, in `.state/sources.json`; and how
//! much room the disk has left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::FlockOperation;

use super::files::{self, Unfinished};
use super::folders::Folders;
use crate::queue::{Heard, Room};
use crate::telemetry::alarms::SUBJECTS;

/// The longest file that is read, in bytes: more than the most sources take.
const LONGEST: u64 = 1 << 20;

impl Folders {
    /// See [`crate::queue::Queue::hear`]. Times are those of the wall clock, in milliseconds.
    pub(super) fn hear(&self, heard: &[String], forget: Duration) -> io::Result<Vec<Heard>> {
        let path = self.state.join("sources.json");
        // One at a time: who reads, changes and writes must not undo another's.
        let lock = File::open(&self.state)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let bytes = files::read_plain(&path, LONGEST)?.unwrap_or_default();
        // What is no such file is begun anew.
        let mut known: BTreeMap<String, i64> = serde_json::from_slice(&bytes).unwrap_or_default();
        let now = Timestamp::now().as_millisecond();
        let forget = i64::try_from(forget.as_millis()).unwrap_or(i64::MAX);
        known.retain(|_, then| now.saturating_sub(*then) < forget);
        for source in heard {
            if known.len() < SUBJECTS || known.contains_key(source) {
                known.insert(source.clone(), now);
            }
        }
        if !heard.is_empty() {
            Unfinished::write(&self.state, &[&serde_json::to_vec(&known)?])?.replace(&path)?;
        }
        let ago = |then: i64| Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or(0));
        Ok(known.into_iter().map(|(source, then)| Heard { source, ago: ago(then) }).collect())
    }

    /// See [`crate::queue::Queue::room`].
    pub(super) fn room(&self) -> io::Result<Room> {
        let disk = rustix::fs::statvfs(&self.processed)?;
        // What is kept for root is not ours.
        let total = (disk.f_blocks - disk.f_bfree + disk.f_bavail).saturating_mul(disk.f_frsize);
        let used = (disk.f_blocks - disk.f_bfree).saturating_mul(disk.f_frsize);
        Ok(Room { used, total, place: format!("the disk of {}", self.processed.display()) })
    }
}
