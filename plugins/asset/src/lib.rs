//! Whose machines the alert is about.
//!
//! Looks every `ip` and `host` observable up in one table with the columns `ip` (an address or a CIDR), `hostname`, `owner`,
//! `role` and `criticality` (`low`, `medium`, `high`, `critical`). Further columns are passed on as they are.
//!
//! Settings, with their defaults:
//! - `table = "assets"`: the table.
//! - `domains = []`: host names in these domains are also looked up by their first label (`dc01.corp.example` as `dc01` with
//!   `domains = ["corp.example"]`). Nothing is cut off by default: names come from attackers too.
//!
//! Result: `{ "assets": [ { "matched": [ { "kind", "role", "value" } ], "asset": { the row } } ], "criticality"? }`, each asset
//! once; `criticality` is the highest. An alert whose machines are all unknown has `"assets": []`; one without any `ip` or
//! `host` observable is not applicable.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

use std::net::Ipv4Addr;

use dossier_sdk::{Alert, Answer, Failure, Object, Observable, Plugin, parse_address, tables};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a criticality may be called, the lowest first.
const CRITICALITIES: [&str; 4] = ["low", "medium", "high", "critical"];

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Assets {
    table: String,
    domains: Vec<String>,
}

impl Default for Assets {
    fn default() -> Self {
        Self { table: "assets".into(), domains: Vec::new() }
    }
}

#[derive(Serialize)]
struct Match {
    kind: String,
    role: String,
    value: String,
}

#[derive(Serialize)]
struct Known {
    matched: Vec<Match>,
    /// The row as the table has it.
    asset: Box<RawValue>,
}

#[derive(Serialize)]
struct Found {
    assets: Vec<Known>,
    #[serde(skip_serializing_if = "Option::is_none")]
    criticality: Option<&'static str>,
}

impl Assets {
    /// The keys under which an observable may stand in the table, the best first.
    fn keys(&self, observable: &Observable) -> Vec<String> {
        if observable.value.parse::<Ipv4Addr>().is_ok() {
            return vec![observable.value.clone()];
        }
        if let Some(address) = parse_address(&observable.value) {
            return vec![address.to_string()];
        }
        let name = observable.value.trim().trim_end_matches('.').to_ascii_lowercase();
        let in_domain = |domain: &String| {
            let rest = name.strip_suffix(&domain.to_ascii_lowercase())?;
            rest.strip_suffix('.').filter(|label| !label.is_empty() && !label.contains('.'))
        };
        let label = self.domains.iter().find_map(in_domain).map(str::to_owned);
        [Some(name.clone()), label].into_iter().flatten().filter(|key| !key.is_empty()).collect()
    }
}

/// The place of a row's criticality in `CRITICALITIES`.
fn rank(asset: &RawValue) -> Option<usize> {
    let text = Object::parse(asset.get()).ok()?.text("/criticality")?;
    CRITICALITIES.iter().position(|name| name.eq_ignore_ascii_case(text.trim()))
}

impl Plugin for Assets {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        let mut observables = alert.observables_of("ip");
        observables.extend(alert.observables_of("host"));
        if observables.is_empty() {
            return Err(Failure::not_applicable("no address and no host in the alert"));
        }
        let mut assets: Vec<Known> = Vec::new();
        for observable in observables {
            for key in self.keys(&observable) {
                let Some(asset) = tables::raw(&self.table, &key)? else {
                    continue;
                };
                let Observable { kind, role, value } = observable;
                let matched = Match { kind, role, value };
                match assets.iter_mut().find(|known| known.asset.get() == asset) {
                    Some(known) => known.matched.push(matched),
                    None => assets.push(Known { matched: vec![matched], asset: RawValue::from_string(asset)? }),
                }
                break;
            }
        }
        let criticality = assets.iter().filter_map(|known| rank(&known.asset)).max().map(|rank| CRITICALITIES[rank]);
        Answer::of(&Found { assets, criticality })
    }
}

dossier_sdk::export!(Assets);

#[cfg(test)]
mod tests {
    use dossier_sdk::testing::{Case, configure};
    use serde_json::{Value, json};

    use super::*;

    fn run(case: &Case, settings: Value) -> Value {
        serde_json::from_str(&case.run(&configure::<Assets>(settings).unwrap()).unwrap().fields).unwrap()
    }

    #[test]
    fn an_asset_that_is_named_by_address_and_by_name_is_listed_once_with_both() {
        let dc01 = json!({"ip": "10.0.0.5", "hostname": "dc01", "owner": "it", "role": "domain controller", "criticality": "Critical"});
        let lan =
            json!({"ip": "10.0.1.0/24", "hostname": "", "owner": "it", "role": "workstations", "criticality": "low"});
        let case = Case::new(json!({}))
            .observable("ip", "source", "10.0.1.7")
            .observable("ip", "destination", "10.0.0.5")
            .observable("host", "destination", "DC01")
            .row("assets", "10.0.0.5", dc01.clone())
            .row("assets", "dc01", dc01.clone())
            .row("assets", "10.0.1.7", lan.clone());
        let result = run(&case, json!({}));
        assert_eq!(result["criticality"], "critical");
        assert_eq!(result["assets"].as_array().unwrap().len(), 2);
        assert_eq!(result["assets"][0]["asset"], lan);
        assert_eq!(result["assets"][1]["asset"], dc01);
        assert_eq!(result["assets"][1]["matched"][1], json!({"kind": "host", "role": "destination", "value": "DC01"}));
    }

    #[test]
    fn only_names_in_own_domains_lose_them() {
        let case = |name| {
            Case::new(json!({})).observable("host", "destination", name).row(
                "assets",
                "dc01",
                json!({"hostname": "dc01"}),
            )
        };
        let settings = json!({"domains": ["corp.example"]});
        assert_eq!(run(&case("dc01.corp.example."), settings.clone())["assets"][0]["asset"]["hostname"], "dc01");
        assert_eq!(run(&case("dc01.corp.example"), json!({}))["assets"], json!([]));
        assert_eq!(run(&case("dc01.evil.example"), settings.clone())["assets"], json!([]));
        assert_eq!(run(&case("dc01.xcorp.example"), settings)["assets"], json!([]));
    }

    #[test]
    fn unknown_machines_are_no_assets_and_no_machines_are_not_applicable() {
        let case = Case::new(json!({})).observable("ip", "source", "8.8.8.8").table("assets");
        assert_eq!(run(&case, json!({})), json!({"assets": []}));
        let nothing = Case::new(json!({})).observable("user", "source", "eve").table("assets");
        let assets = configure::<Assets>(json!({})).unwrap();
        assert!(matches!(nothing.run(&assets), Err(Failure::NotApplicable(_))));
    }
}
