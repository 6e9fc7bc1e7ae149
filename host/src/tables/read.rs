//! Text formats: csv, tsv, lists and JSON lines become rows and an index.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

use super::TableError;
use super::index::Index;
use super::rows::Rows;
use super::source::{Source, row_too_long};
use crate::config::{TableConfig, TableFormat};

/// The one column of a list.
const LIST_COLUMN: &str = "key";

/// Reads a whole text file; besides rows and index gives the number of keys that came again.
pub(super) fn rows(config: &TableConfig, source: &mut Source) -> Result<(Rows, Index, usize), TableError> {
    match config.format {
        TableFormat::Csv => cells(config, source, csv::ReaderBuilder::new().delimiter(b',')),
        TableFormat::Tsv => cells(config, source, csv::ReaderBuilder::new().delimiter(b'\t').quoting(false)),
        TableFormat::List => list(config, source),
        TableFormat::Jsonl => objects(config, source),
        TableFormat::Mmdb => Err(source.refuse("is no text file; this is a mistake in dossier, please report it")),
    }
}

/// What a text file becomes.
struct Loaded {
    rows: Rows,
    index: Index,
    duplicates: usize,
    memory: usize,
    /// Rows that were left out because none of their keys had a value.
    keyless: usize,
}

impl Loaded {
    fn new(rows: Rows, source: &Source) -> Self {
        Self { rows, index: Index::new(), duplicates: 0, memory: source.bounds.memory, keyless: 0 }
    }

    /// Adds a row under all of its keys; `push` says how.
    fn add<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k str> + Clone,
        push: impl FnOnce(&mut Rows) -> u32,
    ) -> Result<(), String> {
        let keys = keys.map(str::trim).filter(|key| !key.is_empty());
        if keys.clone().next().is_none() {
            self.keyless += 1;
            return Ok(());
        }
        let row = push(&mut self.rows);
        for key in keys {
            // A row whose address and name are the same text is no duplicate of itself.
            self.duplicates += usize::from(self.index.insert(key, row).is_some_and(|before| before != row));
        }
        if self.rows.size() + self.index.size() > self.memory {
            return Err(format!(
                "the rows up to here take more than {} bytes in memory; keep only the columns and rows that plugins need",
                self.memory
            ));
        }
        Ok(())
    }

    fn finish(mut self, config: &TableConfig, source: &Source) -> Result<(Rows, Index, usize), TableError> {
        if self.rows.len() == 0 && self.keyless > 0 {
            let keys = config.key.join("\" or \"");
            return Err(source.refuse(format!("no row has a value in \"{keys}\"; check the table's `key`")));
        }
        self.rows.shrink();
        self.index.shrink();
        Ok((self.rows, self.index, self.duplicates))
    }
}

fn cells(
    config: &TableConfig,
    source: &mut Source,
    builder: &mut csv::ReaderBuilder,
) -> Result<(Rows, Index, usize), TableError> {
    source.begin_row();
    let mut reader = builder
        .comment(config.comment.map(|comment| comment as u8))
        .has_headers(config.columns.is_none())
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(source);
    let columns = match &config.columns {
        Some(columns) => columns.clone(),
        None => match reader.headers() {
            Ok(header) => header.iter().map(str::to_owned).collect(),
            Err(error) => return Err(csv_error(&error, 1, reader.get_ref())),
        },
    };
    let source = reader.get_ref();
    if let Some(twice) = columns.iter().enumerate().find_map(|(at, name)| columns[..at].contains(name).then_some(name))
    {
        return Err(source.refuse(format!("has the column \"{twice}\" twice; give each column a name of its own")));
    }
    let mut keys = Vec::with_capacity(config.key.len());
    for key in &config.key {
        match columns.iter().position(|column| column == key) {
            Some(at) => keys.push(at),
            None => {
                let header = columns.join(", ");
                return Err(source.refuse(format!(
                    "has no column \"{key}\", its header says: {header}; correct the table's `key`, or name the `columns` of a file without a header"
                )));
            }
        }
    }
    let mut loaded = Loaded::new(Rows::of_cells(columns.iter().map(String::as_str)), source);
    let mut record = csv::StringRecord::new();
    loop {
        reader.get_mut().begin_row();
        let before = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(csv_error(&error, before, reader.get_ref())),
        }
        let line = record.position().map_or(before, csv::Position::line);
        let source = reader.get_ref();
        if record.len() != columns.len() {
            let (has, wants) = (record.len(), columns.len());
            return Err(source.refuse_line(line, format!("has {has} cells where the table has {wants} columns")));
        }
        if record.as_slice().len() > source.bounds.row {
            return Err(source.refuse_line(line, row_too_long(source.bounds.row)));
        }
        loaded
            .add(keys.iter().map(|&key| &record[key]), |rows| rows.push_cells(record.iter()))
            .map_err(|why| source.refuse_line(line, why))?;
    }
    loaded.finish(config, reader.get_ref())
}

