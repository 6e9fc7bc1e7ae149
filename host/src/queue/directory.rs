//! The directory queue: alerts are files, and a folder is all that is needed.
//!
//! `pending/` holds what waits, `processed/` is the store, `errors/` the dead letters, `.state/` the locks of several hosts
//! that share the folder. Everything that anybody may want to do by hand with `ls`, `cp` and `mv` works: any file in
//! `pending` that is no dot file is an alert. Nothing here is ever overwritten, and a file goes only when what became of it
//! is on the disk. This part holds no file logic of its own: it takes the work of its modules to threads that may block.

mod again;
mod commit;
mod dead_letters;
mod depth;
mod files;
mod folders;
mod lock;
mod reader;
mod sources;
mod taken;
#[cfg(test)]
mod tests;
mod walk;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::files::Unfinished;
use self::folders::Folders;
use self::reader::Reader;
use self::taken::{AllTaken, Phase, Taken};
use super::{
    Again, Committed, Dead, Delivery, Depth, Heard, Held, Place, Queue, QueueError, Resent, Room, Settled, Walk,
    walk_for,
};
use crate::alert;
use crate::checkup::Observation;
use crate::config::QueueConfig;
use crate::telemetry::Telemetry;

/// How long to wait for the first alert.
const WAIT: Duration = Duration::from_secs(1);

/// How often to look without having been told: not every file system tells (NFS does not).
const POLL: Duration = Duration::from_millis(200);

/// How many alerts are written before the disk is asked to wait for them; each holds a file open until then.
const SENT_TOGETHER: usize = 256;

/// A queue in a directory.
pub struct DirectoryQueue {
    folders: Arc<Folders>,
    all: Arc<AllTaken>,
    reader: Arc<Mutex<Reader>>,
    counter: Arc<depth::Counter>,
    listing: Arc<dead_letters::Listing>,
    max_alert_size: u64,
    arrived: Arc<Notify>,
    /// Tells `arrived`; none where the system has no watches left, and then polling has to do.
    _watcher: Option<RecommendedWatcher>,
}

impl std::fmt::Debug for DirectoryQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryQueue").field("root", &self.folders.root).finish_non_exhaustive()
    }
}

impl DirectoryQueue {
    /// Opens it, and makes the folders that are missing.
    ///
    /// # Errors
    /// [`QueueError::Broken`] when something else has the path, or the folders lie on several file systems;
    /// [`QueueError::Unavailable`] when they cannot be made or read now.
    pub async fn open(path: &Path, config: &QueueConfig, telemetry: Arc<Telemetry>) -> Result<Self, QueueError> {
        let folders = Arc::new(Folders::new(path));
        let made = Arc::clone(&folders);
        blocking(move || made.make()).await?;
        allow_many_files();
        let arrived = Arc::new(Notify::new());
        let watcher = watch(&folders, &arrived)
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the queue's folder; it is polled"))
            .ok();
        let all = Arc::new(AllTaken::default());
        let reader =
            Reader::new(Arc::clone(&folders), Arc::clone(&all), telemetry, config.max_alert_size, config.max_crashes);
        Ok(Self {
            folders,
            all,
            reader: Arc::new(Mutex::new(reader)),
            counter: Arc::default(),
            listing: Arc::default(),
            max_alert_size: config.max_alert_size as u64,
            arrived,
            _watcher: watcher,
        })
    }

    /// Does file work in a thread that may block, and says what could not be done where.
    async fn at<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Folders) -> io::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let folders = Arc::clone(&self.folders);
        blocking(move || work(&folders).map_err(|error| files::unavailable(doing, &folders.root, &error))).await
    }
}

/// Looks at the folders without changing them: what [`super::check`] shows.
pub async fn check(path: &Path) -> Vec<Observation> {
    let folders = Folders::new(path);
    let looked = blocking(move || Ok(folders.look())).await;
    looked.unwrap_or_else(|error| {
        vec![Observation::broken_as_told(&error.to_string(), "look at its disk, its owner and its mode")]
    })
}

