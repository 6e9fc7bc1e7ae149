//! What the peers that are libraries have in common: how the benchmark calls them ([`peer!`]), and the tables.
//!
//! The benchmark's program loads a peer, opens it once for each core, and gives it one alert after the other. What the peer gives back
//! is the part of the record that it found out: a JSON object with `observables`, `enrichment` and `verdict`. Queue, commit, the rest
//! of the record and the log line are dossier's own.

mod tables;

use anyhow::Result;
use serde_json::Value;

pub use tables::Tables;

/// What dossier has, and Vector as well.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What makes the part of a record of an alert.
pub type Enrich = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>>>;

/// What the benchmark's program gets the answer with: something of its own, and the answer's bytes.
pub type Take = extern "C" fn(*mut std::ffi::c_void, *const u8, usize);

/// The addresses of one of the benchmark's alerts, as observables.
pub fn observables(alert: &Value) -> Vec<Value> {
    let one = |(field, role): (&str, &str)| {
        let value = alert.get(field)?.as_str()?;
        Some(serde_json::json!({"type": "ip", "role": role, "value": value}))
    };
    [("src_ip", "source"), ("dest_ip", "destination")].into_iter().filter_map(one).collect()
}

/// Makes a library's exports of a function `fn(folder: &Path, mode: &str) -> Result<Enrich>`.
///
/// `peer_open(text, length)` takes the folder of tables and the mode, with a line break between; nothing is given when it fails.
/// `peer_enrich(peer, alert, length, take, taker)` gives whether it worked, and the answer, or why not, to `take`.
#[macro_export]
macro_rules! peer {
    ($open:path) => {
        /// Opens the peer.
        ///
        /// # Safety
        /// The bytes are there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn peer_open(text: *const u8, length: usize) -> *mut $crate::Enrich {
            // SAFETY: the caller's promise.
            let text = unsafe { std::slice::from_raw_parts(text, length) };
            let text = String::from_utf8_lossy(text);
            let (folder, mode) = text.split_once('\n').unwrap_or((&text, ""));
            match $open(std::path::Path::new(folder), mode) {
                Ok(enrich) => Box::into_raw(Box::new(enrich)),
                Err(why) => {
                    eprintln!("error: {why:#}");
                    std::ptr::null_mut()
                }
            }
        }

        /// Enriches an alert.
        ///
        /// # Safety
        /// The peer was opened on this thread's behalf and is not used meanwhile, and the bytes are there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn peer_enrich(
            peer: *mut $crate::Enrich,
            alert: *const u8,
            length: usize,
            take: $crate::Take,
            taker: *mut std::ffi::c_void,
        ) -> bool {
            // SAFETY: the caller's promise.
            let (enrich, alert) = unsafe { (&mut *peer, std::slice::from_raw_parts(alert, length)) };
            match enrich(alert) {
                Ok(answer) => {
                    take(taker, answer.as_ptr(), answer.len());
                    true
                }
                Err(why) => {
                    let why = format!("{why:#}");
                    take(taker, why.as_ptr(), why.len());
                    false
                }
            }
        }
    };
}
