//! A fixture: an alert with all that its plugin is given, and what is expected of it. Owns the file's shape; who runs it and
//! what is shown is [`super::test`]'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::alert::observables::Observable;
use crate::cli::output::{pretty, printable};
use crate::config::StepConfig;
use crate::pipeline::Given;
use crate::plugin::http::{Http, Response};
use crate::plugin::trial::recorded::{Recorded, Recording};
use crate::plugin::trial::standard;
use crate::tables::{Snapshot, Table};

use super::trying::{Beside, Subject, given, read_file};

/// What a failure may be called.
pub const KINDS: [&str; 10] = [
    "not-applicable",
    "unavailable",
    "invalid",
    "internal",
    "trap",
    "out-of-fuel",
    "memory",
    "timeout",
    "invalid-output",
    "refused",
];

/// A fixture as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    name: Option<String>,
    #[serde(borrow)]
    alert: &'a RawValue,
    observables: Option<Vec<WrittenObservable>>,
    received: Option<Timestamp>,
    #[serde(default)]
    enrichment: BTreeMap<String, Box<RawValue>>,
    settings: Option<Map<String, Value>>,
    #[serde(default)]
    tables: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
    #[serde(default)]
    http: Vec<WrittenAnswer>,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(borrow)]
    expect: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct WrittenObservable {
    #[serde(rename = "type")]
    kind: String,
    role: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAnswer {
    method: String,
    url: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WrittenLimits {
    fuel: Option<u64>,
    memory: Option<bytesize::ByteSize>,
    timeout_ms: Option<u64>,
    answer: Option<bytesize::ByteSize>,
    log_lines: Option<u32>,
}

/// What is expected: fields or a failure, and what comes with them.
#[derive(Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The whole result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ExpectedFailure>,
    /// The verdict; not looked at where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Value>,
    /// The observables that it adds; not looked at where they are not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observables: Option<Value>,
}

/// A failure that is expected.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFailure {
    /// One of [`KINDS`].
    pub kind: String,
    /// What its text must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// A fixture, ready to be tried.
pub struct Fixture {
    /// Its file.
    pub file: PathBuf,
    /// What it is called.
    pub name: String,
    /// The step.
    pub step: StepConfig,
    /// What the step is given.
    pub given: Arc<Given>,
    /// What is expected; none where that is still to be written.
    pub expected: Option<Expected>,
    recordings: Vec<Recording>,
    text: String,
    /// Where the expectation stands in the text.
    span: Option<std::ops::Range<usize>>,
}

impl Fixture {
    /// Reads a fixture for a component.
    ///
    /// # Errors
    /// What is wrong with it, with the file's name and the line.
    pub fn read(file: &Path, subject: &Subject) -> anyhow::Result<Self> {
        let text = String::from_utf8(read_file(file)?).context("not UTF-8");
        text.and_then(|text| Self::parse(file, text, subject)).with_context(|| printable(&file.display().to_string()))
    }

    fn parse(file: &Path, text: String, subject: &Subject) -> anyhow::Result<Self> {
        let written: Written<'_> = serde_json::from_str(&text)?;
        let expected = written.expect.map(|raw| serde_json::from_str(raw.get())).transpose().context("expect")?;
        if let Some(expected) = &expected {
            check(expected)?;
        }
        let span = written.expect.map(|raw| {
            // The value is borrowed from the text, so the distance of their beginnings is where it stands.
            let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + raw.get().len()
        });
        let mut step = subject.step();
        if let Some(settings) = written.settings {
            step.settings = Value::Object(settings).to_string();
        }
        let limits = &mut step.limits;
        if !written.http.is_empty() {
            limits.timeout = limits.timeout.max(super::trying::HTTP_TIMEOUT);
        }
        let size =
            |size: Option<bytesize::ByteSize>, or: usize| size.map_or(Ok(or), |size| usize::try_from(size.as_u64()));
        limits.fuel = written.limits.fuel.unwrap_or(limits.fuel);
        limits.memory = size(written.limits.memory, limits.memory)?;
        limits.answer = size(written.limits.answer, limits.answer)?;
        limits.log_lines = written.limits.log_lines.unwrap_or(limits.log_lines);
        limits.timeout = written.limits.timeout_ms.map_or(limits.timeout, Duration::from_millis);
        step.tables = written.tables.keys().cloned().collect();
        let rows = |rows: &BTreeMap<String, Map<String, Value>>| {
            Arc::new(Table::of_rows(rows.iter().map(|(key, row)| (key.as_str(), row))))
        };
        let tables: Snapshot = written.tables.iter().map(|(name, keyed)| (name.clone(), rows(keyed))).collect();
        for (step, result) in &written.enrichment {
            serde_json::from_str::<Map<String, Value>>(result.get())
                .with_context(|| format!("enrichment of \"{}\" is no object", printable(step)))?;
        }
        let observable = |one: WrittenObservable| Observable { kind: one.kind, role: one.role, value: one.value };
        let beside = Beside {
            observables: written.observables.map(|all| all.into_iter().map(observable).collect()),
            enrichment: written.enrichment.into_iter().collect(),
            received: written.received,
        };
        let decoder = crate::alert::Decoder::new(&standard().alert);
        let alert = written.alert.get().to_owned().into_bytes().into();
        let given = given(&decoder, &Arc::new(tables), alert, beside).context("alert")?;
        let recordings = written.http.into_iter().map(recording).collect::<anyhow::Result<_>>()?;
        let name = written
            .name
            .unwrap_or_else(|| file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()));
        Ok(Self { file: file.to_owned(), name, step, given, expected, recordings, text, span })
    }

    /// What answers its requests; where nothing is recorded, the network if that is meant.
    pub fn recorded(&self, otherwise: Option<Arc<Http>>) -> Recorded {
        Recorded::new(self.recordings.clone(), otherwise)
    }

    /// The file's text with another expectation; everything else stays as its author wrote it.
    ///
    /// # Errors
    /// None in practice: what is expected is JSON.
    pub fn with_expected(&self, expected: &Expected) -> anyhow::Result<String> {
        let written = pretty(expected)?.replace('\n', "\n  ");
        let mut text = self.text.clone();
        match &self.span {
            Some(span) => text.replace_range(span.clone(), &written),
            None => {
                // A fixture has an alert, so there is something before the last brace.
                let end = text.rfind('}').context("a fixture is an object")?;
                let before = text[..end].trim_end().len();
                text.replace_range(before.., &format!(",\n  \"expect\": {written}\n}}\n"));
            }
        }
        Ok(text)
    }
}

