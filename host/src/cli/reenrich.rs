//! `dossier reenrich`: sends stored alerts through the pipeline again. Which they are is found out first, so that nothing is sent before it is
//! sure that a digest means one version; then they are sent, one after the other.
//!
//! What is still to be done is what still fits: a record that was replaced is younger than the command. So a command that was killed is begun
//! again with the moment at which it began, which it says first: `--before`. Without that it would take what was replaced meanwhile once more.

mod choice;

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use crate::config::Config;
use crate::digest::sha256_hex;
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
/// A digest is not of one version, no time is between --since and --before, the queue cannot be asked, or the output cannot be written.
pub async fn reenrich<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    arguments: &Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let began = Timestamp::now();
    let mut interrupt = std::pin::pin!(interrupted());
    let before = arguments.before.unwrap_or(began).min(began);
    if let Some(since) = arguments.since.filter(|since| *since >= before) {
        bail!(
            "no record was made at {since} or later and before {before}; give a --since that is earlier than --before and than now"
        );
    }
    let mut sieve = Sieve::new(arguments, before);
    let limit = arguments.limit.unwrap_or(u64::MAX);
    let found = tokio::select! {
        found = look(queue, &mut sieve, arguments, limit, out) => found?,
        () = &mut interrupt => return Ok(ExitCode::from(INTERRUPTED)),
    };
    if found.chosen == 0 {
        remark(&sieve.why_none(found.records));
    }
    if let Some(digest) = &arguments.digest {
        let plugins = config.plugins.dir.clone();
        let digest = digest.clone();
        for file in tokio::task::spawn_blocking(move || still_there(&plugins, &digest)).await? {
            remark(&format!(
                "{} is this very version: a host that runs it would answer the same again, but for its tables; put the mended one there first",
                printable(&file)
            ));
        }
    }
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
    if found.chosen > 0 {
        let limit = if arguments.limit.is_some() { " and a --limit that is lower by what was sent" } else { "" };
        remark(&format!(
            "if it is killed, the same command with {}{limit} does the rest",
            rest(arguments, before, None)
        ));
    }
    let mut sent = Sent { pace: Pace::new(arguments.rate), of: found.chosen, limit, ..Sent::default() };
    let ended = tokio::select! {
        ended = sent.send(queue, &mut sieve, arguments.json, out) => Some(ended),
        () = &mut interrupt => None,
    };
    sent.finish(ended, arguments, before, out)
}

/// What makes the same command take what is left: the times as moments, and how many there are still to be.
fn rest(arguments: &Arguments, before: Timestamp, sent: Option<u64>) -> String {
    let since = arguments.since.map(|since| format!("--since {since} ")).unwrap_or_default();
    let limit = arguments.limit.zip(sent).map(|(limit, sent)| format!(" --limit {}", limit.saturating_sub(sent)));
    format!("{since}--before {before}{}", limit.unwrap_or_default())
}

/// The files in the plugins folder whose SHA-256 begins like this. What cannot be read is the host's business.
fn still_there(plugins: &Path, digest: &str) -> Vec<String> {
    let files = std::fs::read_dir(plugins).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |file: &PathBuf| {
        file.extension().is_some_and(|extension| extension == "wasm")
            && std::fs::read(file).is_ok_and(|bytes| sha256_hex(&bytes).starts_with(digest))
    };
    files.filter(is_it).map(|file| file.display().to_string()).collect()
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
    /// How many there are to be sent, as far as it is known.
    of: u64,
    /// How many are sent at most. What is on its way already is not sent, so that what an earlier command has sent takes nobody's place.
    limit: u64,
    sent: u64,
    waits: u64,
    gone: u64,
    refused: u64,
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
                if self.sent == self.limit {
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
        (self.sent + self.waits + self.gone + self.refused).min(self.of)
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
            Resent::Refused => {
                complain(&format!(
                    "alert \"{}\" was not sent: what leads from its id to its record ({}) holds something else; remove it, or mend it",
                    printable(&again.id),
                    printable(&again.held.key)
                ));
                (&mut self.refused, "refused")
            }
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
        before: Timestamp,
        out: &mut Out<W>,
    ) -> anyhow::Result<ExitCode> {
        let code = match &ended {
            Some(Ok(())) if self.refused > 0 => ExitCode::from(FAILED),
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                complain(&format!("{error:#}"));
                ExitCode::from(FAILED)
            }
            None => ExitCode::from(INTERRUPTED),
        };
        if !matches!(ended, Some(Ok(()))) {
            complain(&format!(
                "sent {} of {}; the same command with {} does the rest",
                self.done(),
                count(self.of, "alert"),
                rest(arguments, before, Some(self.sent))
            ));
            return Ok(code);
        }
        if arguments.json {
            return Ok(code);
        }
        let waits = if self.waits > 0 { format!(", on their way already {}", self.waits) } else { String::new() };
        let gone = if self.gone > 0 { format!(", gone or replaced meanwhile {}", self.gone) } else { String::new() };
        let refused = if self.refused > 0 { format!(", refused {}", self.refused) } else { String::new() };
        writeln!(out, "sent {}{waits}{gone}{refused}", self.sent)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_moments_and_by_how_many() {
        let before: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let all = Arguments { all: true, ..Arguments::default() };
        assert_eq!(rest(&all, before, Some(3)), "--before 2026-01-02T00:00:00Z");
        let some =
            Arguments { since: Some("2026-01-01T00:00:00Z".parse().unwrap()), limit: Some(10), ..Arguments::default() };
        assert_eq!(
            rest(&some, before, Some(3)),
            "--since 2026-01-01T00:00:00Z --before 2026-01-02T00:00:00Z --limit 7"
        );
        assert_eq!(rest(&some, before, None), "--since 2026-01-01T00:00:00Z --before 2026-01-02T00:00:00Z");
    }

    #[test]
    fn a_version_that_still_lies_in_the_plugins_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let digest = sha256_hex(b"wrong");
        assert!(still_there(&folder.path().join("none"), &digest).is_empty());
        std::fs::write(folder.path().join("geo.txt"), "wrong").unwrap();
        std::fs::write(folder.path().join("asset.wasm"), "right").unwrap();
        assert!(still_there(folder.path(), &digest[..8]).is_empty());
        std::fs::write(folder.path().join("geo.wasm"), "wrong").unwrap();
        let found = still_there(folder.path(), &digest[..8]);
        assert!(found.len() == 1 && found[0].ends_with("geo.wasm"), "{found:?}");
    }
}
