//! `dossier send`: files and the standard input into the queue, one alert a line, bytes as they are.
//!
//! Owns how input becomes lines and lines become batches, with bounded memory. It does not look into the alerts: what is no
//! alert is for the host to find, and for the dead letters to keep.

pub(super) mod lines;

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::queue::Queue;

use super::output::{Out, Progress, complain, count, duration, printable, remark};
use super::verify::identity::Identifier;
use super::{FAILED, INTERRUPTED, interrupted};

use self::lines::{Batch, Source};

/// How long an interrupt waits for the batch that is on its way.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// What to send.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier send alerts.ndjson
  dossier send monday.ndjson tuesday.ndjson
  zcat eve.json.gz | dossier send        The standard input, as with -
  tail -F alerts.ndjson | dossier send   What arrives, as it arrives
  jq -c '.[]' all.json | dossier send    A JSON array: a line for each element
  dossier send --ids sent.ids a.ndjson   Note what was sent, for dossier verify")]
pub struct Arguments {
    /// Files of alerts, one a line; - is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// Add the ids of what was sent to this file, for `dossier verify`
    ///
    /// A line is written when the queue has taken the alert. Where nobody can say whether it has, the line says "unsure".
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

/// What was sent until now.
#[derive(Default)]
struct Tally {
    alerts: u64,
    bytes: u64,
    empty: u64,
    /// Where the last line that was sent stands.
    last: Option<String>,
}

impl Tally {
    fn add(&mut self, batch: &Batch) {
        self.alerts += batch.alerts.len() as u64;
        self.bytes += batch.read;
        self.empty += batch.empty;
        self.last = Some(batch.last.to_string());
    }

    /// `1000 alerts to redis stream "alerts"`.
    fn to(&self, place: &str) -> String {
        format!("{} to {place}", count(self.alerts, "alert"))
    }

