//! The threads that alerts are worked on, apart from those that wait: an alert computes for a tenth of a millisecond at a time, and whatever
//! had to wait for that on the same threads (a reply of the queue, with it a hundred alerts that are done; the admin API; a signal)
//! would wait for many of them.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime that alerts are worked on.
pub struct Compute {
    pub(super) handle: Handle,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Compute {
    /// Starts a thread for each core, or as many as `TOKIO_WORKER_THREADS` says.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("alerts").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        // Nobody waits for what still runs: its alerts stay pending.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
