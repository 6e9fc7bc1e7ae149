//! Alerts that are enriched anew: sent as `pending/<stem>~again.json`, beside what they replace, `.state/<stem>.again`. The record keeps
//! its place in `processed` until another takes it, by one rename.
//!
//! The order of steps: what it replaces is on the disk before the alert has its name, and goes only when it is sure that the alert is gone.
//! An alert of that name without it is an alert as any other, and ends as a duplicate.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{Again, Replaces, Resent};
use super::commit::Stored;
use super::files::{self, Unfinished};
use super::folders::Folders;
use super::lock;
use crate::alert;
use crate::dead_letter::history::History;
use crate::digest::sha256_hex;

/// How the name of such an alert ends.
const NAME: &str = "~again.json";

/// How the name of what it replaces ends.
const MARK: &str = ".again";

/// The largest mark that is read, in bytes: an id, and a history.
const MARK_LIMIT: u64 = 4 << 20;

/// How old a mark without its alert is before it is cleared away: whoever wrote it may be about to send the alert.
const STALE: Duration = Duration::from_secs(60);

/// What lies beside such an alert.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The id that the record is stored under.
    id: String,
    /// SHA-256 of its file.
    sha256: String,
    /// How often the alert was processed to its end.
    pub(super) attempts: u32,
    /// When a host received it.
    pub(super) first_seen: Timestamp,
    /// What became of it until now.
    #[serde(default)]
    pub(super) history: History,
}

impl Mark {
    /// What the alert replaces.
    pub(super) fn replaces(&self) -> Replaces {
        Replaces { record: self.sha256.clone(), id: self.id.clone() }
    }
}

/// What is to be done with the record of an alert that is enriched anew.
pub(super) enum Standing {
    /// It is the one that is to be replaced.
    Same,
    /// Another has taken its place already.
    Replaced,
    /// There is no such record of this alert: the alert is one as any other.
    None,
}

impl Folders {
    /// The record under an id.
    pub(super) fn record(&self, id: &str) -> PathBuf {
        self.processed.join(format!("{}.json", alert::file_stem(id)))
    }

    fn mark(&self, stem: &str) -> PathBuf {
        self.state.join(format!("{stem}{MARK}"))
    }

    /// Sends a stored alert again.
    pub(super) fn reenrich(&self, again: &Again) -> io::Result<Resent> {
        let Again { held, id, alert, attempts, first_seen, history } = again;
        let record = self.record(id);
        let there = files::read_plain(&record, u64::MAX)?;
        let Some(there) = there.filter(|there| Some(&there[..]) == held.bytes.as_deref()) else {
            return Ok(Resent::Gone);
        };
        let stem = alert::file_stem(id);
        let name = format!("{stem}{NAME}");
        let pending = self.pending.join(&name);
        // What a dead host left under this name counts against another delivery.
        lock::look(&self.lock(OsStr::new(&name)), &pending)?;
        if files::stamp(&pending)?.is_some() {
            return Ok(Resent::Waits);
        }
        let mark = Mark {
            id: id.clone(),
            sha256: sha256_hex(&there),
            attempts: *attempts,
            first_seen: *first_seen,
            history: history.clone(),
        };
        let file = Unfinished::write(&self.state, &[&serde_json::to_vec(&mark)?])?;
        file.sync()?;
        file.replace(&self.mark(&stem))?;
        files::sync_folder(&self.state)?;
        let mut file = Unfinished::write(&self.pending, &[alert])?;
        file.sync()?;
        if !file.place(&pending)? {
            return Ok(Resent::Waits);
        }
        files::sync_folder(&self.pending)?;
        Ok(Resent::Sent)
    }

    /// The file in `pending` that is to replace the record under an id, if there is one.
    pub(super) fn sent_again(&self, id: &str) -> io::Result<Option<String>> {
        let stem = alert::file_stem(id);
        let name = format!("{stem}{NAME}");
        let is_there = files::stamp(&self.pending.join(&name))?.is_some() && files::stamp(&self.mark(&stem))?.is_some();
        Ok(is_there.then_some(name))
    }

    /// What a file in `pending` replaces, if it is such an alert; or why that cannot be read.
    pub(super) fn replaced_by(&self, name: &OsStr) -> Option<Result<Mark, String>> {
        let stem = name.to_str()?.strip_suffix(NAME)?;
        match files::read_plain(&self.mark(stem), MARK_LIMIT) {
            // Somebody else's file has such a name.
            Ok(None) => None,
            Ok(Some(bytes)) => Some(serde_json::from_slice(&bytes).map_err(|error| error.to_string())),
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// How the record stands that an alert is to replace; `alert` as it stands in records, none where it is not known.
    pub(super) fn standing(&self, replaces: &Replaces, alert: Option<&str>) -> io::Result<Standing> {
        let there = match files::read_plain(&self.record(&replaces.id), u64::MAX) {
            Ok(there) => there,
            // Something else has the name.
            Err(error) if files::is_anothers(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(there) = there else { return Ok(Standing::None) };
        let Ok(stored) = serde_json::from_slice::<Stored<'_>>(&there) else { return Ok(Standing::None) };
        let is_its = stored.id == replaces.id && alert.is_none_or(|alert| alert == stored.alert.get());
        Ok(match sha256_hex(&there) == replaces.record {
            _ if !is_its => Standing::None,
            true => Standing::Same,
            false => Standing::Replaced,
        })
    }

    /// Removes what lay beside an alert, once the alert is gone from `pending`, on the disk too: were it there again after a power cut, it
    /// would be one as any other.
    pub(super) fn forget(&self, name: &OsStr) -> io::Result<()> {
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(NAME)) else { return Ok(()) };
        files::sync_folder(&self.pending)?;
        files::remove(&self.mark(stem))?;
        Ok(())
    }

    /// Removes marks without an alert, which a process left that died between the two.
    pub(super) fn remove_marks(&self) -> io::Result<()> {
        for entry in files::visible(&self.state)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(MARK)) else { continue };
            let old = entry.metadata().and_then(|data| data.modified());
            let old = old.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > STALE));
            if old && files::stamp(&self.pending.join(format!("{stem}{NAME}")))?.is_none() {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}
