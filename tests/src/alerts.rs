//! Alerts and tables that are made here, so that the suite is whole without any data from elsewhere, and the optional real
//! data where it is there.

use std::path::PathBuf;

use crate::host::root;

/// Alerts in Suricata's format, one a line, each with its own id; every third source address is on [`block_list`].
pub fn suricata(range: std::ops::Range<u32>) -> Vec<u8> {
    let mut lines = Vec::new();
    for n in range {
        let line = serde_json::json!({
            "id": format!("alert-{n:05}"),
            "timestamp": "2026-11-20T10:00:00.000000+0000",
            "event_type": "alert",
            "src_ip": source(n),
            "dest_ip": "10.0.0.5",
            "proto": "TCP",
            "alert": { "signature": "ET SCAN Potential SSH Scan", "severity": 1 + n % 3 },
        });
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// The source address of an alert of [`suricata`].
fn source(n: u32) -> String {
    format!("45.{}.{}.{}", n % 3, (n / 250) % 250, 1 + n % 250)
}

/// A block list with the sources of every third alert of [`suricata`], tab-separated, with comments.
pub const BLOCK_LIST: &str = "# addresses that attacked somebody\n# IP\tlists\n45.0.0.0/16\t7\n";

/// The assets that the alerts of [`suricata`] hit.
pub const ASSETS: &str = "ip,hostname,owner,role,criticality\n10.0.0.5,dc01,it-ops,domain controller,critical\n";

/// Countries by prefix.
pub const COUNTRIES: &str = "network,country_code\n45.0.0.0/16,NL\n45.1.0.0/16,DE\n45.2.0.0/16,US\n";

/// The tables and steps of a configuration that uses all four plugins on these alerts.
pub const FOUR_STEPS: &str = r##"
[tables.blocklist]
file = "blocklist.tsv"
columns = ["ip", "lists"]
key = "ip"
comment = "#"

[tables.assets]
file = "assets.csv"
key = ["ip", "hostname"]

[tables.geo]
file = "countries.csv"
key = "network"

[[step]]
plugin = "ip-reputation"
tables = ["blocklist"]
settings = { feeds = [ { table = "blocklist", category = "blocklist", score = "lists" } ] }

[[step]]
plugin = "asset"
tables = ["assets"]

[[step]]
plugin = "geo"
tables = ["geo"]

[[step]]
plugin = "verdict"
"##;

/// A file of the optional real data that lies beside a developer's checkout; none in a user's clone.
pub fn real(name: &str) -> Option<PathBuf> {
    let file = root().join("../shared/data").join(name);
    if file.exists() {
        return Some(file);
    }
    println!("not run on real data: ../shared/data/{name} is not here (it is optional)");
    None
}
