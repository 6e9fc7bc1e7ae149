//! Dead letters: what goes there, byte for byte, and how it comes back.

use dossier::dead_letter::history::{Failure, History, KEPT, MAX_TEXT};

use super::*;

const LARGE: usize = 50 << 20;

/// How large this process is, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn alerts_of_50_mb_among_small_ones_go_to_the_dead_letters_with_their_bytes_and_are_never_in_memory_together() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let large = vec![b'\0'; LARGE];
    let mut connection = server.connection().unwrap();
    for n in 0..60 {
        let mut add = redis::cmd("XADD");
        add.arg("alerts").arg("*").arg("alert");
        if n % 20 >= 18 {
            add.arg(&large)
        } else {
            add.arg(format!("{{\"id\":{n}}}"))
        };
        add.exec(&mut connection).unwrap();
    }
    let before = memory();
    let mut most = before;
    let (mut small, mut too_large) = (0, 0);
    while small + too_large < 60 {
        let deliveries = queue.receive(100).await.unwrap();
        most = most.max(memory());
        let settled = deliveries.into_iter().map(|delivery| match delivery.body {
            Body::Alert(_) => {
                small += 1;
                stored(delivery, &format!("S{small}"))
            }
            Body::Refused { reason, .. } => {
                too_large += 1;
                dead(delivery, None, reason)
            }
        });
        queue.commit(&settled.collect::<Vec<_>>()).await.unwrap();
    }
    assert_eq!((small, too_large), (54, 6));
    assert!(most - before < 100 << 20, "reading took {} bytes more", most - before);
    let letters = queue.dead(None, 10).await.unwrap();
    assert_eq!(letters.len(), 6);
    assert!(letters.iter().all(|letter| letter.letter.reason == Reason::TooLarge && letter.size == LARGE as u64));
    assert!(queue.dead_body(&letters[5].key).await.unwrap().unwrap() == large, "the bytes changed");
    assert_eq!(length(&server, "alerts"), 0);
}

/// The most memory that the server has used since the last time.
fn peak(server: &RedisServer) -> usize {
    let info: String = server.ask(&["INFO", "memory"]).unwrap();
    let _: () = server.ask(&["CONFIG", "RESETSTAT"]).unwrap();
    let field = |name| info.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap();
    field("used_memory_peak:").trim().parse().unwrap()
}

#[tokio::test]
async fn large_alerts_in_a_row_are_never_in_a_reply_together_though_small_ones_came_before() {
    const COUNT: usize = 20;
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    for n in 0..64 {
        send(&queue, &[&format!("{{\"id\":{n}}}")]).await;
    }
    let small: Vec<_> = (0..64).map(|n| format!("S{n}")).collect();
    let large = vec![b'x'; 10 << 20];
    let mut connection = server.connection().unwrap();
    for _ in 0..COUNT {
        redis::cmd("XADD").arg("alerts").arg("*").arg("alert").arg(&large).exec(&mut connection).unwrap();
    }
    for id in &small {
        commit(&queue, stored(receive_one(&queue).await, id)).await;
    }
    peak(&server);
    let before = peak(&server);
    let got = receive(&queue, COUNT).await;
    assert!(got.iter().all(|delivery| refused(delivery) == Reason::TooLarge));
    let more = peak(&server) - before;
    // A few of them, each as a reply and as what the reply is made of.
    assert!(more < 12 * large.len(), "reading took {more} bytes more");
}

#[tokio::test]
async fn an_alert_of_exactly_the_largest_size_is_taken_and_one_byte_more_is_refused() {
    let server = RedisServer::start().unwrap();
    let (redis, mut queue_config) = config(&server);
    queue_config.max_alert_size = 10;
    let queue = open_with(&redis, &queue_config).await;
    send(&queue, &["0123456789", "0123456789a"]).await;
    let got = receive(&queue, 2).await;
    assert_eq!(text(&got[0]), "0123456789");
    assert_eq!(refused(&got[1]), Reason::TooLarge);
}

