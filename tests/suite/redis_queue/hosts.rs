//! Several hosts on one group, hosts that die, and alerts that kill them.

use dossier::queue::QueueError;
use dossier_tests::host::wait_for;

use super::*;

/// A host that dies: nothing is given back, nothing renewed.
fn die(queue: RedisQueue, held: Vec<Delivery>) {
    std::mem::forget(held);
    drop(queue);
}

#[tokio::test]
async fn a_dead_hosts_alerts_come_again_as_suspects_once_its_lease_ends_and_not_before() {
    let server = RedisServer::start().unwrap();
    let (first, second) = (open(&server).await, open(&server).await);
    send(&first, &["1", "2"]).await;
    let held = receive(&first, 2).await;
    let started = Instant::now();
    while started.elapsed() < LEASE * 2 {
        assert!(second.receive(10).await.unwrap().is_empty(), "taken from a host that lives");
    }
    let died = Instant::now();
    die(first, held);
    send(&second, &["3"]).await;
    let new = receive_one(&second).await;
    assert_eq!(text(&new), "3");
    let suspects = receive(&second, 2).await;
    assert!(died.elapsed() > LEASE / 2, "taken after {:?}", died.elapsed());
    assert!(suspects.iter().all(|delivery| delivery.suspect && delivery.deliveries == 2));
    let consumers: Vec<Vec<redis::Value>> = server.ask(&["XINFO", "CONSUMERS", "alerts", "dossier"]).unwrap();
    assert_eq!(consumers.len(), 1, "the dead host's consumer is removed");
}

#[tokio::test]
async fn a_result_with_a_suspect_holds_only_suspects_and_new_alerts_follow() {
    let server = RedisServer::start().unwrap();
    let first = open(&server).await;
    send(&first, &["1", "2"]).await;
    let held = receive(&first, 2).await;
    die(first, held);
    let _: i64 = server
        .ask(&[
            "EVAL",
            "for _, key in ipairs(redis.call('KEYS', 'alerts:lease:*')) do redis.call('DEL', key) end return 0",
            "0",
        ])
        .unwrap();
    let second = open(&server).await;
    send(&second, &["3"]).await;
    let got = second.receive(10).await.unwrap();
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|delivery| delivery.suspect));
    assert_eq!(text(&receive_one(&second).await), "3");
}

#[tokio::test]
async fn a_late_commit_of_a_host_that_lost_its_alert_changes_nothing() {
    let server = RedisServer::start().unwrap();
    let (first, second) = (open(&server).await, open(&server).await);
    send(&first, &["1", "2"]).await;
    let mut late = receive(&first, 2).await;
    let _: i64 = server
        .ask(&[
            "EVAL",
            "for _, key in ipairs(redis.call('KEYS', 'alerts:lease:*')) do redis.call('DEL', key) end return 0",
            "0",
        ])
        .unwrap();
    let mut taken = receive(&second, 2).await;
    taken.sort_by(|a, b| a.entry.cmp(&b.entry));
    // While the other works on them, and after it is done.
    assert_eq!(first.commit(&[stored(late.remove(0), "A")]).await.unwrap(), [Committed::Lost]);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (2, 0));
    let settled = vec![stored(taken.remove(0), "A"), dead(taken.remove(0), None, Reason::Trap)];
    assert_eq!(commit_all(&second, settled).await, [Committed::Stored, Committed::Dead]);
    assert_eq!(first.commit(&[dead(late.remove(0), None, Reason::Trap)]).await.unwrap(), [Committed::Lost]);
    assert_eq!((length(&server, "alerts:enriched"), length(&server, "alerts:dlq")), (1, 1));
}

#[tokio::test]
async fn a_late_commit_that_came_to_something_else_puts_nothing_in_two_places() {
    let server = RedisServer::start().unwrap();
    let (first, second) = (open(&server).await, open(&server).await);
    send(&first, &["1", "2", "3"]).await;
    let mut late = receive(&first, 3).await;
    let script = "for _, key in ipairs(redis.call('KEYS', 'alerts:lease:*')) do redis.call('DEL', key) end return 0";
    let _: i64 = server.ask(&["EVAL", script, "0"]).unwrap();
    let mut taken = receive(&second, 3).await;
    taken.sort_by(|a, b| a.entry.cmp(&b.entry));
    late.sort_by(|a, b| a.entry.cmp(&b.entry));
    let settled = vec![
        stored(taken.remove(0), "A"),
        dead(taken.remove(0), Some("B"), Reason::Trap),
        // Other bytes under an id that is taken.
        stored(taken.remove(0), "A"),
    ];
    let done = commit_all(&second, settled).await;
    assert!(matches!(done[..], [Committed::Stored, Committed::Dead, Committed::Conflict(_)]), "{done:?}");
    let settled = vec![
        dead(late.remove(0), Some("A"), Reason::Trap),
        stored(late.remove(0), "B"),
        dead(late.remove(0), Some("A"), Reason::Trap),
    ];
    assert_eq!(commit_all(&first, settled).await, [Committed::Lost, Committed::Lost, Committed::Lost]);
    assert_eq!((length(&server, "alerts:enriched"), length(&server, "alerts:dlq")), (2, 1));
}

