//! What a process cost, as Linux tells it. Knows nothing of what the process does.

use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of all its threads so far, to a hundredth of a second.
///
/// # Errors
/// It does not run.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("a process that is measured has ended")?;
    // After the name in brackets; user and system time are the 12th and 13th from there, in ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Memory in bytes: its own, and its share of what it shares with others.
///
/// # Errors
/// It does not run.
pub fn memory(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let rollup = std::fs::read_to_string(file).context("a process that is measured has ended")?;
    let kib =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("smaps_rollup has no Pss")? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_cost_something() {
        let before = processor_time(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while processor_time(std::process::id()).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(memory(std::process::id()).unwrap() > 1 << 20);
    }
}
