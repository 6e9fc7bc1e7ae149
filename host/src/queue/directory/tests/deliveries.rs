//! What is an alert, and when it is handed out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use super::*;

#[tokio::test]
async fn an_alert_that_is_sent_lies_under_its_id_and_is_delivered_byte_for_byte() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a-1\",  \"x\":1}\n", "{\"uuid\":7}", "{\"x\":2}"]).await;
    let unnamed = format!("alert-{}.json", id_of_bytes(b"{\"x\":2}"));
    let mut names = vec!["alert-a-1.json".to_owned(), "alert-7.json".to_owned(), unnamed];
    names.sort();
    assert_eq!(all.ls("pending"), names);
    let deliveries = all.receive().await;
    assert_eq!(deliveries.len(), 3);
    let first = deliveries.iter().find(|delivery| delivery.entry == "alert-a-1.json").unwrap();
    assert_eq!(bytes_of(first), "{\"id\":\"a-1\",  \"x\":1}\n");
    assert_eq!((first.deliveries, first.attempts, first.suspect, first.first_seen), (1, 0, false, None));
    assert!(first.waited < Duration::from_secs(60));
}

#[tokio::test]
async fn ids_that_are_paths_or_too_long_or_empty_make_names_that_are_safe() {
    let all = Fixture::new().await;
    let ids = ["../../../tmp/x", "a/b", &"x".repeat(300), "", "a b", "ä", ".", "..", "/etc/passwd", "a\\u0000b"];
    let alerts: Vec<_> = ids.iter().map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    all.send(&alerts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(all.ls("pending").len(), ids.len());
    assert!(all.ls("pending").iter().all(|name| name.starts_with("alert-") && name.len() < 60));
    assert_eq!(all.store_all().await, vec![Committed::Stored; ids.len()]);
    assert_eq!(all.ls("processed").len(), ids.len());
    assert_eq!(all.ls("").len(), 4, "something was written elsewhere: {:?}", all.ls(""));
    for id in ["../../../tmp/x", "a/b", &"x".repeat(300), ".."] {
        let record = all.queue.record(id).await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&record).unwrap()["id"], id);
    }
}

#[tokio::test]
async fn alerts_that_want_the_same_name_wait_side_by_side() {
    let all = Fixture::new().await;
    for _ in 0..3 {
        all.send(&["{\"id\":\"a\",\"x\":1}", "{\"id\":\"a\",\"x\":1}", "{\"id\":\"a\",\"x\":2}", "{\"id\":\"a\"}"])
            .await;
    }
    assert_eq!(all.ls("pending").len(), 12);
    let done = all.store_all().await;
    let count = |what: fn(&Committed) -> bool| done.iter().filter(|done| what(done)).count();
    assert_eq!(count(|done| *done == Committed::Stored), 1);
    assert_eq!(count(|done| matches!(done, Committed::Conflict(_))), 2);
    assert_eq!(count(|done| *done == Committed::Duplicate), 9);
    assert_eq!((all.ls("pending").len(), all.ls("processed").len(), all.ls(".state").len()), (0, 3, 0));
}

#[tokio::test]
async fn any_plain_file_is_an_alert_whatever_its_name() {
    let all = Fixture::new().await;
    let long = "n".repeat(255);
    let weird = "ö ".repeat(80);
    let names: Vec<&[u8]> =
        vec![b"with space", b"new\nline", b"\xff\xfe.json", b"%41", b"x.lock", b"no-extension", long.as_bytes()];
    let names: Vec<&[u8]> = names.into_iter().chain([weird.as_bytes()]).collect();
    for (number, name) in names.iter().enumerate() {
        put(&all.path("pending").join(OsStr::from_bytes(name)), format!("{{\"id\":{number}}}").as_bytes());
    }
    assert_eq!(all.store_all().await, vec![Committed::Stored; names.len()]);
    assert_eq!((all.ls("pending"), all.ls(".state")), (vec![], vec![]));
}

