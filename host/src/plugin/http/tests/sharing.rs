//! What is asked alike is asked once.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::config::CacheConfig;

const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(100);

const CACHE: CacheConfig = CacheConfig { life: LONG, failures: Some(LONG), size: 1 << 20 };

fn sharing(url: &str, cache: CacheConfig) -> HttpConfig {
    HttpConfig { cache: Some(cache), ..config(url) }
}

async fn ask(http: &Http, request: Request) -> Answered {
    ask_within(http, request, Duration::from_secs(10)).await
}

async fn ask_within(http: &Http, request: Request, time: Duration) -> Answered {
    http.send(&asker(), request, Instant::now() + time).await
}

fn body(answered: &Answered) -> &[u8] {
    &answered.result.as_ref().unwrap().body
}

#[tokio::test]
async fn identical_requests_at_once_are_one_request() {
    let (address, count) = counting_server(MOMENT, |_| ok("once")).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CACHE));
    let answers = futures_util::future::join_all((0..100).map(|_| ask(&http, get(&url)))).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(answers.iter().all(|answer| body(answer) == b"once"));
    assert_eq!(answers.iter().filter(|answer| !answer.cached).count(), 1, "one of them asked");
    assert!(ask(&http, get(&url)).await.cached);
    assert_eq!((count.load(Ordering::SeqCst), http.apis["api"].flights.count()), (1, 0));
}

#[tokio::test]
async fn an_answer_is_given_again_for_its_life_and_no_longer() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok("")).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CacheConfig { life: Duration::from_millis(400), ..CACHE }));
    let begun = Instant::now();
    ask(&http, get(&url)).await;
    assert!(ask(&http, get(&url)).await.cached);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    tokio::time::sleep_until(begun + Duration::from_millis(600)).await;
    assert!(!ask(&http, get(&url)).await.cached);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_differs_in_anything_is_another_request() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok("")).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CACHE));
    let header = |name: &str, value: &str| Request { headers: vec![(name.into(), value.into())], ..get(&url) };
    let different = [
        get(&url),
        get(format!("{url}x")),
        get(format!("{url}?x")),
        Request { method: "HEAD".into(), ..get(&url) },
        header("a", "bc"),
        header("ab", "c"),
    ];
    for (sent, request) in different.iter().enumerate() {
        assert!(!ask(&http, request.clone()).await.cached);
        assert_eq!(count.load(Ordering::SeqCst), sent + 1);
    }
    for request in different {
        assert!(ask(&http, request).await.cached);
    }
    // A fragment is no part of a request.
    assert!(ask(&http, get(format!("{url}#x"))).await.cached);
    assert_eq!(count.load(Ordering::SeqCst), 6);
    for method in ["POST", "PUT"] {
        let before = count.load(Ordering::SeqCst);
        for _ in 0..2 {
            assert!(!ask(&http, Request { method: method.into(), ..get(&url) }).await.cached);
        }
        assert_eq!(count.load(Ordering::SeqCst), before + 2, "{method} does something, so each is sent");
    }
}

#[tokio::test]
async fn an_interface_without_a_cache_is_sent_every_request() {
    let (address, count) = counting_server(MOMENT, |_| ok("")).await;
    let url = format!("http://{address}/");
    let http = http(config(&url));
    tokio::join!(ask(&http, get(&url)), ask(&http, get(&url)));
    assert!(!ask(&http, get(&url)).await.cached);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn the_end_of_the_first_asker_is_not_the_end_of_the_others() {
    let (address, count) = counting_server(Duration::from_millis(400), |_| ok("late")).await;
    let url = format!("http://{address}/");
    for cancelled in [false, true] {
        let http = http(sharing(&url, CACHE));
        let before = count.load(Ordering::SeqCst);
        let first = async {
            if cancelled {
                assert!(tokio::time::timeout(MOMENT, ask(&http, get(&url))).await.is_err());
            } else {
                let answer = ask_within(&http, get(&url), MOMENT).await;
                assert_eq!((answer.result, answer.fails_until), (Err(HttpError::Timeout), None));
            }
        };
        let (_, second, third) = tokio::join!(first, ask(&http, get(&url)), ask(&http, get(&url)));
        assert_eq!((body(&second), body(&third)), (&b"late"[..], &b"late"[..]));
        assert_eq!(count.load(Ordering::SeqCst), before + 1);
    }
}

#[tokio::test]
async fn when_nobody_waits_any_more_the_socket_is_closed_and_the_request_forgotten() {
    let (address, closed) = slow_server(true).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CACHE));
    let (first, second) = tokio::join!(ask_within(&http, get(&url), MOMENT), ask_within(&http, get(&url), 2 * MOMENT));
    assert_eq!((first.result, second.result), (Err(HttpError::Timeout), Err(HttpError::Timeout)));
    tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the socket is closed").unwrap();
    assert_eq!((http.apis["api"].flights.count(), http.apis["api"].turns.free()), (0, 8));
}

