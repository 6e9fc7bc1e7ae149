//! The folder in which a row's host runs: its configuration, tables and plugins.

use std::path::Path;

use anyhow::{Context, Result};
use dossier_tests::host::{Site, built};

use crate::alerts::{self, DATA};

/// How many alerts are read and committed together, in every row.
pub const BATCH: usize = 100;

/// The plugins, in the order of their steps.
pub const PLUGINS: [&str; 4] = ["ip-reputation", "asset", "geo", "verdict"];

/// How many alerts an instance serves in the rows that reuse them.
pub const REUSE: u32 = 1000;

/// Which tables have rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// All of them.
    All,
    /// None.
    None,
    /// The block list alone.
    BlockList,
}

/// What a folder is to hold.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// What the configuration says of the queue.
    pub queue: String,
    /// Where compiled code is kept. Hosts that do not run at the same time may share it, so that plugins are compiled once.
    pub state: &'a Path,
    /// How many alerts are read and committed together.
    pub batch: usize,
    /// Which tables have rows.
    pub filled: Filled,
    /// The steps, as in the configuration.
    pub steps: String,
}

impl<'a> Plan<'a> {
    /// The four plugins as steps, all tables.
    pub fn new(queue: &str, state: &'a Path, reuse: u32) -> Self {
        let steps = PLUGINS.map(|plugin| step(plugin, plugin, reuse)).join("\n");
        Self { queue: queue.to_owned(), state, batch: BATCH, filled: Filled::All, steps }
    }

    /// Makes the folder; the four plugins are in it.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn build(&self) -> Result<Site> {
        let Self { queue, state, batch, filled, steps } = self;
        let none = *filled != Filled::All;
        // As is usual, unless a batch is so large that there would be no second one.
        let in_flight = (2 * batch).max(256);
        let (geo, countries) = match DATA.countries.as_ref().filter(|_| !none) {
            Some(file) => ("file = \"countries.mmdb\"", std::fs::read(file)?),
            None if none => ("file = \"countries.csv\"\nkey = \"network\"", b"network,country_code\n".to_vec()),
            None => ("file = \"countries.csv\"\nkey = \"network\"", alerts::countries().into_bytes()),
        };
        let block_list = match (filled, &DATA.block_list) {
            (Filled::None, _) => b"# nothing\n".to_vec(),
            (_, Some(file)) => std::fs::read(file)?,
            (_, None) => alerts::block_list().into_bytes(),
        };
        let assets = alerts::assets();
        let assets = if none { assets.lines().next().unwrap_or_default() } else { &assets };
        let site = Site::new(&format!(
            r##"
state_dir = {state:?}

[host]
in_flight = {in_flight}

[queue]
{queue}
batch = {batch}

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

{steps}
"##
        ));
        let file = geo.split('"').nth(1).context("the table has a file")?;
        site.write(file, &countries);
        site.write("blocklist.tsv", &block_list);
        site.write("assets.csv", assets.as_bytes());
        PLUGINS.iter().for_each(|plugin| site.install(plugin));
        Ok(site)
    }
}

/// A step of one of the four plugins.
pub fn step(plugin: &str, name: &str, reuse: u32) -> String {
    let more = match plugin {
        "ip-reputation" => {
            "tables = [\"blocklist\"]\n\
             settings = { feeds = [ { table = \"blocklist\", category = \"blocklist\", score = \"lists\" } ] }\n"
        }
        "asset" => "tables = [\"assets\"]\n",
        "geo" => "tables = [\"geo\"]\n",
        _ => "",
    };
    format!("[[step]]\nplugin = \"{plugin}\"\nname = \"{name}\"\n{more}reuse = {reuse}\n")
}

/// A folder with everything that a host needs. `queue` is what the configuration says of the queue; `more` are more steps.
///
/// # Errors
/// As [`Plan::build`].
pub fn with(queue: &str, reuse: u32, state: &Path, more: &str) -> Result<Site> {
    let mut plan = Plan::new(queue, state, reuse);
    plan.steps.push_str(more);
    plan.build()
}

/// Puts a small plugin into the folder that is another than all others: the guest `calls` under another name, of which there may be
/// 10,000. Gives its name.
///
/// # Errors
/// The guest cannot be read, or does not say its name.
pub fn install_another(site: &Site, number: usize) -> Result<String> {
    let (old, name) = (b"calls", format!("c{number:04}"));
    let mut bytes = std::fs::read(built("guests/calls.wasm"))?;
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, old).collect();
    anyhow::ensure!(!places.is_empty(), "the guest \"calls\" does not say its name");
    for place in places {
        bytes[place..place + old.len()].copy_from_slice(name.as_bytes());
    }
    site.write(&format!("plugins/.{name}"), &bytes);
    std::fs::rename(site.path(&format!("plugins/.{name}")), site.path(&format!("plugins/{name}.wasm")))?;
    Ok(name)
}
