//! Where lines wait to be written, and the thread that writes them.
//!
//! The buffer is bounded in bytes, for lines differ in length a hundredfold. The thread takes all that waits at once, so a busy
//! host makes few writes. Nothing is dropped but what is written to a sink that is broken or closed.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

use super::LogError;

/// How long the end waits for the last lines.
const FLUSH: Duration = Duration::from_secs(5);

/// The most that is written at once, in bytes: what a pipe holds, so that room shows as the reader makes it.
const CHUNK: usize = 64 << 10;

/// Where lines go in.
#[derive(Debug, Clone)]
pub struct LogSink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    capacity: usize,
    state: Mutex<State>,
    /// The writer waits here for lines.
    filled: Condvar,
    /// Whoever has a line and no room waits here, and the end for the last line.
    drained: Condvar,
    /// The same for tasks, which must not block.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that wait.
    waiting: Vec<u8>,
    /// How many bytes the writer has taken and not written.
    writing: usize,
    /// No more lines are taken.
    closed: bool,
    /// Why lines cannot be written any more.
    broken: Option<String>,
}

impl State {
    fn used(&self) -> usize {
        self.waiting.len() + self.writing
    }

    fn over(&self) -> bool {
        self.closed || self.broken.is_some()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_of_room(&self) {
        self.drained.notify_all();
        self.room.notify_waiters();
    }
}

thread_local! {
    /// Lines that this thread keeps back for the moment, and the sink that they are for.
    static HELD: RefCell<Option<(LogSink, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Hands over what is kept back, also when something panics meanwhile.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((sink, lines)) = HELD.take().filter(|(_, lines)| !lines.is_empty()) {
            sink.push_now(&lines);
        }
    }
}

impl LogSink {
    /// Does something whose lines are handed over together, at the latest when it is done: each line by itself would wake up the
    /// writer.
    pub(in crate::telemetry) fn together<T>(&self, work: impl FnOnce() -> T) -> T {
        if HELD.with_borrow(Option::is_some) {
            return work();
        }
        HELD.set(Some((self.clone(), Vec::new())));
        let _held = Held;
        work()
    }

    /// Takes a line. Blocks while there is no room for it.
    pub(super) fn push(&self, line: &[u8]) {
        let full = HELD.with_borrow_mut(|held| match held {
            Some((sink, lines)) if Arc::ptr_eq(&sink.0, &self.0) => {
                lines.extend_from_slice(line);
                Some((lines.len() >= CHUNK).then(|| std::mem::take(lines)))
            }
            _ => None,
        });
        match full {
            None => self.push_now(line),
            Some(None) => {}
            Some(Some(lines)) => self.push_now(&lines),
        }
    }

    fn push_now(&self, line: &[u8]) {
        let mut state = self.0.lock();
        // A line longer than everything has room when it is alone.
        let fits = |state: &State| state.used() == 0 || state.used() + line.len() <= self.0.capacity;
        if !fits(&state) && !state.over() {
            drop(state);
            let wait = || {
                self.0
                    .drained
                    .wait_while(self.0.lock(), |state| !fits(state) && !state.over())
                    .unwrap_or_else(PoisonError::into_inner)
            };
            state = blocking(wait);
        }
        if !state.over() {
            // The writer waits only when there is nothing.
            let idle = state.waiting.is_empty();
            state.waiting.extend_from_slice(line);
            drop(state);
            if idle {
                self.0.filled.notify_one();
            }
        }
    }

    /// Waits while more than half of the room is taken.
    ///
    /// # Errors
    /// [`LogError::Broken`].
    pub(in crate::telemetry) async fn ready(&self) -> Result<(), LogError> {
        self.when(|state| match &state.broken {
            Some(error) => Some(Err(LogError::Broken(error.clone()))),
            None => (state.used() <= self.0.capacity / 2).then_some(Ok(())),
        })
        .await
    }

    /// Waits until lines cannot be written any more.
    pub(in crate::telemetry) async fn failed(&self) -> LogError {
        self.when(|state| state.broken.clone().map(LogError::Broken)).await
    }

    async fn when<T>(&self, answer: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            // Listens before it looks, so that nothing happens unheard in between.
            room.as_mut().enable();
            let found = answer(&self.0.lock());
            if let Some(found) = found {
                return found;
            }
            room.await;
        }
    }
}

/// Runs what blocks. A runtime with several threads is told, so that it goes on without this one: timers, signals and the
/// admin address work while the log is blocked.
fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    let several = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if several { tokio::task::block_in_place(wait) } else { wait() }
}

/// Keeps the log going; what waits is written before it is gone.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard(LogSink);

impl LogGuard {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(output: impl Write + AsFd + Send + 'static, capacity: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            capacity,
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            room: Notify::new(),
        });
        let sink = LogSink(Arc::clone(&shared));
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&shared, output))?;
        Ok(Self(sink))
    }

    /// Where lines go in: what [`super::super::Telemetry::new`] takes.
    pub fn sink(&self) -> LogSink {
        self.0.clone()
    }

    /// Takes no more lines, and waits up to five seconds until the last one is written.
    ///
    /// # Errors
    /// [`LogError::Broken`], [`LogError::Blocked`]: the host cannot have told everything, so it must not end with 0.
    pub fn close(self) -> Result<(), LogError> {
        self.end(FLUSH)
    }

    pub(super) fn end(&self, patience: Duration) -> Result<(), LogError> {
        let shared = &self.0.0;
        let deadline = Instant::now() + patience;
        let mut state = shared.lock();
        state.closed = true;
        shared.filled.notify_one();
        shared.tell_of_room();
        while state.broken.is_none() && state.used() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LogError::Blocked(state.used()));
            }
            state = shared.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.broken.clone().map_or(Ok(()), |error| Err(LogError::Broken(error)))
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Who wants to know calls `close`; after it there is nothing left to wait for, or nobody who takes it.
        if !self.0.0.lock().closed {
            let _ = self.end(FLUSH);
        }
    }
}

/// The writer's life: takes what waits, writes it, until the log is closed and nothing is left.
fn write_all(shared: &Shared, mut output: impl Write + AsFd) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.closed {
            state = shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.waiting.is_empty() {
            return;
        }
        batch.clear();
        std::mem::swap(&mut batch, &mut state.waiting);
        state.writing = batch.len();
        drop(state);
        for chunk in batch.chunks(CHUNK) {
            if let Err(error) = write_chunk(&mut output, chunk) {
                let mut state = shared.lock();
                state.broken = Some(error.to_string());
                state.waiting = Vec::new();
                state.writing = 0;
                shared.tell_of_room();
                return;
            }
            shared.lock().writing -= chunk.len();
            shared.tell_of_room();
        }
    }
}

/// Writes a chunk whole.
fn write_chunk(output: &mut (impl Write + AsFd), mut chunk: &[u8]) -> io::Result<()> {
    while !chunk.is_empty() {
        match output.write(chunk) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => chunk = &chunk[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares standard output with the host may have made it non-blocking for both.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(output, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