#[tokio::test]
async fn a_clean_close_makes_no_suspects_and_others_take_over_at_once() {
    let server = RedisServer::start().unwrap();
    let (redis, queue_config) = config(&server);
    let first = open_with(&RedisConfig { lease: Duration::from_secs(600), ..redis.clone() }, &queue_config).await;
    send(&first, &["1", "2"]).await;
    let held = receive(&first, 2).await;
    first.close().await.unwrap();
    drop(held);
    assert!(first.receive(10).await.is_err());
    let second = open(&server).await;
    let started = Instant::now();
    let got = receive(&second, 2).await;
    assert!(started.elapsed() < Duration::from_secs(3), "took {:?}", started.elapsed());
    assert!(got.iter().all(|delivery| !delivery.suspect && delivery.deliveries == 1));
}

#[tokio::test]
async fn a_suspect_that_was_not_tried_is_a_suspect_after_a_clean_close_too() {
    let server = RedisServer::start().unwrap();
    let first = open(&server).await;
    send(&first, &["1"]).await;
    let held = receive(&first, 1).await;
    die(first, held);
    let second = open(&server).await;
    assert!(receive_one(&second).await.suspect);
    second.close().await.unwrap();
    let third = open(&server).await;
    let suspect = receive_one(&third).await;
    // One host died with it; what the second one gave back was no delivery.
    assert_eq!((suspect.suspect, suspect.deliveries), (true, 2));
}

