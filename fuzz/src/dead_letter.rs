//! What is known of a dead letter, as anybody may have written it: the JSON beside the bytes of both kinds of queue, the `.reason` of the
//! directory queue, the words in a stream's fields. Whatever it says, the letter is listed, its bytes are given as they are, and it can
//! be replayed and dropped.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use dossier::config::{QueueConfig, QueueKind};
use dossier::dead_letter::history::{History, KEPT};
use dossier::dead_letter::{DeadLetter, Reason};
use dossier::queue::Queue;
use dossier::queue::directory::DirectoryQueue;
use dossier::telemetry::Telemetry;
use jiff::Timestamp;
use tokio::runtime::Runtime;

use crate::choice;

const ALERT: &[u8] = b"{\"id\":\"x\"}";

struct Site {
    runtime: Runtime,
    queue: DirectoryQueue,
    folder: tempfile::TempDir,
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| make().unwrap_or_else(|why| panic!("the queue of the fuzzer: {why}")))
}

fn make() -> Result<Site, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let memory = tempfile::Builder::new().prefix("dossier-fuzz").tempdir_in("/dev/shm");
    let folder = memory.or_else(|_| tempfile::tempdir())?;
    let config = QueueConfig {
        kind: QueueKind::Directory { path: folder.path().to_owned() },
        batch: 10,
        max_alert_size: 4096,
        max_crashes: 3,
        dlq_alarm: u64::MAX,
    };
    let queue = runtime.block_on(DirectoryQueue::open(folder.path(), &config, Arc::new(Telemetry::default())))?;
    Ok(Site { runtime, queue, folder })
}

/// The first byte chooses what is done with the letter in the directory, once it was listed; the rest is the letter.
///
/// # Panics
/// A promise is broken.
pub fn run(data: &[u8]) {
    let (form, letter) = choice(data);
    let known = serde_json::from_slice::<DeadLetter>(letter);
    if let Ok(letter) = &known {
        let json = serde_json::to_vec(letter).unwrap_or_else(|error| panic!("a letter that was read: {error}"));
        let again = serde_json::from_slice::<DeadLetter>(&json).unwrap_or_else(|error| panic!("read again: {error}"));
        assert_eq!(*letter, again, "a letter is another one after it was written");
    }
    // What stands in a stream's fields: see Shared::delivery and list.lua.
    if let Ok(history) = History::from_json(letter) {
        assert!(history.failures().len() <= KEPT);
        let json = history.to_json().unwrap_or_else(|error| panic!("a history that was read: {error}"));
        assert_eq!(
            History::from_json(json.as_bytes()).as_ref(),
            Ok(&history),
            "a history is another one after it was written"
        );
    }
    if let Ok(text) = std::str::from_utf8(letter) {
        if let Ok(reason) = text.parse::<Reason>() {
            assert_eq!(reason.as_str(), text);
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            assert_eq!(time.to_string().parse::<Timestamp>().ok(), Some(time));
        }
    }
    if form & 1 == 0 {
        return;
    }
    let site = site();
    let known = known.ok().filter(|letter| letter.schema <= dossier::dead_letter::SCHEMA);
    site.runtime.block_on(in_directory(site, form, letter, known)).unwrap_or_else(|why| panic!("{why}"));
}

async fn in_directory(
    site: &Site,
    form: u8,
    letter: &[u8],
    known: Option<DeadLetter>,
) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::write(site.path("errors/alert-x.json"), ALERT)?;
    std::fs::write(site.path("errors/alert-x.reason"), letter)?;
    let listed = site.queue.dead(None, 10).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].key.as_str(), listed[0].size), ("alert-x", ALERT.len() as u64));
    if let Some(known) = &known {
        assert_eq!(listed[0].letter, *known);
    }
    assert_eq!(site.queue.dead_body("alert-x").await?.as_deref(), Some(ALERT));
    if form & 2 == 0 {
        assert!(site.queue.discard("alert-x").await?);
    } else {
        assert!(site.queue.replay("alert-x").await?);
        let taken = site.queue.receive(10).await?;
        assert_eq!(taken.len(), 1, "what was replayed comes");
        assert_eq!(taken[0].attempts, known.as_ref().map_or(0, |letter| letter.attempts));
        assert_eq!(taken[0].history, known.as_ref().map(DeadLetter::told).unwrap_or_default());
        assert_eq!(taken[0].first_seen, known.map(|letter| letter.first_seen));
        drop(taken);
        for name in ["pending/alert-x.json", "errors/alert-x.reason"] {
            std::fs::remove_file(site.path(name))?;
        }
    }
    for folder in ["pending", "errors", ".state"] {
        assert!(std::fs::read_dir(site.path(folder))?.next().is_none(), "something is left in {folder}");
    }
    Ok(())
}
