//! The model: what a queue should do, as a few maps. It says what each operation may answer and what must be there
//! afterwards; it knows neither Redis nor files, only in what the two are documented to differ.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dossier::queue::Committed;

/// In which of the two ways a queue does what both ways are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Streams.
    Redis,
    /// Files.
    Directory,
}

/// A host, never the same one twice.
pub type HostId = u64;

/// An alert in the queue.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its bytes.
    pub bytes: Bytes,
    /// How often it came to its end before it was replayed.
    pub attempts: u32,
    /// How many hosts died while they held it, or lost it to another.
    crashes: u32,
    /// How many more may have: hosts that died while it was theirs, but in nobody's hands.
    maybe: u32,
    /// How often its process died while it ran alone, but for what its host says now.
    accused: u32,
    /// Whether it was ever delivered.
    delivered: bool,
    hold: Option<Hold>,
    /// Deleted from the queue by somebody else; there as long as a host still holds it.
    trimmed: bool,
}

impl Item {
    /// Nobody holds it any more; what its host said of it stays.
    fn let_go(&mut self) {
        self.accused += u32::from(self.hold.take().is_some_and(|hold| hold.accused));
    }
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    host: HostId,
    accused: bool,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The alert's bytes.
    pub bytes: Bytes,
    /// How often it came to its end.
    pub attempts: u32,
}

/// What is told of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// How often it was delivered.
    pub deliveries: u32,
    /// How often it came to its end.
    pub attempts: u32,
    /// Whether it must run alone.
    pub suspect: bool,
    /// Whether it is bound for the dead letters because it kills hosts.
    pub convicted: bool,
}

/// Everything that a queue is.
#[derive(Debug)]
pub struct Model {
    rules: Rules,
    max_crashes: u32,
    items: BTreeMap<String, Item>,
    /// The store: bytes by id.
    pub store: BTreeMap<String, Bytes>,
    /// The dead letters by key.
    pub dead: BTreeMap<String, Letter>,
    /// Hosts that live and are taken for dead.
    robbed: BTreeSet<HostId>,
    /// Hosts that gave everything back.
    closed: BTreeSet<HostId>,
    /// What is no more because somebody wanted it so: trimmed, or discarded.
    pub gone: Vec<Bytes>,
    /// The entries that somebody deleted.
    trimmed: BTreeSet<String>,
}

/// The id that an alert of these tests says.
pub fn id_of(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("alerts of these tests are JSON");
    value["id"].as_str().expect("with an id").to_owned()
}

/// The id of an alert whose own is taken.
pub fn conflict_id(bytes: &[u8]) -> String {
    format!("{}~{}", id_of(bytes), &dossier::digest::sha256_hex(bytes)[..8])
}

impl Model {
    /// An empty queue.
    pub fn new(rules: Rules, max_crashes: u32) -> Self {
        Self {
            rules,
            max_crashes,
            items: BTreeMap::new(),
            store: BTreeMap::new(),
            dead: BTreeMap::new(),
            robbed: BTreeSet::new(),
            closed: BTreeSet::new(),
            gone: Vec::new(),
            trimmed: BTreeSet::new(),
        }
    }

    /// An alert came in, new or replayed.
    pub fn add(&mut self, entry: &str, bytes: Bytes, attempts: u32) {
        let item =
            Item { bytes, attempts, crashes: 0, maybe: 0, accused: 0, delivered: false, hold: None, trimmed: false };
        let before = self.items.insert(entry.to_owned(), item);
        assert!(before.is_none(), "{entry} was added over another alert");
    }

    /// What is in the queue, in flight or not.
    pub fn backlog(&self) -> BTreeMap<String, Bytes> {
        let there = self.items.iter().filter(|(_, item)| !item.trimmed);
        there.map(|(entry, item)| (entry.clone(), item.bytes.clone())).collect()
    }

    /// What nobody holds: suspects, and the others.
    pub fn free(&self) -> (Vec<String>, Vec<String>) {
        let free = self.items.iter().filter(|(_, item)| item.hold.is_none() && !item.trimmed);
        let (suspects, others): (Vec<_>, Vec<_>) = free.partition(|(_, item)| item.crashes > 0);
        let names = |items: Vec<(&String, &Item)>| items.into_iter().map(|(entry, _)| entry.clone()).collect();
        (names(suspects), names(others))
    }

    /// Whether anything was never delivered.
    pub fn has_new(&self) -> bool {
        self.items.values().any(|item| !item.delivered && !item.trimmed)
    }

