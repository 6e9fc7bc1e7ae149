//! The alarms that hold now: what somebody has to look at, since when, and what to do about it.
//!
//! [`Kind`] is the one table of all alarms: their names, how much they matter, cause and remedy. `docs/operations/alarms.md` and
//! `deploy/prometheus/alerts.yml` are compared with it. Who notices something raises an alarm ([`super::Telemetry::raise`], or an event
//! that is one, by [`super::Event::alarm`]) and clears it when it is over; what only happens, and is never over, is cleared when it has
//! not happened for a while. Nothing here looks for trouble by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many subjects one alarm is held for, at most: as many as sources are watched. What is more is logged and counted only.
pub const SUBJECTS: usize = 1024;

/// How many alarms [`Alarms::list`] shows, at most.
pub const LISTED: usize = 200;

/// The longest subject, and the longest detail, in bytes. They may come from attackers.
const SUBJECT: usize = 128;
const DETAIL: usize = 512;

/// How much an alarm matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Alerts are not processed, or were lost: wake somebody up.
    Critical,
    /// Alerts flow, and something will go wrong or does: look at it today.
    Warning,
    /// Worth knowing while you look for something else.
    Info,
}

impl Severity {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Declares the alarms: severity, whether they are over at some time, cause, and remedy.
macro_rules! alarms {
    ($($kind:ident $name:literal $severity:ident $is_over:literal $cause:literal $remedy:literal)*) => {
        /// An alarm. Names are public: people search for them, and rules are built on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $(#[doc = $cause] $kind,)* }

        impl Kind {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its stable name, as in `dossier_alarm{alarm="…"}`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// How much it matters.
            pub fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)* }
            }

            /// Whether it is cleared when it is over; if not, when it has not happened for a while.
            pub fn is_over(self) -> bool {
                match self { $(Self::$kind => $is_over,)* }
            }

            /// What is behind it, in a sentence.
            pub fn cause(self) -> &'static str {
                match self { $(Self::$kind => $cause,)* }
            }

            /// What to do, in a sentence.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$kind => $remedy,)* }
            }
        }
    };
}

