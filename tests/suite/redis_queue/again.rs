//! Alerts that are enriched anew, where the server, another host or somebody by hand comes between.

use dossier::dead_letter::history::History;
use dossier::queue::{Again, Held, Place, QueueError, Resent};

use super::*;

/// To be stored as hosts do: with what stands behind the alert in a record.
fn enriched(delivery: Delivery, id: &str, said: &str) -> Settled {
    let Body::Alert(bytes) = &delivery.body else { panic!("refused: {delivery:?}") };
    let rest =
        [b",\"alert\":", bytes.trim_ascii(), b",\"observables\":[],\"said\":\"", said.as_bytes(), b"\"}"].concat();
    let record = Record { id: id.into(), sha256: dossier::digest::sha256(bytes), rest: rest.into() };
    Settled { delivery, outcome: Outcome::Store(record) }
}

/// Everything that is stored: place and record.
async fn records(queue: &RedisQueue) -> Vec<Held> {
    let mut walk = queue.walk(Place::Store);
    walk.next().await.expect("the server runs")
}

/// A queue in which these alerts are stored under their numbers, and sent again.
async fn sent_again(server: &RedisServer, alerts: &[&str]) -> (RedisQueue, Vec<Again>) {
    let queue = open(server).await;
    send(&queue, alerts).await;
    for (n, delivery) in receive(&queue, alerts.len()).await.into_iter().enumerate() {
        assert_eq!(commit(&queue, enriched(delivery, &n.to_string(), "old")).await, Committed::Stored);
    }
    let mut all = Vec::new();
    for (n, held) in records(&queue).await.into_iter().enumerate() {
        let alert = Bytes::copy_from_slice(alerts[n].trim().as_bytes());
        let (id, first_seen) = (n.to_string(), Timestamp::now());
        let again = Again { held, id, alert, attempts: 1, first_seen, history: History::default() };
        assert_eq!(queue.reenrich(&again).await.expect("the server runs"), Resent::Sent);
        assert_eq!(queue.reenrich(&again).await.expect("the server runs"), Resent::Waits);
        all.push(again);
    }
    (queue, all)
}

fn says(records: &[Held]) -> Vec<String> {
    let said = |held: &Held| {
        let record: serde_json::Value = serde_json::from_slice(held.bytes.as_deref().expect("a record")).expect("JSON");
        format!("{} {}", record["id"].as_str().expect("an id"), record["said"].as_str().expect("a word"))
    };
    let mut all: Vec<_> = records.iter().map(said).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_reply_that_was_lost_tells_at_the_second_try_what_was_done_at_the_first() {
    let server = RedisServer::start().unwrap();
    let (queue, _) = sent_again(&server, &["{\"n\":0}", "{\"n\":1}"]).await;
    let mut got = receive(&queue, 2).await;
    let settled = [enriched(got.remove(0), "0", "new"), dead(got.remove(0), Some("1"), Reason::Trap)];
    server.freeze().unwrap();
    assert!(matches!(queue.commit(&settled).await, Err(QueueError::Unavailable(_))));
    server.thaw().unwrap();
    assert_eq!(commit_all(&queue, settled.into()).await, [Committed::Replaced, Committed::Kept]);
    assert_eq!(says(&records(&queue).await), ["0 new", "1 old"]);
    assert_eq!((length(&server, "alerts"), length(&server, "alerts:dlq")), (0, 0));
    let flow = queue.flow().await.unwrap().unwrap();
    assert_eq!((flow.added, flow.stored, flow.kept, flow.duplicates), (4, 3, 1, 0));
    assert_eq!(server.ask::<u64>(&["HLEN", "alerts:again"]).unwrap(), 0);
}

#[tokio::test]
async fn a_host_that_was_taken_for_dead_replaces_nothing_a_second_time() {
    let server = RedisServer::start().unwrap();
    let (slow, _) = sent_again(&server, &["{\"n\":0}"]).await;
    let late = enriched(receive_one(&slow).await, "0", "late");
    let leases: Vec<String> = server.ask(&["KEYS", "alerts:lease:*"]).unwrap();
    let _: u64 = server.ask(&["DEL", &leases[0]]).unwrap();
    let quick = open(&server).await;
    let delivery = receive_one(&quick).await;
    assert!(delivery.suspect && delivery.replaces.is_some(), "{delivery:?}");
    assert_eq!(commit(&quick, enriched(delivery, "0", "new")).await, Committed::Replaced);
    assert_eq!(commit(&slow, late).await, Committed::Lost);
    assert_eq!(says(&records(&quick).await), ["0 new"]);
}

#[tokio::test]
async fn a_record_that_is_gone_or_was_replaced_meanwhile_is_not_made_again() {
    let server = RedisServer::start().unwrap();
    let (queue, again) = sent_again(&server, &["{\"n\":0}", " {\"n\":1} "]).await;
    // Sent a second time, by somebody whose note of the first was lost.
    let _: u64 = server.ask(&["DEL", "alerts:again"]).unwrap();
    assert_eq!(queue.reenrich(&again[1]).await.unwrap(), Resent::Sent);
    let _: u64 = server.ask(&["XDEL", "alerts:enriched", &again[0].held.key]).unwrap();
    let mut got = receive(&queue, 3).await;
    assert_eq!(commit(&queue, enriched(got.remove(0), "0", "new")).await, Committed::Duplicate);
    assert_eq!(commit(&queue, enriched(got.remove(0), "1", "new")).await, Committed::Replaced);
    assert_eq!(commit(&queue, enriched(got.remove(0), "1", "newer")).await, Committed::Duplicate);
    assert_eq!(says(&records(&queue).await), ["1 new"]);
    assert_eq!(queue.reenrich(&again[1]).await.unwrap(), Resent::Gone);
    // The index knows the original's bytes, space and all.
    send(&queue, &[" {\"n\":1} "]).await;
    assert_eq!(commit(&queue, enriched(receive_one(&queue).await, "1", "third")).await, Committed::Duplicate);
    let flow = queue.flow().await.unwrap().unwrap();
    assert_eq!((flow.added, flow.stored, flow.duplicates), (6, 3, 3));
}

#[tokio::test]
async fn what_the_stream_has_lost_replaces_its_record_from_memory() {
    let server = RedisServer::start().unwrap();
    let (queue, _) = sent_again(&server, &["{\"n\":0}", "{\"n\":1}"]).await;
    let mut got = receive(&queue, 2).await;
    let _: u64 = server.ask(&["XTRIM", "alerts", "MAXLEN", "0"]).unwrap();
    assert_eq!(commit(&queue, enriched(got.remove(0), "0", "new")).await, Committed::Replaced);
    assert_eq!(commit(&queue, dead(got.remove(0), Some("1"), Reason::Trap)).await, Committed::Kept);
    assert_eq!(says(&records(&queue).await), ["0 new", "1 old"]);
}
