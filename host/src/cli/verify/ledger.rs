//! The ledger: how often each alert was sent, and where it was found. Knows alerts by their marks only, 26 bytes for each, so that
//! millions of them fit.

use std::collections::HashMap;

use crate::queue::Place;

use super::identity::{Identity, Mark, Sent};

/// What is known of one alert, or of all alerts with one id. Counts stay at their highest value rather than begin anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often it was sent.
    pub sent: u16,
    /// How often it may have been sent.
    pub unsure: u16,
    /// How often it waits or is in flight.
    pub waiting: u16,
    /// How many dead letters there are of it.
    pub dead: u16,
    /// How many records there are of it.
    pub stored: u16,
    /// Whether this is about an id, with whatever bytes.
    by_id: bool,
    /// Whether its id was sent, and nothing is known of the bytes.
    covered: bool,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Sent, and found nowhere.
    Orphan,
    /// Stored twice, or more often at rest than it was sent.
    Double,
    /// Found, and never sent.
    Stranger,
}

impl Wrong {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Double => "double",
            Self::Stranger => "stranger",
        }
    }
}

impl Tally {
    fn found(&mut self, place: Place) {
        let count = match place {
            Place::Queue => &mut self.waiting,
            Place::Store => &mut self.stored,
            Place::Dead => &mut self.dead,
        };
        *count = count.saturating_add(1);
    }

    /// How often it may be at rest: as often as it may have been sent, for each copy has an end of its own.
    fn allowed(self) -> u16 {
        self.sent.saturating_add(self.unsure)
    }

    fn at_rest(self) -> u16 {
        self.stored.saturating_add(self.dead)
    }

    fn is_known(self) -> bool {
        self.allowed() > 0 || self.covered
    }

    /// What is wrong with it, if something is. A copy that waits beside one at rest is none too many: it will be let go of as
    /// a duplicate, or come to an end of its own.
    pub fn wrong(self) -> Option<Wrong> {
        let anywhere = self.at_rest() > 0 || self.waiting > 0;
        let stored_twice = self.stored > 1 && !self.by_id;
        if stored_twice || (self.allowed() > 0 && self.at_rest() > self.allowed()) {
            Some(Wrong::Double)
        } else if self.sent > 0 && !anywhere {
            Some(Wrong::Orphan)
        } else if anywhere && !self.is_known() {
            Some(Wrong::Stranger)
        } else {
            None
        }
    }
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    tallies: HashMap<Mark, Tally>,
}

impl Ledger {
    /// Notes something that was sent.
    pub fn sent(&mut self, sent: &Sent) {
        let tally = self.tallies.entry(sent.mark).or_default();
        tally.by_id = sent.by_id;
        let count = if sent.unsure { &mut tally.unsure } else { &mut tally.sent };
        *count = count.saturating_add(1);
    }

    /// Notes something that was found; with `only`, unless it is none of these.
    pub fn found(&mut self, identity: &Identity, place: Place, only: Option<&Suspects>) {
        for (mark, covered) in self.marks(identity) {
            if only.is_none_or(|only| only.contains_key(&mark)) {
                let tally = self.tallies.entry(mark).or_default();
                tally.covered |= covered;
                tally.found(place);
            }
        }
    }

    /// Where a found alert counts: where it was sent as such, or else with its id and, so that a double is seen, by itself.
    pub fn marks(&self, identity: &Identity) -> impl Iterator<Item = (Mark, bool)> + use<> {
        let mark = identity.mark();
        let exact = self.tallies.get(&mark).is_some_and(|tally| tally.allowed() > 0);
        let of_id = identity.mark_of_id().filter(|id| !exact && self.tallies.contains_key(id));
        of_id.map(|id| (id, false)).into_iter().chain([(mark, of_id.is_some())])
    }

    /// All that is wrong.
    pub fn suspects(&self) -> Suspects {
        let wrong = self.tallies.iter().filter(|(_, tally)| tally.wrong().is_some());
        wrong.map(|(mark, tally)| (*mark, *tally)).collect()
    }

    /// Forgets where these were found, so that they are looked for again.
    pub fn look_again(&mut self, suspects: &Suspects) {
        for mark in suspects.keys() {
            if let Some(tally) = self.tallies.get_mut(mark) {
                (tally.waiting, tally.dead, tally.stored) = (0, 0, 0);
            }
        }
    }

    /// What is known of a mark.
    pub fn tally(&self, mark: &Mark) -> Tally {
        self.tallies.get(mark).copied().unwrap_or_default()
    }

    /// How many different alerts, or ids, were sent or may have been.
    pub fn different(&self) -> u64 {
        self.tallies.values().filter(|tally| tally.allowed() > 0).count() as u64
    }

    /// How many alerts wait although they are stored or dead as often as they were sent.
    pub fn again(&self) -> u64 {
        let again = |tally: &&Tally| {
            let total = tally.at_rest().saturating_add(tally.waiting);
            tally.allowed() > 0 && tally.waiting > 0 && total > tally.allowed()
        };
        self.tallies.values().filter(again).count() as u64
    }
}

