//! Several hosts on one folder, hosts that end, and hosts that die.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

#[tokio::test]
async fn a_delivery_that_is_dropped_is_delivered_again_as_if_for_the_first_time() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":1}"]).await;
    for _ in 0..3 {
        let delivery = all.receive_one().await;
        assert_eq!((delivery.deliveries, delivery.suspect), (1, false));
    }
    assert_eq!((all.ls("pending").len(), all.ls(".state").len()), (1, 0));
}

#[tokio::test]
async fn what_is_in_flight_is_delivered_to_nobody_else_until_it_is_given_back() {
    let all = Fixture::new().await;
    let other = all.other_host().await;
    all.send(&["{\"id\":1}"]).await;
    let delivery = all.receive_one().await;
    assert!(other.receive(10).await.unwrap().is_empty());
    assert!(all.receive().await.is_empty());
    all.queue.close().await.unwrap();
    assert_eq!(other.receive(10).await.unwrap().len(), 1);
    // The first host has nothing to say about it any more.
    assert_eq!(all.queue.commit(&[stored(delivery)]).await.unwrap(), [Committed::Lost]);
    assert_eq!((all.ls("pending").len(), all.ls("processed").len()), (1, 0));
}

#[tokio::test]
async fn a_receive_that_is_cancelled_takes_nothing() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":1}", "{\"id\":2}"]).await;
    for _ in 0..20 {
        let receive = all.queue.receive(10);
        let _ = tokio::time::timeout(Duration::from_micros(50), receive).await;
    }
    let mut seen = 0;
    for _ in 0..10 {
        seen = all.receive().await.len();
        if seen == 2 {
            break;
        }
    }
    assert_eq!(seen, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hosts_on_one_folder_process_each_alert_once() {
    let all = Fixture::new().await;
    let alerts: Vec<_> = (0..2000).map(|number| Bytes::from(format!("{{\"id\":{number}}}"))).collect();
    all.queue.send(&alerts).await.unwrap();
    let mut hosts = Vec::new();
    for _ in 0..3 {
        let queue = all.other_host().await;
        hosts.push(tokio::spawn(async move {
            let mut entries = Vec::new();
            loop {
                let taken = queue.receive(37).await.unwrap();
                if taken.is_empty() {
                    return entries;
                }
                assert!(taken.iter().all(|delivery| !delivery.suspect && delivery.deliveries == 1), "{taken:?}");
                entries.extend(taken.iter().map(|delivery| delivery.entry.clone()));
                let settled: Vec<_> = taken.into_iter().map(stored).collect();
                let done = queue.commit(&settled).await.unwrap();
                assert!(done.iter().all(|done| *done == Committed::Stored), "{done:?}");
            }
        }));
    }
    let mut entries = Vec::new();
    let mut shares = Vec::new();
    for host in hosts {
        let share = host.await.unwrap();
        shares.push(share.len());
        entries.extend(share);
    }
    assert_eq!(entries.len(), 2000, "{shares:?}");
    assert_eq!(entries.into_iter().collect::<BTreeSet<_>>().len(), 2000);
    assert_eq!((all.ls("pending").len(), all.ls("processed").len(), all.ls(".state").len()), (0, 2000, 0));
}

/// Has a host take so many of these alerts and be killed with them in flight. The test of this name is parent and child: in the child this
/// does not return.
async fn killed_with(all: &Fixture, alerts: &[Bytes], count: usize, test: &str) {
    const FOLDER: &str = "DOSSIER_TEST_CHILD";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let queue = open(Path::new(&folder)).await.unwrap();
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(queue.receive(count - taken.len()).await.unwrap());
        }
        eprintln!("\ntaken {}", taken.len());
        std::future::pending::<()>().await;
    }
    all.queue.send(alerts).await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("queue::directory::tests::hosts::{test}"), "--nocapture"])
        .env(FOLDER, all.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.map(|line| line.unwrap()).find(|line| line.starts_with("taken"));
    assert_eq!(said, Some(format!("taken {count}")));
    assert_eq!(all.queue.depth().await.unwrap().in_flight, count as u64);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn suspects_are_read_into_memory_no_more_at_a_time_than_others() {
    let folder = tempfile::tempdir().unwrap();
    let all = Fixture { queue: open_for(folder.path(), 1 << 20).await.unwrap(), folder };
    let alert = |number: usize| Bytes::from(format!("{{\"id\":{number},\"rest\":\"{}\"}}", "x".repeat(1_000_000)));
    let alerts: Vec<_> = (0..20).map(alert).collect();
    let test = "suspects_are_read_into_memory_no_more_at_a_time_than_others";
    killed_with(&all, &alerts, alerts.len(), test).await;
    let first = all.receive().await;
    assert!(first.iter().all(|delivery| delivery.suspect));
    assert_eq!(first.len(), (16 << 20) / 1_000_000 + 1, "sixteen MiB, and the one that goes over them");
    assert_eq!(all.receive().await.len(), alerts.len() - first.len());
}

#[tokio::test]
async fn the_alerts_of_a_host_that_was_killed_are_suspects_and_come_first_and_alone() {
    let all = Fixture::new().await;
    let alerts: Vec<_> = (0..20).map(|number| Bytes::from(format!("{{\"id\":{number}}}"))).collect();
    let test = "the_alerts_of_a_host_that_was_killed_are_suspects_and_come_first_and_alone";
    killed_with(&all, &alerts, 2, test).await;

    let suspects = all.receive().await;
    assert_eq!(suspects.len(), 2);
    assert!(suspects.iter().all(|delivery| delivery.suspect && delivery.deliveries == 2));
    assert!(suspects.iter().all(|delivery| delivery.first_seen.is_some()));
    let settled: Vec<_> = suspects.into_iter().map(stored).collect();
    assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Stored, Committed::Stored]);
    let rest = all.receive().await;
    assert_eq!(rest.len(), 18);
    assert!(rest.iter().all(|delivery| !delivery.suspect));
}

