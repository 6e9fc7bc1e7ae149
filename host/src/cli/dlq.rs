//! `dossier dlq`: what people ask of the dead letters, and how they name them. What is done to them is the queue's job.

pub(super) mod change;
mod list;
mod rehearse;
mod replay;
pub(super) mod show;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use crate::config::Config;
use crate::dead_letter::Reason;
use crate::queue::{Dead, Queue, QueueError};

use super::output::{Out, printable};

/// How many dead letters are asked for at once.
const PAGE: usize = 500;

/// What to do with dead letters.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List what failed and why, the oldest first
    #[command(after_help = "\
Examples:
  dossier dlq list
  dossier dlq list --reason timeout --step geo
  dossier dlq list --json | jq -r .reason | sort | uniq -c")]
    List(list::Arguments),

    /// Show all that is known of a dead letter, and its original
    #[command(after_help = "\
Examples:
  dossier dlq show 1763715600000-0
  dossier dlq show RULE-002-17               All of that alert's dead letters
  dossier dlq show --raw 1763715600000-0 > alert.json")]
    Show(show::Arguments),

    /// Put dead letters back into the queue
    ///
    /// Each goes back in one atomic step and keeps its attempts and how they ended. Only what is dead when this begins is replayed: what
    /// fails again meanwhile stays. Take IDs, a filter, or --all. When it is killed, nothing is lost or doubled: what is still
    /// dead is what is still to be done.
    #[command(override_usage = "dossier dlq replay [OPTIONS] <ID>...\n       \
        dossier dlq replay [OPTIONS] <--all|--reason <REASON>|--step <STEP>|--digest <HEX>>")]
    #[command(after_help = "\
Examples:
  dossier dlq replay 1763715600000-0
  dossier dlq replay --step geo --dry-run    What would it take?
  dossier dlq replay --reason unavailable    The API is back: try those
  dossier dlq replay --digest 4f2a90c1       What that version of a plugin failed on
  dossier dlq replay --all --rate 50         No more than 50 a second
  dossier dlq replay --step geo --with new/geo.wasm --dry-run
                                             Which would pass with this version?
  dossier dlq replay --step geo --with new/geo.wasm
                                             Replay those, and leave the others")]
    Replay(replay::Replay),

    /// Delete dead letters for good
    #[command(after_help = "\
Examples:
  dossier dlq drop 1763715600000-0
  dossier dlq drop --yes RULE-002-17         Do not ask: for scripts")]
    Drop(change::Drop),
}

/// Which dead letters.
#[derive(Debug, Default, clap::Args)]
pub struct Filter {
    /// Only what failed for this reason
    #[arg(long, value_name = "REASON", value_parser = reason())]
    reason: Option<Reason>,
    /// Only what failed in this step
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Only what failed in a plugin with this SHA-256; its first 8 digits or more
    #[arg(long, value_name = "HEX", value_parser = digest)]
    digest: Option<String>,
}

/// A SHA-256 or the beginning of one, in lower case.
pub(super) fn digest(text: &str) -> Result<String, String> {
    if !(8..=64).contains(&text.len()) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("a digest has 8 to 64 hexadecimal digits, as `dossier dlq show` and the log print them".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

fn reason() -> impl clap::builder::TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str)).try_map(|text| text.parse::<Reason>())
}

/// Takes what a filter lets through, and sees to it that a digest means one version only.
struct Sieve<'a> {
    filter: &'a Filter,
    /// The whole digest, once something had it.
    digest: Option<String>,
}

impl<'a> Sieve<'a> {
    fn new(filter: &'a Filter) -> Self {
        Self { filter, digest: None }
    }

