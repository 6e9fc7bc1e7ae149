//! A server that forgets, freezes, dies or is full: what the queue's own calls answer then, and of which kind the error is. What a whole
//! host makes of it under load is in `redis_faults`.

use dossier::checkup::{Gravity, NEVER_SAVED, Observation};
use dossier::queue::QueueError;

use super::*;

#[tokio::test]
async fn a_group_that_is_destroyed_while_running_is_made_again_at_the_beginning() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2"]).await;
    let held = receive(&queue, 2).await;
    let _: i64 = server.ask(&["XGROUP", "DESTROY", "alerts", "dossier"]).unwrap();
    send(&queue, &["3"]).await;
    let new = receive_one(&queue).await;
    assert_eq!(text(&new), "3", "what is held is not handed out twice");
    let settled: Vec<_> =
        held.into_iter().chain([new]).enumerate().map(|(n, one)| stored(one, &format!("{n}"))).collect();
    assert_eq!(commit_all(&queue, settled).await, [Committed::Stored, Committed::Stored, Committed::Stored]);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 3));
}

#[tokio::test]
async fn a_stream_that_is_deleted_while_a_read_waits_is_made_again() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let waiting = tokio::spawn(async move {
        let got = receive_one(&queue).await;
        (queue, text(&got).to_owned())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _: i64 = server.ask(&["DEL", "alerts"]).unwrap();
    let _: String = server.ask(&["XADD", "alerts", "*", "alert", "1"]).unwrap();
    assert_eq!(waiting.await.unwrap().1, "1");
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_lost_nothing_and_is_found_again() {
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2", "3"]).await;
    let mut got = receive(&queue, 2).await;
    assert_eq!(commit(&queue, stored(got.remove(0), "1")).await, Committed::Stored);
    server.kill();
    assert!(matches!(queue.receive(10).await, Err(QueueError::Unavailable(_))));
    assert!(matches!(queue.depth().await, Err(QueueError::Unavailable(_))));
    server.launch().unwrap();
    assert_eq!(commit(&queue, stored(got.remove(0), "2")).await, Committed::Stored);
    got.extend(receive(&queue, 3 - length(&server, "alerts:enriched") as usize).await);
    assert_eq!(commit(&queue, stored(got.remove(0), "3")).await, Committed::Stored);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 3));
}

#[tokio::test]
async fn a_frozen_server_makes_calls_end_and_nothing_is_lost_or_doubled() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2"]).await;
    let mut got = receive(&queue, 2).await;
    let settled = [stored(got.remove(0), "1"), stored(got.remove(0), "2")];
    server.freeze().unwrap();
    let started = Instant::now();
    let answer = queue.commit(&settled).await;
    assert!(matches!(answer, Err(QueueError::Unavailable(_))), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    server.thaw().unwrap();
    let ends = commit_all(&queue, settled.into()).await;
    assert_eq!(ends, [Committed::Stored, Committed::Stored]);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 2));
}

#[tokio::test]
async fn a_server_without_memory_is_unavailable_and_the_alert_stays_until_there_is_some() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1"]).await;
    let settled = [stored(receive_one(&queue).await, "1")];
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let error = queue.commit(&settled).await.unwrap_err();
    assert!(matches!(&error, QueueError::Unavailable(said) if said.contains("OOM")), "{error:?}");
    assert_eq!(length(&server, "alerts"), 1);
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(queue.commit(&settled).await.unwrap(), [Committed::Stored]);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_unavailable_until_it_is_the_primary_again() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1"]).await;
    let settled = [stored(receive_one(&queue).await, "1")];
    let _: () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let answer = queue.commit(&settled).await;
    assert!(matches!(answer, Err(QueueError::Unavailable(_))), "{answer:?}");
    let _: () = server.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert_eq!(commit_all(&queue, settled.into()).await, [Committed::Stored]);
}

