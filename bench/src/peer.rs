//! A peer in dossier's loop: the queue, the commit, the record's other parts and the log line are the host's own; what is found out about
//! an alert comes from a library of `bench/peers`, one alert at a time, on a thread for each core. It parses the alert as it wants, for the
//! host does not: an alert is only copied into its record. The same loop around nothing at all shows what the loop costs.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dossier::alert::id_of_bytes;
use dossier::config::{Config, StepConfig};
use dossier::dead_letter::history::History;
use dossier::digest::{sha256, sha256_hex};
use dossier::queue::{Body, Committed, Delivery, Outcome, Queue, Settled};
use dossier::record::{Label, Provenance, Record, StepFacts, StepTrace};
use dossier::telemetry::events::{AlertFinished, HostStarted};
use dossier::telemetry::{Telemetry, logging};
use jiff::Timestamp;
use libloading::{Library, Symbol};
use tokio::sync::mpsc;

use crate::site;

/// How many batches may wait for a core.
const AHEAD: usize = 4;

/// How long the answer of what finds nothing out is, in bytes, so that its records are as long as others'.
const ANSWER: usize = 1350;

type Take = extern "C" fn(*mut c_void, *const u8, usize);
type Open = unsafe extern "C" fn(*const u8, usize) -> *mut c_void;
type Enrich = unsafe extern "C" fn(*mut c_void, *const u8, usize, Take, *mut c_void) -> bool;

/// Finds out about an alert: gives a JSON object.
type Enricher = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>> + Send>;

/// What finds nothing out and answers as much as others do.
///
/// # Errors
/// None.
pub fn nothing() -> Result<Enricher> {
    let found = serde_json::json!({
        "observables": [],
        "enrichment": { "nothing": "-".repeat(ANSWER) },
        "verdict": { "label": "unknown", "score": 0, "reasons": [] },
    });
    let answer = serde_json::to_vec(&found)?;
    Ok(Box::new(move |_| Ok(answer.clone())))
}

/// A library of `bench/peers` in one of its modes.
///
/// # Errors
/// It cannot be opened.
pub fn library(file: &Path, mode: &str) -> Result<Enricher> {
    let mut peer = Peer::open(file, mode)?;
    Ok(Box::new(move |alert| peer.enrich(alert)))
}

/// Runs until it is killed; `open` makes what finds something out, for each core.
///
/// # Errors
/// Whatever keeps a host from starting; or what finds something out fails.
pub fn run(config: &Path, open: impl Fn() -> Result<Enricher>) -> Result<()> {
    let config = Arc::new(Config::load(config)?);
    tokio::runtime::Runtime::new()?.block_on(async {
        let log = logging::init(&config.log)?;
        let telemetry = Arc::new(Telemetry::new(log.sink()));
        let queue = dossier::queue::open(&config.queue, Arc::clone(&telemetry)).await?;
        let shared = Arc::new(Shared { steps: traces(&config), config, queue, telemetry });
        let (mut inputs, mut ends) = (Vec::new(), tokio::task::JoinSet::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            let (input, waiting) = mpsc::channel(AHEAD);
            inputs.push(input);
            let enricher = open()?;
            let (done, settled) = mpsc::channel(1);
            let (worker, committer) = (Arc::clone(&shared), Arc::clone(&shared));
            ends.spawn_blocking(move || work(&worker, enricher, waiting, &done));
            ends.spawn(async move { commit(&committer, settled).await });
        }
        let names: Vec<_> = shared.steps.iter().map(|step| step.facts.step.clone()).collect();
        let started = HostStarted { admin: None, queue: "redis", steps: &names, missing: &Default::default() };
        shared.telemetry.emit(&started);
        let reader = Arc::clone(&shared);
        ends.spawn(async move { read(&reader, inputs).await });
        ends.join_next().await.context("nobody works")??
    })
}

struct Shared {
    config: Arc<Config>,
    queue: Arc<dyn Queue>,
    telemetry: Arc<Telemetry>,
    /// What records and log lines say of the steps: as much as of a host's.
    steps: Vec<StepTrace>,
}

/// Gives the cores batches in turn.
async fn read(shared: &Shared, cores: Vec<mpsc::Sender<Vec<Delivery>>>) -> Result<()> {
    for core in cores.iter().cycle() {
        let batch = loop {
            let some = shared.queue.receive(site::BATCH).await?;
            if !some.is_empty() {
                break some;
            }
        };
        core.send(batch).await.context("a core is gone")?;
    }
    Ok(())
}

/// A batch that is to be committed: when work on each alert began, what came of it, and its id.
type Done = (Vec<Settled>, Vec<(Instant, Label, String)>);

fn work(
    shared: &Shared,
    mut enricher: Enricher,
    mut waiting: mpsc::Receiver<Vec<Delivery>>,
    done: &mpsc::Sender<Done>,
) -> Result<()> {
    while let Some(batch) = waiting.blocking_recv() {
        let mut settled = Vec::with_capacity(batch.len());
        let mut stories = Vec::with_capacity(batch.len());
        for delivery in batch {
            let (started, received) = (Instant::now(), Timestamp::now());
            let (record, label) = record(shared, &mut enricher, &delivery, started, received)?;
            stories.push((started, label, record.id.clone()));
            settled.push(Settled { delivery, outcome: Outcome::Store(record) });
        }
        done.blocking_send((settled, stories)).ok().context("the committer is gone")?;
    }
    Ok(())
}

