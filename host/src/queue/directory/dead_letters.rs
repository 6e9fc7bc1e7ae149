//! The dead letters in `errors`: an alert's exact bytes in `<key>.json`, why it is dead in `<key>.reason`.
//!
//! A `.reason` whose `.json` is gone belongs to an alert that was moved back to `pending`: it keeps the alert's attempts and its history.
//! Whoever changes the folder holds its lock; a person who moves files about does not, and so nothing is taken for sure.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::FlockOperation;

use super::super::Dead;
use super::files::{self, Unfinished};
use super::folders::Folders;
use super::lock;
use crate::dead_letter::history::History;
use crate::dead_letter::{DeadLetter, Reason, SCHEMA};

/// The largest `.reason` that is read, in bytes.
const REASON_LIMIT: u64 = 1 << 20;

/// How many ends of pages are remembered.
const PAGES: usize = 4096;

impl Folders {
    /// Where a dead letter's bytes are.
    pub(super) fn dead_json(&self, key: &str) -> PathBuf {
        self.errors.join(format!("{key}.json"))
    }

    /// Where it says why.
    pub(super) fn dead_reason(&self, key: &str) -> PathBuf {
        self.errors.join(format!("{key}.reason"))
    }

    /// Waits until no other host changes the dead letters; until the file is dropped, none does.
    pub(super) fn lock_errors(&self) -> io::Result<File> {
        let folder = File::open(&self.errors)?;
        rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
        Ok(folder)
    }

    /// The dead letter that a file in `pending` was, if it was one: its key, and its reason or why that cannot be read.
    pub(super) fn earlier_letter(&self, name: &OsStr) -> Option<(String, Result<DeadLetter, String>)> {
        let key = name.to_str()?.strip_suffix(".json")?;
        // Nothing at all is the rule, and then this one look is all that it costs.
        files::stamp(&self.dead_reason(key)).ok()??;
        // With the bytes beside it, it tells of those.
        if files::stamp(&self.dead_json(key)).ok()?.is_some() {
            return None;
        }
        Some((key.to_owned(), self.letter(key)))
    }

    /// Reads why an alert is dead.
    pub(super) fn letter(&self, key: &str) -> Result<DeadLetter, String> {
        let read = files::read_plain(&self.dead_reason(key), REASON_LIMIT).map_err(|error| error.to_string())?;
        let bytes = read.ok_or("there is none, or it is too large")?;
        let letter: DeadLetter = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if letter.schema > SCHEMA {
            return Err(format!("its schema {} is newer than this host", letter.schema));
        }
        Ok(letter)
    }

    /// Writes why an alert is dead, without a name as yet. The file's time is the time of the failure, so that `ls -t` sorts
    /// by it, and so do we.
    pub(super) fn draft_letter(&self, letter: &DeadLetter) -> io::Result<Unfinished> {
        let mut json = serde_json::to_vec_pretty(letter)?;
        json.push(b'\n');
        let file = Unfinished::write(&self.errors, &[&json])?;
        file.set_modified(SystemTime::from(letter.failed_at))?;
        Ok(file)
    }

    /// Puts down why an alert is dead, on the disk.
    pub(super) fn write_letter(&self, key: &str, letter: &DeadLetter) -> io::Result<()> {
        let file = self.draft_letter(letter)?;
        file.sync()?;
        file.replace(&self.dead_reason(key))
    }

