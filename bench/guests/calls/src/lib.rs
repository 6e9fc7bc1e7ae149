//! Makes one kind of host call, as often as it is told, for the micro-benchmarks.
//!
//! Settings: `call`, the host call's name, and `times`. The calls `address` and `field` are what a small plugin does: it reads all of the
//! alert's addresses and looks the first one up, or reads the one field that it knows and looks that up.

use std::hint::black_box;

use dossier_sdk::{Alert, Answer, Failure, Plugin, log, tables};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Call {
    Id,
    Received,
    Json,
    Get,
    Text,
    Observables,
    Enrichment,
    EnrichmentText,
    Steps,
    Lookup,
    TableText,
    Log,
    Address,
    Field,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    call: Call,
    times: u32,
}

impl Calls {
    fn once(&self, alert: &Alert) -> Result<(), Failure> {
        match self.call {
            Call::Id => drop(black_box(alert.id())),
            Call::Received => _ = black_box(alert.received()),
            Call::Json => drop(black_box(alert.json())),
            Call::Get => drop(black_box(alert.raw("/alert"))),
            Call::Text => drop(black_box(alert.text("/alert/signature"))),
            Call::Observables => drop(black_box(alert.observables())),
            Call::Enrichment => drop(black_box(alert.enrichment_at::<String>("geo", "/countries/0"))),
            Call::EnrichmentText => drop(black_box(alert.enrichment_text("geo", "/countries/0"))),
            Call::Steps => drop(black_box(alert.steps())),
            Call::Lookup => drop(black_box(tables::raw("blocklist", "77.90.185.20")?)),
            Call::TableText => drop(black_box(tables::text("blocklist", "77.90.185.20", "/lists")?)),
            Call::Log => log::debug("nothing of interest"),
            Call::Address => {
                let found = alert.observables_of("ip");
                let address = found.first().map(|observable| observable.value.as_str()).unwrap_or_default();
                drop(black_box(tables::raw("blocklist", address)?));
            }
            Call::Field => {
                let address = alert.text("/src_ip").unwrap_or_default();
                drop(black_box(tables::raw("blocklist", &address)?));
            }
        }
        Ok(())
    }
}

impl Plugin for Calls {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        (0..self.times).try_for_each(|_| self.once(alert))?;
        Ok(Answer::from_json("{}"))
    }
}

dossier_sdk::export!(Calls);
