//! An alert: its bytes, its id, and what was found in it. Decodes strictly, so that what passes here is JSON that every
//! later reader accepts; it does not judge what the alert says.

pub mod observables;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sha1::{Digest, Sha1};
use uuid::Uuid;

use self::observables::{Finder, Observable};
use crate::config::AlertConfig;
use crate::digest::sha256;
use crate::json;
use crate::json::document::Document;

/// The namespace of ids that are made from an alert's bytes (a UUIDv5 of `dossier:alert` in the URL namespace).
const NAMESPACE: Uuid = Uuid::from_u128(0x2d7d_3f1c_0d9a_5c1e_9a55_6f0e_54c1_7b2f);

/// Why bytes are no alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not UTF-8, not JSON, nested more than 126 levels deep, or with a lone surrogate.
    #[error("not valid JSON: {0}")]
    Malformed(String),
    /// JSON, but no object.
    #[error("the alert is {0}, not a JSON object")]
    NotAnObject(&'static str),
}

/// A decoded alert.
#[derive(Debug, Clone)]
pub struct Alert {
    /// The id: as the alert says it, or a UUIDv5 of its bytes.
    pub id: String,
    /// The original, byte for byte.
    pub bytes: Bytes,
    /// SHA-256 of the bytes: together with the id it tells duplicates.
    pub sha256: [u8; 32],
    /// The original, read.
    pub value: Document,
    /// What was found in it.
    pub observables: Arc<Vec<Observable>>,
    /// When the host received it.
    pub received: Timestamp,
}

/// Turns bytes into alerts as the configuration says.
#[derive(Debug)]
pub struct Decoder {
    id: Vec<String>,
    finder: Finder,
}

impl Decoder {
    /// A decoder for this configuration.
    pub fn new(config: &AlertConfig) -> Self {
        Self { id: config.id.clone(), finder: Finder::new(&config.observables) }
    }

    /// Decodes one alert.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no JSON object.
    pub fn decode(&self, bytes: Bytes, received: Timestamp) -> Result<Alert, DecodeError> {
        let text = std::str::from_utf8(&bytes).ok();
        let Some(value) = text.and_then(|text| Document::read(text, json::ALERT_LEVELS).ok()) else {
            return Err(what_is_wrong(&bytes));
        };
        if !value.root().is_object() {
            return Err(DecodeError::NotAnObject(value.root().kind()));
        }
        let observables = Arc::new(self.finder.find(&value));
        Ok(Alert { id: self.id_of(&value, &bytes), sha256: sha256(&bytes), observables, value, bytes, received })
    }

    /// The id of an alert, as [`Self::decode`] finds it; none when the bytes are no JSON object.
    pub fn id(&self, bytes: &[u8]) -> Option<String> {
        let value = read(bytes).filter(|value| value.root().is_object())?;
        Some(self.id_of(&value, bytes))
    }

    /// The id that the alert itself says; none when it says none, or the bytes are no JSON.
    pub fn said_id(&self, bytes: &[u8]) -> Option<String> {
        self.said(&read(bytes)?)
    }

    /// The id that the alert says, or one made from its bytes: the same bytes always have the same id.
    fn id_of(&self, value: &Document, bytes: &[u8]) -> String {
        self.said(value).unwrap_or_else(|| id_of_bytes(bytes))
    }

    fn said(&self, value: &Document) -> Option<String> {
        self.id.iter().find_map(|pointer| {
            let part = value.pointer(pointer)?;
            let text = part.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            text.or_else(|| part.as_number().map(ToString::to_string))
        })
    }
}

/// Reads JSON of any depth that can be read at all.
fn read(bytes: &[u8]) -> Option<Document> {
    Document::read(std::str::from_utf8(bytes).ok()?, usize::MAX).ok()
}

/// Why bytes are no alert, with the words for people. Asked only when they are none.
fn what_is_wrong(bytes: &[u8]) -> DecodeError {
    match serde_json::from_slice::<Value>(bytes) {
        Err(error) => DecodeError::Malformed(error.to_string()),
        Ok(_) => match read(bytes).map(|value| value.root().kind()) {
            Some(kind) if kind != "an object" => DecodeError::NotAnObject(kind),
            _ => DecodeError::Malformed(json::too_deep(json::ALERT_LEVELS)),
        },
    }
}

