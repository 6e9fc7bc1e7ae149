//! Which sources send alerts, and which that did are silent.
//!
//! What an alert costs is a look-up: it notes in which round its source was heard ([`Sources::heard`]). Everything else happens once in
//! a round ([`Watch::round`]). Names come from whoever sends alerts, so their number is bounded, and one that was made up must not take
//! the place of one that is watched: a source is watched once it was heard in [`ROUNDS`] different rounds, at most [`SUBJECTS`] are, and
//! only time ([`AlarmsConfig::forget`]) takes one away. What is not watched yet is forgotten first.
//!
//! A source's silence is the time that this host listened since any host heard it: while a host does not read, or is behind, it hears
//! nobody, and that speaks against no source. So the time in which a host was down counts for none, and a silence that went on before a
//! start is told of when it has been listened to for long enough. A source that often pauses for longer is given more time
//! ([`Known::usual`]); one or two outages do not make a habit.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::config::AlarmsConfig;
use crate::digest::sha256_hex;
use crate::json::document::Document;
use crate::queue::Heard;
use crate::telemetry::alarms::SUBJECTS;
use crate::telemetry::redact::{MASK, Masks};

/// In how many rounds a source must have been heard before it is watched.
const ROUNDS: u32 = 4;

/// How many names are kept that are not watched yet.
const CANDIDATES: usize = 4 * SUBJECTS;

/// The longest name, in bytes; one that is longer is cut.
const NAME: usize = 128;

/// How many pauses are looked back at.
const PAUSES: usize = 16;

/// How many of them must be long, so that long ones are usual.
const HABIT: usize = 3;

/// How long a round takes.
pub(super) fn round_of(silence: Duration) -> Duration {
    (silence / 30).clamp(Duration::from_millis(100), Duration::from_secs(10))
}

/// What alerts note.
#[derive(Debug)]
pub(super) struct Sources {
    pointers: Vec<String>,
    ignore: Vec<String>,
    /// In which round each was heard last.
    rounds: RwLock<HashMap<Box<str>, AtomicU64>>,
    round: AtomicU64,
    /// There was no room for a name in this round.
    crowded: AtomicBool,
}

impl Sources {
    pub(super) fn new(config: &AlarmsConfig) -> Self {
        let pointers = if config.silence.is_some() { config.source.clone() } else { Vec::new() };
        Self {
            pointers,
            ignore: config.ignore.clone(),
            rounds: RwLock::default(),
            round: AtomicU64::new(1),
            crowded: AtomicBool::new(false),
        }
    }

    /// Notes that an alert came, if it says where from.
    pub(super) fn heard(&self, alert: &Document) {
        let source = self.pointers.iter().find_map(|pointer| alert.pointer(pointer)?.as_str());
        let Some(source) = source.filter(|source| !source.is_empty()) else { return };
        match Masks::current().mask_whole(source) {
            Cow::Borrowed(source) => self.heard_from(&source[..source.floor_char_boundary(NAME)]),
            // What must not be shown is watched all the same, and told from others.
            Cow::Owned(_) if !self.ignore.iter().any(|ignored| ignored == source) => {
                self.heard_from(&format!("{MASK}-{}", &sha256_hex(source.as_bytes())[..8]));
            }
            Cow::Owned(_) => {}
        }
    }

    fn heard_from(&self, source: &str) {
        let now = self.round.load(Ordering::Relaxed);
        if let Some(round) = self.rounds.read().unwrap_or_else(PoisonError::into_inner).get(source) {
            // Written once in a round only, so that threads do not fight for it.
            if round.load(Ordering::Relaxed) != now {
                round.store(now, Ordering::Relaxed);
            }
            return;
        }
        if self.crowded.load(Ordering::Relaxed) || self.ignore.iter().any(|ignored| ignored == source) {
            return;
        }
        let mut rounds = self.rounds.write().unwrap_or_else(PoisonError::into_inner);
        if rounds.len() >= SUBJECTS + CANDIDATES {
            self.crowded.store(true, Ordering::Relaxed);
            return;
        }
        rounds.entry(source.into()).or_default().store(now, Ordering::Relaxed);
    }

    /// Ends a round: gives the names that were heard in it, and whether there was no room for some.
    fn end_round(&self) -> (Vec<Box<str>>, bool) {
        let ended = self.round.fetch_add(1, Ordering::Relaxed);
        let rounds = self.rounds.read().unwrap_or_else(PoisonError::into_inner);
        let heard = rounds.iter().filter(|(_, round)| round.load(Ordering::Relaxed) >= ended);
        (heard.map(|(name, _)| name.clone()).collect(), self.crowded.swap(false, Ordering::Relaxed))
    }

    fn forget(&self, names: &[Box<str>]) {
        let mut rounds = self.rounds.write().unwrap_or_else(PoisonError::into_inner);
        names.iter().for_each(|name| _ = rounds.remove(name));
    }

    fn know(&self, name: &str) {
        self.rounds.write().unwrap_or_else(PoisonError::into_inner).entry(name.into()).or_default();
    }
}

/// What is known of one source.
#[derive(Debug)]
struct Known {
    /// When it was heard last, by any host.
    heard: Instant,
    /// How long this host had listened by then.
    listened: Duration,
    /// In how many rounds it was heard, until it is watched.
    rounds: u32,
    pauses: VecDeque<Duration>,
}

impl Known {
    fn is_watched(&self) -> bool {
        self.rounds >= ROUNDS
    }

    /// The longest pause that it made at least [`HABIT`] times of late.
    fn usual(&self) -> Duration {
        let mut pauses: Vec<_> = self.pauses.iter().copied().map(Reverse).collect();
        pauses.sort_unstable();
        pauses.get(HABIT - 1).map_or(Duration::ZERO, |pause| pause.0)
    }

