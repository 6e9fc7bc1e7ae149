//! Dead letters, and the ways out of them.

use crate::dead_letter::history::{History, KEPT};

use super::*;

fn failed_at(history: &History) -> Vec<Timestamp> {
    history.failures().iter().map(|failure| failure.failed_at).collect()
}

fn letter(all: &Fixture, key: &str) -> DeadLetter {
    serde_json::from_slice(&fs::read(all.path(&format!("errors/{key}.reason"))).unwrap()).unwrap()
}

#[tokio::test]
async fn a_dead_letter_is_the_exact_bytes_with_the_reason_beside_them() {
    let all = Fixture::new().await;
    let bytes = b"{\"id\":\"a\",  \"broken\": \xff\0\n";
    all.put("pending/alert-a.json", bytes);
    all.put("pending/my alert\n.json", bytes);
    assert_eq!(all.bury_all().await, [Committed::Dead, Committed::Dead]);
    assert_eq!((all.ls("errors").len(), all.ls("pending").len(), all.ls(".state").len()), (4, 0, 0));
    assert_eq!(fs::read(all.path("errors/alert-a.json")).unwrap(), bytes);
    assert_eq!(letter(&all, "alert-a").reason, Reason::Malformed);
    assert_eq!(all.queue.dead_body("alert-a").await.unwrap().unwrap(), &bytes[..]);
    assert!(fs::read_to_string(all.path("errors/alert-a.reason")).unwrap().lines().count() > 5, "not for people");
}

#[tokio::test]
async fn a_large_file_is_moved_and_not_read() {
    let all = Fixture::new().await;
    let large = vec![b'x'; 50 << 20];
    all.put("pending/large.json", &large);
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(all.path(name)).unwrap());
    let before = inode("pending/large.json");
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    assert_eq!(inode("errors/alert-large.json"), before);
    assert_eq!(letter(&all, "alert-large").reason, Reason::TooLarge);
}

#[tokio::test]
async fn moving_the_files_by_hand_drains_the_dead_letters_and_keeps_their_attempts() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\"}", "{\"id\":\"b\"}"]).await;
    assert_eq!(all.bury_all().await.len(), 2);
    let first_seen = letter(&all, "alert-a").first_seen;
    for name in ["alert-a.json", "alert-b.json"] {
        fs::rename(all.path("errors").join(name), all.path("pending").join(name)).unwrap();
    }
    assert!(all.queue.dead(None, 10).await.unwrap().is_empty());
    let mut again = all.receive().await;
    again.sort_by(|a, b| a.entry.cmp(&b.entry));
    assert_eq!((again[0].attempts, again[0].deliveries, again[0].first_seen), (1, 1, Some(first_seen)));
    let (b, a) = (again.pop().unwrap(), again.pop().unwrap());
    assert_eq!(all.queue.commit(&[dead(a), stored(b)]).await.unwrap(), [Committed::Dead, Committed::Stored]);
    assert_eq!(all.ls("errors"), ["alert-a.json", "alert-a.reason"]);
    assert_eq!((letter(&all, "alert-a").attempts, letter(&all, "alert-a").first_seen), (2, first_seen));
}

#[tokio::test]
async fn a_replay_keeps_the_attempts_and_the_last_failures_however_often_it_fails() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a/b\"}"]).await;
    let mut failed = Vec::new();
    for attempts in 1..=KEPT as u32 + 3 {
        let taken = all.receive_one().await;
        assert_eq!(failed_at(&taken.history), &failed[failed.len().saturating_sub(KEPT)..]);
        assert_eq!(all.queue.commit(&[dead(taken)]).await.unwrap(), [Committed::Dead]);
        let dead = all.queue.dead(None, 10).await.unwrap();
        assert_eq!((dead.len(), dead[0].letter.attempts), (1, attempts));
        assert_eq!(failed_at(&dead[0].letter.history), &failed[failed.len().saturating_sub(KEPT)..]);
        failed.push(dead[0].letter.failed_at);
        assert!(all.queue.replay(&dead[0].key).await.unwrap());
        assert!(!all.queue.replay(&dead[0].key).await.unwrap(), "it is gone already");
    }
    assert_eq!(all.store_all().await, [Committed::Stored]);
    assert!(all.ls("errors").is_empty());
}