    /// The same with the line up to which it went, for work that ended early.
    fn up_to(&self, place: &str) -> String {
        let last = self.last.as_deref().map_or_else(String::new, |last| format!(", up to {}", printable(last)));
        format!("sent {}{last}", self.to(place))
    }
}

/// Sends everything, or as much as it can; `place` is the queue as people name it.
///
/// # Errors
/// A file that cannot be read (before anything is sent), a line that is too long, or a queue that does not take the
/// alerts: with how much was sent.
pub async fn send<W: Write>(
    queue: &dyn Queue,
    place: &str,
    identifier: &Identifier,
    arguments: Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let sources = Source::all(&arguments.files).map_err(|error| error.context("nothing was sent"))?;
    let mut notes = arguments.ids.as_deref().map(|path| Notes::open(path, identifier)).transpose()?;
    if sources.iter().any(Source::is_stdin) && std::io::stdin().is_terminal() {
        remark("reading alerts from the terminal, one a line; Ctrl-D ends them, Ctrl-C gives up");
    }
    let mut progress = Progress::of_bytes(sources.iter().map(|source| source.size).sum());
    let mut batches = lines::read(sources);
    let mut tally = Tally::default();
    let done = pump(queue, &mut batches, &mut notes, &mut tally, &mut progress).await;
    let took = progress.elapsed();
    drop(progress);
    match done {
        Ok(End::Done) => {
            let empty = match tally.empty {
                0 => String::new(),
                empty => format!(", skipped {}", count(empty, "empty line")),
            };
            writeln!(out, "sent {} in {}{empty}", tally.to(place), duration(took))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(End::Interrupted { unsure }) => {
            let unsure = match unsure {
                0 => String::new(),
                unsure => format!("; {} more may have arrived", count(unsure, "alert")),
            };
            complain(&format!("interrupted: {}{unsure}", tally.up_to(place)));
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => {
            complain(&format!("{error:#}"));
            remark(&tally.up_to(place));
            Ok(ExitCode::from(FAILED))
        }
    }
}

enum End {
    Done,
    Interrupted {
        /// How many alerts were on their way.
        unsure: u64,
    },
}

async fn pump(
    queue: &dyn Queue,
    batches: &mut mpsc::Receiver<anyhow::Result<Batch>>,
    notes: &mut Option<Notes<'_>>,
    tally: &mut Tally,
    progress: &mut Progress,
) -> anyhow::Result<End> {
    let mut interrupt = std::pin::pin!(interrupted());
    loop {
        let batch = tokio::select! {
            biased;
            () = &mut interrupt => return Ok(End::Interrupted { unsure: 0 }),
            batch = batches.recv() => batch,
        };
        let Some(batch) = batch else { return Ok(End::Done) };
        let batch = batch?;
        let mut note = |sure| notes.as_mut().map_or(Ok(()), |notes| notes.add(&batch.alerts, sure));
        let mut sending = std::pin::pin!(deliver(queue, &batch.alerts));
        tokio::select! {
            sent = &mut sending => {
                note(sent.is_ok())?;
                sent?;
            }
            () = &mut interrupt => {
                let unsure = match tokio::time::timeout(LAST_BATCH, sending).await {
                    Ok(Ok(())) => {
                        note(true)?;
                        tally.add(&batch);
                        0
                    }
                    Ok(Err(_)) | Err(_) => {
                        note(false)?;
                        batch.alerts.len() as u64
                    }
                };
                return Ok(End::Interrupted { unsure });
            }
        }
        tally.add(&batch);
        progress.at(tally.bytes, || count(tally.alerts, "alert"));
    }
}

/// The file of ids that were sent.
struct Notes<'a> {
    file: std::fs::File,
    identifier: &'a Identifier,
    path: String,
}

impl<'a> Notes<'a> {
    fn open(path: &std::path::Path, identifier: &'a Identifier) -> anyhow::Result<Self> {
        let shown = printable(&path.display().to_string());
        let file = std::fs::File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write ids to {shown}; nothing was sent"))?;
        Ok(Self { file, identifier, path: shown })
    }

    /// Notes a batch that was sent or, where that is not sure, may have been.
    fn add(&mut self, alerts: &[Bytes], sure: bool) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for alert in alerts {
            self.identifier.of(alert).write_line(sure, &mut text)?;
        }
        // In one piece, so that others who send at the same time do not write into its lines.
        self.file.write_all(&text).with_context(|| {
            format!(
                "cannot write ids to {}; {} on their way are not noted there",
                self.path,
                count(alerts.len() as u64, "alert")
            )
        })
    }
}

async fn deliver(queue: &dyn Queue, alerts: &[Bytes]) -> anyhow::Result<()> {
    if alerts.is_empty() {
        return Ok(());
    }
    let many = alerts.len() as u64;
    queue.send(alerts).await.with_context(|| {
        format!("the queue did not take the next {}; some may have arrived, and sending one again is safe while it is remembered", count(many, "alert"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;

    async fn send_bytes(queue: &MemoryQueue, bytes: &[u8]) -> ExitCode {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alerts.ndjson");
        std::fs::write(&file, bytes).unwrap();
        let arguments = Arguments { files: vec![file], ids: None };
        send(queue, "memory", &identifier(), arguments, &mut Out::new(Vec::new())).await.unwrap()
    }

    fn identifier() -> Identifier {
        Identifier::new(&crate::plugin::trial::standard())
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_are_and_in_order() {
        let queue = MemoryQueue::default();
        let mut file = Vec::new();
        let mut expected = Vec::new();
        for number in 0..5_000 {
            let line = format!("{{ \"id\" : {number},\t\"x\": \"\u{1b}é\" }} ").into_bytes();
            file.extend_from_slice(&line);
            file.push(b'\n');
            expected.push(Bytes::from(line));
        }
        expected.push(Bytes::from_static(b"\xff\x00 no JSON, no line end"));
        file.extend_from_slice(b"\xff\x00 no JSON, no line end");
        assert_eq!(send_bytes(&queue, &file).await, ExitCode::SUCCESS);
        assert_eq!(queue.waiting(), expected);
    }

    #[tokio::test]
    async fn a_queue_that_refuses_ends_it_with_1() {
        let queue = MemoryQueue::default();
        queue.refuse_to_send();
        assert_eq!(send_bytes(&queue, b"{}\n").await, ExitCode::from(FAILED));
    }

    #[tokio::test]
    async fn a_file_that_is_missing_is_named_before_anything_is_sent() {
        let queue = MemoryQueue::default();
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "{}\n").unwrap();
        let files = vec![there, folder.path().join("missing.ndjson")];
        let arguments = Arguments { files, ids: None };
        let error = send(&queue, "memory", &identifier(), arguments, &mut Out::new(Vec::new())).await.unwrap_err();
        assert!(format!("{error:#}").contains("missing.ndjson"));
        assert!(queue.waiting().is_empty());
    }
}
