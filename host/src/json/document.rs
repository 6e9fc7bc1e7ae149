//! A JSON text that was read once and can be asked what stands where. It accepts exactly what `serde_json` reads into a
//! [`Value`], says the same of it, and costs less: one list of what was met, in its order, in place of a tree.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// A text that was read.
#[derive(Debug, Clone)]
pub struct Document {
    /// What was met, in its order. What stands inside of an array or object follows it; a key stands before its value.
    nodes: Vec<Node>,
    /// Every text that was met, without what escapes it.
    texts: String,
}

#[derive(Debug, Clone)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    /// From where to where in [`Document::texts`].
    Text(usize, usize),
    /// The place of the first node that is not inside of it.
    Array(usize),
    /// The same.
    Object(usize),
}

/// A value in a [`Document`].
#[derive(Clone, Copy)]
pub struct Part<'a> {
    document: &'a Document,
    at: usize,
}

impl Document {
    /// Reads a text of at most so many levels (a scalar has none).
    ///
    /// # Errors
    /// It is no JSON, or deeper.
    pub fn read(text: &str, levels: usize) -> Result<Self, serde_json::Error> {
        // Few texts hold more than that, and they may grow.
        let nodes = Vec::with_capacity(text.len() / 8 + 4);
        let mut document = Self { nodes, texts: String::with_capacity(text.len()) };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Reader { document: &mut document, levels }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(document)
    }

    /// All of it.
    pub fn root(&self) -> Part<'_> {
        Part { document: self, at: 0 }
    }

    /// What stands at a pointer (RFC 6901), as [`Value::pointer`] finds it.
    pub fn pointer(&self, pointer: &str) -> Option<Part<'_>> {
        self.root().pointer(pointer)
    }
}

impl<'a> Part<'a> {
    fn node(self) -> &'a Node {
        // A part stands at a node: there is no other way to make one.
        &self.document.nodes[self.at]
    }

    /// The place after it.
    fn end(self) -> usize {
        match self.node() {
            Node::Array(end) | Node::Object(end) => *end,
            _ => self.at + 1,
        }
    }

    fn text_at(self, at: usize) -> &'a str {
        match self.document.nodes[at] {
            Node::Text(from, to) => &self.document.texts[from..to],
            _ => "",
        }
    }

    /// The text, if it is one.
    pub fn as_str(self) -> Option<&'a str> {
        matches!(self.node(), Node::Text(..)).then(|| self.text_at(self.at))
    }

    /// The number, if it is one.
    pub fn as_number(self) -> Option<&'a Number> {
        match self.node() {
            Node::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The number, if it is a whole one that is not negative.
    pub fn as_u64(self) -> Option<u64> {
        self.as_number()?.as_u64()
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        matches!(self.node(), Node::Object(_))
    }

    /// What it is, as a sentence calls it.
    pub fn kind(self) -> &'static str {
        match self.node() {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Number(_) => "a number",
            Node::Text(..) => "a string",
            Node::Array(_) => "an array",
            Node::Object(_) => "an object",
        }
    }

    /// Its elements, if it is an array.
    pub fn elements(self) -> Option<impl Iterator<Item = Part<'a>>> {
        let Node::Array(end) = *self.node() else { return None };
        let mut next = self.at + 1;
        Some(std::iter::from_fn(move || {
            let element = (next < end).then_some(Part { at: next, ..self })?;
            next = element.end();
            Some(element)
        }))
    }

    /// Its keys and values in the order of the text, if it is an object. A key that stands there twice comes twice; the last
    /// one counts.
    pub fn entries(self) -> Option<impl Iterator<Item = (&'a str, Part<'a>)>> {
        let Node::Object(end) = *self.node() else { return None };
        let mut next = self.at + 1;
        Some(std::iter::from_fn(move || {
            let key = (next < end).then_some(next)?;
            let value = Part { at: key + 1, ..self };
            next = value.end();
            Some((self.text_at(key), value))
        }))
    }

    /// The value of a key, if it is an object that has it.
    pub fn get(self, key: &str) -> Option<Part<'a>> {
        self.entries()?.filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }

    /// What stands at a pointer from here on.
    pub fn pointer(self, pointer: &str) -> Option<Part<'a>> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |part, segment| match part.node() {
            Node::Object(_) if segment.contains('~') => part.get(&segment.replace("~1", "/").replace("~0", "~")),
            Node::Object(_) => part.get(segment),
            Node::Array(_) => part.elements()?.nth(index(segment)?),
            _ => None,
        })
    }

    /// A scalar as plain text.
    pub fn plain_text(self) -> Option<String> {
        match self.node() {
            Node::Text(..) => self.as_str().map(str::to_owned),
            Node::Number(number) => Some(number.to_string()),
            Node::Bool(value) => Some(value.to_string()),
            Node::Null | Node::Array(_) | Node::Object(_) => None,
        }
    }

    /// The same as a value.
    pub fn to_value(self) -> Value {
        match self.node() {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Number(number) => Value::Number(number.clone()),
            Node::Text(..) => Value::String(self.text_at(self.at).to_owned()),
            Node::Array(_) => self.elements().into_iter().flatten().map(Part::to_value).collect(),
            Node::Object(_) => {
                let entries = self.entries().into_iter().flatten();
                Value::Object(entries.map(|(key, value)| (key.to_owned(), value.to_value())).collect())
            }
        }
    }
}

