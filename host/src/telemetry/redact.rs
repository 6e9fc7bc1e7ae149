//! What must not be shown: the values at the pointers of `redact` in `[log]`, masked in the log, in taps and in traces.
//!
//! A value is masked where it stands, and wherever else its text appears in what is said about its alert: a plugin may have put a
//! user's name into a message. It is found in any case of ASCII, as JSON and Rust escape it, and as the host itself writes an address.
//! Short values are masked where they stand only: masking every "al" would make nonsense of all else.
//! What is stored is not masked: the store is the operator's.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::json::document::{Document, Part};

/// What stands in place of a value.
pub const MASK: &str = "[redacted]";

/// The shortest value, in bytes, that is looked for in other texts.
const SHORTEST: usize = 4;

/// How many values of one alert are looked for, at most; an alert with more has all of its lines masked whole.
const VALUES: usize = 256;

tokio::task_local! {
    /// The values of the alert that this task is about.
    static OF_TASK: Masks;
}

thread_local! {
    /// The same while something is said that is no task's.
    static OF_CALL: RefCell<Option<Masks>> = const { RefCell::new(None) };
}

/// Knows the pointers.
#[derive(Debug, Clone, Default)]
pub struct Redactor(Arc<[Vec<String>]>);

/// The values of one alert that must not be shown. None costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Masks(Option<Arc<Found>>);

#[derive(Debug)]
struct Found {
    /// In lower case, the longest first, so that a name within a longer one leaves no rest.
    values: Vec<String>,
    /// What is too short to be looked for, in lower case.
    short: Vec<String>,
    /// There are more than can be looked for.
    all: bool,
}

impl Redactor {
    /// A redactor of these JSON pointers, in which `*` stands for every element of an array.
    pub fn new(pointers: &[String]) -> Self {
        let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
        let split = |pointer: &String| pointer.split('/').skip(1).map(unescape).collect();
        Self(pointers.iter().map(split).collect())
    }

    /// Whether nothing is to be masked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of an alert that must not be shown.
    pub fn find(&self, alert: &Document) -> Masks {
        if self.is_empty() {
            return Masks::default();
        }
        let mut values = Vec::new();
        for path in &*self.0 {
            at_part(alert.root(), path, &mut |part| texts_of_part(part, &mut values));
        }
        Masks::of(values)
    }

    /// The same of an alert's bytes; what is no JSON has no values.
    pub fn find_in(&self, alert: &[u8]) -> Masks {
        if self.is_empty() {
            return Masks::default();
        }
        let text = std::str::from_utf8(alert).ok();
        // Also one that is too deep to be taken: something may be said of it all the same.
        let document = text.and_then(|text| Document::read(text, usize::MAX).ok());
        document.map(|document| self.find(&document)).unwrap_or_default()
    }

    /// Masks a stored record, or anything else that has its alert under `alert`: there in place, and wherever else the values appear.
    /// Says whether it could: of what has no alert nobody can tell what must not be shown, and of more values than are looked for where
    /// they are.
    #[must_use]
    pub fn record(&self, record: &mut Value) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(alert) = record.get_mut("alert").filter(|alert| alert.is_object()) else { return false };
        let masks = self.in_value(alert);
        if masks.0.as_ref().is_some_and(|found| found.all) {
            return false;
        }
        self.in_place(alert);
        masks.everywhere(record);
        true
    }

    fn in_value(&self, alert: &Value) -> Masks {
        let mut values = Vec::new();
        for path in &*self.0 {
            at_value(alert, path, &mut |value| texts_of_value(value, &mut values));
        }
        Masks::of(values)
    }

    fn in_place(&self, alert: &mut Value) {
        for path in &*self.0 {
            at_value_mut(alert, path, &mut |value| *value = MASK.into());
        }
    }
}

