//! The stored record: the alert with its dossier, as JSON.
//!
//! The original's bytes are spliced in as they are. The id stands first and apart, because only the queue knows at commit
//! whether another alert already has it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::alert::observables::Observable;
use crate::dead_letter::history::History;

/// The number of this shape.
pub const SCHEMA: u32 = 1;

/// A record that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Record {
    /// The alert's id.
    pub id: String,
    /// SHA-256 of the alert's bytes.
    pub sha256: [u8; 32],
    /// The record's JSON after the id: begins with a comma, ends with the closing brace.
    pub rest: Bytes,
}

/// What a plugin concluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How bad it is.
    pub label: Label,
    /// 0 to 100.
    pub score: u8,
    /// Why, the weightiest reason first.
    pub reasons: Vec<String>,
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Act.
    Malicious,
    /// Look.
    Suspicious,
    /// Nothing to do.
    Benign,
    /// No step gave a verdict, or it could not tell.
    Unknown,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 4] = [Self::Malicious, Self::Suspicious, Self::Benign, Self::Unknown];

    /// The word in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malicious => "malicious",
            Self::Suspicious => "suspicious",
            Self::Benign => "benign",
            Self::Unknown => "unknown",
        }
    }
}

/// How the record came to be.
#[derive(Debug)]
pub struct Provenance<'a> {
    /// The host's version.
    pub host: &'static str,
    /// SHA-256 of the configuration's file.
    pub config_sha256: &'a str,
    /// When the host received the alert.
    pub received: Timestamp,
    /// When it was done with it.
    pub finished: Timestamp,
    /// How long that took, in microseconds.
    pub duration_us: u64,
    /// How often the queue delivered the alert.
    pub deliveries: u32,
    /// How often it was processed to its end: more than 1 after a replay.
    pub attempts: u32,
    /// The failures before it, each of which a replay followed, the oldest first; the last ones of many.
    pub history: &'a History,
    /// How many more there were; missing in the JSON when there were none.
    pub history_cut: u32,
    /// What each step did, in the order of the configuration.
    pub steps: &'a [StepTrace],
}

/// What is the same in every record that a step had a part in, as long as it is loaded.
#[derive(Debug)]
pub struct StepFacts {
    /// The step's name.
    pub step: String,
    /// Its stage.
    pub stage: &'static str,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version; empty when it is absent.
    pub version: String,
    /// SHA-256 of the plugin's file; empty when it is absent.
    pub sha256: String,
    /// SHA-256 of the step's settings.
    pub settings_sha256: String,
}

/// [`StepFacts`] as every record has them.
#[derive(Debug)]
pub struct KnownStep {
    facts: StepFacts,
    /// Their JSON, but for the brace at the end: more follows.
    json: Vec<u8>,
}

impl From<StepFacts> for KnownStep {
    fn from(facts: StepFacts) -> Self {
        let mut json = Json(Vec::new());
        let members = [
            ("step", facts.step.as_str()),
            ("stage", facts.stage),
            ("plugin", &facts.plugin),
            ("version", &facts.version),
            ("sha256", &facts.sha256),
            ("settings_sha256", &facts.settings_sha256),
        ];
        json.raw(b"{");
        json.listed(members.into_iter(), |json, (name, value)| {
            json.text(name);
            json.raw(b":");
            json.text(value);
        });
        Self { facts, json: json.0 }
    }
}

impl std::ops::Deref for KnownStep {
    type Target = StepFacts;

    fn deref(&self) -> &StepFacts {
        &self.facts
    }
}

/// What one step did to one alert.
#[derive(Debug, Clone)]
pub struct StepTrace {
    /// Which step it is, and what answers for it.
    pub facts: Arc<KnownStep>,
    /// `ok`, `not-applicable`, `absent`, or the reason of its failure when the step is not required.
    pub outcome: &'static str,
    /// What it said beside an outcome that is not `ok`.
    pub detail: Option<String>,
    /// How often it was called.
    pub attempts: u32,
    /// Whether what it asked for came from a cache.
    pub cached: bool,
    /// The digest of each table that answered it.
    pub tables: BTreeMap<String, String>,
    /// Fuel used by the last call.
    pub fuel: u64,
    /// Linear memory at the end of the last call, in bytes.
    pub memory: u64,
    /// Time that the last call took, in microseconds.
    pub duration_us: u64,
}

/// JSON that is put together.
struct Json(Vec<u8>);

impl Json {
    /// What is JSON already.
    fn raw(&mut self, json: &[u8]) {
        self.0.extend_from_slice(json);
    }