    fn again(&mut self, now: Instant, listened: Duration) {
        if self.pauses.len() == PAUSES {
            self.pauses.pop_front();
        }
        self.pauses.push_back(listened.saturating_sub(self.listened));
        (self.heard, self.listened) = (now, listened);
    }
}

/// What a round came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Sources that are silent, and for how long this host has listened in vain; the longest silence first.
    pub silent: Vec<(Box<str>, Duration)>,
    /// How many are watched.
    pub watched: usize,
    /// There are more than can be watched.
    pub crowded: bool,
}

/// Who looks at the sources, once in a round.
#[derive(Debug)]
pub(super) struct Watch {
    silence: Duration,
    forget: Duration,
    ignore: Vec<String>,
    known: HashMap<Box<str>, Known>,
    last: Instant,
    /// How long this host has listened.
    listened: Duration,
    /// How long it had when it took in what others heard.
    shared: Duration,
    /// Draws lots among names, another way in each process.
    lots: RandomState,
}

impl Watch {
    /// None when sources are not watched.
    pub(super) fn new(config: &AlarmsConfig, now: Instant) -> Option<Self> {
        Some(Self {
            silence: config.silence?,
            forget: config.forget,
            ignore: config.ignore.clone(),
            known: HashMap::new(),
            last: now,
            listened: Duration::ZERO,
            shared: Duration::ZERO,
            lots: RandomState::new(),
        })
    }

    /// Ends a round in which this host listened or did not. Gives the sources that were heard in it and are watched, for other hosts.
    pub(super) fn listen(&mut self, sources: &Sources, now: Instant, listening: bool) -> (Vec<String>, bool) {
        if listening {
            self.listened += now.duration_since(self.last);
        }
        self.last = now;
        let (names, mut crowded) = sources.end_round();
        let mut heard = Vec::new();
        let mut watched = self.known.values().filter(|known| known.is_watched()).count();
        for name in names {
            let known = self.known.entry(name.clone()).or_insert_with(|| Known {
                heard: now,
                listened: self.listened,
                rounds: 0,
                pauses: VecDeque::new(),
            });
            if !known.is_watched() && known.rounds + 1 >= ROUNDS {
                if watched >= SUBJECTS {
                    crowded = true;
                    continue;
                }
                watched += 1;
            }
            if known.rounds > 0 {
                known.again(now, self.listened);
            }
            known.rounds = (known.rounds + 1).min(ROUNDS);
            if known.is_watched() {
                heard.push(name.into());
            }
        }
        (heard, crowded)
    }

    /// Takes in what other hosts have heard, and says who is silent.
    pub(super) fn round(&mut self, sources: &Sources, now: Instant, all: &[Heard], crowded: bool) -> Round {
        let mut watched = self.known.values().filter(|known| known.is_watched()).count();
        for Heard { source, ago } in all {
            if self.ignore.contains(source) || ago >= &self.forget {
                continue;
            }
            // What was heard before this machine began to count is as old as can be.
            let heard = now.checked_sub(*ago).unwrap_or(self.last);
            match self.known.get_mut(source.as_str()) {
                Some(known) if known.is_watched() => {
                    // Within a round it may be what this host has told itself: clocks of two machines never agree.
                    if heard <= known.heard + round_of(self.silence) {
                        continue;
                    }
                    // Not before what was taken in last, or it would have been there.
                    let listened = self.listened.saturating_sub(*ago).max(self.shared).max(known.listened);
                    known.again(heard, listened);
                }
                _ if watched < SUBJECTS => {
                    watched += 1;
                    let listened = self.listened.saturating_sub(*ago);
                    let known = Known { heard, listened, rounds: ROUNDS, pauses: VecDeque::new() };
                    self.known.insert(source.as_str().into(), known);
                    sources.know(source);
                }
                _ => {}
            }
        }
        self.shared = self.listened;
        let crowded = self.tidy(sources, now) || crowded;
        let mut silent: Vec<_> = self
            .known
            .iter()
            .filter_map(|(name, known)| {
                let silence = self.listened.saturating_sub(known.listened);
                (known.is_watched() && silence > self.silence.max(known.usual() * 2)).then(|| (name.clone(), silence))
            })
            .collect();
        silent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Round { silent, watched: self.known.values().filter(|known| known.is_watched()).count(), crowded }
    }

    /// Forgets what has been silent for long enough and, where room gets short, most of what is not watched; says whether it did that.
    ///
    /// Some that stay are drawn by lot, always the same ones, so that of very many true sources at least those are heard often enough to be
    /// watched. The others are those that were heard most, and last: names that are made up do not come again.
    fn tidy(&mut self, sources: &Sources, now: Instant) -> bool {
        let forget = self.forget;
        let too_old = |known: &Known| now.duration_since(known.heard) >= forget;
        let mut gone: Vec<_> =
            self.known.iter().filter(|(_, known)| too_old(known)).map(|(name, _)| name.clone()).collect();
        let mut candidates: Vec<_> =
            self.known.iter().filter(|(_, known)| !known.is_watched() && !too_old(known)).collect();
        let short = candidates.len() > CANDIDATES * 3 / 4;
        if short {
            candidates.sort_by_cached_key(|(name, _)| self.lots.hash_one(name));
            let others = &mut candidates[CANDIDATES / 4..];
            others.sort_by_key(|(_, known)| Reverse((known.rounds, known.heard)));
            gone.extend(others.iter().skip(CANDIDATES / 4).map(|(name, _)| (*name).clone()));
        }
        if !gone.is_empty() {
            gone.iter().for_each(|name| _ = self.known.remove(name));
            sources.forget(&gone);
        }
        short
    }
}

#[cfg(test)]
mod tests;