#[tokio::test]
async fn an_alert_that_crashes_its_host_while_alone_is_refused_and_its_siblings_are_not() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":\"guilty\"}", "{\"id\":\"innocent\"}"]).await;
    let both = all.receive().await;
    all.die_with(both);
    for crash in 1..=MAX_CRASHES {
        let host = all.other_host().await;
        let suspects = host.receive(10).await.unwrap();
        assert_eq!(suspects.len(), 2);
        assert!(suspects.iter().all(|suspect| suspect.suspect && matches!(suspect.body, Body::Alert(_))));
        let guilty = suspects.iter().find(|suspect| suspect.entry.contains("guilty")).unwrap();
        assert_eq!(guilty.deliveries, crash + 1);
        host.accuse(guilty).await.unwrap();
        all.die_with(suspects);
    }
    let mut suspects = all.receive().await;
    suspects.sort_by(|a, b| a.entry.cmp(&b.entry));
    let Body::Refused { reason: Reason::HostCrash, detail } = &suspects[0].body else { panic!("{suspects:?}") };
    assert!(detail.contains("died 2 times"), "{detail}");
    let innocent = suspects.pop().unwrap();
    assert_eq!(bytes_of(&innocent), "{\"id\":\"innocent\"}");
    let settled = [dead(suspects.pop().unwrap()), stored(innocent)];
    assert_eq!(all.queue.commit(&settled).await.unwrap(), [Committed::Dead, Committed::Stored]);
    assert_eq!(all.ls("errors"), ["alert-guilty.json", "alert-guilty.reason"]);
    // A replay gives it a new chance.
    assert!(all.queue.replay("alert-guilty").await.unwrap());
    let again = all.receive_one().await;
    assert_eq!((again.suspect, again.deliveries, again.attempts), (false, 1, 1));
}

#[tokio::test]
async fn a_suspect_that_only_dies_with_its_host_or_is_given_back_is_not_nearer_to_its_conviction() {
    let all = Fixture::new().await;
    all.send(&["{\"id\":1}"]).await;
    let first = all.receive().await;
    all.die_with(first);
    for _ in 0..5 {
        let host = all.other_host().await;
        let suspects = host.receive(10).await.unwrap();
        all.die_with(suspects);
    }
    for _ in 0..5 {
        let host = all.other_host().await;
        let suspects = host.receive(10).await.unwrap();
        host.close().await.unwrap();
        drop(suspects);
    }
    for _ in 1..MAX_CRASHES {
        let delivery = all.receive_one().await;
        assert!(delivery.suspect && matches!(delivery.body, Body::Alert(_)), "{delivery:?}");
        assert_eq!(delivery.deliveries, 7);
        // Said twice, it counts once; dropped or given back, it stays.
        all.queue.accuse(&delivery).await.unwrap();
        all.queue.accuse(&delivery).await.unwrap();
        drop(delivery);
    }
    let delivery = all.receive_one().await;
    assert!(matches!(delivery.body, Body::Alert(_)), "{delivery:?}");
    all.queue.accuse(&delivery).await.unwrap();
    drop(delivery);
    let delivery = all.receive_one().await;
    assert!(matches!(delivery.body, Body::Refused { reason: Reason::HostCrash, .. }), "{delivery:?}");
}

#[tokio::test]
async fn what_a_dead_host_left_is_cleared_away_and_what_others_write_is_not() {
    let all = Fixture::new().await;
    all.put("pending/.dossier-0123", b"half");
    all.put("processed/.dossier-0123", b"half");
    all.put("pending/.rsync.AbC", b"half");
    fs::write(all.path("pending/.dossier-4567"), b"still being written").unwrap();
    all.put(".state/gone.json.lock", b"{}");
    let other = all.other_host().await;
    assert!(other.receive(10).await.unwrap().is_empty());
    assert_eq!(all.ls("pending"), [".dossier-4567", ".rsync.AbC"]);
    assert!(all.ls("processed").is_empty() && all.ls(".state").is_empty());
}

#[tokio::test]
async fn a_path_that_is_no_directory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("queue")] {
        let error = open(&path).await.unwrap_err();
        assert!(matches!(&error, QueueError::Broken(text) if text.contains("file is not a directory")), "{error:?}");
    }
    assert!(super::super::check(&file).await[0].what.contains("is not a directory"));
}

#[tokio::test]
async fn a_check_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let seen = super::super::check(&folder.path().join("a/b")).await;
    assert!(seen.iter().all(|one| one.gravity != crate::checkup::Gravity::Broken), "{seen:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
