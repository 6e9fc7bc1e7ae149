//! What a commit stores, and what it leaves alone.

use super::*;
use dossier::queue::QueueError;

#[tokio::test]
async fn a_producer_needs_no_more_than_xadd_and_xlen_is_the_backlog() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    for n in 0..3 {
        let alert = format!("{{\"id\":\"A{n}\"}}");
        let _: String = server.ask(&["XADD", "alerts", "*", "alert", &alert]).unwrap();
    }
    let mut got = receive(&queue, 3).await;
    assert_eq!(length(&server, "alerts"), 3, "what is in flight is still in the backlog");
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.in_flight), (0, 3));
    assert!(got.iter().all(|delivery| delivery.deliveries == 1 && delivery.attempts == 0 && !delivery.suspect));
    let last = got.pop().unwrap();
    let first: Vec<_> = got.into_iter().enumerate().map(|(n, delivery)| stored(delivery, &format!("A{n}"))).collect();
    assert_eq!(commit_all(&queue, first).await, [Committed::Stored, Committed::Stored]);
    assert_eq!(length(&server, "alerts"), 1);
    assert_eq!(commit(&queue, stored(last, "A2")).await, Committed::Stored);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 3));
    let record = queue.record("A1").await.unwrap().unwrap();
    assert_eq!(&record[..], br#"{"schema":1,"id":"A1","alert":{"id":"A1"}}"#);
    assert_eq!(queue.record("A9").await.unwrap(), None);
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.in_flight, depth.stored, depth.oldest), (0, 0, 3, None));
}

#[tokio::test]
async fn the_same_alert_twice_is_stored_once_and_another_with_its_id_beside_it() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    // In one batch, and once more in another.
    send(&queue, &["{\"n\":1}", "{\"n\":1}", "{\"n\":2}", "{\"n\":2}"]).await;
    let batch = receive(&queue, 4).await.into_iter().map(|delivery| stored(delivery, "X")).collect();
    let ends = commit_all(&queue, batch).await;
    let Committed::Conflict(other) = &ends[2] else { panic!("{ends:?}") };
    assert!(other.starts_with("X~") && other.len() == 10, "{other}");
    assert_eq!(ends, [Committed::Stored, Committed::Duplicate, ends[2].clone(), Committed::Duplicate]);
    send(&queue, &["{\"n\":1}"]).await;
    assert_eq!(commit(&queue, stored(receive_one(&queue).await, "X")).await, Committed::Duplicate);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 2));
    let record = queue.record(other).await.unwrap().unwrap();
    assert!(record.starts_with(format!("{{\"schema\":1,\"id\":\"{other}\",\"alert\":{{\"n\":2}}").as_bytes()));
}

#[tokio::test]
async fn two_alerts_whose_conflict_ids_collide_are_both_stored() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2", "3"]).await;
    let mut ends = Vec::new();
    for (n, delivery) in receive(&queue, 3).await.into_iter().enumerate() {
        let mut settled = stored(delivery, "X");
        if let Outcome::Store(record) = &mut settled.outcome {
            // The first 8 digits are the same in all of them.
            record.sha256 = [0; 32];
            record.sha256[31] = u8::try_from(n).unwrap();
        }
        ends.push(commit(&queue, settled).await);
    }
    assert_eq!(ends[1], Committed::Conflict("X~00000000".into()));
    assert_eq!(ends[2], Committed::Conflict(format!("X~{}02", "0".repeat(62))));
    assert_eq!(length(&server, "alerts:enriched"), 3);
}

#[tokio::test]
async fn an_id_is_remembered_for_the_dedupe_window_or_the_retention_and_without_retention_for_ever() {
    let server = RedisServer::start().unwrap();
    let (mut redis, queue_config) = config(&server);
    for (stream, retention, expected) in [("a", None, -1_i64), ("b", Some(60), 600_000), ("c", Some(6000), 6_000_000)] {
        redis.stream = stream.into();
        redis.retention = retention.map(Duration::from_secs);
        let queue = open_with(&redis, &queue_config).await;
        send(&queue, &["{}"]).await;
        commit(&queue, stored(receive_one(&queue).await, "X")).await;
        let life: i64 = server.ask(&["PTTL", &format!("{stream}:id:X")]).unwrap();
        assert!(life <= expected && life > expected - 60_000, "{stream}: {life}");
    }
}

