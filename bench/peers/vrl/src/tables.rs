//! The tables in memory, and the function that finds a row in one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use vrl::prelude::*;

/// The tables of the benchmark, ready to be handed out.
#[derive(Debug)]
pub struct Tables {
    block_list: HashMap<String, Value>,
    assets: HashMap<String, Value>,
    countries: Countries,
}

#[derive(Debug)]
enum Countries {
    Database(Box<maxminddb::Reader<Vec<u8>>>),
    /// By the first fifteen bits: what is made where there is no database has only such networks.
    Networks(HashMap<u32, Value>),
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

impl Tables {
    /// Reads them.
    pub fn load(folder: &Path) -> Result<Self> {
        let text = |name| std::fs::read_to_string(folder.join(name));
        let list = text("blocklist.tsv")?;
        let row = |line: &str| {
            let (address, lists) = line.split_once('\t')?;
            Some((address.to_owned(), object([("lists", Value::Integer(lists.trim().parse().ok()?))])))
        };
        let block_list = list.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect();
        let mut assets = HashMap::new();
        for line in text("assets.csv")?.lines().skip(1) {
            let cells: Vec<_> = line.split(',').collect();
            let names = ["ip", "hostname", "owner", "role", "criticality"];
            let row = object(names.into_iter().zip(cells.iter().map(|cell| Value::from(*cell))));
            assets.insert(cells[0].to_owned(), row);
        }
        let database = folder.join("countries.mmdb");
        let countries = if database.exists() {
            Countries::Database(Box::new(maxminddb::Reader::open_readfile(database)?))
        } else {
            let country = |line: &str| {
                let (network, code) = line.split_once("/15,")?;
                let first: std::net::Ipv4Addr = network.parse().ok()?;
                Some((u32::from(first) >> 17, object([("country_code", Value::from(code))])))
            };
            Countries::Networks(text("countries.csv")?.lines().skip(1).filter_map(country).collect())
        };
        Ok(Self { block_list, assets, countries })
    }

    fn row(&self, table: &str, key: &str) -> Option<Value> {
        match table {
            "blocklist" => self.block_list.get(key).cloned(),
            "assets" => self.assets.get(key).cloned(),
            _ => self.country(key.parse().ok()?),
        }
    }

    fn country(&self, address: IpAddr) -> Option<Value> {
        match &self.countries {
            Countries::Database(reader) => {
                let found: Option<HashMap<String, String>> = reader.lookup(address).ok()?.decode().ok()?;
                let fields = found?.into_iter().map(|(name, value)| (name.into(), Value::from(value)));
                Some(Value::Object(fields.collect()))
            }
            Countries::Networks(networks) => match address {
                IpAddr::V4(address) => networks.get(&(u32::from(address) >> 17)).cloned(),
                IpAddr::V6(_) => None,
            },
        }
    }
}

/// `row(table, key)`: the row of a table as an object, or null.
#[derive(Debug, Clone)]
pub struct Row(pub Arc<Tables>);

impl Function for Row {
    fn identifier(&self) -> &'static str {
        "row"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const PARAMETERS: &[Parameter] = &[
            Parameter { keyword: "table", kind: kind::BYTES, required: true, description: "The table.", default: None },
            Parameter { keyword: "key", kind: kind::BYTES, required: true, description: "The key.", default: None },
        ];
        PARAMETERS
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn compile(&self, _: &state::TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let (table, key) = (arguments.required("table"), arguments.required("key"));
        Ok(RowCall { tables: Arc::clone(&self.0), table, key }.as_expr())
    }
}

#[derive(Debug, Clone)]
struct RowCall {
    tables: Arc<Tables>,
    table: Box<dyn Expression>,
    key: Box<dyn Expression>,
}

impl FunctionExpression for RowCall {
    fn resolve(&self, context: &mut Context) -> Resolved {
        let (table, key) = (self.table.resolve(context)?, self.key.resolve(context)?);
        let row = self.tables.row(&table.try_bytes_utf8_lossy()?, &key.try_bytes_utf8_lossy()?);
        Ok(row.unwrap_or(Value::Null))
    }

    fn type_def(&self, _: &state::TypeState) -> TypeDef {
        TypeDef::any().infallible()
    }
}
