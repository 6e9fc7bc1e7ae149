//! `dossier verify`: was what was sent stored, is it dead, does it wait? Reads what was sent, walks through queue, dead letters and store,
//! and tells what does not add up. What an alert is, [`identity`] says; what adds up, the [`ledger`].

mod flow;
pub mod identity;
mod ledger;
mod report;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use crate::cli::send::lines::{self, Source};
use crate::config::{Config, QueueKind};
use crate::queue::{Held, Place, Queue};

use self::identity::{Identifier, Mark, Sent};
use self::ledger::{Ledger, Suspects, Wrong};
use super::output::{Out, Progress, count, printable, remark};
use super::{FAILED, INTERRUPTED, interrupted};

/// How often what looks wrong is looked for again. Alerts move while they are looked for; what stays wrong twice in the same way is
/// wrong.
const ROUNDS: usize = 5;

/// The order in which places are looked through: the way of an alert, so that one that goes on meanwhile is met twice
/// rather than never. A dead letter that is replayed goes the other way, and is found when it is looked for again.
const WAY: [Place; 3] = [Place::Queue, Place::Dead, Place::Store];

/// A byte order mark.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// What was sent, and how to show what came of it.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("sent").args(["ids", "alerts", "input"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  dossier send --ids sent.ids alerts.ndjson && dossier verify --ids sent.ids
  dossier verify --alerts monday.ndjson --alerts tuesday.ndjson
  psql -qtc 'select id from alerts' | dossier verify --ids -
  dossier verify --ids sent.ids --json | jq '.orphans'
  dossier verify --input               Nobody noted what was sent: do the numbers add up?")]
pub struct Arguments {
    /// Ids of what was sent, one a line; - is the standard input. Can be given more than once
    #[arg(long, value_name = "FILE")]
    ids: Vec<PathBuf>,
    /// What was sent, one alert a line; - is the standard input. Can be given more than once
    #[arg(long, value_name = "FILE")]
    alerts: Vec<PathBuf>,
    /// Compare how many alerts ever came in with how many came out: with Redis 7.0 or later, which counts
    #[arg(long, conflicts_with_all = ["ids", "alerts"])]
    input: bool,
    /// Name at most so many orphans, doubles and strangers each; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
}

/// What was found, in all.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    waiting: u64,
    dead: u64,
    stored: u64,
    /// Entries that hold no alert, and records that are none.
    foreign: u64,
}

/// Where something wrong lies, by what it is called.
type Names = BTreeMap<Wrong, Vec<(String, Vec<String>)>>;

