//! A real queue and the model beside it: every operation is done to both, and what the real one answers and holds is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dossier::dead_letter::history::{History, KEPT};
use dossier::dead_letter::{self, DeadLetter, Reason};
use dossier::queue::{Body, Committed, Delivery, Outcome, Queue, Settled};
use dossier::record::Record;
use jiff::Timestamp;

use super::operation::{HOSTS, MAX_ALERT_SIZE, Operation};
use super::place::{MAX_CRASHES, Place, paths};
use super::state::{HostId, Letter, Model, Rules, Told, id_of};

/// How long the end of a series may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One life of a host.
struct Host {
    id: HostId,
    queue: Arc<dyn Queue>,
    /// The key of its lease, once it has one.
    lease: Option<String>,
    held: Vec<Delivery>,
}

/// A queue with its hosts, and the model.
pub struct Pair {
    place: Place,
    model: Model,
    hosts: [Option<Host>; HOSTS],
    next_host: HostId,
    sent: BTreeSet<Bytes>,
}

impl Pair {
    /// An empty queue and its model.
    pub async fn new(place: Place) -> Self {
        // Makes the folders, or the stream.
        place.open().await;
        let model = Model::new(place.rules(), MAX_CRASHES);
        Self { place, model, hosts: [None, None, None], next_host: 0, sent: BTreeSet::new() }
    }

    /// Does a series, then brings everything to an end, and looks after each operation.
    pub async fn run(mut self, series: &[Operation]) {
        for operation in series {
            self.run_one(operation).await;
            self.compare(&format!("after {operation:?}"));
        }
        self.bring_to_an_end().await;
    }

    fn compare(&self, when: &str) {
        assert_eq!(self.place.backlog(), self.model.backlog(), "{when}: the queue, and what is right");
        let store: Vec<_> = self.model.store.iter().map(|(id, bytes)| (id.clone(), bytes.clone())).collect();
        assert_eq!(self.place.store(), store, "{when}: the store, and what is right");
        self.model.check_all(&self.sent);
    }

    async fn host(&mut self, slot: usize) -> usize {
        if self.hosts[slot].is_none() {
            let queue = self.place.open().await;
            self.hosts[slot] = Some(Host { id: self.next_host, queue, lease: None, held: Vec::new() });
            self.next_host += 1;
        }
        slot
    }

    async fn run_one(&mut self, operation: &Operation) {
        match operation {
            Operation::Send(alerts) => self.send(alerts).await,
            Operation::Receive(slot, max) => {
                let slot = self.host(*slot).await;
                // Nothing is new, and what came back rests for a second: waiting for that is for the end.
                if self.model.has_new() || self.is_fresh(slot) {
                    self.receive(slot, *max).await;
                }
            }
            Operation::Commit(slot, ends, again) => self.commit(*slot, ends, *again).await,
            Operation::Drop(slot, which) => {
                let Some(host) = &mut self.hosts[*slot] else { return };
                if !host.held.is_empty() && !self.model.is_robbed(host.id) {
                    let delivery = host.held.swap_remove(which % host.held.len());
                    self.model.drop(host.id, &delivery.entry);
                }
            }
            Operation::Accuse(slot, which) => self.accuse(*slot, *which).await,
            Operation::Crash(slot) => {
                if let Some(host) = self.hosts[*slot].take() {
                    self.crash(host);
                }
            }
            Operation::Condemn(slot, which, times) => {
                for _ in 0..*times {
                    if let Some(host) = self.hosts[*slot].take() {
                        self.crash(host);
                    }
                    self.host(*slot).await;
                    if self.is_fresh(*slot) {
                        self.receive(*slot, 5).await;
                        self.accuse(*slot, *which).await;
                    }
                }
            }
            Operation::Close(slot, late) => {
                let Some(host) = &self.hosts[*slot] else { return };
                // Whether what a robbed host takes back still counts depends on who has claimed what: it dies instead.
                if self.model.is_robbed(host.id) {
                    self.hosts[*slot].take().into_iter().for_each(|host| self.crash(host));
                    return;
                }
                host.queue.close().await.expect("the queue closes");
                self.model.close(host.id);
                if *late {
                    self.commit(*slot, &[0, 2, 1], false).await;
                }
                self.hosts[*slot] = None;
            }
            Operation::Rob(slot) => {
                if let (Some(host), Place::Redis { server, .. }) = (&mut self.hosts[*slot], &self.place)
                    && let Some(lease) = host.lease.take()
                {
                    let _: u64 = server.ask(&["DEL", &lease]).expect("DEL");
                    self.model.rob(host.id);
                }
            }
            Operation::Replay(which) => self.replay(*which).await,
            Operation::Discard(which) => {
                if let Some(key) = self.model.dead.keys().nth(which % self.model.dead.len().max(1)).cloned() {
                    let queue = self.place.open().await;
                    assert!(queue.discard(&key).await.expect("discarded"));
                    assert!(!queue.discard(&key).await.expect("there is nothing"), "discarded twice");
                    self.model.discard(&key);
                    self.compare_letters(&*queue).await;
                }
            }
            Operation::Trim(which) => self.trim(*which),
        }
    }

