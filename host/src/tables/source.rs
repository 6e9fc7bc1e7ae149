//! A table's file while it is read: bounded, and digested as it goes by, so that the digest is that of the very bytes that
//! were parsed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::TableError;

/// What a table may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The file, in bytes.
    pub(super) file: u64,
    /// One row of it, in bytes.
    pub(super) row: usize,
    /// Rows and index in memory, in bytes; at most `u32::MAX`, for rows are known by where they start.
    pub(super) memory: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { file: 2 << 30, row: 1 << 20, memory: u32::MAX as usize }
    }
}

/// An open file that is read once from beginning to end.
pub(super) struct Source {
    path: PathBuf,
    file: File,
    size: u64,
    digest: Sha256,
    read: u64,
    row_left: usize,
    /// What it is held to.
    pub(super) bounds: Bounds,
}

impl Source {
    /// Opens a file that is regular, not empty and not too large.
    pub(super) fn open(path: &Path, bounds: Bounds) -> Result<Self, TableError> {
        let io = |source| TableError::Io { file: path.to_owned(), source };
        let refuse = |why: String| TableError::File { file: path.to_owned(), why };
        // Asked before it is opened: opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(refuse("is no regular file; name a file that can be read again when it changes".into()));
        }
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size == 0 {
            return Err(refuse("is empty (0 bytes), as a failed download leaves it; get it again".into()));
        }
        if size > bounds.file {
            return Err(refuse(too_large(bounds.file)));
        }
        let path = path.to_owned();
        Ok(Self { path, file, size, digest: Sha256::new(), read: 0, row_left: usize::MAX, bounds })
    }

    /// Everything at once.
    pub(super) fn read_whole(&mut self) -> Result<Vec<u8>, TableError> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        self.read_to_end(&mut bytes).map_err(|error| self.error(error))?;
        Ok(bytes)
    }

    /// A row begins: from here on only as much may be read as a row may have.
    pub(super) fn begin_row(&mut self) {
        self.row_left = self.bounds.row;
    }

    /// A reading error as a table's.
    pub(super) fn error(&self, source: io::Error) -> TableError {
        TableError::Io { file: self.path.clone(), source }
    }

    /// The file as a whole is wrong.
    pub(super) fn refuse(&self, why: impl Into<String>) -> TableError {
        TableError::File { file: self.path.clone(), why: why.into() }
    }

    /// A line is wrong.
    pub(super) fn refuse_line(&self, line: u64, why: impl Into<String>) -> TableError {
        TableError::Line { file: self.path.clone(), line, why: why.into() }
    }

    /// SHA-256 of what was read.
    pub(super) fn sha256(self) -> String {
        hex::encode(self.digest.finalize())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.row_left == 0 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, row_too_long(self.bounds.row)));
        }
        let wanted = buffer.len().min(self.row_left);
        let count = self.file.read(&mut buffer[..wanted])?;
        self.digest.update(&buffer[..count]);
        self.row_left -= count;
        self.read += count as u64;
        // A file may grow while it is read.
        if self.read > self.bounds.file {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large(self.bounds.file)));
        }
        Ok(count)
    }
}

/// SHA-256 of a file that may be no table at all.
pub(super) fn digest(path: &Path) -> Result<String, TableError> {
    let mut source = Source::open(path, Bounds::default())?;
    io::copy(&mut source, &mut io::sink()).map_err(|error| source.error(error))?;
    Ok(source.sha256())
}

/// What is said about a row over its bound.
pub(super) fn row_too_long(bound: usize) -> String {
    format!("a row is longer than {bound} bytes; is a quote or a line break missing?")
}

fn too_large(bound: u64) -> String {
    format!("is larger than {bound} bytes; keep only the columns and rows that plugins need")
}
