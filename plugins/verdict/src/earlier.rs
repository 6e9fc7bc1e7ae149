//! The results of earlier steps, as far as a verdict needs them. What is missing in them counts nothing.

use serde::Deserialize;

/// What `ip-reputation` gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reputations {
    pub(crate) score: u8,
    pub(crate) addresses: Vec<Reputed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reputed {
    pub(crate) address: String,
    pub(crate) roles: Vec<String>,
    pub(crate) score: u8,
    pub(crate) trusted: bool,
    pub(crate) categories: Vec<String>,
    pub(crate) feeds: Vec<Listed>,
    pub(crate) api: Option<Opinion>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Listed {
    pub(crate) table: String,
    pub(crate) category: String,
    pub(crate) value: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Opinion {
    pub(crate) score: u8,
    pub(crate) reports: u64,
}

impl Reputations {
    pub(crate) fn trusted_source(&self) -> Option<&Reputed> {
        self.addresses.iter().find(|address| address.trusted && is_source(&address.roles))
    }
}

/// What `asset` gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Assets {
    pub(crate) assets: Vec<Known>,
    criticality: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Known {
    pub(crate) matched: Vec<Match>,
    pub(crate) asset: Asset,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Match {
    pub(crate) role: String,
    pub(crate) value: String,
}

/// A row of the operator's own table: any column may be of any type, and what is no text says nothing here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asset {
    pub(crate) hostname: serde_json::Value,
    pub(crate) role: serde_json::Value,
    pub(crate) criticality: serde_json::Value,
}

impl Assets {
    /// The share of the weight that the highest criticality gives.
    pub(crate) fn share(&self) -> f64 {
        self.criticality.as_deref().map_or(0.0, share)
    }
}

impl Asset {
    pub(crate) fn share(&self) -> f64 {
        self.criticality.as_str().map_or(0.0, share)
    }
}

fn share(criticality: &str) -> f64 {
    match criticality.trim().to_ascii_lowercase().as_str() {
        "critical" => 1.0,
        "high" => 0.7,
        "medium" => 0.3,
        _ => 0.0,
    }
}

/// What `geo` gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Geography {
    addresses: Vec<Located>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Located {
    pub(crate) address: String,
    roles: Vec<String>,
    pub(crate) scope: String,
    pub(crate) country_code: Option<String>,
    pub(crate) country: Option<String>,
}

impl Geography {
    /// The first source that is in one of these countries.
    pub(crate) fn source_in(&self, countries: &[String]) -> Option<&Located> {
        self.addresses.iter().filter(|located| is_source(&located.roles)).find(|located| {
            let code = located.country_code.as_deref().unwrap_or_default();
            countries.iter().any(|country| country.eq_ignore_ascii_case(code))
        })
    }

    pub(crate) fn source(&self) -> Option<&Located> {
        self.addresses.iter().find(|located| is_source(&located.roles))
    }
}

fn is_source(roles: &[String]) -> bool {
    roles.iter().any(|role| role == "source")
}
