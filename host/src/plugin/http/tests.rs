//! Against real servers on the loopback address.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::address::Resolver;
use super::api::{MAX_BODY, MAX_HEADER_BYTES, MAX_HEADERS, MAX_RESPONSE_HEADER_BYTES, MAX_RESPONSE_HEADERS};
use super::*;

mod network;
mod sharing;
mod turns;

/// A server that answers every connection's first request with what `answer` makes of it, and closes.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let request = read_request(&mut stream).await;
                let _ = stream.write_all(answer(&request).as_bytes()).await;
            });
        }
    });
    address
}

/// A server that counts its requests and takes a moment for each.
async fn counting_server(
    delay: Duration,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
            tokio::spawn(async move {
                let request = read_request(&mut stream).await;
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(delay).await;
                let _ = stream.write_all(answer(&request).as_bytes()).await;
            });
        }
    });
    (address, count)
}

/// The request's head and as much of the body as came with it.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// One interface, `api`, that may be at a private address.
fn config(url: &str) -> HttpConfig {
    HttpConfig {
        url: Url::parse(url).unwrap(),
        headers: vec![("Key".into(), "s3cret-s3cret".into())],
        private: true,
        max_response: 1000,
        concurrency: 8,
        rate: None,
        cache: None,
    }
}

fn http(config: HttpConfig) -> Http {
    Http::new(&[("api".to_owned(), config)].into(), None, Arc::default()).unwrap()
}

fn get(url: impl Into<String>) -> Request {
    Request { method: "GET".into(), url: url.into(), headers: Vec::new(), body: None, timeout: None }
}

/// A step that may ask `api`.
fn asker() -> Asker {
    Asker::new(vec!["api".to_owned()], 8)
}

async fn send(http: &Http, request: Request) -> Result<Response, HttpError> {
    send_within(http, request, Duration::from_secs(10)).await
}

async fn send_within(http: &Http, request: Request, time: Duration) -> Result<Response, HttpError> {
    http.send(&asker(), request, Instant::now() + time).await.result
}

#[track_caller]
fn assert_denied(result: Result<Response, HttpError>, says: &str) {
    match result {
        Err(HttpError::Denied(why)) => assert!(why.contains(says), "{why}"),
        other => panic!("not denied: {other:?}"),
    }
}

