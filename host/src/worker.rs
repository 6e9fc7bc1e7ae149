//! Takes alerts from the queue, sends each through the pipeline, and commits what became of it.
//!
//! Four parts: the reader (this file) takes deliveries while there is room; tasks ([`task`]) decode them, a few alerts each, and
//! run their steps, those of a suspect where they can do no harm ([`suspect`], [`trial`]); the committer ([`committer`]) commits what is
//! done, many at a time; the lookout ([`lookout`], [`sources`]) notices what no single alert can. An alert leaves the queue in the
//! committer and nowhere else. The worker knows neither which queue nor what a step is.

mod committer;
pub mod compute;
mod lookout;
mod sources;
mod suspect;
mod task;
pub mod trial;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::compute::Compute;
use self::trial::Isolation;
use crate::admin::Health;
use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::pipeline::setup::Setup;
use crate::queue::{Body, Delivery, Queue, QueueError};
use crate::tables::Tables;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{HostStopped, HostStopping, QueueRecovered, QueueTrouble};
use crate::telemetry::logging::LogError;
use crate::telemetry::redact::Redactor;

/// The longest pause after the queue refused something.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The most alerts that share a task.
const LARGEST_SHARE: usize = 16;

/// What a worker works with. It is handed everything, its stop signal too, so that it can be run anywhere.
pub struct Worker {
    /// The configuration that the host begins with. What a reload changes of it comes with the pipeline.
    pub config: Arc<Config>,
    /// Where alerts come from and go to.
    pub queue: Arc<dyn Queue>,
    /// What they go through; none while a required plugin is missing, and then nothing is read.
    pub pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
    /// What plugins look into, until a pipeline brings other tables along.
    pub tables: Arc<Tables>,
    /// Where events go.
    pub telemetry: Arc<Telemetry>,
    /// Where the worker says whether the queue works.
    pub health: Arc<Health>,
    /// Where suspects run.
    pub isolation: Arc<dyn Isolation>,
    /// Where alerts are worked on.
    pub compute: Compute,
    /// Cancelled when the host is to stop.
    pub stop: CancellationToken,
}

/// Why a worker ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The queue will not work before somebody mends something, or did not work for longer than the grace while it was only to be
    /// emptied.
    #[error("the queue does not work: {0}")]
    Queue(QueueError),
    /// The task that watches the plugins is gone: nobody would load what changes.
    #[error(
        "the plugins folder is not watched any more; this is a defect of dossier, please report it and start again"
    )]
    Plugins,
    /// Suspects could not be run for longer than the grace while the queue was only to be emptied.
    #[error("alerts that a host died of are left in the queue, because they cannot be run: {0}")]
    Suspects(String),
    /// The log cannot be written: nothing may happen in silence.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The task that commits panicked: whatever were read now would be worked on for nothing.
    #[error(
        "what becomes of alerts cannot be committed any more; this is a defect of dossier, please report it and start again"
    )]
    Committer,
}

/// What the tasks of all alerts share.
struct Shared {
    config: Arc<Config>,
    queue: Arc<dyn Queue>,
    /// What goes with pipelines that bring nothing along.
    setup: Arc<Setup>,
    telemetry: Arc<Telemetry>,
    /// One for each alert in flight, from the read to the commit.
    slots: Arc<Semaphore>,
    /// One for each byte of them.
    bytes: Arc<Semaphore>,
    /// Held for reading while an alert's plugins run, for writing while a suspect's do: a suspect runs alone.
    alone: RwLock<()>,
    /// Where suspects run, and why they cannot.
    suspects: suspect::Suspects,
    /// Whether the last commit worked. Nothing is read while commits are refused: a server that is out of memory refuses to store,
    /// and would still hand out.
    commits: watch::Sender<bool>,
    /// How many alerts are being worked on: those that may soon be done.
    working: AtomicUsize,
    /// How many alerts the host let go of when it stopped.
    left: AtomicUsize,
    /// How many alerts in flight wait because each of them alone was refused.
    refused: AtomicUsize,
    /// How many alerts have come to their end here.
    finished: AtomicU64,
    /// Whether the reader reads, or could.
    reading: AtomicBool,
    /// Which sources send alerts.
    sources: sources::Sources,
    /// What must not be said of alerts.
    redactor: Redactor,
    stop: CancellationToken,
}

