//! A plugin that looks for what it must not have: it sends a request and then searches all of its memory.
//!
//! It asks for `/url` of the alert, waiting `/timeout_ms` at most where that is there, and answers `{ "status" or "error",
//! "found", "searched" }`: how often each of `/wanted` stands in its memory, and how many bytes it has. What is wanted is
//! a list of bytes, each xored with 0x5a: so that the alert does not bring what is searched for.

use dossier_sdk::{Alert, Answer, Failure, Plugin, http};
use serde_json::{Value, json};

const MASK: u8 = 0x5a;

struct Snoop;

/// How many bytes of memory there are.
fn size() -> usize {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size(0) << 16;
    #[cfg(not(target_arch = "wasm32"))]
    0
}

/// A byte of memory.
#[allow(unsafe_code, reason = "the address is within the memory, whatever lies there; looking is the point")]
fn at(address: usize) -> u8 {
    unsafe { core::ptr::read_volatile(core::ptr::with_exposed_provenance(address)) }
}

/// How often what is wanted stands in the memory. Address 0 is left out: it is no place that may be read.
fn count(wanted: &[u8], size: usize) -> usize {
    let here = |start: usize| wanted.iter().enumerate().all(|(offset, byte)| at(start + offset) == byte ^ MASK);
    (1..size.saturating_sub(wanted.len())).filter(|&start| here(start)).count()
}

impl Plugin for Snoop {
    type Settings = Value;

    fn configure(_: Value) -> Result<Self, String> {
        Ok(Self)
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        let mut request = http::Request::new("GET", alert.str("/url").unwrap_or_default());
        if let Some(milliseconds) = alert.get("/timeout_ms") {
            request = request.timeout_ms(milliseconds);
        }
        let response = request.send();
        let wanted: Vec<Vec<u8>> = alert.get("/wanted").unwrap_or_default();
        let size = size();
        let found: Vec<usize> = wanted.iter().map(|wanted| count(wanted, size)).collect();
        // Only now may the response go.
        let mut said = match &response {
            Ok(response) => json!({ "status": response.status, "bytes": response.body.len() }),
            Err(http::HttpError::Timeout) => json!({ "error": "timeout" }),
            Err(error) => json!({ "error": format!("{error:?}") }),
        };
        said["found"] = json!(found);
        said["searched"] = json!(size);
        Answer::of(&said)
    }
}

dossier_sdk::export!(Snoop);
