//! Which records are enriched anew, and what is sent for each.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::output::{count, printable};
use crate::dead_letter::history::{Event, History, Replaced};
use crate::queue::{Again, Held};
use crate::record::SCHEMA;

use super::Arguments;

/// The parts of a record that matter here.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(default)]
    schema: u32,
    id: String,
    #[serde(borrow)]
    alert: &'a RawValue,
    #[serde(default)]
    verdict: Verdict,
    pipeline: Pipeline,
}

#[derive(Default, Deserialize)]
struct Verdict {
    label: Option<String>,
    score: Option<u8>,
}

#[derive(Deserialize)]
struct Pipeline {
    received: Timestamp,
    finished: Timestamp,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    history: History,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Clone, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Step {
    step: String,
    plugin: String,
    version: String,
    sha256: String,
}

/// A record that is chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    /// What is sent.
    pub again: Again,
    /// Why, where a step is: its name, plugin, version and digest.
    pub version: Option<[String; 4]>,
}

/// Chooses records, and sees to it that a digest means one version only.
pub(super) struct Sieve<'a> {
    arguments: &'a Arguments,
    before: Timestamp,
    /// The whole digest, once something had it.
    digest: Option<String>,
    /// Whether the last one that was not chosen is no record of ours.
    pub was_foreign: bool,
    /// The steps that records have, with digests of theirs, as far as they are needed to say what there is.
    there: BTreeMap<String, BTreeSet<String>>,
    /// How many records are of the time that is asked for.
    in_time: u64,
}

/// How many steps are named where none is the one that is asked for, and how many digests of each.
const NAMED: usize = 12;

impl<'a> Sieve<'a> {
    /// Takes records from before this moment.
    pub(super) fn new(arguments: &'a Arguments, before: Timestamp) -> Self {
        Self { arguments, before, digest: None, was_foreign: false, there: BTreeMap::new(), in_time: 0 }
    }

    /// What is to be sent for a record; none when it is not chosen.
    ///
    /// # Errors
    /// The digest is the beginning of this one's and of another one's.
    pub(super) fn choose(&mut self, held: &Held) -> anyhow::Result<Option<Chosen>> {
        let record = held.bytes.as_deref().and_then(|bytes| serde_json::from_slice::<Record<'_>>(bytes).ok());
        self.was_foreign = record.as_ref().is_none_or(|record| record.schema > SCHEMA);
        let Some(Record { id, alert, verdict, pipeline, .. }) = record.filter(|_| !self.was_foreign) else {
            return Ok(None);
        };
        self.note(&pipeline.steps);
        // What this command, or one before it that was killed, has sent is from its clock; the rest is from the hosts' clocks.
        let sent = pipeline.history.events().iter().rev().find_map(|event| match event {
            Event::Replaced(replaced) => Some(replaced.replaced_at),
            Event::Failure(_) => None,
        });
        let made = sent.map_or(pipeline.finished, |sent| sent.max(pipeline.finished));
        if made >= self.before || self.arguments.since.is_some_and(|since| pipeline.finished < since) {
            return Ok(None);
        }
        self.in_time += 1;
        let Some(step) = self.step(&pipeline.steps)? else { return Ok(None) };
        let word = |word: fn(&Step) -> &String| step.as_ref().map(word).filter(|word| !word.is_empty()).cloned();
        let first_received = pipeline.history.first_received().unwrap_or(pipeline.received).min(pipeline.received);
        let replaced = Replaced {
            replaced_at: Timestamp::now(),
            first_received: Some(first_received),
            finished: Some(pipeline.finished),
            verdict: verdict.label,
            score: verdict.score,
            step: word(|step| &step.step),
            plugin: word(|step| &step.plugin),
            version: word(|step| &step.version),
            sha256: word(|step| &step.sha256),
        };
        let again = Again {
            alert: Bytes::copy_from_slice(alert.get().as_bytes()),
            held: held.clone(),
            id,
            attempts: pipeline.attempts,
            first_seen: first_received,
            history: pipeline.history.and_replaced(replaced),
        };
        Ok(Some(Chosen { again, version: step.map(|step| [step.step, step.plugin, step.version, step.sha256]) }))
    }

    /// Remembers what a record has, so that somebody who asks for what is not there can be told what is.
    fn note(&mut self, steps: &[Step]) {
        for Step { step, sha256, .. } in steps {
            if self.there.len() >= NAMED && !self.there.contains_key(step) {
                continue;
            }
            let digests = self.there.entry(step.clone()).or_default();
            if digests.len() < NAMED && !sha256.is_empty() {
                digests.insert(sha256.get(..12).unwrap_or(sha256).to_owned());
            }
        }
    }

    /// Why none of so many records was chosen.
    pub(super) fn why_none(&self, records: u64) -> String {
        let Arguments { step, digest, .. } = self.arguments;
        let records = count(records, "record");
        if self.in_time == 0 {
            return format!("nothing fits: none of {records} is of that time");
        }
        let asked = match (step, digest) {
            (Some(step), Some(digest)) => format!("the step \"{}\" by the digest {digest}", printable(step)),
            (Some(step), None) => format!("the step \"{}\"", printable(step)),
            (None, Some(digest)) => format!("the digest {digest}"),
            (None, None) => return format!("nothing fits in {records}"),
        };
        let one = |(step, digests): (&String, &BTreeSet<String>)| {
            let digests: Vec<_> = digests.iter().map(|digest| printable(digest)).collect();
            format!(
                "{} ({})",
                printable(step),
                if digests.is_empty() { "absent".to_owned() } else { digests.join(", ") }
            )
        };
        let there: Vec<_> = self.there.iter().map(one).collect();
        let there = if there.is_empty() { "no step at all".to_owned() } else { there.join(", ") };
        let more = if self.there.len() >= NAMED { ", and perhaps more" } else { "" };
        format!("nothing fits: no record has {asked}; the store has {there}{more}")
    }

    /// The step for which a record is chosen: none inside where no step is asked for, none at all where it does not fit.
    #[expect(clippy::option_option, reason = "whether it fits, and for which step if one was asked for")]
    fn step(&mut self, steps: &[Step]) -> anyhow::Result<Option<Option<Step>>> {
        let Arguments { digest, step: name, .. } = self.arguments;
        if digest.is_none() && name.is_none() {
            return Ok(Some(None));
        }
        let fits = |step: &&Step| {
            name.as_ref().is_none_or(|name| step.step == *name)
                && digest.as_ref().is_none_or(|digest| step.sha256.starts_with(digest))
        };
        let Some(step) = steps.iter().find(fits) else { return Ok(None) };
        if let Some(digest) = digest {
            let whole = steps.iter().filter(fits).map(|step| &step.sha256);
            for whole in whole {
                let known = self.digest.get_or_insert_with(|| whole.clone());
                if known != whole {
                    bail!(
                        "the digest {digest} is the beginning of {} and of {}; nothing was sent; give more digits",
                        printable(known),
                        printable(whole)
                    );
                }
            }
        }
        Ok(Some(Some(step.clone())))
    }
}

/// A moment, or how long ago it was.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let wrong = || format!("\"{text}\" is neither a moment, as 2026-11-21T10:00:00Z, nor a time, as 90m, 2h or 7d");
    let ago = text.parse::<jiff::Span>().map_err(|_| wrong())?;
    let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let then = now.checked_sub(ago.abs()).map_err(|_| wrong())?;
    Ok(then.timestamp())
}