#[tokio::test]
async fn a_history_that_cannot_be_read_takes_nothing_from_its_alert() {
    let all = Fixture::new().await;
    let a_list = "{\"schema\":1,\"reason\":\"trap\",\"detail\":\"\",\"attempts\":1,\"deliveries\":1,\"host\":\"\",\"history\":7,\
                  \"first_seen\":\"2026-01-01T00:00:00Z\",\"failed_at\":\"2026-01-01T00:00:00Z\"}";
    let newer = a_list.replace("\"schema\":1", "\"schema\":2").replace("\"history\":7,", "");
    for reason in ["", "[]", a_list, &newer, &"x".repeat(2 << 20)] {
        all.put("errors/alert-a.reason", reason.as_bytes());
        all.put("pending/alert-a.json", b"{\"id\":\"a\"}");
        let taken = all.receive_one().await;
        assert!(taken.history.is_empty() && taken.attempts == 0, "{taken:?}");
        assert_eq!(all.queue.commit(&[dead(taken)]).await.unwrap(), [Committed::Dead]);
        assert_eq!(letter(&all, "alert-a").attempts, 1);
        fs::remove_file(all.path("errors/alert-a.json")).unwrap();
    }
}

#[tokio::test]
async fn a_replay_overwrites_nothing_that_waits_under_the_same_name() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\",\"x\":1}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    all.send(&["{\"id\":\"a\",\"x\":2}"]).await;
    assert!(all.queue.replay("alert-a").await.unwrap());
    assert_eq!(all.ls("pending"), ["alert-a.json", "alert-a~2.json"]);
    let mut both = all.receive().await;
    both.sort_by(|a, b| a.entry.cmp(&b.entry));
    assert_eq!(both.iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(both.iter().map(|delivery| delivery.history.failures().len()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(bytes_of(&both[1]), "{\"id\":\"a\",\"x\":1}");
    let settled: Vec<_> = both.into_iter().map(stored).collect();
    assert_eq!(all.queue.commit(&settled).await.unwrap().len(), 2);
    assert!(all.ls("errors").is_empty(), "{:?}", all.ls("errors"));
}

#[tokio::test]
async fn the_same_bytes_are_one_dead_letter_and_other_bytes_are_another() {
    let all = Fixture::new().await;
    for (alert, count) in [("1", 1), ("1", 1), ("2", 2), ("2", 2), ("1", 2)] {
        all.send(&[&format!("{{\"id\":\"a\",\"x\":{alert}}}")]).await;
        assert_eq!(all.bury_all().await, [Committed::Dead]);
        assert_eq!(all.queue.dead(None, 10).await.unwrap().len(), count);
    }
    let other = format!("alert-a~{}", &crate::digest::sha256_hex(b"{\"id\":\"a\",\"x\":2}")[..8]);
    assert_eq!((letter(&all, "alert-a").attempts, letter(&all, &other).attempts), (3, 2));
    let failures = |key: &str| letter(&all, key).told().failures().to_vec();
    assert_eq!((failures("alert-a").len(), failures(&other).len()), (3, 2));
    assert!(failures("alert-a").is_sorted_by_key(|failure| failure.failed_at));
    assert_eq!(all.queue.dead_body("alert-a").await.unwrap().unwrap(), "{\"id\":\"a\",\"x\":1}");
    assert_eq!(all.queue.dead_body(&other).await.unwrap().unwrap(), "{\"id\":\"a\",\"x\":2}");
    assert!(all.ls("pending").is_empty());
}

#[tokio::test]
async fn the_attempts_of_an_alert_that_was_moved_back_are_not_lost_to_another_with_its_id() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\",\"x\":1}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    all.send(&["{\"id\":\"a\",\"x\":2}"]).await;
    fs::rename(all.path("pending/alert-a.json"), all.path("pending/other.json")).unwrap();
    let other = all.receive_one().await;
    assert!(all.queue.replay("alert-a").await.unwrap());
    assert_eq!(all.queue.commit(&[dead(other)]).await.unwrap(), [Committed::Dead]);
    assert_eq!(all.receive_one().await.attempts, 1);
}