fn csv_error(error: &csv::Error, before: u64, source: &Source) -> TableError {
    let line = error.position().map_or(before, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Io(io) => source.refuse_line(line, io.to_string()),
        csv::ErrorKind::Utf8 { .. } => source.refuse_line(line, NOT_UTF8),
        _ => source.refuse_line(line, error.to_string()),
    }
}

const NOT_UTF8: &str = "is not UTF-8; convert the file, as in `iconv -f latin1 -t utf-8`";

fn list(config: &TableConfig, source: &mut Source) -> Result<(Rows, Index, usize), TableError> {
    let mut loaded = Loaded::new(Rows::of_cells([LIST_COLUMN].into_iter()), source);
    lines(config, source, |line| {
        let key = config.comment.map_or(line, |comment| without_trailing_comment(line, comment));
        loaded.add([key].into_iter(), |rows| rows.push_cells([key].into_iter()))
    })?;
    loaded.finish(config, source)
}

/// A key without the comment that follows it after white space. Without it a URL's fragment would be one.
fn without_trailing_comment(line: &str, comment: char) -> &str {
    let end = line
        .char_indices()
        .find(|&(at, character)| character == comment && line[..at].ends_with(char::is_whitespace))
        .map_or(line.len(), |(at, _)| at);
    line[..end].trim_end()
}

fn objects(config: &TableConfig, source: &mut Source) -> Result<(Rows, Index, usize), TableError> {
    let mut loaded = Loaded::new(Rows::of_objects(), source);
    lines(config, source, |line| {
        // Parsed as a whole, though only the keys are wanted: this is what refuses lone surrogates and endless depth.
        let object: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("is no JSON object: {error}"))?;
        let mut keys = Vec::with_capacity(config.key.len());
        for key in &config.key {
            match object.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => keys.push(text.clone()),
                Some(Value::Number(number)) => keys.push(number.to_string()),
                Some(_) => return Err(format!("its \"{key}\" is neither a text nor a number")),
            }
        }
        loaded.add(keys.iter().map(String::as_str), |rows| rows.push_object(line))
    })?;
    loaded.finish(config, source)
}

/// Hands over each line that is neither blank nor a comment, without the white space around it.
fn lines(
    config: &TableConfig,
    source: &mut Source,
    mut line: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), TableError> {
    let bound = source.bounds.row;
    let mut buffer = Vec::new();
    let mut reader = BufReader::with_capacity(64 << 10, source);
    for number in 1.. {
        buffer.clear();
        // One more than a row may have, so that one which has too much can be told.
        let read = reader.by_ref().take(bound as u64 + 1).read_until(b'\n', &mut buffer);
        let source = reader.get_ref();
        if read.map_err(|error| source.error(error))? == 0 {
            break;
        }
        if buffer.len() > bound {
            return Err(source.refuse_line(number, row_too_long(bound)));
        }
        let text = std::str::from_utf8(&buffer).map_err(|_| source.refuse_line(number, NOT_UTF8))?;
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text }.trim();
        if text.is_empty() || config.comment.is_some_and(|comment| text.starts_with(comment)) {
            continue;
        }
        line(text).map_err(|why| source.refuse_line(number, why))?;
    }
    Ok(())
}
