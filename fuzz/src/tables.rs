//! A file as a table in each text format, with each kind of comment and header: loaded or refused with its place, and every row that can
//! be found is a JSON object.

use dossier::config::{TableConfig, TableFormat};
use dossier::tables::{Table, TableError};

use crate::{Scratch, choice, is_json};

/// The first byte chooses format, comment and columns; the rest is the file.
///
/// # Panics
/// A promise is broken.
pub fn run(data: &[u8]) {
    let (form, file) = choice(data);
    let scratch = Scratch::write(file);
    let format = match form & 3 {
        0 => TableFormat::Csv,
        1 => TableFormat::Tsv,
        2 => TableFormat::List,
        _ => TableFormat::Jsonl,
    };
    let list = format == TableFormat::List;
    let config = TableConfig {
        file: scratch.path(),
        format,
        key: if list { vec!["key".into()] } else { vec!["ip".into(), "host".into()] },
        columns: (form & 4 != 0 && !list).then(|| vec!["ip".into(), "host".into(), "n".into()]),
        comment: (form & 8 != 0).then_some('#'),
        max_age: None,
        line: 1,
    };
    match Table::load(&config) {
        Ok(table) => {
            assert!(table.rows().is_some_and(|rows| table.duplicates() <= 2 * rows));
            assert_eq!(table.sha256(), dossier::digest::sha256_hex(file), "the digest of the file");
            let text = String::from_utf8_lossy(file);
            let words = text.split([',', '\t', '\n', '"', ':']).take(64);
            for key in words.chain(["10.0.0.1", "::1", "10.0.0.0/8", ""]) {
                let row = table.lookup(key).unwrap_or_else(|error| panic!("a text table has no broken rows: {error}"));
                if let Some(row) = row {
                    assert!(row.starts_with('{') && is_json(&row), "{key:?} finds {row}");
                }
            }
        }
        Err(TableError::Line { line, .. }) => assert!(line >= 1 && line <= lines(file), "line {line} is not there"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn lines(file: &[u8]) -> u64 {
    // Either way of ending a line is one.
    1 + file.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64
}
