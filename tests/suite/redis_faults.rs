//! Faults of Redis, of the way to it and of what is in it: a host process that works, a redis-server of the test's own, and alerts
//! that keep coming.

mod cluster;
mod connection;
mod sentinel;
mod server;
mod stream;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dossier_tests::host::{Host, Site, field, wait_for};
use dossier_tests::redis_server::RedisServer;
use rustix::process::Signal;

/// A site without plugins: what is tested is the way of an alert, not the work on it. `more` goes below `[queue]`.
fn site(url: &str, more: &str) -> Site {
    Site::new(&format!("[queue]\nkind = \"redis\"\nurl = \"{url}\"\n{more}\n"))
}

/// Starts a host and waits until it takes alerts.
fn start(site: &Site) -> Host {
    let host = site.start();
    host.admin();
    host
}

/// A client's connection that no server can hold for ever.
fn connect(url: &str) -> redis::RedisResult<redis::Connection> {
    let connection = redis::Client::open(url)?.get_connection_with_timeout(Duration::from_millis(500))?;
    connection.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(connection)
}

/// A producer in a thread of its own, about five hundred alerts a second. It knows which of them the server confirmed.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

/// What a producer sends.
struct Producing {
    /// How its alerts' ids begin.
    name: &'static str,
    stream: &'static str,
    /// So many bytes beside each alert's id.
    size: usize,
    /// What so many replicas have is confirmed.
    replicas: u32,
}

impl Default for Producing {
    fn default() -> Self {
        Self { name: "load", stream: "alerts", size: 10, replicas: 0 }
    }
}

impl Load {
    /// Begins with small alerts.
    fn on(server: &RedisServer) -> Self {
        let url = server.url();
        Self::begin(Producing::default(), move || connect(&url))
    }

    /// Begins; makes a new connection after each trouble.
    fn begin(
        what: Producing,
        mut connect: impl FnMut() -> redis::RedisResult<redis::Connection> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut confirmed, mut connection) = (Vec::new(), None);
            let filling = "x".repeat(what.size);
            let mut next = 0;
            while !ended.load(Ordering::Acquire) {
                let ids: Vec<_> = (next..next + 5).map(|n| format!("{}-{n}", what.name)).collect();
                next += 5;
                let mut pipeline = redis::pipe();
                for id in &ids {
                    let alert = format!("{{\"id\":\"{id}\",\"filling\":\"{filling}\"}}");
                    pipeline.cmd("XADD").arg(what.stream).arg("*").arg("alert").arg(alert).ignore();
                }
                pipeline.cmd("WAIT").arg(what.replicas).arg(400);
                if let Some(mut open) = connection.take().or_else(|| connect().ok())
                    && let Ok([replicas]) = pipeline.query::<[u32; 1]>(&mut open)
                {
                    if replicas >= what.replicas {
                        confirmed.extend(ids);
                    }
                    connection = Some(open);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            confirmed
        });
        Self { stop, thread }
    }

    /// Ends; gives the ids that the server confirmed. Those that it did not may be there or not.
    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("a producer does not panic")
    }
}

/// How many entries a stream has.
fn length(server: &RedisServer, stream: &str) -> u64 {
    server.ask(&["XLEN", stream]).expect("the server answers")
}

/// How many entries the group has pending.
fn pending(server: &RedisServer) -> u64 {
    let summary: (u64, redis::Value, redis::Value, redis::Value) =
        server.ask(&["XPENDING", "alerts", "dossier"]).expect("the server answers");
    summary.0
}

/// Waits until so many more alerts are stored than there are; gives how long it took.
fn stored_more(server: &RedisServer, more: u64) -> Duration {
    let began = Instant::now();
    let goal = length(server, "alerts:enriched") + more;
    wait_for("more alerts to be stored", || (length(server, "alerts:enriched") >= goal).then_some(()));
    began.elapsed()
}

/// Waits until the stream is empty.
fn drained(server: &RedisServer) {
    wait_for("the queue to be empty", || (server.ask::<u64>(&["XLEN", "alerts"]).ok()? == 0).then_some(()));
}

/// How often each id is stored.
fn stored(server: &RedisServer, store: &str) -> BTreeMap<String, u32> {
    let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> =
        server.ask(&["XRANGE", store, "-", "+"]).expect("the store can be read");
    let mut times = BTreeMap::new();
    for (_, fields) in entries {
        *times.entry(String::from_utf8_lossy(&fields["id"]).into_owned()).or_default() += 1;
    }
    times
}

/// Checks that each of these is stored, and that nothing is twice.
fn assert_stored_once(server: &RedisServer, store: &str, ids: &[String]) {
    let times = stored(server, store);
    let missing: Vec<_> = ids.iter().filter(|id| !times.contains_key(*id)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} are missing: {:?}",
        missing.len(),
        ids.len(),
        &missing[..missing.len().min(5)]
    );
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "stored more than once: {twice:?}");
}

/// How many lines with this message a host wrote.
fn said(host: &Host, message: &str) -> usize {
    host.log().iter().filter(|line| field(line, "message").is_some_and(|said| said == message)).count()
}

/// The line with this message that came first, once there is one.
fn line(host: &Host, message: &str) -> serde_json::Value {
    wait_for(message, || host.log().into_iter().find(|line| field(line, "message").is_some_and(|said| said == message)))
}

/// A sample of a host's metrics: the name with its labels, as it is written.
fn metric(host: &Host, name: &str) -> f64 {
    let (_, text) = host.get("/metrics");
    let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Waits until a host is ready, or not; gives what it says then.
fn until_ready(host: &Host, ready: bool) -> String {
    wait_for(if ready { "the host to be ready" } else { "the host not to be ready" }, || {
        let (status, body) = host.get("/readyz");
        ((status == 200) == ready).then_some(body)
    })
}

/// Sends alerts with these ids.
fn send(server: &RedisServer, ids: impl IntoIterator<Item = String>) {
    let mut pipeline = redis::pipe();
    for id in ids {
        pipeline.cmd("XADD").arg("alerts").arg("*").arg("alert").arg(format!("{{\"id\":\"{id}\"}}")).ignore();
    }
    pipeline.exec(&mut server.connection().expect("the server runs")).expect("the server takes alerts");
}

/// Ids of a test's own.
fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}-{n}")).collect()
}

/// Stops a host, with its connections open and no read that waits at the server.
fn stop_between_reads(server: &RedisServer, host: &Host) {
    host.signal(Signal::STOP);
    wait_for("no read to wait", || {
        let clients: String = server.ask(&["CLIENT", "LIST"]).expect("the server answers");
        (!clients.contains("flags=b")).then_some(())
    });
}

/// Sends up to eight alerts and makes a host hold all of them: it reads them and cannot store them, for the server is out of memory
/// from here on.
fn held(server: &RedisServer, host: &Host, ids: &[String]) {
    // A read that waits already would take one alone, and nothing would be read after the first commit that is refused.
    stop_between_reads(server, host);
    send(server, ids.iter().cloned());
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).expect("CONFIG SET");
    host.signal(Signal::CONT);
    wait_for("the host to hold them", || (pending(server) == ids.len() as u64).then_some(()));
    until_ready(host, false);
}
