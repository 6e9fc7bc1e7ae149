//! What a commit does, and what it does when it is done again.

use super::*;

#[tokio::test]
async fn a_stored_alert_is_in_the_store_and_nowhere_else() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\",\"x\": 1.50}"]).await;
    assert_eq!(all.store_all().await, [Committed::Stored]);
    assert_eq!(all.ls("processed"), ["alert-a.json"]);
    assert!(all.ls("pending").is_empty() && all.ls(".state").is_empty() && all.ls("errors").is_empty());
    let record = all.queue.record("a").await.unwrap().unwrap();
    assert_eq!(record, "{\"schema\":1,\"id\":\"a\",\"alert\":{\"id\":\"a\",\"x\": 1.50},\"pipeline\":{}}");
    assert_eq!(all.queue.record("b").await.unwrap(), None);
}

#[tokio::test]
async fn the_same_alert_is_stored_once() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\"}"]).await;
    assert_eq!(all.store_all().await, [Committed::Stored]);
    let before = fs::metadata(all.path("processed/alert-a.json")).unwrap().modified().unwrap();
    all.send(&["{\"id\":\"a\"}"]).await;
    assert_eq!(all.store_all().await, [Committed::Duplicate]);
    assert_eq!(fs::metadata(all.path("processed/alert-a.json")).unwrap().modified().unwrap(), before);
    assert!(all.ls("pending").is_empty());
}

#[tokio::test]
async fn the_same_id_with_other_bytes_is_stored_beside_and_once_too() {
    let all = Fixture::new().await;
    let id = format!("a~{}", &crate::digest::sha256_hex(b"{\"id\":\"a\",\"x\":2}")[..8]);
    let expected = [Committed::Stored, Committed::Conflict(id.clone()), Committed::Duplicate, Committed::Duplicate];
    for (alert, expected) in ["1", "2", "1", "2"].iter().zip(expected) {
        all.send(&[&format!("{{\"id\":\"a\",\"x\":{alert}}}")]).await;
        assert_eq!(all.store_all().await, [expected]);
    }
    assert_eq!(all.ls("processed").len(), 2);
    let record = all.queue.record(&id).await.unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!((&record["id"], &record["alert"]["x"]), (&id.into(), &2.into()));
}

#[tokio::test]
async fn nobody_can_take_the_name_that_a_conflict_needs() {
    let all = Fixture::new().await;
    let hash = &crate::digest::sha256_hex(b"{\"id\":\"a\",\"x\":2}")[..8];
    for alert in ["{\"id\":\"a\",\"x\":1}", &format!("{{\"id\":\"a~{hash}\"}}"), &format!("{{\"id\":\"a~{hash}~2\"}}")]
    {
        all.send(&[alert]).await;
        assert_eq!(all.store_all().await, [Committed::Stored]);
    }
    for expected in [Committed::Conflict(format!("a~{hash}~3")), Committed::Duplicate] {
        all.send(&["{\"id\":\"a\",\"x\":2}"]).await;
        assert_eq!(all.store_all().await, [expected]);
    }
    assert_eq!(all.ls("processed").len(), 4);
}

#[tokio::test]
async fn a_file_of_somebody_else_in_the_store_is_not_overwritten() {
    let all = Fixture::new().await;
    all.put("processed/alert-a.json", b"my notes");
    fs::create_dir(all.path("processed/alert-b.json")).unwrap();
    std::os::unix::fs::symlink("/nowhere", all.path("processed/alert-c.json")).unwrap();
    all.send(&["{\"id\":\"a\"}", "{\"id\":\"b\"}", "{\"id\":\"c\"}"]).await;
    assert!(all.store_all().await.iter().all(|done| matches!(done, Committed::Conflict(_))));
    assert_eq!(fs::read(all.path("processed/alert-a.json")).unwrap(), b"my notes");
    assert_eq!((all.ls("processed").len(), all.ls("pending").len()), (6, 0));
}

