//! The commit: outcomes into the store and the dead letters, in scripts of bounded size. The rules are in commit.lua.
//!
//! store.lua does a part of the same for less, and first: new alerts of which no other was ever heard. It decides as commit.lua would
//! (this consumer owns the entry, no key has the id: add, index, let go) and in one step as well, but knows no other case: what it leaves,
//! and what it is not asked for, commit.lua looks at from the beginning. So a case that it leaves too often costs time, and nothing else.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use redis::Value;

use super::desk::Receipt;
use super::keep::millis;
use super::keys::{self, Keys};
use super::link::{Call, Source};
use super::reaction::{self, Reaction};
use super::{Shared, reply};
use crate::queue::{Body, Committed, Outcome, QueueError, Replaces, Settled};
use crate::record::Record;
use crate::telemetry::events::EntriesRescued;

static COMMIT: LazyLock<Source> =
    LazyLock::new(|| Source::new(concat!(include_str!("rights.lua"), include_str!("commit.lua"))));
static STORE: LazyLock<Source> =
    LazyLock::new(|| Source::new(concat!(include_str!("rights.lua"), include_str!("store.lua"))));

/// How much one script takes.
struct Chunk {
    alerts: usize,
    /// Of records, or of what becomes a dead letter.
    bytes: usize,
}

/// For commit.lua: so that other clients are served in between.
const COMMITTED: Chunk = Chunk { alerts: 200, bytes: 4 << 20 };

/// For store.lua: a tenth cheaper than a hundred alerts in one, as what the server has just received is used while its cache has it.
const STORED: Chunk = Chunk { alerts: 32, bytes: 256 << 10 };

/// How many calls of store.lua are on their way at a time, each without waiting for the one before.
const AT_A_TIME: usize = 4;

/// How long it is remembered who put an entry into the dead letters: for a commit whose reply was lost, or that comes late.
const NOTE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// An alert on its way into a script.
struct Item<'a> {
    receipt: &'a Receipt,
    settled: &'a Settled,
    /// Use the whole hash in the id of a conflict: the short one is taken as well.
    whole_hash: bool,
    /// Send the original bytes along: the entry was trimmed.
    with_body: bool,
}

impl Item<'_> {
    /// The alert's id, where it has one.
    fn id(&self) -> Option<&str> {
        match &self.settled.outcome {
            Outcome::Store(record) => Some(&record.id),
            Outcome::Dead(letter) => letter.id.as_deref(),
        }
    }

    fn conflict_id(&self, record: &Record) -> String {
        match self.whole_hash {
            false => record.conflict_id(),
            true => format!("{}~{}", record.id, hex::encode(record.sha256)),
        }
    }

    fn size(&self) -> usize {
        match &self.settled.outcome {
            Outcome::Store(record) => record.rest.len(),
            // The original is copied on the server; what is known here is only what was read of it.
            Outcome::Dead(_) => match &self.settled.delivery.body {
                Body::Alert(bytes) => bytes.len(),
                Body::Refused { .. } => COMMITTED.bytes,
            },
        }
    }

    fn push(&self, call: &mut Call) -> Result<(), serde_json::Error> {
        if let Some(Replaces { record, id }) = &self.settled.delivery.replaces {
            call.push("again");
            call.push(record);
            call.push(id);
            call.push(Record::head(id));
            // As it stands in the record.
            call.push(match &self.settled.delivery.body {
                Body::Alert(bytes) => bytes.trim_ascii(),
                Body::Refused { .. } => &[],
            });
        }
        call.push(&self.receipt.entry);
        match &self.settled.outcome {
            Outcome::Store(record) => {
                let other = self.conflict_id(record);
                call.push("store");
                call.push(&record.id);
                call.push(hex::encode(record.sha256));
                call.push(Record::head(&record.id));
                call.push(&other);
                call.push(Record::head(&other));
                call.push(&record.rest[..]);
            }
            Outcome::Dead(letter) => {
                // Under which id and hash another host may have stored it meanwhile.
                let id = letter.id.as_deref().unwrap_or("");
                let sha256 = match &self.settled.delivery.body {
                    Body::Alert(bytes) => crate::digest::sha256_hex(bytes),
                    Body::Refused { .. } => String::new(),
                };
                call.push("dead");
                call.push(id);
                call.push(&sha256);
                call.push(format!("{id}~{}", sha256.get(..8).unwrap_or_default()));
                call.push(letter.reason.as_str());
                call.push(letter.step.as_ref().map_or("", |step| &step.step));
                call.push(letter.attempts);
                call.push(letter.first_seen.to_string());
                call.push(serde_json::to_string(letter)?);
                call.push(match &self.settled.delivery.body {
                    Body::Alert(bytes) if self.with_body => &bytes[..],
                    _ => &[],
                });
            }
        }
        Ok(())
    }
}

