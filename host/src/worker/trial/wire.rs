//! What a host and its process for suspects say to each other: one message after the other, each a line of JSON, `[length, message]`, and
//! so many bytes after it (an alert, or the rest of a record). Both are the same program, so there are no versions.

use std::io::{self, BufRead, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use tokio::time::Instant;

use super::{Case, Ended};
use crate::dead_letter::DeadLetter;
use crate::dead_letter::history::History;
use crate::pipeline::Cast;
use crate::queue::{Body, Delivery, Outcome};
use crate::record::{Label, Record, StepFacts, StepTrace};
use crate::telemetry::redact::Masks;
use crate::telemetry::relay::{Relayed, word};
use crate::worker::committer::Story;

/// The longest line: a configuration, or what the steps of an alert did.
const MAX_LINE: u64 = 64 << 20;

/// What the host says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First: the configuration as the host has read it, and what answers for each step.
    Prepare { file: PathBuf, text: String, cast: Vec<Cast> },
    /// Run this suspect; its bytes follow.
    Begin { number: u64, suspect: Suspect },
    /// Go on with this one: it waited.
    Resume { number: u64 },
}

/// A suspect but for its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Suspect {
    received: Timestamp,
    entry: String,
    deliveries: u32,
    attempts: u32,
    first_seen: Option<Timestamp>,
    history: History,
    waited: Duration,
}

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It has loaded everything.
    Ready,
    /// It cannot, and ends.
    Refused { why: String },
    /// Whatever happens from now on happens because of this suspect.
    Began,
    /// Something to count and to log.
    Event(Relayed),
    /// The suspect has to wait for so long.
    Wait { after: Duration },
    /// The suspect is to be stored; the rest of the record follows.
    Store { id: String, sha256: String, verdict: Option<String>, steps: Vec<Step> },
    /// The suspect is dead.
    Dead { letter: Box<DeadLetter>, steps: Vec<Step> },
}

/// A [`StepTrace`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    step: String,
    stage: String,
    plugin: String,
    version: String,
    sha256: String,
    settings_sha256: String,
    outcome: String,
    detail: Option<String>,
    attempts: u32,
    cached: bool,
    tables: std::collections::BTreeMap<String, String>,
    fuel: u64,
    memory: u64,
    duration_us: u64,
}

impl From<StepTrace> for Step {
    fn from(trace: StepTrace) -> Self {
        let StepTrace { facts, outcome, detail, attempts, cached, tables, fuel, memory, duration_us } = trace;
        Self {
            step: facts.step.clone(),
            stage: facts.stage.to_owned(),
            plugin: facts.plugin.clone(),
            version: facts.version.clone(),
            sha256: facts.sha256.clone(),
            settings_sha256: facts.settings_sha256.clone(),
            outcome: outcome.to_owned(),
            detail,
            attempts,
            cached,
            tables,
            fuel,
            memory,
            duration_us,
        }
    }
}

impl From<Step> for StepTrace {
    fn from(step: Step) -> Self {
        let facts = StepFacts {
            step: step.step,
            stage: word(&step.stage),
            plugin: step.plugin,
            version: step.version,
            sha256: step.sha256,
            settings_sha256: step.settings_sha256,
        };
        Self {
            facts: Arc::new(facts.into()),
            outcome: word(&step.outcome),
            detail: step.detail,
            attempts: step.attempts,
            cached: step.cached,
            tables: step.tables,
            fuel: step.fuel,
            memory: step.memory,
            duration_us: step.duration_us,
        }
    }
}

impl Case {
    /// As it is sent.
    pub(super) fn taken_apart(self) -> (Suspect, Bytes) {
        let Delivery { entry, deliveries, attempts, first_seen, history, waited, .. } = self.delivery;
        (Suspect { received: self.received, entry, deliveries, attempts, first_seen, history, waited }, self.bytes)
    }
}

