//! The bodies of the fuzz targets: each takes any bytes and panics where dossier breaks a promise. They own what is fed and what
//! must hold; who feeds them (libFuzzer, or an ordinary test with the corpus) is not their business.

pub mod alert;
pub mod config;
pub mod dead_letter;
pub mod decoders;
pub mod host_calls;
pub mod mmdb;
pub mod mutate;
pub mod tables;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A target: what takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("alert", alert::run),
    ("tables", tables::run),
    ("mmdb", mmdb::run),
    ("config", config::run),
    ("dead_letter", dead_letter::run),
    ("decoders", decoders::run),
    ("host_calls", host_calls::run),
];

/// Where the seeds of a target lie.
pub fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A file of this process for what dossier reads from files; in memory where the system has such a place.
struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    fn path(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    /// Puts bytes into the file, which nobody else uses until what this gives is dropped.
    fn write(bytes: &[u8]) -> MutexGuard<'static, Self> {
        static SCRATCH: OnceLock<Mutex<Scratch>> = OnceLock::new();
        let scratch = SCRATCH.get_or_init(|| {
            let memory = tempfile::Builder::new().prefix("dossier-fuzz").tempdir_in("/dev/shm");
            Mutex::new(Scratch {
                folder: memory.or_else(|_| tempfile::tempdir()).unwrap_or_else(|error| panic!("{error}")),
            })
        });
        // What a run before left there is written over.
        let scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::write(scratch.path(), bytes).unwrap_or_else(|error| panic!("a file of the fuzzer: {error}"));
        scratch
    }
}

/// Splits one byte off, which chooses among forms of what follows.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Whether a text is JSON by the strictest reader that there is here.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}
