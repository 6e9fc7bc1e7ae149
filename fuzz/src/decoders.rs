//! Quick readers of JSON against the strict one. The host looks at bytes in several ways that cost less than decoding: whether a file is
//! whole (`IgnoredAny`), the original as it stands (`RawValue`), whether a plugin's fields are an object (`json::check_object`, which
//! accepts exactly what the strict reader does).
//!
//! What the strict reader accepts, each of them accepts. What a quick one accepts beyond it is only what is documented: lone
//! surrogates, more than 127 levels, numbers that no `f64` holds.

use std::collections::BTreeMap;

use dossier::json;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::alert::{decode, record};

/// Any bytes.
///
/// # Panics
/// Two readers disagree where they must not.
pub fn run(data: &[u8]) {
    let strict = serde_json::from_slice::<Value>(data);
    let ignoring = serde_json::from_slice::<IgnoredAny>(data).is_ok();
    let raw = serde_json::from_slice::<&RawValue>(data);
    let text = std::str::from_utf8(data).is_ok();

    assert_eq!(raw.is_ok(), ignoring && text, "IgnoredAny and RawValue are one parser, but for UTF-8");
    match &strict {
        Ok(_) => assert!(raw.is_ok(), "strict accepts what is refused as it stands"),
        Err(error) if ignoring && text => {
            let why = error.to_string();
            let documented = ["surrogate", "recursion limit", "number out of range", "hex escape"];
            assert!(documented.iter().any(|word| why.contains(word)), "only the strict reader refuses: {why}");
        }
        Err(_) => {}
    }
    let alert = decode(data);
    let fits = |value: &Value| value.is_object() && !json::is_deeper(value, json::ALERT_LEVELS);
    assert_eq!(alert.is_some(), strict.as_ref().is_ok_and(fits), "the decoder is the strict reader");
    if let Ok(text) = std::str::from_utf8(data) {
        let fits = |value: &Value| value.is_object() && !json::is_deeper(value, json::FIELDS_LEVELS);
        let checked = json::check_object(text, json::FIELDS_LEVELS);
        assert_eq!(checked.is_ok(), strict.as_ref().is_ok_and(fits), "the check of a plugin's fields: {checked:?}");
    }

    // What passes the decoder is read by every later reader, once it is in a record.
    let Some(alert) = alert else { return };
    let stored = record(&alert);
    assert!(serde_json::from_slice::<IgnoredAny>(&stored).is_ok());
    let parts = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&stored);
    let parts = parts.unwrap_or_else(|error| panic!("a record is no object: {error}"));
    let id: String = serde_json::from_str(parts["id"].get()).unwrap_or_else(|error| panic!("an id: {error}"));
    assert_eq!(id, alert.id);
}
