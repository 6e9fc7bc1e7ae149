//! As plugins/geo, without a second table of networks.

use std::collections::BTreeSet;

use dossier::pipeline::{Answer, Failure};
use dossier_sdk::Scope;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Case, Plain, answer};

pub(super) struct Geo {
    pub table: &'static str,
}

#[derive(Serialize)]
struct Located {
    address: String,
    roles: Vec<String>,
    scope: Scope,
    #[serde(flatten)]
    place: Place,
}

#[derive(Default, Serialize)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
}

#[derive(Serialize)]
struct Location {
    lat: f64,
    lon: f64,
}

impl Place {
    fn of(row: &Value) -> Self {
        let text = |paths: &[&str]| {
            paths.iter().find_map(|path| row.pointer(path)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
        };
        let number = |paths: &[&str]| {
            paths.iter().find_map(|path| {
                row.pointer(path).and_then(|value| value.as_f64().or_else(|| value.as_str()?.parse().ok()))
            })
        };
        let lat = number(&["/location/latitude", "/latitude", "/lat"]);
        let lon = number(&["/location/longitude", "/longitude", "/lon"]);
        let bare = || text(&["/asn"])?.trim_start_matches("AS").parse().ok();
        let asn =
            number(&["/autonomous_system_number", "/asn"]).filter(|asn| (0.0..=f64::from(u32::MAX)).contains(asn));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within u32 by the filter")]
        let asn = asn.map(|asn| asn as u32);
        Self {
            country_code: text(&["/country_code", "/country/iso_code", "/registered_country/iso_code"]),
            country: text(&["/country_name", "/country/names/en", "/country", "/registered_country/names/en"]),
            city: text(&["/city/names/en", "/city_name", "/city"]),
            location: lat.zip(lon).map(|(lat, lon)| Location { lat, lon }),
            asn: asn.or_else(bare),
            network: text(&["/autonomous_system_organization", "/as_name", "/as_organization"]),
        }
    }
}

impl Plain for Geo {
    fn enrich(&self, case: &mut Case<'_>) -> Result<Answer, Failure> {
        let mut located = Vec::new();
        for found in case.addresses()? {
            let row = match found.scope {
                Scope::Public => case.row::<Value>(self.table, &found.text)?,
                _ => None,
            };
            let place = row.as_ref().map(Place::of).unwrap_or_default();
            located.push(Located { address: found.text, roles: found.roles, scope: found.scope, place });
        }
        let countries: BTreeSet<_> = located.iter().filter_map(|one| one.place.country_code.as_deref()).collect();
        answer(&json!({ "addresses": located, "countries": countries }), None)
    }
}
