//! The Redis queue against a real redis-server of each test's own.

mod again;
mod bench;
mod commit;
mod dead;
mod faults;
mod hosts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dossier::config::{QueueConfig, QueueKind, RedisConfig};
use dossier::dead_letter::{self, DeadLetter, Reason};
use dossier::queue::redis::RedisQueue;
use dossier::queue::{Body, Committed, Delivery, Outcome, Queue, Settled};
use dossier::record::Record;
use dossier::telemetry::Telemetry;
use dossier_tests::redis_server::RedisServer;
use jiff::Timestamp;

/// Short, so that tests that wait for its end are quick.
const LEASE: Duration = Duration::from_millis(1200);

fn config(server: &RedisServer) -> (RedisConfig, QueueConfig) {
    let redis = RedisConfig {
        url: server.url(),
        ca: None,
        cert: None,
        key: None,
        stream: "alerts".into(),
        group: "dossier".into(),
        lease: LEASE,
        dedupe_window: Duration::from_secs(600),
        retention: None,
    };
    let queue = QueueConfig {
        kind: QueueKind::Redis(redis.clone()),
        batch: 100,
        max_alert_size: 1 << 20,
        max_crashes: 3,
        dlq_alarm: 10_000,
    };
    (redis, queue)
}

async fn open(server: &RedisServer) -> RedisQueue {
    let (redis, queue) = config(server);
    open_with(&redis, &queue).await
}

async fn open_with(redis: &RedisConfig, queue: &QueueConfig) -> RedisQueue {
    RedisQueue::open(redis, queue, Arc::new(Telemetry::default())).await.expect("the server runs")
}

async fn send(queue: &RedisQueue, alerts: &[&str]) {
    let alerts: Vec<_> = alerts.iter().map(|alert| Bytes::copy_from_slice(alert.as_bytes())).collect();
    queue.send(&alerts).await.expect("the server runs");
}

/// Receives until there are so many, for as long as a slow machine may need. Errors are met by trying again.
async fn receive(queue: &RedisQueue, count: usize) -> Vec<Delivery> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut all = Vec::new();
    while all.len() < count && Instant::now() < deadline {
        match queue.receive(count - all.len()).await {
            Ok(some) => all.extend(some),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    assert_eq!(all.len(), count, "alerts received");
    all
}

async fn receive_one(queue: &RedisQueue) -> Delivery {
    receive(queue, 1).await.remove(0)
}

fn text(delivery: &Delivery) -> &str {
    match &delivery.body {
        Body::Alert(bytes) => std::str::from_utf8(bytes).expect("tests send text"),
        Body::Refused { .. } => panic!("refused: {delivery:?}"),
    }
}

/// To be stored under this id, the hash taken of the alert's bytes.
fn stored(delivery: Delivery, id: &str) -> Settled {
    let Body::Alert(bytes) = &delivery.body else { panic!("refused: {delivery:?}") };
    let rest = [b",\"alert\":", &bytes[..], b"}"].concat();
    let record = Record { id: id.into(), sha256: dossier::digest::sha256(bytes), rest: rest.into() };
    Settled { delivery, outcome: Outcome::Store(record) }
}

/// To be put into the dead letters.
fn dead(delivery: Delivery, id: Option<&str>, reason: Reason) -> Settled {
    let letter = DeadLetter {
        schema: dead_letter::SCHEMA,
        id: id.map(str::to_owned),
        entry: Some(delivery.entry.clone()),
        reason,
        detail: "as the test wants".into(),
        step: None,
        attempts: delivery.attempts + 1,
        history: delivery.history.clone(),
        deliveries: delivery.deliveries,
        first_seen: delivery.first_seen.unwrap_or_else(Timestamp::now),
        failed_at: Timestamp::now(),
        host: "test".into(),
    };
    Settled { delivery, outcome: Outcome::Dead(letter) }
}

fn refused(delivery: &Delivery) -> Reason {
    match &delivery.body {
        Body::Refused { reason, .. } => *reason,
        Body::Alert(_) => panic!("not refused: {delivery:?}"),
    }
}

/// Commits one, trying again while the server is away.
async fn commit(queue: &RedisQueue, settled: Settled) -> Committed {
    commit_all(queue, vec![settled]).await.remove(0)
}

async fn commit_all(queue: &RedisQueue, settled: Vec<Settled>) -> Vec<Committed> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match queue.commit(&settled).await {
            Ok(committed) => return committed,
            Err(error) if Instant::now() > deadline => panic!("never committed: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn length(server: &RedisServer, stream: &str) -> u64 {
    server.ask(&["XLEN", stream]).expect("the server runs")
}