#[tokio::test]
async fn bytes_that_are_no_text_come_as_they_were_sent_and_are_buried_as_they_were_sent() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\n$5\r\n").collect();
    queue.send(&[Bytes::from(bytes.clone())]).await.unwrap();
    let delivery = receive_one(&queue).await;
    assert!(matches!(&delivery.body, Body::Alert(got) if *got == bytes));
    commit(&queue, dead(delivery, None, Reason::Malformed)).await;
    let letter = queue.dead(None, 1).await.unwrap().remove(0);
    assert_eq!(queue.dead_body(&letter.key).await.unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn an_entry_without_the_field_alert_goes_to_the_dead_letters_and_back_with_all_its_fields() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let _: String = server.ask(&["XADD", "alerts", "*", "message", "hello", "from", "somebody"]).unwrap();
    let delivery = receive_one(&queue).await;
    assert_eq!(refused(&delivery), Reason::NoAlert);
    let Body::Refused { detail, .. } = &delivery.body else { panic!("it is refused") };
    assert!(detail.contains("only message, from;"), "{detail}");
    assert_eq!(commit(&queue, dead(delivery, None, Reason::NoAlert)).await, Committed::Dead);
    let letter = queue.dead(None, 10).await.unwrap().remove(0);
    assert_eq!((letter.size, letter.letter.reason), (13, Reason::NoAlert));
    let body = queue.dead_body(&letter.key).await.unwrap().unwrap();
    assert_eq!(&body[..], br#"{"from":"somebody","message":"hello"}"#);
    assert!(queue.replay(&letter.key).await.unwrap());
    let fields: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", "alerts", "-", "+"]).unwrap();
    assert_eq!(fields[0].1[..4], ["message", "hello", "from", "somebody"]);
    assert_eq!(receive_one(&queue).await.attempts, 1);
}

#[tokio::test]
async fn an_entry_with_very_many_fields_does_not_stop_the_queue() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let mut add = redis::cmd("XADD");
    add.arg("alerts").arg("*");
    for n in 0..20_000 {
        add.arg(n).arg("x");
    }
    add.exec(&mut server.connection().unwrap()).unwrap();
    send(&queue, &["{}"]).await;
    let mut got = receive(&queue, 2).await;
    let settled = vec![dead(got.remove(0), None, Reason::NoAlert), stored(got.remove(0), "X")];
    assert_eq!(commit_all(&queue, settled).await, [Committed::Dead, Committed::Stored]);
    assert_eq!(length(&server, "alerts"), 0);
}

#[tokio::test]
async fn a_replayed_dead_letter_keeps_its_attempts_its_last_failures_and_when_it_was_first_seen() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["{\"id\":\"R\"}"]).await;
    let (mut seen, mut failed) = (None, Vec::new());
    for attempt in 0..KEPT as u32 + 3 {
        let delivery = receive_one(&queue).await;
        assert_eq!((delivery.attempts, delivery.deliveries, delivery.suspect), (attempt, 1, false));
        assert_eq!(delivery.first_seen, seen);
        assert_eq!(failed_at(&delivery.history), &failed[failed.len().saturating_sub(KEPT)..]);
        assert_eq!(text(&delivery), "{\"id\":\"R\"}");
        commit(&queue, dead(delivery, Some("R"), Reason::Timeout)).await;
        let letter = queue.dead(None, 10).await.unwrap().remove(0);
        assert_eq!((letter.letter.attempts, letter.letter.id.as_deref()), (attempt + 1, Some("R")));
        assert!(seen.is_none() || seen == Some(letter.letter.first_seen));
        seen = Some(letter.letter.first_seen);
        assert_eq!(failed_at(&letter.letter.history), &failed[failed.len().saturating_sub(KEPT)..]);
        failed.push(letter.letter.failed_at);
        assert!(queue.replay(&letter.key).await.unwrap());
        assert!(!queue.replay(&letter.key).await.unwrap(), "it is gone already");
        assert_eq!((length(&server, "alerts"), length(&server, "alerts:dlq")), (1, 0));
    }
}

fn failed_at(history: &History) -> Vec<Timestamp> {
    history.failures().iter().map(|failure| failure.failed_at).collect()
}

