//! Bytes of a producer: decoded or refused, with an id that makes a safe file name, observables within their bounds, and a record
//! that every reader of JSON accepts and that holds the original as it is.

use bytes::Bytes;
use dossier::alert::observables::MAX_OBSERVABLES;
use dossier::alert::{Alert, Decoder, file_stem};
use dossier::config::Config;
use dossier::dead_letter::history::History;
use dossier::record::{Label, Provenance, Record, Verdict};
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

/// Decodes as a host does in which nothing is configured.
pub(crate) fn decode(data: &[u8]) -> Option<Alert> {
    thread_local! {
        static DECODER: Decoder = {
            let config = Config::parse(std::path::Path::new("dossier.toml"), "");
            Decoder::new(&config.unwrap_or_else(|error| panic!("nothing is set: {error}")).alert)
        };
    }
    DECODER.with(|decoder| decoder.decode(Bytes::copy_from_slice(data), Timestamp::UNIX_EPOCH)).ok()
}

/// The record of an alert that no step has touched.
pub(crate) fn record(alert: &Alert) -> Vec<u8> {
    let verdict = Verdict { label: Label::Unknown, score: 0, reasons: Vec::new() };
    let provenance = Provenance {
        host: "0.1.0",
        config_sha256: "",
        received: alert.received,
        finished: alert.received,
        duration_us: 0,
        deliveries: 1,
        attempts: 1,
        history: &History::default(),
        history_cut: 0,
        steps: &[],
    };
    Record::new(alert, &alert.observables, &[], &verdict, &provenance).json(&alert.id)
}

/// Any bytes.
///
/// # Panics
/// A promise is broken.
pub fn run(data: &[u8]) {
    let Some(alert) = decode(data) else { return };
    assert!(alert.value.root().is_object() && alert.bytes == data);
    assert!(!alert.id.is_empty());
    let stem = file_stem(&alert.id);
    assert!(stem.len() <= 206 && !stem.contains(['/', '\0']) && stem.starts_with("alert-"), "{stem:?}");
    assert!(alert.observables.len() <= MAX_OBSERVABLES);
    assert!(alert.observables.iter().all(|found| !found.value.is_empty() && found.value.len() <= 4096));

    let again = decode(data);
    assert!(again.is_some_and(|again| again.id == alert.id && again.observables == alert.observables));

    let record = record(&alert);
    let read: Value = serde_json::from_slice(&record).unwrap_or_else(|error| panic!("a record is no JSON: {error}"));
    assert_eq!(read["id"], alert.id.as_str());
    assert_eq!(read["alert"], alert.value.root().to_value());
    let parts: std::collections::BTreeMap<&str, &RawValue> =
        serde_json::from_slice(&record).unwrap_or_else(|error| panic!("a record is no object: {error}"));
    assert_eq!(parts["alert"].get().as_bytes(), data.trim_ascii(), "the original is not as it was");
}