    /// Whether a dead letter is let through.
    ///
    /// # Errors
    /// The filter's digest is the beginning of this one's and of another one's.
    fn takes(&mut self, dead: &Dead) -> anyhow::Result<bool> {
        let Filter { reason, step, digest } = self.filter;
        let failed = dead.letter.step.as_ref();
        if reason.is_some_and(|reason| dead.letter.reason != reason)
            || step.as_ref().is_some_and(|step| failed.is_none_or(|failed| failed.step != *step))
        {
            return Ok(false);
        }
        let Some(digest) = digest else { return Ok(true) };
        let Some(failed) = failed.filter(|failed| failed.sha256.starts_with(digest)) else { return Ok(false) };
        match &self.digest {
            Some(known) if *known != failed.sha256 => bail!(
                "the digest {digest} is the beginning of {known} and of {}; nothing was changed; give more digits",
                printable(&failed.sha256)
            ),
            Some(_) => {}
            None => self.digest = Some(failed.sha256.clone()),
        }
        Ok(true)
    }

    /// Those of a page that are let through.
    ///
    /// # Errors
    /// As [`Self::takes`].
    fn sift(&mut self, page: Vec<Dead>) -> anyhow::Result<Vec<Dead>> {
        let mut taken = Vec::with_capacity(page.len());
        for dead in page {
            if self.takes(&dead)? {
                taken.push(dead);
            }
        }
        Ok(taken)
    }
}

/// Does what is asked.
///
/// # Errors
/// The queue cannot be asked, an ID is unknown, or the output cannot be written.
pub async fn execute<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    command: Command,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => list::list(queue, &arguments, out).await,
        Command::Show(arguments) => show::show(queue, &arguments, out).await,
        Command::Replay(arguments) => replay::replay(queue, config, &arguments, out).await,
        Command::Drop(arguments) => change::drop(queue, &arguments, out).await,
    }
}

/// All dead letters, the oldest first, a page at a time.
pub(super) struct Pages<'a> {
    queue: &'a dyn Queue,
    after: Option<String>,
    done: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(queue: &'a dyn Queue) -> Self {
        Self { queue, after: None, done: false }
    }

    /// The next page; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Dead>>, QueueError> {
        if self.done {
            return Ok(None);
        }
        let page = self.queue.dead(self.after.as_deref(), PAGE).await?;
        let last = page.last().map(|dead| dead.key.clone());
        // A short page is not the last one: what was moved away while it was read is missing from it.
        self.done = last.is_none() || last == self.after;
        self.after = last;
        Ok((!page.is_empty()).then_some(page))
    }
}

/// Whether a dead letter is named: by its key, or by its alert's id.
pub(super) fn is_named(dead: &Dead, ids: &[String]) -> bool {
    ids.iter().any(|id| *id == dead.key || Some(id) == dead.letter.id.as_ref())
}

/// Calls `take` for each dead letter that is named.
///
/// # Errors
/// The queue cannot be asked; or an ID is unknown: it is named.
async fn find(queue: &dyn Queue, ids: &[String], mut take: impl FnMut(Dead)) -> anyhow::Result<()> {
    let mut unknown: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let mut pages = Pages::new(queue);
    while let Some(page) = pages.next().await? {
        for dead in page.into_iter().filter(|dead| is_named(dead, ids)) {
            unknown.remove(dead.key.as_str());
            if let Some(id) = &dead.letter.id {
                unknown.remove(id.as_str());
            }
            take(dead);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = unknown.iter().map(|id| format!("\"{}\"", printable(id))).collect();
    bail!(
        "no dead letter has the key or alert id {}; nothing was changed; see `dossier dlq list` for those that there are",
        names.join(" or ")
    )
}

/// A dead letter as one JSON object, for scripts.
pub(super) fn json(dead: &Dead) -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
    let mut object = serde_json::Map::new();
    object.insert("key".to_owned(), dead.key.as_str().into());
    object.insert("size".to_owned(), dead.size.into());
    if let serde_json::Value::Object(letter) = serde_json::to_value(&dead.letter)? {
        object.extend(letter);
    }
    Ok(object)
}

/// The same with the original: as `body`, or as `body_hex` if it is no text.
pub(super) fn with_body(
    mut object: serde_json::Map<String, serde_json::Value>,
    body: &[u8],
) -> serde_json::Map<String, serde_json::Value> {
    match std::str::from_utf8(body) {
        Ok(text) => object.insert("body".to_owned(), text.into()),
        Err(_) => object.insert("body_hex".to_owned(), hex::encode(body).into()),
    };
    object
}
