//! The Redis queue: streams with a consumer group, one lease for each host, one script for each atomic step.
//!
//! `<stream>` holds the alerts, `<stream>:enriched` the records, `<stream>:dlq` the dead letters. Beside them:
//! `<stream>:id:<id>` says where an alert is stored and of which bytes, `<stream>:lease:<consumer>` lives while its host
//! does, `<stream>:accused` counts for each suspect the processes that died while it ran alone in them, `<stream>:dead:<entry>` remembers for a while who
//! buried an entry, `<stream>:ledger` counts duplicates, `<stream>:again` knows what is on its way to replace a record.
//! `<stream>:http:<key>` are answers of HTTP interfaces that hosts share, `<stream>:sources` says when which source was heard.
//! Entries are read by a script too, which keeps the bodies of too large ones on the server: whatever producers send, the host's
//! memory stays bounded.
//!
//! What the group's other consumers have in flight is theirs while their lease lives. A consumer without a lease, one made
//! by hand included, is claimed from at once.

mod address;
mod again;
mod answers;
mod check;
mod commit;
mod dead;
mod desk;
mod keep;
mod keys;
mod link;
mod reaction;
mod receive;
mod reply;
mod walk;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};
use tokio_util::task::AbortOnDropHandle;

pub use self::answers::RedisAnswers;
use self::desk::SharedDesk;
use self::keys::Keys;
use self::link::{Call, Link};
use self::reaction::Reaction;
use super::{
    Again, Committed, Dead, Delivery, Depth, Flow, Heard, Held, Place, Queue, QueueError, Resent, Room, Settled, Walk,
    walk_for,
};
use crate::checkup::Observation;
use crate::config::{QueueConfig, RedisConfig};
use crate::telemetry::Telemetry;
use crate::telemetry::events::GroupRecreated;

/// How long an answer may take. A server that is silent for longer gets a new connection.
const ANSWER: Duration = Duration::from_secs(5);

/// How many bytes are sent together.
const SEND_BYTES: usize = 4 << 20;

/// A queue in Redis Streams.
#[derive(Debug)]
pub struct RedisQueue {
    shared: Arc<Shared>,
    /// Renews the lease, from the first [`Queue::receive`] to [`Queue::close`].
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
    closed: AtomicBool,
}

/// What the calls and the task that renews the lease share.
#[derive(Debug)]
struct Shared {
    keys: Keys,
    group: String,
    /// This host's name in the group, random: two hosts never have the same.
    consumer: String,
    lease: Duration,
    marks: Mutex<keep::Marks>,
    /// Whether another host was seen that has the same name.
    has_twin: AtomicBool,
    /// How long an id is remembered; none is for ever.
    index_life: Option<Duration>,
    retention: Option<Duration>,
    max_alert_size: usize,
    max_crashes: u32,
    /// A connection of its own for reading: it blocks.
    reader: Link,
    commands: Link,
    desk: SharedDesk,
    telemetry: Arc<Telemetry>,
}

impl Shared {
    /// Sends a command; makes the group again where it is gone.
    async fn query(&self, link: &Link, command: &Cmd) -> Result<Value, QueueError> {
        match link.query(command).await {
            Err(error) if reaction::of(&error).reaction == Reaction::MakeGroup => {
                self.make_group().await?;
                link.query(command).await
            }
            answer => answer,
        }
        .map_err(|error| self.failed(link, &error))
    }

    /// Runs a script; makes the group again where it is gone.
    async fn run(&self, link: &Link, call: &Call) -> Result<Value, QueueError> {
        match link.run(call).await {
            Err(error) if reaction::of(&error).reaction == Reaction::MakeGroup => {
                self.make_group().await?;
                link.run(call).await
            }
            answer => answer,
        }
        .map_err(|error| self.failed(link, &error))
    }

    fn failed(&self, link: &Link, error: &redis::RedisError) -> QueueError {
        // The server may have run what it did not answer, and taken alerts that nobody was told of.
        self.desk.lock().scan_within(Duration::ZERO);
        if reaction::of(error).reaction == Reaction::Reconnect {
            self.reconnect();
        }
        link.error(error)
    }

    /// Where one connection is of no use, the other leads the same way: who uses that one must not find it out anew, in its own time.
    fn reconnect(&self) {
        self.reader.forget();
        self.commands.forget();
    }

    /// Makes the group and, where it is missing, the stream; at 0, so that what is there already is not skipped.
    async fn create_group(&self) -> Result<bool, QueueError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.keys.stream).arg(&self.group).arg("0").arg("MKSTREAM");
        match self.commands.query(&command).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(false),
            Err(error) => Err(self.commands.error(&error)),
        }
    }

    /// Makes the group again that was there before.
    async fn make_group(&self) -> Result<(), QueueError> {
        if self.create_group().await? {
            self.telemetry.emit(&GroupRecreated { stream: &self.keys.stream, group: &self.group });
        }
        Ok(())
    }
}