    /// A host takes an alert that a real queue handed out: is what it told of it right?
    pub fn take_told(&mut self, host: HostId, entry: &str, bytes: Option<&[u8]>, told: Told) {
        let stolen = self.check_free(host, entry);
        let Some(item) = self.items.get_mut(entry) else { panic!("{entry} was delivered and is not in the queue") };
        assert!(!item.trimmed, "{entry} was delivered and is gone");
        let least = 1 + item.crashes + u32::from(stolen);
        let most = least + item.maybe;
        assert!(
            (least..=most).contains(&told.deliveries),
            "{entry}: {} deliveries are told, {least} to {most} are right",
            told.deliveries
        );
        item.crashes = told.deliveries - 1;
        item.maybe = 0;
        let right = self.hold(host, entry, stolen);
        assert_eq!(told, right, "{entry}: what the queue tells of it, and what is right");
        if let Some(bytes) = bytes {
            assert_eq!(bytes, &self.items[entry].bytes[..], "{entry}: its bytes");
        }
    }

    /// A host takes an alert.
    pub fn take(&mut self, host: HostId, entry: &str) -> (Bytes, Told) {
        let stolen = self.check_free(host, entry);
        let told = self.hold(host, entry, stolen);
        (self.items[entry].bytes.clone(), told)
    }

    /// Nobody who lives may hold it. True when it is taken from somebody who is taken for dead.
    fn check_free(&self, host: HostId, entry: &str) -> bool {
        let holder = self.items.get(entry).and_then(|item| item.hold).map(|hold| hold.host);
        match holder {
            None => false,
            Some(holder) => {
                assert!(holder != host, "{entry} was delivered twice to one host");
                assert!(self.robbed.contains(&holder), "{entry} was taken from a host that lives");
                true
            }
        }
    }

    fn hold(&mut self, host: HostId, entry: &str, stolen: bool) -> Told {
        let item = self.items.get_mut(entry).expect("looked at before");
        if stolen && item.hold.is_some_and(|hold| hold.accused) {
            item.accused += 1;
        }
        item.hold = Some(Hold { host, accused: false });
        item.delivered = true;
        Told {
            deliveries: 1 + item.crashes,
            attempts: item.attempts,
            suspect: item.crashes > 0,
            convicted: item.accused >= self.max_crashes,
        }
    }

    /// An alert's bytes, while anybody knows them.
    pub fn bytes(&self, entry: &str) -> Option<Bytes> {
        self.items.get(entry).map(|item| item.bytes.clone())
    }

    /// Whether this host has it.
    pub fn holds(&self, host: HostId, entry: &str) -> bool {
        self.items.get(entry).is_some_and(|item| item.hold.is_some_and(|hold| hold.host == host))
    }

    /// Whether a host is taken for dead and lives.
    pub fn is_robbed(&self, host: HostId) -> bool {
        self.robbed.contains(&host)
    }

    /// Notes that its process died: once, however often its host says so.
    pub fn accuse(&mut self, host: HostId, entry: &str) {
        if self.holds(host, entry)
            && let Some(hold) = self.items.get_mut(entry).and_then(|item| item.hold.as_mut())
        {
            hold.accused = true;
        }
    }

    /// A delivery is dropped.
    pub fn drop(&mut self, host: HostId, entry: &str) {
        if self.holds(host, entry)
            && let Some(item) = self.items.get_mut(entry)
        {
            item.let_go();
            if item.trimmed {
                self.items.remove(entry);
            }
        }
    }

    /// A host is taken for dead and lives.
    pub fn rob(&mut self, host: HostId) {
        self.robbed.insert(host);
        self.shake();
    }

    /// A host dies.
    pub fn crash(&mut self, host: HostId) {
        for item in self.items.values_mut() {
            if item.hold.is_some_and(|hold| hold.host == host) {
                item.crashes += 1;
                item.let_go();
            }
        }
        if !self.robbed.remove(&host) {
            self.shake();
        }
        self.items.retain(|_, item| item.hold.is_some() || !item.trimmed);
    }

    /// What was delivered once and is in no hands may still be down as somebody's. A file never is.
    fn shake(&mut self) {
        if self.rules == Rules::Redis {
            let robbed = &self.robbed;
            let safe = |item: &Item| item.hold.is_some_and(|hold| !robbed.contains(&hold.host));
            self.items.values_mut().filter(|item| item.delivered && !safe(item)).for_each(|item| item.maybe += 1);
        }
    }

    /// A host gives everything back.
    pub fn close(&mut self, host: HostId) {
        self.closed.insert(host);
        self.items.values_mut().filter(|item| item.hold.is_some_and(|hold| hold.host == host)).for_each(Item::let_go);
        self.items.retain(|_, item| item.hold.is_some() || !item.trimmed);
    }

    /// Somebody deletes an alert from the queue.
    pub fn trim(&mut self, entry: &str) {
        let Some(item) = self.items.get_mut(entry) else { return };
        self.gone.push(item.bytes.clone());
        self.trimmed.insert(entry.to_owned());
        match item.hold {
            Some(_) => item.trimmed = true,
            None => drop(self.items.remove(entry)),
        }
    }

    /// Whether it is in no hands and was never near a dead host or a dead letter.
    pub fn is_plain(&self, entry: &str) -> bool {
        let plain = |item: &Item| item.hold.is_none() && item.attempts == 0 && item.crashes == 0;
        self.items.get(entry).is_some_and(plain)
    }

