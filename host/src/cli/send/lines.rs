//! Reads files line by line into batches, on a thread of its own: reading a pipe cannot be cancelled, and must not hold up
//! the program's end. Bounded: a batch holds at most [`BATCH_BYTES`] or one line, and only one batch waits.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use tokio::sync::mpsc;

/// The longest line. What is longer is no alert but the wrong file.
const LONGEST_LINE: usize = 64 << 20;
/// A batch is sent when it holds this many bytes …
const BATCH_BYTES: usize = 4 << 20;
/// … or this many alerts.
const BATCH_ALERTS: usize = 1_000;
/// What is read at once.
const READ: usize = 256 << 10;

/// A file, or the standard input.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// Its size in bytes, where it has one.
    pub size: Option<u64>,
}

impl Source {
    /// Looks whether all of them are there, so that nothing is done when one is not.
    ///
    /// # Errors
    /// The first that is not there, is a directory, or may not be read.
    pub fn all(paths: &[PathBuf]) -> anyhow::Result<Vec<Self>> {
        paths.iter().map(|path| Self::new(path)).collect()
    }

    fn new(path: &Path) -> anyhow::Result<Self> {
        let mut source = Self { path: path.to_owned(), size: None };
        if !source.is_stdin() {
            let metadata = File::open(path).and_then(|file| file.metadata());
            let metadata = metadata.map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
            if metadata.is_dir() {
                bail!("{} is a directory; name the files in it", path.display());
            }
            source.size = metadata.is_file().then_some(metadata.len());
        }
        Ok(source)
    }

    /// Whether it is `-`.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    fn name(&self) -> String {
        if self.is_stdin() { "the standard input".to_owned() } else { self.path.display().to_string() }
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(if self.is_stdin() { Box::new(io::stdin()) } else { Box::new(File::open(&self.path)?) })
    }
}

/// A line in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    name: String,
    line: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of {}", self.line, self.name)
    }
}

/// Alerts that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The alerts, in the order of the file.
    pub alerts: Vec<Bytes>,
    /// How many bytes of the file it took.
    pub read: u64,
    /// How many empty lines were skipped.
    pub empty: u64,
    /// The last line that it took.
    pub last: Position,
}

impl Batch {
    /// Whether its file begins with it.
    pub fn is_first(&self) -> bool {
        self.last.line == self.alerts.len() as u64 + self.empty
    }
}

