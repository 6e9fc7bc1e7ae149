//! `dossier dlq replay` and `drop`: what moves dead letters, and what deletes them. Both first find out which they are, so
//! that a letter that fails again while they work is not taken a second time.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::output::{Out, Progress, complain, count, printable};
use crate::cli::{FAILED, INTERRUPTED, interrupted};
use crate::queue::{Dead, Queue};

use super::{Filter, Pages, Sieve, find, list};

/// What to replay.
#[derive(Debug, Default, clap::Args)]
#[command(group = clap::ArgGroup::new("which").args(["ids", "all", "reason", "step", "digest"]).required(true).multiple(true))]
pub struct Replay {
    /// Keys, or alerts' ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Show what would be replayed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line for each, for scripts
    #[arg(long)]
    json: bool,
}

/// What to delete.
#[derive(Debug, Default, clap::Args)]
pub struct Drop {
    /// Keys, or alerts' ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// One JSON object a line for each, for scripts
    #[arg(long)]
    json: bool,
}

/// What is to be changed.
struct Target {
    key: String,
    id: Option<String>,
}

impl From<&Dead> for Target {
    fn from(dead: &Dead) -> Self {
        Self { key: dead.key.clone(), id: dead.letter.id.clone() }
    }
}

/// Puts them back into the queue.
///
/// # Errors
/// An ID is unknown, a digest is not of one version, the queue cannot be asked, or the output cannot be written.
pub async fn replay<W: Write>(queue: &dyn Queue, arguments: &Replay, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let mut targets = Vec::new();
    let mut sieve = Sieve::new(&arguments.filter);
    let mut first = true;
    // With a dry run the table is written while it is read.
    let mut take = |page: Vec<Dead>, out: &mut Out<W>| -> std::io::Result<()> {
        targets.extend(page.iter().map(Target::from));
        if arguments.dry_run && !arguments.json && !page.is_empty() {
            list::write_table(&page, std::mem::take(&mut first), out)?;
        }
        Ok(())
    };
    if arguments.ids.is_empty() {
        let mut pages = Pages::new(queue);
        while let Some(page) = pages.next().await? {
            take(sieve.sift(page)?, out)?;
        }
    } else {
        let mut named = Vec::new();
        find(queue, &arguments.ids, |dead| named.push(dead)).await?;
        take(sieve.sift(named)?, out)?;
    }
    if arguments.dry_run {
        if arguments.json {
            targets.iter().try_for_each(|target| write_json(target, "would-replay", out))?;
        } else {
            writeln!(out, "would replay {}", targets.len())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    change(queue, Change::Replay, targets, arguments.json, out).await
}

/// Deletes them for good.
///
/// # Errors
/// An ID is unknown, the queue cannot be asked, or the output cannot be written.
pub async fn drop<W: Write>(queue: &dyn Queue, arguments: &Drop, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    if !arguments.yes && !std::io::stdin().is_terminal() {
        complain(
            "drop deletes for good and asks before, but nobody is there to answer; add --yes to delete all the same",
        );
        return Ok(ExitCode::from(FAILED));
    }
    let mut targets = Vec::new();
    find(queue, &arguments.ids, |dead| targets.push(Target::from(&dead))).await?;
    if !arguments.yes && !confirm(&targets)? {
        complain("nothing was deleted");
        return Ok(ExitCode::from(FAILED));
    }
    change(queue, Change::Drop, targets, arguments.json, out).await
}

fn confirm(targets: &[Target]) -> anyhow::Result<bool> {
    let which = match targets {
        [target] => format!("the dead letter {}", printable(&target.key)),
        _ => count(targets.len() as u64, "dead letter"),
    };
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "Delete {which} for good, with the original? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Clone, Copy)]
enum Change {
    Replay,
    Drop,
}

impl Change {
    fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Drop => "dropped",
        }
    }

    async fn apply(self, queue: &dyn Queue, key: &str) -> Result<bool, crate::queue::QueueError> {
        match self {
            Self::Replay => queue.replay(key).await,
            Self::Drop => queue.discard(key).await,
        }
    }
}

/// Changes one after the other, and says how far it came however it ends. A reader of the output that leaves does not end it.
async fn change<W: Write>(
    queue: &dyn Queue,
    change: Change,
    targets: Vec<Target>,
    as_json: bool,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::of(Some(targets.len() as u64));
    let mut interrupt = std::pin::pin!(interrupted());
    let (mut done, mut gone) = (0_u64, 0_u64);
    let mut code = ExitCode::SUCCESS;
    for target in &targets {
        // Between two of them, so that what was begun is finished and counted.
        tokio::select! {
            biased;
            () = &mut interrupt => {
                code = ExitCode::from(INTERRUPTED);
                break;
            }
            () = std::future::ready(()) => {}
        }
        let outcome = match change.apply(queue, &target.key).await {
            Ok(true) => {
                done += 1;
                change.done()
            }
            Ok(false) => {
                gone += 1;
                "gone"
            }
            Err(error) => {
                complain(&format!("dead letter \"{}\": {error}", target.key));
                code = ExitCode::from(FAILED);
                break;
            }
        };
        if as_json {
            write_json(target, outcome, out)?;
        }
        progress.at(done + gone, || change.done().to_owned());
    }
    std::mem::drop(progress);
    let left = targets.len() as u64 - done - gone;
    if left > 0 {
        complain(&format!("{} {done}; {} left as they were; the same command again goes on", change.done(), left));
    } else if !as_json {
        let gone = if gone > 0 { format!(", gone already {gone}") } else { String::new() };
        writeln!(out, "{} {done}{gone}", change.done())?;
    }
    Ok(code)
}

fn write_json<W: Write>(target: &Target, outcome: &str, out: &mut Out<W>) -> std::io::Result<()> {
    let line = serde_json::json!({ "key": target.key, "id": target.id, "outcome": outcome });
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;
    use crate::dead_letter::Reason;

    fn filled() -> MemoryQueue {
        let queue = MemoryQueue::default();
        queue.bury("1-0", Some("a"), Reason::Timeout, "geo", b"1");
        queue.bury("2-0", Some("a"), Reason::Trap, "asset", b"2");
        queue.bury("3-0", None, Reason::Malformed, "-", b"3");
        queue
    }

    async fn replayed(queue: &MemoryQueue, arguments: Replay) -> anyhow::Result<String> {
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        replay(queue, &arguments, &mut out).await?;
        out.finish()?;
        std::mem::drop(out);
        Ok(String::from_utf8(text)?)
    }

    #[tokio::test]
    async fn all_are_replayed_once_though_they_fail_again_at_once() {
        let queue = filled();
        queue.fail_again();
        let said = replayed(&queue, Replay { all: true, ..Replay::default() }).await.unwrap();
        assert_eq!(said, "replayed 3\n");
        assert_eq!(queue.keys(), ["91-0", "92-0", "93-0"]);
    }

    #[tokio::test]
    async fn an_alert_id_stands_for_all_its_letters_and_a_filter_narrows_them() {
        let queue = filled();
        let filter = Filter { reason: Some(Reason::Trap), ..Filter::default() };
        let said = replayed(&queue, Replay { ids: vec!["a".into()], filter, ..Replay::default() }).await.unwrap();
        assert_eq!(said, "replayed 1\n");
        let said = replayed(&queue, Replay { ids: vec!["a".into(), "3-0".into()], ..Replay::default() }).await.unwrap();
        assert_eq!(said, "replayed 2\n");
        assert_eq!(queue.waiting(), [&b"2"[..], b"1", b"3"]);
    }

    #[tokio::test]
    async fn a_digest_stands_for_the_victims_of_one_version_and_for_nothing_when_it_could_be_two() {
        let queue = MemoryQueue::default();
        for (key, sha256) in [("1-0", "abcdef0011"), ("2-0", "abcdef0022"), ("3-0", "abcdef0011"), ("4-0", "99")] {
            queue.bury_with(key, sha256, key.as_bytes());
        }
        let by = |digest: &str| Replay {
            filter: Filter { digest: Some(digest.into()), ..Filter::default() },
            ..Replay::default()
        };
        let error = replayed(&queue, by("abcdef00")).await.unwrap_err().to_string();
        assert!(error.contains("abcdef0011") && error.contains("abcdef0022"), "{error}");
        assert_eq!(queue.keys().len(), 4);
        assert_eq!(replayed(&queue, by("abcdef001")).await.unwrap(), "replayed 2\n");
        assert_eq!(queue.keys(), ["2-0", "4-0"]);
        assert_eq!(replayed(&queue, by("abcdef00")).await.unwrap(), "replayed 1\n");
        assert_eq!(replayed(&queue, by("12345678")).await.unwrap(), "replayed 0\n");
        assert_eq!(crate::cli::dlq::digest("ABCDEF00").unwrap(), "abcdef00");
        for wrong in ["abcdef0", "abcdefgh", &"a".repeat(65)] {
            assert!(crate::cli::dlq::digest(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_unknown_id_changes_nothing() {
        let queue = filled();
        let ids = vec!["1-0".into(), "nobody".into()];
        let error = replayed(&queue, Replay { ids: ids.clone(), ..Replay::default() }).await.unwrap_err().to_string();
        assert!(error.contains("\"nobody\"") && !error.contains("1-0"), "{error}");
        let dropped = drop(&queue, &Drop { ids, yes: true, json: false }, &mut Out::new(Vec::new())).await;
        assert!(dropped.is_err());
        assert_eq!(queue.keys().len(), 3);
    }

    #[tokio::test]
    async fn a_dry_run_changes_nothing_and_shows_what_it_would_take() {
        let queue = filled();
        let said = replayed(&queue, Replay { all: true, dry_run: true, ..Replay::default() }).await.unwrap();
        assert!(said.ends_with("would replay 3\n") && said.contains("2-0"), "{said}");
        let said =
            replayed(&queue, Replay { all: true, dry_run: true, json: true, ..Replay::default() }).await.unwrap();
        assert_eq!(said.lines().next(), Some(r#"{"id":"a","key":"1-0","outcome":"would-replay"}"#));
        assert_eq!(queue.keys().len(), 3);
    }

    #[tokio::test]
    async fn what_is_gone_meanwhile_is_counted() {
        let queue = filled();
        let targets = vec![Target { key: "1-0".into(), id: None }, Target { key: "0-0".into(), id: None }];
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        change(&queue, Change::Drop, targets, false, &mut out).await.unwrap();
        std::mem::drop(out);
        assert_eq!(text, b"dropped 1, gone already 1\n");
        assert_eq!(queue.keys(), ["2-0", "3-0"]);
    }

    #[tokio::test]
    async fn nothing_is_dropped_without_yes_where_nobody_can_answer() {
        let queue = filled();
        if !std::io::stdin().is_terminal() {
            let arguments = Drop { ids: vec!["1-0".into()], ..Drop::default() };
            drop(&queue, &arguments, &mut Out::new(Vec::new())).await.unwrap();
            assert_eq!(queue.keys().len(), 3);
        }
    }
}