    /// Removes reasons that tell of nothing any more: a process died after it had dropped the letter's bytes, or had written a reason that
    /// it then had no use for. Another alert's first failure must not look like its second.
    pub(super) fn remove_orphans(&self) -> io::Result<()> {
        let (mut letters, mut reasons) = (HashSet::new(), Vec::new());
        for entry in files::visible(&self.errors)? {
            let name = entry?.file_name();
            let Some((key, kind)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            match kind {
                "json" => _ = letters.insert(key.to_owned()),
                "reason" => reasons.push(key.to_owned()),
                _ => {}
            }
        }
        reasons.retain(|key| !letters.contains(key));
        if reasons.is_empty() {
            return Ok(());
        }
        let _lock = self.lock_errors()?;
        for key in reasons {
            let file = format!("{key}.json");
            // In this order, and the first one twice: somebody may move the file while this looks.
            let at = [&self.errors, &self.pending, &self.errors].map(|folder| files::stamp(&folder.join(&file)));
            if at.into_iter().collect::<io::Result<Vec<_>>>()?.iter().all(Option::is_none) {
                files::remove(&self.dead_reason(&key))?;
            }
        }
        Ok(())
    }

    /// Whether there is a dead letter of this key. Only the key itself counts: were an id taken for one, a key whose letter has just
    /// been replayed could mean another alert's.
    fn is_dead(&self, key: &str) -> io::Result<bool> {
        let plain = !key.is_empty() && !key.starts_with('.') && !key.contains(['/', '\0']) && key.len() <= 240;
        Ok(plain && files::stamp(&self.dead_json(key))?.is_some())
    }

    /// The bytes of a dead letter.
    pub(super) fn dead_body(&self, key: &str) -> io::Result<Option<Bytes>> {
        if !self.is_dead(key)? {
            return Ok(None);
        }
        Ok(files::read_plain(&self.dead_json(key), u64::MAX)?.map(Bytes::from))
    }

    /// Moves a dead letter to `pending`, where nothing has its name; false when it is gone.
    pub(super) fn replay(&self, key: &str) -> io::Result<bool> {
        let _lock = self.lock_errors()?;
        if !self.is_dead(key)? {
            return Ok(false);
        }
        let json = self.dead_json(key);
        for name in super::numbered(key) {
            let file = format!("{name}.json");
            let target = self.pending.join(&file);
            // What a dead host left under this name counts against another delivery.
            lock::look(&self.lock(OsStr::new(&file)), &target)?;
            // Under another name, its attempts have to be there before it is.
            if name != key {
                if files::stamp(&target)?.is_some() || files::stamp(&self.dead_json(&name))?.is_some() {
                    continue;
                }
                if let Ok(letter) = self.letter(key) {
                    self.write_letter(&name, &letter)?;
                }
            }
            match files::present(files::rename_new(&json, &target))? {
                None => return Ok(false),
                Some(false) => continue,
                Some(true) => {}
            }
            if name != key {
                files::remove(&self.dead_reason(key))?;
            }
            files::sync_folder(&self.pending)?;
            files::sync_folder(&self.errors)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Deletes a dead letter; false when it is gone.
    pub(super) fn discard(&self, key: &str) -> io::Result<bool> {
        let _lock = self.lock_errors()?;
        if !self.is_dead(key)? {
            return Ok(false);
        }
        let gone = files::remove(&self.dead_json(key))?;
        files::remove(&self.dead_reason(key))?;
        files::sync_folder(&self.errors)?;
        Ok(gone)
    }
}

/// The list of dead letters, page by page.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// When the last one of each page failed: it may be gone when the next page is asked for.
    ends: Mutex<HashMap<String, SystemTime>>,
}

impl Listing {
    /// At most `limit` dead letters that follow the key `after`, the oldest first.
    pub(super) fn page(
        &self,
        folders: &Folders,
        after: Option<&str>,
        limit: usize,
        max_alert_size: u64,
    ) -> io::Result<Vec<Dead>> {
        let mut all = Vec::new();
        for entry in files::visible(&folders.errors)? {
            let name = entry?.file_name();
            // A name that is not UTF-8 can only have been put here by hand; it is no dead letter of ours.
            let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            if let Some(failed) = failed_at(folders, key)? {
                all.push((failed, key.to_owned()));
            }
        }
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let start = match after {
            None => None,
            // What is remembered counts first: by now it may have failed again.
            Some(key) => match ends.get(key) {
                Some(failed) => Some(*failed),
                None => failed_at(folders, key)?,
            }
            .map(|failed| (failed, key.to_owned())),
        };
        if let Some(start) = start {
            all.retain(|dead| *dead > start);
        }
        all.sort_unstable();
        let mut page = Vec::new();
        for (failed, key) in all {
            if page.len() == limit {
                break;
            }
            let json = folders.dead_json(&key);
            let Some(data) = files::present(fs::symlink_metadata(&json))? else { continue };
            let letter = match folders.letter(&key) {
                Ok(letter) => letter,
                Err(why) => guess(&json, failed, max_alert_size, &format!("{key}.reason cannot be read: {why}"))?,
            };
            page.push((failed, Dead { key, letter, size: data.len() }));
        }
        if let Some((failed, last)) = page.last() {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            if ends.len() >= PAGES {
                ends.clear();
            }
            ends.insert(last.key.clone(), *failed);
        }
        Ok(page.into_iter().map(|(_, dead)| dead).collect())
    }
}

/// When a dead letter failed: the time of its reason, or else of its bytes.
fn failed_at(folders: &Folders, key: &str) -> io::Result<Option<SystemTime>> {
    for path in [folders.dead_reason(key), folders.dead_json(key)] {
        if let Some(data) = files::present(fs::symlink_metadata(path))? {
            return data.modified().map(Some);
        }
    }
    Ok(None)
}

/// What can be known of a file that somebody put here.
fn guess(json: &Path, failed: SystemTime, limit: u64, why: &str) -> io::Result<DeadLetter> {
    let bytes = files::read_plain(json, limit)?;
    let reason = match &bytes {
        None => Reason::TooLarge,
        Some(bytes) => match serde_json::from_slice::<serde_json::Value>(bytes) {
            Err(_) => Reason::Malformed,
            Ok(value) if !value.is_object() => Reason::NotAnObject,
            Ok(_) => Reason::Invalid,
        },
    };
    let failed_at = Timestamp::try_from(failed).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(DeadLetter {
        schema: SCHEMA,
        id: bytes.as_deref().and_then(super::said_id),
        entry: None,
        reason,
        detail: format!("{why}; look at the alert, then replay it or drop it"),
        step: None,
        attempts: 0,
        history: History::default(),
        deliveries: 0,
        first_seen: failed_at,
        failed_at,
        host: String::new(),
    })
}
