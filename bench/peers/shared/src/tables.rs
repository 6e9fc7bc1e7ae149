//! The benchmark's tables in memory: rows in whatever form a peer wants them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The block list, the assets and the countries.
#[derive(Debug)]
pub struct Tables<R> {
    block_list: HashMap<String, R>,
    assets: HashMap<String, R>,
    countries: Countries<R>,
    made: fn(Value) -> R,
}

#[derive(Debug)]
enum Countries<R> {
    Database(Box<maxminddb::Reader<Vec<u8>>>),
    /// By the first fifteen bits: what is made where there is no database has only such networks.
    Networks(HashMap<u32, R>),
}

impl<R: Clone> Tables<R> {
    /// Reads them from the folder of a row; `made` gives a row its form.
    pub fn load(folder: &Path, made: fn(Value) -> R) -> Result<Self> {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
        let mut block_list = HashMap::new();
        for line in text("blocklist.tsv")?.lines().filter(|line| !line.starts_with('#')) {
            let (ip, lists) = line.split_once('\t').context("a line of the block list has no tab")?;
            block_list.insert(ip.to_owned(), made(json!({"ip": ip, "lists": lists.trim()})));
        }
        let assets = text("assets.csv")?;
        let mut lines = assets.lines().map(|line| line.split(','));
        let names: Vec<_> = lines.next().context("the assets have no header")?.collect();
        let mut assets = HashMap::new();
        for line in lines {
            let row: Value = names
                .iter()
                .zip(line)
                .map(|(name, cell)| ((*name).to_owned(), cell.into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
            for key in ["ip", "hostname"].iter().filter_map(|name| row[name].as_str().map(str::to_owned)) {
                assets.insert(key, made(row.clone()));
            }
        }
        let database = folder.join("countries.mmdb");
        let countries = if database.exists() {
            Countries::Database(Box::new(maxminddb::Reader::open_readfile(database)?))
        } else {
            let mut networks = HashMap::new();
            for line in text("countries.csv")?.lines().skip(1) {
                let (network, code) = line.split_once("/15,").context("a network is no /15")?;
                let row = json!({"network": format!("{network}/15"), "country_code": code});
                networks.insert(u32::from(network.parse::<Ipv4Addr>()?) >> 17, made(row));
            }
            Countries::Networks(networks)
        };
        Ok(Self { block_list, assets, countries, made })
    }

    /// The row with this key.
    pub fn row(&self, table: &str, key: &str) -> Option<R> {
        match table {
            "blocklist" => self.block_list.get(key).cloned(),
            "assets" => self.assets.get(key).cloned(),
            _ => match (&self.countries, key.parse().ok()?) {
                (Countries::Database(reader), address) => {
                    Some((self.made)(reader.lookup(address).ok()?.decode::<Value>().ok()??))
                }
                (Countries::Networks(networks), IpAddr::V4(address)) => {
                    networks.get(&(u32::from(address) >> 17)).cloned()
                }
                (Countries::Networks(_), IpAddr::V6(_)) => None,
            },
        }
    }
}
