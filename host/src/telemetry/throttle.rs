//! Thins out lines that a plugin could write without end. Counts nothing: the metrics do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after a line its like are left out.
const PERIOD: Duration = Duration::from_secs(1);

/// When which line was written last. Bounded: kinds are events, names are steps.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<&'static str, HashMap<String, Instant>>>);

impl Throttle {
    /// Whether a line of this kind about this step may be written now.
    pub(super) fn admits(&self, kind: &'static str, whose: &str) -> bool {
        self.admits_at(Instant::now(), kind, whose)
    }

    fn admits_at(&self, now: Instant, kind: &'static str, whose: &str) -> bool {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = kinds.entry(kind).or_default();
        match last.get_mut(whose) {
            Some(last) if now.duration_since(*last) < PERIOD => false,
            Some(last) => {
                *last = now;
                true
            }
            None => {
                last.insert(whose.to_owned(), now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_line_of_one_step_within_a_second_is_left_out_and_those_of_others_are_not() {
        let throttle = Throttle::default();
        let now = Instant::now();
        assert!(throttle.admits_at(now, "denied", "geo"));
        assert!(!throttle.admits_at(now + PERIOD / 2, "denied", "geo"));
        assert!(throttle.admits_at(now, "denied", "asset"));
        assert!(throttle.admits_at(now, "log-cut", "geo"));
        assert!(throttle.admits_at(now + PERIOD, "denied", "geo"));
    }
}
