//! What tells one alert from another: its id together with its bytes, as in the queue and in the store. White space around an
//! alert is no part of it, for it is not stored.

use std::borrow::Cow;
use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::alert::Decoder;
use crate::config::Config;
use crate::digest::sha256;

/// An alert's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id; none where the bytes are no alert, or too large to be looked into.
    pub id: Option<String>,
    /// SHA-256 of its bytes, without white space around them.
    pub sha256: [u8; 32],
}

/// An identity, or an id alone, in as few bytes as tell millions of them apart.
pub type Mark = [u8; 16];

/// A line that says what was sent.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unsure: bool,
}

impl Identity {
    /// Of an id and an alert's bytes.
    fn new(id: Option<String>, bytes: &[u8]) -> Self {
        Self { id, sha256: sha256(trimmed(bytes)) }
    }

    /// Its mark.
    pub fn mark(&self) -> Mark {
        short(&[&self.sha256, self.id.as_deref().unwrap_or_default().as_bytes()])
    }

    /// The mark of its id alone; none where it has none.
    pub fn mark_of_id(&self) -> Option<Mark> {
        self.id.as_deref().map(mark_of_id)
    }

    /// Writes it as `dossier verify` reads it.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_line(&self, sure: bool, out: &mut impl Write) -> std::io::Result<()> {
        let (id, hex) = (self.id.as_deref().map(Cow::from), hex::encode(self.sha256));
        serde_json::to_writer(&mut *out, &Line { id, sha256: Some(hex.into()), unsure: !sure })?;
        out.write_all(b"\n")
    }
}

/// The mark of an id whose alert's bytes nobody knows.
pub fn mark_of_id(id: &str) -> Mark {
    short(&[b"id", id.as_bytes()])
}

fn short(parts: &[&[u8]]) -> Mark {
    let mut mark = Mark::default();
    mark.copy_from_slice(&sha256(&parts.concat())[..16]);
    mark
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let begin = bytes.iter().position(|byte| !space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !space(byte)).map_or(begin, |last| last + 1);
    &bytes[begin..end]
}

/// Something that was sent, as a line says it.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it is called for people.
    pub name: String,
    /// How it is found.
    pub mark: Mark,
    /// Whether that is the mark of an id alone.
    pub by_id: bool,
    /// Whether it may not have arrived.
    pub unsure: bool,
}

/// Reads a line: an id as it is, or as JSON.
///
/// # Errors
/// What is wrong with it.
pub fn sent(line: &[u8]) -> Result<Sent, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let by_id = |id: &str| Sent { name: id.to_owned(), mark: mark_of_id(id), by_id: true, unsure: false };
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).map(|id| by_id(&id)).map_err(|error| error.to_string()),
        Some(b'{') => {
            let line: Line<'_> = serde_json::from_str(text).map_err(|error| {
                format!("it is no {{\"id\":…,\"sha256\":…}} ({error}); a file of alerts goes with --alerts")
            })?;
            let id = line.id.map(Cow::into_owned);
            match (line.sha256, id) {
                (Some(hex), id) => {
                    let mut sha256 = [0; 32];
                    hex::decode_to_slice(hex.as_bytes(), &mut sha256)
                        .map_err(|error| format!("its sha256: {error}"))?;
                    let identity = Identity { id, sha256 };
                    Ok(Sent { name: name(&identity), mark: identity.mark(), by_id: false, unsure: line.unsure })
                }
                (None, Some(id)) => Ok(Sent { unsure: line.unsure, ..by_id(&id) }),
                (None, None) => Err("it has neither an id nor a sha256".to_owned()),
            }
        }
        _ => Ok(by_id(text)),
    }
}

/// What an alert is called for people.
pub fn name(identity: &Identity) -> String {
    identity.id.clone().unwrap_or_else(|| format!("sha256 {}", hex::encode(identity.sha256)))
}

/// The parts of a stored record that tell whose it is.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    alert: &'a RawValue,
}

/// Finds identities as a host would.
#[derive(Debug)]
pub struct Identifier {
    decoder: Decoder,
    largest: usize,
}