    /// What a commit may answer, the likeliest first.
    pub fn may_answer(&self, host: HostId, entry: &str, bytes: &[u8], store: bool, refused: bool) -> Vec<Committed> {
        let stored_already = || match self.place(bytes) {
            (_, Committed::Duplicate) => vec![Committed::Lost, Committed::Duplicate],
            _ => vec![Committed::Lost],
        };
        let right = match (store, self.rules) {
            (true, _) => self.place(bytes).1,
            // Files are not placed and removed in one step: the record may be a dead host's, and what is stored stays so. Bytes that
            // were never read are compared with nothing.
            (false, Rules::Directory) if !refused && self.place(bytes).1 == Committed::Duplicate => {
                Committed::Duplicate
            }
            (false, _) => Committed::Dead,
        };
        match self.items.get(entry) {
            Some(item) if item.hold.is_some_and(|hold| hold.host == host) => match self.rules {
                // Bytes that were never read are gone with the entry; others are in memory.
                Rules::Redis if item.trimmed && refused => vec![Committed::Lost],
                // Another host may have claimed it and not yet handed it out.
                _ if self.robbed.contains(&host) => vec![right, Committed::Lost],
                _ => vec![right],
            },
            // What a closed host gave back is still down as its own in a stream until somebody claims it.
            Some(item) if self.closed.contains(&host) && item.hold.is_none() && self.rules == Rules::Redis => {
                vec![right, Committed::Lost]
            }
            // Nobody has it and nobody did it: the host that still has its bytes is the only place where it is.
            None if self.rules == Rules::Redis && self.trimmed.contains(entry) && !refused => {
                vec![right, Committed::Lost]
            }
            Some(_) | None => match self.rules {
                Rules::Redis => stored_already(),
                Rules::Directory => vec![Committed::Lost],
            },
        }
    }

    /// Where bytes would be stored, and what a commit would say.
    fn place(&self, bytes: &[u8]) -> (String, Committed) {
        let (id, other) = (id_of(bytes), conflict_id(bytes));
        match (self.store.get(&id), self.store.get(&other)) {
            (None, _) => (id, Committed::Stored),
            (Some(there), _) if there == bytes => (id, Committed::Duplicate),
            (Some(_), None) => (other.clone(), Committed::Conflict(other)),
            (Some(_), Some(there)) if there == bytes => (other, Committed::Duplicate),
            (Some(_), Some(_)) => panic!("two alerts of these tests have one short hash"),
        }
    }

    /// A commit did this; `there` is whether the alert is in the queue all the same. Dead letters are the caller's to add:
    /// their keys are the queue's choice.
    pub fn committed(&mut self, host: HostId, entry: &str, bytes: &[u8], done: &Committed, there: bool) {
        match done {
            Committed::Stored | Committed::Conflict(_) => {
                let (id, expected) = self.place(bytes);
                assert_eq!(*done, expected, "{entry}");
                self.store.insert(id, Bytes::copy_from_slice(bytes));
                self.items.remove(entry);
            }
            Committed::Dead => drop(self.items.remove(entry)),
            Committed::Replaced | Committed::Kept => panic!("{entry} was not sent to be enriched anew"),
            Committed::Refused(why) => panic!("{entry} is refused alone, though nothing is in its way: {why}"),
            // Of an alert that is not its own any more, a host learns only that it is stored.
            Committed::Duplicate => {
                assert!(!there || !self.holds(host, entry) || self.robbed.contains(&host), "{entry} was not let go of");
                if !there {
                    self.items.remove(entry);
                }
            }
            Committed::Lost => {
                let robbed = self.robbed.contains(&host);
                if self.holds(host, entry)
                    && let Some(item) = self.items.get_mut(entry)
                {
                    if item.trimmed {
                        self.items.remove(entry);
                    } else if robbed {
                        // Claimed by another host, which has yet to hand it out.
                        item.crashes += 1;
                        item.maybe = item.maybe.saturating_sub(1);
                        item.let_go();
                    }
                }
            }
        }
    }

    /// A dead letter goes back to the queue; gives it.
    pub fn replay(&mut self, key: &str) -> Option<Letter> {
        self.dead.remove(key)
    }

    /// A dead letter goes for good.
    pub fn discard(&mut self, key: &str) {
        let letter = self.dead.remove(key).expect("the caller has looked");
        self.gone.push(letter.bytes);
    }

    /// Everything that was sent is somewhere.
    pub fn check_all(&self, sent: &BTreeSet<Bytes>) {
        for bytes in sent {
            let stored = self.store.values().filter(|there| *there == bytes).count();
            let waits = self.items.values().any(|item| item.bytes == *bytes && !item.trimmed);
            let dead = self.dead.values().any(|letter| letter.bytes == *bytes);
            assert!(stored <= 1, "stored {stored} times: {bytes:?}");
            assert!(stored == 1 || waits || dead || self.gone.contains(bytes), "lost: {bytes:?}");
        }
    }
}