#[tokio::test]
async fn a_time_out_is_known_to_those_who_would_wait_as_long_and_not_to_the_more_patient() {
    let (address, count) = counting_server(3 * MOMENT, |_| ok("late")).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CACHE));
    assert_eq!(ask_within(&http, get(&url), MOMENT).await.result, Err(HttpError::Timeout));
    let again = ask_within(&http, get(&url), MOMENT).await;
    assert!(again.cached && again.fails_until.is_some() && again.result == Err(HttpError::Timeout));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(body(&ask(&http, get(&url)).await), b"late");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failure_is_given_again_shortly_and_says_for_how_long() {
    let failures = Some(Duration::from_millis(400));
    for answer in ["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", ""] {
        let (address, count) = counting_server(Duration::ZERO, move |_| answer.into()).await;
        let url = format!("http://{address}/");
        let http = http(sharing(&url, CacheConfig { failures, ..CACHE }));
        let first = ask(&http, get(&url)).await;
        let until = first.fails_until.expect("it is known for how long");
        let second = ask(&http, get(&url)).await;
        assert!(second.cached && second.result == first.result && second.fails_until == Some(until));
        assert_eq!(count.load(Ordering::SeqCst), 1, "{answer}");
        tokio::time::sleep_until(until).await;
        assert!(!ask(&http, get(&url)).await.cached, "{answer}");
        // An operator who wants none of this gets none.
        let forgetful = super::http(sharing(&url, CacheConfig { failures: None, ..CACHE }));
        for _ in 0..2 {
            let answer = ask(&forgetful, get(&url)).await;
            assert!(!answer.cached && answer.fails_until.is_none());
        }
    }
}

#[tokio::test]
async fn that_there_is_nothing_is_an_answer() {
    let (address, _) = counting_server(Duration::ZERO, |_| "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".into()).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CacheConfig { failures: None, ..CACHE }));
    assert_eq!(ask(&http, get(&url)).await.fails_until, None);
    assert!(ask(&http, get(&url)).await.cached);
}

#[tokio::test]
async fn retry_after_is_respected_up_to_a_bound() {
    let date = jiff::fmt::rfc2822::to_string(&(jiff::Zoned::now() + Duration::from_secs(30))).unwrap();
    for (said, from, to) in [("7", 6, 7), ("3600", 59, 60), ("0", 0, 1), (date.as_str(), 27, 30), ("soon", 0, 1)] {
        let answer = format!("HTTP/1.1 429 Slow\r\nretry-after: {said}\r\ncontent-length: 0\r\n\r\n");
        let address = server(move |_| answer.clone()).await;
        let url = format!("http://{address}/");
        let http = http(sharing(&url, CacheConfig { failures: Some(Duration::from_secs(1)), ..CACHE }));
        let begun = Instant::now();
        let life = ask(&http, get(&url)).await.fails_until.unwrap() - begun;
        assert!(life >= Duration::from_secs(from) && life <= Duration::from_secs(to + 1), "{said}: {life:?}");
    }
}

#[tokio::test]
async fn what_is_denied_or_invalid_is_not_remembered() {
    let http = http(HttpConfig { private: false, ..sharing("http://localhost:9/", CACHE) });
    for request in [get("http://localhost:9/"), Request { method: "GO".into(), ..get("http://localhost:9/") }] {
        for _ in 0..2 {
            let answer = ask(&http, request.clone()).await;
            assert!(matches!(answer.result, Err(HttpError::Denied(_) | HttpError::Invalid(_))), "{answer:?}");
            assert!(!answer.cached && answer.fails_until.is_none());
        }
    }
}

