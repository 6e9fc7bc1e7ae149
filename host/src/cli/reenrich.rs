//! `dossier reenrich`: sends stored alerts through the pipeline again. Which they are is found out first, so that nothing is sent before it is
//! sure that a digest means one version; then they are sent, one after the other.
//!
//! What is still to be done is what still fits: a record that was replaced is younger than the command, so that a command that was killed is
//! simply begun again.

mod choice;

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroU32;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::queue::{Again, Place, Queue, Resent};

use super::dlq::change::Pace;
use super::dlq::digest;
use super::output::{Out, Progress, complain, count, duration, grouped, printable, remark};
use super::{FAILED, INTERRUPTED, interrupted};

use self::choice::{Chosen, Sieve};

/// What to enrich anew.
#[derive(Debug, Default, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["all", "digest", "step", "since"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  dossier reenrich --digest 4f2a90c1 --dry-run    What did that version of a plugin answer?
  dossier reenrich --digest 4f2a90c1 --rate 200   Those anew, no more than 200 a second
  dossier reenrich --step geo --since 2h          What that step answered in the last two hours
  dossier reenrich --since 2026-11-21T10:00:00Z --before 2026-11-21T12:00:00Z
  dossier reenrich --step geo --since 7d --limit 100")]
pub struct Arguments {
    /// What was stored by a plugin with this SHA-256; its first 8 digits or more
    #[arg(long, value_name = "HEX", value_parser = digest)]
    digest: Option<String>,
    /// What was stored with a result of this step, or without one because its plugin was absent or failed
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// What was enriched at this moment or later, as in 2026-11-21T10:00:00Z; or so long ago at most: 90m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = choice::moment)]
    since: Option<Timestamp>,
    /// What was enriched before this moment; without it, before the command began
    #[arg(long, value_name = "TIME", value_parser = choice::moment)]
    before: Option<Timestamp>,
    /// The whole store
    #[arg(long, conflicts_with_all = ["digest", "step", "since"])]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// At most so many a second: what arrives meanwhile waits behind what is sent again
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Show how many would be sent, and whose answers they hold; change nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line for each, for scripts
    #[arg(long)]
    json: bool,
}

