//! What changes dead letters, one after the other, and `dossier dlq drop`. Which they are is found out first, so that a letter
//! that fails again meanwhile is not taken a second time.

use std::io::{IsTerminal as _, Write};
use std::num::NonZeroU32;
use std::process::ExitCode;

use anyhow::Context as _;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::cli::output::{Out, Progress, complain, count, printable};
use crate::cli::{FAILED, INTERRUPTED, interrupted};
use crate::dead_letter::Reason;
use crate::queue::{Dead, Queue};

use super::find;

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
pub(super) struct Target {
    /// Its key.
    pub key: String,
    /// The alert's id.
    pub id: Option<String>,
    /// Why it is dead.
    pub reason: Reason,
}

impl From<&Dead> for Target {
    fn from(dead: &Dead) -> Self {
        Self { key: dead.key.clone(), id: dead.letter.id.clone(), reason: dead.letter.reason }
    }
}

/// How fast one may follow the other.
#[derive(Default)]
pub struct Pace(Option<DefaultDirectRateLimiter>);

impl Pace {
    /// So many a second; none is as fast as it goes.
    pub fn new(rate: Option<NonZeroU32>) -> Self {
        Self(rate.map(|rate| {
            // A timer wakes no more often than every millisecond, so what comes faster comes a few at a time.
            let burst = NonZeroU32::new(rate.get() / 100).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
        }))
    }

    /// Waits for the next turn. Cancel safe.
    pub async fn turn(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(early) = limiter.check() {
            // Turns come with time and with nothing else.
            tokio::time::sleep(early.wait_time_from(DefaultClock::default().now())).await;
        }
    }
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
    change(queue, Change::Drop, targets, &Pace::new(None), arguments.json, out).await
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

/// What is done to them.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// Put back into the queue.
    Replay,
    /// Deleted for good.
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
///
/// # Errors
/// The output cannot be written.
pub(super) async fn change<W: Write>(
    queue: &dyn Queue,
    change: Change,
    targets: Vec<Target>,
    pace: &Pace,
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
            () = pace.turn() => {}
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

/// One line for scripts.
///
/// # Errors
/// The output cannot be written.
pub(super) fn write_json<W: Write>(target: &Target, outcome: &str, out: &mut Out<W>) -> std::io::Result<()> {
    let line = serde_json::json!({ "key": target.key, "id": target.id, "outcome": outcome });
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;

    #[tokio::test]
    async fn an_unknown_id_changes_nothing() {
        let queue = MemoryQueue::filled();
        let ids = vec!["1-0".into(), "nobody".into()];
        let dropped = drop(&queue, &Drop { ids, yes: true, json: false }, &mut Out::new(Vec::new())).await;
        let error = dropped.unwrap_err().to_string();
        assert!(error.contains("\"nobody\"") && !error.contains("1-0"), "{error}");
        assert_eq!(queue.keys().len(), 3);
    }

    #[tokio::test]
    async fn what_is_gone_meanwhile_is_counted() {
        let queue = MemoryQueue::filled();
        let target = |key: &str| Target { key: key.into(), id: None, reason: Reason::Trap };
        let targets = vec![target("1-0"), target("0-0")];
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        change(&queue, Change::Drop, targets, &Pace::new(None), false, &mut out).await.unwrap();
        std::mem::drop(out);
        assert_eq!(text, b"dropped 1, gone already 1\n");
        assert_eq!(queue.keys(), ["2-0", "3-0"]);
    }

    #[tokio::test]
    async fn nothing_is_dropped_without_yes_where_nobody_can_answer() {
        let queue = MemoryQueue::filled();
        if !std::io::stdin().is_terminal() {
            let arguments = Drop { ids: vec!["1-0".into()], ..Drop::default() };
            drop(&queue, &arguments, &mut Out::new(Vec::new())).await.unwrap();
            assert_eq!(queue.keys().len(), 3);
        }
    }

    #[tokio::test]
    async fn a_pace_is_kept_and_none_waits_for_nothing() {
        let began = std::time::Instant::now();
        let pace = Pace::new(NonZeroU32::new(100));
        for _ in 0..11 {
            pace.turn().await;
        }
        assert!(began.elapsed() >= std::time::Duration::from_millis(95), "{:?}", began.elapsed());
        let began = std::time::Instant::now();
        let pace = Pace::new(None);
        for _ in 0..1_000 {
            pace.turn().await;
        }
        assert!(began.elapsed() < std::time::Duration::from_millis(95), "{:?}", began.elapsed());
    }
}
