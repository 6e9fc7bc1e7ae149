//! Looking at what is at rest: the dead letters, the store, how full everything is; and moving dead letters back.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use redis::Value;

use super::keys::{age, is_entry, millis};
use super::link::{Call, Source};
use super::{Shared, reply};
use crate::dead_letter::history::History;
use crate::dead_letter::{self, DeadLetter, Reason};
use crate::queue::{Dead, Depth, Held, QueueError};

static LIST: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("list.lua")));
static REPLAY: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("replay.lua")));
static DEPTH: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("depth.lua")));

/// How many keys the server looks at before it serves others.
const KEYS_AT_ONCE: usize = 10_000;

impl Shared {
    /// See [`crate::queue::Queue::depth`].
    pub(super) async fn depth(&self) -> Result<Depth, QueueError> {
        let call = Call::new(&DEPTH, &[&self.keys.stream, &self.keys.store, &self.keys.dead])
            .arg(&self.group)
            .arg(&self.keys.leases);
        let answer = self.run(&self.commands, &call).await?;
        let parse = |answer| {
            let [entries, pending, stored, dead, now, first] = reply::exactly(answer)?;
            let (entries, pending) = (reply::number(entries)?, reply::number(pending)?);
            let (first, now) = (reply::text(first)?, reply::number(now)?);
            Some(Depth {
                // What was trimmed while it was pending still counts as pending.
                waiting: entries.saturating_sub(pending),
                in_flight: pending.min(entries),
                stored: reply::number(stored)?,
                dead: reply::number(dead)?,
                oldest: (!first.is_empty()).then(|| age(&first, now)),
            })
        };
        parse(answer).ok_or_else(|| self.commands.nonsense("depth.lua"))
    }

    /// See [`crate::queue::Queue::dead`].
    pub(super) async fn dead(&self, after: Option<&str>, limit: usize) -> Result<Vec<Dead>, QueueError> {
        let mut from = match after {
            None => "-".to_owned(),
            Some(after) if is_entry(after) => format!("({after}"),
            Some(_) => return Ok(Vec::new()),
        };
        let mut all = Vec::new();
        loop {
            let (letters, more) = self.page(&from, limit - all.len(), letter).await?;
            if let Some(last) = letters.last() {
                from = format!("({}", last.key);
            }
            all.extend(letters);
            if !more || all.len() >= limit {
                return Ok(all);
            }
        }
    }

    /// So many dead letters from an id on, or as many as fit, and whether there may be more.
    async fn page<T>(
        &self,
        from: &str,
        limit: usize,
        letter: impl Fn(Value) -> Option<T>,
    ) -> Result<(Vec<T>, bool), QueueError> {
        let call = Call::new(&LIST, &[&self.keys.dead]).arg(from).arg(limit);
        let answer = self.run(&self.commands, &call).await?;
        let parse = |answer| {
            let [letters, more] = reply::exactly(answer)?;
            let letters = reply::list(letters)?.into_iter().map(letter).collect::<Option<Vec<_>>>()?;
            Some((letters, reply::number(more)? == 1))
        };
        parse(answer).ok_or_else(|| self.commands.nonsense("list.lua"))
    }

    /// The history that a dead letter's alert has when it is replayed, as JSON; empty where its description is not ours, none when there
    /// is no such dead letter.
    async fn history_from(&self, key: &str) -> Result<Option<String>, QueueError> {
        let described = |value| {
            let [key, letter, _, _] = reply::exactly(value)?;
            Some((reply::text(key)?, reply::bytes(letter)?))
        };
        let (mut letters, _) = self.page(key, 1, described).await?;
        let Some((_, letter)) = letters.pop().filter(|(first, _)| first == key) else { return Ok(None) };
        let letter = serde_json::from_slice::<DeadLetter>(&letter).ok();
        let history = letter.map(|letter| letter.told().to_json()).transpose();
        history.map(|text| Some(text.unwrap_or_default())).map_err(|error| QueueError::Broken(error.to_string()))
    }

    /// See [`crate::queue::Queue::dead_body`].
    pub(super) async fn dead_body(&self, key: &str) -> Result<Option<Bytes>, QueueError> {
        let Some(fields) = self.fields(&self.keys.dead, key).await? else { return Ok(None) };
        let mut others = serde_json::Map::new();
        for (name, value) in fields {
            if name == "alert" {
                return Ok(Some(value));
            }
            if let Some(name) = name.strip_prefix("field:") {
                others.insert(name.to_owned(), String::from_utf8_lossy(&value).into());
            }
        }
        Ok(Some(serde_json::Value::Object(others).to_string().into()))
    }

    /// See [`crate::queue::Queue::replay`].
    pub(super) async fn replay(&self, key: &str) -> Result<bool, QueueError> {
        if !is_entry(key) {
            return Ok(false);
        }
        // An entry never changes: what is read here is still so when the script moves it, if nobody else has by then.
        let Some(history) = self.history_from(key).await? else { return Ok(false) };
        let call = Call::new(&REPLAY, &[&self.keys.stream, &self.keys.dead]).arg(key).arg(history);
        Ok(reply::number(self.run(&self.commands, &call).await?) == Some(1))
    }