#[tokio::test]
async fn of_a_suspect_that_was_deleted_from_the_stream_no_note_is_left() {
    let server = RedisServer::start().unwrap();
    let first = open(&server).await;
    send(&first, &["1"]).await;
    let held = receive(&first, 1).await;
    die(first, held);
    let second = open(&server).await;
    let suspect = receive_one(&second).await;
    second.accuse(&suspect).await.unwrap();
    assert_eq!(server.ask::<u64>(&["XDEL", "alerts", &suspect.entry]).unwrap(), 1);
    die(second, vec![suspect]);
    let third = open(&server).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.ask::<u64>(&["HLEN", "alerts:accused"]).unwrap() > 0 {
        assert!(Instant::now() < deadline, "the note is still there");
        assert!(third.receive(1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_dropped_delivery_comes_again_to_the_same_host_and_is_no_suspect() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1"]).await;
    drop(receive_one(&queue).await);
    let again = receive_one(&queue).await;
    assert_eq!((text(&again), again.suspect), ("1", false));
    assert_eq!(commit(&queue, stored(again, "A")).await, Committed::Stored);
    assert!(queue.receive(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_alert_that_was_read_and_never_seen_comes_again() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1"]).await;
    // The answer is on its way while the caller gives up.
    server.freeze().unwrap();
    let gave_up = tokio::time::timeout(Duration::from_millis(200), async {
        loop {
            let _ = queue.receive(10).await;
        }
    });
    assert!(gave_up.await.is_err());
    server.thaw().unwrap();
    let got = receive_one(&queue).await;
    assert_eq!((text(&got), got.suspect), ("1", false));
}

#[tokio::test]
async fn an_alert_that_crashes_its_host_three_times_alone_is_refused_and_its_neighbour_is_not() {
    let server = RedisServer::start().unwrap();
    let mut queue = open(&server).await;
    send(&queue, &["deadly", "innocent"]).await;
    let mut held = receive(&queue, 2).await;
    for _ in 0..3 {
        die(queue, held);
        queue = open(&server).await;
        held = receive(&queue, 1).await;
        while held.iter().all(|delivery| text(delivery) != "deadly") {
            // An innocent one runs alone and comes to its end.
            for delivery in held.drain(..) {
                queue.accuse(&delivery).await.unwrap();
                commit(&queue, stored(delivery, "I")).await;
            }
            held = receive(&queue, 1).await;
        }
        for delivery in held.iter().filter(|delivery| text(delivery) == "deadly") {
            queue.accuse(delivery).await.unwrap();
            // Said twice, as after a lost reply, it counts once.
            queue.accuse(delivery).await.unwrap();
        }
    }
    die(queue, held);
    let queue = open(&server).await;
    let mut refusals = 0;
    while length(&server, "alerts") > 0 {
        for delivery in queue.receive(10).await.unwrap() {
            let settled = match &delivery.body {
                Body::Alert(bytes) => {
                    assert_eq!(&bytes[..], b"innocent");
                    stored(delivery, "I")
                }
                Body::Refused { reason, .. } => {
                    assert_eq!(*reason, Reason::HostCrash);
                    refusals += 1;
                    dead(delivery, None, Reason::HostCrash)
                }
            };
            commit(&queue, settled).await;
        }
    }
    assert_eq!((refusals, length(&server, "alerts:enriched"), length(&server, "alerts:dlq")), (1, 1, 1));
    let letter = queue.dead(None, 1).await.unwrap().remove(0);
    assert_eq!(queue.dead_body(&letter.key).await.unwrap().unwrap(), "deadly");
    assert_eq!(server.ask::<u64>(&["HLEN", "alerts:accused"]).unwrap(), 0);
}

#[tokio::test]
async fn what_speaks_against_a_suspect_stays_when_it_is_given_back_and_goes_with_it() {
    let server = RedisServer::start().unwrap();
    let first = open(&server).await;
    send(&first, &["1"]).await;
    let held = receive(&first, 1).await;
    die(first, held);
    let second = open(&server).await;
    let suspect = receive_one(&second).await;
    second.accuse(&suspect).await.unwrap();
    assert_eq!(server.ask::<u64>(&["HGET", "alerts:accused", &suspect.entry]).unwrap(), 1);
    drop(suspect);
    second.close().await.unwrap();
    let third = open(&server).await;
    let suspect = receive_one(&third).await;
    third.accuse(&suspect).await.unwrap();
    assert_eq!(server.ask::<u64>(&["HGET", "alerts:accused", &suspect.entry]).unwrap(), 2);
    commit(&third, stored(suspect, "A")).await;
    assert_eq!(server.ask::<u64>(&["HLEN", "alerts:accused"]).unwrap(), 0);
}

#[tokio::test]
async fn two_hosts_share_a_stream_and_each_alert_is_stored_once() {
    let server = RedisServer::start().unwrap();
    let (first, second) = (open(&server).await, open(&server).await);
    let alerts: Vec<_> = (0..500).map(|n| Bytes::from(format!("{{\"id\":{n}}}"))).collect();
    first.send(&alerts).await.unwrap();
    let work = |queue: RedisQueue| async move {
        let mut done = 0;
        while let Ok(got) = queue.receive(20).await
            && !got.is_empty()
        {
            let settled: Vec<_> = got
                .into_iter()
                .map(|delivery| {
                    let id = text(&delivery).to_owned();
                    stored(delivery, &id)
                })
                .collect();
            let ends = queue.commit(&settled).await.unwrap();
            done += ends.iter().filter(|&end| *end == Committed::Stored).count();
        }
        done
    };
    let (one, two) = tokio::join!(work(first), work(second));
    assert_eq!(one + two, 500);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:enriched")), (0, 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_a_failover_set_back_is_renewed_and_one_that_another_renews_ends_the_host() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    assert!(queue.receive(1).await.unwrap().is_empty());
    let key = server.ask::<Vec<String>>(&["KEYS", "alerts:lease:*"]).unwrap().remove(0);
    let mark = || server.ask::<String>(&["GET", &key]).unwrap();
    let first = mark();
    let renewed = || wait_for("the lease to be renewed", || (mark() != first).then_some(()));
    renewed();
    let _: () = server.ask(&["SET", &key, &first, "PX", "1200"]).unwrap();
    renewed();
    assert!(queue.receive(1).await.is_ok());

    let _: () = server.ask(&["SET", &key, "another's", "PX", "5000"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        match queue.receive(1).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline, "not noticed"),
        }
    };
    assert!(matches!(&error, QueueError::Broken(said) if said.contains("another host")), "{error}");
    queue.close().await.unwrap();
    assert_eq!(mark(), "another's");
}
