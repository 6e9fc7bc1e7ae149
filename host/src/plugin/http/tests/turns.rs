//! Requests wait for their turn, and fail only when their time is over.

use super::*;
use crate::config::{CacheConfig, Rate};

fn rate(count: u32, per: Duration, burst: u32) -> Option<Rate> {
    Some(Rate { count: count.try_into().unwrap(), per, burst: burst.try_into().unwrap() })
}

#[tokio::test]
async fn requests_over_the_rate_wait_and_none_fails() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok("")).await;
    let url = format!("http://{address}/");
    // Two at once, then one each 100 ms.
    let http = http(HttpConfig { rate: rate(10, Duration::from_secs(1), 2), ..config(&url) });
    let begun = Instant::now();
    let all = futures_util::future::join_all((0..6).map(|_| send(&http, get(&url)))).await;
    let took = begun.elapsed();
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert!(took >= Duration::from_millis(390), "{took:?}");
    assert_eq!(count.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_request_whose_turn_does_not_come_in_time_is_not_sent_and_says_nothing_about_the_interface() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok("")).await;
    let url = format!("http://{address}/");
    let cache = CacheConfig { life: Duration::from_secs(60), failures: Some(Duration::from_secs(60)), size: 1 << 20 };
    let slow = HttpConfig { rate: rate(2, Duration::from_secs(1), 1), cache: Some(cache), ..config(&url) };
    let telemetry = Arc::new(crate::telemetry::Telemetry::default());
    let http = Http::new(&[("api".to_owned(), slow)].into(), None, Arc::clone(&telemetry)).unwrap();
    assert!(send(&http, get(format!("{url}first"))).await.is_ok());
    let begun = Instant::now();
    assert_eq!(send_within(&http, get(&url), Duration::from_millis(100)).await, Err(HttpError::Timeout));
    assert!(begun.elapsed() < Duration::from_millis(400));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(telemetry.scrape().contains("outcome=\"no-turn\"} 1\n"));
    assert!(send(&http, get(&url)).await.is_ok(), "it is asked when there is time");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_step_has_no_more_requests_at_once_than_it_may_and_others_do_not_wait_for_it() {
    let (address, count) = counting_server(Duration::from_millis(150), |_| ok("")).await;
    let url = format!("http://{address}/");
    let http = http(config(&url));
    let greedy = Asker::new(vec!["api".to_owned()], 2);
    let deadline = Instant::now() + Duration::from_secs(10);
    let begun = Instant::now();
    let flood = async {
        futures_util::future::join_all((0..6).map(|_| http.send(&greedy, get(&url), deadline))).await;
        begun.elapsed()
    };
    let other = async {
        http.send(&asker(), get(&url), deadline).await.result.unwrap();
        begun.elapsed()
    };
    let (flood, other) = tokio::join!(flood, other);
    assert_eq!(count.load(Ordering::SeqCst), 7);
    assert!(flood >= Duration::from_millis(450), "two at once: {flood:?}");
    assert!(other < Duration::from_millis(300), "{other:?}");
}