    /// See [`crate::queue::Queue::discard`].
    pub(super) async fn discard(&self, key: &str) -> Result<bool, QueueError> {
        if !is_entry(key) {
            return Ok(false);
        }
        let mut command = redis::cmd("XDEL");
        command.arg(&self.keys.dead).arg(key);
        Ok(reply::number(self.query(&self.commands, &command).await?) == Some(1))
    }

    /// See [`crate::queue::Queue::record`].
    pub(super) async fn record(&self, id: &str) -> Result<Option<Bytes>, QueueError> {
        Ok(self.indexed(&format!("{}{id}", self.keys.index)).await?.and_then(|held| held.bytes))
    }

    /// See [`crate::queue::Queue::stored`]; none where this user may not look for keys.
    pub(super) async fn stored(&self, id: &str) -> Result<Option<Vec<Held>>, QueueError> {
        let mut keys = BTreeSet::from([format!("{}{id}", self.keys.index)]);
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(format!("{}~*", literally(&self.keys.index, id)));
            command.arg("COUNT").arg(KEYS_AT_ONCE);
            let answer = match self.commands.query(&command).await {
                Err(error) if error.code() == Some("NOPERM") => return Ok(None),
                answer => answer.map_err(|error| self.commands.error(&error))?,
            };
            let parse = |answer| {
                let [next, found] = reply::exactly(answer)?;
                Some((reply::text(next)?, reply::texts(found)?))
            };
            let (next, found) = parse(answer).ok_or_else(|| self.commands.nonsense("SCAN"))?;
            keys.extend(found);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        let mut records = Vec::new();
        for key in keys {
            records.extend(self.indexed(&key).await?);
        }
        if !records.iter().any(|held: &Held| held.key == id) {
            records.extend(self.record_at(id).await?);
        }
        Ok(Some(records))
    }

    /// The record that a key of the index leads to.
    async fn indexed(&self, key: &str) -> Result<Option<Held>, QueueError> {
        let mut command = redis::cmd("GET");
        command.arg(key);
        let Value::BulkString(place) = self.query(&self.commands, &command).await? else { return Ok(None) };
        let place = String::from_utf8_lossy(&place);
        let Some(entry) = place.split(' ').next().filter(|entry| is_entry(entry)) else { return Ok(None) };
        self.record_at(entry).await
    }

    /// The record at an entry of the store; none when the text is no entry, too.
    pub(super) async fn record_at(&self, entry: &str) -> Result<Option<Held>, QueueError> {
        let fields = self.fields(&self.keys.store, entry).await?.unwrap_or_default();
        let record = fields.into_iter().find(|(name, _)| name == "record").map(|(_, value)| value);
        Ok(record.map(|record| Held { key: entry.to_owned(), bytes: Some(record) }))
    }

    /// The fields of one entry of a stream; none when it is not there.
    async fn fields(&self, stream: &str, entry: &str) -> Result<Option<Vec<(String, Bytes)>>, QueueError> {
        if !is_entry(entry) {
            return Ok(None);
        }
        let mut command = redis::cmd("XRANGE");
        command.arg(stream).arg(entry).arg(entry);
        let answer = self.query(&self.commands, &command).await?;
        let parse = |answer| {
            let Some(entry) = reply::list(answer)?.pop() else { return Some(None) };
            let [_, fields] = reply::exactly(entry)?;
            let mut fields = reply::list(fields)?.into_iter();
            let mut pairs = Vec::new();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                pairs.push((reply::text(name)?, reply::bytes(value)?));
            }
            Some(Some(pairs))
        };
        parse(answer).ok_or_else(|| self.commands.nonsense("XRANGE"))
    }
}

/// Texts as a pattern of Redis' that matches them alone.
fn literally(index: &str, id: &str) -> String {
    let mut pattern = String::with_capacity(index.len() + id.len());
    for char in index.chars().chain(id.chars()) {
        if matches!(char, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

/// A dead letter as list.lua tells of it. What somebody else put there has no description of ours: it gets one, so that it
/// can be seen, replayed and dropped like every other.
fn letter(value: Value) -> Option<Dead> {
    let [key, letter, reason, size] = reply::exactly(value)?;
    let (key, reason) = (reply::text(key)?, reply::text(reason)?);
    let letter = serde_json::from_slice(&reply::bytes(letter)?).unwrap_or_else(|error| {
        let when = Timestamp::UNIX_EPOCH + Duration::from_millis(millis(&key).min(4_000_000_000_000));
        DeadLetter {
            schema: dead_letter::SCHEMA,
            id: None,
            entry: None,
            reason: reason.parse().unwrap_or(Reason::NoAlert),
            detail: format!("its field \"dead\" describes no failure: {error}"),
            step: None,
            attempts: 0,
            history: History::default(),
            deliveries: 0,
            first_seen: when,
            failed_at: when,
            host: String::new(),
        }
    });
    Some(Dead { key, letter, size: reply::number(size)? })
}
