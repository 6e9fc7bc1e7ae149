//! Where the real queues are, and what lies in them, read without the host's help.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dossier::config::{QueueConfig, QueueKind, RedisConfig};
use dossier::queue::{self, Queue};
use dossier::telemetry::Telemetry;
use dossier_tests::redis_server::RedisServer;
use serde_json::value::RawValue;

use super::operation::MAX_ALERT_SIZE;
use super::state::Rules;

/// How often a host may die of an alert that runs alone.
pub const MAX_CRASHES: u32 = 2;

/// Where a real queue is.
pub enum Place {
    /// A stream of its own.
    Redis {
        /// The server.
        server: Arc<RedisServer>,
        /// The stream.
        stream: String,
    },
    /// A folder of its own.
    Directory(tempfile::TempDir),
}

impl Place {
    fn config(&self) -> QueueConfig {
        let kind = match self {
            Self::Redis { server, stream } => QueueKind::Redis(RedisConfig {
                url: server.url(),
                ca: None,
                cert: None,
                key: None,
                stream: stream.clone(),
                group: "dossier".into(),
                // Renewed for the first time long after the test: a lease ends when the test wants it.
                lease: Duration::from_secs(600),
                dedupe_window: Duration::from_secs(600),
                retention: None,
            }),
            Self::Directory(folder) => QueueKind::Directory { path: folder.path().to_owned() },
        };
        QueueConfig { kind, batch: 100, max_alert_size: MAX_ALERT_SIZE, max_crashes: MAX_CRASHES, dlq_alarm: u64::MAX }
    }

    /// Another host's view of it.
    pub async fn open(&self) -> Arc<dyn Queue> {
        queue::open(&self.config(), Arc::new(Telemetry::default())).await.expect("the queue can be opened")
    }

    /// In which way it does what both do right.
    pub fn rules(&self) -> Rules {
        match self {
            Self::Redis { .. } => Rules::Redis,
            Self::Directory(_) => Rules::Directory,
        }
    }

    /// What is in the queue, by whatever names it.
    pub fn backlog(&self) -> BTreeMap<String, Bytes> {
        match self {
            Self::Redis { server, stream } => stream_of(server, stream, "alert").into_iter().collect(),
            Self::Directory(folder) => files(&folder.path().join("pending"), "json").into_iter().collect(),
        }
    }

    /// Every record, as often as it is there: its id and its alert.
    pub fn store(&self) -> Vec<(String, Bytes)> {
        let records = match self {
            Self::Redis { server, stream } => stream_of(server, &format!("{stream}:enriched"), "record"),
            Self::Directory(folder) => files(&folder.path().join("processed"), "json"),
        };
        let mut all: Vec<_> = records
            .iter()
            .map(|(_, record)| {
                let parts: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(record).expect("a record is JSON");
                let id: String = serde_json::from_str(parts["id"].get()).expect("an id is a text");
                (id, Bytes::copy_from_slice(parts["alert"].get().as_bytes()))
            })
            .collect();
        all.sort();
        all
    }
}

fn stream_of(server: &RedisServer, stream: &str, field: &str) -> Vec<(String, Bytes)> {
    let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> =
        server.ask(&["XRANGE", stream, "-", "+"]).expect("the stream can be read");
    entries.into_iter().map(|(entry, mut fields)| (entry, fields.remove(field).unwrap_or_default().into())).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<(String, Bytes)> {
    let paths = paths(folder).into_iter().filter(|path| path.extension().is_some_and(|found| found == extension));
    paths
        .map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, std::fs::read(path).expect("a file of the queue").into())
        })
        .collect()
}

/// The paths of a folder.
pub fn paths(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("a folder of the queue").map(|entry| entry.expect("an entry").path()).collect()
}
