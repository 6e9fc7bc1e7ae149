//! What an operator sees and does while a host runs: the log, the metrics, plugins and tables that change, dead letters that
//! are replayed.

use std::process::{Child, Command, Stdio};

use dossier_tests::alerts;
use dossier_tests::host::{Host, Site, built, field, wait_for};
use serde_json::{Value, json};

use crate::end_to_end::four_plugins;
use crate::queues::{Kind, both};

/// Waits until the queue holds nothing more.
pub fn drained(site: &Site) {
    wait_for("the queue to be empty", || {
        let status = site.status();
        (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
    });
}

/// The log lines that tell the end of an alert.
fn endings(host: &Host) -> Vec<Value> {
    host.log().into_iter().filter(|line| field(line, "outcome").is_some() && field(line, "entry").is_some()).collect()
}

#[test]
fn every_alert_has_one_log_line_and_the_metrics_agree() {
    both(|kind| {
        let site = four_plugins(kind);
        site.send(&alerts::suricata(0..100));
        site.send(b"not json\n");
        let host = site.start();
        drained(&site);
        let lines = wait_for("a line for each alert", || Some(endings(&host)).filter(|lines| lines.len() >= 101));
        assert_eq!(lines.len(), 101);
        let stored: Vec<_> = lines.iter().filter(|line| field(line, "outcome") == Some(&json!("stored"))).collect();
        assert_eq!(stored.len(), 100);
        for line in stored {
            assert!(field(line, "id").is_some_and(Value::is_string), "{line}");
            assert!(field(line, "verdict").is_some_and(Value::is_string), "{line}");
            assert!(field(line, "duration_us").is_some_and(Value::is_u64), "{line}");
        }
        let (status, metrics) = host.get("/metrics");
        assert_eq!(status, 200);
        let sum = |name: &str, label: &str| -> f64 {
            let values = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
            values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        assert_eq!(sum("dossier_alerts_total", "outcome=\"stored\""), 100.0, "{metrics}");
        assert_eq!(sum("dossier_alerts_total", "outcome=\"dead\""), 1.0, "{metrics}");
        assert_eq!(host.get("/healthz").0, 200);
        assert_eq!(host.get("/readyz").0, 200);
        assert_eq!(host.get("/nothing").0, 404);
    });
}

#[test]
fn a_plugin_that_is_dropped_into_a_running_host_enriches_the_next_alerts_and_leaves_with_its_file() {
    let kind = Kind::Directory;
    let site = Site::new(&kind.config());
    let host = site.start();
    host.admin();
    let outcome = |n: u32| {
        site.send(format!("{{\"id\":\"{n}\"}}\n").as_bytes());
        drained(&site);
        let record = kind
            .records(&site)
            .into_iter()
            .find(|record| record["id"].as_str() == Some(&n.to_string()))
            .expect("a record");
        record["enrichment"]["mischief"].is_object()
    };
    let mut n = 0;
    let mut next = || {
        n += 1;
        outcome(n)
    };
    assert!(!next());
    site.install("mischief");
    wait_for("the plugin to be used", || next().then_some(()));
    std::fs::remove_file(site.path("plugins/mischief.wasm")).expect("the plugin was there");
    wait_for("the plugin to be gone", || (!next()).then_some(()));
}

#[test]
fn a_corrupt_new_version_of_a_plugin_changes_nothing_and_is_named() {
    let kind = Kind::Directory;
    let site = four_plugins(&kind);
    let host = site.start();
    host.admin();
    site.write("plugins/geo.wasm", b"\0asm this is no component");
    let refused = wait_for("the refusal", || {
        host.log().into_iter().find(|line| line.to_string().contains("refused") && line.to_string().contains("geo"))
    });
    println!("{refused}");
    site.send(&alerts::suricata(0..20));
    drained(&site);
    let records = kind.records(&site);
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|record| record["enrichment"]["geo"].is_object()));
    assert_eq!(host.get("/readyz").0, 200);
}

#[test]
fn a_required_plugin_that_is_absent_at_start_means_not_ready_and_nothing_is_read_until_it_comes() {
    let kind = Kind::Directory;
    let site = four_plugins(&kind);
    std::fs::rename(site.path("plugins/asset.wasm"), site.path("asset.wasm")).expect("the plugin was there");
    site.send(&alerts::suricata(0..5));
    let host = site.start();
    let (status, body) = host.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("asset"), "{body}");
    assert_eq!(site.status()["waiting"], 5);
    std::fs::rename(site.path("asset.wasm"), site.path("plugins/asset.wasm")).expect("the plugin is put back");
    drained(&site);
    assert_eq!(kind.records(&site).len(), 5);
    assert_eq!(host.get("/readyz").0, 200);
}