/// Compares.
///
/// # Errors
/// A file cannot be read or has a line that says no id; the queue cannot be asked; or the output cannot be written.
pub async fn verify<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    arguments: &Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    if arguments.input {
        let adds_up = flow::compare(queue, arguments.json, out).await?;
        return Ok(if adds_up { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    let audit = Audit { queue, identifier: Identifier::new(config), limit: arguments.limit };
    let work = async {
        let sources = Sources::open(arguments).await?;
        let mut ledger = Ledger::default();
        let (mut sent, mut unsure) = (0_u64, 0_u64);
        audit
            .read(&sources, |one| {
                *(if one.unsure { &mut unsure } else { &mut sent }) += 1;
                ledger.sent(&one);
            })
            .await?;
        let found = audit.look(&mut ledger, None, &mut BTreeMap::new()).await?;
        let (suspects, places) = audit.settle(&mut ledger).await?;
        let names = audit.name(&sources, &suspects, places).await?;
        Ok::<_, anyhow::Error>(report::Report::new(&ledger, (sent, unsure), found, &suspects, names))
    };
    let report = tokio::select! {
        report = work => report?,
        () = interrupted() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let retention = match &config.queue.kind {
        QueueKind::Redis(redis) => redis.retention,
        QueueKind::Directory { .. } => None,
    };
    if let Some(retention) = retention.filter(|_| report.count(Wrong::Orphan) > 0) {
        remark(&format!(
            "records are kept for {}: what is older is an orphan here",
            super::output::duration(retention)
        ));
    }
    if arguments.json {
        report.write_json(out)?
    } else {
        report.write(out)?
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Files of what was sent, which are read twice: once for the ledger, once for the names of those that are missing.
struct Sources {
    ids: Vec<PathBuf>,
    alerts: Vec<PathBuf>,
    /// What came by the standard input.
    _kept: Vec<tempfile::NamedTempFile>,
}

impl Sources {
    async fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut kept = Vec::new();
        let mut paths = [arguments.ids.clone(), arguments.alerts.clone()];
        ensure!(
            paths.iter().flatten().filter(|path| *path == Path::new("-")).count() < 2,
            "the standard input can be read once, and more than one of --ids and --alerts is \"-\"; write all but one into files"
        );
        for path in paths.iter_mut().flatten().filter(|path| *path == Path::new("-")) {
            if std::io::stdin().is_terminal() {
                remark("reading what was sent from the terminal, one a line; Ctrl-D ends it, Ctrl-C gives up");
            }
            let copied = tokio::task::spawn_blocking(|| {
                let mut file = tempfile::NamedTempFile::new()?;
                std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
                Ok::<_, std::io::Error>(file)
            });
            let file = copied.await?.context("cannot keep what came by the standard input")?;
            *path = file.path().to_owned();
            kept.push(file);
        }
        let [ids, alerts] = paths;
        Ok(Self { ids, alerts, _kept: kept })
    }
}

struct Audit<'a> {
    queue: &'a dyn Queue,
    identifier: Identifier,
    limit: usize,
}

impl Audit<'_> {
    /// Reads what was sent.
    async fn read(&self, sources: &Sources, mut take: impl FnMut(Sent)) -> anyhow::Result<()> {
        for (paths, are_ids) in [(&sources.ids, true), (&sources.alerts, false)] {
            let sources = Source::all(paths)?;
            let mut progress = Progress::of_bytes(sources.iter().map(|source| source.size).sum());
            let mut batches = lines::read(sources);
            let (mut bytes, mut alerts) = (0, 0);
            while let Some(batch) = batches.recv().await {
                let batch = batch?;
                for (n, line) in batch.alerts.iter().enumerate() {
                    // What other programs write may begin with a byte order mark, which is no part of an id.
                    let marked = are_ids && n == 0 && batch.is_first() && line.starts_with(MARK);
                    let line = &if marked { line.slice(MARK.len()..) } else { line.clone() };
                    if line.is_empty() {
                        continue;
                    }
                    take(self.sent(line, are_ids).map_err(|error| {
                        let line = printable(&String::from_utf8_lossy(&line[..line.len().min(80)]));
                        anyhow::anyhow!("\"{line}\", before or at {}, says no id: {error}", batch.last)
                    })?);
                }
                bytes += batch.read;
                alerts += batch.alerts.len() as u64;
                progress.at(bytes, || format!("{} sent", count(alerts, "alert")));
            }
        }
        Ok(())
    }

    fn sent(&self, line: &Bytes, is_id: bool) -> Result<Sent, String> {
        if is_id {
            return identity::sent(line);
        }
        let identity = self.identifier.of(line);
        Ok(Sent { name: identity::name(&identity), mark: identity.mark(), by_id: false, unsure: false })
    }

    /// Looks through all places; with `only`, for these alone, and says where they lie.
    async fn look(
        &self,
        ledger: &mut Ledger,
        only: Option<&Suspects>,
        places: &mut BTreeMap<Mark, (String, Vec<String>)>,
    ) -> anyhow::Result<Found> {
        let mut found = Found::default();
        let mut room = BTreeMap::new();
        let mut progress = Progress::of(None);
        for place in WAY {
            let mut walk = self.queue.walk(place);
            loop {
                let page = walk.next().await?;
                if page.is_empty() {
                    break;
                }
                for held in &page {
                    let (number, word) = match place {
                        Place::Queue => (&mut found.waiting, "waits as"),
                        Place::Dead => (&mut found.dead, "dead as"),
                        Place::Store => (&mut found.stored, "stored as"),
                    };
                    *number += 1;
                    let Some(identity) = self.identity(place, held) else {
                        found.foreign += 1;
                        continue;
                    };
                    ledger.found(&identity, place, only);
                    let Some(only) = only else { continue };
                    for (mark, _) in ledger.marks(&identity).filter(|(mark, _)| only.contains_key(mark)) {
                        // All are counted; not all are named.
                        let named = only.get(&mark).and_then(|tally| tally.wrong());
                        let room = room.entry(named).or_insert(self.limit);
                        if *room > 0 || places.contains_key(&mark) {
                            *room -= usize::from(!places.contains_key(&mark));
                            let name = || (identity::name(&identity), Vec::new());
                            let (_, where_it_is) = places.entry(mark).or_insert_with(name);
                            if where_it_is.len() < 8 {
                                where_it_is.push(format!("{word} {}", held.key));
                            }
                        }
                    }
                }
                progress.at(found.waiting + found.dead + found.stored, || "looked at".to_owned());
                // Between two pages whoever wants to interrupt this is heard.
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }

    fn identity(&self, place: Place, held: &Held) -> Option<identity::Identity> {
        let bytes = held.bytes.as_ref()?;
        match place {
            Place::Store => self.identifier.of_record(bytes),
            Place::Queue | Place::Dead => Some(self.identifier.of(bytes)),
        }
    }

    /// Looks for what seems wrong again until it stays as it is, and gives what is wrong then, and where it lies.
    async fn settle(&self, ledger: &mut Ledger) -> anyhow::Result<(Suspects, BTreeMap<Mark, (String, Vec<String>)>)> {
        let mut suspects = ledger.suspects();
        let mut places = BTreeMap::new();
        for _ in 0..ROUNDS {
            if suspects.is_empty() {
                break;
            }
            places.clear();
            ledger.look_again(&suspects);
            self.look(ledger, Some(&suspects), &mut places).await?;
            let still: Suspects = suspects
                .keys()
                .map(|mark| (*mark, ledger.tally(mark)))
                .filter(|(_, tally)| tally.wrong().is_some())
                .collect();
            let settled = still == suspects;
            suspects = still;
            if settled {
                break;
            }
        }
        Ok((suspects, places))
    }

    /// Names what is wrong: where it was found by what was found, where it was not by what was sent.
    async fn name(
        &self,
        sources: &Sources,
        suspects: &Suspects,
        mut places: BTreeMap<Mark, (String, Vec<String>)>,
    ) -> anyhow::Result<Names> {
        let mut names = Names::new();
        let mut missing = std::collections::BTreeSet::new();
        for (mark, tally) in suspects {
            match tally.wrong() {
                Some(Wrong::Orphan) => _ = missing.insert(*mark),
                Some(wrong) => names.entry(wrong).or_default().extend(places.remove(mark)),
                None => {}
            }
        }
        if !missing.is_empty() {
            let orphans = names.entry(Wrong::Orphan).or_default();
            let name = |sent: Sent| {
                if orphans.len() < self.limit && missing.remove(&sent.mark) {
                    orphans.push((sent.name, Vec::new()));
                }
            };
            self.read(sources, name).await?;
        }
        for names in names.values_mut() {
            names.sort();
            names.truncate(self.limit);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;
    use crate::dead_letter::Reason;

    struct Sheet {
        folder: tempfile::TempDir,
        queue: MemoryQueue,
    }

    impl Sheet {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), queue: MemoryQueue::default() }
        }

        /// What `dossier verify` says after these ids were sent.
        async fn said(&self, ids: &str, json: bool) -> (ExitCode, String) {
            let file = self.folder.path().join("sent");
            std::fs::write(&file, ids).unwrap();
            let arguments = Arguments { ids: vec![file], alerts: Vec::new(), input: false, limit: 2, json };
            let mut text = Vec::new();
            let mut out = Out::new(&mut text);
            let code = verify(&self.queue, &crate::plugin::trial::standard(), &arguments, &mut out).await.unwrap();
            out.finish().unwrap();
            drop(out);
            (code, String::from_utf8(text).unwrap())
        }
    }

    #[tokio::test]
    async fn everything_in_its_place_is_accounted_for() {
        let sheet = Sheet::new();
        sheet.queue.store("a", r#"{"id":"a"}"#);
        sheet.queue.store("a~12345678", r#"{"id":"a","x":1}"#);
        sheet.queue.bury("1-0", Some("b"), Reason::Trap, "geo", br#"{"id":"b"}"#);
        sheet.queue.send(&[Bytes::from_static(br#"{"id":"c"}"#)]).await.unwrap();
        let (code, said) = sheet.said("a\na\nb\n\nc\n", false).await;
        assert_eq!(code, ExitCode::SUCCESS, "{said}");
        assert!(said.ends_with("everything is accounted for\n"), "{said}");
    }

    #[tokio::test]
    async fn orphans_doubles_and_strangers_are_counted_and_named_with_where_they_lie() {
        let sheet = Sheet::new();
        sheet.queue.store("a", r#"{"id":"a"}"#);
        sheet.queue.bury("1-0", Some("a"), Reason::Trap, "geo", br#"{"id":"a"}"#);
        sheet.queue.store("s\u{1b}", r#"{"id":"s\u001b"}"#);
        let (code, said) = sheet.said("a\nb\nc\nd\n", false).await;
        assert_eq!(code, ExitCode::from(FAILED));
        for line in [
            "orphan    b\n",
            "orphan    c\n",
            "… and 1 more\n",
            "double    a  (dead as 1-0, stored as a)\n",
            "stranger  s\\u{1b}  (",
        ] {
            assert!(said.contains(line), "{line} is not in\n{said}");
        }
        let (_, said) = sheet.said("a\nb\nc\nd\n", true).await;
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(json["orphans"]["count"], 3);
        assert_eq!(json["orphans"]["named"][0]["alert"], "b");
        assert_eq!(json["doubles"]["named"][0]["found"][1], "stored as a");
        assert_eq!((&json["strangers"]["count"], &json["accounted"]), (&1.into(), &false.into()));
    }

    #[tokio::test]
    async fn a_file_of_alerts_says_it_as_a_file_of_ids_does() {
        let sheet = Sheet::new();
        sheet.queue.store("a", r#"{"id":"a"}"#);
        sheet.queue.bury("1-0", None, Reason::Malformed, "-", b"{\"id\":");
        let file = sheet.folder.path().join("alerts");
        std::fs::write(&file, "{\"id\":\"a\"}\n{\"id\":\n{\"x\":1}\n").unwrap();
        let arguments = Arguments { ids: Vec::new(), alerts: vec![file], input: false, limit: 9, json: true };
        let mut text = Vec::new();
        let config = crate::plugin::trial::standard();
        verify(&sheet.queue, &config, &arguments, &mut Out::new(&mut text)).await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&json["orphans"]["count"], &json["strangers"]["count"]), (&1.into(), &0.into()));
        let id = crate::alert::id_of_bytes(b"{\"x\":1}");
        assert_eq!(json["orphans"]["named"][0]["alert"], id);
    }

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_the_first_id_and_of_another_it_is() {
        let sheet = Sheet::new();
        sheet.queue.store("a", r#"{"id":"a"}"#);
        sheet.queue.store("\u{feff}b", "{\"id\":\"\u{feff}b\"}");
        for ids in ["\u{feff}a\r\n\u{feff}b\r\n", "\u{feff}\na\n\u{feff}b", "\u{feff}{\"id\":\"a\"}\n\u{feff}b\n"] {
            let (code, said) = sheet.said(ids, false).await;
            assert_eq!(code, ExitCode::SUCCESS, "{said}");
        }
        assert_eq!(sheet.said("b\na\n", false).await.0, ExitCode::from(FAILED));
    }

    #[tokio::test]
    async fn the_standard_input_cannot_be_two_files() {
        for (ids, alerts) in [(vec!["-"], vec!["-"]), (vec!["-", "-"], vec![])] {
            let [ids, alerts] = [ids, alerts].map(|names| names.into_iter().map(PathBuf::from).collect());
            let arguments = Arguments { ids, alerts, input: false, limit: 1, json: false };
            let config = crate::plugin::trial::standard();
            let said = verify(&MemoryQueue::default(), &config, &arguments, &mut Out::new(Vec::new())).await;
            let error = said.unwrap_err().to_string();
            assert!(error.contains("can be read once") && error.contains("into files"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_line_that_says_no_id_is_named() {
        let sheet = Sheet::new();
        let file = sheet.folder.path().join("sent");
        std::fs::write(&file, "a\n{\"id\":\"a\",\"src_ip\":\"b\"}\n").unwrap();
        let arguments = Arguments { ids: vec![file], alerts: Vec::new(), input: false, limit: 1, json: false };
        let config = crate::plugin::trial::standard();
        let error = verify(&sheet.queue, &config, &arguments, &mut Out::new(Vec::new())).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains("src_ip") && error.contains("line 2") && error.contains("--alerts"), "{error}");
    }
}