    /// A text.
    fn text(&mut self, text: &str) {
        // What digests and names are made of stands in JSON as it is.
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.raw(b"\"");
            self.raw(text.as_bytes());
            self.raw(b"\"");
        } else {
            self.value(text);
        }
    }

    /// Anything else. Writing into memory does not fail, and neither do our own types.
    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    fn time(&mut self, time: Timestamp) {
        let _ = write!(self.0, "\"{time}\"");
    }

    /// An object with these members, each written by its own.
    fn members<T>(&mut self, members: impl Iterator<Item = T>, mut member: impl FnMut(&mut Self, T)) {
        self.raw(b"{");
        self.listed(members, &mut member);
        self.raw(b"}");
    }

    /// What is listed with commas between.
    fn listed<T>(&mut self, all: impl Iterator<Item = T>, mut one: impl FnMut(&mut Self, T)) {
        for (place, element) in all.enumerate() {
            if place > 0 {
                self.raw(b",");
            }
            one(self, element);
        }
    }

    fn trace(&mut self, trace: &StepTrace) {
        self.raw(&trace.facts.json);
        self.raw(b",\"outcome\":");
        self.text(trace.outcome);
        if let Some(detail) = &trace.detail {
            self.raw(b",\"detail\":");
            self.text(detail);
        }
        self.raw(b",\"attempts\":");
        self.value(&trace.attempts);
        self.raw(if trace.cached { b",\"cached\":true" } else { b",\"cached\":false" });
        self.raw(b",\"tables\":");
        self.members(trace.tables.iter(), |json, (table, sha256)| {
            json.text(table);
            json.raw(b":");
            json.text(sha256);
        });
        for (name, number) in
            [(",\"fuel\":", trace.fuel), (",\"memory\":", trace.memory), (",\"duration_us\":", trace.duration_us)]
        {
            self.raw(name.as_bytes());
            self.value(&number);
        }
        self.raw(b"}");
    }

    fn provenance(&mut self, from: &Provenance<'_>) {
        self.raw(b"{\"host\":");
        self.text(from.host);
        self.raw(b",\"config_sha256\":");
        self.text(from.config_sha256);
        self.raw(b",\"received\":");
        self.time(from.received);
        self.raw(b",\"finished\":");
        self.time(from.finished);
        self.raw(b",\"duration_us\":");
        self.value(&from.duration_us);
        self.raw(b",\"deliveries\":");
        self.value(&from.deliveries);
        self.raw(b",\"attempts\":");
        self.value(&from.attempts);
        self.raw(b",\"history\":");
        self.value(from.history);
        if from.history_cut > 0 {
            self.raw(b",\"history_cut\":");
            self.value(&from.history_cut);
        }
        self.raw(b",\"steps\":[");
        self.listed(from.steps.iter(), Self::trace);
        self.raw(b"]}");
    }
}

impl Provenance<'_> {
    /// Appends it as it stands in a record.
    pub fn write(&self, to: &mut Vec<u8>) {
        let mut json = Json(std::mem::take(to));
        json.provenance(self);
        *to = json.0;
    }
}

impl Record {
    /// Puts a record together.
    pub fn new(
        alert: &Alert,
        observables: &[Observable],
        enrichment: &[(String, Box<RawValue>)],
        verdict: &Verdict,
        provenance: &Provenance<'_>,
    ) -> Self {
        let original = alert.bytes.trim_ascii();
        let results: usize = enrichment.iter().map(|(step, fields)| step.len() + fields.get().len()).sum();
        // About as much as it comes to; where it is more, it grows.
        let size = original.len() + results + 64 * observables.len() + 512 * provenance.steps.len() + 1024;
        let mut json = Json(Vec::with_capacity(size));
        json.raw(b",\"alert\":");
        json.raw(original);
        json.raw(b",\"observables\":[");
        json.listed(observables.iter(), |json, Observable { kind, role, value }| {
            json.raw(b"{\"type\":");
            json.text(kind);
            json.raw(b",\"role\":");
            json.text(role);
            json.raw(b",\"value\":");
            json.text(value);
            json.raw(b"}");
        });
        json.raw(b"],\"enrichment\":");
        json.members(enrichment.iter(), |json, (step, fields)| {
            json.text(step);
            json.raw(b":");
            json.raw(fields.get().as_bytes());
        });
        json.raw(b",\"verdict\":");
        json.value(verdict);
        json.raw(b",\"pipeline\":");
        json.provenance(provenance);
        json.raw(b"}");
        Self { id: alert.id.clone(), sha256: alert.sha256, rest: json.0.into() }
    }

    /// The beginning of the record under this id; [`Record::rest`] follows it.
    pub fn head(id: &str) -> String {
        format!("{{\"schema\":{SCHEMA},\"id\":{}", serde_json::Value::from(id))
    }

    /// The id that the record gets when another alert already has its own.
    pub fn conflict_id(&self) -> String {
        format!("{}~{}", self.id, hex::encode(&self.sha256[..4]))
    }

    /// The whole record under an id, as JSON.
    pub fn json(&self, id: &str) -> Vec<u8> {
        [Self::head(id).as_bytes(), &self.rest].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Decoder;
    use crate::config::AlertConfig;

    /// What serde makes of the same: the shape that was always stored, members in this order.
    #[derive(Serialize)]
    struct Rest<'a> {
        alert: &'a RawValue,
        observables: &'a [Observable],
        enrichment: BTreeMap<&'a str, &'a RawValue>,
        verdict: &'a Verdict,
        pipeline: Pipeline<'a>,
    }