alarms! {
    QueueTrouble "queue-trouble" Critical true
        "The queue refuses an operation (the subject): the server is down, full or read-only, or the disk is."
        "Read the detail, mend the server or the disk; reading goes on by itself, and nothing is lost meanwhile."
    QueueStalled "queue-stalled" Critical true
        "Alerts wait, and this host has not finished a single one for longer than `stalled`."
        "See what /readyz and the other alarms name (a missing plugin, a queue that refuses, an interface that hangs); restart the host if nothing does: what is in flight stays pending."
    PluginMissing "plugin-missing" Critical true
        "The plugin of a required step is absent or refused, so that no alert is read."
        "Put the file into the plugins folder (it is taken within seconds), or set required = false in its [[step]]."
    EntriesLost "entries-lost" Critical false
        "Entries vanished from the stream while they were pending: somebody trims or deletes it, or a failover lost its end."
        "Find who sends XTRIM, XDEL or MAXLEN, and stop it; send those alerts again from where they came from; dossier verify says what is missing."
    ConsumerShared "consumer-shared" Critical false
        "Another host works under this host's consumer name: a machine or its memory was copied while it ran. This host ends."
        "Start it again: it takes a new name."
    StoreFull "store-full" Critical true
        "The store has less room left than `store` grants: Redis' maxmemory, or the disk of the queue's folder."
        "Set [store] retention or delete old records, drop or replay dead letters, or give it more room; when it is full, nothing is read."
    QueueLate "queue-late" Warning true
        "The oldest alert has been in the queue for longer than `oldest`: more come than are finished, or some wait for what is unavailable."
        "Compare the rates in and out; see which step is slow or retried (dossier_step_call_duration_seconds, dossier_step_retries_total); start another host."
    SourceSilent "source-silent" Warning true
        "A source (the subject) that sent alerts has sent none for longer than `silence`, while this host was listening."
        "Look at the sensor and at what forwards its alerts; when it was retired, name it in [alarms] ignore."
    SourcesMany "sources-many" Warning true
        "There are more sources than can be watched: [alarms] source points at something that differs from alert to alert, or somebody invents names."
        "Point source at what names a sensor; until then sources beyond the bound are not watched."
    DeadLetters "dead-letters" Warning true
        "There are as many dead letters as dlq_alarm in [queue] says, or more."
        "See why with dossier dlq list, mend it, then dossier dlq replay, or drop them."
    DeadLettersGrow "dead-letters-grow" Warning true
        "More alerts became dead letters than `dead_letters` allows in that time."
        "dossier dlq list shows reason and step; a new version of a plugin or a changed format of alerts is the usual cause; replay when it is mended."
    CommitRefused "commit-refused" Warning true
        "Alerts that each alone cannot be committed stay pending, and others go on."
        "Read the detail: it names what is in the way, such as a key of another type or a file that is no record."
    EntriesRescued "entries-rescued" Warning false
        "Entries were gone from the stream, and the host stored their alerts from its memory."
        "As for entries-lost: what no host held at that moment is gone for good."
    GroupRecreated "group-recreated" Warning false
        "The stream or its consumer group was gone, and the host made it again."
        "Find who deletes keys (DEL, FLUSHALL, an eviction policy, a restart without persistence); dossier doctor looks at the settings."
    EntrySkipped "entry-skipped" Warning false
        "A file in the queue's folder is no plain file, or cannot be read, and is left where it is."
        "Read the detail; mend its owner and mode, or move it away."
    ConfigRefused "config-refused" Warning true
        "The configuration's file was changed into one that cannot be used, and what served before serves on."
        "Mend what the detail names; it is taken over as soon as it is whole (SIGHUP has it read at once)."
    PluginRefused "plugin-refused" Warning true
        "A plugin's file (the subject) was refused, and what served before serves on, if anything did."
        "Read the detail; put a version there that is whole and asks for no more than it was granted, or grant it."
    PluginTakenOut "plugin-taken-out" Warning true
        "A new version of a plugin failed its probation, and the last good one serves again."
        "Give the plugin's author the detail; replay what it failed on with dossier dlq replay --digest; put another version there."
    PluginUnfit "plugin-unfit" Warning true
        "A plugin's version failed its probation and serves on, for there is no other that may."
        "Put another version there, or take the pin (sha256) away."
    PluginRemoved "plugin-removed" Warning true
        "The file of a plugin that a step requires is gone; it serves on from memory until the host ends."
        "Put the file back before the host is restarted."
    TableRefused "table-refused" Warning true
        "A table's file was refused, and what was loaded before serves on."
        "Mend the line that the detail names; the file is loaded again when it changes."
    TableStale "table-stale" Warning true
        "A table's file is older than its max_age: whatever refreshes it does not."
        "Look at the job that downloads it; what was loaded serves on."
    SuspectsWait "suspects-wait" Warning true
        "Alerts that a host died of cannot be run, because there is no process for them; others go on."
        "Read the detail; mostly memory or the number of processes is short."
    SuspectDied "suspect-died" Warning false
        "An alert killed the process that ran nothing but it; after max_crashes of these it is a dead letter."
        "See which plugin it was with dossier dlq list, and report it: a plugin should not be able to do this."
    PluginOnProbation "plugin-on-probation" Info true
        "A plugin's version that has proven nothing yet serves, and its first calls are looked at."
        "Nothing; with few alerts it takes a while, and dossier_plugin_probation shows it."
}

impl Kind {
    /// The alarm of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// What an event does to the alarms.
#[derive(Debug)]
pub enum Change<'a> {
    /// It is one: of this kind, about this subject, with this detail.
    Raise(Kind, &'a str, Cow<'a, str>),
    /// It says that one is over.
    Clear(Kind, &'a str),
}

/// An alarm that holds, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The name of its [`Kind`].
    pub alarm: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: a plugin, a table, a source, an operation; may be empty.
    pub subject: String,
    /// What was said last. May hold what an attacker wrote: who shows it makes it safe.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
    /// For how long, in seconds, whatever the clock did meanwhile.
    pub age_seconds: u64,
    /// How often it was raised since.
    pub times: u64,
    /// What to do.
    pub remedy: String,
}

#[derive(Debug)]
struct State {
    detail: String,
    since: Timestamp,
    began: Instant,
    last: Instant,
    times: u64,
}

/// The alarms that hold. Bounded: [`SUBJECTS`] of each kind.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<(Kind, String), State>>);

