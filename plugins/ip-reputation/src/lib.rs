//! On which lists the alert's addresses are, and what a threat API thinks of them.
//!
//! Settings, with their defaults:
//! - `feeds = []`: the lists, each a table whose key is an address:
//!   - `table`: the table's name.
//!   - `category`: `blocklist`, `tor-exit`, `c2`, `anonymizer` or `trusted` (the office VPN and the like).
//!   - `base` (by category: blocklist 40, tor-exit 60, c2 95, anonymizer 40): the score of being listed at all.
//!   - `score` (none): a column with a number that raises the score, such as on how many lists the address is.
//!   - `weight = 8`: the points for each unit of that number. A column from 0 to 100 wants `base = 0, weight = 1`.
//! - `api` (none): a threat API in the form of AbuseIPDB v2 `check`. The step needs an HTTP grant for it, and the grant has
//!   the key.
//!   - `url = "https://api.abuseipdb.com"`: what stands before `/api/v2/check`.
//!   - `max_age_days = 90`: reports older than that do not count.
//!   - `min_score = 25`: a confidence below this is noted, but does not count.
//!   - `max_addresses = 5`: no more requests than this for one alert; the rest is listed under `api_skipped`.
//!
//! At least one of the two must be given. Addresses that are not public are looked up in `trusted` feeds only, and neither
//! they nor trusted addresses are shown to the API.
//!
//! Result: `{ "score", "trusted", "categories", "addresses": [ { "address", "roles", "scope", "score", "trusted", "categories",
//! "feeds": [ { "table", "category", "score", "value"? } ], "api"?: { "score", "reports", "tor", "usage"? } } ],
//! "api_skipped"?: [ … ] }`. Scores go from 0 to 100: the highest of feeds and API, and 5 more for each further feed; a
//! trusted address does not count for the overall score, which is the highest. `trusted` is true when an address is. Without
//! any address: not applicable.
//!
//! An API that is down, hangs, or has had enough (5xx, 429) is `unavailable`, with what it says about when to come back; so
//! is one that refuses the key (401, 403): neither the alert nor the plugin is wrong, and once the key is mended the same
//! call succeeds. Answering without the API instead would store alerts that look harmless because nobody was asked.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

mod api;

use std::collections::BTreeSet;

use api::{Api, Opinion};
use dossier_sdk::{Alert, Answer, Failure, Found, Object, Plugin, Scope, addresses, log, tables};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Category {
    C2,
    TorExit,
    Blocklist,
    Anonymizer,
    Trusted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feed {
    table: String,
    category: Category,
    base: Option<f64>,
    score: Option<String>,
    #[serde(default = "eight")]
    weight: f64,
}

fn eight() -> f64 {
    8.0
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    feeds: Vec<Feed>,
    api: Option<Api>,
}

struct Reputation(Settings);

#[derive(Serialize)]
struct Listed<'a> {
    table: &'a str,
    category: Category,
    score: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
}

#[derive(Serialize)]
struct Reputed<'a> {
    address: String,
    roles: Vec<String>,
    scope: Scope,
    score: u8,
    trusted: bool,
    categories: BTreeSet<Category>,
    feeds: Vec<Listed<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<Opinion>,
}

#[derive(Serialize)]
struct Overall<'a> {
    score: u8,
    trusted: bool,
    categories: BTreeSet<Category>,
    addresses: Vec<Reputed<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    api_skipped: Vec<String>,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 100")]
fn points(score: f64) -> u8 {
    score.clamp(0.0, 100.0).round() as u8
}

impl Feed {
    /// What being in this feed with this row means.
    fn listed(&self, address: &str, row: &str) -> Result<Listed<'_>, Failure> {
        let mut value = None;
        if let Some(column) = &self.score {
            // CSV tables give numbers as text.
            value = Object::parse(row)?.field_number(column);
            if value.is_none() {
                log::warn(&format!("table \"{}\": row of {address} has no number in column \"{column}\"", self.table));
            }
        }
        let base = self.base.unwrap_or(match self.category {
            Category::C2 => 95.0,
            Category::TorExit => 60.0,
            Category::Blocklist | Category::Anonymizer => 40.0,
            Category::Trusted => 0.0,
        });
        let score = if self.category == Category::Trusted {
            0
        } else {
            points(self.weight.mul_add(value.unwrap_or(0.0), base))
        };
        Ok(Listed { table: &self.table, category: self.category, score, value })
    }
}

impl Reputation {
    /// What the feeds say about an address.
    fn look_up(&self, found: Found) -> Result<Reputed<'_>, Failure> {
        let mut feeds = Vec::new();
        for feed in &self.0.feeds {
            if found.scope != Scope::Public && feed.category != Category::Trusted {
                continue;
            }
            if let Some(row) = tables::raw(&feed.table, &found.text)? {
                feeds.push(feed.listed(&found.text, &row)?);
            }
        }
        let Found { text: address, roles, scope } = found;
        let categories: BTreeSet<_> = feeds.iter().map(|feed| feed.category).collect();
        let trusted = categories.contains(&Category::Trusted);
        Ok(Reputed { address, roles, scope, score: 0, trusted, categories, feeds, api: None })
    }
}

impl Reputed<'_> {
    /// The score of everything that is known: the highest, and 5 for each feed beyond the first.
    fn settle(&mut self, min_score: u8) {
        let counted = |feed: &&Listed| feed.category != Category::Trusted;
        let highest = self.feeds.iter().filter(counted).map(|feed| feed.score).max();
        let further = self.feeds.iter().filter(counted).count().saturating_sub(1);
        let feeds = highest.map_or(0, |highest| highest.saturating_add(u8::try_from(further * 5).unwrap_or(100)));
        let api = self.api.as_ref().map(|api| api.score).filter(|score| *score >= min_score).unwrap_or(0);
        if self.api.as_ref().is_some_and(|api| api.tor) {
            self.categories.insert(Category::TorExit);
        }
        self.score = feeds.max(api).min(100);
    }
}

impl Plugin for Reputation {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        if settings.feeds.is_empty() && settings.api.is_none() {
            return Err("settings: neither feeds nor an api; name at least one, as in \
                        feeds = [ { table = \"ipsum\", category = \"blocklist\", score = \"lists\" } ]"
                .into());
        }
        Ok(Self(settings))
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        let mut addresses =
            addresses(alert)?.into_iter().map(|found| self.look_up(found)).collect::<Result<Vec<_>, _>>()?;
        let mut api_skipped = Vec::new();
        if let Some(api) = &self.0.api {
            let mut left = api.max_addresses;
            for reputed in addresses.iter_mut().filter(|reputed| reputed.scope == Scope::Public && !reputed.trusted) {
                if left == 0 {
                    api_skipped.push(reputed.address.clone());
                    continue;
                }
                left -= 1;
                reputed.api = Some(api.check(&reputed.address)?);
            }
        }
        let min_score = self.0.api.as_ref().map_or(0, |api| api.min_score);
        addresses.iter_mut().for_each(|reputed| reputed.settle(min_score));
        Answer::of(&Overall {
            score: addresses.iter().filter(|reputed| !reputed.trusted).map(|reputed| reputed.score).max().unwrap_or(0),
            trusted: addresses.iter().any(|reputed| reputed.trusted),
            categories: addresses.iter().flat_map(|reputed| reputed.categories.iter().copied()).collect(),
            addresses,
            api_skipped,
        })
    }
}

dossier_sdk::export!(Reputation);

#[cfg(test)]
mod tests;