#[tokio::test]
async fn records_older_than_the_retention_are_trimmed_and_younger_ones_stay() {
    let server = RedisServer::with(&["--stream-node-max-entries", "2"]).unwrap();
    let (mut redis, queue_config) = config(&server);
    redis.retention = Some(Duration::from_secs(3600));
    for n in 1..=10 {
        let _: String = server.ask(&["XADD", "alerts:enriched", &format!("{n}-0"), "record", "old"]).unwrap();
    }
    let queue = open_with(&redis, &queue_config).await;
    send(&queue, &["{}"]).await;
    commit(&queue, stored(receive_one(&queue).await, "X")).await;
    assert_eq!(length(&server, "alerts:enriched"), 1);
    assert!(queue.record("X").await.unwrap().is_some());
}

#[tokio::test]
async fn a_commit_whose_reply_was_lost_says_again_what_it_did() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2", "3", "4"]).await;
    let mut got = receive(&queue, 4).await;
    let mut next = || got.remove(0);
    let settled = vec![stored(next(), "A"), stored(next(), "A"), dead(next(), None, Reason::Trap), stored(next(), "B")];
    // The server does the work, and its answer does not come through: the client gives up before.
    server.freeze().unwrap();
    let gave_up = tokio::time::timeout(Duration::from_millis(200), queue.commit(&settled)).await;
    assert!(gave_up.is_err());
    server.thaw().unwrap();
    let ends = commit_all(&queue, settled).await;
    assert!(
        matches!(&ends[..], [Committed::Stored, Committed::Conflict(_), Committed::Dead, Committed::Stored]),
        "{ends:?}"
    );
    assert_eq!(
        (length(&server, "alerts:enriched"), length(&server, "alerts:dlq"), length(&server, "alerts")),
        (3, 1, 0)
    );
}

#[tokio::test]
async fn a_store_of_a_wrong_type_leaves_the_alert_pending_and_the_commit_works_once_it_is_mended() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2"]).await;
    let _: () = server.ask(&["SET", "alerts:enriched", "not a stream"]).unwrap();
    let mut got = receive(&queue, 2).await;
    // The dead letter is fine; the error of the second must not take it back or count it twice.
    let settled = [dead(got.remove(0), None, Reason::Trap), stored(got.remove(0), "X")];
    for _ in 0..2 {
        let error = queue.commit(&settled).await.unwrap_err();
        assert!(matches!(&error, QueueError::Broken(said) if said.contains("WRONGTYPE")), "{error:?}");
        assert_eq!((length(&server, "alerts"), length(&server, "alerts:dlq")), (1, 1));
    }
    assert!(matches!(queue.depth().await, Err(QueueError::Broken(_))));
    let _: () = server.ask(&["DEL", "alerts:enriched"]).unwrap();
    assert_eq!(queue.commit(&settled).await.unwrap(), [Committed::Dead, Committed::Stored]);
    assert_eq!(
        (length(&server, "alerts"), length(&server, "alerts:dlq"), length(&server, "alerts:enriched")),
        (0, 1, 1)
    );
}

#[tokio::test]
async fn dead_letters_of_a_wrong_type_leave_the_dead_pending_and_store_the_others() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2"]).await;
    let _: () = server.ask(&["SET", "alerts:dlq", "not a stream"]).unwrap();
    let mut got = receive(&queue, 2).await;
    let settled = [dead(got.remove(0), None, Reason::Trap), stored(got.remove(0), "X")];
    let ends = queue.commit(&settled).await.unwrap();
    assert!(
        matches!(&ends[0], Committed::Refused(why) if why.contains("WRONGTYPE") && why.contains("rename")),
        "{ends:?}"
    );
    assert_eq!(ends[1], Committed::Stored);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (1, 1));
    let _: () = server.ask(&["DEL", "alerts:dlq"]).unwrap();
    assert_eq!(queue.commit(&settled).await.unwrap(), [Committed::Dead, Committed::Stored]);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:dlq")), (0, 1));
}

#[tokio::test]
async fn an_alert_whose_own_key_holds_something_else_is_refused_alone_until_it_is_mended() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2", "3"]).await;
    let settled: Vec<_> =
        receive(&queue, 3).await.into_iter().zip(["A", "B", "C"]).map(|(delivery, id)| stored(delivery, id)).collect();
    let odd = [
        (&["LPUSH", "alerts:id:B", "no place"][..], "WRONGTYPE"),
        (&["SET", "alerts:id:B", "no place"], "alerts:id:B holds no place"),
        (&["SET", "alerts:id:B", ""], "alerts:id:B holds no place"),
    ];
    for (odd, said) in odd {
        let _: i64 = server.ask(&["DEL", "alerts:id:B"]).unwrap();
        let _: redis::Value = server.ask(odd).unwrap();
        let ends = queue.commit(&settled).await.unwrap();
        assert!(matches!(&ends[1], Committed::Refused(why) if why.contains(said)), "{ends:?}");
        assert_eq!((&ends[0], &ends[2]), (&Committed::Stored, &Committed::Stored));
        assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (1, 2));
    }
    let _: i64 = server.ask(&["DEL", "alerts:id:B"]).unwrap();
    assert_eq!(queue.commit(&settled).await.unwrap(), [Committed::Stored, Committed::Stored, Committed::Stored]);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 3));
}

