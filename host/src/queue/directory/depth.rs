//! How full the folders are. What is dear to count in a large folder is not counted anew each time.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::super::Depth;
use super::folders::Folders;
use super::{files, lock};

/// A count that took longer than this is kept for a while.
const DEAR: Duration = Duration::from_millis(10);

/// For how many times the time that it took: so counting takes a twentieth of a core at most.
const KEEP: u32 = 20;

/// A value that is dear to find.
#[derive(Debug)]
struct Kept<T>(Mutex<Option<(T, Instant)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Kept<T> {
    fn get(&self, find: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if let Some((value, until)) = &*kept
            && begun < *until
        {
            return Ok(value.clone());
        }
        let value = find()?;
        let took = begun.elapsed();
        *kept = (took > DEAR).then(|| (value.clone(), Instant::now() + took * KEEP));
        Ok(value)
    }
}

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Counter {
    stored: Kept<u64>,
    dead: Kept<u64>,
    oldest: Kept<Option<SystemTime>>,
}

impl Counter {
    /// How full everything is. What waits and what is in flight is always counted.
    pub(super) fn depth(&self, folders: &Folders) -> io::Result<Depth> {
        // Locks first: an alert that is done in between is then counted as in flight, never as waiting and never twice.
        let mut in_flight = 0;
        for entry in files::visible(&folders.state)? {
            let entry = entry?;
            if lock::is_held(&entry.path())? {
                in_flight += 1;
            }
        }
        let mut pending: u64 = 0;
        for entry in files::visible(&folders.pending)? {
            entry?;
            pending += 1;
        }
        let oldest = match pending {
            0 => None,
            _ => self.oldest.get(|| oldest(folders))?,
        };
        Ok(Depth {
            waiting: pending.saturating_sub(in_flight),
            in_flight,
            stored: self
                .stored
                .get(|| files::visible(&folders.processed)?.try_fold(0, |count, entry| entry.map(|_| count + 1)))?,
            dead: self.dead.get(|| {
                let mut count = 0;
                for entry in files::visible(&folders.errors)? {
                    count += u64::from(entry?.file_name().as_encoded_bytes().ends_with(b".json"));
                }
                Ok(count)
            })?,
            oldest: oldest.map(|then| then.elapsed().unwrap_or_default()),
        })
    }
}

/// Since when the oldest alert has been there.
fn oldest(folders: &Folders) -> io::Result<Option<SystemTime>> {
    let mut oldest: Option<SystemTime> = None;
    for entry in files::visible(&folders.pending)? {
        let Some(data) = files::present(entry?.metadata())? else { continue };
        let since = files::since(&data);
        oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
    }
    Ok(oldest)
}