#[tokio::test]
async fn a_file_that_is_rewritten_while_in_flight_is_another_alert() {
    let all = Fixture::new().await;
    // What is stored would not be buried any more.
    for outcome in [dead as fn(Delivery) -> Settled, stored] {
        all.put("pending/x.json", b"{\"id\":\"first\"}");
        let delivery = all.receive_one().await;
        all.put("pending/x.json", b"{\"id\":\"other\"}");
        assert_ne!(all.queue.commit(&[outcome(delivery)]).await.unwrap(), [Committed::Lost]);
        let next = all.receive_one().await;
        assert_eq!(bytes_of(&next), "{\"id\":\"other\"}");
        assert_eq!((next.suspect, next.deliveries), (false, 1));
        assert_eq!(all.queue.commit(&[outcome(next)]).await.unwrap().len(), 1);
    }
    assert_eq!(all.ls("processed"), ["alert-first.json", "alert-other.json"]);
    assert_eq!(fs::read(all.path("errors/alert-first.json")).unwrap(), b"{\"id\":\"first\"}");
    assert_eq!(fs::read(all.path("errors/alert-other.json")).unwrap(), b"{\"id\":\"other\"}");
    assert!(all.ls("pending").is_empty() && all.ls(".state").is_empty());
}

#[tokio::test]
async fn a_late_commit_of_what_another_host_has_now_changes_nothing() {
    let all = Fixture::new().await;
    let other = all.other_host().await;
    all.send(&["{\"id\":1}", "{\"id\":2}"]).await;
    let mut late = all.receive().await;
    // Somebody removed the locks by hand, and so both hosts have the alerts.
    for name in all.ls(".state") {
        fs::remove_file(all.path(".state").join(name)).unwrap();
    }
    let taken = other.receive(10).await.unwrap();
    assert_eq!(taken.len(), 2);
    let settled = [stored(late.remove(0)), dead(late.remove(0))];
    assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Lost, Committed::Lost]);
    assert!(all.ls("processed").is_empty() && all.ls("errors").is_empty());
    drop(settled);
    let settled: Vec<_> = taken.into_iter().map(stored).collect();
    assert_eq!(other.commit(&settled).await.unwrap(), [Committed::Stored, Committed::Stored]);
}

#[tokio::test]
async fn an_alert_that_somebody_removed_while_in_flight_is_lost_and_the_rest_goes_on() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":1}", "{\"id\":2}"]).await;
    let settled: Vec<_> = all.receive().await.into_iter().map(stored).collect();
    fs::remove_file(all.path("pending").join(&settled[0].delivery.entry)).unwrap();
    assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Lost, Committed::Stored]);
    assert!(all.ls(".state").is_empty());
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_is_refused_alone_and_done_again_says_what_became_of_both() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":1}", "{\"id\":2}"]).await;
    let mut taken = all.receive().await;
    let settled = [stored(taken.remove(0)), dead(taken.remove(0))];
    fs::rename(all.path("errors"), all.path("elsewhere")).unwrap();
    let committed = all.queue.commit(&settled).await.unwrap();
    assert!(
        matches!(&committed[..], [Committed::Stored, Committed::Refused(why)] if why.contains("errors")),
        "{committed:?}"
    );
    assert_eq!(all.ls("pending").len(), 1);
    fs::rename(all.path("elsewhere"), all.path("errors")).unwrap();
    for _ in 0..2 {
        assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Stored, Committed::Dead]);
    }
    assert!(all.ls("pending").is_empty() && all.ls(".state").is_empty());
}

#[tokio::test]
async fn a_record_that_was_placed_before_the_error_is_stored_and_no_duplicate() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\"}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    assert!(all.queue.replay("alert-a").await.unwrap());
    let settled = [stored(all.receive_one().await)];
    // A folder in the place of the reason cannot be removed as a file.
    fs::remove_file(all.path("errors/alert-a.reason")).unwrap();
    fs::create_dir(all.path("errors/alert-a.reason")).unwrap();
    assert!(all.queue.commit(&settled).await.is_err());
    assert_eq!(all.ls("processed"), ["alert-a.json"]);
    fs::remove_dir(all.path("errors/alert-a.reason")).unwrap();
    assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Stored]);
    assert!(all.ls("pending").is_empty() && all.ls(".state").is_empty() && all.ls("errors").is_empty());
}

