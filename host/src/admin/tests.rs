use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::telemetry::alarms::Kind;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

struct Server {
    address: SocketAddr,
    health: Arc<Health>,
    telemetry: Arc<Telemetry>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn server(connections: usize, patience: Duration) -> Server {
    server_of(connections, patience, None).await
}

async fn server_of(connections: usize, patience: Duration, token: Option<Token>) -> Server {
    server_with(connections, patience, token, Redactor::default()).await
}

async fn server_with(connections: usize, patience: Duration, token: Option<Token>, redactor: Redactor) -> Server {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (health, shutdown) = (Arc::new(Health::default()), CancellationToken::new());
    let telemetry = Arc::<Telemetry>::default();
    let admin = Admin {
        telemetry: Arc::clone(&telemetry),
        health: Arc::clone(&health),
        parts: Parts::default(),
        token,
        redactor,
    };
    let router = router(admin);
    let task = tokio::spawn(serve_bounded(listener, router, shutdown.clone(), connections, patience));
    Server { address, health, telemetry, shutdown, task }
}

impl Server {
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    /// Status, head and body.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let stream = self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        answer_on(stream).await
    }
}

async fn answer_on(mut stream: TcpStream) -> (u16, String, String) {
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text)).await.expect("answers").expect("readable");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn each_path_says_what_it_is_for() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let (status, head, body) = server.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (status, _, body) = server.get("/healthz").await;
    assert_eq!(status, 200);
    assert!(
        body.starts_with(concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"uptime_seconds\":")),
        "{body}"
    );
    let (status, _, body) = server.get("/").await;
    assert_eq!(status, 200);
    assert!(["/metrics", "/healthz", "/readyz"].iter().all(|path| body.contains(path)), "{body}");
    assert_eq!(server.get("/metrics/x").await.0, 404);
}

#[tokio::test]
async fn the_host_is_ready_only_while_nothing_is_missing() {
    let server = server(CONNECTIONS, PATIENCE).await;
    assert_eq!(server.get("/readyz").await.0, 200);
    server.health.set("step \"geo\"", Some("plugin is\nabsent".to_owned()));
    let (status, head, body) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, "{\"ready\":false,\"problems\":{\"step \\\"geo\\\"\":\"plugin is\\nabsent\"}}\n");
    assert!(server.get("/metrics").await.2.contains("dossier_ready 0\n"));
    server.health.set("step \"geo\"", None);
    let (status, _, body) = server.get("/readyz").await;
    assert_eq!((status, body.as_str()), (200, "{\"ready\":true,\"problems\":{}}\n"));
    assert!(server.get("/metrics").await.2.contains("dossier_ready 1\n"));
}

#[tokio::test]
async fn nothing_but_reading_is_answered_and_a_body_is_not_waited_for() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let post = server.send("POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999999\r\n\r\n").await;
    assert_eq!(answer_on(post).await.0, 405);
    let get = server.send("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n").await;
    assert_eq!(answer_on(get).await.0, 200);
    let long = server.send(&format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(20 << 10))).await;
    assert_eq!(answer_on(long).await.0, 431);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_let_go() {
    let server = server(CONNECTIONS, Duration::from_millis(50)).await;
    let mut slow = server.send("GET /healthz HT").await;
    let mut rest = Vec::new();
    let _ = timeout(LONG, slow.read_to_end(&mut rest)).await.expect("is let go");
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn more_slow_clients_than_there_is_room_for_do_not_keep_others_out() {
    let server = server(3, LONG).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(server.send("GET /hea").await);
    }
    assert_eq!(timeout(LONG, server.get("/healthz")).await.expect("answers").0, 200);
    let mut rest = Vec::new();
    let _ = timeout(LONG, slow[0].read_to_end(&mut rest)).await.expect("the oldest is let go");
}

#[tokio::test]
async fn a_shutdown_ends_the_server_even_with_a_slow_client() {
    let server = server(CONNECTIONS, LONG).await;
    let _slow = server.send("GET /hea").await;
    assert_eq!(server.get("/healthz").await.0, 200);
    server.shutdown.cancel();
    timeout(LONG / 2, server.task).await.expect("ends").expect("well");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_the_key_to_change() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let error = bind(server.address).await.expect_err("taken").to_string();
    assert!(error.contains(&server.address.to_string()) && error.contains("address in [admin]"), "{error}");
}

