//! Taking alerts: suspects of hosts that died, entries that were dropped or never seen, new ones. Decides what comes next;
//! the desk remembers, the scripts do it.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use redis::Value;

use super::again::MAX_REPLACES;
use super::desk::{BUDGET, Waiting};
use super::keys::{age, is_entry};
use super::link::{Call, Source};
use super::{Shared, reply};
use crate::dead_letter::Reason;
use crate::dead_letter::history::History;
use crate::queue::{Body, Delivery, QueueError, Replaces};
use crate::telemetry::events::{AlertsClaimed, EntriesLost, HistoryIgnored};

/// How long a read waits for the first alert.
pub(super) const BLOCK: Duration = Duration::from_secs(1);

/// How many new entries are read together before their sizes are known, so that the server holds no more than these at a time.
const FEW: usize = 4;

/// From how many bytes on an entry is large: after it they are read one at a time.
const LARGE: usize = 64 << 10;

static READ: LazyLock<Source> =
    LazyLock::new(|| Source::new(concat!(include_str!("entry.lua"), include_str!("read.lua"))));
static FETCH: LazyLock<Source> =
    LazyLock::new(|| Source::new(concat!(include_str!("entry.lua"), include_str!("fetch.lua"))));
static CLAIM: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("claim.lua")));
static TRIAL: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("trial.lua")));

/// An entry as the scripts tell of it.
struct Told {
    entry: String,
    what: What,
    value: Bytes,
    attempts: u32,
    first_seen: Option<Timestamp>,
    crashes: u32,
    /// Only where there is one: as it stands there, whoever wrote it.
    history: Option<Bytes>,
    /// The same.
    replaces: Option<Bytes>,
    /// The same.
    traceparent: Option<String>,
}

/// What an entry holds, in the scripts' words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Alert,
    /// In place of the alert comes its size.
    TooLarge,
    /// In place of the alert come the names of its fields.
    NoAlert,
    /// It is pending here, and not in the stream any more.
    Gone,
    /// It is not pending here any more.
    Done,
}

impl What {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "alert" => Self::Alert,
            "too-large" => Self::TooLarge,
            "no-alert" => Self::NoAlert,
            "gone" => Self::Gone,
            "done" => Self::Done,
            _ => return None,
        })
    }
}

impl Told {
    /// An alert of which there is nothing else to tell.
    fn alert(entry: String, value: Bytes) -> Self {
        Self {
            entry,
            what: What::Alert,
            value,
            attempts: 0,
            first_seen: None,
            crashes: 0,
            history: None,
            traceparent: None,
            replaces: None,
        }
    }
}

/// What read.lua and fetch.lua answer.
struct Page {
    now: u64,
    largest: usize,
    entries: Vec<Told>,
}

fn page(value: Value) -> Option<Page> {
    let [now, largest, entries] = reply::exactly(value)?;
    let told = |value| {
        let mut parts = reply::list(value)?;
        if parts.len() == 2 {
            let (alert, entry) = (parts.pop()?, parts.pop()?);
            return Some(Told::alert(reply::text(entry)?, reply::bytes(alert)?));
        }
        let traceparent = (parts.len() > 8).then(|| parts.pop()).flatten();
        let replaces = (parts.len() > 7).then(|| parts.pop()).flatten();
        let history = (parts.len() > 6).then(|| parts.pop()).flatten();
        let [entry, what, value, attempts, first_seen, crashes] = parts.try_into().ok()?;
        Some(Told {
            entry: reply::text(entry)?,
            what: What::of(&reply::text(what)?)?,
            value: reply::bytes(value)?,
            // Both are empty in an alert that was never replayed; a producer may write nonsense into them.
            attempts: reply::text(attempts)?.parse().unwrap_or(0),
            first_seen: reply::text(first_seen)?.parse().ok(),
            crashes: reply::text(crashes)?.parse().unwrap_or(0),
            // Before what follows there stands one, though it be empty.
            history: history
                .and_then(reply::bytes)
                .filter(|text| (replaces.is_none() && traceparent.is_none()) || !text.is_empty()),
            replaces: replaces.and_then(reply::bytes).filter(|text| traceparent.is_none() || !text.is_empty()),
            traceparent: traceparent.and_then(reply::text),
        })
    };
    Some(Page {
        now: reply::number(now)?,
        largest: reply::number(largest)?.try_into().ok()?,
        entries: reply::list(entries)?.into_iter().map(told).collect::<Option<_>>()?,
    })
}