/// The id of bytes that say none.
pub fn id_of_bytes(bytes: &[u8]) -> String {
    uuid_of(bytes).to_string()
}

/// A UUIDv5 of these bytes in our namespace.
fn uuid_of(bytes: &[u8]) -> Uuid {
    // Not by `uuid` itself, whose SHA-1 does not use what the processor has for it.
    let digest: [u8; 20] = Sha1::new().chain_update(NAMESPACE).chain_update(bytes).finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    uuid::Builder::from_sha1_bytes(first).into_uuid()
}

/// The stem of the files that hold the alert with this id: the id itself where that is plainly safe as a file name on
/// every file system, else a UUIDv5 of it.
pub fn file_stem(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    // With "alert-" before and ".reason" after it, 200 bytes stay below the 255 that file systems allow.
    if !id.is_empty() && id.len() <= 200 && id.bytes().all(plain) {
        format!("alert-{id}")
    } else {
        format!("alert-{}", uuid_of(id.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &'static [u8]) -> Result<Alert, DecodeError> {
        let config = AlertConfig { id: vec!["/id".into(), "/uuid".into()], observables: Vec::new() };
        Decoder::new(&config).decode(Bytes::from_static(bytes), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_first_pointer_that_is_there_gives_the_id() {
        assert_eq!(decode(br#"{"id":"a","uuid":"b"}"#).map(|alert| alert.id), Ok("a".into()));
        assert_eq!(decode(br#"{"id":null,"uuid":"b"}"#).map(|alert| alert.id), Ok("b".into()));
        assert_eq!(decode(br#"{"id":17}"#).map(|alert| alert.id), Ok("17".into()));
    }

    #[test]
    fn bytes_without_an_id_always_have_the_same_one() {
        let first = decode(br#"{"id":"","x":1}"#).map(|alert| alert.id);
        assert_eq!(first, decode(br#"{"id":"","x":1}"#).map(|alert| alert.id));
        // What other tools make of them: a UUIDv5 in our namespace.
        assert_eq!(first.as_deref(), Ok("4c6ef7c4-eb0c-5e1c-9934-2a4603527979"));
        assert_ne!(first, decode(br#"{"id":"","x":2}"#).map(|alert| alert.id));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for bytes in [&b"{"[..], b"\xff{}", b"{\"a\":\"\\ud800\"}", b"{\"a\":\"\0\"}", b"{} {}", b""] {
            let bytes: &'static [u8] = bytes;
            assert!(matches!(decode(bytes), Err(DecodeError::Malformed(_))), "{bytes:?}");
        }
        assert_eq!(decode(b"[1]").err(), Some(DecodeError::NotAnObject("an array")));
        let deep = [b"[".repeat(json::ALERT_LEVELS + 1), b"]".repeat(json::ALERT_LEVELS + 1)].concat();
        assert_eq!(decode(deep.leak()).err(), Some(DecodeError::NotAnObject("an array")));
        let deep = [b"{\"a\":".to_vec(), b"[".repeat(10_000), b"]".repeat(10_000), b"}".to_vec()].concat();
        assert!(matches!(decode(deep.leak()), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn an_alert_is_as_deep_as_its_record_can_be_read_back_and_no_deeper() {
        let nested =
            |levels: usize| [b"{\"a\":".to_vec(), b"[".repeat(levels), b"]".repeat(levels), b"}".to_vec()].concat();
        let deepest = nested(json::ALERT_LEVELS - 1);
        assert!(decode(deepest.clone().leak()).is_ok());
        let record = [b"{\"alert\":", &deepest[..], b"}"].concat();
        assert!(serde_json::from_slice::<Value>(&record).is_ok());
        assert!(matches!(decode(nested(json::ALERT_LEVELS).leak()), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn an_id_becomes_a_file_name_only_where_that_is_safe() {
        assert_eq!(file_stem("RULE-1.b~c"), "alert-RULE-1.b~c");
        for id in ["../../etc/passwd", "a/b", "a b", "", "ä", "a\0"] {
            let stem = file_stem(id);
            assert_eq!(stem.len(), "alert-".len() + 36, "{id:?} became {stem}");
        }
        assert_eq!(file_stem(&"x".repeat(300)).len(), "alert-".len() + 36);
        assert_ne!(file_stem("a/b"), file_stem("a/c"));
    }
}
