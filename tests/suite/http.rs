//! HTTP from end to end: look-ups that are shared, failures that are not repeated too soon, time that a plugin gives itself,
//! and a secret that no plugin sees.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dossier::config::RedisConfig;
use dossier::plugin::http::{Key, SharedAnswers as _};
use dossier::queue::redis::RedisAnswers;
use dossier::telemetry::Telemetry;
use dossier_tests::host::Site;
use dossier_tests::redis_server::RedisServer;
use dossier_tests::threat_api::ThreatApi;
use serde_json::{Value, json};

use crate::queues::{Kind, both};

/// What the API is sent, and nobody else may see.
const SECRET: &str = "dOssier/s3cret+7f2b9c41e8d05a63";

/// A site that asks the API about addresses.
fn asking(kind: &Kind, api: &ThreatApi, more: &str) -> Site {
    let url = api.url();
    let site = Site::new(&format!(
        r#"{}
[http.threats]
url = "{url}/api/v2/"
private = true
headers = {{ Key = "{SECRET}" }}
{more}
[[step]]
plugin = "ip-reputation"
http = ["threats"]
retries = 2
timeout = "20s"
settings = {{ api = {{ url = "{url}" }} }}
"#,
        kind.config()
    ));
    site.install("ip-reputation");
    site
}

/// Alerts with one source address, each with its own id.
fn alerts(range: std::ops::Range<u32>) -> Vec<u8> {
    let line = |n| json!({ "id": format!("alert-{n}"), "src_ip": "185.220.101.34", "dest_ip": "10.0.0.5" }).to_string();
    range.map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

fn cached(record: &Value) -> bool {
    record["pipeline"]["steps"][0]["cached"].as_bool().expect("cached is said")
}

#[test]
fn a_thousand_alerts_with_one_address_make_one_request() {
    both(|kind| {
        // Slow enough that many alerts ask before there is an answer.
        let api = ThreatApi::start(&["--key", SECRET, "--delay", "100ms"]);
        let site = asking(kind, &api, "");
        site.send(&alerts(0..1000));
        site.succeed(&["run", "--until-empty"]);
        let records = kind.records(&site);
        assert_eq!(records.len(), 1000);
        assert_eq!(api.asked(), 1);
        for record in &records {
            let address = &record["enrichment"]["ip-reputation"]["addresses"][0];
            assert_eq!((&address["address"], &address["api"]["score"]), (&json!("185.220.101.34"), &json!(100)));
        }
        assert_eq!(records.iter().filter(|record| !cached(record)).count(), 1, "all but the one that asked");
    });
}

#[test]
fn two_hosts_on_one_redis_make_one_request_and_leave_no_secret_there() {
    let kind = Kind::Redis(RedisServer::start().expect("redis-server starts"));
    let Kind::Redis(server) = &kind else { unreachable!("made above") };
    let api = ThreatApi::start(&["--key", SECRET]);
    for host in 0..2 {
        let site = asking(&kind, &api, "");
        site.send(&alerts(host * 100..(host + 1) * 100));
        site.succeed(&["run", "--until-empty"]);
        assert_eq!(api.asked(), 1, "host {host}");
        if host == 1 {
            let records = kind.records(&site);
            assert_eq!(records.len(), 200);
            assert_eq!(records.iter().filter(|record| !cached(record)).count(), 1);
        }
    }
    let keys: Vec<String> = server.ask(&["KEYS", "alerts:http:*"]).expect("the keys");
    assert_eq!(keys.len(), 1, "{keys:?}");
    let left: i64 = server.ask(&["PTTL", &keys[0]]).expect("a life");
    assert!(left > 0 && left <= 300_000, "{left}");
    let entry: Vec<u8> = server.ask(&["GET", &keys[0]]).expect("an entry");
    let text = String::from_utf8_lossy(&entry);
    assert!(text.contains("abuseConfidenceScore") && !text.contains(SECRET) && !keys[0].contains(SECRET), "{text}");
}

#[test]
fn every_retry_after_a_failure_is_a_request_of_its_own() {
    let api = ThreatApi::start(&["--fail", "503"]);
    let site = asking(&Kind::Directory, &api, "cache_failures = \"1s\"");
    site.send(&alerts(0..1));
    let begun = Instant::now();
    site.succeed(&["run", "--until-empty"]);
    // It is called three times, and not before the failure that is known is over.
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(api.asked(), 3);
    let dead = Kind::Directory.dead(&site);
    assert_eq!((dead.len(), dead[0].0.as_str()), (1, "unavailable"));
}

#[test]
fn alerts_whose_api_is_over_its_rate_wait_and_none_is_lost() {
    let api = ThreatApi::start(&["--key", SECRET]);
    let site = asking(&Kind::Directory, &api, "cache = \"off\"\nrate = \"50/s\"\nburst = 5");
    site.send(&alerts(0..55));
    let begun = Instant::now();
    site.succeed(&["run", "--until-empty"]);
    assert!(begun.elapsed() >= Duration::from_millis(980), "{:?}", begun.elapsed());
    let records = Kind::Directory.records(&site);
    assert_eq!((records.len(), api.asked()), (55, 55));
    assert!(records.iter().all(|record| !cached(record) && record["pipeline"]["steps"][0]["attempts"] == 1));
}

/// A server that gives back what it was sent, in every spelling that servers have; and what it was sent.
fn echo() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let heads = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                bytes.push(byte[0]);
            }
            let head = String::from_utf8(bytes).expect("a head is text");
            seen.lock().expect("nobody panicked").push_str(&head);
            let body = [head.clone(), STANDARD.encode(&head), percent(&head), "found-by-the-search".into()].join("\n");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nx-echo: {SECRET}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, heads)
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A site with the plugin that searches its memory.
fn snooping(url: &str, timeout: &str) -> Site {
    let site = Site::new(&format!(
        "[http.api]\nurl = \"{url}\"\nprivate = true\nheaders = {{ Authorization = \"Bearer {SECRET}\" }}\n\
         [[step]]\nplugin = \"snoop\"\nhttp = [\"api\"]\nfuel = 100_000_000_000\ntimeout = \"{timeout}\"\n"
    ));
    site.install("snoop");
    site
}

