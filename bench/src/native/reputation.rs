//! As plugins/ip-reputation, without a threat API and with lists of one category.

use std::collections::BTreeSet;

use dossier::pipeline::{Answer, Failure};
use dossier_sdk::Scope;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Case, Found, Plain, answer};

#[derive(Deserialize)]
pub(super) struct Reputation {
    feeds: Vec<Feed>,
}

#[derive(Deserialize)]
struct Feed {
    table: String,
    category: Category,
    score: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Category {
    Blocklist,
}

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
}

#[derive(Serialize)]
struct Overall<'a> {
    score: u8,
    trusted: bool,
    categories: BTreeSet<Category>,
    addresses: Vec<Reputed<'a>>,
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number: &f64| number.is_finite())
}

impl Feed {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 100")]
    fn listed(&self, row: &Map<String, Value>) -> Listed<'_> {
        let value = row.get(&self.score).and_then(number);
        let score = 8.0_f64.mul_add(value.unwrap_or(0.0), 40.0).clamp(0.0, 100.0).round() as u8;
        Listed { table: &self.table, category: self.category, score, value }
    }
}

impl Reputation {
    fn look_up(&self, case: &mut Case<'_>, found: Found) -> Result<Reputed<'_>, Failure> {
        let mut feeds = Vec::new();
        for feed in self.feeds.iter().filter(|_| found.scope == Scope::Public) {
            feeds.extend(case.row::<Map<String, Value>>(&feed.table, &found.text)?.map(|row| feed.listed(&row)));
        }
        let Found { text: address, roles, scope } = found;
        let categories = feeds.iter().map(|feed| feed.category).collect();
        let further = u8::try_from(feeds.len().saturating_sub(1) * 5).unwrap_or(100);
        let highest = feeds.iter().map(|feed| feed.score).max();
        let score = highest.map_or(0, |highest| highest.saturating_add(further)).min(100);
        Ok(Reputed { address, roles, scope, score, trusted: false, categories, feeds })
    }
}

impl Plain for Reputation {
    fn enrich(&self, case: &mut Case<'_>) -> Result<Answer, Failure> {
        let addresses = case.addresses()?.into_iter().map(|found| self.look_up(case, found));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let overall = Overall {
            score: addresses.iter().map(|reputed| reputed.score).max().unwrap_or(0),
            trusted: false,
            categories: addresses.iter().flat_map(|reputed| reputed.categories.iter().copied()).collect(),
            addresses,
        };
        answer(&overall, None)
    }
}
