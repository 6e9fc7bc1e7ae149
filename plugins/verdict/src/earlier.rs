//! The results of earlier steps, as far as a verdict needs them. What is missing in them counts nothing. Their texts stay where
//! they are: copying them would cost more than the verdict.

use std::borrow::Cow;
use std::ops::Deref;

use dossier_sdk::{Failure, Object};
use serde::Deserialize;

/// Reads the result of a step; none when it gave none.
pub(crate) fn read<'a, T: Deserialize<'a>>(step: &str, json: Option<&'a str>) -> Result<Option<T>, Failure> {
    json.map(serde_json::from_str)
        .transpose()
        .map_err(|error| Failure::internal(format!("result of step \"{step}\" has an unexpected form: {error}")))
}

/// A text in a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What `ip-reputation` gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reputations<'a> {
    pub(crate) score: u8,
    #[serde(borrow)]
    pub(crate) addresses: Vec<Reputed<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reputed<'a> {
    #[serde(borrow)]
    pub(crate) address: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) roles: Vec<Text<'a>>,
    pub(crate) score: u8,
    pub(crate) trusted: bool,
    #[serde(borrow)]
    pub(crate) categories: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(crate) feeds: Vec<Listed<'a>>,
    pub(crate) api: Option<Opinion>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Listed<'a> {
    #[serde(borrow)]
    pub(crate) table: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) category: Cow<'a, str>,
    pub(crate) value: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Opinion {
    pub(crate) score: u8,
    pub(crate) reports: u64,
}

impl<'a> Reputations<'a> {
    pub(crate) fn trusted_source(&self) -> Option<&Reputed<'a>> {
        self.addresses.iter().find(|address| address.trusted && is_source(&address.roles))
    }
}

/// What `asset` gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Assets<'a> {
    #[serde(borrow)]
    pub(crate) assets: Vec<Known<'a>>,
    #[serde(borrow)]
    criticality: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Known<'a> {
    #[serde(borrow)]
    pub(crate) matched: Vec<Match<'a>>,
    /// A row of the operator's own table: any column may be of any type, and what is no text says nothing here.
    #[serde(borrow)]
    pub(crate) asset: Object<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Match<'a> {
    #[serde(borrow)]
    pub(crate) role: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) value: Cow<'a, str>,
}

impl<'a> Assets<'a> {
    /// The share of the weight that the highest criticality gives.
    pub(crate) fn share(&self) -> f64 {
        self.criticality.as_deref().map_or(0.0, share)
    }
}

impl Known<'_> {
    pub(crate) fn share(&self) -> f64 {
        self.asset.text("/criticality").map_or(0.0, |criticality| share(&criticality))
    }
}

fn share(criticality: &str) -> f64 {
    let shares = [("critical", 1.0), ("high", 0.7), ("medium", 0.3)];
    let known = shares.iter().find(|(name, _)| name.eq_ignore_ascii_case(criticality.trim()));
    known.map_or(0.0, |(_, share)| *share)
}

/// What `geo` gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Geography<'a> {
    #[serde(borrow)]
    addresses: Vec<Located<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Located<'a> {
    #[serde(borrow)]
    pub(crate) address: Cow<'a, str>,
    #[serde(borrow)]
    roles: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(crate) scope: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) country_code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) country: Option<Cow<'a, str>>,
}

impl<'a> Geography<'a> {
    /// The first source that is in one of these countries.
    pub(crate) fn source_in(&self, countries: &[String]) -> Option<&Located<'a>> {
        self.addresses.iter().filter(|located| is_source(&located.roles)).find(|located| {
            let code = located.country_code.as_deref().unwrap_or_default();
            countries.iter().any(|country| country.eq_ignore_ascii_case(code))
        })
    }

    pub(crate) fn source(&self) -> Option<&Located<'a>> {
        self.addresses.iter().find(|located| is_source(&located.roles))
    }
}

fn is_source(roles: &[Text<'_>]) -> bool {
    roles.iter().any(|role| &**role == "source")
}