/// What an alert holds from the read to the commit.
struct Room {
    slot: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
    open: Open,
}

/// Notes an alert that is let go of before its end because the host stops.
struct Open(Option<Arc<Shared>>);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(shared) = self.0.as_ref().filter(|shared| shared.stop.is_cancelled()) {
            shared.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Room {
    /// The alert is at its end.
    fn ended(mut self) -> Self {
        self.open.0 = None;
        self
    }

    /// Takes another's, to be given back with its own: whoever waits for room is woken once then, and finds all of it.
    fn add(&mut self, other: Self) {
        self.slot.merge(other.slot);
        self.bytes.merge(other.bytes);
    }
}

impl Shared {
    /// How many bytes of room a delivery takes.
    fn size(&self, delivery: &Delivery) -> u32 {
        match &delivery.body {
            Body::Alert(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.config.host.in_flight_bytes),
            Body::Refused { .. } => 0,
        }
    }

    /// Room for this delivery, if there is some.
    fn room_now(self: &Arc<Self>, delivery: &Delivery) -> Option<Room> {
        let bytes = self.bytes.clone().try_acquire_many_owned(self.size(delivery)).ok()?;
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        Some(Room { slot, bytes, open: Open(Some(self.clone())) })
    }

    /// Waits until there is room for this delivery. Whoever holds room gives it back by itself, so this ends.
    async fn room(self: &Arc<Self>, delivery: &Delivery) -> Option<Room> {
        // Neither semaphore is ever closed.
        let bytes = self.bytes.clone().acquire_many_owned(self.size(delivery)).await.ok()?;
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        Some(Room { slot, bytes, open: Open(Some(self.clone())) })
    }
}

impl Worker {
    /// Works until it is stopped; with `until_empty` also until nothing is waiting or in flight. Then it finishes what is in
    /// flight, within the configured grace; what is not done then stays pending.
    ///
    /// # Errors
    /// [`WorkerError`]; nothing was lost.
    pub async fn run(self, until_empty: bool) -> Result<(), WorkerError> {
        let shared = Arc::new(Shared {
            setup: Arc::new(Setup::new(self.config.clone(), self.tables.clone())),
            config: self.config.clone(),
            queue: self.queue.clone(),
            telemetry: self.telemetry.clone(),
            slots: Arc::new(Semaphore::new(self.config.host.in_flight)),
            bytes: Arc::new(Semaphore::new(self.config.host.in_flight_bytes as usize)),
            alone: RwLock::new(()),
            suspects: suspect::Suspects::new(self.isolation.clone()),
            commits: watch::Sender::new(true),
            working: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            finished: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            sources: sources::Sources::new(&self.config.alarms),
            redactor: Redactor::new(&self.config.log.redact),
            stop: self.stop.clone(),
        });
        self.telemetry.bounded_by(shared.slots.clone(), self.config.host.in_flight);
        let abandon = CancellationToken::new();
        let (done, finished) = mpsc::channel(self.config.host.in_flight);
        let committer = tokio::spawn(committer::run(shared.clone(), self.health.clone(), finished, abandon.clone()));
        let lookout = tokio::spawn(lookout::run(shared.clone()));

        let mut tasks = JoinSet::new();
        let result = self.read(&shared, &done, &mut tasks, until_empty).await;
        self.stop.cancel();

        // Whoever waits for a retry lets go at once; the others get the grace.
        let deadline = Instant::now() + self.config.host.grace;
        self.health.set("host", Some("it stops".into()));
        drop(done);
        let drained = tokio::time::timeout_at(deadline, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tasks.shutdown().await;
        }
        // What is done is committed even when the grace is over, but a queue that refuses is not waited for any longer.
        let mut committer = committer;
        let patience = deadline.max(Instant::now() + Duration::from_secs(1));
        let committed = match tokio::time::timeout_at(patience, &mut committer).await {
            Ok(committed) => committed,
            Err(_) => {
                abandon.cancel();
                committer.await
            }
        };
        lookout.abort();
        if let Err(error) = self.queue.close().await {
            self.telemetry.emit(&QueueTrouble { operation: "close", error: &error.to_string() });
        }
        self.telemetry.emit(&HostStopped { left_pending: shared.left.load(Ordering::Relaxed) });
        result.and(committed.map_err(|_| WorkerError::Committer))
    }