impl Shared {
    /// See [`crate::queue::Queue::commit`].
    pub(super) async fn commit(&self, settled: &[Settled]) -> Result<Vec<Committed>, QueueError> {
        let mut todo = Vec::with_capacity(settled.len());
        for settled in settled {
            let receipt = receipt(&settled.delivery)?;
            if receipt.end.get().is_none() {
                todo.push(Item { receipt, settled, whole_hash: false, with_body: false });
            }
        }
        self.store(&todo).await?;
        todo.retain(|item| item.receipt.end.get().is_none());
        let mut refused = HashMap::new();
        while !todo.is_empty() {
            let length = COMMITTED.of(&todo);
            let rest = todo.split_off(length);
            let mut again = self.commit_chunk(todo, &mut refused).await?;
            again.extend(rest);
            todo = again;
        }
        let ends = settled.iter().map(|settled| {
            let receipt = receipt(&settled.delivery)?;
            let end = receipt.end.get().cloned().or_else(|| refused.remove(&receipt.entry).map(Committed::Refused));
            end.ok_or_else(|| self.commands.nonsense("commit.lua"))
        });
        ends.collect()
    }

    /// Stores those that store.lua is for, and sets their ends. Leaves what it leaves.
    async fn store(&self, items: &[Item<'_>]) -> Result<(), QueueError> {
        let mut sharing: HashMap<&str, usize> = HashMap::with_capacity(items.len());
        for id in items.iter().filter_map(Item::id) {
            *sharing.entry(id).or_default() += 1;
        }
        // A suspect has a note that commit.lua takes away; and of one id, the first in the batch comes first.
        let mut usual: Vec<_> = items
            .iter()
            .filter(|item| matches!(item.settled.outcome, Outcome::Store(_)) && !item.settled.delivery.suspect)
            .filter(|item| item.settled.delivery.replaces.is_none())
            .filter(|item| item.id().is_some_and(|id| sharing.get(id) == Some(&1)))
            .collect();
        usual.sort_by_cached_key(|item| keys::place(&item.receipt.entry));
        let mut rest = &usual[..];
        let mut calls = Vec::new();
        while !rest.is_empty() {
            let (chunk, others) = rest.split_at(STORED.of(rest));
            calls.push(self.store_chunk(chunk));
            rest = others;
        }
        // What one comes to is noted though another fails.
        let ends: Vec<_> = stream::iter(calls).buffered(AT_A_TIME).collect().await;
        ends.into_iter().collect()
    }

    /// One call of store.lua.
    async fn store_chunk(&self, items: &[&Item<'_>]) -> Result<(), QueueError> {
        let mut call = Call::new(&STORE, &[&self.keys.stream, &self.keys.store])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(&self.keys.index)
            .arg(self.index_life.map_or(0, millis))
            .arg(self.retention.map_or(0, millis));
        // Beside the record, an alert has its entry, its id twice and its hash.
        call.reserve(4 * items.len(), items.iter().map(|item| item.size() + 256).sum());
        for Item { receipt, settled, .. } in items {
            if let Outcome::Store(record) = &settled.outcome {
                call.push(&receipt.entry);
                call.push(&record.id);
                call.push(hex::encode(record.sha256));
                call.push_parts(&[Record::head(&record.id).as_bytes(), &record.rest]);
            }
        }
        let answer = self.run(&self.commands, &call).await?;
        failpoint!("redis-committed");
        let parse = |answer| {
            let numbers = reply::list(answer)?.into_iter().map(reply::number).collect::<Option<Vec<_>>>()?;
            let (gone, left) = numbers.split_first()?;
            Some((*gone, left.iter().copied().collect::<HashSet<_>>()))
        };
        let (gone, left) = parse(answer).ok_or_else(|| self.commands.nonsense("store.lua"))?;
        if gone > 0 {
            self.telemetry.emit(&EntriesRescued { count: gone });
        }
        for (place, item) in (1..).zip(items) {
            if !left.contains(&place) {
                // Only this sets it, and only once: an item with an end is not committed again.
                let _ = item.receipt.end.set(Committed::Stored);
            }
        }
        Ok(())
    }

    /// Commits some; gives those that must be tried in another form, and notes why some are refused, by entry.
    async fn commit_chunk<'a>(
        &self,
        items: Vec<Item<'a>>,
        refused: &mut HashMap<String, String>,
    ) -> Result<Vec<Item<'a>>, QueueError> {
        let Keys { stream, store, dead, accused, ledger, again, .. } = &self.keys;
        let mut call = Call::new(&COMMIT, &[stream, store, dead, accused, ledger, again])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(&self.keys.index)
            .arg(&self.keys.notes)
            .arg(self.index_life.map_or(0, millis))
            .arg(self.retention.map_or(0, millis))
            .arg(millis(NOTE_LIFE));
        for item in &items {
            item.push(&mut call).map_err(|error| QueueError::Broken(format!("a dead letter is no JSON: {error}")))?;
        }
        let answer = self.run(&self.commands, &call).await?;
        failpoint!("redis-committed");
        let parse = |answer: Value| {
            let [outcomes, error, gone] = reply::exactly(answer)?;
            Some((reply::texts(outcomes)?, reply::text(error)?, reply::number(gone)?))
        };
        let (outcomes, error, gone) = parse(answer).ok_or_else(|| self.commands.nonsense("commit.lua"))?;
        if gone > 0 {
            self.telemetry.emit(&EntriesRescued { count: gone });
        }
        let mut again = Vec::new();
        for (mut item, outcome) in items.into_iter().zip(outcomes) {
            let end = match (outcome.as_str(), &item.settled.outcome) {
                ("stored", _) => Committed::Stored,
                ("conflict", Outcome::Store(record)) => Committed::Conflict(item.conflict_id(record)),
                ("duplicate", _) => Committed::Duplicate,
                ("replaced", _) => Committed::Replaced,
                ("kept", _) => Committed::Kept,
                ("dead", _) => Committed::Dead,
                ("lost", _) => Committed::Lost,
                ("collision", _) if !item.whole_hash => {
                    item.whole_hash = true;
                    again.push(item);
                    continue;
                }
                ("gone", _) if !item.with_body && matches!(item.settled.delivery.body, Body::Alert(_)) => {
                    item.with_body = true;
                    again.push(item);
                    continue;
                }
                ("gone", _) => {
                    self.lost(vec![item.receipt.entry.clone()]);
                    Committed::Lost
                }
                (other, _) => {
                    let why = other.strip_prefix("refused ").ok_or_else(|| self.commands.nonsense("commit.lua"))?;
                    refused.insert(item.receipt.entry.clone(), self.told(why).0.to_string());
                    continue;
                }
            };
            // Only this sets it, and only once: an item with an end is not committed again.
            let _ = item.receipt.end.set(end);
        }
        if error.is_empty() {
            return Ok(again);
        }
        let (error, reaction) = self.told(&error);
        match reaction {
            // Nothing is pending any more. The entries come again, from the beginning of the stream.
            Reaction::MakeGroup => self.make_group().await?,
            Reaction::Reconnect => self.reconnect(),
            _ => {}
        }
        Err(error)
    }

    /// An error that a script tells of, and what to do about it.
    fn told(&self, error: &str) -> (QueueError, Reaction) {
        let (code, text) = error.split_once(' ').unwrap_or((error, ""));
        let row = reaction::of_code(code, text);
        (self.commands.error_of(row, error), row.reaction)
    }
}

impl Chunk {
    /// How many of these one script takes.
    fn of<'a, T: std::borrow::Borrow<Item<'a>>>(&self, items: &[T]) -> usize {
        let mut bytes = 0;
        let fits = items.iter().take(self.alerts).take_while(|item| {
            let before = bytes;
            bytes += (*item).borrow().size();
            before < self.bytes
        });
        fits.count()
    }
}

/// The receipt that this kind of queue gave.
pub(super) fn receipt(delivery: &crate::queue::Delivery) -> Result<&Receipt, QueueError> {
    delivery
        .receipt
        .downcast_ref()
        .ok_or_else(|| QueueError::Broken(format!("entry {} is not from this queue", delivery.entry)))
}