#[tokio::test]
async fn dot_files_folders_links_and_pipes_are_left_where_they_are() {
    let all = Fixture::new().await;
    all.put("pending/.hidden", b"{}");
    fs::create_dir(all.path("pending/folder")).unwrap();
    all.put("pending/folder/inside.json", b"{}");
    all.put("secret", b"{\"secret\":true}");
    std::os::unix::fs::symlink(all.path("secret"), all.path("pending/link.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        all.path("pending/pipe.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(all.receive().await.is_empty());
    assert_eq!(all.ls("pending"), [".hidden", "folder", "link.json", "pipe.json"]);
    assert_eq!(all.queue.depth().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn a_half_copied_file_waits_until_it_is_whole() {
    let all = Fixture::new().await;
    let path = all.path("pending/copied.json");
    fs::write(&path, b"{\"id\":\"a\",").unwrap();
    assert!(all.receive().await.is_empty());
    assert_eq!(all.queue.depth().await.unwrap().waiting, 1);
    fs::write(&path, b"{\"id\":\"a\",\"x\":1}").unwrap();
    assert_eq!(bytes_of(&all.receive_one().await), "{\"id\":\"a\",\"x\":1}");
}

#[tokio::test]
async fn a_file_that_stays_broken_is_delivered_as_it_is() {
    let all = Fixture::new().await;
    let begun = Instant::now();
    // A time in the future must not keep it waiting for ever.
    for (name, ahead) in [("now.json", 0), ("future.json", 3600)] {
        fs::write(all.path("pending").join(name), b"{\"id\":").unwrap();
        let file = fs::OpenOptions::new().write(true).open(all.path("pending").join(name)).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(ahead)).unwrap();
    }
    let mut delivered = Vec::new();
    while delivered.len() < 2 && begun.elapsed() < Duration::from_secs(10) {
        delivered.extend(all.receive().await);
    }
    assert!(begun.elapsed() > Duration::from_millis(1900), "after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
    assert!(delivered.iter().all(|delivery| bytes_of(delivery) == "{\"id\":" && !delivery.suspect));
}

#[tokio::test]
async fn an_alert_of_the_largest_size_is_delivered_and_one_byte_more_is_refused() {
    let all = Fixture::new().await;
    all.put("pending/fits.json", &[b'x'; MAX_ALERT_SIZE]);
    all.put("pending/large.json", &[b'x'; MAX_ALERT_SIZE + 1]);
    let mut deliveries = all.receive().await;
    deliveries.sort_by(|a, b| a.entry.cmp(&b.entry));
    assert_eq!(bytes_of(&deliveries[0]).len(), MAX_ALERT_SIZE);
    let Body::Refused { reason: Reason::TooLarge, detail } = &deliveries[1].body else { panic!("{deliveries:?}") };
    assert!(detail.contains("4097"), "{detail}");
}

#[tokio::test]
async fn a_large_file_that_still_grows_is_left_alone() {
    let all = Fixture::new().await;
    fs::write(all.path("pending/large.json"), [b'x'; MAX_ALERT_SIZE + 1]).unwrap();
    assert!(all.receive().await.is_empty());
}

#[tokio::test]
async fn a_new_file_wakes_a_reader_that_waits() {
    let all = Fixture::new().await;
    for number in 0..5 {
        let late = async {
            tokio::time::sleep(Duration::from_millis(330)).await;
            let sent = Instant::now();
            all.put(&format!("pending/{number}.json"), b"{}");
            sent
        };
        let (received, sent) = tokio::join!(all.receive(), late);
        assert_eq!(received.len(), 1);
        // Polling alone would take 200 ms now and then; the machine may be busy.
        assert!(sent.elapsed() < Duration::from_millis(150), "after {:?}", sent.elapsed());
        all.queue.commit(&received.into_iter().map(stored).collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_gives_up_after_about_a_second() {
    let all = Fixture::new().await;
    let begun = Instant::now();
    assert!(all.receive().await.is_empty());
    assert!((900..2000).contains(&begun.elapsed().as_millis()), "after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_batch_holds_no_more_than_was_asked_for_and_the_next_one_the_rest() {
    let all = Fixture::new().await;
    let alerts: Vec<_> = (0..25).map(|number| Bytes::from(format!("{{\"id\":{number}}}"))).collect();
    all.queue.send(&alerts).await.unwrap();
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(all.queue.receive(10).await.unwrap());
    }
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
}

#[tokio::test]
async fn depth_tells_what_waits_what_is_in_flight_what_is_stored_and_what_is_dead() {
    let all = Fixture::new().await;
    assert_eq!(all.queue.depth().await.unwrap(), crate::queue::Depth::default());
    all.send(&["{\"id\":1}", "{\"id\":2}", "{\"id\":3}", "{\"id\":4}"]).await;
    let stored_one = all.queue.receive(1).await.unwrap().into_iter().map(stored).collect::<Vec<_>>();
    all.queue.commit(&stored_one).await.unwrap();
    let dead_one = all.queue.receive(1).await.unwrap().into_iter().map(dead).collect::<Vec<_>>();
    all.queue.commit(&dead_one).await.unwrap();
    let in_flight = all.queue.receive(1).await.unwrap();
    let other = all.other_host().await;
    for queue in [&all.queue, &other] {
        let depth = queue.depth().await.unwrap();
        assert_eq!((depth.waiting, depth.in_flight, depth.stored, depth.dead), (1, 1, 1, 1));
        assert!(depth.oldest.unwrap() < Duration::from_secs(60));
    }
    drop(in_flight);
    let depth = other.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.in_flight), (2, 0));
}
