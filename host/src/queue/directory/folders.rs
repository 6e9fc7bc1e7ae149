//! The folders of the queue: where they are, how they are made, and what is wrong with them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::super::QueueError;
use super::{files, lock};
use crate::checkup::{self, Observation};

/// Where everything is.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) root: PathBuf,
    /// Alerts that wait.
    pub(super) pending: PathBuf,
    /// The store.
    pub(super) processed: PathBuf,
    /// The dead letters.
    pub(super) errors: PathBuf,
    /// Locks and counts.
    pub(super) state: PathBuf,
}

impl Folders {
    pub(super) fn new(root: &Path) -> Self {
        let [pending, processed, errors, state] =
            ["pending", "processed", "errors", ".state"].map(|name| root.join(name));
        Self { root: root.to_owned(), pending, processed, errors, state }
    }

    /// The lock file of an alert's file.
    pub(super) fn lock(&self, name: &OsStr) -> PathBuf {
        self.state.join(lock::file_name(name))
    }

    fn all(&self) -> [&Path; 4] {
        [&self.pending, &self.processed, &self.errors, &self.state]
    }

    /// Makes the folders that are missing, and clears away what dead hosts left unfinished.
    pub(super) fn make(&self) -> Result<(), QueueError> {
        for folder in self.all() {
            fs::create_dir_all(folder).map_err(|error| self.not_made(folder, &error))?;
        }
        files::sync_folder(&self.root).map_err(|error| files::unavailable("open", &self.root, &error))?;
        for folder in self.all() {
            files::remove_stale(folder).map_err(|error| files::unavailable("clear", folder, &error))?;
        }
        self.remove_orphans().map_err(|error| files::unavailable("clear", &self.errors, &error))?;
        self.remove_marks().map_err(|error| files::unavailable("clear", &self.state, &error))?;
        match self.problems().into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(QueueError::Broken(problem)),
        }
    }

    fn not_made(&self, folder: &Path, error: &io::Error) -> QueueError {
        let in_the_way = |path: &&Path| fs::metadata(path).is_ok_and(|data| !data.is_dir());
        match folder.ancestors().find(in_the_way) {
            Some(file) => QueueError::Broken(no_directory(file)),
            None => files::unavailable("make", folder, error),
        }
    }

    /// What there is to say of them, without changing anything.
    pub(super) fn look(&self) -> Vec<Observation> {
        let problems = self.problems();
        let fine = problems.is_empty();
        let mut all: Vec<_> = problems
            .into_iter()
            .map(|problem| Observation::broken_as_told(&problem, "look at its disk, its owner and its mode"))
            .collect();
        if fine {
            all.push(Observation::fine(format!("{} can be read and written", self.root.display())));
            let there = self.all().into_iter().filter(|folder| folder.is_dir()).count();
            if there < self.all().len() {
                all.push(Observation::note(
                    format!("folders in {} are missing", self.root.display()),
                    "whatever opens the queue first makes them: dossier run, dossier send, dossier status",
                ));
            }
            all.extend(checkup::disk::look(&self.root, "the queue"));
        }
        all
    }

    /// What is wrong, without changing anything.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Some(nearest) = self.root.ancestors().find(|path| path.as_os_str().is_empty() || path.exists()) else {
            return vec![format!("{} cannot be made; choose another path in [queue]", self.root.display())];
        };
        // The parent of a relative path with one part is the empty path.
        let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
        let mut devices = Vec::new();
        for folder in std::iter::once(nearest).chain(self.all()) {
            let data = match files::present(fs::metadata(folder)) {
                Ok(Some(data)) => data,
                Ok(None) => continue,
                Err(error) => {
                    problems.push(format!("{} cannot be read: {error}", folder.display()));
                    continue;
                }
            };
            if !data.is_dir() {
                problems.push(no_directory(folder));
            } else if let Err(error) = rustix::fs::access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            {
                problems.push(format!(
                    "{} is not writable ({error}); give the host's user the permission, or choose another path in [queue]",
                    folder.display()
                ));
            } else if folder != nearest {
                devices.push(data.dev());
            }
        }
        devices.dedup();
        if devices.len() > 1 {
            problems.push(format!(
                "the folders in {} lie on different file systems; alerts can only be moved within one",
                self.root.display()
            ));
        }
        problems
    }
}

fn no_directory(path: &Path) -> String {
    format!("{} is not a directory; move it away, or choose another path in [queue]", path.display())
}
