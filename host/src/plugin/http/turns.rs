//! When a request may be sent: so many at once for a step and for an interface, and so fast one after the other.
//!
//! Whoever is over a bound waits, first come, first served; that somebody waits no longer shows only in that the wait is
//! dropped. Nothing here is shared between hosts.

use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::config::{HttpConfig, Rate};

/// The turns of one interface.
pub(super) struct Turns {
    at_once: Arc<Semaphore>,
    rate: Option<Bucket>,
}

/// A token bucket. One waits for its next token, the others in line behind it, so that none is overtaken.
struct Bucket {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    line: Semaphore,
}

/// A request's turn: its places are free again when this is dropped.
pub(super) struct Turn {
    _of_step: OwnedSemaphorePermit,
    _of_interface: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self { at_once: Arc::new(Semaphore::new(config.concurrency)), rate: config.rate.and_then(Bucket::new) }
    }

    /// Waits for a turn. The step's own places come first, so that one that floods an interface waits on its own.
    ///
    /// # Errors
    /// None in practice: nobody closes these.
    pub(super) async fn next(&self, step: Arc<Semaphore>) -> Result<Turn, AcquireError> {
        let of_step = step.acquire_owned().await?;
        let of_interface = Arc::clone(&self.at_once).acquire_owned().await?;
        if let Some(bucket) = &self.rate {
            bucket.token().await?;
        }
        Ok(Turn { _of_step: of_step, _of_interface: of_interface })
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.at_once.available_permits()
    }
}

impl Bucket {
    /// None for a rate that is faster than a nanosecond.
    fn new(rate: Rate) -> Option<Self> {
        let quota = Quota::with_period(rate.per / rate.count.get())?.allow_burst(rate.burst);
        Some(Self { limiter: RateLimiter::direct(quota), clock: DefaultClock::default(), line: Semaphore::new(1) })
    }

    async fn token(&self) -> Result<(), AcquireError> {
        let _first_in_line = self.line.acquire().await?;
        while let Err(early) = self.limiter.check() {
            // The bucket fills with time and with nothing else.
            tokio::time::sleep(early.wait_time_from(self.clock.now())).await;
        }
        Ok(())
    }
}