    async fn accuse(&mut self, slot: usize, which: usize) {
        let Some(host) = &mut self.hosts[slot] else { return };
        // What a robbed host notes counts only for what nobody has claimed yet, which the model does not know.
        if self.model.is_robbed(host.id) {
            return;
        }
        let suspects: Vec<_> = host.held.iter().filter(|delivery| delivery.suspect).collect();
        let Some(suspect) = suspects.get(which % suspects.len().max(1)) else { return };
        host.queue.accuse(suspect).await.expect("accused");
        self.model.accuse(host.id, &suspect.entry);
    }

    async fn send(&mut self, alerts: &[Bytes]) {
        let before = self.place.backlog();
        self.place.open().await.send(alerts).await.expect("sent");
        let mut added: Vec<_> = self.place.backlog().into_iter().collect();
        added.retain(|(entry, _)| !before.contains_key(entry));
        let sorted = |mut all: Vec<Bytes>| {
            all.sort();
            all
        };
        assert_eq!(sorted(added.iter().map(|(_, bytes)| bytes.clone()).collect()), sorted(alerts.to_vec()));
        for (entry, bytes) in added {
            self.model.add(&entry, bytes, 0);
        }
        self.sent.extend(alerts.iter().cloned());
    }

    /// Whether a host has yet to look around.
    fn is_fresh(&self, slot: usize) -> bool {
        let free = self.model.free();
        self.hosts[slot].as_ref().is_some_and(|host| host.lease.is_none() && host.held.is_empty())
            && !(free.0.is_empty() && free.1.is_empty())
    }

    fn leases(&self) -> BTreeSet<String> {
        match &self.place {
            Place::Redis { server, stream } => {
                server.ask::<Vec<String>>(&["KEYS", &format!("{stream}:lease:*")]).expect("KEYS").into_iter().collect()
            }
            Place::Directory(_) => BTreeSet::new(),
        }
    }

    async fn receive(&mut self, slot: usize, max: usize) {
        let before = self.leases();
        let Some(host) = &self.hosts[slot] else { return };
        let (queue, id) = (Arc::clone(&host.queue), host.id);
        let taken = queue.receive(max).await.expect("received");
        assert!(taken.len() <= max, "{} taken where {max} were asked for", taken.len());
        let suspects = taken.iter().filter(|delivery| delivery.suspect).count();
        assert!(suspects == 0 || suspects == taken.len(), "suspects and others together");
        for delivery in &taken {
            let convicted = matches!(delivery.body, Body::Refused { reason: Reason::HostCrash, .. });
            let told = Told {
                deliveries: delivery.deliveries,
                attempts: delivery.attempts,
                suspect: delivery.suspect,
                convicted,
            };
            let bytes = match &delivery.body {
                Body::Alert(bytes) => Some(&bytes[..]),
                Body::Refused { .. } => None,
            };
            self.model.take_told(id, &delivery.entry, bytes, told);
            let large = self.model.backlog()[&delivery.entry].len() > MAX_ALERT_SIZE;
            assert_eq!(bytes.is_none(), convicted || large, "{delivery:?}");
            assert!(delivery.attempts == 0 || delivery.first_seen.is_some(), "{delivery:?} was seen before");
            assert_whole(&delivery.history, delivery.attempts);
        }
        let mut new = self.leases();
        new.retain(|lease| !before.contains(lease));
        let Some(host) = &mut self.hosts[slot] else { return };
        host.held.extend(taken);
        assert!(new.len() <= 1, "one host has one lease: {new:?}");
        host.lease = new.into_iter().next().or(host.lease.take());
    }

