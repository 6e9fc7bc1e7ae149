//! The last things that somebody should know of: troubles, refusals, plugins and tables that came and went. `dossier top` shows
//! them. The log has them all, and more; this is a memory of a fixed size.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tracing::Level;

/// How many things are remembered.
const REMEMBERED: usize = 100;

/// The longest text, in bytes.
const TEXT: usize = 512;

/// What an event wants remembered of itself. The texts may come from attackers: who shows them makes them safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// How much it matters: error, warning, or something that was done.
    pub level: Level,
    /// What it is, as the log calls it.
    pub kind: &'static str,
    /// What it is about. The same kind about the same again counts up and takes no room: nothing that a sender of alerts
    /// chooses may stand here.
    pub about: String,
    /// What happened, for people.
    pub text: String,
}

/// Something that happened, perhaps more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What happened the last time.
    pub noted: Noted,
    /// When it happened first, since it is remembered.
    pub first: Timestamp,
    /// When it happened last.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
}

/// The memory; the newest stands last.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<VecDeque<Remembered>>);

impl Memory {
    /// Takes something in. What is oldest makes room.
    pub(super) fn note(&self, mut noted: Noted) {
        noted.text.truncate(noted.text.floor_char_boundary(TEXT));
        let now = Timestamp::now();
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What goes on and on stands near the end.
        let same = |known: &Remembered| (known.noted.kind, &known.noted.about) == (noted.kind, &noted.about);
        let (first, count) = match memory.iter().rposition(same).and_then(|at| memory.remove(at)) {
            Some(known) => (known.first, known.count),
            None => (now, 0),
        };
        if memory.len() >= REMEMBERED {
            memory.pop_front();
        }
        memory.push_back(Remembered { noted, first, last: now, count: count + 1 });
    }

    /// What is remembered, the newest first.
    pub(super) fn all(&self) -> Vec<Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

impl Noted {
    /// Something that failed.
    pub(super) fn error(kind: &'static str, about: impl Into<String>, text: impl Into<String>) -> Option<Self> {
        Some(Self { level: Level::ERROR, kind, about: about.into(), text: text.into() })
    }

    /// Something that somebody should look at.
    pub(super) fn warning(kind: &'static str, about: impl Into<String>, text: impl Into<String>) -> Option<Self> {
        Some(Self { level: Level::WARN, kind, about: about.into(), text: text.into() })
    }

    /// Something that was done.
    pub(super) fn change(kind: &'static str, about: impl Into<String>, text: impl Into<String>) -> Option<Self> {
        Some(Self { level: Level::INFO, kind, about: about.into(), text: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(memory: &Memory) -> Vec<(String, u64)> {
        memory.all().into_iter().map(|known| (known.noted.about, known.count)).collect()
    }

    #[test]
    fn the_same_again_counts_up_and_moves_to_the_front() {
        let memory = Memory::default();
        for step in ["geo", "asset", "geo"] {
            memory.note(Noted::error("alert dead", step, format!("{step} trapped")).unwrap());
        }
        memory.note(Noted::warning("step retried", "geo", "away").unwrap());
        let expected = [("geo".to_owned(), 1), ("geo".to_owned(), 2), ("asset".to_owned(), 1)];
        assert_eq!(about(&memory), expected);
    }

    #[test]
    fn it_remembers_so_many_and_cuts_what_is_long() {
        let memory = Memory::default();
        for n in 0..REMEMBERED + 50 {
            memory.note(Noted::error("table refused", n.to_string(), "ä".repeat(10_000)).unwrap());
        }
        let all = memory.all();
        assert_eq!((all.len(), all[0].noted.about.as_str()), (REMEMBERED, "149"));
        assert!(all.iter().all(|known| known.noted.text.len() <= TEXT));
    }
}