/// Reads everything, one source after the other. The last result may be an error; nothing follows it.
pub fn read(sources: Vec<Source>) -> mpsc::Receiver<anyhow::Result<Batch>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        // A receiver that is gone wants no more.
        let mut send = |batch| sender.blocking_send(Ok(batch)).is_ok();
        let done = sources.iter().try_for_each(|source| {
            let name = source.name();
            let input = source.open().with_context(|| format!("cannot read {name}"))?;
            batches(input, &name, LONGEST_LINE, &mut send)
        });
        if let Err(error) = done {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

/// Cuts one input into batches. What came before an error is sent.
fn batches(input: impl Read, name: &str, longest: usize, send: &mut impl FnMut(Batch) -> bool) -> anyhow::Result<()> {
    let mut input = BufReader::with_capacity(READ, input);
    let empty = Batch { last: Position { name: name.to_owned(), line: 0 }, ..Batch::default() };
    let mut batch = Batch { last: empty.last.clone(), ..Batch::default() };
    loop {
        // What is complete goes before waiting for more: the next line of a pipe may be hours away.
        let full = batch.read >= BATCH_BYTES as u64 || batch.alerts.len() >= BATCH_ALERTS;
        if batch.read > 0 && (full || !input.buffer().contains(&b'\n')) {
            let next = Batch { last: batch.last.clone(), ..Batch::default() };
            if !send(std::mem::replace(&mut batch, next)) {
                return Ok(());
            }
        }
        let mut line = Vec::new();
        let read = input.by_ref().take(longest as u64 + 2).read_until(b'\n', &mut line);
        let read = read.with_context(|| format!("cannot read {name} after line {}", batch.last.line))?;
        if read == 0 {
            return Ok(());
        }
        batch.read += read as u64;
        batch.last.line += 1;
        if line.pop_if(|byte| *byte == b'\n').is_some() {
            line.pop_if(|byte| *byte == b'\r');
        }
        if line.len() > longest {
            batch.last.line -= 1;
            let position = Position { line: batch.last.line + 1, ..batch.last.clone() };
            if !batch.alerts.is_empty() {
                send(batch);
            }
            bail!(
                "{position} is longer than {}; is it one alert a line? `jq -c '.[]'` makes lines of an array",
                bytesize::ByteSize(longest as u64)
            );
        }
        if line.is_empty() {
            batch.empty += 1;
        } else {
            batch.alerts.push(line.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(input: impl Read, longest: usize) -> (Vec<Batch>, anyhow::Result<()>) {
        let mut seen = Vec::new();
        let done = batches(input, "f", longest, &mut |batch| {
            seen.push(batch);
            true
        });
        (seen, done)
    }

    #[test]
    fn line_ends_and_empty_lines_are_no_part_of_an_alert() {
        let (batches, done) = cut(&b"{}\r\n\n\r\n{ }\r{\n \n{}"[..], 100);
        assert!(done.is_ok());
        let alerts: Vec<_> = batches.iter().flat_map(|batch| &batch.alerts).collect();
        assert_eq!(alerts, [&b"{}"[..], b"{ }\r{", b" ", b"{}"]);
        assert_eq!(batches.iter().map(|batch| batch.empty).sum::<u64>(), 2);
        assert_eq!(batches.iter().map(|batch| batch.read).sum::<u64>(), 17);
        assert_eq!(batches.last().unwrap().last.to_string(), "line 6 of f");
    }

    #[test]
    fn a_line_of_the_longest_length_is_sent() {
        let (batches, done) = cut(&b"12345678\r\n12345678\n12345678"[..], 8);
        assert!(done.is_ok());
        assert_eq!(batches.iter().map(|batch| batch.alerts.len()).sum::<usize>(), 3);
    }

    #[test]
    fn a_longer_line_is_an_error_that_names_it_and_what_came_before_is_sent() {
        let (batches, done) = cut(&b"{}\n123456789\n{}\n"[..], 8);
        let message = done.unwrap_err().to_string();
        assert!(message.starts_with("line 2 of f is longer than 8 B"), "{message}");
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].alerts, [&b"{}"[..]]);
        assert_eq!(batches[0].last.line, 1);
    }

    #[test]
    fn memory_stays_bounded_on_a_line_that_never_ends() {
        let (batches, done) = cut(io::repeat(b'x'), 1 << 20);
        assert!(done.is_err() && batches.is_empty());
    }

    #[test]
    fn a_pipe_that_pauses_holds_no_line_back() {
        /// Gives one piece a read.
        struct Pieces(Vec<&'static [u8]>);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Some(piece) = self.0.pop() else { return Ok(0) };
                buffer[..piece.len()].copy_from_slice(piece);
                Ok(piece.len())
            }
        }
        let (batches, done) = cut(Pieces(vec![b"c}\n", b"{a}\n{b}\n{"]), 100);
        assert!(done.is_ok());
        assert_eq!(batches[0].alerts, [&b"{a}"[..], b"{b}"]);
        assert_eq!(batches[1].alerts, [&b"{c}"[..]]);
    }

    #[test]
    fn a_batch_is_bounded_in_alerts_and_in_bytes() {
        let (batches, _) = cut(&b"{}\n".repeat(10_000)[..], 100);
        assert!(batches.iter().all(|batch| batch.alerts.len() <= BATCH_ALERTS));
        let line = [vec![b'x'; 3 << 20], vec![b'\n']].concat();
        let (batches, _) = cut(&line.repeat(5)[..], 4 << 20);
        assert!(batches.iter().all(|batch| batch.read <= (BATCH_BYTES + line.len()) as u64));
        assert_eq!(batches.iter().map(|batch| batch.alerts.len()).sum::<usize>(), 5);
    }
}
