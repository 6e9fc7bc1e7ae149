//! A file as a MaxMind database, which may have been made to harm: refused or opened, and every answer is a JSON object of bounded size
//! or an error. It never takes for ever.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dossier::config::{TableConfig, TableFormat};
use dossier::tables::Table;
use rustix::time::{ClockId, clock_gettime};

use crate::{Scratch, is_json};

/// How much of the processor a file of a few kilobytes may take to be opened and asked.
const LONGEST: Duration = Duration::from_secs(10);

/// Any bytes.
///
/// # Panics
/// A promise is broken.
pub fn run(data: &[u8]) {
    let scratch = Scratch::write(data);
    let config = TableConfig {
        file: scratch.path(),
        format: TableFormat::Mmdb,
        key: Vec::new(),
        columns: None,
        comment: None,
        max_age: None,
        line: 1,
    };
    let begun = busy();
    if let Ok(table) = Table::load(&config) {
        assert_eq!(table.sha256(), dossier::digest::sha256_hex(data));
        let v4 = [0, 0x0a01_0203, 0x7f00_0001, 0xc000_02c8, u32::MAX].map(|bits| Ipv4Addr::from(bits).to_string());
        let v6 = [0, 1, 0x2001_0db8 << 96, 0x2002_0a00 << 96, u128::MAX].map(|bits| Ipv6Addr::from(bits).to_string());
        for key in v4.iter().chain(&v6).map(String::as_str).chain(["host", ""]) {
            if let Ok(Some(row)) = table.lookup(key) {
                assert!(row.len() <= (1 << 20) + 64 && row.starts_with('{') && is_json(&row), "{key} finds {row}");
            }
        }
    }
    let took = busy().saturating_sub(begun);
    assert!(took < LONGEST, "it took {took:?}");
}

/// For how long this thread has had a processor: a machine that does other things as well is no find.
fn busy() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