#[tokio::test]
async fn who_asks_a_host_how_it_is_gets_what_readyz_says_and_is_told_where_there_is_no_host() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let client = Client::of(server.address, None).expect("an address");
    server.telemetry.raise(Kind::TableRefused, "geo", "line 3: no key");
    server.telemetry.raise(Kind::EntriesLost, "", "three");
    let notices = [("table-refused geo", "line 3: no key"), ("entries-lost", "three")];
    let notices = notices.map(|(part, what)| (part.to_owned(), what.to_owned())).into();
    let ready = client.ready().await.expect("it answers");
    assert_eq!(ready, Ready { ready: true, problems: BTreeMap::new(), notices, alarms: 2 });
    server.health.set("plugins", Some("geo is missing".to_owned()));
    assert_eq!(client.ready().await.expect("it answers").problems["plugins"], "geo is missing");
    server.shutdown.cancel();
    server.task.await.expect("it ends");
    let error = client.ready().await.expect_err("nobody is there").to_string();
    assert!(error.contains(&format!("no host answers at {}: connection refused", server.address)), "{error}");
    assert!(error.contains("dossier run") && error.contains("--address"), "{error}");
}

#[test]
fn an_address_is_taken_as_people_write_it() {
    for (written, shown) in [
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("http://localhost:1/", "localhost:1"),
        ("https://dossier.example.org", "https://dossier.example.org"),
    ] {
        assert_eq!(Client::new(written, None).expect("an address").at(), shown);
    }
    let unspecified = "0.0.0.0:9464".parse().expect("an address");
    assert_eq!(Client::of(unspecified, None).expect("an address").at(), "127.0.0.1:9464");
    for wrong in ["", "ftp://a", "http://", "a b", "http://a/?b"] {
        assert!(matches!(Client::new(wrong, None), Err(AskError::Address(_))), "{wrong}");
    }
}

#[tokio::test]
async fn with_a_token_nothing_but_healthz_answers_without_it() {
    let token = || Token::new("0123456789abcdef".to_owned()).expect("a token");
    let server = server_of(CONNECTIONS, PATIENCE, Some(token())).await;
    assert_eq!(server.get("/healthz").await.0, 200);
    for path in ["/", "/metrics", "/readyz", "/api/v1/status", "/api/v1/tap", "/api/v1/openapi.json", "/nothing"] {
        let (status, head, body) = server.get(path).await;
        assert_eq!(status, 401, "{path}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(body.contains("token") && !body.contains("0123456789abcdef"), "{body}");
        let known = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer 0123456789abcdef\r\n\r\n");
        if path != "/api/v1/tap" {
            assert_ne!(answer_on(server.send(&known).await).await.0, 401, "{path}");
        }
    }
    let stranger = Client::of(server.address, None).expect("an address");
    assert!(matches!(stranger.ready().await, Err(AskError::Token { .. })));
    let friend = Client::of(server.address, Some(token())).expect("an address");
    assert!(friend.ready().await.is_ok());
}

#[tokio::test]
async fn a_page_that_was_lured_here_under_another_name_is_not_answered() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let named = |path: &str, name: &str| format!("GET {path} HTTP/1.1\r\nhost: {name}\r\n\r\n");
    for path in ["/", "/metrics", "/readyz", "/api/v1/events", "/nothing"] {
        let (status, _, body) = answer_on(server.send(&named(path, "evil.example:9464")).await).await;
        assert!(status == 403 && body.contains("token in [admin]"), "{path}: {status} {body}");
        for own in ["localhost:9464", "192.0.2.1:9464", "[2001:db8::1]"] {
            let (status, _, _) = answer_on(server.send(&named(path, own)).await).await;
            assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{path} as {own}");
        }
    }
    // What restarts a host asks it under any name.
    assert_eq!(answer_on(server.send(&named("/healthz", "evil.example:9464")).await).await.0, 200);
    let token = Token::new("0123456789abcdef".to_owned()).expect("a token");
    let closed = server_of(CONNECTIONS, PATIENCE, Some(token)).await;
    let known = "GET /metrics HTTP/1.1\r\nhost: dossier.example.org\r\nauthorization: Bearer 0123456789abcdef\r\n\r\n";
    assert_eq!(answer_on(closed.send(known).await).await.0, 200, "no page of a stranger knows the token");
}

#[tokio::test]
async fn more_alarms_than_are_listed_are_counted() {
    let server = server(CONNECTIONS, PATIENCE).await;
    for at in 0..250 {
        server.telemetry.raise(Kind::SourceSilent, &format!("sensor-{at}"), "since noon");
    }
    let ready = Client::of(server.address, None).expect("an address").ready().await.expect("it answers");
    assert_eq!((ready.notices.len(), ready.alarms), (200, 250));
    let alarms: serde_json::Value = serde_json::from_str(&server.get("/api/v1/alarms").await.2).expect("JSON");
    assert_eq!((alarms["alarms"].as_array().map(Vec::len), alarms["total"].as_u64()), (Some(200), Some(250)));
}

