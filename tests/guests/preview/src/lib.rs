//! A plugin for the version of the contract that is in development (`wit/next`): what is new there works, and what version 1
//! has works there, too.
//!
//! Looks the keys in the text at `/keys` of the alert (separated by spaces) up in the table `assets`, all at once, and answers
//! `{ "id", "rows": [ … ] }`, with `null` where there is no row.

#![allow(missing_docs, unsafe_code, reason = "generated code")]

wit_bindgen::generate!({ path: "../../../wit/next", world: "plugin" });

use dossier::plugin::tables::lookup_all;
use dossier::plugin::types::{Alert, Answer, Description, Failure, Stage};
use exports::dossier::plugin::enricher::Guest;

struct Preview;

impl Guest for Preview {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: env!("CARGO_PKG_DESCRIPTION").into(),
            stage: Stage::Enrich,
            result_schema: None,
        }
    }

    fn configure(_: String) -> Result<(), String> {
        Ok(())
    }

    fn enrich(alert: &Alert) -> Result<Answer, Failure> {
        let keys = alert.text("/keys").ok_or_else(|| Failure::NotApplicable("no keys".into()))?;
        let keys: Vec<_> = keys.split(' ').map(str::to_owned).collect();
        let rows = lookup_all("assets", &keys).map_err(|error| Failure::Internal(error.to_string()))?;
        let rows: Vec<_> = rows.into_iter().map(|row| row.unwrap_or_else(|| "null".into())).collect();
        let fields = format!("{{\"id\":\"{}\",\"rows\":[{}]}}", alert.id(), rows.join(","));
        Ok(Answer { fields, observables: Vec::new(), verdict: None })
    }
}

export!(Preview);
