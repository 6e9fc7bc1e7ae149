//! Whether a child that runs only when nobody else wants the processor gets enough of it.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a child that gives way is looked at, and which part of that time it must have run to go on so. On a machine that is always
/// busy it would never come to its end.
const LOOK: Duration = Duration::from_secs(1);
const LEAST: u32 = 20;

/// Waits until a child that gives way gets hardly anything of the processor for two looks in turn, or for so long.
pub(super) async fn starves(id: Option<u32>, patience: Duration) {
    let end = Instant::now() + patience;
    let (mut before, mut poor) = (Duration::ZERO, 0);
    while Instant::now() < end && poor < 2 {
        sleep(LOOK).await;
        // Where the system does not tell, nobody could see that it starves.
        let Some((waits, ran)) = id.and_then(ran) else { return };
        poor = if waits && ran.saturating_sub(before) < LOOK / LEAST { poor + 1 } else { 0 };
        before = ran;
    }
}

/// Whether a process runs or waits for the processor, not for a disk, and for how long it ran so far (`proc_pid_stat(5)`); none when the
/// system does not say.
fn ran(id: u32) -> Option<(bool, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The third field is the first behind the name.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(14 - 3)?.parse::<u64>().ok()? + fields.get(15 - 3)?.parse::<u64>().ok()?;
    let milliseconds = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    Some((*fields.first()? == "R", Duration::from_millis(milliseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_has_run_and_one_that_is_gone_says_nothing() {
        let before = ran(std::process::id()).unwrap().1;
        while ran(std::process::id()).unwrap().1 < before + Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        assert!(ran(u32::MAX).is_none());
    }

    #[tokio::test]
    async fn what_waits_for_something_else_than_the_processor_does_not_starve() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let began = Instant::now();
        starves(Some(sleeper.id()), LOOK * 3).await;
        assert!(began.elapsed() >= LOOK * 3);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
