//! The contract's versions side by side: what was built against a released one runs for ever, and the one in development is
//! served to those who want it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use dossier_tests::host::{Site, field, root, wait_for};
use dossier_tests::threat_api::ThreatApi;
use serde_json::{Value, json};

/// Plugins that were built against version 1.0.0 of the contract when it was released. Never built again: see the folder's
/// README.
const FIXTURES: [&str; 3] = ["ip-reputation", "asset", "verdict"];

/// Puts plugins of the first contract into a site.
fn install(site: &Site, plugins: &[&str]) {
    for plugin in plugins {
        let bytes = std::fs::read(root().join(format!("tests/fixtures/contract-1.0.0/{plugin}.wasm"))).unwrap();
        site.write(&format!("plugins/{plugin}.wasm"), &bytes);
    }
}

fn only_record(site: &Site) -> Value {
    let mut records = site.processed();
    assert_eq!(records.len(), 1, "{}", site.succeed(&["dlq", "list"]));
    records.remove(0).1
}

#[test]
fn plugins_that_were_built_against_the_first_contract_still_run() {
    let site = Site::new(
        r#"
[tables.assets]
file = "assets.csv"
key = ["ip", "hostname"]
[tables.blocklist]
file = "blocklist.txt"
[[step]]
plugin = "ip-reputation"
tables = ["blocklist"]
settings = { feeds = [{ table = "blocklist", category = "c2" }] }
[[step]]
plugin = "asset"
tables = ["assets"]
[[step]]
plugin = "verdict"
"#,
    );
    site.write("assets.csv", b"ip,hostname,owner,role,criticality\n10.0.0.7,dc01,it,domain controller,critical\n");
    site.write("blocklist.txt", b"198.51.100.23\n45.155.205.0/24\n");
    install(&site, &FIXTURES);
    let alert = json!({ "id": "a", "severity": "high", "src_ip": "45.155.205.9", "dst_ip": "10.0.0.7" });
    site.send(format!("{alert}\n").as_bytes());
    site.succeed(&["run", "--until-empty"]);
    let record = only_record(&site);
    assert_eq!(record["enrichment"]["ip-reputation"]["score"], 95, "{record:#}");
    assert_eq!(record["enrichment"]["asset"]["criticality"], "critical", "{record:#}");
    assert_eq!(record["verdict"]["label"], "malicious", "{record:#}");
    let outcomes: Vec<_> =
        record["pipeline"]["steps"].as_array().unwrap().iter().map(|step| &step["outcome"]).collect();
    assert_eq!(outcomes, ["ok"; 3], "{record:#}");
}

#[test]
fn every_call_of_the_first_contract_gives_what_it_gave_when_it_was_released() {
    let api = ThreatApi::start(&[]);
    let url = format!("{}/asked", api.url());
    let site = Site::new(&format!(
        "[tables.t]\nfile = \"t.csv\"\nkey = \"k\"\n\
         [http.api]\nurl = \"{}\"\nprivate = true\n\
         [[step]]\nplugin = \"first\"\n\
         [[step]]\nplugin = \"in-c\"\ntables = [\"t\"]\nsettings = {{ table = \"t\" }}\n\
         [[step]]\nplugin = \"every-call\"\ntables = [\"t\"]\nhttp = [\"api\"]\nretries = 1\nsettings = {{ url = \"{url}\" }}\n",
        api.url()
    ));
    site.write("t.csv", b"k,v\nk,a value\n203.0.113.9,found\n");
    install(&site, &["first", "in-c", "every-call"]);
    let alert = json!({ "id": "a", "hidden": "203.0.113.9", "src_ip": "198.51.100.7", "numbers": [1, 2.50] });
    site.send(format!("{alert}\n").as_bytes());
    for fail in ["not-applicable", "unavailable", "invalid", "internal", "trap"] {
        site.send(format!("{{\"id\":\"{fail}\",\"fail\":\"{fail}\"}}\n").as_bytes());
    }
    let host = site.start();
    wait_for("the queue to be empty", || {
        let status = site.status();
        (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
    });
    let records = site.processed();
    let record = |id: &str| &records.iter().find(|(_, record)| record["id"] == id).expect("a record").1;
    let answer = json!({
        "id": "a",
        "received": true,
        "json": alert.to_string(),
        "observables": [["ip", "source", "198.51.100.7"], ["ip", "source", "203.0.113.9"]],
        "addresses": 2,
        "get": "2.5",
        "text": "2.5",
        "nothing": null,
        "steps": ["first", "in-c"],
        "enrichment": { "seen": "here" },
        "enrichment_at": "here",
        "enrichment_text": "here",
        "row": { "k": "k", "v": "a value" },
        "cell": "a value",
        "no_row": null,
        "no_table": true,
        "post": { "status": 405, "body": "" },
        "both": [{ "status": 200, "body": "0" }, "denied"],
        "settings": { "url": url },
    });
    assert_eq!(record("a")["enrichment"]["every-call"], answer, "{:#}", record("a"));
    let row = json!({ "address": "203.0.113.9", "role": "source", "row": { "k": "203.0.113.9", "v": "found" } });
    assert_eq!(record("a")["enrichment"]["in-c"], json!({ "matches": [row] }));
    assert_eq!(record("a")["verdict"], json!({ "label": "suspicious", "score": 42, "reasons": ["it was asked to"] }));
    assert_eq!(record("not-applicable")["pipeline"]["steps"][2]["outcome"], "not-applicable");
    let mut dead: Vec<_> = site
        .succeed(&["dlq", "list", "--json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["reason"].as_str().unwrap().to_owned())
        .collect();
    dead.sort();
    assert_eq!(dead, ["invalid", "plugin-error", "trap", "unavailable"]);
    let said: std::collections::BTreeSet<_> =
        host.log().iter().filter_map(|line| Some(field(line, "text")?.as_str()?.to_owned())).collect();
    // A debug line is not for the log as it is set, and a panic is told too.
    assert!(["error", "info", "warn"].iter().all(|text| said.contains(*text)) && !said.contains("debug"), "{said:?}");
}

fn preview(plugins: &str) -> Site {
    let site = Site::new(&format!(
        r#"
[plugins]
{plugins}
[tables.assets]
file = "assets.csv"
key = "ip"
[[step]]
plugin = "preview"
tables = ["assets"]
[[step]]
plugin = "asset"
tables = ["assets"]
"#,
    ));
    site.write("assets.csv", b"ip,owner\n10.0.0.7,it\n");
    site.install("preview");
    site.install("asset");
    site
}

#[test]
fn a_host_serves_the_contract_in_development_beside_the_released_one_to_those_who_want_it() {
    let site = preview("preview = true");
    let alert = json!({ "id": "a", "dst_ip": "10.0.0.7", "keys": "10.0.0.8 10.0.0.7 10.0.0.7" });
    site.send(format!("{alert}\n").as_bytes());
    site.succeed(&["run", "--until-empty"]);
    let record = only_record(&site);
    let row = json!({ "ip": "10.0.0.7", "owner": "it" });
    assert_eq!(record["enrichment"]["preview"], json!({ "id": "a", "rows": [null, row, row] }));
    assert_eq!(record["enrichment"]["asset"]["assets"][0]["asset"]["owner"], "it");
}

#[test]
fn a_plugin_for_the_contract_in_development_is_refused_where_nobody_wants_it() {
    let site = preview("");
    let output = site.dossier(&["validate"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("2.0.0-dev") && said.contains("preview = true"), "{said}");
}