    async fn commit(&mut self, slot: usize, ends: &[u8], again: bool) {
        let Some(host) = &mut self.hosts[slot] else { return };
        let (id, queue) = (host.id, Arc::clone(&host.queue));
        let (mut settled, mut kept) = (Vec::new(), Vec::new());
        for (n, delivery) in std::mem::take(&mut host.held).into_iter().enumerate() {
            match (ends.get(n).copied().unwrap_or(3), &delivery.body) {
                (3, _) => kept.push(delivery),
                (0 | 1, Body::Alert(_)) => settled.push(stored(delivery)),
                _ => settled.push(dead(delivery)),
            }
        }
        host.held = kept;
        let letters = self.letters(&*queue).await;
        let done = queue.commit(&settled).await.expect("committed");
        if again {
            assert_eq!(queue.commit(&settled).await.expect("committed again"), done, "the same commit again");
        }
        assert_eq!(done.len(), settled.len());
        let there = self.place.backlog();
        let mut buried = Vec::new();
        // Records first, as the directory does; for streams the order makes no difference to what is right.
        let mut pairs: Vec<_> = settled.iter().zip(&done).collect();
        pairs.sort_by_key(|(one, _)| matches!(one.outcome, Outcome::Dead(_)));
        for (one, done) in pairs {
            let entry = &one.delivery.entry;
            let (store, refused) =
                (matches!(one.outcome, Outcome::Store(_)), matches!(one.delivery.body, Body::Refused { .. }));
            let bytes = match &one.delivery.body {
                Body::Alert(bytes) => bytes.clone(),
                // Only the model and the queue know them.
                Body::Refused { .. } => self.model.bytes(entry).unwrap_or_default(),
            };
            let right = match bytes.is_empty() {
                true => vec![Committed::Lost],
                false => self.model.may_answer(id, entry, &bytes, store, refused),
            };
            assert!(right.contains(done), "{entry}: the commit says {done:?}, right is {right:?}");
            self.model.committed(id, entry, &bytes, done, there.contains_key(entry));
            if let (Committed::Dead, Outcome::Dead(letter)) = (done, &one.outcome) {
                buried.push((bytes, letter.attempts));
            }
        }
        self.note_letters(&*queue, letters, &buried).await;
    }

    /// Every dead letter as the queue lists it.
    async fn letters(&self, queue: &dyn Queue) -> BTreeMap<String, Letter> {
        let mut all = BTreeMap::new();
        for dead in queue.dead(None, 10_000).await.expect("the dead letters") {
            let bytes = queue.dead_body(&dead.key).await.expect("a dead letter").expect("it is there");
            assert_eq!(bytes.len() as u64, dead.size);
            assert_whole(&dead.letter.history, dead.letter.attempts - 1);
            let before = all.insert(dead.key.clone(), Letter { bytes, attempts: dead.letter.attempts });
            assert!(before.is_none(), "{} is listed twice", dead.key);
        }
        all
    }

    async fn compare_letters(&self, queue: &dyn Queue) {
        assert_eq!(self.letters(queue).await, self.model.dead, "the dead letters, and what is right");
    }

    /// Takes note of new dead letters. Files of the same bytes become one; attempts are never lost.
    async fn note_letters(&mut self, queue: &dyn Queue, before: BTreeMap<String, Letter>, buried: &[(Bytes, u32)]) {
        assert_eq!(before, self.model.dead, "the dead letters before, and what is right");
        let after = self.letters(queue).await;
        let attempts = |letters: &BTreeMap<String, Letter>| {
            let mut sums: BTreeMap<Bytes, u32> = BTreeMap::new();
            letters.values().for_each(|letter| *sums.entry(letter.bytes.clone()).or_default() += letter.attempts);
            sums
        };
        let mut right = attempts(&before);
        buried.iter().for_each(|(bytes, attempts)| *right.entry(bytes.clone()).or_default() += attempts);
        assert_eq!(attempts(&after), right, "attempts of all dead letters by their bytes, and what is right");
        for (key, letter) in &before {
            let now = after.get(key).unwrap_or_else(|| panic!("the dead letter {key} is gone"));
            assert_eq!(now.bytes, letter.bytes, "{key} holds other bytes than before");
        }
        if self.place.rules() == Rules::Redis {
            assert_eq!(after.len(), before.len() + buried.len());
        }
        self.model.dead = after;
    }

    /// A host that dies: nothing is given back, nothing is renewed.
    fn crash(&mut self, host: Host) {
        self.model.crash(host.id);
        match &self.place {
            Place::Redis { server, .. } => {
                std::mem::forget(host.held);
                drop(host.queue);
                if let Some(lease) = host.lease {
                    let _: u64 = server.ask(&["DEL", &lease]).expect("DEL");
                }
            }
            // Its lock files stay, held by nobody.
            Place::Directory(folder) => {
                let notes: Vec<_> = paths(&folder.path().join(".state"))
                    .into_iter()
                    .map(|path| (std::fs::read(&path).expect("a note"), path))
                    .collect();
                drop(host);
                for (note, path) in notes {
                    if std::fs::read(&path).ok().as_ref() != Some(&note) {
                        std::fs::write(&path, note).expect("a note");
                    }
                }
            }
        }
    }

