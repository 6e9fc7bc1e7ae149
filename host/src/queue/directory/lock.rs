//! Who has an alert: a lock (`flock`) on a file in `.state`, which holds how often the alert was delivered and accused.
//!
//! A lock file that nobody holds was left by a host that died: whoever takes it knows that its alert is a suspect. So a
//! clean release must remove the file, or put back what stood there before. Only the lock counts, never a process id.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::files;

/// A lock file is always this long, so that one write replaces all of it: it never holds half a note.
const NOTE_SIZE: usize = 128;

/// How lock files end.
const SUFFIX: &str = ".lock";

/// What a lock file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// How often the alert was delivered since it was sent or replayed.
    pub(super) deliveries: u32,
    /// How often it ran alone and its process died of it. (An early 0.1.0 counted one more while it ran alone.)
    pub(super) accused: u32,
    /// When a host first saw it.
    pub(super) first_seen: Timestamp,
}

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
    /// What it held when it was taken: a dead host's note.
    pub(super) prior: Option<Note>,
    /// What it holds.
    pub(super) note: Note,
}

impl Lock {
    /// Takes the lock and counts the delivery; none when another host has it.
    pub(super) fn take(path: PathBuf, now: Timestamp) -> io::Result<Option<Self>> {
        let Some((file, prior)) = grab(&path, true)? else { return Ok(None) };
        failpoint!("lock-made");
        let note = match prior {
            None => Note { deliveries: 1, accused: 0, first_seen: now },
            Some(prior) => Note { deliveries: prior.deliveries.saturating_add(1), ..prior },
        };
        let lock = Self { path, file, prior, note };
        if let Err(error) = write(&lock.file, &note) {
            lock.release();
            return Err(error);
        }
        failpoint!("lock-noted");
        Ok(Some(lock))
    }

    /// Puts another number of accusations down, on the disk.
    pub(super) fn accuse(&mut self, accused: u32) -> io::Result<()> {
        let note = Note { accused, ..self.note };
        write(&self.file, &note)?;
        failpoint!("lock-accused");
        self.file.sync_data()?;
        self.note = note;
        Ok(())
    }

    /// Whether the lock still is the one that others meet: somebody may have removed its file by hand.
    pub(super) fn holds(&self) -> io::Result<bool> {
        same_file(&self.file, &self.path)
    }

    /// Lets go as if the alert had never been taken; what speaks against it stays.
    pub(super) fn release(self) {
        // A failure leaves a note that nobody holds: the alert is taken for a suspect and runs alone, which is safe.
        let _ = match &self.prior {
            Some(prior) => write(&self.file, &Note { accused: self.note.accused, ..*prior }),
            None => self.remove(),
        };
    }

    /// Removes the lock file of an alert that is done. The lock itself ends when this is dropped.
    pub(super) fn remove(&self) -> io::Result<()> {
        // Never another host's: only what others meet as this lock.
        if self.holds()? {
            files::remove(&self.path)?;
        }
        Ok(())
    }
}

/// Whether a lock file is held by a living host.
pub(super) fn is_held(path: &Path) -> io::Result<bool> {
    let Some(file) = files::present(File::open(path))? else { return Ok(false) };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// What a lock file means that was found lying about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A living host has it, or it says nothing yet.
    Nothing,
    /// A dead host left it.
    Suspect,
}

/// Looks at a lock file, and removes it when its alert is gone.
pub(super) fn look(path: &Path, alert: &Path) -> io::Result<Found> {
    let Some((file, prior)) = grab(path, false)? else { return Ok(Found::Nothing) };
    if files::stamp(alert)?.is_none() {
        if same_file(&file, path)? {
            files::remove(path)?;
        }
        return Ok(Found::Nothing);
    }
    // An empty one belongs to a host that has just made it, or that died before it delivered anything.
    Ok(if prior.is_some() { Found::Suspect } else { Found::Nothing })
}

/// Opens and locks a lock file without waiting, and reads what it holds.
fn grab(path: &Path, create: bool) -> io::Result<Option<(File, Option<Note>)>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    loop {
        let Some(file) = files::present(options.open(path))? else { return Ok(None) };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Whoever had it may have removed the file between the opening and the locking: this lock would mean nothing.
        if !same_file(&file, path)? {
            continue;
        }
        let mut bytes = [0; NOTE_SIZE];
        let length = file.read_at(&mut bytes, 0)?;
        // An empty file was made and never delivered; one that cannot be read was delivered at least once.
        let unreadable = Note { deliveries: 1, accused: 0, first_seen: Timestamp::now() };
        let prior = (length > 0).then(|| serde_json::from_slice(&bytes[..length]).unwrap_or(unreadable));
        return Ok(Some((file, prior)));
    }
}

/// Replaces what a lock file holds, in one write.
fn write(file: &File, note: &Note) -> io::Result<()> {
    let text = serde_json::to_string(note)?;
    file.write_all_at(format!("{text:width$}\n", width = NOTE_SIZE - 1).as_bytes(), 0)
}

/// Whether an open file still has this name.
fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let Some(named) = files::present(fs::symlink_metadata(path))? else { return Ok(false) };
    let open = file.metadata()?;
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

/// The name of the lock file for a file in `pending`: the name itself with what is not plain as `%XX`; too long ones are
/// cut and end with a hash, so that they cannot be turned back.
pub(super) fn file_name(name: &OsStr) -> String {
    let mut text = String::with_capacity(name.len() + SUFFIX.len());
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    if text.len() > 240 {
        text.truncate(150);
        text.push('#');
        text.push_str(&crate::digest::sha256_hex(name.as_bytes()));
    }
    text + SUFFIX
}

/// The name of the alert's file that a lock file stands for.
pub(super) fn alert_name(lock: &OsStr, pending: &Path) -> io::Result<Option<OsString>> {
    let Some(text) = lock.to_str().and_then(|text| text.strip_suffix(SUFFIX)) else { return Ok(None) };
    if text.contains('#') {
        for entry in files::visible(pending)? {
            let name = entry?.file_name();
            if lock == OsStr::new(&file_name(&name)) {
                return Ok(Some(name));
            }
        }
        // Gone. A name that cannot be is not there either, and so this lock file is cleared away.
        return Ok(Some(OsString::from(text)));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let Some(byte) = after.get(..2).and_then(|digits| hex::decode(digits).ok()) else { return Ok(None) };
        bytes.extend(byte);
        rest = &after[2..];
    }
    Ok(Some(OsString::from_vec(bytes)))
}