#[tokio::test]
async fn while_the_host_starts_the_api_says_so() {
    let server = server(CONNECTIONS, PATIENCE).await;
    for path in ["status", "steps", "dead-letters", "tables"] {
        let path = format!("GET /api/v1/{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let (status, _, body) = answer_on(server.send(&path).await).await;
        assert_eq!(status, 503, "{path}");
        assert!(body.contains("the host is starting"), "{body}");
    }
    let client = Client::of(server.address, None).expect("an address");
    let asked = client.get::<api::report::Status>("/api/v1/status").await;
    assert!(matches!(asked, Err(AskError::Starting { .. })), "{asked:?}");
}

/// Something that is tapped.
fn offer(server: &Server, line: &str) {
    server.telemetry.taps().offer(|_| true, || line.as_bytes().to_vec());
}

#[tokio::test]
async fn a_tap_outlives_the_patience_for_others_and_makes_place_for_nobody() {
    let server = server(3, Duration::from_millis(200)).await;
    let client = Client::of(server.address, None).expect("an address");
    let mut lines = client.lines("/api/v1/tap?limit=2").await.expect("it begins");
    offer(&server, "{\n\"record\":1}");
    let next = timeout(LONG, lines.next()).await.expect("comes").expect("a line").expect("it goes on");
    assert_eq!(next, "{ \"record\":1}", "one line");
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(server.send("GET /hea").await);
    }
    // By then all others were let go.
    let _ = timeout(LONG, slow[9].read_to_end(&mut Vec::new())).await.expect("is let go");
    offer(&server, "{\"record\":2}");
    let next = timeout(LONG, lines.next()).await.expect("comes").expect("a line").expect("it goes on");
    assert_eq!(next, "{\"record\":2}");
    assert!(timeout(LONG, lines.next()).await.expect("ends").is_none(), "two were wanted");
}

#[tokio::test]
async fn a_tap_that_begins_while_the_host_starts_shows_nothing_that_must_not_be_shown() {
    let redactor = Redactor::new(&["/user".to_owned()]);
    let server = server_with(CONNECTIONS, PATIENCE, None, redactor).await;
    let client = Client::of(server.address, None).expect("an address");
    let mut lines = client.lines("/api/v1/tap?limit=1").await.expect("it begins");
    offer(&server, r#"{"record":{"id":"jdoe-1","alert":{"user":"jdoe"}}}"#);
    let next = timeout(LONG, lines.next()).await.expect("comes").expect("a line").expect("it goes on");
    assert_eq!(next, r#"{"record":{"alert":{"user":"[redacted]"},"id":"[redacted]-1"}}"#);
}

#[tokio::test]
async fn no_more_than_so_many_tap_and_who_leaves_makes_place() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let client = Client::of(server.address, None).expect("an address");
    let mut taps = Vec::new();
    for _ in 0..crate::telemetry::tap::TAPS {
        taps.push(client.lines("/api/v1/tap").await.expect("it begins"));
    }
    let refused = client.lines("/api/v1/tap").await.map(drop).expect_err("there are enough").to_string();
    assert!(refused.contains("4 look on already"), "{refused}");
    assert!(server.get("/metrics").await.0 == 200, "others are answered");
    taps.clear();
    let again = async {
        while client.lines("/api/v1/tap").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.expect("there is place again");
    let wrong = client.lines("/api/v1/tap?step=geo").await.map(drop).expect_err("no such step").to_string();
    assert!(wrong.contains("there is no step \"geo\""), "{wrong}");
}

#[tokio::test]
async fn the_description_names_every_path_that_answers_and_no_other() {
    let server = server(CONNECTIONS, PATIENCE).await;
    let client = Client::of(server.address, None).expect("an address");
    let description: serde_json::Value = client.get("/api/v1/openapi.json").await.expect("a description");
    assert_eq!(description["openapi"], "3.1.0");
    let paths: Vec<_> = description["paths"].as_object().expect("paths").keys().cloned().collect();
    for path in &paths {
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        if path != "/api/v1/tap" {
            assert_ne!(answer_on(server.send(&request).await).await.0, 404, "{path}");
        }
    }
    let (_, _, index) = server.get("/").await;
    for path in &paths {
        assert!(index.contains(path.rsplit('/').next().expect("a name")), "{path} is not in {index}");
    }
}