fn check(expected: &Expected) -> anyhow::Result<()> {
    let answer = expected.fields.is_some() || expected.verdict.is_some() || expected.observables.is_some();
    match &expected.failure {
        Some(failure) => {
            ensure!(!answer, "expect names a failure and a result; there is one or the other");
            let kind = failure.kind.as_str();
            ensure!(
                KINDS.contains(&kind),
                "expect: there is no failure \"{}\"; there are {}",
                printable(kind),
                KINDS.join(", ")
            );
        }
        None => ensure!(answer, "expect is empty; write fields or failure, or let --update write it"),
    }
    Ok(())
}

fn recording(written: WrittenAnswer) -> anyhow::Result<Recording> {
    let WrittenAnswer { method, url, status, headers, body } = written;
    if !["GET", "POST", "PUT", "HEAD"].contains(&method.as_str()) {
        bail!("http: the method \"{}\" cannot be sent; there are GET, POST, PUT and HEAD", printable(&method));
    }
    let url = url::Url::parse(&url).with_context(|| format!("http: {} is no absolute URL", printable(&url)))?;
    ensure!((100..600).contains(&status), "http: {status} is no status; write 100 to 599");
    let body = match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.into_bytes(),
        json => json.to_string().into_bytes(),
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Ok(Recording { method, url, response: Response { status, headers, body } })
}

/// The fixtures of a folder, or the one file.
///
/// # Errors
/// There are none, or they cannot be listed.
pub fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let shown = printable(&path.display().to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("no fixtures: {shown}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "no fixtures: {shown} holds no .json file");
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Fixture> {
        let subject = Subject { path: "geo.wasm".into(), bytes: Vec::new(), sha256: String::new(), manifest: Ok(None) };
        Fixture::parse(Path::new("a.json"), text.to_owned(), &subject)
    }

    fn wrong(text: &str) -> String {
        parse(text).err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(wrong(r#"{"alert": {}, "expct": {}}"#).contains("expct"));
        assert!(wrong(r#"{"alert": {}, "expect": {"feilds": {}}}"#).contains("feilds"));
        assert!(wrong(r#"{"alert": {}, "expect": {}}"#).contains("empty"));
        assert!(wrong(r#"{"alert": {}, "expect": {"failure": {"kind": "oops"}}}"#).contains("oops"));
        assert!(
            wrong(r#"{"alert": {}, "expect": {"fields": {}, "failure": {"kind": "trap"}}}"#)
                .contains("one or the other")
        );
        assert!(wrong(r#"{"alert": []}"#).contains("alert"));
        assert!(wrong(r#"{"alert": {}, "limits": {"fuels": 1}}"#).contains("fuels"));
        assert!(
            wrong(r#"{"alert": {}, "http": [{"method": "DELETE", "url": "http://a", "status": 200}]}"#)
                .contains("DELETE")
        );
        assert!(wrong(r#"{"alert": {}, "enrichment": {"geo": 1}}"#).contains("geo"));
    }

    #[test]
    fn only_the_expectation_is_written_anew() {
        let expected = Expected { fields: Some(serde_json::json!({"a": 1})), ..Expected::default() };
        let text = "{ \"alert\": {\"z\":1, \"a\":2},\n  \"expect\": {\"fields\": {}}, \"name\": \"x\" }\n";
        let updated = parse(text).unwrap().with_expected(&expected).unwrap();
        assert!(updated.starts_with("{ \"alert\": {\"z\":1, \"a\":2},\n  \"expect\": {\n    \"fields\""), "{updated}");
        assert!(updated.ends_with("}, \"name\": \"x\" }\n"), "{updated}");
        assert_eq!(parse(&updated).unwrap().expected.unwrap().fields, expected.fields);
        let added = parse("{\n  \"alert\": {}\n}\n").unwrap().with_expected(&expected).unwrap();
        assert_eq!(added, "{\n  \"alert\": {},\n  \"expect\": {\n    \"fields\": {\n      \"a\": 1\n    }\n  }\n}\n");
        assert_eq!(parse(&added).unwrap().expected.unwrap().fields, expected.fields);
    }

    #[test]
    fn an_address_finds_the_longest_prefix_of_a_fixtures_table() {
        let fixture = parse(
            r#"{"alert": {"src_ip": "10.1.2.3"}, "tables": {"t": {"10.0.0.0/8": {"n": 1}, "10.1.0.0/16": {"n": 2}, "DC01": {"n": 3}}}}"#,
        )
        .unwrap();
        let table = &fixture.given.tables["t"];
        assert_eq!(table.lookup("10.1.2.3").unwrap().as_deref(), Some(r#"{"n":2}"#));
        assert_eq!(table.lookup("10.2.2.3").unwrap().as_deref(), Some(r#"{"n":1}"#));
        assert_eq!(table.lookup("dc01").unwrap().as_deref(), Some(r#"{"n":3}"#));
        assert_eq!((fixture.step.tables.len(), fixture.given.observables.len()), (1, 1));
    }
}
