//! Requests under way that others may join: one future for each, which lives for as long as anybody waits for it.
//!
//! An asker whose deadline passes, or that is cancelled, ends nothing for the others; when the last one is gone the
//! request is dropped, and its connection with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::Key;
use super::answers::Outcome;

/// A request under way.
pub(super) type Flight = Shared<BoxFuture<'static, Landed>>;

/// What a request came to, and where that was known.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    pub outcome: Outcome,
    /// Whether another host had asked before.
    pub shared: bool,
}

/// The requests of one interface.
#[derive(Default)]
pub(super) struct Flights(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    begun: u64,
    /// By what they ask; the number tells a request from one that was dropped before.
    flying: HashMap<Key, (u64, WeakShared<BoxFuture<'static, Landed>>)>,
}

/// What there is for somebody who asks.
pub(super) enum Found {
    /// It is known already.
    Known(Outcome),
    /// Somebody asked a moment ago.
    Joined(Flight),
    /// Nobody did: this is the request.
    Begun(Flight),
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panic elsewhere left behind is as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a request, or begins it. What a request comes to is kept before it is no longer found here, so that `known`
    /// and this together never miss it.
    pub(super) fn join(
        &self,
        key: Key,
        known: impl FnOnce() -> Option<Outcome>,
        begin: impl FnOnce(u64) -> BoxFuture<'static, Landed>,
    ) -> Found {
        let mut inner = self.lock();
        if let Some(flight) = inner.flying.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return Found::Joined(flight);
        }
        if let Some(outcome) = known() {
            return Found::Known(outcome);
        }
        inner.begun += 1;
        let number = inner.begun;
        let flight = begin(number).shared();
        if let Some(weak) = flight.downgrade() {
            inner.flying.insert(key, (number, weak));
        }
        Found::Begun(flight)
    }

    /// Forgets a request that ended or was dropped, unless another one took its place.
    pub(super) fn end(&self, key: &Key, number: u64) {
        let mut inner = self.lock();
        if inner.flying.get(key).is_some_and(|(flying, _)| *flying == number) {
            inner.flying.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().flying.len()
    }
}