#[tokio::test]
async fn what_nobody_has_any_more_is_stored_by_who_holds_it_and_what_others_did_is_not() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "2"]).await;
    let mut got = receive(&queue, 2).await;
    let _: i64 = server.ask(&["DEL", "alerts"]).unwrap();
    let settled = [stored(got.remove(0), "A"), dead(got.remove(0), None, Reason::Trap)];
    let ends = commit_all(&queue, settled.into()).await;
    assert_eq!(ends, [Committed::Stored, Committed::Dead]);
    assert_eq!((length(&server, "alerts:enriched"), length(&server, "alerts:dlq")), (1, 1));
    let letter = queue.dead(None, 1).await.unwrap().remove(0);
    assert_eq!(queue.dead_body(&letter.key).await.unwrap().unwrap(), "2");
}

/// Each case of a batch beside the others, in no order, in one commit.
#[tokio::test]
async fn of_a_mixed_batch_each_alert_ends_as_it_would_alone() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let alerts: Vec<_> = (0..300).map(|n| Bytes::from(format!("{{\"n\":{n}}}"))).collect();
    queue.send(&alerts).await.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut got = receive(&queue, 300).await;
    random.shuffle(&mut got);
    // Some stay in hand, so that there are gaps between those that are committed.
    let held = got.split_off(200);
    let mut expected = Vec::new();
    let mut settled = Vec::new();
    for (n, delivery) in got.into_iter().enumerate() {
        let entry = delivery.entry.clone();
        let id = format!("A{n}");
        let hash = dossier::digest::sha256_hex(text(&delivery).as_bytes());
        let key = format!("alerts:id:{id}");
        let case = random.u8(..8);
        expected.push(match case {
            0 => {
                let claim = ["XCLAIM", "alerts", "dossier", "another", "0", &entry, "JUSTID"];
                let _: Vec<String> = server.ask(&claim).unwrap();
                Committed::Lost
            }
            1 => {
                let _: () = server.ask(&["SET", &key, &format!("1-0 {hash} 1-0 x")]).unwrap();
                Committed::Duplicate
            }
            2 => {
                let _: () = server.ask(&["SET", &key, "1-0 other 1-0 x"]).unwrap();
                Committed::Conflict(format!("{id}~{}", &hash[..8]))
            }
            3 => {
                let _: i64 = server.ask(&["LPUSH", &key, "no place"]).unwrap();
                Committed::Refused(String::new())
            }
            4 => {
                // Only who holds it has it now.
                let _: i64 = server.ask(&["XDEL", "alerts", &entry]).unwrap();
                Committed::Stored
            }
            5 => Committed::Dead,
            _ => Committed::Stored,
        });
        settled.push(if case == 5 { dead(delivery, Some(&id), Reason::Trap) } else { stored(delivery, &id) });
    }
    let ends = queue.commit(&settled).await.unwrap();
    for ((end, expected), settled) in ends.iter().zip(&expected).zip(&settled) {
        let same = match expected {
            Committed::Refused(_) => matches!(end, Committed::Refused(why) if why.contains("WRONGTYPE")),
            expected => end == expected,
        };
        assert!(same, "{}: {end:?} instead of {expected:?}", settled.delivery.entry);
    }
    let count = |what: fn(&Committed) -> bool| ends.iter().filter(|end| what(end)).count() as u64;
    let records = count(|end| matches!(end, Committed::Stored | Committed::Conflict(_)));
    let left = count(|end| matches!(end, Committed::Lost | Committed::Refused(_)));
    assert_eq!(length(&server, "alerts:enriched"), records);
    assert_eq!(length(&server, "alerts:dlq"), count(|end| *end == Committed::Dead));
    assert_eq!(length(&server, "alerts"), left + held.len() as u64);
    // Said again, nothing happens again.
    assert_eq!(queue.commit(&settled).await.unwrap(), ends);
    assert_eq!((length(&server, "alerts:enriched"), length(&server, "alerts")), (records, left + held.len() as u64));
}