#[tokio::test]
async fn what_a_producer_writes_as_a_history_is_bounded_and_costs_no_alert() {
    let server = RedisServer::start().unwrap();
    let telemetry = Arc::new(Telemetry::default());
    let (redis, queue_config) = config(&server);
    let queue = RedisQueue::open(&redis, &queue_config, Arc::clone(&telemetry)).await.unwrap();
    let ignored = || {
        let text = telemetry.scrape();
        let line = text.lines().find(|line| line.starts_with("dossier_queue_ignored_histories_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let failure = "{\"failed_at\":\"2026-01-01T00:00:00Z\",\"reason\":\"trap\",\"detail\":\"a lie\"}";
    let too_large = format!("[{}]{}", failure, " ".repeat(MAX_TEXT));
    let half = format!("[{failure}");
    for nonsense in ["", "x", "{}", "[1]", "\0", &"[".repeat(60_000), &half, &too_large, &"x".repeat(8 << 20)] {
        let _: String = server.ask(&["XADD", "alerts", "*", "dossier:history", nonsense, "alert", "{}"]).unwrap();
        let before = ignored();
        let delivery = receive_one(&queue).await;
        assert_eq!((text(&delivery), delivery.attempts, delivery.history.is_empty()), ("{}", 0, true));
        assert_eq!(ignored(), before + 1.0, "{nonsense:.20}");
        // It is no part of the alert, and does not come back with it.
        assert_eq!(commit(&queue, dead(delivery, None, Reason::Trap)).await, Committed::Dead);
        let letter = queue.dead(None, 1).await.unwrap().remove(0);
        assert!(queue.replay(&letter.key).await.unwrap());
        let delivery = receive_one(&queue).await;
        assert_eq!(failed_at(&delivery.history), [letter.letter.failed_at]);
        commit(&queue, stored(delivery, "X")).await;
    }
    // A lie in the right form is taken for what it says, within the bounds.
    let lies = format!("[{}]", vec![failure; 100].join(","));
    let _: String = server.ask(&["XADD", "alerts", "*", "alert", "{}", "dossier:history", &lies]).unwrap();
    let delivery = receive_one(&queue).await;
    let lie: Failure = serde_json::from_str(failure).unwrap();
    assert_eq!((delivery.history.failures(), delivery.attempts), (vec![lie; KEPT], 0));
    assert_eq!(delivery.first_seen, None);
}

#[tokio::test]
async fn a_dead_letter_that_is_not_ours_is_replayed_without_a_history_and_a_large_one_with_a_bounded_one() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let _: String = server.ask(&["XADD", "alerts:dlq", "1-0", "alert", "1", "dead", "?", "attempts", "2"]).unwrap();
    assert!(!queue.replay("0-1").await.unwrap(), "another one was taken for it");
    assert!(queue.replay("1-0").await.unwrap());
    let delivery = receive_one(&queue).await;
    assert_eq!((delivery.attempts, delivery.history.is_empty()), (2, true));
    let Settled { delivery, outcome: Outcome::Dead(mut letter) } = dead(delivery, None, Reason::Trap) else { panic!() };
    (letter.id, letter.detail) = (Some("x".repeat(1 << 20)), "\u{1}".repeat(1 << 20));
    commit(&queue, Settled { delivery, outcome: Outcome::Dead(letter) }).await;
    let key = queue.dead(None, 1).await.unwrap().remove(0).key;
    assert!(queue.replay(&key).await.unwrap());
    let entries: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", "alerts", "-", "+"]).unwrap();
    let (name, value) = (&entries[0].1[6], &entries[0].1[7]);
    assert!(name == "dossier:history" && value.len() < 4 << 10, "{name}: {}", value.len());
    assert_eq!(receive_one(&queue).await.history.failures()[0].detail, "\u{1}".repeat(500));
}

#[tokio::test]
async fn dead_letters_are_listed_by_pages_and_discarded_by_key() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["1", "22", "333", "4444", "55555"]).await;
    let letters = receive(&queue, 5).await.into_iter().map(|delivery| dead(delivery, None, Reason::Trap)).collect();
    commit_all(&queue, letters).await;
    let (mut after, mut sizes) = (None, Vec::new());
    loop {
        let page = queue.dead(after.as_deref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        sizes.extend(page.iter().map(|letter| letter.size));
    }
    assert_eq!(sizes, [1, 2, 3, 4, 5]);
    let key = queue.dead(None, 1).await.unwrap().remove(0).key;
    assert!(queue.discard(&key).await.unwrap());
    assert!(!queue.discard(&key).await.unwrap());
    assert_eq!(queue.dead_body(&key).await.unwrap(), None);
    for nonsense in ["RULE-1", "", "-", "1", "../x"] {
        assert!(!queue.discard(nonsense).await.unwrap() && !queue.replay(nonsense).await.unwrap(), "{nonsense}");
    }
    assert_eq!(queue.depth().await.unwrap().dead, 4);
}

#[tokio::test]
async fn a_dead_letter_shows_its_reason_in_redis_cli() {
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    send(&queue, &["{}"]).await;
    commit(&queue, dead(receive_one(&queue).await, Some("D"), Reason::OutOfFuel)).await;
    let fields: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", "alerts:dlq", "-", "+"]).unwrap();
    assert_eq!(fields[0].1[..4], ["reason", "out-of-fuel", "id", "D"]);
}