#[async_trait]
impl Queue for DirectoryQueue {
    async fn send(&self, alerts: &[Bytes]) -> Result<(), QueueError> {
        let alerts = alerts.to_vec();
        self.at("send alerts to", move |folders| send(folders, &alerts)).await
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + WAIT;
        loop {
            let reader = Arc::clone(&self.reader);
            // When this is cancelled, what the thread took is dropped, and so given back.
            let taken = blocking(move || reader.lock().unwrap_or_else(PoisonError::into_inner).take(max)).await?;
            if !taken.is_empty() {
                failpoint!("alerts-read");
            }
            if !taken.is_empty() || Instant::now() >= deadline {
                return Ok(taken);
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + POLL)) => {}
            }
        }
    }

    async fn accuse(&self, suspect: &Delivery) -> Result<(), QueueError> {
        let taken = taken(suspect)?;
        self.at("note a suspect in", move |_| {
            let Phase::Held(lock) = &mut *taken.phase() else { return Ok(()) };
            let before = lock.prior.map_or(0, |prior| prior.accused);
            lock.accuse(before.saturating_add(1))
        })
        .await
    }

    async fn commit(&self, settled: &[Settled]) -> Result<Vec<Committed>, QueueError> {
        let jobs: Option<Vec<_>> = settled.iter().map(commit::Job::new).collect();
        let jobs = jobs.ok_or_else(not_ours)?;
        let folders = Arc::clone(&self.folders);
        blocking(move || commit::commit(&folders, &jobs)).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let counter = Arc::clone(&self.counter);
        self.at("count the alerts in", move |folders| counter.depth(folders)).await
    }

    async fn stuck(&self) -> Result<Vec<String>, QueueError> {
        let reader = Arc::clone(&self.reader);
        self.at("look at the alerts in", move |_| reader.lock().unwrap_or_else(PoisonError::into_inner).stuck()).await
    }

    async fn dead(&self, after: Option<&str>, limit: usize) -> Result<Vec<Dead>, QueueError> {
        let (listing, limit_of_size) = (Arc::clone(&self.listing), self.max_alert_size);
        let after = after.map(str::to_owned);
        self.at("list the dead letters in", move |folders| {
            listing.page(folders, after.as_deref(), limit, limit_of_size)
        })
        .await
    }

    async fn dead_body(&self, key: &str) -> Result<Option<Bytes>, QueueError> {
        let key = key.to_owned();
        self.at("read a dead letter in", move |folders| folders.dead_body(&key)).await
    }

    async fn replay(&self, key: &str) -> Result<bool, QueueError> {
        let key = key.to_owned();
        self.at("replay a dead letter in", move |folders| folders.replay(&key)).await
    }

    async fn reenrich(&self, again: &Again) -> Result<Resent, QueueError> {
        let again = again.clone();
        self.at("send a stored alert again in", move |folders| folders.reenrich(&again)).await
    }

    async fn discard(&self, key: &str) -> Result<bool, QueueError> {
        let key = key.to_owned();
        self.at("delete a dead letter in", move |folders| folders.discard(&key)).await
    }

    async fn record(&self, id: &str) -> Result<Option<Bytes>, QueueError> {
        let id = id.to_owned();
        self.at("read a record in", move |folders| {
            let bytes = files::read_plain(&folders.record(&id), u64::MAX)?;
            // Where a file system takes upper and lower case for the same, the file may be another alert's.
            let own = |bytes: &Vec<u8>| said_id(bytes).as_ref() == Some(&id);
            Ok(bytes.filter(own).map(Bytes::from))
        })
        .await
    }

    async fn stored(&self, id: &str) -> Result<Vec<Held>, QueueError> {
        let name = id.to_owned();
        let by_name = self.at("look for records in", move |folders| walk::named(folders, &name)).await?;
        let stem = alert::file_stem(id);
        if stem != format!("alert-{id}") {
            // Its file is named by a hash of the id, and so is each one beside it, by a hash of its own.
            let mut found = walk_for(self.walk(Place::Store), id).await?;
            found.extend(by_name);
            return Ok(found);
        }
        let id = id.to_owned();
        let mut found = self.at("look for records in", move |folders| walk::beside(folders, &stem, &id)).await?;
        found.extend(by_name);
        Ok(found)
    }

    async fn sent_again(&self, _record: &Held, id: &str) -> Result<Option<String>, QueueError> {
        let id = id.to_owned();
        self.at("look for alerts in", move |folders| folders.sent_again(&id)).await
    }

    fn walk(&self, place: Place) -> Box<dyn Walk + '_> {
        Box::new(walk::FolderWalk::new(&self.folders, place))
    }

    async fn hear(&self, heard: &[String], forget: Duration) -> Result<Vec<Heard>, QueueError> {
        let heard = heard.to_vec();
        self.at("note what was heard in", move |folders| folders.hear(&heard, forget)).await
    }

    async fn room(&self) -> Result<Option<Room>, QueueError> {
        self.at("look at the disk of", |folders| folders.room().map(Some)).await
    }

    async fn close(&self) -> Result<(), QueueError> {
        let all = Arc::clone(&self.all);
        blocking(move || {
            all.release();
            Ok(())
        })
        .await
    }
}

