//! Why the dead letters are there, counted by reason. Counting reads them, so it is done seldom, one at a time, and not without end.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::report::DeadReason;
use crate::dead_letter::Reason;
use crate::queue::{Queue, QueueError};

/// How long a count is given again.
const KEEP: Duration = Duration::from_secs(5);

/// How many dead letters are looked at, and how many at once.
const LOOKED_AT: usize = 5_000;
const PAGE: usize = 500;

/// Counts, and keeps the last count.
pub(in crate::admin) struct Counts {
    kept: Mutex<Option<(Instant, Counted)>>,
    /// Whoever counts holds it.
    turn: Semaphore,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counted {
    /// How many dead letters were looked at.
    pub number: u64,
    /// By reason and step, what is most first.
    pub reasons: Vec<DeadReason>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { kept: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Counts {
    /// The counts, which may be a few seconds old; older ones while somebody else counts.
    pub(super) async fn of(&self, queue: &dyn Queue) -> Result<Counted, QueueError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, counted)) = &kept
            && at.elapsed() < KEEP
        {
            return Ok(counted.clone());
        }
        let Ok(_turn) = self.turn.try_acquire() else {
            return Ok(kept.map(|(_, counted)| counted).unwrap_or_default());
        };
        let counted = count(queue).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), counted.clone()));
        Ok(counted)
    }
}

async fn count(queue: &dyn Queue) -> Result<Counted, QueueError> {
    let mut counts: HashMap<(Reason, Option<String>), (u64, Timestamp)> = HashMap::new();
    let (mut number, mut after) = (0, None::<String>);
    while number < LOOKED_AT {
        let page = queue.dead(after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        number += page.len();
        for dead in page {
            let letter = dead.letter;
            let (count, last) =
                counts.entry((letter.reason, letter.step.map(|step| step.step))).or_insert((0, Timestamp::UNIX_EPOCH));
            *count += 1;
            *last = letter.failed_at.max(*last);
        }
    }
    let mut reasons: Vec<_> = counts
        .into_iter()
        .map(|((reason, step), (count, last))| DeadReason {
            reason: reason.to_string(),
            step,
            count,
            last: Some(last.to_string()),
        })
        .collect();
    reasons.sort_by(|a, b| (b.count, &a.reason, &a.step).cmp(&(a.count, &b.reason, &b.step)));
    Ok(Counted { number: number as u64, reasons })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;

    #[tokio::test]
    async fn dead_letters_are_counted_by_reason_and_step_and_not_without_end() {
        let (queue, counts) = (MemoryQueue::default(), Counts::default());
        assert_eq!(counts.of(&queue).await.unwrap(), Counted::default());
        for n in 0..LOOKED_AT + 10 {
            let (reason, step) = if n % 5 == 0 { (Reason::Timeout, "geo") } else { (Reason::Trap, "asset") };
            queue.bury(&format!("{n:05}"), None, reason, step, b"{}");
        }
        assert_eq!(counts.of(&queue).await.unwrap().number, 0, "what was counted a moment ago is given again");
        let counted = Counts::default().of(&queue).await.unwrap();
        assert_eq!(counted.number, LOOKED_AT as u64);
        let reasons: Vec<_> =
            counted.reasons.iter().map(|it| (it.reason.as_str(), it.step.as_deref(), it.count)).collect();
        assert_eq!(reasons, [("trap", Some("asset"), 4_000), ("timeout", Some("geo"), 1_000)]);
    }
}
