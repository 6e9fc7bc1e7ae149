//! The directory queue from outside: files are moved in and counted, as people do it. An alert is stored when its file is gone from
//! `pending`: the host deletes it when the record is durable, and not before.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::inotify;
use serde_json::Value;

use super::{Place, Seen, Sender, Tally};
use crate::alerts::Alerts;

/// A directory queue; its folder holds `pending`, `processed` and `errors`.
pub struct DirectoryPlace {
    root: PathBuf,
}

impl DirectoryPlace {
    /// The queue in this folder.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where alerts wait until they are shown: beside the others, so that they need only be renamed.
    fn hidden(&self) -> PathBuf {
        self.root.with_extension("hidden")
    }

    fn count(&self, folder: &str) -> Result<u64> {
        Ok(files(&self.root.join(folder))?.len() as u64)
    }
}

/// The files of a folder that are no dot files.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let files = entries.filter(|entry| entry.as_ref().map_or(true, |entry| !is_hidden(entry)));
    files.map(|entry| Ok(entry?.path())).collect()
}

fn is_hidden(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn name(n: u64) -> String {
    format!("{n:09}.json")
}

fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

impl Place for DirectoryPlace {
    fn clear(&mut self) -> Result<()> {
        for folder in [&self.root, &self.hidden()] {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }

    fn fill(&mut self, alerts: &Alerts, count: u64) -> Result<()> {
        (0..count).try_for_each(|n| Ok(fs::write(self.hidden().join(name(n)), alerts.nth(n))?))
    }

    fn fire(&mut self) -> Result<()> {
        for file in files(&self.hidden())? {
            let name = file.file_name().context("a file has a name")?;
            fs::rename(&file, self.root.join("pending").join(name))?;
        }
        Ok(())
    }

    fn done(&mut self, _: u64) -> Result<bool> {
        // The first that is found will do: the others need not be listed.
        let mut pending = fs::read_dir(self.root.join("pending"))?;
        Ok(!pending.any(|entry| entry.is_ok_and(|entry| !is_hidden(&entry))))
    }

    fn tally(&mut self) -> Result<Tally> {
        Ok(Tally { stored: self.count("processed")?, dead: self.count("errors")? })
    }

    fn records(&mut self) -> Result<BTreeMap<String, Value>> {
        let record = |file: PathBuf| {
            let record: Value = serde_json::from_slice(&fs::read(file)?)?;
            Ok((record["id"].as_str().unwrap_or_default().to_owned(), record))
        };
        files(&self.root.join("processed"))?.into_iter().map(record).collect()
    }

    fn server(&self) -> Option<u32> {
        None
    }

    fn sender(&self) -> Result<Box<dyn Sender>> {
        Ok(Box::new(DirectorySender { hidden: self.hidden(), pending: self.root.join("pending"), next: 0 }))
    }

    fn watch(&self, count: Arc<AtomicU64>, patience: Duration) -> Result<JoinHandle<Result<Seen>>> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, self.root.join("pending"), inotify::WatchFlags::DELETE)?;
        Ok(std::thread::spawn(move || {
            let (mut seen, began) = (Vec::new(), Instant::now());
            let mut buffer = vec![MaybeUninit::uninit(); 1 << 16];
            let mut reader = inotify::Reader::new(&watch, &mut buffer);
            while (seen.len() as u64) < count.load(Ordering::Relaxed) && began.elapsed() < patience {
                match reader.next() {
                    Ok(event) => {
                        let number = event.file_name().and_then(|name| number(&name.to_string_lossy()));
                        seen.extend(number.map(|number| (number, Instant::now())));
                    }
                    // It is asked again after a moment that is short beside what is measured.
                    Err(rustix::io::Errno::AGAIN) => std::thread::sleep(Duration::from_micros(100)),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(seen)
        }))
    }
}

struct DirectorySender {
    hidden: PathBuf,
    pending: PathBuf,
    next: u64,
}

impl Sender for DirectorySender {
    fn send(&mut self, alerts: &[Vec<u8>]) -> Result<()> {
        for alert in alerts {
            let (half, whole) = (self.hidden.join(name(self.next)), self.pending.join(name(self.next)));
            fs::write(&half, alert)?;
            fs::rename(half, whole)?;
            self.next += 1;
        }
        Ok(())
    }
}