/// Does work in a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(QueueError::Unavailable(format!("the queue's thread ended: {error}"))),
    }
}

/// What a delivery of this queue holds on to.
fn taken(delivery: &Delivery) -> Result<Arc<Taken>, QueueError> {
    delivery.receipt.downcast_ref::<Arc<Taken>>().map(Arc::clone).ok_or_else(not_ours)
}

fn not_ours() -> QueueError {
    QueueError::Broken("a delivery of another queue was handed to the directory queue".to_owned())
}

/// Wakes the reader when a file has come into `pending`, or was written to its end.
fn watch(folders: &Folders, arrived: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let arrived = Arc::clone(arrived);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let wakes = event.is_ok_and(|event| {
            let came = matches!(
                event.kind,
                EventKind::Create(_)
                    | EventKind::Access(AccessKind::Close(AccessMode::Write))
                    | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both | RenameMode::Any))
            );
            let visible = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| !files::hidden(name));
            event.need_rescan() || (came && event.paths.last().is_some_and(visible))
        });
        if wakes {
            arrived.notify_one();
        }
    })?;
    watcher.watch(&folders.pending, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Every alert in flight holds a file open, and the usual limit of 1,024 is soon reached; the hard one is far higher.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it, a full batch is taken in parts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Writes alerts: a group of them to the disk first, then each under its name.
fn send(folders: &Folders, alerts: &[Bytes]) -> io::Result<()> {
    for group in alerts.chunks(SENT_TOGETHER) {
        let mut written = Vec::with_capacity(group.len());
        for bytes in group {
            written.push((bytes, Unfinished::write(&folders.pending, &[bytes])?));
        }
        let synced = files::sync_all(&written.iter().map(|(_, file)| file).collect::<Vec<_>>());
        synced.into_iter().collect::<io::Result<()>>()?;
        for (bytes, mut file) in written {
            let stem = alert::file_stem(&said_id(bytes).unwrap_or_else(|| alert::id_of_bytes(bytes)));
            // Random ends after a few, so that a thousand alerts of one id do not try each other's names.
            let random = std::iter::repeat_with(|| format!("{stem}~{:08x}", fastrand::u32(..)));
            for name in numbered(&stem).take(9).chain(random) {
                if file.place(&folders.pending.join(format!("{name}.json")))? {
                    break;
                }
            }
        }
    }
    files::sync_folder(&folders.pending)
}

/// Where alerts usually say their id. Only names of files come from here; the alert's id is the decoder's business.
#[derive(Deserialize)]
struct Ids {
    id: Option<Value>,
    uuid: Option<Value>,
    alert_id: Option<Value>,
}

/// The id that bytes say, at the usual places.
fn said_id(bytes: &[u8]) -> Option<String> {
    let ids: Ids = serde_json::from_slice(bytes).ok()?;
    [ids.id, ids.uuid, ids.alert_id].into_iter().flatten().find_map(|id| match id {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Names to try one after the other: the name, the name with `~2`, with `~3` and so on.
fn numbered(name: &str) -> impl Iterator<Item = String> + use<> {
    let base = name.to_owned();
    (1..=u32::MAX).map(move |number| if number == 1 { base.clone() } else { format!("{base}~{number}") })
}