#[tokio::test]
async fn interfaces_never_see_each_others_answers_and_who_is_not_granted_sees_none() {
    let (address, count) = counting_server(Duration::ZERO, |request| {
        ok(if request.contains("key: of-one-of-one") { "one" } else { "two" })
    })
    .await;
    let url = format!("http://{address}/");
    let keyed = |key: &str| HttpConfig { headers: vec![("Key".into(), key.into())], ..sharing(&url, CACHE) };
    let configs = [("one".to_owned(), keyed("of-one-of-one")), ("two".to_owned(), keyed("of-two-of-two"))].into();
    let http = Http::new(&configs, None, Arc::default()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    for _ in 0..2 {
        for name in ["one", "two"] {
            let answer = http.send(&Asker::new(vec![name.to_owned()], 1), get(&url), deadline).await;
            assert_eq!(body(&answer), name.as_bytes());
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let stranger = http.send(&Asker::new(Vec::new(), 1), get(&url), deadline).await;
    assert!(matches!(stranger.result, Err(HttpError::Denied(_))) && !stranger.cached);
}

#[tokio::test]
async fn what_is_kept_is_bounded_in_bytes_and_the_oldest_goes_first() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok(&"x".repeat(900))).await;
    let url = format!("http://{address}/");
    let http = http(sharing(&url, CacheConfig { size: 16 << 10, ..CACHE }));
    for page in 0..100 {
        ask(&http, get(format!("{url}{page}"))).await;
    }
    let kept = |http: &Http| http.apis["api"].kept_bytes();
    assert!(kept(&http) <= 16 << 10, "{}", kept(&http));
    assert!(kept(&http) > 8 << 10, "{}", kept(&http));
    assert!(ask(&http, get(format!("{url}99"))).await.cached);
    assert!(!ask(&http, get(format!("{url}0"))).await.cached);
    assert_eq!(count.load(Ordering::SeqCst), 101);
    // One that is larger than the whole cache is an answer all the same.
    let http = super::http(sharing(&url, CacheConfig { size: 1000, ..CACHE }));
    for _ in 0..2 {
        assert!(!ask(&http, get(&url)).await.cached);
    }
}

/// What two hosts share, in a test's memory.
#[derive(Default)]
struct Board {
    entries: Mutex<HashMap<String, (Bytes, Duration)>>,
    /// What every look-up gets in place of what is there.
    planted: Option<Bytes>,
}

#[async_trait]
impl SharedAnswers for Board {
    async fn get(&self, key: &Key) -> Option<(Bytes, Duration)> {
        match &self.planted {
            Some(planted) => Some((planted.clone(), LONG)),
            None => self.entries.lock().unwrap().get(&key.to_string()).cloned(),
        }
    }

    async fn put(&self, key: &Key, entry: Bytes, life: Duration) {
        self.entries.lock().unwrap().insert(key.to_string(), (entry, life));
    }
}

fn host(config: HttpConfig, board: &Arc<Board>) -> Http {
    let board: Arc<dyn SharedAnswers> = Arc::clone(board) as _;
    Http::new(&[("api".to_owned(), config)].into(), Some(board), Arc::default()).unwrap()
}

#[tokio::test]
async fn what_one_host_asked_another_need_not_and_no_secret_is_shared() {
    let (address, count) = counting_server(Duration::ZERO, |request| {
        assert!(request.contains("s3cret-s3cret"));
        ok(request)
    })
    .await;
    let url = format!("http://{address}/");
    let board = Arc::new(Board::default());
    let first = ask(&host(sharing(&url, CACHE), &board), get(&url)).await;
    let second = ask(&host(sharing(&url, CACHE), &board), get(&url)).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(!first.cached && second.cached && first.result == second.result);
    // Another key of the operator's makes no other question.
    let rotated = HttpConfig { headers: vec![("Key".into(), "an0ther-key".into())], ..sharing(&url, CACHE) };
    assert!(ask(&host(rotated, &board), get(&url)).await.cached);
    let entries = board.entries.lock().unwrap();
    assert_eq!(entries.len(), 1);
    for (key, (entry, life)) in &*entries {
        assert!(key.len() == 64 && !String::from_utf8_lossy(entry).contains("s3cret"), "{key}: {entry:?}");
        assert!(*life <= LONG && *life > LONG - Duration::from_secs(5));
    }
}

#[tokio::test]
async fn failures_are_not_shared_and_what_is_planted_is_passed_over() {
    let url = {
        let address = server(|_| "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".into()).await;
        format!("http://{address}/")
    };
    let board = Arc::new(Board::default());
    ask(&host(sharing(&url, CACHE), &board), get(&url)).await;
    assert!(board.entries.lock().unwrap().is_empty());
    let large = Response { status: 200, headers: Vec::new(), body: vec![0; 1001] };
    for planted in [Bytes::from_static(b"nonsense"), super::super::shared::write(&large).unwrap()] {
        let board = Arc::new(Board { planted: Some(planted), ..Board::default() });
        assert_eq!(ask(&host(sharing(&url, CACHE), &board), get(&url)).await.result.unwrap().status, 500);
    }
}

#[tokio::test]
async fn where_answers_came_from_is_counted() {
    let (address, _) = counting_server(MOMENT, |_| ok("")).await;
    let url = format!("http://{address}/");
    let telemetry = Arc::new(crate::telemetry::Telemetry::default());
    let board = Arc::new(Board::default());
    let host = || {
        let board: Arc<dyn SharedAnswers> = Arc::clone(&board) as _;
        Http::new(&[("api".to_owned(), sharing(&url, CACHE))].into(), Some(board), Arc::clone(&telemetry)).unwrap()
    };
    let first = host();
    tokio::join!(ask(&first, get(&url)), ask(&first, get(&url)));
    ask(&first, get(&url)).await;
    ask(&host(), get(&url)).await;
    let metrics = telemetry.scrape();
    for source in ["api", "in-flight", "memory", "shared"] {
        let sample = format!("dossier_http_answers_total{{api=\"api\",source=\"{source}\"}} 1\n");
        assert!(metrics.contains(&sample), "{source}: {metrics}");
    }
    assert!(metrics.contains("dossier_http_request_wait_seconds_count{api=\"api\"} 1\n"), "{metrics}");
}
