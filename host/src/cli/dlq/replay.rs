//! `dossier dlq replay`: puts dead letters back into the queue, as they are named or filtered, as fast as is wanted.
//!
//! What is still to be done is what still lies in the dead letters, so that a replay that was killed is simply begun again.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use crate::cli::output::{Out, count, duration, remark};
use crate::config::Config;
use crate::queue::{Dead, Queue};

use super::change::{Change, Pace, Target, change, write_json};
use super::{Filter, Pages, Sieve, find, list, rehearse};

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
    /// Only what failed before this moment, as in 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME")]
    before: Option<Timestamp>,
    /// At most so many a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Replay only those that pass with this component in the place of the plugin of its name
    ///
    /// Each original runs through all steps first, as a host would run it: with the configuration's tables, settings, grants
    /// and limits, and HTTP is really asked. Put the component into the plugins folder as well: a host runs what lies there.
    #[arg(long, value_name = "WASM")]
    with: Option<PathBuf>,
    /// Show what would be replayed, and change nothing; with --with, which would pass and why the others would not
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line for each, for scripts
    #[arg(long)]
    json: bool,
}

/// Puts them back into the queue.
///
/// # Errors
/// An ID is unknown, a digest is not of one version, a component cannot be tried, the queue cannot be asked, or the output
/// cannot be written.
pub async fn replay<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    arguments: &Replay,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let began = Timestamp::now();
    let mut targets = Vec::new();
    let mut sieve = Sieve::new(&arguments.filter);
    let mut first = true;
    let shows = arguments.dry_run && !arguments.json && arguments.with.is_none();
    // With a dry run the table is written while it is read.
    let mut take = |mut page: Vec<Dead>, out: &mut Out<W>| -> std::io::Result<()> {
        page.retain(|dead| arguments.before.is_none_or(|before| dead.letter.failed_at < before));
        targets.extend(page.iter().map(Target::from));
        if shows && !page.is_empty() {
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
    if arguments.dry_run && arguments.with.is_none() {
        if arguments.json {
            targets.iter().try_for_each(|target| write_json(target, "would-replay", out))?;
        } else {
            writeln!(out, "would replay {}", targets.len())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(rate) = arguments.rate.filter(|_| !arguments.dry_run && !targets.is_empty()) {
        let many = targets.len() as u64;
        let time = duration(Duration::from_secs_f64(many as f64 / f64::from(rate.get())));
        // Without the moment, what fails again until then would be taken a second time.
        let before = arguments.before.unwrap_or(began);
        remark(&format!(
            "{} at {rate} a second: about {time}; if this is killed, the same command with --before {before} does the rest",
            count(many, "dead letter")
        ));
    }
    let pace = Pace::new(arguments.rate);
    match &arguments.with {
        None => change(queue, Change::Replay, targets, &pace, arguments.json, out).await,
        Some(component) => {
            let manner = rehearse::Manner { moves: !arguments.dry_run, pace, json: arguments.json };
            rehearse::rehearse(queue, config, component, targets, &manner, out).await
        }
    }
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
        replay(queue, &crate::plugin::trial::standard(), &arguments, &mut out).await?;
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
    async fn an_unknown_id_is_named_and_nothing_is_replayed() {
        let queue = filled();
        let ids = vec!["1-0".into(), "nobody".into()];
        let error = replayed(&queue, Replay { ids, ..Replay::default() }).await.unwrap_err().to_string();
        assert!(error.contains("\"nobody\"") && !error.contains("1-0"), "{error}");
        assert_eq!(queue.keys().len(), 3);
    }

    #[tokio::test]
    async fn what_failed_later_is_left_alone() {
        let queue = filled();
        let before = |moment: &str| Replay { all: true, before: moment.parse().ok(), ..Replay::default() };
        assert_eq!(replayed(&queue, before("1970-01-01T00:00:00Z")).await.unwrap(), "replayed 0\n");
        assert_eq!(replayed(&queue, before("1970-01-01T00:00:01Z")).await.unwrap(), "replayed 3\n");
    }
}