impl Shared {
    /// See [`crate::queue::Queue::receive`].
    pub(super) async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        if self.desk.lock().sweep_due() {
            self.claim(max).await?;
        }
        if self.desk.lock().scan_due() {
            self.scan().await?;
        }
        let waiting = self.desk.lock().next_waiting(max);
        if !waiting.is_empty() {
            let deliveries = self.fetch(waiting).await?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
        }
        let deliveries = self.read(max).await?;
        if !deliveries.is_empty() {
            return Ok(deliveries);
        }
        match self.wait().await? {
            Some(entry) => self.fetch(vec![Waiting { entry, deliveries: 1 }]).await,
            None => Ok(Vec::new()),
        }
    }

    /// Takes new entries that are there already.
    async fn read(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let count = self.desk.lock().count(max);
        let call = Call::new(&READ, &[&self.keys.stream])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(count)
            .arg(BUDGET)
            .arg(self.max_alert_size)
            .arg((BUDGET / self.max_alert_size.max(1)).clamp(1, FEW))
            .arg(LARGE);
        let answer = self.run(&self.reader, &call).await?;
        let page = page(answer).ok_or_else(|| self.reader.nonsense("read.lua"))?;
        if !page.entries.is_empty() {
            failpoint!("alerts-read");
            self.desk.lock().was_read(page.largest);
        }
        let now = page.now;
        Ok(page.entries.into_iter().filter_map(|told| self.delivery(told, 1, now)).collect())
    }

    /// Waits for a new entry and takes it. Its body came with it, of whatever size; it is dropped here and read again as
    /// every other is, so that there is one way only.
    async fn wait(&self) -> Result<Option<String>, QueueError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(1);
        command.arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1000));
        command.arg("STREAMS").arg(&self.keys.stream).arg(">");
        let entry = |value| {
            let [stream] = reply::exactly(value)?;
            let [_, entries] = reply::exactly(stream)?;
            // None when it was woken by what is gone already: added and trimmed in one transaction, for one.
            let Some(entry) = reply::list(entries)?.pop() else { return Some(None) };
            let [id, _] = reply::exactly(entry)?;
            reply::text(id).map(Some)
        };
        match self.query(&self.reader, &command).await? {
            Value::Nil => Ok(None),
            value => {
                failpoint!("redis-waited");
                entry(value).ok_or_else(|| self.reader.nonsense("XREADGROUP"))
            }
        }
    }

    /// Reads entries that are pending here already. What is not looked at, because there was enough, waits on.
    async fn fetch(&self, waiting: Vec<Waiting>) -> Result<Vec<Delivery>, QueueError> {
        let mut call = Call::new(&FETCH, &[&self.keys.stream, &self.keys.accused])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(BUDGET)
            .arg(self.max_alert_size);
        waiting.iter().for_each(|waiting| call.push(&waiting.entry));
        let answer = match self.run(&self.reader, &call).await {
            Ok(answer) => answer,
            Err(error) => {
                self.desk.lock().put_back(waiting.into_iter());
                return Err(error);
            }
        };
        let page = page(answer).ok_or_else(|| self.reader.nonsense("fetch.lua"))?;
        failpoint!("redis-fetched");
        let mut waiting = waiting.into_iter();
        let mut deliveries = Vec::with_capacity(page.entries.len());
        let mut gone = Vec::new();
        for (told, waiting) in page.entries.into_iter().zip(&mut waiting) {
            match told.what {
                What::Gone => gone.push(told.entry),
                What::Done => {}
                _ => deliveries.extend(self.delivery(told, waiting.deliveries, page.now)),
            }
        }
        self.desk.lock().put_back(waiting);
        self.lost(gone);
        Ok(deliveries)
    }

    /// Looks into the own pending entries for those that nobody holds.
    async fn scan(&self) -> Result<(), QueueError> {
        let count = self.desk.lock().held() + 1000;
        let mut command = redis::cmd("XPENDING");
        command.arg(&self.keys.stream).arg(&self.group).arg("-").arg("+").arg(count).arg(&self.consumer);
        let waiting = |value| {
            let [entry, _, _, deliveries] = reply::exactly(value)?;
            Some(Waiting { entry: reply::text(entry)?, deliveries: reply::number(deliveries)?.try_into().ok()? })
        };
        let pending = match self.query(&self.reader, &command).await {
            Ok(answer) => answer,
            Err(error) => {
                self.desk.lock().scan_within(Duration::ZERO);
                return Err(error);
            }
        };
        let pending = reply::list(pending)
            .and_then(|entries| entries.into_iter().map(waiting).collect::<Option<Vec<_>>>())
            .ok_or_else(|| self.reader.nonsense("XPENDING"))?;
        self.desk.lock().scanned(pending);
        Ok(())
    }

    /// Takes over what hosts left whose lease is gone.
    async fn claim(&self, max: usize) -> Result<(), QueueError> {
        let call = Call::new(&CLAIM, &[&self.keys.stream, &self.keys.accused])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(&self.keys.leases)
            .arg(max);
        let answer = self.run(&self.reader, &call).await?;
        let claimed = |value| {
            let [consumer, count] = reply::exactly(value)?;
            Some((reply::text(consumer)?, usize::try_from(reply::number(count)?).ok()?))
        };
        let parse = |answer| {
            let [claims, lost] = reply::exactly(answer)?;
            let claims = reply::list(claims)?.into_iter().map(claimed).collect::<Option<Vec<_>>>()?;
            Some((claims, reply::texts(lost)?))
        };
        let (claims, lost) = parse(answer).ok_or_else(|| self.reader.nonsense("claim.lua"))?;
        if !claims.is_empty() {
            failpoint!("redis-claimed");
            self.desk.lock().scan_within(Duration::ZERO);
        }
        for (from, count) in &claims {
            self.telemetry.emit(&AlertsClaimed { count: *count, from });
        }
        self.lost(lost);
        Ok(())
    }

    /// Tells of entries that somebody trimmed or deleted while they were pending.
    pub(super) fn lost(&self, entries: Vec<String>) {
        if !entries.is_empty() {
            self.telemetry.emit(&EntriesLost { entries: &entries });
        }
    }

    /// Makes a delivery; none when the entry is handed out already, as after the group was made again.
    fn delivery(&self, told: Told, deliveries: u32, now: u64) -> Option<Delivery> {
        let crashes = told.crashes;
        let receipt = self.desk.hand_out(&told.entry, crashes)?;
        let said = || String::from_utf8_lossy(&told.value);
        let body = match told.what {
            _ if crashes >= self.max_crashes => Body::Refused {
                reason: Reason::HostCrash,
                detail: format!("the process that ran nothing but this alert died {crashes} times"),
            },
            What::Alert => Body::Alert(told.value),
            What::TooLarge => Body::Refused {
                reason: Reason::TooLarge,
                detail: format!(
                    "the alert has {} bytes, max_alert_size in [queue] allows {}",
                    said(),
                    self.max_alert_size
                ),
            },
            _ => Body::Refused {
                reason: Reason::NoAlert,
                detail: format!(
                    "the entry has no field \"alert\", only {}; send with XADD {} '*' alert '{{…}}'",
                    field_names(&said()),
                    self.keys.stream
                ),
            },
        };
        Some(Delivery {
            body,
            deliveries,
            attempts: told.attempts,
            history: told.history.map(|text| self.history(&told.entry, &text)).unwrap_or_default(),
            traceparent: told.traceparent,
            replaces: told.replaces.and_then(|text| self.replaces(&told.entry, &text)),
            first_seen: told.first_seen,
            waited: age(&told.entry, now),
            suspect: deliveries > 1,
            entry: told.entry,
            receipt: Box::new(receipt),
        })
    }

    /// What an entry says of its alert's earlier failures. What cannot be read takes nothing from the alert.
    fn history(&self, entry: &str, text: &[u8]) -> History {
        History::from_json(text).unwrap_or_else(|why| {
            let why = format!("its field \"dossier:history\" cannot be read: {why}");
            self.telemetry.emit(&HistoryIgnored { entry, why: &why });
            History::default()
        })
    }

    /// What an entry says that its alert is to take the place of. What cannot be read takes nothing from the alert.
    fn replaces(&self, entry: &str, text: &[u8]) -> Option<Replaces> {
        let named = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_REPLACES);
        let replaces = named.and_then(|text| text.split_once(' ')).filter(|(record, _)| is_entry(record));
        if replaces.is_none() {
            self.telemetry.emit(&HistoryIgnored { entry, why: "its field \"dossier:replace\" names no record" });
        }
        replaces.map(|(record, id)| Replaces { record: record.to_owned(), id: id.to_owned() })
    }

    /// Notes how often the process of a suspect died while it ran alone.
    pub(super) async fn note(&self, entry: &str, crashes: u32) -> Result<(), QueueError> {
        let call = Call::new(&TRIAL, &[&self.keys.stream, &self.keys.accused])
            .arg(&self.group)
            .arg(&self.consumer)
            .arg(entry)
            .arg(crashes);
        self.run(&self.commands, &call).await?;
        failpoint!("redis-noted");
        Ok(())
    }
}

/// The names of an entry's fields, as the server joined them, for people. A name that is none may be a piece of an alert that was sent in
/// the wrong place: it is not shown.
fn field_names(names: &str) -> String {
    let plain = |name: &&str| {
        (1..=32).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    let (mut shown, hidden): (Vec<_>, Vec<_>) = names.split(", ").partition(plain);
    if !hidden.is_empty() {
        shown.push(if names.is_empty() { "fields of dossier's own" } else { "a field whose name is not shown" });
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_only_where_its_name_looks_like_one() {
        for (names, shown) in [
            ("message, from.host, x-1_2", "message, from.host, x-1_2"),
            (r#"{"id":"x","user":"jdoe"}"#, "a field whose name is not shown"),
            ("Jane Smith, data, ", "data, a field whose name is not shown"),
            (&"x".repeat(33), "a field whose name is not shown"),
            ("", "fields of dossier's own"),
        ] {
            assert_eq!(field_names(names), shown, "{names}");
        }
    }
}