#[tokio::test]
async fn a_host_that_died_after_storing_leaves_a_duplicate_and_not_a_second_record() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\"}"]).await;
    assert_eq!(all.store_all().await, [Committed::Stored]);
    // The removal of the input did not reach the disk.
    all.put("pending/alert-a.json", b"{\"id\":\"a\"}");
    all.put(".state/alert-a.json.lock", b"{\"deliveries\":1,\"accused\":0,\"first_seen\":\"2026-01-01T00:00:00Z\"}");
    let suspect = all.receive_one().await;
    assert!(suspect.suspect);
    assert_eq!(all.queue.commit(&[stored(suspect)]).await.unwrap(), [Committed::Duplicate]);
    assert_eq!((all.ls("pending").len(), all.ls("processed").len(), all.ls(".state").len()), (0, 1, 0));
}

#[tokio::test]
async fn a_folder_that_is_gone_is_an_error_that_may_pass_and_nothing_is_lost() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":1}"]).await;
    let settled = [stored(all.receive_one().await)];
    fs::rename(all.path("processed"), all.path("elsewhere")).unwrap();
    for _ in 0..3 {
        assert!(matches!(all.queue.commit(&settled).await, Err(QueueError::Unavailable(_))));
    }
    assert_eq!(all.ls("pending").len(), 1);
    fs::rename(all.path("elsewhere"), all.path("processed")).unwrap();
    assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Stored]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_alerts_are_sent_and_stored() {
    let all = Fixture::new().await;
    let padding = "x".repeat(700);
    let alerts: Vec<_> = (0..10_000).map(|id| Bytes::from(format!("{{\"id\":{id},\"x\":\"{padding}\"}}"))).collect();
    let begun = std::time::Instant::now();
    all.queue.send(&alerts).await.unwrap();
    let sent = begun.elapsed();
    let begun = std::time::Instant::now();
    let mut stored_count = 0;
    while stored_count < alerts.len() {
        let settled: Vec<_> = all.queue.receive(100).await.unwrap().into_iter().map(stored).collect();
        let done = all.queue.commit(&settled).await.unwrap();
        assert!(!done.is_empty() && done.iter().all(|done| *done == Committed::Stored));
        stored_count += done.len();
    }
    let took = begun.elapsed();
    let rate = |took: Duration| alerts.len() as f64 / took.as_secs_f64();
    eprintln!("{:.0} alerts/s sent, {:.0} alerts/s received and committed", rate(sent), rate(took));
    let depth = all.queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.in_flight, depth.stored), (0, 0, 10_000));
}

#[tokio::test]
async fn an_alert_that_a_dead_host_has_stored_is_not_buried_as_well() {
    let all = Fixture::new().await;
    for alert in ["{\"id\":\"a\"}", " {\"id\":\"a\",\"x\":2} "] {
        // The record was placed, and the host died before it could remove its input: the next one fails on it.
        all.send(&[alert]).await;
        let name = all.ls("pending").remove(0);
        let input = all.path("pending").join(&name);
        let delivery = all.receive_one().await;
        fs::hard_link(&input, all.path("input")).unwrap();
        all.die_with(vec![delivery]);
        let host = all.other_host().await;
        let settled: Vec<_> = host.receive(10).await.unwrap().into_iter().map(stored).collect();
        host.commit(&settled).await.unwrap();
        fs::rename(all.path("input"), &input).unwrap();
        assert_eq!(all.bury_all().await, [Committed::Duplicate]);
        assert!(all.ls("errors").is_empty() && all.ls("pending").is_empty() && all.ls(".state").is_empty());
    }
    assert_eq!(all.ls("processed").len(), 2);
    // Another alert with its id is another alert.
    all.send(&["{\"id\":\"a\",\"x\":3}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
}
