//! What became of an alert before: failures that a replay followed, and records that another took the place of. It stands in the alert's
//! record, and in its dead letter when it fails again.
//!
//! On the way it lies where producers write too, so it is bounded by its type, and nothing is decided by what it says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DeadLetter, Reason};

/// How many events are kept: the last ones. [`DeadLetter::attempts`] counts all of them.
pub const KEPT: usize = 10;

/// How many bytes of a detail are kept.
const DETAIL: usize = 500;

/// How many bytes of a name, a version or a digest are kept.
const WORD: usize = 100;

/// The largest text that is read as a history, in bytes. One that this host writes is smaller, whatever it holds.
pub const MAX_TEXT: usize = 64 << 10;

/// What came before, the oldest first: no more than [`KEPT`] events, each cut to a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Event>", into = "Vec<Event>")]
pub struct History(Vec<Event>);

/// One end that an alert came to, and that was not its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// It failed, and was replayed.
    Failure(Failure),
    /// It was stored, and enriched anew.
    Replaced(Replaced),
}

/// A record that was: what it said, and what it was replaced for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// When it was sent again to be enriched anew.
    pub replaced_at: Timestamp,
    /// When a host received the alert for the first time, which the new record does not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_received: Option<Timestamp>,
    /// When the record was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Its verdict's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Its verdict's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    /// The step whose result was the reason, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Its plugin's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Its plugin's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of its plugin's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A failure: the parts of its dead letter that tell why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When it failed.
    pub failed_at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// The step that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Its plugin's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Its plugin's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of its plugin's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What happened, for people: the beginning of it.
    pub detail: String,
}

impl History {
    /// Reads what [`Self::to_json`] wrote, or what anybody else did.
    ///
    /// # Errors
    /// The text is larger than [`MAX_TEXT`], or no list of events.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("it is larger than {MAX_TEXT} bytes"));
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// As JSON, no larger than [`MAX_TEXT`].
    ///
    /// # Errors
    /// None in practice: failures are plain JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.0)
    }

    /// What came before, the oldest first.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// When a host received the alert for the first time, where it was enriched anew since.
    pub fn first_received(&self) -> Option<Timestamp> {
        let first = |event: &Event| match event {
            Event::Failure(_) => None,
            Event::Replaced(replaced) => replaced.first_received,
        };
        self.0.iter().filter_map(first).min()
    }

    /// The failures alone, the oldest first.
    pub fn failures(&self) -> Vec<Failure> {
        let failure = |event: &Event| match event {
            Event::Failure(failure) => Some(failure.clone()),
            Event::Replaced(_) => None,
        };
        self.0.iter().filter_map(failure).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and the others, by their times.
    #[must_use]
    pub fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self.0.sort_by_key(Event::at);
        Self::from(self.0)
    }

    /// These, and then a record that another is to take the place of.
    #[must_use]
    pub fn and_replaced(mut self, replaced: Replaced) -> Self {
        self.0.push(Event::Replaced(replaced));
        Self::from(self.0)
    }

    /// These, and then what a dead letter tells of.
    fn and(mut self, letter: &DeadLetter) -> Self {
        let step = letter.step.as_ref();
        self.0.push(Event::Failure(Failure {
            failed_at: letter.failed_at,
            reason: letter.reason,
            step: step.map(|step| step.step.clone()),
            plugin: step.map(|step| step.plugin.clone()),
            version: step.map(|step| step.version.clone()),
            sha256: step.map(|step| step.sha256.clone()),
            detail: letter.detail.clone(),
        }));
        Self::from(self.0)
    }
}

impl DeadLetter {
    /// The history that the alert has from here on: the earlier failures, and this one.
    pub fn told(&self) -> History {
        self.history.clone().and(self)
    }

    /// How many earlier failures the history does not hold, because there were too many or a version before it kept none.
    pub fn left_out(&self) -> u32 {
        left_out(self.attempts, &self.history)
    }
}

