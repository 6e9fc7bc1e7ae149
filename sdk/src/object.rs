//! JSON objects of which only what is asked for is read: rows of tables and results of earlier steps.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object that is read once and of which nothing is made: neither a tree of values nor a copy of its texts. The cheap
/// way to take a few fields of an object whose form is not known, and to pass a value on as it stands.
///
/// ```
/// use dossier_sdk::Object;
/// let row = Object::parse(r#"{"country":{"iso_code":"CH"},"lat":"46.9"}"#).unwrap();
/// assert_eq!(row.text("/country/iso_code").as_deref(), Some("CH"));
/// assert_eq!(row.number("/lat"), Some(46.9));
/// assert_eq!(row.get("/country").map(|country| country.get()), Some(r#"{"iso_code":"CH"}"#));
/// ```
#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads an object: its names, and where their values stand.
    ///
    /// # Errors
    /// It is no JSON object; [`Failure::Internal`](crate::Failure::Internal) with `?` in a plugin.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The value with this name, which is taken as it is; of equal names the last counts.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The number of the value with this name, as [`Object::number`] has it.
    #[must_use]
    pub fn field_number(&self, name: &str) -> Option<f64> {
        number(self.field(name)?)
    }

    /// The value at a JSON pointer (RFC 6901) of names, such as `/country/names/en`. Only objects are walked into.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&'a RawValue> {
        let mut names = pointer.strip_prefix('/')?.split('/');
        let mut value = self.field(&unescaped(names.next()?))?;
        for name in names {
            // Most values are no objects, and it costs little to see that.
            if !value.get().starts_with('{') {
                return None;
            }
            value = Object::parse(value.get()).ok()?.field(&unescaped(name))?;
        }
        Some(value)
    }

    /// The string at a JSON pointer; none when there is nothing at it or no string.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<Cow<'a, str>> {
        text(self.get(pointer)?)
    }

    /// The number at a JSON pointer, or the number that a string says, as CSV tables may have it; none when there is
    /// neither.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<f64> {
        number(self.get(pointer)?)
    }
}

/// The string that a value is; none when it is something else.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The number that a value is or that its text says; none when it is something else.
fn number(value: &RawValue) -> Option<f64> {
    match text(value) {
        Some(text) => text.trim().parse().ok(),
        // The names of JSON's other values are no numbers for Rust either.
        None => value.get().parse().ok(),
    }
    .filter(|number: &f64| number.is_finite())
}

fn unescaped(name: &str) -> Cow<'_, str> {
    if name.contains('~') { Cow::Owned(name.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(name) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some(Name(name)) = entries.next_key()? {
                    fields.push((name, entries.next_value()?));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(Self)
    }
}

/// A name, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_pointers_of_names() {
        let json = r#"{"a":{"b c":{"d/e":"x"}},"~":1,"list":[{"a":2}],"text":"{\"a\":3}"}"#;
        let object = Object::parse(json).unwrap();
        assert_eq!(object.text("/a/b c/d~1e").as_deref(), Some("x"));
        assert_eq!(object.number("/~0"), Some(1.0));
        for nothing in ["", "a", "/", "/b", "/a/b", "/list/0", "/list/a", "/text/a", "/~0/a"] {
            assert!(object.get(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn of_equal_names_the_last_counts_and_escaped_names_are_equal_to_plain_ones() {
        let object = Object::parse(r#"{"a":1,"a":2,"\u0062":3}"#).unwrap();
        assert_eq!((object.number("/a"), object.number("/b")), (Some(2.0), Some(3.0)));
    }

    #[test]
    fn a_text_comes_without_its_escapes_and_a_number_from_a_text_too() {
        let object = Object::parse(
            r#"{"t":"a\"\u00e4\\","n":" 1.5 ","i":7,"no":"7a","inf":"inf","nan":"NaN","null":null,"yes":true}"#,
        );
        let object = object.unwrap();
        assert_eq!(object.text("/t").as_deref(), Some("a\"ä\\"));
        assert_eq!((object.number("/n"), object.number("/i")), (Some(1.5), Some(7.0)));
        assert_eq!(object.text("/i"), None);
        for none in ["/no", "/inf", "/nan", "/null", "/yes"] {
            assert_eq!(object.number(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in ["", "[]", "1", "{\"a\":}", "{\"a\":1} {}"] {
            assert!(Object::parse(json).is_err(), "{json}");
        }
    }
}