    /// Reads until there is a reason to stop.
    async fn read(
        &self,
        shared: &Arc<Shared>,
        done: &mpsc::Sender<committer::Settling>,
        tasks: &mut JoinSet<()>,
        until_empty: bool,
    ) -> Result<(), WorkerError> {
        let mut pipeline = self.pipeline.clone();
        let mut commits = shared.commits.subscribe();
        let mut trouble = Trouble::new("receive", self.telemetry.clone(), self.health.clone());
        loop {
            while tasks.try_join_next().is_some() {}
            shared.reading.store(false, Ordering::Relaxed);
            // Everything that makes a host wait before it reads: no pipeline, a log that is not taken off, commits that are
            // refused, no room.
            let ready = async {
                pipeline.wait_for(Option::is_some).await.map_err(|_| WorkerError::Plugins)?;
                self.telemetry.log_ready().await?;
                // The sender is in what all share, so it is there.
                let work = commits.wait_for(|work| *work);
                if !until_empty {
                    let _ = work.await;
                } else if tokio::time::timeout(self.config.host.grace, work).await.is_err() {
                    let why = "it refused to store for longer than the grace; what was read is still pending";
                    return Err(WorkerError::Queue(QueueError::Unavailable(why.into())));
                }
                // Only this loop takes slots: one that is free now is free when a delivery wants it.
                drop(shared.slots.acquire().await);
                Ok::<_, WorkerError>(())
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                ready = ready => ready?,
            }
            shared.reading.store(true, Ordering::Relaxed);
            if until_empty && let Some(why) = shared.suspects.wait_longer_than(self.config.host.grace) {
                return Err(WorkerError::Suspects(why));
            }
            let free = shared.slots.available_permits();
            let refused = shared.refused.load(Ordering::Relaxed);
            let idle = until_empty && free + refused == self.config.host.in_flight;
            let max = free.clamp(1, self.config.queue.batch);
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                received = async {
                    if idle && self.is_emptied(refused).await? { Ok(None) } else { self.queue.receive(max).await.map(Some) }
                } => received,
            };
            match received {
                Ok(None) => {
                    self.telemetry.emit(&HostStopping { why: "queue empty" });
                    return Ok(());
                }
                Ok(Some(deliveries)) => {
                    trouble.over();
                    // Plugins may have changed while the queue was empty. Without a pipeline what was read goes back.
                    let Some(current) = self.pipeline.borrow().clone() else { continue };
                    let (suspects, others) = deliveries.into_iter().partition(|delivery: &Delivery| delivery.suspect);
                    self.start_suspects(shared, done, tasks, &current, suspects).await;
                    self.start(shared, done, tasks, &current, others).await;
                }
                Err(error @ QueueError::Broken(_)) => return Err(WorkerError::Queue(error)),
                Err(error) if until_empty && trouble.lasted() > self.config.host.grace => {
                    return Err(WorkerError::Queue(error));
                }
                Err(error) => trouble.pause(&error, &self.stop).await,
            }
        }
    }

    /// Starts the tasks of these alerts, as soon as there is room for them.
    async fn start(
        &self,
        shared: &Arc<Shared>,
        done: &mpsc::Sender<committer::Settling>,
        tasks: &mut JoinSet<()>,
        pipeline: &Arc<Pipeline>,
        deliveries: Vec<Delivery>,
    ) {
        let common = self.common(shared, done, pipeline);
        // Enough tasks that no thread is left without one, few enough that they cost little.
        let threads = self.compute.handle.metrics().num_workers();
        let share = deliveries.len().div_ceil(2 * threads).clamp(1, LARGEST_SHARE);
        let mut begin = |some: &mut Vec<_>| {
            if !some.is_empty() {
                tasks.spawn_on(task::run_all(common.clone(), std::mem::take(some)), &self.compute.handle);
            }
        };
        let mut some = Vec::with_capacity(share);
        let mut deliveries = deliveries.into_iter();
        while let Some(delivery) = deliveries.next() {
            let room = match shared.room_now(&delivery) {
                Some(room) => room,
                None => {
                    // What has room already must not wait for what has none: it is what makes room.
                    begin(&mut some);
                    // A delivery without room is dropped, which leaves it pending.
                    match self.stop.run_until_cancelled(shared.room(&delivery)).await {
                        Some(Some(room)) => room,
                        _ => {
                            shared.left.fetch_add(1 + deliveries.len(), Ordering::Relaxed);
                            return;
                        }
                    }
                }
            };
            some.push((delivery, room));
            if some.len() == share {
                begin(&mut some);
            }
        }
        begin(&mut some);
    }

