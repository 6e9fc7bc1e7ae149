//! `dossier explain`: one alert's whole story, wherever it lies. It looks into the store by its index, through the dead letters, and
//! through what waits; how the story looks is the page's job.

mod page;
mod story;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::alert::Decoder;
use crate::alert::observables::Observable;
use crate::config::Config;
use crate::queue::{Dead, Held, Place, Queue};

use super::dlq::{Pages, json, with_body};
use super::original::write_original;
use super::output::{Out, Progress, grouped, printable, remark};
use super::sheet::Sheet;
use super::verify::identity::Identifier;
use super::{INTERRUPTED, interrupted};

use self::story::Story;

/// The exit code of an alert that is in the queue and nowhere else.
const WAITS: u8 = 3;

/// Where something was found already, no more than so many waiting alerts are looked through for another of its id.
const FEW: u64 = 10_000;

/// Whose story, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier explain RULE-002-17
  dossier explain 1763715600000-0            A dead letter or a record, by its key; or by the entry that the log says
  dossier explain RULE-002-17 --json | jq '.stored[].record.verdict'

Exit codes:
  0    It is stored, or dead
  1    Nothing is known of it
  3    It waits in the queue")]
pub struct Arguments {
    /// The alert's id, as the log says it; the entry that the log says where there is no id; or the key of a dead letter or a record
    id: String,
    /// One JSON object, for scripts: records and dead letters as they are
    #[arg(long)]
    json: bool,
    /// Leave the alert itself out
    #[arg(long, conflicts_with = "json")]
    no_alert: bool,
}

/// What was found of an alert.
#[derive(Default)]
struct Found {
    stored: Vec<(Held, Story)>,
    dead: Vec<(Dead, Bytes)>,
    waiting: Vec<Held>,
    /// The keys of those of them that were sent to be enriched anew.
    again: BTreeSet<String>,
    /// The record that has what was asked for as its key. Keys of Redis are moments, and another thing's key may be the same.
    by_key: Vec<(Held, Story)>,
    /// How many wait and were not looked at.
    unseen: u64,
}

impl Found {
    fn is_at_rest(&self) -> bool {
        !self.stored.is_empty() || !self.dead.is_empty()
    }

    /// The record of that key where nothing else was meant.
    fn or_by_key(mut self) -> Self {
        if !self.is_at_rest() && self.waiting.is_empty() {
            self.stored = std::mem::take(&mut self.by_key);
        }
        self
    }
}

/// Tells it.
///
/// # Errors
/// Nothing is known of the alert; the queue cannot be asked; or the output cannot be written.
pub async fn explain<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    arguments: &Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let looked = async {
        let identifier = Identifier::new(config);
        let found = Search { queue, identifier: &identifier, id: &arguments.id }.everywhere().await?;
        // Log lines and pages show an id with escapes in the place of what a terminal would obey.
        let shown = raw(&arguments.id).filter(|_| !found.is_at_rest() && found.waiting.is_empty());
        match shown {
            Some(raw) => {
                let found = Search { queue, identifier: &identifier, id: &raw }.everywhere().await?;
                anyhow::Ok((found, raw))
            }
            None => anyhow::Ok((found, arguments.id.clone())),
        }
    };
    let (found, id) = tokio::select! {
        looked = looked => looked?,
        () = interrupted() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let code = match (found.is_at_rest(), found.waiting.is_empty()) {
        (true, _) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(WAITS),
        (false, true) => bail!(
            "no alert has the id \"{}\", and no dead letter that key or entry: it is neither stored, nor dead, nor waiting; what is older than \
             [store] retention is gone, and what has no id of its own is known by the id or the entry that its log line says",
            printable(&arguments.id)
        ),
    };
    for (_, story) in &found.by_key {
        remark(&format!("a record is stored under this key, too: dossier explain \"{}\"", printable(&story.id)));
    }
    if arguments.json {
        write_json(&id, &found, out)?;
    } else {
        let mut sheet = Sheet::new(out);
        write_page(&mut sheet, &Decoder::new(&config.alert), &id, &found, !arguments.no_alert)?;
    }
    Ok(code)
}

