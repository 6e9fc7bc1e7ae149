//! As plugins/asset, without domains to cut off.

use dossier::pipeline::{Answer, Failure};
use dossier_sdk::parse_address;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Case, Plain, answer};

const CRITICALITIES: [&str; 4] = ["low", "medium", "high", "critical"];

pub(super) struct Assets {
    pub table: &'static str,
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
    asset: Map<String, Value>,
}

#[derive(Serialize)]
struct Found {
    assets: Vec<Known>,
    #[serde(skip_serializing_if = "Option::is_none")]
    criticality: Option<&'static str>,
}

fn key(value: &str) -> Option<String> {
    if let Some(address) = parse_address(value) {
        return Some(address.to_string());
    }
    let name = value.trim().trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

fn rank(asset: &Map<String, Value>) -> Option<usize> {
    let text = asset.get("criticality")?.as_str()?.trim();
    CRITICALITIES.iter().position(|name| name.eq_ignore_ascii_case(text))
}

impl Plain for Assets {
    fn enrich(&self, case: &mut Case<'_>) -> Result<Answer, Failure> {
        let given = case.given;
        let of = |kind: &'static str| given.observables.iter().filter(move |observable| observable.kind == kind);
        let mut none = true;
        let mut assets: Vec<Known> = Vec::new();
        for observable in of("ip").chain(of("host")) {
            none = false;
            let Some(key) = key(&observable.value) else { continue };
            let Some(asset) = case.row::<Map<String, Value>>(self.table, &key)? else { continue };
            let matched =
                Match { kind: observable.kind.clone(), role: observable.role.clone(), value: observable.value.clone() };
            match assets.iter_mut().find(|known| known.asset == asset) {
                Some(known) => known.matched.push(matched),
                None => assets.push(Known { matched: vec![matched], asset }),
            }
        }
        if none {
            return Err(Failure::NotApplicable("no address and no host in the alert".into()));
        }
        let criticality = assets.iter().filter_map(|known| rank(&known.asset)).max().map(|rank| CRITICALITIES[rank]);
        answer(&Found { assets, criticality }, None)
    }
}