#[test]
fn a_table_that_changes_is_loaded_again_and_a_broken_one_is_not() {
    let kind = Kind::Directory;
    let site = four_plugins(&kind);
    let host = site.start();
    host.admin();
    let mut n = 0;
    let mut owner = || {
        n += 1;
        site.send(format!("{{\"id\":\"{n}\",\"dest_ip\":\"10.0.0.5\"}}\n").as_bytes());
        drained(&site);
        let record = kind
            .records(&site)
            .into_iter()
            .find(|record| record["id"].as_str() == Some(&n.to_string()))
            .expect("a record");
        record["enrichment"]["asset"]["assets"][0]["asset"]["owner"].as_str().map(str::to_owned)
    };
    assert_eq!(owner().as_deref(), Some("it-ops"));
    site.write(
        "assets.csv",
        b"ip,hostname,owner,role,criticality\n10.0.0.5,dc01,new-team,domain controller,critical\n",
    );
    wait_for("the new table", || (owner().as_deref() == Some("new-team")).then_some(()));
    site.write("assets.csv", b"ip,hostname\n10.0.0.5,dc01,too,many,cells\n");
    wait_for("the refusal", || {
        host.log()
            .iter()
            .any(|line| line.to_string().contains("refused") && line.to_string().contains("assets"))
            .then_some(())
    });
    assert_eq!(owner().as_deref(), Some("new-team"));
}

#[test]
fn a_step_that_misbehaves_sends_its_alert_to_the_dead_letters_with_the_reason_and_no_other() {
    both(|kind| {
        let config = r#"
            [tables.t]
            file = "t.txt"
            [http.api]
            url = "http://127.0.0.1:9"
            [[step]]
            plugin = "mischief"
            tables = ["t"]
            http = ["api"]
            fuel = 20_000_000
            timeout = "2s"
            memory = "4MiB"
            retries = 1
        "#;
        let site = Site::new(&format!("{}{config}", kind.config()));
        site.install("mischief");
        site.write("t.txt", b"key\n");
        let expected = [
            ("trap", "trap"),
            ("loop", "out-of-fuel"),
            ("recurse", "trap"),
            ("grow", "memory"),
            ("not-json", "invalid-output"),
            ("not-object", "invalid-output"),
            ("invalid", "invalid"),
            ("internal", "plugin-error"),
            ("unavailable", "unavailable"),
        ];
        for (n, (mischief, _)) in expected.iter().enumerate() {
            site.send(
                format!("{{\"id\":\"bad-{n}\",\"mischief\":\"{mischief}\"}}\n{{\"id\":\"good-{n}\"}}\n").as_bytes(),
            );
        }
        site.succeed(&["run", "--until-empty"]);
        let records = kind.records(&site);
        assert_eq!(records.len(), expected.len());
        assert!(records.iter().all(|record| record["id"].as_str().is_some_and(|id| id.starts_with("good-"))));
        let mut dead: Vec<_> = kind
            .dead(&site)
            .into_iter()
            .map(|(reason, bytes)| {
                let alert: Value = serde_json::from_slice(&bytes).expect("the original");
                (alert["mischief"].as_str().expect("what it did").to_owned(), reason)
            })
            .collect();
        let mut expected: Vec<_> = expected.iter().map(|(did, why)| ((*did).to_owned(), (*why).to_owned())).collect();
        dead.sort();
        expected.sort();
        assert_eq!(dead, expected);
    });
}

/// A site whose one step is the guest that misbehaves.
pub fn mischief(kind: &Kind, more: &str) -> Site {
    let site = Site::new(&format!(
        "{}[tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://127.0.0.1:9\"\n\
         [[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\n{more}",
        kind.config()
    ));
    site.install("mischief");
    site.write("t.txt", b"key\n");
    site
}

#[test]
fn an_alert_whose_entry_is_touched_or_trimmed_in_flight_is_buried_with_its_bytes() {
    both(|kind| {
        let site = mischief(kind, "retries = 3\n");
        let alert = br#"{"id":"held","mischief":"unavailable"}"#;
        kind.put(&site, alert);
        let host = site.start();
        wait_for("the first retry", || host.log().iter().any(|line| line.to_string().contains("held")).then_some(()));
        kind.disturb(&site);
        let dead = wait_for("the dead letter", || Some(kind.dead(&site)).filter(|dead| !dead.is_empty()));
        assert_eq!(dead[0], ("unavailable".to_owned(), alert.to_vec()));
    });
}