impl Alarms {
    fn held(&self) -> MutexGuard<'_, BTreeMap<(Kind, String), State>> {
        // Every change is whole before the lock is let go.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an alarm holds; says whether it did not before. One over the bound is not held.
    pub(super) fn raise(&self, now: Instant, kind: Kind, subject: &str, detail: &str) -> bool {
        let key = key(kind, subject);
        let mut held = self.held();
        if let Some(state) = held.get_mut(&key) {
            cut(detail, DETAIL).clone_into(&mut state.detail);
            state.last = now;
            state.times += 1;
            return false;
        }
        if held.range((kind, String::new())..).take_while(|((other, _), _)| *other == kind).count() >= SUBJECTS {
            return false;
        }
        let detail = cut(detail, DETAIL).to_owned();
        held.insert(key, State { detail, since: Timestamp::now(), began: now, last: now, times: 1 });
        true
    }

    /// Changes the detail of one that holds; says whether it does.
    pub(super) fn again(&self, kind: Kind, subject: &str, detail: &str) -> bool {
        let mut held = self.held();
        let Some(state) = held.get_mut(&key(kind, subject)) else { return false };
        if state.detail != cut(detail, DETAIL) {
            cut(detail, DETAIL).clone_into(&mut state.detail);
        }
        true
    }

    /// Notes that an alarm is over; gives for how long it held, if it did.
    pub(super) fn clear(&self, now: Instant, kind: Kind, subject: &str) -> Option<Duration> {
        let mut held = self.held();
        if held.is_empty() {
            return None;
        }
        held.remove(&key(kind, subject)).map(|state| now.duration_since(state.began))
    }

    /// Those that are never over and have not happened for so long.
    pub(super) fn quiet(&self, now: Instant, keep: Duration) -> Vec<(Kind, String)> {
        let held = self.held();
        let quiet = held.iter().filter(|((kind, _), state)| !kind.is_over() && now.duration_since(state.last) >= keep);
        quiet.map(|(key, _)| key.clone()).collect()
    }

    /// For how many subjects an alarm holds.
    pub fn count(&self, kind: Kind) -> usize {
        self.held().keys().filter(|(held, _)| *held == kind).count()
    }

