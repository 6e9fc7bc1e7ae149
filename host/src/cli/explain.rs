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
  dossier explain 1763715600000-0            A dead letter, by its key
  dossier explain RULE-002-17 --json | jq '.stored[].record.verdict'

Exit codes:
  0    It is stored, or dead
  1    Nothing is known of it
  3    It waits in the queue")]
pub struct Arguments {
    /// The alert's id, as the log says it; or the key of a dead letter
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
    /// How many wait and were not looked at.
    unseen: u64,
}

impl Found {
    fn is_at_rest(&self) -> bool {
        !self.stored.is_empty() || !self.dead.is_empty()
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
    let search = Search { queue, identifier: Identifier::new(config), id: &arguments.id };
    let found = tokio::select! {
        found = search.everywhere() => found?,
        () = interrupted() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let code = match (found.is_at_rest(), found.waiting.is_empty()) {
        (true, _) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(WAITS),
        (false, true) => bail!(
            "no alert has the id \"{}\", and no dead letter that key: it is neither stored, nor dead, nor waiting; what is older than \
             [store] retention is gone, and what has no id of its own is known by the one that its log line says",
            printable(&arguments.id)
        ),
    };
    if arguments.json {
        write_json(&arguments.id, &found, out)?;
    } else {
        let mut sheet = Sheet::new(out);
        write_page(&mut sheet, &Decoder::new(&config.alert), &arguments.id, &found, !arguments.no_alert)?;
    }
    Ok(code)
}

/// A search for one id.
struct Search<'a> {
    queue: &'a dyn Queue,
    identifier: Identifier,
    id: &'a str,
}

impl Search<'_> {
    /// Looks into the store and through the dead letters, and through what waits where that is little or nothing else was found.
    async fn everywhere(&self) -> anyhow::Result<Found> {
        let mut found = self.at_rest().await?;
        let depth = self.queue.depth().await?;
        let there = depth.waiting + depth.in_flight;
        if found.is_at_rest() && there > FEW {
            found.unseen = there;
            return Ok(found);
        }
        let waiting = self.waiting().await?;
        if !found.is_at_rest() {
            // It may have come to its end while this looked elsewhere.
            found = self.at_rest().await?;
        }
        Ok(Found { waiting, ..found })
    }

    async fn at_rest(&self) -> anyhow::Result<Found> {
        let mut found = Found::default();
        for held in self.queue.stored(self.id).await? {
            let Some(story) = held.bytes.as_deref().and_then(|record| Story::read(record).ok()) else { continue };
            let identity = held.bytes.as_deref().and_then(|record| self.identifier.of_record(record));
            // Beside an id may stand one that only begins like it.
            if story.id == self.id || identity.and_then(|identity| identity.id).as_deref() == Some(self.id) {
                found.stored.push((held, story));
            }
        }
        let ids = [self.id.to_owned()];
        let mut pages = Pages::new(self.queue);
        let mut read = 0;
        let mut progress = Progress::of(None);
        while let Some(page) = pages.next().await? {
            read += page.len() as u64;
            for dead in page.into_iter().filter(|dead| super::dlq::is_named(dead, &ids)) {
                if let Some(body) = self.queue.dead_body(&dead.key).await? {
                    found.dead.push((dead, body));
                }
            }
            progress.at(read, || "looking through the dead letters".to_owned());
        }
        Ok(found)
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
    let Found { stored, dead, waiting, unseen } = found;
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
        page::write_waiting(sheet, id, &held.key, &observables(&bytes))?;
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
