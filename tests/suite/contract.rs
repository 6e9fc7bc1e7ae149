//! The contract's versions side by side: what was built against a released one runs for ever, and the one in development is
//! served to those who want it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use dossier_tests::host::{Site, root};
use serde_json::{Value, json};

/// Plugins that were built against version 1.0.0 of the contract when it was released. Never built again: see the folder's
/// README.
const FIXTURES: [&str; 3] = ["ip-reputation", "asset", "verdict"];

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
    site.write("blocklist.txt", b"198.51.100.23\n203.0.113.0/24\n");
    for plugin in FIXTURES {
        let bytes = std::fs::read(root().join(format!("tests/fixtures/contract-1.0.0/{plugin}.wasm"))).unwrap();
        site.write(&format!("plugins/{plugin}.wasm"), &bytes);
    }
    let alert = json!({ "id": "a", "severity": "high", "src_ip": "203.0.113.9", "dst_ip": "10.0.0.7" });
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
