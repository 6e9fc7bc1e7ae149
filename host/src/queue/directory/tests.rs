//! The directory queue on real files. Two queues on one folder are two hosts: their locks exclude each other all the same.

mod commits;
mod dead_letters;
mod deliveries;
mod full_disk;
mod hosts;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::DirectoryQueue;
use crate::alert::id_of_bytes;
use crate::config::{QueueConfig, QueueKind};
use crate::dead_letter::{DeadLetter, Reason, SCHEMA};
use crate::digest::sha256;
use crate::queue::{Body, Committed, Delivery, Outcome, Queue, QueueError, Settled};
use crate::record::Record;
use crate::telemetry::Telemetry;

const MAX_ALERT_SIZE: usize = 4096;
const MAX_CRASHES: u32 = 2;

/// A queue in a folder of its own.
struct Fixture {
    folder: TempDir,
    queue: DirectoryQueue,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = open(folder.path()).await.unwrap();
        Self { folder, queue }
    }

    /// Another host on the same folder.
    async fn other_host(&self) -> DirectoryQueue {
        open(self.folder.path()).await.unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts an old file there: one that is not still being written.
    fn put(&self, name: &str, bytes: &[u8]) {
        put(&self.path(name), bytes);
    }

    /// The names in a folder, sorted.
    fn ls(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    async fn send(&self, alerts: &[&str]) {
        let alerts: Vec<_> = alerts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        self.queue.send(&alerts).await.unwrap();
    }

    async fn receive(&self) -> Vec<Delivery> {
        self.queue.receive(100).await.unwrap()
    }

    async fn receive_one(&self) -> Delivery {
        let mut all = self.receive().await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Takes everything and stores it.
    async fn store_all(&self) -> Vec<Committed> {
        let settled: Vec<_> = self.receive().await.into_iter().map(stored).collect();
        self.queue.commit(&settled).await.unwrap()
    }

    /// Takes everything and buries it.
    async fn bury_all(&self) -> Vec<Committed> {
        let settled: Vec<_> = self.receive().await.into_iter().map(dead).collect();
        self.queue.commit(&settled).await.unwrap()
    }

    /// What a host leaves that dies with these in flight: its lock files, held by nobody.
    fn die_with(&self, deliveries: Vec<Delivery>) {
        let notes: Vec<_> = self.ls(".state").into_iter().map(|name| self.path(".state").join(name)).collect();
        let notes: Vec<_> = notes.iter().map(|path| (path, fs::read(path).unwrap())).collect();
        drop(deliveries);
        for (path, note) in notes {
            fs::write(path, note).unwrap();
        }
    }
}

async fn open(path: &Path) -> Result<DirectoryQueue, QueueError> {
    open_for(path, MAX_ALERT_SIZE).await
}

async fn open_for(path: &Path, max_alert_size: usize) -> Result<DirectoryQueue, QueueError> {
    let config = QueueConfig {
        kind: QueueKind::Directory { path: path.to_owned() },
        batch: 100,
        max_alert_size,
        max_crashes: MAX_CRASHES,
        dlq_alarm: 10_000,
    };
    DirectoryQueue::open(path, &config, Arc::new(Telemetry::default())).await
}

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

fn bytes_of(delivery: &Delivery) -> Bytes {
    match &delivery.body {
        Body::Alert(bytes) => bytes.clone(),
        Body::Refused { detail, .. } => panic!("{} was refused: {detail}", delivery.entry),
    }
}

fn id_of(bytes: &[u8]) -> String {
    super::said_id(bytes).unwrap_or_else(|| id_of_bytes(bytes))
}

/// The delivery with a record, as the worker makes one.
fn stored(delivery: Delivery) -> Settled {
    let bytes = bytes_of(&delivery);
    let text = std::str::from_utf8(&bytes).unwrap().trim();
    let rest = Bytes::from(format!(",\"alert\":{text},\"pipeline\":{{}}}}"));
    let record = Record { id: id_of(&bytes), sha256: sha256(&bytes), rest };
    Settled { delivery, outcome: Outcome::Store(record) }
}

/// The delivery with a dead letter, as the worker makes one.
fn dead(delivery: Delivery) -> Settled {
    let (id, reason, detail) = match &delivery.body {
        Body::Alert(bytes) => match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(_) => (Some(id_of(bytes)), Reason::Trap, "it trapped".to_owned()),
            Err(error) => (None, Reason::Malformed, error.to_string()),
        },
        Body::Refused { reason, detail } => (None, *reason, detail.clone()),
    };
    let now = Timestamp::now();
    let letter = DeadLetter {
        schema: SCHEMA,
        id,
        entry: Some(delivery.entry.clone()),
        reason,
        detail,
        step: None,
        attempts: delivery.attempts + 1,
        history: delivery.history.clone(),
        deliveries: delivery.deliveries,
        first_seen: delivery.first_seen.unwrap_or(now),
        failed_at: now,
        host: "0.1.0".to_owned(),
    };
    Settled { delivery, outcome: Outcome::Dead(letter) }
}
