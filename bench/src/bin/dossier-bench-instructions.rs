//! Does one part of an alert's way again and again, for `cargo xtask bench --check`: valgrind counts the instructions that are executed
//! within [`measured`] and nowhere else. Nothing here is chance: hash seeds are fixed by [`getrandom`], alerts and tables are made from
//! their seeds.
//!
//! What chooses its code by the processor (SHA-256, `memchr`, the C library's copying) counts as valgrind's processor has it: the same
//! on all x86-64 machines with AVX2.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use dossier::alert::observables::Finder;
use dossier::alert::{Alert, Decoder};
use dossier::config::Config;
use dossier::dead_letter::history::History;
use dossier::record::{Label, Provenance, Record, StepFacts, StepTrace, Verdict};
use dossier::tables::Table;
use dossier::telemetry::events::AlertFinished;
use dossier::telemetry::{Telemetry, logging};
use dossier_bench::alerts::{Alerts, block_list};
use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};

/// How often the part is done before it is counted: what is made at the first time is not of interest.
const WARM_UP: usize = 3;

/// The random numbers of this program: always the same. It takes the place of the C library's, from which `std` takes its hash seeds.
///
/// # Safety
/// As the C library's: there is room for so many bytes.
#[expect(unsafe_code, reason = "hash seeds can be fixed in no other way")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::write_bytes(buffer, 7, length) };
    length.cast_signed()
}

/// What is counted. Its name is what valgrind is given.
#[inline(never)]
fn measured(times: usize, part: &mut dyn FnMut()) {
    (0..times).for_each(|_| part());
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().context("the first argument is the part's name")?;
    let times: usize = arguments.next().context("the second argument is how often it is done")?.parse()?;
    let config = Config::parse(Path::new("dossier.toml"), "").map_err(|error| anyhow::anyhow!("{error}"))?;
    let bytes = Bytes::from(Alerts::made()?.nth(1));
    let decoder = Decoder::new(&config.alert);
    let alert = decoder.decode(bytes.clone(), Timestamp::UNIX_EPOCH)?;
    let repeat = |part: &mut dyn FnMut()| {
        (0..WARM_UP).for_each(|_| part());
        measured(times, part);
    };
    match name.as_str() {
        "decode" => repeat(&mut || drop(black_box(decoder.decode(black_box(&bytes).clone(), Timestamp::UNIX_EPOCH)))),
        "observables" => {
            let finder = Finder::new(&[]);
            repeat(&mut || drop(black_box(finder.find(black_box(&alert.value)))));
        }
        "look-up" => {
            let table = table()?;
            let mut keys = block_list()
                .lines()
                .skip(1)
                .filter_map(|line| Some(line.split_once('\t')?.0.to_owned()))
                .collect::<Vec<_>>()
                .into_iter();
            // Each time another address: every second one is on the list, and the others are not.
            repeat(&mut || {
                let key = keys.next().unwrap_or_default();
                drop(black_box(table.lookup(black_box(&key))));
                drop(black_box(table.lookup(black_box("198.51.100.7"))));
            });
        }
        "record" => {
            let story = Story::new()?;
            repeat(&mut || drop(black_box(story.record(black_box(&alert)))));
        }
        "log-line" => {
            let log = logging::init(&config.log)?;
            let telemetry = Arc::new(Telemetry::new(log.sink()));
            let story = Story::new()?;
            let record = story.record(&alert);
            repeat(&mut || telemetry.emit(&story.finished(&alert, &record)));
            log.close()?;
        }
        other => bail!("there is no part \"{other}\""),
    }
    Ok(())
}

/// The made block list, as a table.
fn table() -> Result<Table> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("blocklist.tsv"), block_list())?;
    let text =
        "[tables.blocklist]\nfile = \"blocklist.tsv\"\ncolumns = [\"ip\", \"lists\"]\nkey = \"ip\"\ncomment = \"#\"\n";
    let config =
        Config::parse(&folder.path().join("dossier.toml"), text).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Table::load(config.tables.get("blocklist").context("there is no table")?)?)
}

/// What four steps found out.
struct Story {
    results: Vec<(String, Box<RawValue>)>,
    verdict: Verdict,
    steps: Vec<StepTrace>,
}

impl Story {
    fn new() -> Result<Self> {
        let found = serde_json::json!({"addresses": [{"address": "45.1.2.3", "roles": ["source"], "scope": "public", "score": 64}]});
        let names = ["ip-reputation", "asset", "geo", "verdict"];
        let result = |name: &str| Ok((name.to_owned(), to_raw_value(&found)?));
        let facts = |name: &str| StepFacts {
            step: name.to_owned(),
            stage: "enrich",
            plugin: name.to_owned(),
            version: "0.1.0".to_owned(),
            sha256: "0".repeat(64),
            settings_sha256: "1".repeat(64),
        };
        let step = |name: &str| StepTrace {
            facts: Arc::new(facts(name).into()),
            outcome: "ok",
            detail: None,
            attempts: 1,
            cached: false,
            tables: [("blocklist".to_owned(), "2".repeat(64))].into(),
            fuel: 1234,
            memory: 131_072,
            duration_us: 9,
        };
        Ok(Self {
            results: names.into_iter().map(result).collect::<Result<_>>()?,
            verdict: Verdict {
                label: Label::Suspicious,
                score: 55,
                reasons: vec!["it is on 3 block lists".to_owned()],
            },
            steps: names.into_iter().map(step).collect(),
        })
    }

    fn record(&self, alert: &Alert) -> Record {
        let provenance = Provenance {
            host: "0.1.0",
            config_sha256: "3333333333333333333333333333333333333333333333333333333333333333",
            received: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            duration_us: 100,
            deliveries: 1,
            attempts: 1,
            history: &History::default(),
            history_cut: 0,
            steps: &self.steps,
        };
        Record::new(alert, &alert.observables, &self.results, &self.verdict, &provenance)
    }

    fn finished<'a>(&'a self, alert: &'a Alert, record: &'a Record) -> AlertFinished<'a> {
        AlertFinished {
            id: Some(&alert.id),
            entry: "1700000000000-0",
            outcome: "stored",
            verdict: Some(self.verdict.label),
            reason: None,
            step: None,
            duration: Duration::from_micros(100),
            deliveries: 1,
            steps: &self.steps,
            record: Some(record),
        }
    }
}