#[tokio::test]
async fn what_is_trimmed_while_it_is_pending_is_stored_by_who_holds_it_and_let_go_of_by_who_does_not() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2", "3"]).await;
    let mut got = receive(&queue, 3).await;
    let _: i64 = server.ask(&["XTRIM", "alerts", "MAXLEN", "0"]).unwrap();
    assert_eq!(commit(&queue, stored(got.remove(0), "1")).await, Committed::Stored);
    assert_eq!(commit(&queue, dead(got.remove(0), None, Reason::Trap)).await, Committed::Dead);
    let letter = queue.dead(None, 1).await.unwrap().remove(0);
    assert_eq!(queue.dead_body(&letter.key).await.unwrap().unwrap(), "2");
    got.clear();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(queue.receive(10).await.unwrap().is_empty());
        let pending: (u64, Option<String>, Option<String>, redis::Value) =
            server.ask(&["XPENDING", "alerts", "dossier"]).unwrap();
        if pending.0 == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "still pending");
    }
}

#[tokio::test]
async fn an_id_from_the_far_future_is_delivered_and_has_no_age() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let _: String = server.ask(&["XADD", "alerts", "9999999999999-1", "alert", "1"]).unwrap();
    let got = receive_one(&queue).await;
    assert!(got.waited.is_zero());
    assert_eq!(queue.depth().await.unwrap().oldest, Some(Duration::ZERO));
    assert_eq!(commit(&queue, stored(got, "1")).await, Committed::Stored);
}

#[tokio::test]
async fn an_age_is_how_long_the_oldest_has_waited() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let then = Timestamp::now().as_millisecond() - 90_000;
    let _: String = server.ask(&["XADD", "alerts", &format!("{then}-0"), "alert", "1"]).unwrap();
    let oldest = queue.depth().await.unwrap().oldest.unwrap();
    assert!((89..99).contains(&oldest.as_secs()), "{oldest:?}");
    let waited = receive_one(&queue).await.waited;
    assert!((89..99).contains(&waited.as_secs()), "{waited:?}");
}

/// What keeps a host from working with this server.
async fn broken(redis: &RedisConfig) -> Vec<String> {
    let seen = dossier::queue::redis::check(redis, 10_000).await;
    // The servers of the tests keep nothing, and `validate` says nothing of that.
    let told = seen.iter().filter(|one| one.gravity == Gravity::Broken && !one.what.ends_with(NEVER_SAVED));
    told.map(Observation::line).collect()
}

#[tokio::test]
async fn a_wrong_password_is_broken_and_stands_in_no_message() {
    let server = RedisServer::with(&["--requirepass", "right"]).unwrap();
    let (mut redis, queue_config) = config(&server);
    redis.url = format!("{}?pass=s3cret-wrong", server.url());
    let telemetry = Arc::new(Telemetry::default());
    let error = RedisQueue::open(&redis, &queue_config, Arc::clone(&telemetry)).await.unwrap_err();
    assert!(matches!(error, QueueError::Broken(_)), "{error:?}");
    let said = format!("{error:?} {error} {:?}", broken(&redis).await);
    assert!(!said.contains("s3cret"), "{said}");
    redis.url = "redis://:s3cret@[nonsense".into();
    let error = RedisQueue::open(&redis, &queue_config, telemetry).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("s3cret"));
    redis.url = format!("{}?pass=right", server.url());
    let queue = open_with(&redis, &queue_config).await;
    assert!(!format!("{queue:?}").contains("right"));
    assert_eq!(broken(&redis).await, Vec::<String>::new());
}

#[tokio::test]
async fn validate_finds_nothing_wrong_with_a_good_server_and_everything_with_a_bad_one() {
    let server = RedisServer::start().unwrap();
    let (redis, _) = config(&server);
    assert_eq!(broken(&redis).await, Vec::<String>::new());
    open(&server).await;
    assert_eq!(broken(&redis).await, Vec::<String>::new());
    let _: () = server.ask(&["XGROUP", "CREATE", "alerts", "spies", "$"]).unwrap();
    let _: () = server.ask(&["SET", "alerts:dlq", "x"]).unwrap();
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "100mb"]).unwrap();
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let found = broken(&redis).await;
    for word in ["spies", "alerts:dlq", "allkeys-lru"] {
        assert_eq!(found.iter().filter(|problem| problem.contains(word)).count(), 1, "{word}: {found:?}");
    }
    server.kill();
    assert_eq!(broken(&redis).await.len(), 1);
}
