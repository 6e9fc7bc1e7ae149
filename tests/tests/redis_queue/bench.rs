//! How fast alerts go through, nothing done to them. Prints what it measured: `--nocapture` shows it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_alerts_go_through_in_seconds() {
    const COUNT: usize = 20_000;
    let server = RedisServer::start().unwrap();
    let queue = open(&server).await;
    let alerts: Vec<_> = (0..COUNT).map(|n| Bytes::from(format!("{{\"id\":\"{n:0>740}\"}}"))).collect();
    queue.send(&alerts).await.unwrap();
    let started = Instant::now();
    let (mut done, mut receiving, mut committing) = (0, Duration::ZERO, Duration::ZERO);
    while done < COUNT {
        let before = Instant::now();
        let got = queue.receive(100).await.unwrap();
        receiving += before.elapsed();
        let settled: Vec<_> =
            got.into_iter().enumerate().map(|(n, delivery)| stored(delivery, &format!("A{}", done + n))).collect();
        let before = Instant::now();
        let ends = queue.commit(&settled).await.unwrap();
        committing += before.elapsed();
        assert!(ends.iter().all(|end| *end == Committed::Stored));
        done += settled.len();
    }
    let took = started.elapsed();
    println!(
        "{COUNT} alerts in {took:.2?}: {:.0}/s; receiving {receiving:.2?}, committing {committing:.2?}",
        COUNT as f64 / took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}