impl Suspect {
    /// As it was.
    pub(super) fn with(self, bytes: Bytes) -> Case {
        let delivery = Delivery {
            traceparent: None,
            body: Body::Alert(bytes.clone()),
            entry: self.entry,
            deliveries: self.deliveries,
            attempts: self.attempts,
            first_seen: self.first_seen,
            history: self.history,
            // Only the commit asks for it, which is the host's.
            replaces: None,
            waited: self.waited,
            suspect: true,
            receipt: Box::new(()),
        };
        Case { bytes, received: self.received, delivery }
    }
}

impl Answer {
    /// What became of a suspect, with the bytes that follow.
    pub(super) fn of(ended: Ended) -> (Self, Bytes) {
        let Story { verdict, steps, .. } = ended.story;
        let steps = steps.into_iter().map(Step::from).collect();
        match ended.outcome {
            Outcome::Store(Record { id, sha256, rest }) => {
                let (sha256, verdict) = (hex::encode(sha256), verdict.map(|label| label.as_str().to_owned()));
                (Self::Store { id, sha256, verdict, steps }, rest)
            }
            Outcome::Dead(letter) => (Self::Dead { letter: Box::new(letter), steps }, Bytes::new()),
        }
    }

    /// What became of it, if that is what is said.
    pub(super) fn ended(self, rest: Bytes) -> Option<Ended> {
        let started = Instant::now();
        let labels = [Label::Malicious, Label::Suspicious, Label::Benign, Label::Unknown];
        match self {
            Self::Store { id, sha256, verdict, steps } => {
                let verdict = verdict.and_then(|said| labels.into_iter().find(|label| label.as_str() == said));
                let steps = steps.into_iter().map(StepTrace::from).collect();
                let story = Story {
                    id: Some(id.clone()),
                    verdict,
                    failure: None,
                    failed_step: None,
                    steps,
                    started,
                    masks: Masks::default(),
                    calls: Vec::new(),
                };
                let sha256 = hex::decode(sha256).ok()?.try_into().ok()?;
                Some(Ended { outcome: Outcome::Store(Record { id, sha256, rest }), story })
            }
            Self::Dead { letter, steps } => {
                let story = Story {
                    id: letter.id.clone(),
                    verdict: None,
                    failure: Some((letter.reason, letter.detail.clone())),
                    failed_step: letter.step.as_ref().map(|failed| failed.step.clone()),
                    steps: steps.into_iter().map(StepTrace::from).collect(),
                    started,
                    masks: Masks::default(),
                    calls: Vec::new(),
                };
                Some(Ended { outcome: Outcome::Dead(*letter), story })
            }
            _ => None,
        }
    }
}

/// A message as it is sent.
pub(super) fn frame(message: &impl Serialize, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = serde_json::to_vec(&(payload.len(), message))?;
    frame.push(b'\n');
    frame.extend_from_slice(payload);
    Ok(frame)
}

fn head<M: DeserializeOwned>(line: &[u8]) -> io::Result<(u64, M)> {
    Ok(serde_json::from_slice(line)?)
}