fn snooped(site: &Site, alert: &Value) -> Value {
    site.send(alert.to_string().as_bytes());
    site.succeed(&["run", "--until-empty"]);
    let mut records = site.processed();
    assert_eq!(records.len(), 1, "{}", site.succeed(&["dlq", "list"]));
    records.remove(0).1
}

#[test]
fn a_secret_is_nowhere_in_a_plugins_memory_though_the_server_gives_it_back() {
    let (url, heads) = echo();
    let site = snooping(&url, "60s");
    let masked = |text: &str| text.bytes().map(|byte| byte ^ 0x5a).collect::<Vec<_>>();
    // The part of each that is the secret's alone; Base64 has three, by where it begins.
    let base64 = |before: usize| {
        let text = STANDARD.encode(format!("{}{SECRET}", "x".repeat(before)));
        text[4 * before.div_ceil(3)..].trim_end_matches('=')[..20].to_owned()
    };
    let wanted = [
        SECRET.to_owned(),
        SECRET[8..16].to_owned(),
        percent(SECRET)[30..60].to_owned(),
        base64(0),
        base64(1),
        base64(2),
        // These show that the search finds what is there.
        "found-by-the-search".to_owned(),
        percent("authorization: "),
    ];
    let wanted: Vec<_> = wanted.iter().map(|text| masked(text)).collect();
    let record = snooped(&site, &json!({ "id": "a", "url": url, "wanted": wanted }));
    let said = &record["enrichment"]["snoop"];
    assert!(heads.lock().expect("nobody panicked").contains(&format!("authorization: Bearer {SECRET}\r\n")));
    assert_eq!(said["status"], 200, "{record:#}");
    let found: Vec<u64> = serde_json::from_value(said["found"].clone()).expect("counts");
    assert_eq!(found[..6], [0; 6], "{record:#}");
    assert!(found[6] > 0 && found[7] > 0, "{record:#}");
    assert!(!record.to_string().contains(SECRET));
}

#[test]
fn a_plugin_waits_as_long_as_it_says_and_never_longer_than_it_may() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    // Nobody answers. In milliseconds: what the plugin says, and what it may take at least and at most.
    for (said, least, most) in [(Some(200), 200, 1500), (Some(60_000), 1600, 2000), (None, 1600, 2000)] {
        let site = snooping(&url, "2s");
        let record = snooped(&site, &json!({ "id": "a", "url": url, "timeout_ms": said }));
        assert_eq!(record["enrichment"]["snoop"]["error"], "timeout", "{record:#}");
        let took = record["pipeline"]["steps"][0]["duration_us"].as_u64().expect("a duration") / 1000;
        assert!(took >= least && took < most, "{said:?}: {took} ms");
    }
}

#[tokio::test]
async fn a_redis_that_is_slow_or_gone_makes_the_shared_cache_miss_and_nothing_else() {
    let server = RedisServer::start().expect("redis-server starts");
    let config = RedisConfig {
        url: server.url(),
        ca: None,
        cert: None,
        key: None,
        stream: "alerts".into(),
        group: "dossier".into(),
        lease: Duration::from_secs(15),
        dedupe_window: Duration::from_secs(600),
        retention: None,
    };
    let telemetry = Arc::new(Telemetry::default());
    let open = || RedisAnswers::new(&config, Arc::clone(&telemetry)).expect("a URL");
    let key = Key::of("api", "GET", "http://192.0.2.1/", &[]);
    let answers = open();
    assert_eq!(answers.get(&key).await, None);
    answers.put(&key, "entry".into(), Duration::from_secs(60)).await;
    let (entry, left) = answers.get(&key).await.expect("it was put there");
    assert!(entry == "entry" && left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");

    // What is too long, is of another type, or never ends is none of ours.
    let name = format!("alerts:http:{key}");
    server.ask::<()>(&["SET", &name, &"x".repeat((256 << 10) + 1), "PX", "60000"]).expect("SET");
    assert_eq!(answers.get(&key).await, None);
    server.ask::<()>(&["SET", &name, "for ever"]).expect("SET");
    assert_eq!(answers.get(&key).await, None);
    server.ask::<()>(&["DEL", &name]).expect("DEL");
    server.ask::<u64>(&["LPUSH", &name, "a list"]).expect("LPUSH");
    assert_eq!(open().get(&key).await, None);

    server.freeze().expect("it runs");
    let begun = Instant::now();
    // The first waits for its patience, the others not at all.
    for _ in 0..100 {
        assert_eq!(answers.get(&key).await, None);
        answers.put(&key, "entry".into(), Duration::from_secs(60)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    server.thaw().expect("it runs");
    server.kill();
    let begun = Instant::now();
    assert_eq!(open().get(&key).await, None);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // The list, the frozen server, and the one that is gone.
    assert!(telemetry.scrape().contains("dossier_http_cache_troubles_total 3\n"), "{}", telemetry.scrape());
}