/// Commits what a core is done with while that is at the next batch, and tells of it.
async fn commit(shared: &Shared, mut done: mpsc::Receiver<Done>) -> Result<()> {
    while let Some((settled, stories)) = done.recv().await {
        let committed = shared.queue.commit(&settled).await?;
        ensure!(committed.iter().all(|one| *one == Committed::Stored), "an alert was not stored: {committed:?}");
        shared.telemetry.together(|| {
            for (settled, (started, label, id)) in settled.iter().zip(&stories) {
                shared.telemetry.emit(&AlertFinished {
                    id: Some(id),
                    entry: &settled.delivery.entry,
                    outcome: "stored",
                    verdict: Some(*label),
                    reason: None,
                    step: None,
                    duration: started.elapsed(),
                    deliveries: settled.delivery.deliveries,
                    steps: &shared.steps,
                    record: match &settled.outcome {
                        Outcome::Store(record) => Some(record),
                        Outcome::Dead(_) => None,
                    },
                });
            }
        });
    }
    Ok(())
}

fn record(
    shared: &Shared,
    enricher: &mut Enricher,
    delivery: &Delivery,
    started: Instant,
    received: Timestamp,
) -> Result<(Record, Label)> {
    let Body::Alert(alert) = &delivery.body else {
        bail!("there is something else than an alert: {:?}", delivery.body)
    };
    let found = enricher(alert)?;
    let said = |label: Label| memchr::memmem::find(&found, format!("\"label\":\"{}\"", label.as_str()).as_bytes());
    let labels = [Label::Malicious, Label::Suspicious, Label::Benign, Label::Unknown];
    let label = labels.into_iter().find(|label| said(*label).is_some()).context("there is no verdict")?;
    let inside = found.strip_prefix(b"{").and_then(|found| found.strip_suffix(b"}")).context("no JSON object")?;
    let provenance = Provenance {
        host: env!("CARGO_PKG_VERSION"),
        config_sha256: &shared.config.sha256,
        received,
        finished: Timestamp::now(),
        duration_us: u64::try_from(started.elapsed().as_micros())?,
        deliveries: delivery.deliveries,
        attempts: delivery.attempts + 1,
        history: &History::default(),
        history_cut: 0,
        steps: &shared.steps,
    };
    let mut rest = Vec::with_capacity(alert.len() + found.len() + 2048);
    for part in [b",\"alert\":", &alert[..], b",", inside, b",\"pipeline\":"] {
        rest.extend_from_slice(part);
    }
    provenance.write(&mut rest);
    rest.push(b'}');
    Ok((Record { id: id_of_bytes(alert), sha256: sha256(alert), rest: rest.into() }, label))
}

/// What a host would say of the steps; a peer does not tell one from the other.
fn traces(config: &Config) -> Vec<StepTrace> {
    let facts = |step: &StepConfig| StepFacts {
        step: step.name.clone(),
        stage: if step.name == "verdict" { "verdict" } else { "enrich" },
        plugin: step.plugin.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sha256: sha256_hex(step.plugin.as_bytes()),
        settings_sha256: sha256_hex(step.settings.as_bytes()),
    };
    let trace = |step: &StepConfig| StepTrace {
        facts: Arc::new(facts(step).into()),
        outcome: "ok",
        detail: None,
        attempts: 1,
        cached: false,
        tables: step.tables.iter().map(|table| (table.clone(), sha256_hex(table.as_bytes()))).collect(),
        fuel: 0,
        memory: 0,
        duration_us: 0,
    };
    config.steps.iter().map(trace).collect()
}

/// A library that was opened, for one thread.
struct Peer {
    enrich: Enrich,
    state: *mut c_void,
    /// What the two above lie in.
    _library: Library,
}

#[expect(unsafe_code, reason = "the state is used by one thread at a time, as bench/peers/shared wants it")]
// SAFETY: it is moved to its thread once, and what it points to is nobody else's.
unsafe impl Send for Peer {}

impl Peer {
    fn open(file: &Path, mode: &str) -> Result<Self> {
        let text = format!(".\n{mode}");
        #[expect(unsafe_code, reason = "a library in another workspace can be called in no other way")]
        // SAFETY: the library is one of bench/peers, whose exports are made by one macro.
        let peer = unsafe {
            let library = Library::new(file).with_context(|| file.display().to_string())?;
            let open: Symbol<Open> = library.get(b"peer_open")?;
            let state = open(text.as_ptr(), text.len());
            Self { enrich: *library.get(b"peer_enrich")?, state, _library: library }
        };
        ensure!(!peer.state.is_null(), "{} cannot be opened; why stands above", file.display());
        Ok(peer)
    }

    /// What it finds out about an alert: a JSON object.
    fn enrich(&mut self, alert: &[u8]) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        let taker = std::ptr::from_mut(&mut answer).cast();
        #[expect(unsafe_code, reason = "a library in another workspace can be called in no other way")]
        // SAFETY: as in `open`; `take` is called before this returns, with the vector above.
        let worked = unsafe { (self.enrich)(self.state, alert.as_ptr(), alert.len(), take, taker) };
        ensure!(worked, "{}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

extern "C" fn take(answer: *mut c_void, bytes: *const u8, length: usize) {
    #[expect(unsafe_code, reason = "what a library says comes as bytes and their number")]
    // SAFETY: the library gives back what `enrich` gave it, with bytes that are there.
    let (answer, bytes) = unsafe { (&mut *answer.cast::<Vec<u8>>(), std::slice::from_raw_parts(bytes, length)) };
    answer.extend_from_slice(bytes);
}
