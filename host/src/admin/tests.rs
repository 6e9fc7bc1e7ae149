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
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (health, shutdown) = (Arc::new(Health::default()), CancellationToken::new());
    let telemetry = Arc::new(Telemetry::default());
    let router = router(Arc::clone(&telemetry), Arc::clone(&health));
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
        let stream = self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
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
    let post = server.send("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n").await;
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
async fn who_asks_a_host_how_it_is_gets_what_readyz_says_and_nothing_where_there_is_no_host() {
    let server = server(CONNECTIONS, PATIENCE).await;
    server.telemetry.raise(Kind::TableRefused, "geo", "line 3: no key");
    server.telemetry.raise(Kind::EntriesLost, "", "three");
    let notices = [("table-refused geo", "line 3: no key"), ("entries-lost", "three")];
    let notices = notices.map(|(part, what)| (part.to_owned(), what.to_owned())).into();
    assert_eq!(ask(server.address).await, Some(Ready { ready: true, problems: BTreeMap::new(), notices }));
    server.health.set("plugins", Some("geo is missing".to_owned()));
    assert_eq!(ask(server.address).await.expect("it answers").problems["plugins"], "geo is missing");
    server.shutdown.cancel();
    server.task.await.expect("it ends");
    assert_eq!(ask(server.address).await, None);
}
