//! Versions of a plugin that follow one another in a running host: one that fails is taken out and its victims come home, one
//! that asks for more waits for its grant, and a restart forgets nothing.

mod swaps;

use std::collections::BTreeSet;

use dossier::digest::sha256_hex;
use dossier_authoring::manifest::Manifest;
use dossier_tests::guest::framed;
use dossier_tests::host::{Host, Site, field, wait_for};
use serde_json::{Value, json};

use crate::queues::{Kind, both};

/// The only step.
const STEP: &str = "[tables.secrets]\nfile = \"secrets.txt\"\n[[step]]\nplugin = \"guest\"\n";

/// What a version that wants a table and more memory asks for.
const ASKS: &str = "[[tables]]\nname = \"secrets\"\nwhy = \"it is curious\"\n[limits]\nmemory = \"32MiB\"";

/// A version that answers with its number.
fn good(number: u32) -> Vec<u8> {
    framed("guest", &format!("(func $enrich (param i32) (call $saw (i64.const {number})))"))
}

/// A version that traps whatever it is called with.
fn bad() -> Vec<u8> {
    framed("guest", "(func $enrich (param i32) unreachable)")
}

/// A version that carries what it asks for.
fn greedy(mut component: Vec<u8>) -> Vec<u8> {
    let asks = Manifest::from_toml(ASKS).expect("the text is fixed");
    asks.append_to(&mut component).expect("it is short");
    component
}

/// A site with one plugin.
fn site(kind: &Kind, more: &str, version: &[u8]) -> Site {
    let site = Site::new(&format!("{}{more}{STEP}", kind.config()));
    site.write("secrets.txt", b"k\n");
    put(&site, version);
    site
}

/// Puts a version in the place of the one before, as careful people do: written aside, then moved.
fn put(site: &Site, version: &[u8]) {
    site.write("plugins/.guest", version);
    std::fs::rename(site.path("plugins/.guest"), site.path("plugins/guest.wasm")).expect("the plugin in its place");
}

/// Alerts with these numbers as their ids and as their amounts.
fn alerts(numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers.flat_map(|n| format!("{{\"id\":\"alert-{n:06}\",\"amount\":{}}}\n", n % 10).into_bytes()).collect()
}

/// Sends alerts and waits until the queue holds nothing more.
fn send(site: &Site, numbers: std::ops::Range<u32>) {
    site.send(&alerts(numbers));
    site.drained();
}

/// Waits for a line of the log about a version.
fn told(host: &Host, what: &str, version: &[u8]) -> Value {
    let digest = json!(sha256_hex(version));
    wait_for(&format!("{what}: {digest}"), || {
        host.log().into_iter().find(|line| {
            field(line, "sha256") == Some(&digest) && field(line, "message").and_then(Value::as_str) == Some(what)
        })
    })
}

/// A counter or gauge of the host.
fn metric(host: &Host, series: &str) -> f64 {
    let (_, metrics) = host.get("/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{series} is not in\n{metrics}"))
}

/// What somebody who asks whether the host is ready is told of the plugin.
fn notice(host: &Host) -> Option<String> {
    let (status, body) = host.get("/readyz");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).expect("it is JSON");
    let notices = body.get("notices")?.as_object()?.iter().filter(|(alarm, _)| alarm.ends_with(" guest"));
    Some(notices.filter_map(|(_, notice)| notice.as_str()).collect::<Vec<_>>().join("; "))
        .filter(|said| !said.is_empty())
}

fn noticed(host: &Host, what: &str) {
    wait_for(what, || notice(host).filter(|notice| notice.contains(what)));
}

/// The ids of the records that a version gave, which all hold its number.
fn given_by(kind: &Kind, site: &Site, version: &[u8], number: u32) -> BTreeSet<String> {
    let digest = sha256_hex(version);
    let of = |record: &&Value| record["pipeline"]["steps"][0]["sha256"] == digest;
    let records = kind.records(site);
    let of_it = records.iter().filter(of).map(|record| {
        assert_eq!(record["enrichment"]["guest"]["saw"], number, "{record}");
        record["id"].as_str().expect("an id").to_owned()
    });
    of_it.collect()
}