/// An id as it is, of one as it is shown; none when nothing in it is escaped.
fn raw(shown: &str) -> Option<String> {
    let (mut raw, mut rest, mut changed) = (String::new(), shown, false);
    while let Some(at) = rest.find('\\') {
        raw.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let hex = escape.strip_prefix("u{").and_then(|hex| hex.split_once('}'));
        let (char, after) = match (hex, escape.get(..1)) {
            (Some((hex, after)), _) => (u32::from_str_radix(hex, 16).ok().and_then(char::from_u32), after),
            (None, Some("n")) => (Some('\n'), &escape[1..]),
            (None, Some("r")) => (Some('\r'), &escape[1..]),
            (None, Some("t")) => (Some('\t'), &escape[1..]),
            (None, Some("0")) => (Some('\0'), &escape[1..]),
            (None, _) => (None, ""),
        };
        // A backslash that escapes nothing is one.
        rest = if char.is_some() { after } else { escape };
        raw.push(char.unwrap_or('\\'));
        changed |= char.is_some();
    }
    raw.push_str(rest);
    changed.then_some(raw)
}

/// A search for one id.
struct Search<'a> {
    queue: &'a dyn Queue,
    identifier: &'a Identifier,
    id: &'a str,
}

impl Search<'_> {
    /// Looks into the store and through the dead letters, and through what waits where that is little or nothing else was found.
    async fn everywhere(&self) -> anyhow::Result<Found> {
        let mut found = self.at_rest().await?;
        let depth = self.queue.depth().await?;
        let there = depth.waiting + depth.in_flight;
        if (found.is_at_rest() || !found.by_key.is_empty()) && there > FEW {
            found.unseen = there;
            return Ok(found.or_by_key());
        }
        let waiting = self.waiting().await?;
        if !found.is_at_rest() {
            // It may have come to its end while this looked elsewhere.
            found = self.at_rest().await?;
        }
        let again = self.again(&found.stored).await?;
        Ok(Found { waiting, again, ..found }.or_by_key())
    }

    async fn at_rest(&self) -> anyhow::Result<Found> {
        let mut found = Found::default();
        for held in self.queue.stored(self.id).await? {
            let Some(story) = held.bytes.as_deref().and_then(|record| Story::read(record).ok()) else { continue };
            let identity = held.bytes.as_deref().and_then(|record| self.identifier.of_record(record));
            // Beside an id may stand one that only begins like it.
            if story.id == self.id || identity.and_then(|identity| identity.id).as_deref() == Some(self.id) {
                found.stored.push((held, story));
            } else if held.key == self.id {
                found.by_key.push((held, story));
            }
        }
        let mut pages = Pages::new(self.queue);
        let mut read = 0;
        let mut progress = Progress::of(None);
        while let Some(page) = pages.next().await? {
            read += page.len() as u64;
            for dead in page.into_iter().filter(|dead| self.is_named(dead)) {
                if let Some(body) = self.queue.dead_body(&dead.key).await? {
                    found.dead.push((dead, body));
                }
            }
            progress.at(read, || "looking through the dead letters".to_owned());
        }
        Ok(found)
    }

    /// Whether it is this dead letter: by its key, its alert's id, or where the alert was in the queue, which is all that the log can say of
    /// one whose bytes could not be decoded.
    fn is_named(&self, dead: &Dead) -> bool {
        super::dlq::is_named(dead, &[self.id.to_owned()]) || dead.letter.entry.as_deref() == Some(self.id)
    }

    /// Which of the waiting ones were sent to be enriched anew, by their keys.
    async fn again(&self, stored: &[(Held, Story)]) -> anyhow::Result<BTreeSet<String>> {
        let mut again = BTreeSet::new();
        for (held, story) in stored {
            again.extend(self.queue.sent_again(held, &story.id).await?);
        }
        Ok(again)
    }

    async fn waiting(&self) -> anyhow::Result<Vec<Held>> {
        let mut found = Vec::new();
        let mut walk = self.queue.walk(Place::Queue);
        let mut read = 0;
        let mut progress = Progress::of(None);
        loop {
            let page = walk.next().await?;
            if page.is_empty() {
                return Ok(found);
            }
            read += page.len() as u64;
            let is_it = |held: &Held| {
                held.bytes.as_deref().is_some_and(|bytes| self.identifier.of(bytes).id.as_deref() == Some(self.id))
            };
            found.extend(page.into_iter().filter(is_it));
            progress.at(read, || "looking through what waits".to_owned());
            tokio::task::yield_now().await;
        }
    }
}