    #[derive(Serialize)]
    struct Pipeline<'a> {
        host: &'a str,
        config_sha256: &'a str,
        received: Timestamp,
        finished: Timestamp,
        duration_us: u64,
        deliveries: u32,
        attempts: u32,
        history: &'a History,
        #[serde(skip_serializing_if = "Option::is_none")]
        history_cut: Option<u32>,
        steps: Vec<Step<'a>>,
    }

    #[derive(Serialize)]
    struct Step<'a> {
        step: &'a str,
        stage: &'a str,
        plugin: &'a str,
        version: &'a str,
        sha256: &'a str,
        settings_sha256: &'a str,
        outcome: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
        attempts: u32,
        cached: bool,
        tables: &'a BTreeMap<String, String>,
        fuel: u64,
        memory: u64,
        duration_us: u64,
    }

    impl<'a> Step<'a> {
        fn of(trace: &'a StepTrace) -> Self {
            let StepTrace { facts, outcome, detail, attempts, cached, tables, fuel, memory, duration_us } = trace;
            Self {
                step: &facts.step,
                stage: facts.stage,
                plugin: &facts.plugin,
                version: &facts.version,
                sha256: &facts.sha256,
                settings_sha256: &facts.settings_sha256,
                outcome,
                detail: detail.as_deref(),
                attempts: *attempts,
                cached: *cached,
                tables,
                fuel: *fuel,
                memory: *memory,
                duration_us: *duration_us,
            }
        }
    }

    fn trace(name: &str, detail: Option<&str>, tables: &[(&str, &str)]) -> StepTrace {
        let facts = StepFacts {
            step: name.to_owned(),
            stage: "enrich",
            plugin: format!("plugin of {name}"),
            version: "1.0.0-\u{1}".to_owned(),
            sha256: "ab".repeat(32),
            settings_sha256: String::new(),
        };
        StepTrace {
            facts: Arc::new(facts.into()),
            outcome: "ok",
            detail: detail.map(str::to_owned),
            attempts: 1,
            cached: detail.is_some(),
            tables: tables.iter().map(|(table, sha256)| ((*table).to_owned(), (*sha256).to_owned())).collect(),
            fuel: u64::MAX,
            memory: 0,
            duration_us: 17,
        }
    }

    #[test]
    fn a_record_is_byte_for_byte_what_serde_makes_of_it() {
        let decoder = Decoder::new(&AlertConfig { id: vec!["/id".into()], observables: Vec::new() });
        let text = " {\"id\": \"a\\\"b\", \"src_ip\": \"1.2.3.4\", \"user\": \"\u{e4}\\u0007\\\\\" }\n";
        let received = Timestamp::from_microsecond(1_763_766_000_123_450).unwrap();
        let alert = decoder.decode(text.into(), received).unwrap();
        let fields = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let failed = r#"[{"failed_at":"2026-01-01T00:00:00Z","reason":"trap","step":"geo","detail":"it \"trapped\""}]"#;
        let (none, once) = (History::default(), History::from_json(failed.as_bytes()).unwrap());
        let quoted = trace("\"quoted\\", Some("it said \n\u{7f}\u{2028}"), &[("geo", "aa"), ("\u{e4}", "bb")]);
        for (steps, history, history_cut) in [
            (Vec::new(), &none, None),
            (vec![trace("geo", None, &[])], &once, None),
            (vec![quoted, trace("x", None, &[("t", "")])], &once, Some(7)),
        ] {
            let enrichment: Vec<_> =
                steps.iter().map(|step| (step.facts.step.clone(), fields("{\"a\": [1 , 2.50]}"))).collect();
            let verdict =
                Verdict { label: Label::Malicious, score: 92, reasons: vec!["\"why\"".into(), "\u{e4}".into()] };
            let provenance = Provenance {
                host: "0.1.0",
                config_sha256: "cc",
                received,
                finished: Timestamp::UNIX_EPOCH,
                duration_us: 812,
                deliveries: 1,
                attempts: 2,
                history,
                history_cut: history_cut.unwrap_or_default(),
                steps: &steps,
            };
            let record = Record::new(&alert, &alert.observables, &enrichment, &verdict, &provenance);
            let original = fields(text);
            let right = Rest {
                alert: &original,
                observables: &alert.observables,
                enrichment: enrichment.iter().map(|(step, fields)| (step.as_str(), &**fields)).collect(),
                verdict: &verdict,
                pipeline: Pipeline {
                    host: "0.1.0",
                    config_sha256: "cc",
                    received,
                    finished: Timestamp::UNIX_EPOCH,
                    duration_us: 812,
                    deliveries: 1,
                    attempts: 2,
                    history,
                    history_cut,
                    steps: steps.iter().map(Step::of).collect(),
                },
            };
            let right = serde_json::to_string(&right).unwrap().replacen('{', ",", 1);
            assert_eq!(std::str::from_utf8(&record.rest), Ok(right.as_str()));
        }
    }
}