fn whole(payload: Vec<u8>, length: u64) -> io::Result<Bytes> {
    if payload.len() as u64 == length { Ok(payload.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads a message; none at the end.
///
/// # Errors
/// It cannot be read, or makes no sense.
pub(super) async fn read<M: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<(M, Bytes)>> {
    let mut line = Vec::new();
    if (&mut *from).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    let (length, message) = head(&line)?;
    let mut payload = Vec::new();
    from.take(length).read_to_end(&mut payload).await?;
    Ok(Some((message, whole(payload, length)?)))
}

/// The same for a thread that may block.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_blocking<M: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<(M, Bytes)>> {
    let mut line = Vec::new();
    if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let (length, message) = head(&line)?;
    let mut payload = Vec::new();
    from.take(length).read_to_end(&mut payload)?;
    Ok(Some((message, whole(payload, length)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{FailedStep, Reason};

    fn trace(outcome: &'static str) -> StepTrace {
        let facts = StepFacts {
            step: "geo".into(),
            stage: "enrich",
            plugin: "geo".into(),
            version: "0.1.0".into(),
            sha256: "aa".into(),
            settings_sha256: "bb".into(),
        };
        StepTrace {
            facts: Arc::new(facts.into()),
            outcome,
            detail: (outcome != "ok").then(|| "why".into()),
            attempts: 2,
            cached: true,
            tables: [("t".to_owned(), "cc".to_owned())].into(),
            fuel: 4211,
            memory: 131_072,
            duration_us: 9,
        }
    }

    async fn sent(ended: Ended) -> Ended {
        let (answer, payload) = Answer::of(ended);
        let frames = [frame(&answer, &payload).unwrap(), frame(&Answer::Ready, b"").unwrap()].concat();
        let mut from = &frames[..];
        let (answer, payload) = read::<Answer>(&mut from).await.unwrap().unwrap();
        assert!(matches!(read(&mut from).await.unwrap(), Some((Answer::Ready, _))), "what comes after it");
        assert!(read::<Answer>(&mut from).await.unwrap().is_none());
        answer.ended(payload).unwrap()
    }

    fn same(before: &Ended, after: &Ended) {
        let shown = |ended: &Ended| {
            let Story { id, verdict, failure, failed_step, steps, .. } = &ended.story;
            format!("{:?} {id:?} {verdict:?} {failure:?} {failed_step:?} {steps:?}", ended.outcome)
        };
        assert_eq!(shown(before), shown(after));
    }

    #[tokio::test]
    async fn a_record_and_a_dead_letter_arrive_as_they_were_sent() {
        let outcomes = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["ok", "not-applicable", "absent"]);
        let stored = || Ended {
            outcome: Outcome::Store(Record {
                id: "a\n\u{1}".into(),
                sha256: [7; 32],
                rest: Bytes::from_static(b",\n\0}"),
            }),
            story: Story {
                id: Some("a\n\u{1}".into()),
                verdict: Some(Label::Suspicious),
                failure: None,
                failed_step: None,
                steps: outcomes.clone().map(trace).collect(),
                started: Instant::now(),
                masks: Masks::default(),
                calls: Vec::new(),
            },
        };
        same(&stored(), &sent(stored()).await);
        let step = FailedStep {
            step: "geo".into(),
            plugin: "geo".into(),
            version: "0.1.0".into(),
            sha256: "aa".into(),
            calls: 1,
            fuel: 1,
            duration_us: 1,
        };
        let letter = DeadLetter {
            schema: crate::dead_letter::SCHEMA,
            id: Some("a".into()),
            entry: Some("1-0".into()),
            reason: Reason::Trap,
            detail: "it\ntrapped".into(),
            step: Some(step),
            attempts: 3,
            history: History::default(),
            deliveries: 4,
            first_seen: Timestamp::UNIX_EPOCH,
            failed_at: Timestamp::UNIX_EPOCH,
            host: "0.1.0".into(),
        };
        let dead = || Ended {
            outcome: Outcome::Dead(letter.clone()),
            story: Story {
                id: Some("a".into()),
                verdict: None,
                failure: Some((Reason::Trap, "it\ntrapped".into())),
                failed_step: Some("geo".into()),
                steps: vec![trace("trap")],
                started: Instant::now(),
                masks: Masks::default(),
                calls: Vec::new(),
            },
        };
        same(&dead(), &sent(dead()).await);
    }

    #[tokio::test]
    async fn a_message_that_is_cut_short_is_an_error_and_no_message() {
        let whole = frame(&Answer::Began, b"bytes").unwrap();
        for length in 1..whole.len() {
            assert!(read::<Answer>(&mut &whole[..length]).await.is_err(), "{length} bytes of {}", whole.len());
            assert!(read_blocking::<Answer>(&mut &whole[..length]).is_err(), "{length} bytes of {}", whole.len());
        }
    }
}
