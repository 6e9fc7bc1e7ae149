//! Says what a table knows of an alert's addresses.
//!
//! Setting: `table`, the table to look into (default: `addresses`).
//! Result: `{ "matches": [ { "address", "role", "row" } ] }`; not applicable to an alert without addresses.

use dossier_sdk::{Alert, Answer, Failure, Plugin, tables};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The settings that an operator may give, and what they are otherwise.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    table: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: "addresses".into(),
        }
    }
}

#[derive(Serialize)]
struct Match {
    address: String,
    role: String,
    row: Value,
}

#[derive(Serialize)]
struct Found {
    matches: Vec<Match>,
}

struct Addresses {
    settings: Settings,
}

impl Plugin for Addresses {
    type Settings = Settings;

    // Once, when the plugin is loaded: every alert begins with a copy of what this makes.
    fn configure(settings: Settings) -> Result<Self, String> {
        if settings.table.is_empty() {
            return Err("settings: table: must not be empty".into());
        }
        Ok(Self { settings })
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        let addresses = alert.observables_of("ip");
        if addresses.is_empty() {
            return Err(Failure::not_applicable("no address in the alert"));
        }
        let mut matches = Vec::new();
        for address in addresses {
            if let Some(row) = tables::lookup(&self.settings.table, &address.value)? {
                let (address, role) = (address.value, address.role);
                matches.push(Match { address, role, row });
            }
        }
        Answer::of(&Found { matches })
    }
}

dossier_sdk::export!(Addresses);

// They run natively, with `cargo test`: no host and no wasm.
#[cfg(test)]
mod tests {
    use dossier_sdk::testing::{Case, configure};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_in_the_table_is_a_match() {
        let plugin = configure::<Addresses>(json!({ "table": "hosts" })).unwrap();
        let case = Case::new(json!({}))
            .observable("ip", "source", "192.0.2.7")
            .observable("ip", "destination", "10.0.0.5")
            .row("hosts", "192.0.2.7", json!({ "owner": "guests" }));
        let answer = case.run(&plugin).unwrap();
        let fields: Value = serde_json::from_str(&answer.fields).unwrap();
        let row = json!({ "owner": "guests" });
        let found = json!({ "address": "192.0.2.7", "role": "source", "row": row });
        assert_eq!(fields, json!({ "matches": [found] }));
    }

    #[test]
    fn an_alert_without_addresses_is_none_of_its_business() {
        let plugin = configure::<Addresses>(json!({})).unwrap();
        let answer = Case::new(json!({})).table("addresses").run(&plugin);
        assert!(matches!(answer, Err(Failure::NotApplicable(_))));
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused() {
        assert!(configure::<Addresses>(json!({ "tabel": "hosts" })).is_err());
    }
}
