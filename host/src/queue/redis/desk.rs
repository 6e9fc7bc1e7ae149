//! What this host has in its hands: the entries it handed out, the ones it must hand out again, and how much it may read.
//! Knows nothing of the server.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::queue::Committed;

/// What a read should not exceed, in bytes, by the size of what was read before.
pub(super) const BUDGET: usize = 8 << 20;

/// How long an entry rests that was dropped without an end, before it comes again.
const REST: Duration = Duration::from_secs(1);

/// How often the host looks into its own pending entries for some that it was never told of: replies that were lost.
const SCAN: Duration = Duration::from_secs(5);

/// How often it looks for consumers whose lease is gone.
const SWEEP: Duration = Duration::from_secs(1);

/// An entry to be handed out that this consumer has pending already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub entry: String,
    /// The delivery counter.
    pub deliveries: u32,
}

impl Waiting {
    /// Whether a host died while it had this entry: see claim.lua for the counter.
    pub(super) fn suspect(&self) -> bool {
        self.deliveries > 1
    }
}

/// The bookkeeping of one consumer.
#[derive(Debug)]
pub(super) struct Desk {
    /// Handed out and not dropped.
    held: HashSet<String>,
    /// To be handed out before anything new.
    waiting: VecDeque<Waiting>,
    scan_at: Instant,
    sweep_at: Instant,
    /// How many new entries to read next.
    count: usize,
}

impl Desk {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { held: HashSet::new(), waiting: VecDeque::new(), scan_at: now + SCAN, sweep_at: now, count: 8 }
    }

    /// Whether it is time to look for consumers whose lease is gone; if so, the next time is noted.
    pub(super) fn sweep_due(&mut self) -> bool {
        due(&mut self.sweep_at, SWEEP) && self.waiting.is_empty()
    }

    /// Whether it is time to look into the own pending entries; if so, the next time is noted.
    pub(super) fn scan_due(&mut self) -> bool {
        due(&mut self.scan_at, SCAN)
    }

    /// Makes the next look into the own pending entries come no later than after this time.
    pub(super) fn scan_within(&mut self, time: Duration) {
        self.scan_at = self.scan_at.min(Instant::now() + time);
    }

    /// Takes note of all that this consumer has pending. The order of suspects is random, so that of several that crash
    /// the host not always the same one is tried first.
    pub(super) fn scanned(&mut self, pending: Vec<Waiting>) {
        let mut waiting: Vec<_> = pending.into_iter().filter(|waiting| !self.held.contains(&waiting.entry)).collect();
        fastrand::shuffle(&mut waiting);
        waiting.sort_by_key(|waiting| !waiting.suspect());
        self.waiting = waiting.into();
    }

    /// Up to so many entries to be handed out: suspects alone, while there are any.
    pub(super) fn next_waiting(&mut self, max: usize) -> Vec<Waiting> {
        let suspects = self.waiting.front().is_some_and(Waiting::suspect);
        let length = self.waiting.iter().take(max).take_while(|waiting| waiting.suspect() == suspects).count();
        self.waiting.drain(..length).collect()
    }

    /// Puts back what was not looked at.
    pub(super) fn put_back(&mut self, rest: impl DoubleEndedIterator<Item = Waiting>) {
        rest.rev().for_each(|waiting| self.waiting.push_front(waiting));
    }

    /// How many entries are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether this entry is handed out.
    pub(super) fn holds(&self, entry: &str) -> bool {
        self.held.contains(entry)
    }

    /// How many new entries to read, at most.
    pub(super) fn count(&self, max: usize) -> usize {
        self.count.clamp(1, max.max(1))
    }

    /// Follows the size of what was read: down at once to what fits, up by doubling.
    pub(super) fn was_read(&mut self, largest: usize) {
        self.count = (BUDGET / largest.max(1)).clamp(1, (self.count * 2).min(100_000));
    }
}

fn due(at: &mut Instant, period: Duration) -> bool {
    let now = Instant::now();
    let due = *at <= now;
    if due {
        *at = now + period;
    }
    due
}

/// The desk as receipts share it.
#[derive(Debug, Clone)]
pub(super) struct SharedDesk(Arc<Mutex<Desk>>);

impl SharedDesk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Desk::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        // A panic elsewhere leaves counts and names behind that are as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an entry out; none when it is handed out already.
    pub(super) fn hand_out(&self, entry: &str, crashes: u32) -> Option<Receipt> {
        self.lock().held.insert(entry.to_owned()).then(|| Receipt {
            entry: entry.to_owned(),
            crashes,
            end: OnceLock::new(),
            desk: self.clone(),
        })
    }
}

/// What a delivery carries: dropped without an end, its entry comes again.
#[derive(Debug)]
pub(super) struct Receipt {
    /// The entry.
    pub entry: String,
    /// How often it crashed a host while it ran alone, as far as is noted.
    pub crashes: u32,
    /// What a commit did; a commit that is tried again leaves it out.
    pub end: OnceLock<Committed>,
    desk: SharedDesk,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let mut desk = self.desk.lock();
        desk.held.remove(&self.entry);
        if self.end.get().is_none() {
            desk.scan_within(REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(entry: &str, deliveries: u32) -> Waiting {
        Waiting { entry: entry.to_owned(), deliveries }
    }

    #[test]
    fn a_read_shrinks_at_once_after_a_large_entry_and_grows_by_doubling() {
        let mut desk = Desk::new();
        desk.was_read(700);
        assert_eq!(desk.count(100), 16);
        desk.was_read(50 << 20);
        assert_eq!(desk.count(100), 1);
        for expected in [2, 4, 8] {
            desk.was_read(700);
            assert_eq!(desk.count(100), expected);
        }
        desk.was_read(4 << 20);
        assert_eq!(desk.count(100), 2);
    }

    #[test]
    fn suspects_come_first_and_alone_and_what_is_held_does_not_come() {
        let desk = SharedDesk::new();
        let receipt = desk.hand_out("1-0", 0);
        assert!(receipt.is_some() && desk.hand_out("1-0", 0).is_none());
        desk.lock().scanned(vec![waiting("1-0", 3), waiting("2-0", 1), waiting("3-0", 2), waiting("4-0", 2)]);
        let first = desk.lock().next_waiting(10);
        assert_eq!(first.len(), 2);
        assert!(first.iter().all(Waiting::suspect));
        assert_eq!(desk.lock().next_waiting(10), [waiting("2-0", 1)]);
        drop(receipt);
        assert!(!desk.lock().holds("1-0"));
    }
}