/// Alerts with which something seems to be wrong.
pub type Suspects = HashMap<Mark, Tally>;

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: &str, byte: u8) -> Identity {
        Identity { id: Some(id.to_owned()), sha256: [byte; 32] }
    }

    fn exact(identity: &Identity, unsure: bool) -> Sent {
        Sent { name: String::new(), mark: identity.mark(), by_id: false, unsure }
    }

    fn by_id(id: &str) -> Sent {
        Sent { name: String::new(), mark: super::super::identity::mark_of_id(id), by_id: true, unsure: false }
    }

    /// What is wrong after these were sent and found.
    fn wrong(sent: &[Sent], found: &[(Identity, Place)]) -> Vec<Wrong> {
        let mut ledger = Ledger::default();
        sent.iter().for_each(|sent| ledger.sent(sent));
        found.iter().for_each(|(identity, place)| ledger.found(identity, *place, None));
        let mut wrong: Vec<_> = ledger.suspects().values().filter_map(|tally| tally.wrong()).collect();
        wrong.sort();
        wrong
    }

    #[test]
    fn what_is_once_in_one_place_is_accounted_for() {
        for place in [Place::Queue, Place::Store, Place::Dead] {
            assert_eq!(wrong(&[exact(&alert("a", 1), false)], &[(alert("a", 1), place)]), []);
            assert_eq!(wrong(&[by_id("a")], &[(alert("a", 1), place)]), []);
        }
    }

    #[test]
    fn orphans_doubles_and_strangers_are_seen_whether_bytes_or_ids_are_known() {
        let a = || alert("a", 1);
        for sent in [exact(&a(), false), by_id("a")] {
            let sent = std::slice::from_ref(&sent);
            assert_eq!(wrong(sent, &[]), [Wrong::Orphan]);
            assert!(wrong(sent, &[(a(), Place::Store), (a(), Place::Store)]).contains(&Wrong::Double));
            assert!(wrong(sent, &[(a(), Place::Store), (a(), Place::Dead)]).contains(&Wrong::Double));
            assert_eq!(wrong(sent, &[(a(), Place::Store), (alert("b", 1), Place::Dead)]), [Wrong::Stranger]);
        }
        // Other bytes under an id whose bytes are known.
        assert_eq!(wrong(&[exact(&a(), false)], &[(alert("a", 2), Place::Store)]), [Wrong::Orphan, Wrong::Stranger]);
        // Stored twice is too often, however often it was sent.
        let twice = [exact(&a(), false), exact(&a(), false)];
        assert_eq!(wrong(&twice, &[(a(), Place::Store), (a(), Place::Store)]), [Wrong::Double]);
        let twice = [by_id("a"), by_id("a")];
        assert_eq!(wrong(&twice, &[(a(), Place::Store), (a(), Place::Store)]), [Wrong::Double]);
    }

    #[test]
    fn duplicates_and_conflicts_are_no_fault() {
        let a = || alert("a", 1);
        let twice = || [exact(&a(), false), exact(&a(), false)];
        assert_eq!(wrong(&twice(), &[(a(), Place::Store)]), []);
        assert_eq!(wrong(&twice(), &[(a(), Place::Store), (a(), Place::Queue)]), []);
        assert_eq!(wrong(&twice(), &[(a(), Place::Store), (a(), Place::Dead)]), []);
        let other = || alert("a", 2);
        let conflict = [(a(), Place::Store), (other(), Place::Store)];
        assert_eq!(wrong(&[exact(&a(), false), exact(&other(), false)], &conflict), []);
        assert_eq!(wrong(&[by_id("a"), by_id("a")], &conflict), []);
        assert_eq!(wrong(&[by_id("a")], &conflict), [Wrong::Double]);
    }

    #[test]
    fn what_may_not_have_arrived_may_be_missing_and_may_be_there() {
        let a = || alert("a", 1);
        assert_eq!(wrong(&[exact(&a(), true)], &[]), []);
        assert_eq!(wrong(&[exact(&a(), true)], &[(a(), Place::Dead)]), []);
        assert_eq!(wrong(&[exact(&a(), true)], &[(a(), Place::Dead), (a(), Place::Dead)]), [Wrong::Double]);
        assert_eq!(wrong(&[exact(&a(), true), exact(&a(), false)], &[]), [Wrong::Orphan]);
    }

    #[test]
    fn a_copy_that_waits_beside_one_at_rest_is_told_and_is_no_double() {
        let a = alert("a", 1);
        let mut ledger = Ledger::default();
        ledger.sent(&exact(&a, false));
        ledger.found(&a, Place::Queue, None);
        assert_eq!(ledger.again(), 0);
        ledger.found(&a, Place::Store, None);
        assert_eq!((ledger.again(), ledger.suspects().len()), (1, 0));
    }

    #[test]
    fn suspects_are_looked_for_again_and_others_are_not_counted_twice() {
        let (a, b) = (alert("a", 1), alert("b", 2));
        let mut ledger = Ledger::default();
        ledger.sent(&exact(&a, false));
        ledger.sent(&exact(&b, false));
        ledger.found(&b, Place::Store, None);
        let suspects = ledger.suspects();
        ledger.look_again(&suspects);
        ledger.found(&a, Place::Store, Some(&suspects));
        ledger.found(&b, Place::Store, Some(&suspects));
        assert!(ledger.suspects().is_empty());
        assert_eq!(ledger.tally(&b.mark()).stored, 1);
    }
}
