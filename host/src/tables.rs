//! Tables that plugins look into. They live in the host, are shared by all plugins that were granted them, and are loaded
//! again when their file changes.
//!
//! Owns how a file becomes rows and how a key finds one. Who may look into which table is decided in [`crate::plugin`].
//!
//! **Keys.** A key that is an address or a prefix finds the row with the longest prefix that holds it; IPv4 addresses that
//! are written as IPv6 (`::ffff:192.0.2.1`) are the IPv4 addresses that they mean. Any other key matches exactly, without
//! regard to ASCII case. White space around keys is left out, and an empty key finds nothing. Of two rows with one key the last wins.
//!
//! **Values.** Cells of csv and tsv are texts, but for plain JSON numbers that every reader of JSON takes for the same
//! number and writes in the same way: integers up to 2^53 (RFC 7493, section 2.2) and decimal fractions without
//! superfluous digits. So `7` and `-0.5` are numbers; `007`, `1.10` (a version, perhaps), `1e5` and `+1` stay texts. A cell
//! that is empty is an empty text. White space around cells is left out. Quotes have their meaning in csv only.
//!
//! **Bounds.** A file is at most 2 GiB, a row 1 MiB (with the comments before it, in csv and tsv), a table in memory 4 GiB.
//! A file of 0 bytes is refused: it is what a download that failed leaves.

mod index;
mod mmdb;
mod read;
mod rows;
mod source;
mod watch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use self::index::Index;
use self::mmdb::Mmdb;
use self::rows::Rows;
use self::source::{Bounds, Source};
pub(crate) use self::watch::Stamp;
pub use self::watch::{Tables, check};
use crate::config::{TableConfig, TableFormat};

/// The tables as they are at one moment: an alert sees the same ones all its life.
pub type Snapshot = BTreeMap<String, Arc<Table>>;

/// Why a table cannot be used, or a row of it cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read: {source}; check its name, its permissions and the table's `file`", file.display())]
    Io {
        /// The table's file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file as a whole is not what it should be.
    #[error("{}: {why}", file.display())]
    File {
        /// The table's file.
        file: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A line is not what it should be.
    #[error("{}:{line}: {why}", file.display())]
    Line {
        /// The table's file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong and what to do.
        why: String,
    },
    /// A record of an mmdb file cannot be decoded, although the file as a whole could be opened.
    #[error("the record of {key} cannot be read: {why}; get the file again from where it came from")]
    Record {
        /// The address that was looked up.
        key: String,
        /// What the decoder says.
        why: String,
    },
}

/// One loaded table. It never changes; a file that changed becomes another one.
#[derive(Debug)]
pub struct Table {
    content: Content,
    sha256: String,
}

#[derive(Debug)]
enum Content {
    Rows { rows: Rows, index: Box<Index>, duplicates: usize },
    Mmdb(Mmdb),
}

impl Table {
    /// Loads a table. Blocks for as long as reading the file takes.
    ///
    /// # Errors
    /// [`TableError`], with the line where there is one: the file cannot be read, is empty or too large, or is not what the
    /// configuration says.
    pub fn load(config: &TableConfig) -> Result<Self, TableError> {
        Self::load_within(config, Bounds::default())
    }

    /// A table of rows that are made here, each under its key: for trials of a plugin.
    pub fn of_rows<'a>(
        keyed: impl IntoIterator<Item = (&'a str, &'a serde_json::Map<String, serde_json::Value>)>,
    ) -> Self {
        let (mut rows, mut index, mut duplicates) = (Rows::of_objects(), Index::new(), 0);
        let mut digested = String::new();
        for (key, row) in keyed {
            let object = serde_json::Value::Object(row.clone()).to_string();
            let start = rows.push_object(&object);
            duplicates += usize::from(index.insert(key.trim(), start).is_some());
            digested.extend([key, "\n", &object, "\n"]);
        }
        let sha256 = crate::digest::sha256_hex(digested.as_bytes());
        Self { content: Content::Rows { rows, index: Box::new(index), duplicates }, sha256 }
    }

    fn load_within(config: &TableConfig, bounds: Bounds) -> Result<Self, TableError> {
        let mut source = Source::open(&config.file, bounds)?;
        let content = match config.format {
            TableFormat::Mmdb => Content::Mmdb(Mmdb::open(source.read_whole()?, &config.file)?),
            _ => {
                let (rows, index, duplicates) = read::rows(config, &mut source)?;
                Content::Rows { rows, index: Box::new(index), duplicates }
            }
        };
        Ok(Self { content, sha256: source.sha256() })
    }

    /// The row with this key as a JSON object. Never blocks.
    ///
    /// # Errors
    /// [`TableError::Record`] when the record of an mmdb file is broken, or larger or deeper than a row may be.
    pub fn lookup(&self, key: &str) -> Result<Option<Cow<'_, str>>, TableError> {
        match &self.content {
            Content::Rows { rows, index, .. } => Ok(index.find(key).map(|start| rows.object(start))),
            Content::Mmdb(mmdb) => mmdb.lookup(key).map(|record| record.map(Cow::Owned)),
        }
    }

    /// SHA-256 of the file, as 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// How many rows it has, those with a key of a later one included; none where the format does not tell.
    pub fn rows(&self) -> Option<usize> {
        match &self.content {
            Content::Rows { rows, .. } => Some(rows.len()),
            Content::Mmdb(_) => None,
        }
    }

    /// How many keys came again in a later row, which took their place.
    pub fn duplicates(&self) -> usize {
        match &self.content {
            Content::Rows { duplicates, .. } => *duplicates,
            Content::Mmdb(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