impl Identifier {
    /// With the rules of this configuration.
    pub fn new(config: &Config) -> Self {
        Self { decoder: Decoder::new(&config.alert), largest: config.queue.max_alert_size }
    }

    /// Of an alert's bytes, whatever they hold.
    pub fn of(&self, bytes: &[u8]) -> Identity {
        let id = if bytes.len() > self.largest { None } else { self.decoder.id(bytes) };
        Identity::new(id, bytes)
    }

    /// Of a stored record; none when it is none. An alert whose id was taken is stored as `<id>~…`: it has the id that it says.
    pub fn of_record(&self, record: &[u8]) -> Option<Identity> {
        let stored: Stored<'_> = serde_json::from_slice(record).ok()?;
        let alert = stored.alert.get().as_bytes();
        let beside = |said: &String| stored.id.strip_prefix(said.as_str()).is_some_and(|rest| rest.starts_with('~'));
        let id = self.decoder.said_id(alert).filter(beside).unwrap_or_else(|| stored.id.into_owned());
        Some(Identity::new(Some(id), alert))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier() -> Identifier {
        Identifier::new(&crate::plugin::trial::standard())
    }

    #[test]
    fn an_alert_is_the_same_where_it_was_sent_and_where_it_is_stored() {
        let identifier = identifier();
        for (alert, stored_as) in [
            (r#"{"id":"a","x": 1.50}"#, "a"),
            (r#"{"id":"a","x": 2}"#, "a~0123abcd"),
            (r#"{"id":"a~b"}"#, "a~b"),
            (r#"{"id":17}"#, "17"),
        ] {
            let record = format!(r#"{{"schema":1,"id":"{stored_as}","alert":{alert},"pipeline":{{}}}}"#);
            let sent = identifier.of(format!(" {alert}\r\n").as_bytes());
            assert_eq!(identifier.of_record(record.as_bytes()).unwrap().mark(), sent.mark(), "{alert}");
        }
        let nameless = br#"{"x":1}"#;
        let id = crate::alert::id_of_bytes(nameless);
        let record = format!(r#"{{"id":"{id}","alert":{{"x":1}}}}"#);
        assert_eq!(identifier.of_record(record.as_bytes()).unwrap(), identifier.of(nameless));
        assert_eq!(identifier.of_record(b"{}"), None);
    }

    #[test]
    fn other_bytes_and_other_ids_are_other_alerts() {
        let identifier = identifier();
        let mark = |bytes: &[u8]| identifier.of(bytes).mark();
        let marks =
            [&b"{\"id\":\"a\"}"[..], b"{\"id\":\"b\"}", b"{\"id\":\"a\",\"x\":1}", b"{", b"[]", b"\xff"].map(mark);
        let different: std::collections::BTreeSet<_> = marks.iter().collect();
        assert_eq!(different.len(), marks.len());
    }

    #[test]
    fn what_is_too_large_has_no_id_as_in_a_host() {
        let large = format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(2 << 20));
        assert_eq!(identifier().of(large.as_bytes()).id, None);
    }

    #[test]
    fn a_line_that_was_written_is_read_and_ids_may_be_written_by_hand() {
        for bytes in [&b"{\"id\":\"a\\nb\"}"[..], b"no alert"] {
            let identity = identifier().of(bytes);
            let mut line = Vec::new();
            identity.write_line(false, &mut line).unwrap();
            let read = sent(line.trim_ascii_end()).unwrap();
            assert_eq!((read.mark, read.by_id, read.unsure), (identity.mark(), false, true));
        }
        for line in ["a b", "\"a b\"", "{\"id\":\"a b\"}"] {
            let read = sent(line.as_bytes()).unwrap();
            assert_eq!((read.mark, read.by_id, read.unsure), (mark_of_id("a b"), true, false), "{line}");
        }
        for wrong in [&b"{\"id\":\"a\",\"src_ip\":1}"[..], b"{}", b"\"a", b"\xff", b"{\"sha256\":\"00\"}"] {
            assert!(sent(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