fn write_page<W: Write>(
    sheet: &mut Sheet<'_, W>,
    decoder: &Decoder,
    id: &str,
    found: &Found,
    with_alert: bool,
) -> std::io::Result<()> {
    let Found { stored, dead, waiting, again, by_key: _, unseen } = found;
    let all = stored.len() + dead.len() + waiting.len();
    if all > 1 {
        let parts = [(stored.len(), "stored"), (dead.len(), "dead"), (waiting.len(), "waiting")];
        let parts = parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}"));
        let line = format!("{all} share the id {id}: {}", parts.collect::<Vec<_>>().join(", "));
        sheet.paragraph("", line)?;
        sheet.gap()?;
    }
    let observables = |bytes: &Bytes| -> Vec<Observable> {
        let decoded = decoder.decode(bytes.clone(), Timestamp::UNIX_EPOCH);
        decoded.map(|alert| alert.observables.to_vec()).unwrap_or_default()
    };
    // An original that several share is shown once.
    let mut shown = BTreeSet::new();
    let mut number = 0;
    let mut original = |sheet: &mut Sheet<'_, W>, bytes: &[u8]| -> std::io::Result<()> {
        number += 1;
        if with_alert && shown.insert(crate::digest::sha256(bytes.trim_ascii())) {
            sheet.heading("Alert")?;
            write_original(bytes, "--json gives all of it", sheet.out())?;
        }
        if number < all {
            sheet.gap()?;
            let rule = "─".repeat(sheet.room(0).min(40));
            sheet.paragraph("", rule)?;
            sheet.gap()?;
        }
        Ok(())
    };
    for (held, story) in stored {
        page::write_record(sheet, &held.key, story)?;
        original(sheet, story.alert.get().as_bytes())?;
    }
    for (dead, body) in dead {
        page::write_dead(sheet, dead, &observables(body))?;
        original(sheet, body)?;
    }
    for held in waiting {
        let bytes = held.bytes.clone().unwrap_or_default();
        page::write_waiting(sheet, id, &held.key, again.contains(&held.key), &observables(&bytes))?;
        original(sheet, &bytes)?;
    }
    if *unseen > 0 {
        remark(&format!("{} alerts wait, which were not looked through for another of this id", grouped(*unseen)));
    }
    Ok(())
}

fn write_json<W: Write>(id: &str, found: &Found, out: &mut Out<W>) -> anyhow::Result<()> {
    #[derive(serde::Serialize)]
    struct Stored<'a> {
        key: &'a str,
        record: &'a RawValue,
    }
    #[derive(serde::Serialize)]
    struct Told<'a> {
        id: &'a str,
        stored: Vec<Stored<'a>>,
        dead: Vec<serde_json::Map<String, serde_json::Value>>,
        waiting: Vec<serde_json::Map<String, serde_json::Value>>,
        waiting_not_looked_at: u64,
    }
    let stored = found.stored.iter().filter_map(|(held, _)| {
        let record = serde_json::from_slice(held.bytes.as_deref()?).ok()?;
        Some(Stored { key: &held.key, record })
    });
    let waiting = found.waiting.iter().map(|held| {
        let key = std::iter::once(("key".to_owned(), held.key.as_str().into())).collect();
        with_body(key, held.bytes.as_deref().unwrap_or_default())
    });
    let dead = found.dead.iter().map(|(dead, body)| Ok(with_body(json(dead)?, body)));
    let told = Told {
        id,
        stored: stored.collect(),
        dead: dead.collect::<anyhow::Result<_>>()?,
        waiting: waiting.collect(),
        waiting_not_looked_at: found.unseen,
    };
    serde_json::to_writer(&mut *out, &told)?;
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_be_given_as_it_is_shown() {
        for id in ["x\u{1b}[31mred", "\0\n\r\t\u{202e}", "a\\\u{7}b"] {
            assert_eq!(raw(&printable(id)).as_deref(), Some(id), "{}", printable(id));
        }
        for id in ["", "plain", "C:\\users", "\\", "\\u{", "\\u{}", "\\u{110000}", "\\ä"] {
            assert_eq!(raw(id), None, "{id}");
        }
    }
}