/// As JSON, in the form that a [`Value`] has.
impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

/// A pointer's segment as the place in an array.
fn index(segment: &str) -> Option<usize> {
    let plain = !(segment.starts_with('+') || segment.len() > 1 && segment.starts_with('0'));
    plain.then(|| segment.parse().ok()).flatten()
}

/// Notes what it meets.
struct Reader<'d> {
    document: &'d mut Document,
    /// How many levels may still follow.
    levels: usize,
}

impl Reader<'_> {
    fn note<E>(self, node: Node) -> Result<(), E> {
        self.document.nodes.push(node);
        Ok(())
    }

    /// Keeps a place for an array or object whose end is not known yet; gives the place, and how many levels may follow inside.
    fn enter<E: de::Error>(&mut self) -> Result<(usize, usize), E> {
        let levels =
            self.levels.checked_sub(1).ok_or_else(|| E::custom("recursion limit exceeded: too many levels"))?;
        self.document.nodes.push(Node::Null);
        Ok((self.document.nodes.len() - 1, levels))
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.note(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.note(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.note(Node::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        // As a value does: what is not finite is null. No text is.
        self.note(Number::from_f64(value).map_or(Node::Null, Node::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let from = self.document.texts.len();
        self.document.texts.push_str(value);
        let to = self.document.texts.len();
        self.note(Node::Text(from, to))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.note(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        let (at, levels) = self.enter()?;
        while values.next_element_seed(Reader { document: self.document, levels })?.is_some() {}
        self.document.nodes[at] = Node::Array(self.document.nodes.len());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let (at, levels) = self.enter()?;
        while entries.next_key_seed(Key(Reader { document: self.document, levels }))?.is_some() {
            entries.next_value_seed(Reader { document: self.document, levels })?;
        }
        self.document.nodes[at] = Node::Object(self.document.nodes.len());
        Ok(())
    }
}

/// The same for a key.
struct Key<'d>(Reader<'d>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ALERT_LEVELS;
    use super::*;

    const TEXTS: [&str; 12] = [
        r#"{"a":{"b":[1,-2,3.50,1e3,{"c":"d"}]},"e":null,"f":true}"#,
        r#"{"a":1,"a":{"b":2},"b":[],"c":{}}"#,
        r#"{"a/b":1,"a~b":2,"~1":3,"":{"":4},"*":5,"01":6}"#,
        r#"["\u00e4\n\"","\ud83d\ude00",18446744073709551615,-9223372036854775808,1e308]"#,
        " \"text\" ",
        "17",
        "-0",
        "null",
        "[[[],[[]]],{}]",
        r#"[0,1,2,3,4,5,6,7,8,9,10,11]"#,
        r#"{"0":[["x"]]}"#,
        r#"{"a":[{"b":1},{"b":2,"b":3}]}"#,
    ];

    #[test]
    fn it_says_the_same_as_a_value() {
        let pointers = [
            "", "/", "//", "/a", "/a/b", "/a/b/0", "/a/b/4/c", "/a/b/5", "/a/b/00", "/a/b/+1", "/a/b/-", "/a/1/b",
            "/a~1b", "/a~0b", "/~01", "/*", "/01", "/0/0/0", "/10", "/1", "a", "/e", "/f/g",
        ];
        for text in TEXTS {
            let value: Value = serde_json::from_str(text).unwrap();
            let document = Document::read(text, ALERT_LEVELS).unwrap();
            assert_eq!(document.root().to_value(), value);
            for pointer in pointers {
                let (found, right) = (document.pointer(pointer), value.pointer(pointer));
                assert_eq!(found.map(|part| part.to_string()), right.map(ToString::to_string), "{pointer} in {text}");
                assert_eq!(found.and_then(Part::as_str), right.and_then(Value::as_str));
                assert_eq!(found.and_then(Part::as_u64), right.and_then(Value::as_u64));
            }
        }
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for text in ["", "{", "{}{}", "[1,]", "{\"a\"}", "\"\\ud800\"", "1e999", "\"\u{1}\"", "nul", "{1:2}"] {
            assert!(Document::read(text, ALERT_LEVELS).is_err(), "{text}");
        }
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Document::read(&nested(3), 3).is_ok() && Document::read(&nested(4), 3).is_err());
        assert!(Document::read("1", 0).is_ok());
        assert!(Document::read(&nested(ALERT_LEVELS), usize::MAX).is_ok());
        assert!(Document::read(&nested(100_000), usize::MAX).is_err());
    }
}