impl RedisQueue {
    /// Connects, and makes the stream and its group where they are missing. Takes no part in the group before the first
    /// [`Queue::receive`].
    ///
    /// # Errors
    /// [`QueueError`] when the server cannot be reached, refuses the credentials, or holds something else under the keys.
    pub async fn open(
        redis: &RedisConfig,
        config: &QueueConfig,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, QueueError> {
        let shared = Shared {
            keys: Keys::new(&redis.stream),
            group: redis.group.clone(),
            consumer: uuid::Uuid::new_v4().simple().to_string(),
            lease: redis.lease,
            marks: Mutex::new(keep::Marks::new()),
            has_twin: AtomicBool::new(false),
            // An id must be known for as long as its record is there.
            index_life: redis.retention.map(|retention| retention.max(redis.dedupe_window)),
            retention: redis.retention,
            max_alert_size: config.max_alert_size,
            max_crashes: config.max_crashes,
            reader: Link::new(redis, receive::BLOCK + ANSWER)?,
            commands: Link::new(redis, ANSWER)?,
            desk: SharedDesk::new(),
            telemetry,
        };
        shared.create_group().await?;
        Ok(Self { shared: Arc::new(shared), keeper: Mutex::new(None), closed: AtomicBool::new(false) })
    }

    /// Takes the lease, before anything is read, and keeps it.
    async fn join(&self) -> Result<(), QueueError> {
        if self.keeper.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        self.shared.keep().await?;
        let keeper = tokio::spawn(keep::keep_lease(Arc::clone(&self.shared)));
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).replace(AbortOnDropHandle::new(keeper));
        Ok(())
    }
}

/// Looks at the server without changing anything: what [`super::check`] shows.
pub async fn check(redis: &RedisConfig, dlq_alarm: u64) -> Vec<Observation> {
    check::check(redis, dlq_alarm).await
}

#[async_trait]
impl Queue for RedisQueue {
    async fn send(&self, alerts: &[Bytes]) -> Result<(), QueueError> {
        let mut rest = alerts;
        while !rest.is_empty() {
            let mut pipeline = redis::pipe();
            let mut bytes = 0;
            let fits = rest.iter().take(1000).take_while(|alert| {
                let before = bytes;
                bytes += alert.len();
                before < SEND_BYTES
            });
            let count = fits.count();
            for alert in &rest[..count] {
                pipeline.cmd("XADD").arg(&self.shared.keys.stream).arg("*").arg("alert").arg(&alert[..]).ignore();
            }
            let commands = &self.shared.commands;
            commands.pipeline(&pipeline).await.map_err(|error| commands.error(&error))?;
            rest = &rest[count..];
        }
        Ok(())
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(QueueError::Broken("the queue is closed".into()));
        }
        self.join().await?;
        self.shared.alone()?;
        self.shared.receive(max).await
    }

    async fn accuse(&self, suspect: &Delivery) -> Result<(), QueueError> {
        let receipt = commit::receipt(suspect)?;
        self.shared.note(&receipt.entry, receipt.crashes.saturating_add(1)).await
    }

    async fn commit(&self, settled: &[Settled]) -> Result<Vec<Committed>, QueueError> {
        self.shared.commit(settled).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.shared.depth().await
    }

    async fn dead(&self, after: Option<&str>, limit: usize) -> Result<Vec<Dead>, QueueError> {
        self.shared.dead(after, limit).await
    }

    async fn dead_body(&self, key: &str) -> Result<Option<Bytes>, QueueError> {
        self.shared.dead_body(key).await
    }

    async fn replay(&self, key: &str) -> Result<bool, QueueError> {
        self.shared.replay(key).await
    }

    async fn reenrich(&self, again: &Again) -> Result<Resent, QueueError> {
        self.shared.reenrich(again).await
    }

    async fn discard(&self, key: &str) -> Result<bool, QueueError> {
        self.shared.discard(key).await
    }

    async fn record(&self, id: &str) -> Result<Option<Bytes>, QueueError> {
        self.shared.record(id).await
    }

    async fn stored(&self, id: &str) -> Result<Vec<Held>, QueueError> {
        match self.shared.stored(id).await? {
            Some(found) => Ok(found),
            None => {
                let mut found = walk_for(self.walk(Place::Store), id).await?;
                found.extend(self.shared.record_at(id).await?);
                Ok(found)
            }
        }
    }

    async fn sent_again(&self, record: &Held, _id: &str) -> Result<Option<String>, QueueError> {
        self.shared.sent_again(&record.key).await
    }

    fn walk(&self, place: Place) -> Box<dyn Walk + '_> {
        self.shared.walk(place)
    }

    async fn flow(&self) -> Result<Option<Flow>, QueueError> {
        self.shared.flow().await.map(Some)
    }

    async fn hear(&self, heard: &[String], forget: Duration) -> Result<Vec<Heard>, QueueError> {
        self.shared.hear(heard, forget).await
    }

    async fn room(&self) -> Result<Option<Room>, QueueError> {
        self.shared.room().await
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.closed.store(true, Ordering::Release);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(keeper) = keeper else { return Ok(()) };
        // Only when it is gone is it sure that no renewal follows.
        keeper.abort();
        let _ = keeper.await;
        // What is pending under this name may be a twin's, and the lease is its.
        if self.shared.alone().is_err() {
            return Ok(());
        }
        // A read that was let go of still waits at the server, and is given what comes until the server has seen its connection closed.
        self.shared.reader.forget();
        self.shared.give_back().await
    }
}