    async fn replay(&mut self, which: usize) {
        let Some(key) = self.model.dead.keys().nth(which % self.model.dead.len().max(1)).cloned() else { return };
        let before = self.place.backlog();
        let queue = self.place.open().await;
        assert!(queue.replay(&key).await.expect("replayed"));
        assert!(!queue.replay(&key).await.expect("there is nothing"), "replayed twice");
        let mut added = self.place.backlog();
        added.retain(|entry, _| !before.contains_key(entry));
        let letter = self.model.replay(&key).expect("it was there");
        assert_eq!(added.values().collect::<Vec<_>>(), [&letter.bytes], "what a replay adds");
        for (entry, bytes) in added {
            self.model.add(&entry, bytes, letter.attempts);
        }
        self.compare_letters(&*queue).await;
    }

    fn trim(&mut self, which: usize) {
        let backlog = self.model.backlog();
        let Some(entry) = backlog.keys().nth(which % backlog.len().max(1)) else { return };
        match &self.place {
            Place::Redis { server, stream } => {
                let deleted: u64 = server.ask(&["XDEL", stream, entry]).expect("XDEL");
                assert_eq!(deleted, 1);
            }
            // What is known of one that is in flight, that was dead or whose host died lies beside it under its name, which the
            // next alert of that name inherits.
            Place::Directory(_) if !self.model.is_plain(entry) => return,
            Place::Directory(folder) => {
                std::fs::remove_file(folder.path().join("pending").join(entry)).expect("it is there")
            }
        }
        self.model.trim(entry);
    }

    /// The hosts that are left end, by turns as they should and by dying; another one stores all that there is.
    async fn bring_to_an_end(mut self) {
        for slot in 0..HOSTS {
            let end = if slot % 2 == 0 { Operation::Close(slot, false) } else { Operation::Crash(slot) };
            self.run_one(&end).await;
        }
        let deadline = Instant::now() + PATIENCE;
        let slot = self.host(0).await;
        loop {
            // At least once: what was deleted while a host held it is only found by one that looks.
            self.receive(slot, 100).await;
            let count = self.hosts[slot].as_ref().map_or(0, |host| host.held.len());
            self.commit(slot, &vec![0; count], false).await;
            if self.model.backlog().is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "never delivered: {:?}", self.model.backlog());
        }
        self.compare("at the end");
        let Some(host) = &self.hosts[slot] else { return };
        let depth = host.queue.depth().await.expect("the depth");
        let right = (0, 0, self.model.store.len() as u64, self.model.dead.len() as u64);
        assert_eq!(
            (depth.waiting, depth.in_flight, depth.stored, depth.dead),
            right,
            "waiting, in flight, stored, dead"
        );
        for (id, bytes) in &self.model.store {
            let record = host.queue.record(id).await.expect("the store").expect("a record");
            let record: serde_json::Value = serde_json::from_slice(&record).expect("a record is JSON");
            assert_eq!(record["alert"], serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON"), "{id}");
        }
        if let Place::Redis { server, stream } = &self.place {
            let accused: u64 = server.ask(&["HLEN", &format!("{stream}:accused")]).expect("HLEN");
            let pending: Vec<redis::Value> =
                server.ask(&["XPENDING", stream, "dossier", "-", "+", "10"]).expect("XPENDING");
            assert_eq!((accused, pending.len()), (0, 0), "notes and pending entries are left");
        }
    }
}

/// A history tells of each failure that is counted, as far as it goes, in their order.
fn assert_whole(history: &History, failures: u32) {
    assert_eq!(history.failures().len(), KEPT.min(failures as usize), "{history:?} of {failures} failures");
    assert!(history.failures().is_sorted_by_key(|failure| failure.failed_at), "{history:?}");
}

/// To be stored, as the worker does it.
fn stored(delivery: Delivery) -> Settled {
    let Body::Alert(bytes) = &delivery.body else { panic!("refused: {delivery:?}") };
    let rest = [b",\"alert\":", &bytes[..], b"}"].concat();
    let record = Record { id: id_of(bytes), sha256: dossier::digest::sha256(bytes), rest: rest.into() };
    Settled { delivery, outcome: Outcome::Store(record) }
}

/// To be buried, as the worker does it.
fn dead(delivery: Delivery) -> Settled {
    let (id, reason) = match &delivery.body {
        Body::Alert(bytes) => (Some(id_of(bytes)), Reason::Trap),
        Body::Refused { reason, .. } => (None, *reason),
    };
    let letter = DeadLetter {
        schema: dead_letter::SCHEMA,
        id,
        entry: Some(delivery.entry.clone()),
        reason,
        detail: "as the test wants".into(),
        step: None,
        attempts: delivery.attempts + 1,
        history: delivery.history.clone(),
        deliveries: delivery.deliveries,
        first_seen: delivery.first_seen.unwrap_or_else(Timestamp::now),
        failed_at: Timestamp::now(),
        host: "test".into(),
    };
    Settled { delivery, outcome: Outcome::Dead(letter) }
}
