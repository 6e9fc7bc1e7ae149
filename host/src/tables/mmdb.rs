//! MaxMind's database format (<https://maxmind.github.io/MaxMind-DB/>), read by the crate `maxminddb`.
//!
//! The file is read into memory, not mapped: a file that is cut short under a mapping kills the process with SIGBUS. It is
//! verified as a whole before it serves, so that a broken one is refused while the last good one is still there. A record's
//! depth and size are bounded, for a host call runs on a small stack.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{Reader, WithinOptions};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;

use super::TableError;

/// How deep a record may be. MaxMind's own have 4 levels.
const DEPTH: u8 = 32;

/// How long a record may be as JSON, in bytes.
const LENGTH: usize = 1 << 20;

/// An open database.
#[derive(Debug)]
pub(super) struct Mmdb {
    reader: Reader<Vec<u8>>,
}

impl Mmdb {
    /// Takes a whole file; every record that an address can reach is looked at once.
    pub(super) fn open(bytes: Vec<u8>, file: &Path) -> Result<Self, TableError> {
        let refuse = |error: maxminddb::MaxMindDbError| TableError::File {
            file: file.to_owned(),
            why: format!("is no sound MaxMind database: {error}; get it again from where it came from"),
        };
        let reader = Reader::from_source(bytes).map_err(refuse)?;
        verify(&reader).map_err(refuse)?;
        Ok(Self { reader })
    }

    /// The record of an address; keys that are no addresses have none. A record that is no map becomes `{"value": …}`,
    /// bytes become hexadecimal digits.
    pub(super) fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let Ok(address) = key.trim().parse::<IpAddr>() else { return Ok(None) };
        let address = address.to_canonical();
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(None);
        }
        let record = self.reader.lookup(address).and_then(|found| found.decode::<Record>());
        let record = record.map_err(|error| TableError::Record { key: address.to_string(), why: error.to_string() })?;
        Ok(record.map(|Record(json)| if json.starts_with('{') { json } else { format!("{{\"value\":{json}}}") }))
    }
}

/// Decodes every record once. The crate's own `verify` refuses databases in use that merely have no description.
fn verify(reader: &Reader<Vec<u8>>) -> Result<(), maxminddb::MaxMindDbError> {
    // A tree of so many nodes has at most two leaves for each; a graph that is no tree has many more, up to 2^128.
    let most = (reader.metadata().node_count as usize).saturating_mul(2);
    let mut seen = HashSet::new();
    let networks = reader.networks(WithinOptions::default().include_networks_without_data())?;
    for (count, network) in networks.enumerate() {
        let network = network?;
        if count > most {
            return Err(maxminddb::MaxMindDbError::invalid_database("its search tree is no tree"));
        }
        if network.offset().is_some_and(|offset| seen.insert(offset)) {
            network.decode::<Record>()?;
        }
    }
    Ok(())
}

/// A record as JSON text. Written directly: a tree of values in between would cost an allocation for each name in it.
struct Record(String);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut json = String::new();
        Json { text: &mut json, depth: 0 }.deserialize(deserializer)?;
        Ok(Self(json))
    }
}

/// Writes one value.
struct Json<'a> {
    text: &'a mut String,
    depth: u8,
}

impl Json<'_> {
    fn scalar<E: Error>(self, value: impl Serialize) -> Result<(), E> {
        self.text.push_str(&serde_json::to_string(&value).map_err(E::custom)?);
        if self.text.len() > LENGTH {
            return Err(E::custom(format!("it is longer than {LENGTH} bytes")));
        }
        Ok(())
    }

    fn deeper<E: Error>(&mut self) -> Result<Json<'_>, E> {
        if self.depth == DEPTH {
            return Err(E::custom(format!("it is deeper than {DEPTH} levels")));
        }
        Ok(Json { text: self.text, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a MaxMind database")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<(), E> {
        self.scalar(hex::encode(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        self.text.push('[');
        let mut separator = "";
        // The separator is written before it is known whether a value follows, and taken back when none does.
        loop {
            let before = self.text.len();
            self.text.push_str(separator);
            if values.next_element_seed(self.deeper()?)?.is_none() {
                self.text.truncate(before);
                break;
            }
            separator = ",";
        }
        self.text.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.text.push('{');
        let mut separator = "";
        while let Some(name) = entries.next_key::<&str>()? {
            self.text.push_str(separator);
            Json { text: self.text, depth: self.depth }.scalar(name)?;
            self.text.push(':');
            entries.next_value_seed(self.deeper()?)?;
            separator = ",";
        }
        self.text.push('}');
        Ok(())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod writer;
