//! What the host remembers of plugins' versions from one start to the next, in `state_dir/last-good`: the bytes of the last
//! good one (`NAME.wasm`), and which were taken out and why (`NAME.json`). Decides nothing. Everything here blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::MAX_COMPONENT;
use super::compiler::{private_dir, read_bounded, write_whole};
use crate::digest::sha256_hex;

/// How many versions of a plugin are remembered as taken out; the oldest goes first.
const MAX_REJECTED: usize = 100;

/// A version that was taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rejected {
    /// SHA-256 of its file.
    pub sha256: String,
    /// What it called itself.
    pub version: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// What stands beside the bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Notes {
    /// SHA-256 of the bytes while they are kept in want of others and have proven nothing yet.
    unproven: Option<String>,
    /// What was taken out, the oldest first.
    rejected: Vec<Rejected>,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Versions(PathBuf);

impl Versions {
    /// Those of a host.
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("last-good"))
    }

    fn file(&self, plugin: &str, extension: &str) -> PathBuf {
        self.0.join(format!("{plugin}.{extension}"))
    }

    fn notes(&self, plugin: &str) -> Notes {
        let path = self.file(plugin, "json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Notes::default(),
            Err(error) => {
                tracing::warn!(plugin, %error, path = %path.display(), "what is remembered of a plugin cannot be read");
                return Notes::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(plugin, %error, path = %path.display(), "what is remembered of a plugin cannot be read");
            Notes::default()
        })
    }

    fn note(&self, plugin: &str, notes: &Notes) -> io::Result<()> {
        private_dir(&self.0)?;
        write_whole(&self.file(plugin, "json"), &serde_json::to_vec_pretty(notes)?)
    }

    /// The bytes of the last good version.
    pub(super) fn last_good(&self, plugin: &str) -> Option<Vec<u8>> {
        read_bounded(&self.file(plugin, "wasm"), MAX_COMPONENT).ok()
    }

    /// Whether the last good version is only kept in want of one that has proven itself.
    pub(super) fn is_unproven(&self, plugin: &str, sha256: &str) -> bool {
        self.notes(plugin).unproven.as_deref() == Some(sha256)
    }

    /// What is remembered of a version that was taken out.
    pub(super) fn rejected(&self, plugin: &str, sha256: &str) -> Option<Rejected> {
        self.notes(plugin).rejected.into_iter().find(|rejected| rejected.sha256 == sha256)
    }

    /// Keeps a version as the last good one. One that has proven itself is forgotten as taken out.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep(&self, plugin: &str, bytes: &[u8], sha256: &str, proven: bool) -> io::Result<()> {
        private_dir(&self.0)?;
        let path = self.file(plugin, "wasm");
        let mut notes = self.notes(plugin);
        let (unproven, rejected) = (notes.unproven.take(), notes.rejected.len());
        notes.unproven = (!proven).then(|| sha256.to_owned());
        notes.rejected.retain(|rejected| !proven || rejected.sha256 != sha256);
        let noted = notes.unproven == unproven && notes.rejected.len() == rejected;
        // Who is killed between the two must not find bytes that nobody calls unproven.
        if !noted && !proven {
            self.note(plugin, &notes)?;
        }
        if !fs::read(&path).is_ok_and(|old| old == bytes) {
            write_whole(&path, bytes)?;
        }
        if !noted && proven {
            self.note(plugin, &notes)?;
        }
        Ok(())
    }

    /// Remembers a version as taken out.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn reject(&self, plugin: &str, rejected: Rejected) -> io::Result<()> {
        let mut notes = self.notes(plugin);
        notes.rejected.retain(|old| old.sha256 != rejected.sha256);
        notes.rejected.push(rejected);
        let over = notes.rejected.len().saturating_sub(MAX_REJECTED);
        notes.rejected.drain(..over);
        self.note(plugin, &notes)
    }

    /// Keeps a version no longer, if it is the one that is kept: it was kept in want of another, and failed.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) fn forget(&self, plugin: &str, sha256: &str) -> io::Result<()> {
        if self.last_good(plugin).is_none_or(|bytes| sha256_hex(&bytes) != sha256) {
            return Ok(());
        }
        fs::remove_file(self.file(plugin, "wasm"))?;
        let notes = Notes { unproven: None, ..self.notes(plugin) };
        self.note(plugin, &notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(sha256: &str) -> Rejected {
        let (version, why) = ("1".to_owned(), "it failed".to_owned());
        Rejected { sha256: sha256.to_owned(), version, why, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn what_is_kept_in_want_of_another_is_unproven_until_it_is_proven_or_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::of(folder.path());
        let sha256 = sha256_hex(b"one");
        assert_eq!(versions.last_good("geo"), None);
        versions.keep("geo", b"one", &sha256, false).unwrap();
        assert_eq!(versions.last_good("geo").unwrap(), b"one");
        assert!(versions.is_unproven("geo", &sha256) && !versions.is_unproven("geo", "other"));
        versions.keep("geo", b"one", &sha256, true).unwrap();
        assert!(!versions.is_unproven("geo", &sha256));
        versions.forget("geo", "other").unwrap();
        assert!(versions.last_good("geo").is_some());
        versions.forget("geo", &sha256).unwrap();
        assert_eq!(versions.last_good("geo"), None);
    }

    #[test]
    fn what_was_taken_out_is_remembered_by_plugin_and_digest_and_the_oldest_is_forgotten_first() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::of(folder.path());
        for n in 0..=MAX_REJECTED {
            versions.reject("geo", rejected(&n.to_string())).unwrap();
        }
        assert_eq!(versions.rejected("geo", "0"), None);
        assert_eq!(versions.rejected("geo", "1"), Some(rejected("1")));
        assert_eq!(versions.rejected("asset", "1"), None);
        versions.keep("geo", b"it", "1", true).unwrap();
        assert_eq!(versions.rejected("geo", "1"), None, "it has proven itself since");
        assert!(versions.rejected("geo", "2").is_some());
    }

    #[test]
    fn bytes_that_cannot_be_noted_as_unproven_are_not_kept_as_proven() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::of(folder.path());
        // A folder in the notes' place: they can be neither read nor written.
        fs::create_dir_all(folder.path().join("last-good/geo.json/in")).unwrap();
        assert!(versions.keep("geo", b"one", &sha256_hex(b"one"), false).is_err());
        assert_eq!(versions.last_good("geo"), None);
    }

    #[test]
    fn damaged_notes_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::of(folder.path());
        versions.reject("geo", rejected("1")).unwrap();
        fs::write(folder.path().join("last-good/geo.json"), b"{").unwrap();
        assert_eq!(versions.rejected("geo", "1"), None);
        versions.reject("geo", rejected("1")).unwrap();
        assert!(versions.rejected("geo", "1").is_some());
    }
}