/// Sends them.
///
/// # Errors
/// A digest is not of one version, the queue cannot be asked, or the output cannot be written.
pub async fn reenrich<W: Write>(
    queue: &dyn Queue,
    arguments: &Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let began = Timestamp::now();
    let mut interrupt = std::pin::pin!(interrupted());
    let mut sieve = Sieve::new(arguments, arguments.before.unwrap_or(began).min(began));
    let limit = arguments.limit.unwrap_or(u64::MAX);
    let found = tokio::select! {
        found = look(queue, &mut sieve, arguments, limit, out) => found?,
        () = &mut interrupt => return Ok(ExitCode::from(INTERRUPTED)),
    };
    if arguments.dry_run {
        if !arguments.json {
            found.write(out)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(rate) = arguments.rate.filter(|_| found.chosen > 0) {
        let time = duration(std::time::Duration::from_secs_f64(found.chosen as f64 / f64::from(rate.get())));
        remark(&format!("{} at {rate} a second: about {time}", count(found.chosen, "alert")));
    }
    let mut sent = Sent { pace: Pace::new(arguments.rate), of: found.chosen, ..Sent::default() };
    let ended = tokio::select! {
        ended = sent.send(queue, &mut sieve, arguments.json, out) => Some(ended),
        () = &mut interrupt => None,
    };
    sent.finish(ended, arguments, began, out)
}

/// What was found in the store.
#[derive(Default)]
struct Found {
    records: u64,
    chosen: u64,
    /// Records that are none, or hold what cannot be sent.
    foreign: u64,
    /// How many hold an answer of which version: step, plugin, version, digest.
    versions: BTreeMap<[String; 4], u64>,
}

/// Goes through the store, and counts what is chosen.
async fn look<W: Write>(
    queue: &dyn Queue,
    sieve: &mut Sieve<'_>,
    arguments: &Arguments,
    limit: u64,
    out: &mut Out<W>,
) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut walk = queue.walk(Place::Store);
    let mut progress = Progress::of(None);
    loop {
        let page = walk.next().await?;
        if page.is_empty() {
            return Ok(found);
        }
        for held in &page {
            found.records += 1;
            let Some(chosen) = sieve.choose(held)? else {
                found.foreign += u64::from(sieve.was_foreign);
                continue;
            };
            if found.chosen == limit {
                continue;
            }
            found.chosen += 1;
            if let Some(version) = chosen.version {
                *found.versions.entry(version).or_default() += 1;
            }
            if arguments.dry_run && arguments.json {
                write_json(&held.key, &chosen.again.id, "would-send", out)?;
            }
        }
        progress.at(found.records, || format!("{} to be enriched anew", grouped(found.chosen)));
        // Between two pages whoever wants to interrupt this is heard.
        tokio::task::yield_now().await;
    }
}

impl Found {
    fn write<W: Write>(&self, out: &mut Out<W>) -> std::io::Result<()> {
        for ([step, plugin, version, digest], number) in &self.versions {
            let digest = digest.get(..12).unwrap_or(digest);
            let [step, plugin, version] = [step, plugin, version].map(|word| printable(word));
            writeln!(out, "{number:>9}  {step}: plugin {plugin} {version}, digest {}", printable(digest))?;
        }
        if self.foreign > 0 {
            writeln!(out, "{:>9}  no record of this program, left as they are", self.foreign)?;
        }
        writeln!(out, "would send {} of {}", self.chosen, count(self.records, "record"))
    }
}

/// What was done.
#[derive(Default)]
struct Sent {
    pace: Pace,
    /// How many there are to be sent.
    of: u64,
    sent: u64,
    waits: u64,
    gone: u64,
}

impl Sent {
    /// Goes through the store and sends what is chosen, no more than there are to be. Stops between two of them at most.
    async fn send<W: Write>(
        &mut self,
        queue: &dyn Queue,
        sieve: &mut Sieve<'_>,
        as_json: bool,
        out: &mut Out<W>,
    ) -> anyhow::Result<()> {
        let mut progress = Progress::of(Some(self.of));
        let mut walk = queue.walk(Place::Store);
        loop {
            let page = walk.next().await?;
            if page.is_empty() {
                return Ok(());
            }
            for held in &page {
                if self.done() == self.of {
                    return Ok(());
                }
                let Some(Chosen { again, .. }) = sieve.choose(held)? else { continue };
                self.pace.turn().await;
                self.one(queue, &again, as_json, out).await?;
                progress.at(self.done(), || "sent".to_owned());
            }
        }
    }

    fn done(&self) -> u64 {
        self.sent + self.waits + self.gone
    }

    async fn one<W: Write>(
        &mut self,
        queue: &dyn Queue,
        again: &Again,
        as_json: bool,
        out: &mut Out<W>,
    ) -> anyhow::Result<()> {
        let resent = queue.reenrich(again).await.with_context(|| format!("alert \"{}\"", printable(&again.id)))?;
        let (number, outcome) = match resent {
            Resent::Sent => (&mut self.sent, "sent"),
            Resent::Waits => (&mut self.waits, "waits"),
            Resent::Gone => (&mut self.gone, "gone"),
        };
        *number += 1;
        if as_json {
            write_json(&again.held.key, &again.id, outcome, out)?;
        }
        Ok(())
    }

    /// Says how far it came however it ended.
    fn finish<W: Write>(
        &self,
        ended: Option<anyhow::Result<()>>,
        arguments: &Arguments,
        began: Timestamp,
        out: &mut Out<W>,
    ) -> anyhow::Result<ExitCode> {
        let code = match &ended {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                complain(&format!("{error:#}"));
                ExitCode::from(FAILED)
            }
            None => ExitCode::from(INTERRUPTED),
        };
        if !matches!(ended, Some(Ok(()))) {
            let before = arguments.before.unwrap_or(began).min(began);
            complain(&format!(
                "sent {} of {}; the same command with --before {before} does the rest",
                self.done(),
                count(self.of, "alert")
            ));
            return Ok(code);
        }
        if arguments.json {
            return Ok(code);
        }
        let waits = if self.waits > 0 { format!(", on their way already {}", self.waits) } else { String::new() };
        let gone = if self.gone > 0 { format!(", gone or replaced meanwhile {}", self.gone) } else { String::new() };
        writeln!(out, "sent {}{waits}{gone}", self.sent)?;
        if self.sent > 0 {
            remark(
                "each record stays until a host has enriched its alert anew; one that fails keeps it, and the log says why (outcome \"kept\")",
            );
        }
        Ok(code)
    }
}

fn write_json<W: Write>(key: &str, id: &str, outcome: &str, out: &mut Out<W>) -> std::io::Result<()> {
    writeln!(out, "{}", serde_json::json!({ "key": key, "id": id, "outcome": outcome }))
}

/// What a record is known by for the tests of this module's parts.
#[cfg(test)]
fn held(key: &str, record: &serde_json::Value) -> crate::queue::Held {
    crate::queue::Held { key: key.to_owned(), bytes: Some(record.to_string().into()) }
}