/// How many of so many attempts, the present one aside, a history does not hold.
pub fn left_out(attempts: u32, history: &History) -> u32 {
    let held = u32::try_from(history.0.len()).unwrap_or(u32::MAX);
    attempts.saturating_sub(1).saturating_sub(held)
}

impl From<Vec<Event>> for History {
    /// Cuts it to its bounds.
    fn from(mut events: Vec<Event>) -> Self {
        events.drain(..events.len().saturating_sub(KEPT));
        events.iter_mut().for_each(Event::cut);
        Self(events)
    }
}

impl From<History> for Vec<Event> {
    fn from(history: History) -> Self {
        history.0
    }
}

impl Event {
    /// When it was over.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Failure(failure) => failure.failed_at,
            Self::Replaced(replaced) => replaced.replaced_at,
        }
    }

    fn cut(&mut self) {
        let words = match self {
            Self::Failure(Failure { failed_at: _, reason: _, step, plugin, version, sha256, detail }) => {
                cut(detail, DETAIL);
                vec![step, plugin, version, sha256]
            }
            Self::Replaced(Replaced {
                replaced_at: _,
                first_received: _,
                finished: _,
                score: _,
                verdict,
                step,
                plugin,
                version,
                sha256,
            }) => {
                vec![verdict, step, plugin, version, sha256]
            }
        };
        words.into_iter().flatten().for_each(|word| cut(word, WORD));
    }
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        // What was cut away is not held on to.
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{FailedStep, SCHEMA};

    fn letter(second: i64, detail: &str, history: History) -> DeadLetter {
        DeadLetter {
            schema: SCHEMA,
            id: None,
            entry: None,
            reason: Reason::Trap,
            detail: detail.to_owned(),
            step: Some(FailedStep {
                step: "geo".to_owned(),
                plugin: "geo".to_owned(),
                version: "0.1.0".to_owned(),
                sha256: "ab".repeat(32),
                calls: 1,
                fuel: 1,
                duration_us: 1,
            }),
            attempts: u32::try_from(history.failures().len()).unwrap() + 1,
            history,
            deliveries: 1,
            first_seen: Timestamp::UNIX_EPOCH,
            failed_at: Timestamp::from_second(second).unwrap(),
            host: "0.1.0".to_owned(),
        }
    }

    fn details(history: &History) -> Vec<&str> {
        let details = history.events().iter().map(|event| match event {
            Event::Failure(failure) => failure.detail.as_str(),
            Event::Replaced(_) => "replaced",
        });
        details.collect()
    }

    #[test]
    fn each_failure_is_added_behind_those_before_it() {
        let first = letter(1, "A", History::default()).told();
        let second = letter(2, "B", first);
        assert_eq!(details(&second.history), ["A"]);
        let told = second.told();
        assert_eq!(details(&told), ["A", "B"]);
        let text = told.to_json().unwrap();
        assert_eq!(History::from_json(text.as_bytes()), Ok(told));
        let shape = "[{\"failed_at\":\"1970-01-01T00:00:01Z\",\"reason\":\"trap\",\"step\":\"geo\",\"plugin\":\"geo\",\
                     \"version\":\"0.1.0\",\"sha256\":\"ab";
        assert!(text.starts_with(shape), "{text}");
    }

    #[test]
    fn a_record_that_was_replaced_stands_among_the_failures_by_its_time() {
        let replaced = |second| Replaced {
            replaced_at: Timestamp::from_second(second).unwrap(),
            first_received: None,
            finished: Some(Timestamp::UNIX_EPOCH),
            verdict: Some("v".repeat(10_000)),
            score: Some(60),
            step: None,
            plugin: None,
            version: None,
            sha256: None,
        };
        let history = letter(1, "A", History::default()).told().and_replaced(replaced(2));
        let text = history.to_json().unwrap();
        assert_eq!(History::from_json(text.as_bytes()).as_ref(), Ok(&history));
        assert!(
            text.contains("{\"replaced_at\":\"1970-01-01T00:00:02Z\",\"finished\":") && text.len() < 1_000,
            "{text}"
        );
        assert_eq!(details(&letter(3, "B", history).told()), ["A", "replaced", "B"]);
        let many = (0..100).fold(History::default(), |history, second| history.and_replaced(replaced(second)));
        assert_eq!(many.events().len(), KEPT);
    }

    #[test]
    fn only_the_last_ones_are_kept_and_the_others_are_counted() {
        let mut history = History::default();
        for second in 0..KEPT as i64 + 5 {
            history = letter(second, &second.to_string(), history).told();
        }
        assert_eq!(details(&history), ["5", "6", "7", "8", "9", "10", "11", "12", "13", "14"]);
        let last = DeadLetter { attempts: 16, ..letter(15, "15", history) };
        assert_eq!(last.left_out(), 5);
        assert_eq!(left_out(0, &last.history), 0);
        assert_eq!(left_out(u32::MAX, &History::default()), u32::MAX - 1);
    }

    #[test]
    fn histories_of_the_same_bytes_are_joined_by_their_times() {
        let one = letter(3, "C", letter(1, "A", History::default()).told()).told();
        let other = letter(2, "B", History::default()).told();
        assert_eq!(details(&one.clone().with(other.clone())), ["A", "B", "C"]);
        assert_eq!(details(&other.with(one)), ["A", "B", "C"]);
    }

    #[test]
    fn the_largest_history_that_is_written_can_be_read() {
        // A control character takes six bytes of JSON.
        let long = "\u{1}".repeat(4 << 10);
        let mut history = History::default();
        for second in 0..20 {
            let mut letter = letter(second, &long, history);
            if let Some(step) = &mut letter.step {
                [&mut step.step, &mut step.plugin, &mut step.version, &mut step.sha256]
                    .into_iter()
                    .for_each(|word| word.clone_from(&long));
            }
            history = letter.told();
        }
        let text = history.to_json().unwrap();
        assert!((40 << 10..=MAX_TEXT).contains(&text.len()), "{}", text.len());
        assert_eq!(History::from_json(text.as_bytes()), Ok(history));
    }

    #[test]
    fn a_hostile_history_is_cut_or_refused() {
        let failure = |detail: &str| {
            format!("{{\"failed_at\":\"2026-01-01T00:00:00Z\",\"reason\":\"trap\",\"detail\":\"{detail}\"}}")
        };
        let many = format!("[{}]", vec![failure("ä"); 500].join(","));
        assert_eq!(History::from_json(many.as_bytes()).unwrap().failures().len(), KEPT);
        let long = format!("[{}]", failure(&"ä".repeat(10_000)));
        assert_eq!(History::from_json(long.as_bytes()).unwrap().failures()[0].detail, "ä".repeat(250));
        for bad in [
            String::new(),
            "{}".to_owned(),
            "null".to_owned(),
            "[1]".to_owned(),
            "[".repeat(60_000),
            format!("[{}", failure("cut")),
            format!("[{}] ", failure("x")) + "x",
            failure("alone"),
            "[{\"failed_at\":\"yesterday\",\"reason\":\"trap\",\"detail\":\"\"}]".to_owned(),
            "[{\"failed_at\":\"2026-01-01T00:00:00Z\",\"reason\":\"no-such\",\"detail\":\"\"}]".to_owned(),
            "[{\"failed_at\":\"2026-01-01T00:00:00Z\",\"reason\":\"trap\"}]".to_owned(),
            format!("[{}]", failure(&"x".repeat(MAX_TEXT))),
        ] {
            assert!(History::from_json(bad.as_bytes()).is_err(), "{:.80}", bad);
        }
        assert!(History::from_json(b"[\xff]").is_err());
    }
}