    /// Starts the tasks of suspects, one after the other: the first turn of each is waited for, because what is read meanwhile would be
    /// in flight, and a suspect itself, should this one kill the host.
    async fn start_suspects(
        &self,
        shared: &Arc<Shared>,
        done: &mpsc::Sender<committer::Settling>,
        tasks: &mut JoinSet<()>,
        pipeline: &Arc<Pipeline>,
        suspects: Vec<Delivery>,
    ) {
        let mut suspects = suspects.into_iter();
        while let Some(suspect) = suspects.next() {
            let Some(Some(room)) = self.stop.run_until_cancelled(shared.room(&suspect)).await else {
                shared.left.fetch_add(1 + suspects.len(), Ordering::Relaxed);
                return;
            };
            let turn = CancellationToken::new();
            let common = self.common(shared, done, pipeline);
            tasks.spawn(task::run_alone(common, suspect, room, turn.clone().drop_guard()));
            self.stop.run_until_cancelled(turn.cancelled()).await;
        }
    }

    fn common(
        &self,
        shared: &Arc<Shared>,
        done: &mpsc::Sender<committer::Settling>,
        pipeline: &Arc<Pipeline>,
    ) -> task::Common {
        let setup = pipeline.setup().unwrap_or(&shared.setup).clone();
        task::Common {
            shared: shared.clone(),
            pipeline: pipeline.clone(),
            tables: setup.tables.snapshot(),
            setup,
            done: done.clone(),
        }
    }

    /// Whether nothing is waiting or in flight, here or at another host. An error when all that is left is what cannot be taken, or
    /// not be committed: that would be waited for in vain.
    async fn is_emptied(&self, refused: usize) -> Result<bool, QueueError> {
        let depth = self.queue.depth().await?;
        if depth.waiting == 0 && depth.in_flight == 0 {
            return Ok(true);
        }
        if depth.waiting == 0 && depth.in_flight <= refused as u64 {
            return Err(QueueError::Unavailable(format!(
                "alerts that cannot be committed are left in it: {refused}; the log says why"
            )));
        }
        if depth.waiting == 0 || depth.in_flight > 0 {
            return Ok(false);
        }
        let stuck = self.queue.stuck().await?;
        if (stuck.len() as u64) < depth.waiting {
            return Ok(false);
        }
        Err(QueueError::Broken(format!(
            "what is left in it cannot be read: {}; mend that, or move it away, and run again",
            stuck.iter().take(10).cloned().collect::<Vec<_>>().join(", ")
        )))
    }
}

/// The queue's refusals: told once each time it gets worse, shown by `/readyz`, and waited out with growing pauses.
struct Trouble {
    operation: &'static str,
    telemetry: Arc<Telemetry>,
    health: Arc<Health>,
    since: Option<Instant>,
    pauses: u32,
}

impl Trouble {
    fn new(operation: &'static str, telemetry: Arc<Telemetry>, health: Arc<Health>) -> Self {
        Self { operation, telemetry, health, since: None, pauses: 0 }
    }

    /// Tells of a refusal and waits, at most until `stop`.
    async fn pause(&mut self, error: &QueueError, stop: &CancellationToken) {
        let error = error.to_string();
        self.telemetry.emit(&QueueTrouble { operation: self.operation, error: &error });
        self.health.set(&format!("queue {}", self.operation), Some(error));
        self.since.get_or_insert_with(Instant::now);
        let pause = Duration::from_millis(100).saturating_mul(1 << self.pauses.min(10)).min(LONGEST_PAUSE);
        self.pauses += 1;
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }

    /// For how long it has not worked.
    fn lasted(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Tells that it works again, if it did not.
    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.pauses = 0;
            self.health.set(&format!("queue {}", self.operation), None);
            self.telemetry.emit(&QueueRecovered { operation: self.operation, after: since.elapsed() });
        }
    }
}