#[tokio::test]
async fn a_host_that_died_between_the_reason_and_the_bytes_leaves_one_dead_letter() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\"}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    fs::rename(all.path("errors/alert-a.json"), all.path("pending/alert-a.json")).unwrap();
    all.put(".state/alert-a.json.lock", b"{\"deliveries\":1,\"accused\":0,\"first_seen\":\"2026-01-01T00:00:00Z\"}");
    assert!(all.queue.dead(None, 10).await.unwrap().is_empty());
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    assert_eq!(all.ls("errors"), ["alert-a.json", "alert-a.reason"]);
    assert_eq!(letter(&all, "alert-a").deliveries, 2);
}

#[tokio::test]
async fn pages_follow_each_other_although_what_they_showed_is_gone() {
    let all = Fixture::new().await;
    for number in 0..10 {
        all.send(&[&format!("{{\"id\":{number}}}")]).await;
        let mut settled: Vec<_> = all.receive().await.into_iter().map(dead).collect();
        if let Outcome::Dead(letter) = &mut settled[0].outcome {
            // Against the order of the names; each second is shared by two.
            letter.failed_at = Timestamp::from_second(1_000_000 - number / 2).unwrap();
        }
        all.queue.commit(&settled).await.unwrap();
    }
    for remove in [false, true] {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = all.queue.dead(after.as_deref(), 3).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for dead in &page {
                seen.push(dead.letter.id.clone().unwrap());
                assert_eq!(dead.size, 8);
                if remove {
                    assert!(all.queue.discard(&dead.key).await.unwrap());
                }
            }
        }
        assert_eq!(seen, ["8", "9", "6", "7", "4", "5", "2", "3", "0", "1"]);
    }
    assert!(all.ls("errors").is_empty());
}

#[tokio::test]
async fn a_file_without_a_reason_is_listed_with_what_can_be_known() {
    let all = Fixture::new().await;
    all.put("errors/by-hand.json", b"{\"id\":\"x\"}");
    all.put("errors/broken.json", b"{");
    all.put("errors/broken.reason", b"?");
    all.put("errors/notes.txt", b"my notes");
    let mut dead = all.queue.dead(None, 10).await.unwrap();
    dead.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(dead.iter().map(|dead| dead.key.as_str()).collect::<Vec<_>>(), ["broken", "by-hand"]);
    assert_eq!(dead[0].letter.reason, Reason::Malformed);
    assert_eq!((dead[1].letter.id.as_deref(), dead[1].letter.attempts), (Some("x"), 0));
    assert_eq!(all.queue.depth().await.unwrap().dead, 2);
    assert!(all.queue.replay("by-hand").await.unwrap());
    assert_eq!(all.store_all().await, [Committed::Stored]);
}

#[tokio::test]
async fn no_key_leads_out_of_the_folder() {
    let all = Fixture::new().await;
    all.put("pending/x.json", b"{}");
    all.put("processed/x.json", b"{}");
    for key in ["../pending/x", "../processed/x", "..", ".", "", "a\0b", &"x".repeat(5000), "/etc/passwd"] {
        assert!(!all.queue.discard(key).await.unwrap(), "{key:?}");
        assert!(!all.queue.replay(key).await.unwrap(), "{key:?}");
        assert!(all.queue.dead_body(key).await.unwrap().is_none(), "{key:?}");
    }
    assert_eq!((all.ls("pending").len(), all.ls("processed").len()), (1, 1));
}

#[tokio::test]
async fn what_is_discarded_is_gone_with_its_reason() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"a\"}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    assert!(all.queue.discard("alert-a").await.unwrap());
    assert!(!all.queue.discard("alert-a").await.unwrap());
    assert!(all.ls("errors").is_empty());
}

#[tokio::test]
async fn a_key_whose_letter_was_just_replayed_means_no_other_letter() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"x\"}"]).await;
    assert_eq!(all.bury_all().await, [Committed::Dead]);
    all.put("errors/x.json", b"{}");
    assert!(all.queue.replay("x").await.unwrap());
    assert!(!all.queue.discard("x").await.unwrap() && !all.queue.replay("x").await.unwrap());
    assert_eq!(all.ls("errors"), ["alert-x.json", "alert-x.reason"]);
}
