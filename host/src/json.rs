//! What counts as JSON here: texts that every later reader accepts, also once they stand in a record. It owns how deep a value may be, a
//! reader that only checks, and one that can be asked afterwards ([`document`]); what a value says is not its business.

pub mod document;

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// How many levels `serde_json` reads; other readers stop later. What nobody can read back must not be stored.
const READABLE: usize = 127;

/// How many levels an alert may have: it stands in its record, which is one more.
pub const ALERT_LEVELS: usize = READABLE - 1;

/// How many levels a step's fields may have: they stand under the step's name under `enrichment` in a record.
pub const FIELDS_LEVELS: usize = READABLE - 2;

/// Whether a value has more than so many levels; a scalar has none.
pub fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(values) => levels == 0 || values.iter().any(|value| is_deeper(value, levels - 1)),
        Value::Object(entries) => levels == 0 || entries.values().any(|value| is_deeper(value, levels - 1)),
        _ => false,
    }
}

/// What is said about a value that is deeper.
pub fn too_deep(levels: usize) -> String {
    format!("recursion limit exceeded: it has more than {levels} levels")
}

/// Checks that a text is a JSON object of at most so many levels, and keeps nothing of it. It accepts what reading it into a
/// [`Value`] accepts, at less cost; `serde_json`'s own way to skip values accepts lone surrogates and any depth.
///
/// # Errors
/// It is something else.
pub fn check_object(text: &str, levels: usize) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Object(Strict { levels }).deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Reads each value and each text.
#[derive(Clone, Copy)]
struct Strict {
    /// How many levels may still follow.
    levels: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let levels =
            self.levels.checked_sub(1).ok_or_else(|| E::custom("recursion limit exceeded: too many levels"))?;
        Ok(Self { levels })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while values.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while entries.next_key::<Text>()?.is_some() {
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A text that is looked at and not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Strict { levels: 0 }).map(|()| Self)
    }
}

/// The same for an object only.
struct Object(Strict);

impl<'de> DeserializeSeed<'de> for Object {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        self.0.visit_map(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
    }

    #[test]
    fn levels_are_obeyed_and_violated() {
        for levels in [2, ALERT_LEVELS] {
            let (obeys, violates) = (nested(levels), nested(levels + 1));
            assert!(check_object(&obeys, levels).is_ok());
            let error = check_object(&violates, levels).unwrap_err().to_string();
            assert!(error.contains("recursion limit"), "{error}");
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert!(!is_deeper(&value(&obeys), levels) && is_deeper(&value(&violates), levels));
        }
    }
}
