//! Where the alert's addresses are.
//!
//! Looks every public `ip` observable up in a table: country, and city, location and network where the database has them.
//! It reads flat columns (`country_code`, `country`, `city`, …) and MaxMind's nested ones (`country.iso_code`,
//! `city.names.en`, `location.latitude`, `autonomous_system_number`, …). Addresses that are not public (private, loopback,
//! link-local, carrier NAT, multicast, documentation, reserved) are said as such and never looked up: databases answer
//! nonsense for them.
//!
//! Settings, with their defaults:
//! - `table = "geo"`: the table with countries and cities.
//! - `asn_table` (none): a second table with networks (`GeoLite2-ASN` and the like).
//!
//! Result: `{ "addresses": [ { "address", "roles", "scope", "country_code"?, "country"?, "city"?, "location"?: { "lat", "lon" },
//! "asn"?, "network"? } ], "countries": [ … ] }`, each address once, in the order of the observables; `countries` are the
//! distinct codes, sorted. Without any address in the alert: not applicable.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

use std::borrow::Cow;
use std::collections::BTreeSet;

use dossier_sdk::{Alert, Answer, Failure, Object, Plugin, Scope, addresses, tables};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Geo {
    table: String,
    asn_table: Option<String>,
}

impl Default for Geo {
    fn default() -> Self {
        Self { table: "geo".into(), asn_table: None }
    }
}

#[derive(Serialize)]
struct Found {
    addresses: Vec<Located>,
    countries: BTreeSet<String>,
}

#[derive(Serialize)]
struct Located {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    roles: Vec<String>,
    scope: Scope,
}

#[derive(Debug, PartialEq, Serialize)]
struct Location {
    lat: f64,
    lon: f64,
}

impl Located {
    fn new(found: dossier_sdk::Found) -> Self {
        let dossier_sdk::Found { text: address, roles, scope } = found;
        Self {
            address,
            asn: None,
            city: None,
            country: None,
            country_code: None,
            location: None,
            network: None,
            roles,
            scope,
        }
    }

    /// Takes from a row what is not known yet.
    fn add(&mut self, row: &Object) {
        let text = |known: &mut Option<String>, paths: &[&str]| {
            if known.is_none() {
                let texts = || paths.iter().filter_map(|path| row.text(path));
                *known = texts().find(|text| !text.is_empty()).map(Cow::into_owned);
            }
        };
        // CSV tables give numbers as text.
        let number = |paths: &[&str]| paths.iter().find_map(|path| row.number(path));
        text(&mut self.country_code, &["/country_code", "/country/iso_code", "/registered_country/iso_code"]);
        text(&mut self.country, &["/country_name", "/country/names/en", "/country", "/registered_country/names/en"]);
        text(&mut self.city, &["/city/names/en", "/city_name", "/city"]);
        if self.location.is_none() {
            let lat = number(&["/location/latitude", "/latitude", "/lat"]);
            let lon = number(&["/location/longitude", "/longitude", "/lon"]);
            self.location = lat.zip(lon).map(|(lat, lon)| Location { lat, lon });
        }
        if self.asn.is_none() {
            let bare = || row.text("/asn")?.trim_start_matches("AS").parse().ok();
            let asn =
                number(&["/autonomous_system_number", "/asn"]).filter(|asn| (0.0..=f64::from(u32::MAX)).contains(asn));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within u32 by the filter")]
            let asn = asn.map(|asn| asn as u64);
            self.asn = asn.or_else(bare);
        }
        text(&mut self.network, &["/autonomous_system_organization", "/as_name", "/as_organization"]);
    }
}

impl Plugin for Geo {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        let mut located = Vec::new();
        for found in addresses(alert)? {
            let mut one = Located::new(found);
            if one.scope == Scope::Public {
                for table in [Some(&self.table), self.asn_table.as_ref()].into_iter().flatten() {
                    if let Some(row) = tables::raw(table, &one.address)? {
                        one.add(&Object::parse(&row)?);
                    }
                }
            }
            located.push(one);
        }
        let countries = located.iter().filter_map(|one| one.country_code.clone()).collect();
        Answer::of(&Found { addresses: located, countries })
    }
}

dossier_sdk::export!(Geo);

#[cfg(test)]
mod tests {
    use dossier_sdk::testing::{Case, configure};
    use serde_json::{Value, json};

    use super::*;

    /// What is taken from rows, in this order.
    fn located(rows: &[Value]) -> Value {
        let found = dossier_sdk::Found { text: "2.125.160.216".into(), roles: Vec::new(), scope: Scope::Public };
        let mut located = Located::new(found);
        rows.iter().for_each(|row| located.add(&Object::parse(&row.to_string()).unwrap()));
        serde_json::to_value(located).unwrap()
    }

    fn run(case: &Case, settings: Value) -> Value {
        serde_json::from_str(&case.run(&configure::<Geo>(settings).unwrap()).unwrap().fields).unwrap()
    }

    #[test]
    fn an_address_that_is_not_public_is_never_looked_up() {
        let case = Case::new(json!({}))
            .observable("ip", "destination", "192.168.55.199")
            .observable("ip", "source", "::ffff:10.0.0.1")
            .row("geo", "192.168.55.199", json!({"country_code": "AU"}))
            .row("geo", "10.0.0.1", json!({"country_code": "AU"}));
        let result = run(&case, json!({}));
        assert_eq!(
            result["addresses"][0],
            json!({"address": "192.168.55.199", "roles": ["destination"], "scope": "private"})
        );
        assert_eq!(result["addresses"][1]["scope"], "private");
        assert_eq!(result["countries"], json!([]));
    }

    #[test]
    fn flat_and_nested_layouts_say_the_same() {
        let flat = located(&[
            json!({"country_code": "GB", "country": "United Kingdom", "city": "London", "lat": "51.5", "lon": "-0.1",
            "asn": "AS5089"}),
        ]);
        let nested = json!({"country": {"iso_code": "GB", "names": {"en": "United Kingdom"}}, "city": {"names": {"en": "London"}},
            "location": {"latitude": 51.5, "longitude": -0.1}});
        assert_eq!(flat, located(&[nested, json!({"autonomous_system_number": 5089})]));
        assert_eq!(flat["asn"], 5089);
        assert_eq!(flat["country"], "United Kingdom");
    }

    #[test]
    fn one_address_in_two_roles_is_located_once_and_the_networks_come_from_their_table() {
        let case = Case::new(json!({}))
            .observable("ip", "source", "8.8.8.8")
            .observable("ip", "related", "::ffff:8.8.8.8")
            .row("geo", "8.8.8.8", json!({"country_code": "US"}))
            .row(
                "asn",
                "8.8.8.8",
                json!({"autonomous_system_number": 15169, "autonomous_system_organization": "GOOGLE"}),
            );
        let result = run(&case, json!({"asn_table": "asn"}));
        let expected = json!([{"address": "8.8.8.8", "roles": ["source", "related"], "scope": "public", "country_code": "US",
            "asn": 15169, "network": "GOOGLE"}]);
        assert_eq!(result, json!({"addresses": expected, "countries": ["US"]}));
    }

    #[test]
    fn without_an_address_there_is_nothing_to_locate() {
        let geo = configure::<Geo>(json!({})).unwrap();
        assert!(matches!(
            Case::new(json!({})).observable("host", "source", "a").run(&geo),
            Err(Failure::NotApplicable(_))
        ));
        let missing = Case::new(json!({})).observable("ip", "source", "8.8.8.8").run(&geo);
        assert!(matches!(missing, Err(Failure::Internal(why)) if why.contains("\"geo\"")));
    }
}
