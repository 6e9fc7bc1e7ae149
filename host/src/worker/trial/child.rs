//! The process of suspects, from within: runs one at a time and says what became of it. Knows no queue.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Progress;
use super::local::InProcess;
use super::wire::{self, Answer, Request};
use crate::pipeline::Pipeline;
use crate::tables::Snapshot;

/// The way to the host.
#[derive(Debug)]
pub(crate) struct Voice(Mutex<File>);

impl Voice {
    /// The standard output.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self(Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))))
    }

    /// Says something; blocks while the host does not listen.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn say(&self, answer: &Answer, payload: &[u8]) -> io::Result<()> {
        let frame = wire::frame(answer, payload)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)
    }
}

/// Runs suspects for as long as there are requests.
///
/// # Errors
/// The host is gone, or says what makes no sense.
pub(crate) async fn serve(
    isolation: &InProcess,
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    requests: &mut mpsc::Receiver<(Request, Bytes)>,
    voice: &Voice,
) -> io::Result<()> {
    // Those that wait to be called again.
    let mut waiting = HashMap::new();
    while let Some((request, bytes)) = requests.recv().await {
        let (number, mut suspect) = match request {
            Request::Begin { number, suspect } => (number, isolation.begin(suspect.with(bytes), &pipeline, &tables)),
            Request::Resume { number } => match waiting.remove(&number) {
                Some(suspect) => (number, suspect),
                None => return Err(io::Error::other("a suspect that is not here was to go on")),
            },
            Request::Prepare { .. } => return Err(io::Error::other("everything is prepared already")),
        };
        voice.say(&Answer::Began, b"")?;
        match suspect.step().await {
            Progress::Done(ended) => {
                let (answer, payload) = Answer::of(*ended);
                voice.say(&answer, &payload)?;
            }
            Progress::Wait(until) => {
                waiting.insert(number, suspect);
                voice.say(&Answer::Wait { after: until.saturating_duration_since(Instant::now()) }, b"")?;
            }
        }
    }
    Ok(())
}