impl Masks {
    fn of(texts: Vec<String>) -> Self {
        let (mut values, mut short) = (Vec::new(), Vec::new());
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            if text.len() < SHORTEST {
                short.push(text.to_ascii_lowercase());
                continue;
            }
            values.extend(other_forms(&text).into_iter().filter(|form| form.len() >= SHORTEST));
            values.push(text);
        }
        values.iter_mut().for_each(|value| value.make_ascii_lowercase());
        values.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        let all = values.len() > VALUES;
        let found = !values.is_empty() || !short.is_empty();
        Self(found.then(|| Arc::new(Found { values, short, all })))
    }

    /// A text with every value masked that appears in it; borrowed if there is none.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(found) = self.0.as_ref().filter(|found| !found.values.is_empty()) else { return text.into() };
        if found.all {
            return MASK.to_owned().into();
        }
        let mut masked = Cow::Borrowed(text);
        // As long as the text, byte for byte.
        let mut lower = text.to_ascii_lowercase();
        for value in &found.values {
            if let Some(other) = replaced(&masked, &lower, value) {
                lower = other.to_ascii_lowercase();
                masked = other.into();
            }
        }
        masked
    }

    /// The same of a text that stands for a value as a whole, such as a source's name: a short value is found there, too.
    pub fn mask_whole<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_short = |found: &Arc<Found>| found.short.iter().any(|short| short.eq_ignore_ascii_case(text));
        if self.0.as_ref().is_some_and(is_short) { MASK.to_owned().into() } else { self.mask(text) }
    }

    /// The same of a text that is JSON, in which a value may be written with escapes. Of what cannot be read nothing is shown.
    pub fn mask_json<'a>(&self, json: &'a str) -> Cow<'a, str> {
        let Some(found) = &self.0 else { return json.into() };
        let read = if found.all { None } else { serde_json::from_str(json).ok() };
        let mut value = read.unwrap_or_else(|| MASK.into());
        self.everywhere(&mut value);
        value.to_string().into()
    }

    /// Masks every text of a value, the keys of objects too.
    fn everywhere(&self, value: &mut Value) {
        if self.0.is_none() {
            return;
        }
        match value {
            Value::String(text) => {
                if let Cow::Owned(masked) = self.mask(text) {
                    *text = masked;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.everywhere(value)),
            Value::Object(object) => {
                for (key, mut value) in std::mem::take(object) {
                    self.everywhere(&mut value);
                    object.insert(self.mask(&key).into_owned(), value);
                }
            }
            Value::Number(number) => {
                if let Cow::Owned(_) = self.mask(&number.to_string()) {
                    *value = MASK.into();
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Lets a task say things about the alert with these values.
    pub async fn during<F: Future>(self, task: F) -> F::Output {
        match self.0 {
            None => task.await,
            Some(_) => OF_TASK.scope(self, task).await,
        }
    }

    /// The same for a call.
    pub fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        if self.0.is_none() {
            return call();
        }
        /// Gives way again to those before, also when the call panics.
        struct Before(Option<Masks>);
        impl Drop for Before {
            fn drop(&mut self) {
                OF_CALL.set(self.0.take());
            }
        }
        let _before = Before(OF_CALL.replace(Some(self.clone())));
        call()
    }

    /// Those of the alert that is spoken of now; none is the rule.
    pub fn current() -> Self {
        let of_call = OF_CALL.with_borrow(Clone::clone);
        of_call.or_else(|| OF_TASK.try_with(Clone::clone).ok()).unwrap_or_default()
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// How else a value may be written: by the host, which writes addresses in their shortest form and an IPv4 address within IPv6 as what
/// it is, and with the escapes of JSON and of Rust.
fn other_forms(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    if let Ok(address) = text.trim().parse::<IpAddr>() {
        forms.extend([address.to_string(), address.to_canonical().to_string()]);
    }
    if text.contains(|char: char| matches!(char, '"' | '\\' | '\'') || !matches!(char, ' '..='~')) {
        let json = Value::from(text).to_string();
        forms.extend([json[1..json.len() - 1].to_owned(), text.escape_debug().to_string()]);
        // As `{:?}` writes it, which leaves a single quote as it is.
        let debug = format!("{text:?}");
        forms.push(debug[1..debug.len() - 1].to_owned());
    }
    forms
}

/// A text with a mask in each place of a value; none where it has none. Both `lower` and `value` are in lower case.
fn replaced(text: &str, lower: &str, value: &str) -> Option<String> {
    let mut places = memchr::memmem::find_iter(lower.as_bytes(), value.as_bytes()).peekable();
    places.peek()?;
    let (mut masked, mut done) = (String::with_capacity(text.len()), 0);
    for at in places {
        masked.push_str(&text[done..at]);
        masked.push_str(MASK);
        done = at + value.len();
    }
    masked.push_str(&text[done..]);
    Some(masked)
}

fn at_part<'a>(part: Part<'a>, path: &[String], then: &mut impl FnMut(Part<'a>)) {
    let Some((first, rest)) = path.split_first() else { return then(part) };
    if let Some(elements) = part.elements() {
        for (at, element) in elements.enumerate() {
            if first == "*" || first.parse() == Ok(at) {
                at_part(element, rest, then);
            }
        }
    } else if let Some(next) = part.get(first) {
        at_part(next, rest, then);
    }
}

fn texts_of_part(part: Part<'_>, texts: &mut Vec<String>) {
    if let Some(elements) = part.elements() {
        elements.for_each(|element| texts_of_part(element, texts));
    } else if let Some(entries) = part.entries() {
        entries.for_each(|(_, value)| texts_of_part(value, texts));
    } else if let Some(text) = part.as_str() {
        texts.push(text.to_owned());
    } else if let Some(number) = part.as_number() {
        texts.push(number.to_string());
    }
}

fn at_value(value: &Value, path: &[String], then: &mut impl FnMut(&Value)) {
    let Some((first, rest)) = path.split_first() else { return then(value) };
    match value {
        Value::Array(values) if first == "*" => values.iter().for_each(|value| at_value(value, rest, then)),
        Value::Array(values) => {
            if let Some(value) = first.parse().ok().and_then(|at: usize| values.get(at)) {
                at_value(value, rest, then);
            }
        }
        Value::Object(object) => {
            if let Some(value) = object.get(first) {
                at_value(value, rest, then);
            }
        }
        _ => {}
    }
}

fn texts_of_value(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| texts_of_value(value, texts)),
        Value::Object(object) => object.values().for_each(|value| texts_of_value(value, texts)),
        Value::String(text) => texts.push(text.clone()),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

fn at_value_mut(value: &mut Value, path: &[String], then: &mut impl FnMut(&mut Value)) {
    let Some((first, rest)) = path.split_first() else { return then(value) };
    match value {
        Value::Array(values) if first == "*" => values.iter_mut().for_each(|value| at_value_mut(value, rest, then)),
        Value::Array(values) => {
            if let Some(value) = first.parse().ok().and_then(|at: usize| values.get_mut(at)) {
                at_value_mut(value, rest, then);
            }
        }
        Value::Object(object) => {
            if let Some(value) = object.get_mut(first) {
                at_value_mut(value, rest, then);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(&["/user/name".to_owned(), "/people/*/mail".to_owned(), "/a~1b".to_owned()])
    }

    #[test]
    fn a_value_is_masked_where_it_stands_and_wherever_else_a_record_says_it() {
        let mut record = json!({
            "id": "jdoe-17",
            "alert": {"user": {"name": "jdoe"}, "people": [{"mail": "x@y.example"}, {"mail": 4711}], "a/b": "al", "c": "alas"},
            "observables": [{"type": "user", "value": "jdoe"}],
            "enrichment": {"jdoe": {"text": "the mail x@y.example of jdoe", "number": 4711}, "other": [true, null, 12]},
        });
        assert!(redactor().record(&mut record));
        assert_eq!(
            record,
            json!({
                "id": "[redacted]-17",
                "alert": {
                    "user": {"name": MASK}, "people": [{"mail": MASK}, {"mail": MASK}], "a/b": MASK, "c": "alas",
                },
                "observables": [{"type": "user", "value": MASK}],
                "enrichment": {
                    "[redacted]": {"text": "the mail [redacted] of [redacted]", "number": MASK}, "other": [true, null, 12],
                },
            })
        );
    }

    #[test]
    fn what_is_found_in_a_document_is_what_is_found_in_a_value() {
        let text = r#"{"user":{"name":{"first":"Jane","last":"Doe-Smith"}},"people":[{"mail":"x@y.example"}]}"#;
        let document = Document::read(text, 64).unwrap();
        let found = |masks: Masks| masks.0.map(|found| found.values.clone()).unwrap_or_default();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(found(redactor().find(&document)), found(redactor().in_value(&value)));
        assert_eq!(found(redactor().find(&document)), ["x@y.example", "doe-smith", "jane"]);
    }

    #[test]
    fn a_value_is_found_in_any_case_and_in_whatever_form_it_is_written() {
        let of = |value: &str| Masks::of(vec![value.to_owned()]);
        for (value, text, masked) in [
            ("Jane Smith", "JANE SMITH and jane smith", "[redacted] and [redacted]"),
            ("JÄNE", "jÄne, Ä", "[redacted], Ä"),
            ("2001:DB8:0:0::ABCD", "at 2001:db8::abcd", "at [redacted]"),
            ("::ffff:192.0.2.7", "from 192.0.2.7, ::FFFF:c000:207", "from [redacted], ::FFFF:c000:207"),
            ("::ffff:c000:207", "from 192.0.2.7 or ::ffff:192.0.2.7", "from [redacted] or [redacted]"),
            ("the \"boss\"", r#"{"said":"by the \"boss\""}"#, r#"{"said":"by [redacted]"}"#),
            ("o'neil\n", "Some(\"O'Neil\\n\")", "Some(\"[redacted]\")"),
            ("o\u{7}ne", "by o\\u{7}ne, o\\u0007ne", "by [redacted], [redacted]"),
        ] {
            assert_eq!(of(value).mask(text), masked, "{value}");
        }
        assert_eq!(of("fw1").mask("fw1"), "fw1", "short");
        assert_eq!(of("fw1").mask_whole("FW1"), MASK);
        assert_eq!(of("fw1").mask_whole("fw12"), "fw12");
    }

    #[test]
    fn of_what_cannot_be_read_nothing_is_shown() {
        assert_eq!(Masks::of(vec!["jdoe".into()]).mask_json("[\"j\\u0064oe"), "\"[redacted]\"");
        for without in [json!({"user": {"name": "jdoe"}}), json!({"alert": null, "gave": "jdoe"}), json!("jdoe")] {
            assert!(!redactor().record(&mut without.clone()), "{without}");
        }
    }

    #[test]
    fn the_values_of_the_deepest_alert_are_found() {
        let levels = crate::json::ALERT_LEVELS - 1;
        let deep = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let alert = format!("{{\"user\":{{\"name\":\"jdoe\"}},\"deep\":{deep}}}");
        assert_eq!(redactor().find_in(alert.as_bytes()).mask("jdoe"), MASK);
    }

    #[tokio::test]
    async fn what_is_said_in_a_task_is_masked_with_the_values_of_its_alert_only() {
        let masks = Masks::of(vec!["jdoe".into(), "jdoe-admin".into()]);
        assert_eq!(Masks::current().mask("jdoe"), "jdoe");
        let said = masks.clone().during(async {
            tokio::task::yield_now().await;
            Masks::current().mask("jdoe-admin and jdoe").into_owned()
        });
        assert_eq!(said.await, "[redacted] and [redacted]");
        assert_eq!(masks.within(|| Masks::current().mask("by jdoe").into_owned()), "by [redacted]");
        assert!(Masks::current().is_empty());
    }

    #[test]
    fn an_alert_with_values_without_end_is_not_searched_without_end() {
        let masks = Masks::of((0..1000).map(|at| format!("value {at}")).collect());
        assert!(matches!(masks.mask("anything"), Cow::Owned(masked) if masked == MASK), "it is changed");
        assert_eq!(masks.mask_json("{\"a\":\"value\"}"), "\"[redacted]\"");
        let people: Vec<_> = (0..1000).map(|at| json!({"mail": format!("{at}@example.org")})).collect();
        assert!(!redactor().record(&mut json!({"alert": {"people": people}, "id": "7@example.org"})), "it is left out");
    }
}
