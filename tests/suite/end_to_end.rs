//! The main job from end to end: alerts in, dossiers out, on both queues, with the four plugins.

use std::collections::{BTreeMap, BTreeSet};

use dossier_tests::alerts::{self, ASSETS, BLOCK_LIST, COUNTRIES, FOUR_STEPS};
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, wait_for};
use serde_json::Value;

use crate::queues::{Kind, both};

/// A site with the four plugins and tables of its own, on this kind of queue.
pub fn four_plugins(kind: &Kind) -> Site {
    let site = Site::new(&format!("{}{FOUR_STEPS}", kind.config()));
    for plugin in ["ip-reputation", "asset", "geo", "verdict"] {
        site.install(plugin);
    }
    site.write("blocklist.tsv", BLOCK_LIST.as_bytes());
    site.write("assets.csv", ASSETS.as_bytes());
    site.write("countries.csv", COUNTRIES.as_bytes());
    site
}

#[test]
fn every_alert_becomes_one_record_with_the_findings_of_all_four_plugins() {
    both(|kind| {
        let site = four_plugins(kind);
        site.send(&alerts::suricata(0..300));
        site.succeed(&["run", "--until-empty"]);

        let records = kind.records(&site);
        assert_eq!(records.len(), 300);
        let ids: BTreeSet<_> = records.iter().map(|record| record["id"].as_str().expect("an id")).collect();
        assert_eq!(ids.len(), 300);
        for record in &records {
            let source = record["alert"]["src_ip"].as_str().expect("a source");
            let geo = &record["enrichment"]["geo"].to_string();
            let country = if source.starts_with("45.0.") {
                "NL"
            } else if source.starts_with("45.1.") {
                "DE"
            } else {
                "US"
            };
            assert!(geo.contains(country), "{source}: {geo}");
            let listed = record["enrichment"]["ip-reputation"].to_string().contains("blocklist");
            assert_eq!(listed, source.starts_with("45.0."), "{record}");
            assert!(record["enrichment"]["asset"].to_string().contains("dc01"));
            let label = record["verdict"]["label"].as_str().expect("a label");
            assert!(["malicious", "suspicious", "benign", "unknown"].contains(&label));
            let steps = record["pipeline"]["steps"].as_array().expect("steps");
            assert_eq!(steps.len(), 4);
            assert!(steps.iter().all(|step| step["outcome"] == "ok" && step["fuel"].as_u64() > Some(0)), "{steps:?}");
        }
        let status = site.status();
        assert_eq!((&status["waiting"], &status["in_flight"], &status["dead"]), (&0.into(), &0.into(), &0.into()));
        assert_eq!(status["stored"], 300);
    });
}

#[test]
fn the_same_alerts_give_the_same_records_but_for_the_pipeline() {
    let run = || -> BTreeMap<String, Value> {
        let kind = Kind::Directory;
        let site = four_plugins(&kind);
        site.send(&alerts::suricata(0..50));
        site.succeed(&["run", "--until-empty"]);
        let strip = |mut record: Value| {
            record.as_object_mut().expect("an object").remove("pipeline");
            (record["id"].to_string(), record)
        };
        kind.records(&site).into_iter().map(strip).collect()
    };
    assert_eq!(run(), run());
}

#[test]
fn an_alert_that_is_sent_twice_is_stored_once_and_another_with_its_id_beside_it() {
    both(|kind| {
        let site = four_plugins(kind);
        site.send(b"{\"id\":\"a\",\"n\":1}\n{\"id\":\"a\",\"n\":1}\n{\"id\":\"a\",\"n\":2}\n{\"id\":\"a\",\"n\":2}\n");
        let host = site.start();
        host.admin();
        site.drained();
        let conflicts =
            wait_for("the conflict to be counted", || host.metric("dossier_id_conflicts_total").filter(|n| *n > 0.0));
        assert_eq!(conflicts, 1.0);
        let mut ids: Vec<_> =
            kind.records(&site).into_iter().map(|record| record["id"].as_str().expect("an id").to_owned()).collect();
        ids.sort();
        assert_eq!(ids.len(), 2, "{ids:?}");
        assert_eq!(ids[0], "a");
        assert!(ids[1].starts_with("a~") && ids[1].len() == 10, "{ids:?}");
        happened(&format!(
            "of 4 alerts with one id two were stored, as {} and {}; the other two were duplicates",
            ids[0], ids[1]
        ));
    });
}