fn a_bad_version_is_taken_out(kind: &Kind, probation: &str, calls: u32, failures: u64) {
    let (first, bad) = (good(1), bad());
    let digest = sha256_hex(&bad);
    let site = site(kind, probation, &first);
    let host = site.start();
    host.admin();
    noticed(&host, "is on probation");
    assert_eq!(metric(&host, "dossier_plugin_probation{plugin=\"guest\"}"), 1.0);
    send(&site, 0..calls);
    told(&host, "plugin passed its probation", &first);
    assert_eq!(notice(&host), None);

    put(&site, &bad);
    told(&host, "plugin on probation", &bad);
    send(&site, calls..calls + 40);
    let line = told(&host, "plugin taken out; replay what it failed on with dossier dlq replay --digest", &bad);
    assert_eq!(field(&line, "alarm"), Some(&json!(true)), "{line}");
    assert_eq!(field(&line, "name"), Some(&json!("plugin-taken-out")), "{line}");
    assert_eq!(field(&line, "instead_sha256"), Some(&json!(sha256_hex(&first))), "{line}");
    for (series, value) in [
        ("dossier_plugin_rollbacks_total{plugin=\"guest\"}", 1.0),
        ("dossier_alarms_total{alarm=\"plugin-taken-out\"}", 1.0),
        ("dossier_plugin_probation{plugin=\"guest\"}", 0.0),
    ] {
        assert_eq!(metric(&host, series), value, "{series}");
    }
    noticed(&host, "it was taken out");
    // The same for who asks on the command line.
    let asking = format!("{}[admin]\naddress = \"{}\"\n", kind.config(), host.admin());
    site.write("asking.toml", asking.as_bytes());
    let status = site.succeed(&["--config", "asking.toml", "status"]);
    assert!(status.contains("host       ready") && status.contains("plugin-taken-out guest: version "), "{status}");
    let dead = site.status()["dead"].as_u64().expect("a number");
    assert!((failures..=40).contains(&dead), "{dead}");
    send(&site, calls + 40..calls + 60);
    assert_eq!(site.status()["dead"], dead, "the last good version is back");

    // The bad file still lies there, and is not taken again: not even by a host that did not see it fail.
    host.kill();
    let host = site.start();
    noticed(&host, "it was taken out at ");
    send(&site, calls + 60..calls + 80);
    assert_eq!(site.status()["dead"], dead);

    // Its victims, and only they, are found by its digest and come home.
    let listed = site.succeed(&["dlq", "list", "--json", "--digest", &digest[..8]]);
    assert_eq!(listed.lines().count() as u64, dead);
    assert!(
        listed.lines().all(|letter| letter.contains(&digest) && letter.contains("\"reason\":\"trap\"")),
        "{listed}"
    );
    let other = if digest.starts_with("00000000") { "11111111" } else { "00000000" };
    assert_eq!(site.succeed(&["dlq", "replay", "--digest", other]), "replayed 0\n");
    assert_eq!(site.succeed(&["dlq", "replay", "--digest", &digest[..8]]), format!("replayed {dead}\n"));
    site.drained();
    assert_eq!(site.status()["dead"], 0);
    assert_eq!(given_by(kind, &site, &first, 1).len() as u32, calls + 80);
    assert_eq!(kind.records(&site).len() as u32, calls + 80);
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_version_that_traps_on_everything_is_taken_out_and_its_victims_are_replayed_by_digest() {
    a_bad_version_is_taken_out(&Kind::Directory, "", 50, 10);
}

#[test]
fn a_version_is_taken_out_within_the_probation_that_is_configured() {
    let redis = Kind::Redis(dossier_tests::redis_server::RedisServer::start().expect("redis-server starts"));
    a_bad_version_is_taken_out(&redis, "[plugins]\nprobation = { calls = 8, failures = 0.5 }\n", 8, 4);
}

#[test]
fn a_version_that_passes_is_what_a_restart_goes_back_to_when_its_file_is_garbage_then() {
    both(|kind| {
        let (first, second) = (good(1), good(2));
        let site = site(kind, "", &first);
        let host = site.start();
        host.admin();
        send(&site, 0..50);
        told(&host, "plugin passed its probation", &first);
        put(&site, &second);
        told(&host, "plugin on probation", &second);
        send(&site, 50..100);
        told(&host, "plugin passed its probation", &second);
        put(&site, b"garbage");
        told(&host, "plugin refused", b"garbage");
        send(&site, 100..110);
        host.kill();
        let host = site.start();
        noticed(&host, "the last good one serves on");
        send(&site, 110..120);
        // It has proven itself before.
        assert!(!notice(&host).expect("a notice").contains("probation"));
        assert_eq!(given_by(kind, &site, &first, 1).len(), 50);
        assert_eq!(given_by(kind, &site, &second, 2).len(), 70);
        assert_eq!(site.status()["dead"], 0);
    });
}

/// The configuration with more in its step.
fn configure(site: &Site, kind: &Kind, more: &str) {
    let config = format!("{}[admin]\naddress = \"127.0.0.1:0\"\n{STEP}{more}", kind.config());
    site.write("dossier.toml", config.as_bytes());
}

#[test]
fn a_version_that_asks_for_more_waits_until_it_is_granted_or_pinned() {
    let kind = Kind::Directory;
    let (first, greedy) = (good(1), greedy(good(2)));
    let (digest, other) = (sha256_hex(&greedy), sha256_hex(b"another"));
    let site = site(&kind, "", &first);
    let host = site.start();
    host.admin();
    put(&site, &greedy);
    let line = told(&host, "plugin refused", &greedy);
    let why = field(&line, "why").and_then(Value::as_str).expect("a reason");
    assert!(why.contains("table \"secrets\" (it is curious)") && why.contains("memory = \"32768KiB\""), "{why}");
    assert_eq!(metric(&host, "dossier_plugin_refusals_total{plugin=\"guest\"}"), 1.0);
    noticed(&host, "it asks for more");
    send(&site, 0..5);
    host.kill();
    let host = site.start();
    told(&host, "plugin refused", &greedy);
    send(&site, 5..10);
    assert_eq!(given_by(&kind, &site, &first, 1).len(), 10);
    assert_eq!(host.stop(), Some(0));

    for (reviewed, numbers) in
        [("tables = [\"secrets\"]\nmemory = \"32MiB\"".to_owned(), 10..15), (format!("sha256 = \"{digest}\""), 15..20)]
    {
        configure(&site, &kind, &reviewed);
        let host = site.start();
        told(&host, "plugin loaded", &greedy);
        send(&site, numbers.clone());
        assert_eq!(given_by(&kind, &site, &greedy, 2).len() as u32, numbers.end - 10, "{reviewed}");
        // Without it, it is refused again: five alerts are no proof.
        assert_eq!(host.stop(), Some(0));
        configure(&site, &kind, "");
        let host = site.start();
        told(&host, "plugin refused", &greedy);
        assert_eq!(host.stop(), Some(0));
    }

    // Another digest than the one that is pinned: neither the file nor what served before may be it.
    configure(&site, &kind, &format!("sha256 = \"{other}\""));
    let host = site.start();
    let (status, body) = host.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains(&digest) && body.contains(&other), "{body}");
}
