//! An alert that this host has taken: what a delivery's receipt holds, and the way from taken to done.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::super::Committed;
use super::files::Stamp;
use super::lock::Lock;

/// An alert that this host has taken. Dropping it gives the alert back, unless it is done.
#[derive(Debug)]
pub(super) struct Taken {
    /// The name of its file in `pending`.
    pub(super) name: OsString,
    /// What the file was when it was read.
    pub(super) stamp: Stamp,
    /// The name of the dead letter that it was: its reason still lies in `errors`.
    pub(super) was_dead: Option<String>,
    phase: Mutex<Phase>,
    all: Arc<AllTaken>,
    number: u64,
}

/// How far an alert is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Taken.
    Held(Lock),
    /// What becomes of it stands where it belongs; its file in `pending` has yet to go.
    Placed {
        lock: Lock,
        committed: Committed,
        /// Whether its file still lies in `pending`; a dead letter's was moved away.
        input: bool,
        /// The dead letter whose reason is to be removed.
        reason: Option<String>,
    },
    /// Let go of, and what was done.
    Over(Committed),
}

impl Taken {
    /// How far it is. Blocks while a commit works on it: not for asynchronous code.
    pub(super) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it back, unless it is done.
    pub(super) fn release(&self) {
        let mut phase = self.phase();
        if matches!(&*phase, Phase::Over(_)) {
            return;
        }
        // What is placed already is found there when it is processed again: then it is a duplicate.
        if let Phase::Held(lock) | Phase::Placed { lock, .. } =
            std::mem::replace(&mut *phase, Phase::Over(Committed::Lost))
        {
            lock.release();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.release();
        self.all.list().remove(&self.number);
    }
}

/// Everything that this host has taken, so that a clean shutdown can give it back.
#[derive(Debug, Default)]
pub(super) struct AllTaken {
    list: Mutex<HashMap<u64, Weak<Taken>>>,
    next: AtomicU64,
}

impl AllTaken {
    /// Notes that an alert was taken.
    pub(super) fn add(
        self: &Arc<Self>,
        name: OsString,
        stamp: Stamp,
        was_dead: Option<String>,
        lock: Lock,
    ) -> Arc<Taken> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let phase = Mutex::new(Phase::Held(lock));
        let taken = Arc::new(Taken { name, stamp, was_dead, phase, all: Arc::clone(self), number });
        self.list().insert(number, Arc::downgrade(&taken));
        taken
    }

    /// Gives everything back.
    pub(super) fn release(&self) {
        let all: Vec<_> = self.list().values().filter_map(Weak::upgrade).collect();
        for taken in all {
            taken.release();
        }
    }

    fn list(&self) -> MutexGuard<'_, HashMap<u64, Weak<Taken>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