#[tokio::test]
async fn a_granted_request_gets_its_answer_whatever_the_status() {
    let address = server(|request| {
        assert!(request.starts_with("POST /check?ip=192.0.2.1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("x-mine: 1\r\n") && request.contains("content-length: 4\r\n"), "{request}");
        assert!(!request.contains("referer") && !request.contains("cookie"), "{request}");
        "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nno".into()
    })
    .await;
    let http = http(config(&format!("http://{address}")));
    let request = Request {
        method: "POST".into(),
        headers: vec![("X-Mine".into(), "1".into())],
        body: Some(b"body".to_vec()),
        ..get(format!("http://{address}/check?ip=192.0.2.1#fragment"))
    };
    let response = send(&http, request).await.unwrap();
    assert_eq!((response.status, response.body.as_slice()), (429, b"no".as_slice()));
    let headers: BTreeMap<_, _> = response.headers.into_iter().collect();
    assert_eq!(headers["retry-after"], "7");
    assert_eq!(headers["content-encoding"], "gzip", "what is compressed stays compressed");
    assert!(!headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn credentials_are_sent_and_an_echo_of_them_is_not_seen() {
    let address = server(|request| {
        assert!(request.contains("key: s3cret-s3cret\r\n"), "{request}");
        let body = format!("you sent s3cret-s3cret: {request}");
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nx-echo: s3cret-s3cret!\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    })
    .await;
    let http = http(config(&format!("http://{address}")));
    let response = send(&http, get(format!("http://{address}/"))).await.unwrap();
    assert!(!format!("{:?}", response.headers).contains("s3cret"));
    assert!(response.headers.contains(&("x-echo".into(), "*************!".into())));
    let body = String::from_utf8(response.body).unwrap();
    assert!(body.starts_with("you sent *************: GET") && !body.contains("s3cret"), "{body}");
    // What the host sets, a plugin can neither replace nor add to.
    for name in ["key", "KEY", "Host", "content-length", "Transfer-Encoding", "Connection", "Proxy-Authorization"] {
        let request = Request { headers: vec![(name.into(), "mine".into())], ..get(format!("http://{address}/")) };
        assert!(matches!(send(&http, request).await, Err(HttpError::Invalid(_))), "{name}");
    }
}

#[tokio::test]
async fn what_is_not_granted_is_denied_with_what_to_grant() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let address = server(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        ok("")
    })
    .await;
    let http = http(config(&format!("http://{address}/api/")));
    for path in ["", "other", "api2", "api/../other", "api/%2e%2e/other", "api/..%2fother"] {
        assert_denied(send(&http, get(format!("http://{address}/{path}"))).await, "granted by no [http.NAME]");
    }
    assert_denied(send(&http, get(format!("https://{address}/api/"))).await, "granted by no");
    assert_denied(send(&http, get("http://127.0.0.1:1/api/")).await, "http://127.0.0.1:1 with this path");
    let nothing = http
        .send(
            &Asker::new(Vec::new(), 8),
            get(format!("http://{address}/api/")),
            Instant::now() + Duration::from_secs(9),
        )
        .await
        .result;
    assert_denied(nothing, "http \"api\", which is not granted; add it to http");
    assert_eq!(hits.load(Ordering::SeqCst), 0);
    assert_eq!(send(&http, get(format!("http://{address}/api/x"))).await.unwrap().status, 200);
    assert_eq!(hits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_private_address_is_refused_as_a_literal_and_behind_a_name() {
    let address = server(|_| ok("in")).await;
    for host in ["127.0.0.1", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", address.port());
        let refusing = http(HttpConfig { private: false, ..config(&url) });
        assert_denied(send(&refusing, get(&url)).await, "add private = true to [http.api]");
        if host != "[::ffff:127.0.0.1]" {
            let allowing = http(config(&url));
            assert_eq!(send(&allowing, get(&url)).await.unwrap().body, b"in", "{host}");
        }
    }
}

#[tokio::test]
async fn a_wrong_request_is_invalid_and_its_bounds_are_obeyed_and_violated() {
    let address = server(|_| ok("")).await;
    let http = http(config(&format!("http://{address}")));
    let url = format!("http://{address}/");
    let header = |name: &str, value: String| (name.to_owned(), value);
    let invalid = [
        get("/relative"),
        get("ftp://127.0.0.1/"),
        get(format!("http://user:pass@{address}/")),
        get(format!("{url}{}", "x".repeat(MAX_URL))),
        Request { method: "DELETE".into(), ..get(&url) },
        Request { method: "get".into(), ..get(&url) },
        Request { method: "CONNECT".into(), ..get(&url) },
        Request { headers: vec![header("a b", String::new())], ..get(&url) },
        Request { headers: vec![header("a", "x\r\nHost: y".into())], ..get(&url) },
        Request { headers: vec![header("a", "x".into()); MAX_HEADERS + 1], ..get(&url) },
        Request { headers: vec![header("a", "x".repeat(MAX_HEADER_BYTES))], ..get(&url) },
        Request { method: "PUT".into(), body: Some(vec![0; MAX_BODY + 1]), ..get(&url) },
    ];
    for request in invalid {
        let result = send(&http, request.clone()).await;
        assert!(matches!(result, Err(HttpError::Invalid(_))), "{result:?} for {} {:.60}", request.method, request.url);
    }
    let valid = [
        get(format!("{url}{}", "x".repeat(MAX_URL - url.len()))),
        Request { method: "HEAD".into(), headers: vec![header("a", "x".into()); MAX_HEADERS], ..get(&url) },
        Request { headers: vec![header("a", "x".repeat(MAX_HEADER_BYTES - 1))], ..get(&url) },
    ];
    for request in valid {
        assert_eq!(send(&http, request).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_body_of_64_kib_is_sent_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < MAX_BODY || !bytes.ends_with(b"end") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        stream.write_all(ok("").as_bytes()).await.unwrap();
    });
    let mut body = vec![b'x'; MAX_BODY];
    body[MAX_BODY - 3..].copy_from_slice(b"end");
    let request = Request { method: "PUT".into(), body: Some(body), ..get(&url) };
    assert_eq!(send(&http(config(&url)), request).await.unwrap().status, 200);
    served.await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let address = server(|request| {
        assert!(request.starts_with("GET / "), "{request}");
        "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".into()
    })
    .await;
    let url = format!("http://{address}/");
    let response = send(&http(config(&url)), get(&url)).await.unwrap();
    assert_eq!(response.status, 302);
    assert!(response.headers.contains(&("location".into(), "/other".into())));
}

#[tokio::test]
async fn the_length_of_a_response_is_obeyed_and_violated() {
    for (length, fits) in [(1000, true), (1001, false)] {
        let body = "x".repeat(length);
        let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        for answer in [ok(&body), chunked] {
            let address = server(move |_| answer.clone()).await;
            let url = format!("http://{address}/");
            match send(&http(config(&url)), get(&url)).await {
                Ok(response) => assert!(fits && response.body.len() == length),
                Err(error) => assert!(!fits && error == HttpError::TooLarge(1000), "{error:?}"),
            }
        }
    }
    for (count, fits) in [(MAX_RESPONSE_HEADERS - 5, true), (MAX_RESPONSE_HEADERS + 1, false)] {
        let headers = "x: y\r\n".repeat(count);
        let address = server(move |_| format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n")).await;
        let url = format!("http://{address}/");
        assert_eq!(send(&http(config(&url)), get(&url)).await.is_ok(), fits, "{count} headers");
    }
    let address = server(|_| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(MAX_RESPONSE_HEADER_BYTES))).await;
    let url = format!("http://{address}/");
    let error = send(&http(config(&url)), get(&url)).await.unwrap_err();
    assert_eq!(error, HttpError::TooLarge(MAX_RESPONSE_HEADER_BYTES as u64));
}

/// A server that hangs or drips, and a message when the other side has closed the connection.
async fn slow_server(drips: bool) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closed, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        if drips {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n").await.unwrap();
        }
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let mut byte = [0];
        loop {
            tokio::select! {
                read = stream.read(&mut byte) => if matches!(read, Ok(0) | Err(_)) { break },
                _ = interval.tick() => if drips && stream.write_all(b"x").await.is_err() { break },
            }
        }
        let _ = closed.send(());
    });
    (address, receiver)
}

#[tokio::test]
async fn an_api_that_hangs_or_drips_ends_at_the_deadline_and_its_socket_is_closed() {
    for drips in [false, true] {
        let (address, closed) = slow_server(drips).await;
        let url = format!("http://{address}/");
        let http = http(config(&url));
        let begun = Instant::now();
        assert_eq!(send_within(&http, get(&url), Duration::from_millis(300)).await, Err(HttpError::Timeout));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
        tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the socket is closed").unwrap();
    }
}

#[tokio::test]
async fn no_more_requests_run_at_once_than_allowed_and_waiting_counts() {
    let (address, closed) = slow_server(false).await;
    let url = format!("http://{address}/");
    let http = http(HttpConfig { concurrency: 1, ..config(&url) });
    let (first, second) = tokio::join!(
        send_within(&http, get(&url), Duration::from_millis(400)),
        // The server takes one connection only; this one never gets as far as to need another.
        send_within(&http, get(&url), Duration::from_millis(200)),
    );
    assert_eq!((first, second), (Err(HttpError::Timeout), Err(HttpError::Timeout)));
    closed.await.unwrap();
    assert_eq!(http.apis["api"].turns.free(), 1, "what timed out holds no permit");
}

#[tokio::test]
async fn an_api_that_is_not_there_or_breaks_off_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?secret=query", listener.local_addr().unwrap());
    drop(listener);
    let Err(HttpError::Unreachable(why)) = send(&http(config(&url.replace("?secret=query", ""))), get(&url)).await
    else {
        panic!("nobody listens")
    };
    assert!(why.contains("refused") && !why.contains("query"), "{why}");
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", "nonsense\r\n\r\n"] {
        let address = server(move |_| answer.into()).await;
        let url = format!("http://{address}/");
        let result = send(&http(config(&url)), get(&url)).await;
        assert!(matches!(result, Err(HttpError::Unreachable(_))), "{answer:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_has_passed_sends_nothing() {
    let url = "http://127.0.0.1:9/";
    let result = http(config(url)).send(&asker(), get(url), Instant::now() - Duration::from_millis(1)).await.result;
    assert_eq!(result, Err(HttpError::Timeout));
}

#[test]
fn every_interface_that_cannot_be_used_is_named_without_its_secrets() {
    let broken = || HttpConfig { headers: vec![("Key".into(), "hunter2\n".into())], ..config("http://127.0.0.1/") };
    let interfaces = [("one".to_owned(), broken()), ("two".to_owned(), broken())].into();
    let Err(error) = Http::new(&interfaces, None, Arc::default()) else { panic!("the header is invalid") };
    let text = error.to_string();
    assert!(text.contains("http \"one\"") && text.contains("http \"two\"") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn an_https_interface_speaks_tls_or_says_what_is_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(ok("plain").as_bytes()).await.unwrap();
    });
    match Http::new(&[("api".to_owned(), config(&url))].into(), None, Arc::default()) {
        Ok(http) => {
            let result = send(&http, get(&url)).await;
            assert!(
                matches!(result, Err(HttpError::Unreachable(_))),
                "an answer without TLS counts for nothing: {result:?}"
            );
        }
        // A machine without root certificates.
        Err(error) => {
            assert!(error.to_string().contains("http \"api\"") && error.to_string().contains("ca-certificates"))
        }
    }
}