    /// How many hold.
    pub fn len(&self) -> usize {
        self.held().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The subjects of a kind for which it holds.
    pub fn subjects(&self, kind: Kind) -> Vec<String> {
        self.held().keys().filter(|(held, _)| *held == kind).map(|(_, subject)| subject.clone()).collect()
    }

    /// The alarms that hold: the gravest first, of those the oldest; at most [`LISTED`].
    pub fn list(&self) -> Vec<Alarm> {
        self.list_and_len().0
    }

    /// The same, and how many hold at that moment.
    pub fn list_and_len(&self) -> (Vec<Alarm>, usize) {
        let held = self.held();
        (Self::list_at(&held, Instant::now()), held.len())
    }

    fn list_at(held: &BTreeMap<(Kind, String), State>, now: Instant) -> Vec<Alarm> {
        let mut sorted: Vec<_> = held.iter().collect();
        sorted.sort_by_key(|((kind, subject), state)| (kind.severity(), state.began, *kind, subject.as_str()));
        sorted.truncate(LISTED);
        let shown = |((kind, subject), state): (&(Kind, String), &State)| Alarm {
            alarm: kind.name().to_owned(),
            severity: kind.severity(),
            subject: subject.clone(),
            detail: state.detail.clone(),
            since: state.since,
            age_seconds: now.duration_since(state.began).as_secs(),
            times: state.times,
            remedy: kind.remedy().to_owned(),
        };
        sorted.into_iter().map(shown).collect()
    }
}

fn key(kind: Kind, subject: &str) -> (Kind, String) {
    (kind, cut(subject, SUBJECT).to_owned())
}

fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alarm_has_a_name_of_its_own_and_whole_sentences() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.name()), Some(*kind));
            assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", kind.name());
            for text in [kind.cause(), kind.remedy()] {
                assert!(text.ends_with('.') && text.starts_with(char::is_alphabetic), "{text}");
                assert!(!text.contains(['|', '\n']), "it stands in a table: {text}");
            }
        }
    }

    #[test]
    fn an_alarm_holds_from_its_first_raise_to_its_clear() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        assert!(alarms.raise(now, Kind::TableRefused, "geo", "line 1"));
        let later = now + Duration::from_secs(60);
        assert!(!alarms.raise(later, Kind::TableRefused, "geo", "line 2"));
        let [alarm] = &Alarms::list_at(&alarms.held(), later)[..] else { panic!("one alarm") };
        assert_eq!(
            (alarm.alarm.as_str(), alarm.subject.as_str(), alarm.detail.as_str()),
            ("table-refused", "geo", "line 2")
        );
        assert_eq!((alarm.age_seconds, alarm.times), (60, 2));
        assert_eq!(alarms.clear(later, Kind::TableRefused, "geo"), Some(Duration::from_secs(60)));
        assert_eq!(alarms.clear(later, Kind::TableRefused, "geo"), None);
        assert!(alarms.is_empty());
    }

    #[test]
    fn the_gravest_come_first_and_of_those_the_oldest() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        alarms.raise(now, Kind::PluginOnProbation, "geo", "");
        alarms.raise(now, Kind::SourceSilent, "b", "");
        alarms.raise(now + Duration::from_secs(1), Kind::SourceSilent, "a", "");
        alarms.raise(now + Duration::from_secs(1), Kind::QueueTrouble, "commit", "");
        let listed = alarms.list();
        let subjects: Vec<_> = listed.iter().map(|alarm| alarm.subject.as_str()).collect();
        assert_eq!(subjects, ["commit", "b", "a", "geo"]);
    }

    #[test]
    fn what_only_happens_is_quiet_when_it_has_not_happened_for_long_enough() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        let keep = Duration::from_secs(60);
        alarms.raise(now, Kind::EntriesLost, "", "3");
        alarms.raise(now, Kind::QueueTrouble, "commit", "OOM");
        alarms.raise(now + keep / 2, Kind::EntriesLost, "", "1");
        assert_eq!(alarms.quiet(now + keep, keep), []);
        assert_eq!(alarms.quiet(now + keep + keep / 2, keep), [(Kind::EntriesLost, String::new())]);
    }

    #[test]
    fn subjects_without_end_take_no_memory_without_end_and_keep_no_other_alarm_out() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        let raised = (0..2 * SUBJECTS).filter(|at| alarms.raise(now, Kind::SourceSilent, &format!("{at}"), "")).count();
        assert_eq!((raised, alarms.count(Kind::SourceSilent)), (SUBJECTS, SUBJECTS));
        assert!(alarms.raise(now, Kind::QueueTrouble, &"ä".repeat(4096), &"x".repeat(4096)));
        let listed = alarms.list();
        assert_eq!((listed.len(), listed[0].subject.len(), listed[0].detail.len()), (LISTED, SUBJECT, DETAIL));
    }

    /// The parts of the page, by their headings.
    fn sections(page: &'static str) -> Vec<(&'static str, &'static str)> {
        page.split("\n## `").skip(1).filter_map(|part| part.split_once("`\n")).collect()
    }

    #[test]
    fn the_page_of_alarms_has_each_of_them_in_order_with_the_words_of_the_table() {
        let sections = sections(include_str!("../../../docs/operations/alarms.md"));
        let names: Vec<_> = sections.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
        for (kind, (name, text)) in Kind::ALL.iter().zip(sections) {
            let severity = format!("{:?}", kind.severity());
            let begin = format!("\n**{severity}.** {}\n\n**What to do.** {}\n\n", kind.cause(), kind.remedy());
            assert!(text.starts_with(&begin), "docs/operations/alarms.md: `{name}` must begin with:\n{begin}");
            assert_eq!(text.contains("`keep`"), !kind.is_over(), "{name}: how it ends");
        }
    }

    #[test]
    fn the_rules_for_prometheus_have_one_for_each_alarm_with_the_words_of_the_table() {
        let rules = include_str!("../../../deploy/prometheus/alerts.yml");
        assert_eq!(rules.matches("- alert:").count(), Kind::ALL.len() + 2, "and DossierDown and DossierNotReady");
        for kind in Kind::ALL {
            let name: String = kind.name().split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            let rule = format!(
                "      - alert: Dossier{name}\n        expr: dossier_alarm{{alarm=\"{}\"}} > 0\n        \
                 labels: {{severity: {}}}\n        annotations:\n          summary: {:?}\n          description: {:?}\n",
                kind.name(),
                kind.severity().as_str(),
                kind.cause(),
                kind.remedy()
            );
            assert!(rules.contains(&rule), "deploy/prometheus/alerts.yml must have:\n{rule}");
        }
    }
}