#[test]
fn bad_input_goes_to_the_dead_letters_byte_for_byte_and_the_rest_flows() {
    both(|kind| {
        let site = four_plugins(kind);
        let deep = [b"{\"a\":".to_vec(), b"[".repeat(10_000), b"]".repeat(10_000), b"}".to_vec()].concat();
        let large = [b"{\"a\":\"".to_vec(), b"x".repeat(50 << 20), b"\"}".to_vec()].concat();
        let bad: [(&str, &[u8]); 7] = [
            ("malformed", b"{\"a\":1"),
            ("malformed", b"\xff\xfe{}"),
            ("malformed", b"{\"a\":\"\\ud800\"}"),
            ("malformed", b"{\"a\":\"\0\"}"),
            ("malformed", &deep),
            ("not-an-object", b"[1,2,3]"),
            ("too-large", &large),
        ];
        site.send(&alerts::suricata(0..20));
        for (_, bytes) in &bad {
            kind.put(&site, bytes);
        }
        site.send(&alerts::suricata(20..40));
        let host = site.start();
        wait_for("everything to be done", || {
            assert!(host.memory() < 512 << 20, "the host uses {} MB", host.memory() >> 20);
            let status = site.status();
            (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
        });
        assert_eq!(host.stop(), Some(0));

        assert_eq!(kind.records(&site).len(), 40);
        let mut found: Vec<(String, Vec<u8>)> = kind.dead(&site);
        let mut expected: Vec<_> = bad.iter().map(|(reason, bytes)| ((*reason).to_owned(), bytes.to_vec())).collect();
        found.sort();
        expected.sort();
        assert!(
            found == expected,
            "{:?}",
            found.iter().map(|(reason, bytes)| (reason, bytes.len())).collect::<Vec<_>>()
        );
        happened("7 kinds of bad bytes in the dead letters, each byte for byte; the 40 alerts around them stored");
    });
}

#[test]
fn a_host_that_is_killed_five_times_loses_and_doubles_nothing_and_convicts_nobody() {
    both(|kind| {
        let site = four_plugins(kind);
        site.send(&alerts::suricata(0..1000));
        for kill in 1..=5 {
            let host = site.start();
            // In the middle: after it stored some more, and before it can be done.
            let goal = kill * 150;
            wait_for("some records", || (site.status()["stored"].as_u64() >= Some(goal)).then_some(()));
            host.kill();
        }
        site.succeed(&["run", "--until-empty"]);
        let records = kind.records(&site);
        let ids: BTreeSet<_> = records.iter().map(|record| record["id"].as_str().expect("an id").to_owned()).collect();
        assert_eq!((records.len(), ids.len()), (1000, 1000));
        assert_eq!(site.status()["dead"], 0);
    });
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_leaves_no_suspects() {
    both(|kind| {
        let site = four_plugins(kind);
        site.send(&alerts::suricata(0..2000));
        let host = site.start();
        wait_for("some records", || (site.status()["stored"].as_u64() >= Some(100)).then_some(()));
        assert_eq!(host.stop(), Some(0));
        let status = site.status();
        assert_eq!(status["in_flight"], 0);
        site.succeed(&["run", "--until-empty"]);
        let records = kind.records(&site);
        assert_eq!(records.len(), 2000);
        assert!(records.iter().all(|record| record["pipeline"]["deliveries"] == 1));
    });
}

#[test]
fn a_thousand_real_alerts_find_their_block_lists_and_countries() {
    let names = ["suricata-alerts.ndjson", "ipsum.txt", "country-ipv4.mmdb"];
    let Some(files) = names.iter().map(|name| alerts::real(name)).collect::<Option<Vec<_>>>() else { return };
    both(|kind| {
        let site = Site::new(&format!(
            "{}{}",
            kind.config(),
            r##"
            [tables.ipsum]
            file = "ipsum.txt"
            format = "tsv"
            columns = ["ip", "lists"]
            key = "ip"
            comment = "#"
            [tables.assets]
            file = "assets.csv"
            key = ["ip", "hostname"]
            [tables.geo]
            file = "country-ipv4.mmdb"
            [[step]]
            plugin = "ip-reputation"
            tables = ["ipsum"]
            settings = { feeds = [ { table = "ipsum", category = "blocklist", score = "lists" } ] }
            fuel = 10_000_000
            timeout = "250ms"
            memory = "16MiB"
            [[step]]
            plugin = "asset"
            tables = ["assets"]
            [[step]]
            plugin = "geo"
            tables = ["geo"]
            [[step]]
            name = "verdict"
            plugin = "verdict"
            "##
        ));
        for plugin in ["ip-reputation", "asset", "geo", "verdict"] {
            site.install(plugin);
        }
        site.write("assets.csv", ASSETS.as_bytes());
        for (name, file) in names.iter().zip(&files) {
            std::fs::copy(file, site.path(name)).expect("a copy");
        }
        site.succeed(&["send", "suricata-alerts.ndjson"]);
        site.succeed(&["run", "--until-empty"]);

        let records = kind.records(&site);
        assert_eq!(records.len(), 1000);
        assert_eq!(site.status()["waiting"], 0);
        let mut sources = BTreeSet::new();
        let mut listed = BTreeSet::new();
        let mut listed_alerts = 0;
        let mut countries = BTreeSet::new();
        let mut private = BTreeSet::new();
        for record in &records {
            let source = record["alert"]["src_ip"].as_str().expect("a source").to_owned();
            let about = |step: &str| crate::queues::about(&record["enrichment"][step], &source);
            if about("ip-reputation").is_some_and(|entry| entry["categories"] == serde_json::json!(["blocklist"])) {
                listed.insert(source.clone());
                listed_alerts += 1;
            }
            match about("geo") {
                Some(entry) if entry["country_code"].is_string() => countries.insert(source.clone()),
                Some(entry) if entry["scope"] == "private" => private.insert(source.clone()),
                other => panic!("{source}: {other:?}"),
            };
            sources.insert(source);
        }
        assert_eq!((sources.len(), listed.len(), listed_alerts), (92, 25, 31));
        assert_eq!((countries.len(), private.len()), (91, 1));
    });
}
