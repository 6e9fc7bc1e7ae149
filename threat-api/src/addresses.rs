//! What the threat API knows of addresses. Owns the file's format; does not know how it is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Deserializer};

/// Everything known, by address.
#[derive(Debug, Default)]
pub struct Addresses(HashMap<IpAddr, Report>);

/// What is known of one address: a line of the file.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// The address.
    #[serde(rename = "ip")]
    pub address: IpAddr,
    /// The confidence that it is abusive, in percent.
    pub score: u8,
    /// Whether it is on the list of those that are never reported.
    pub whitelisted: bool,
    /// ISO 3166 code.
    #[serde(deserialize_with = "filled")]
    pub country: Option<String>,
    /// What it is used for.
    #[serde(deserialize_with = "filled")]
    pub usage_type: Option<String>,
    /// Whose it is.
    #[serde(deserialize_with = "filled")]
    pub isp: Option<String>,
    /// The domain of the one whose it is.
    #[serde(deserialize_with = "filled")]
    pub domain: Option<String>,
    /// Whether it is a Tor exit.
    pub tor: bool,
    /// How often it was reported.
    pub reports: u32,
    /// By how many.
    pub users: u32,
    /// When last, RFC 3339.
    #[serde(deserialize_with = "filled")]
    pub last_reported: Option<String>,
}

/// An empty cell says nothing.
fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

impl Addresses {
    /// The addresses that the program comes with.
    ///
    /// # Errors
    /// None as long as the tests pass.
    pub fn built_in() -> anyhow::Result<Self> {
        Self::parse(include_str!("../addresses.csv")).context("addresses.csv")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or a line is wrong.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read; name another file with --data", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
        let reports = reader.deserialize().map(|row| row.map(|report: Report| (report.address, report)));
        Ok(Self(reports.collect::<Result<_, _>>()?))
    }

    /// What is known of an address; none when it was never reported.
    pub fn get(&self, address: IpAddr) -> Option<&Report> {
        self.0.get(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_is_readable_and_empty_cells_say_nothing() {
        let addresses = Addresses::built_in().unwrap();
        let resolver = addresses.get("9.9.9.9".parse().unwrap()).unwrap();
        assert!(resolver.whitelisted && resolver.last_reported.is_none());
        assert_eq!(addresses.get("185.220.101.34".parse().unwrap()).unwrap().score, 100);
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_number() {
        let header = "ip,score,whitelisted,country,usage_type,isp,domain,tor,reports,users,last_reported";
        let error = Addresses::parse(&format!("{header}\n192.0.2.1,many,false,,,,,false,0,0,")).unwrap_err();
        assert!(error.to_string().contains("line: 2"), "{error}");
    }
}