#[cfg(test)]
mod tests {
    use super::super::held;
    use super::*;
    use serde_json::{Value, json};

    fn record(finished: &str, steps: &[(&str, &str)], history: &Value) -> Held {
        let steps: Vec<_> = steps
            .iter()
            .map(|(step, sha256)| json!({"step": step, "plugin": step, "version": "0.1.0", "sha256": sha256}))
            .collect();
        held(
            "1-0",
            &json!({"schema": 1, "id": "a", "alert": {"id": "a"}, "verdict": {"label": "benign", "score": 7},
                "pipeline": {"received": finished, "finished": finished, "attempts": 2, "history": history, "steps": steps}}),
        )
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-03T00:00:00Z";

    fn chosen(arguments: &Arguments, held: &Held) -> anyhow::Result<Option<Chosen>> {
        Sieve::new(arguments, "2026-01-02T00:00:00Z".parse().unwrap()).choose(held)
    }

    #[test]
    fn step_and_digest_must_fit_the_same_step() {
        let held = record(EARLY, &[("geo", "aaaaaaaa11"), ("asset", "bbbbbbbb22")], &json!([]));
        let fits = |step: Option<&str>, digest: Option<&str>| {
            let arguments =
                Arguments { step: step.map(str::to_owned), digest: digest.map(str::to_owned), ..Arguments::default() };
            chosen(&arguments, &held).unwrap().is_some()
        };
        assert!(fits(Some("geo"), None) && fits(None, Some("bbbbbbbb")) && fits(Some("geo"), Some("aaaaaaaa")));
        assert!(!fits(Some("geo"), Some("bbbbbbbb")) && !fits(Some("other"), None) && !fits(None, Some("cccccccc")));
        assert!(fits(None, None));
    }

    #[test]
    fn what_is_sent_tells_of_the_record_that_it_replaces() {
        let held = record(EARLY, &[("geo", "aaaaaaaa11")], &json!([]));
        let arguments = Arguments { step: Some("geo".into()), ..Arguments::default() };
        let Chosen { again, version } = chosen(&arguments, &held).unwrap().unwrap();
        assert_eq!((&again.id[..], &again.alert[..], again.attempts), ("a", &b"{\"id\":\"a\"}"[..], 2));
        assert_eq!(version.unwrap()[3], "aaaaaaaa11");
        let told = serde_json::to_value(&again.history).unwrap();
        let expected = json!({"finished": EARLY, "first_received": EARLY, "verdict": "benign", "score": 7, "step": "geo", "plugin": "geo",
            "version": "0.1.0", "sha256": "aaaaaaaa11", "replaced_at": told[0]["replaced_at"]});
        assert_eq!(told, json!([expected]));
    }

    #[test]
    fn when_the_alert_first_arrived_is_not_forgotten_however_often_it_is_enriched_anew() {
        let all = Arguments { all: true, ..Arguments::default() };
        // The last ten of many, none of which is the first.
        let again = json!([{"replaced_at": EARLY, "first_received": "2025-12-31T00:00:00Z"}, {"replaced_at": EARLY}]);
        let sent = chosen(&all, &record(EARLY, &[], &again)).unwrap().unwrap().again;
        let first: Timestamp = "2025-12-31T00:00:00Z".parse().unwrap();
        assert_eq!((sent.first_seen, sent.history.first_received()), (first, Some(first)));
        let told = serde_json::to_value(&sent.history).unwrap();
        assert_eq!(told[2]["first_received"], "2025-12-31T00:00:00Z");
    }

    #[test]
    fn nothing_is_sent_twice_whatever_the_hosts_clocks_say() {
        let all = Arguments { all: true, ..Arguments::default() };
        assert!(chosen(&all, &record(LATE, &[], &json!([]))).unwrap().is_none());
        // Made by a host whose clock is slow, after this command had sent it.
        let again = json!([{"replaced_at": LATE}]);
        assert!(chosen(&all, &record(EARLY, &[], &again)).unwrap().is_none());
        let since = Arguments { since: Some("2026-01-01T12:00:00Z".parse().unwrap()), ..Arguments::default() };
        assert!(chosen(&since, &record(EARLY, &[], &json!([]))).unwrap().is_none());
    }

    #[test]
    fn a_digest_that_could_be_two_versions_sends_nothing() {
        let arguments = Arguments { digest: Some("aaaaaaaa".into()), ..Arguments::default() };
        let mut sieve = Sieve::new(&arguments, Timestamp::MAX);
        assert!(sieve.choose(&record(EARLY, &[("geo", "aaaaaaaa11")], &json!([]))).unwrap().is_some());
        let error = sieve.choose(&record(EARLY, &[("geo", "aaaaaaaa22")], &json!([]))).unwrap_err().to_string();
        assert!(error.contains("aaaaaaaa11") && error.contains("aaaaaaaa22"), "{error}");
    }

    #[test]
    fn what_is_no_record_is_left_and_counted() {
        let all = Arguments { all: true, ..Arguments::default() };
        let mut sieve = Sieve::new(&all, Timestamp::MAX);
        for bytes in ["", "{}", "{\"schema\":2,\"id\":\"a\"}"] {
            let held = Held { key: "1-0".into(), bytes: Some(bytes.into()) };
            assert!(sieve.choose(&held).unwrap().is_none() && sieve.was_foreign, "{bytes}");
        }
    }

    #[test]
    fn whoever_asks_for_what_is_not_there_is_told_what_is() {
        let why = |arguments: &Arguments, records: &[Held]| {
            let mut sieve = Sieve::new(arguments, "2026-01-02T00:00:00Z".parse().unwrap());
            for held in records {
                assert!(sieve.choose(held).unwrap().is_none());
            }
            sieve.why_none(records.len() as u64)
        };
        let held = record(EARLY, &[("geo", "aaaaaaaa1111222233"), ("asset\u{1b}", "")], &json!([]));
        let typo = Arguments { step: Some("nosuch".into()), ..Arguments::default() };
        let said = why(&typo, std::slice::from_ref(&held));
        assert!(said.contains("no record has the step \"nosuch\"") && said.contains("geo (aaaaaaaa1111)"), "{said}");
        assert!(said.contains("asset\\u{1b} (absent)"), "{said}");
        let digest = Arguments { digest: Some("12345678".into()), ..Arguments::default() };
        assert!(why(&digest, &[held]).contains("the digest 12345678"));
        let late = [record(LATE, &[("geo", "aa")], &json!([]))];
        assert!(why(&typo, &late).contains("none of 1 record is of that time"));
        // A store of attackers' steps fills no screen.
        let many: Vec<_> = (0..99).map(|n| record(EARLY, &[(&format!("s{n}"), "aa")], &json!([]))).collect();
        assert_eq!(why(&typo, &many).matches("(aa)").count(), NAMED);
    }

    #[test]
    fn a_moment_may_be_said_by_how_long_ago_it_was() {
        let day = Timestamp::now().as_second() - moment("1d").unwrap().as_second();
        assert!((86_399..86_402).contains(&day), "{day}");
        assert_eq!(moment(EARLY).unwrap(), EARLY.parse().unwrap());
        assert!(moment("yesterday").unwrap_err().contains("7d"));
    }
}