#[test]
fn a_burst_of_alerts_whose_plugin_computes_long_does_not_end_as_time_outs() {
    let kind = Kind::Directory;
    let site = mischief(&kind, "timeout = \"1s\"\nfuel = 1_000_000_000\n");
    let alerts: String =
        (0..200).map(|n| format!("{{\"id\":\"{n}\",\"mischief\":\"slow\",\"spin\":20000000}}\n")).collect();
    site.send(alerts.as_bytes());
    site.succeed(&["run", "--until-empty"]);
    assert_eq!((kind.records(&site).len(), kind.dead(&site).len()), (200, 0));
}

#[test]
fn a_host_with_nothing_to_do_does_nothing() {
    let site = four_plugins(&Kind::Directory);
    let host = site.start();
    host.admin();
    // What a start leaves to do is over after a while; then a second of idling is measured.
    let idle = wait_for("the host to be idle", || {
        let before = host.processor_time();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let used = host.processor_time() - before;
        (used < std::time::Duration::from_millis(200)).then_some(used)
    });
    println!("{idle:?} of processor time in a second");
}

/// The project's own threat API on a port of the test's; killed when it is dropped.
struct ThreatApi {
    child: Child,
    address: String,
}

impl ThreatApi {
    fn start(arguments: &[&str]) -> Self {
        use std::io::BufRead as _;
        let mut child = Command::new(built("release/threat-api"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the threat API starts");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut line).expect("it says where it listens");
        let address = line.split_whitespace().find_map(|word| word.trim_matches('/').rsplit('/').next()?.parse().ok());
        let address: std::net::SocketAddr = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        // Nobody reads on; it must not block on its output.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Self { child, address: address.to_string() }
    }
}

impl Drop for ThreatApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A site whose one step asks this threat API.
fn asks(kind: &Kind, address: &str) -> Site {
    let site = Site::new(&format!(
        r#"{}
[http.threat-api]
url = "http://{address}"
headers = {{ Key = "the-secret-of-the-house" }}
private = true
[[step]]
plugin = "ip-reputation"
http = ["threat-api"]
settings = {{ api = {{ url = "http://{address}" }} }}
timeout = "500ms"
retries = 1
"#,
        kind.config()
    ));
    site.install("ip-reputation");
    site
}

#[test]
fn a_threat_api_that_is_down_sends_alerts_to_the_dead_letters_and_replay_brings_every_one_home() {
    both(|kind| {
        let api = ThreatApi::start(&["--listen", "127.0.0.1:0"]);
        let address = api.address.clone();
        drop(api);
        let site = asks(kind, &address);
        site.send(&alerts::suricata(0..30));
        site.succeed(&["run", "--until-empty"]);
        assert_eq!(kind.records(&site).len(), 0);
        let dead = kind.dead(&site);
        assert_eq!(dead.len(), 30);
        assert!(dead.iter().all(|(reason, _)| reason == "unavailable"), "{dead:?}");
        let letters = site.succeed(&["dlq", "list", "--json"]);
        assert!(!letters.contains("the-secret-of-the-house"));

        let _api = ThreatApi::start(&["--listen", &address]);
        site.succeed(&["dlq", "replay", "--all"]);
        assert_eq!(site.status()["dead"], 0);
        site.succeed(&["run", "--until-empty"]);
        let records = kind.records(&site);
        assert_eq!(records.len(), 30);
        assert!(records.iter().all(|record| record["pipeline"]["attempts"] == 2), "{}", records[0]);
        assert!(records.iter().all(|record| !record.to_string().contains("the-secret-of-the-house")));
    });
}

#[test]
fn a_threat_api_that_hangs_ends_as_unavailable_and_not_as_the_time_out_of_the_step() {
    let kind = Kind::Directory;
    let api = ThreatApi::start(&["--listen", "127.0.0.1:0", "--delay", "60s"]);
    let site = asks(&kind, &api.address);
    site.send(&alerts::suricata(0..3));
    site.succeed(&["run", "--until-empty"]);
    let dead = kind.dead(&site);
    assert_eq!(dead.len(), 3);
    assert!(dead.iter().all(|(reason, _)| reason == "unavailable"), "{dead:?}");
}
