//! A threat API in the form of AbuseIPDB v2 `check` (<https://docs.abuseipdb.com/#check-endpoint>). The key is not its
//! business: the host adds it.

use dossier_sdk::{Failure, http};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    url: String,
    max_age_days: u16,
    pub(crate) min_score: u8,
    pub(crate) max_addresses: usize,
}

impl Default for Api {
    fn default() -> Self {
        Self { url: "https://api.abuseipdb.com".into(), max_age_days: 90, min_score: 25, max_addresses: 5 }
    }
}

/// What the API thinks of an address.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Opinion {
    pub(crate) score: u8,
    reports: u64,
    pub(crate) tor: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    abuse_confidence_score: u8,
    #[serde(default)]
    total_reports: u64,
    #[serde(default)]
    is_tor: Option<bool>,
    #[serde(default)]
    usage_type: Option<String>,
}

impl Api {
    /// Asks about one address.
    pub(crate) fn check(&self, address: &str) -> Result<Opinion, Failure> {
        // The colons of IPv6 may stand in a query as they are (RFC 3986, 3.4).
        let url = self.url.trim_end_matches('/');
        let url = format!("{url}/api/v2/check?ipAddress={address}&maxAgeInDays={}", self.max_age_days);
        let response = http::Request::new("GET", url).header("accept", "application/json").send()?;
        if matches!(response.status, 401 | 403) {
            return Err(response.unavailable("the API refuses the key; mend the credentials of the step's http grant"));
        }
        let Envelope { data } = response.success()?.json()?;
        Ok(Opinion {
            score: data.abuse_confidence_score.min(100),
            reports: data.total_reports,
            tor: data.is_tor.unwrap_or(false),
            usage: data.usage_type.filter(|usage| !usage.is_empty()),
        })
    }
}
