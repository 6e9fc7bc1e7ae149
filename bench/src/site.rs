//! The folder in which a row's host runs: its configuration, tables and plugins.

use std::path::Path;

use anyhow::{Context, Result};
use dossier_tests::alerts::real;
use dossier_tests::host::Site;

use crate::alerts;

/// How many alerts are read and committed together, in every row.
pub const BATCH: usize = 100;

/// The plugins, in the order of their steps.
pub const PLUGINS: [&str; 4] = ["ip-reputation", "asset", "geo", "verdict"];

/// How many alerts an instance serves in the rows that reuse them.
pub const REUSE: u32 = 1000;

/// A folder with everything that a host needs. `queue` is what the configuration says of the queue; `state` may be shared by hosts
/// that do not run at the same time, so that the plugins are compiled
/// once. `more` are more steps.
///
/// # Errors
/// A file cannot be read or written.
pub fn with(queue: &str, reuse: u32, state: &Path, more: &str) -> Result<Site> {
    let (geo, countries) = match real("country-ipv4.mmdb") {
        Some(file) => ("file = \"countries.mmdb\"", std::fs::read(file)?),
        None => ("file = \"countries.csv\"\nkey = \"network\"", alerts::countries().into_bytes()),
    };
    let block_list = match real("ipsum.txt") {
        Some(file) => std::fs::read(file)?,
        None => alerts::block_list().into_bytes(),
    };
    let steps = format!(
        r##"
state_dir = {state:?}

[queue]
{queue}
batch = {BATCH}

[plugins]
auto = false

[admin]
address = "off"

[tables.blocklist]
file = "blocklist.tsv"
columns = ["ip", "lists"]
key = "ip"
comment = "#"

[tables.assets]
file = "assets.csv"
key = ["ip", "hostname"]

[tables.geo]
{geo}

[[step]]
plugin = "ip-reputation"
tables = ["blocklist"]
settings = {{ feeds = [ {{ table = "blocklist", category = "blocklist", score = "lists" }} ] }}
reuse = {reuse}

[[step]]
plugin = "asset"
tables = ["assets"]
reuse = {reuse}

[[step]]
plugin = "geo"
tables = ["geo"]
reuse = {reuse}

[[step]]
plugin = "verdict"
reuse = {reuse}

{more}
"##
    );
    let site = Site::new(&steps);
    let file = geo.split('"').nth(1).context("the table has a file")?;
    site.write(file, &countries);
    site.write("blocklist.tsv", &block_list);
    site.write("assets.csv", alerts::assets().as_bytes());
    PLUGINS.iter().for_each(|plugin| site.install(plugin));
    Ok(site)
}
