//! Why the verdict is what it is, in sentences, the weightiest first.

use std::ops::Deref;

use crate::earlier::{Known, Listed, Reputed, Text};
use crate::{Evidence, Points};

/// One sentence for each part that says something.
pub(crate) fn of(evidence: &Evidence<'_>, points: &Points, watch: &[String]) -> Vec<String> {
    let mut reasons: Vec<(f64, String)> = Vec::new();
    if let Some(reputation) = &evidence.reputation {
        if let Some(source) = reputation.trusted_source() {
            reasons.push((points.trusted, format!("{} is trusted ({})", named(source), tables(source, "trusted"))));
        }
        let mut listed: Vec<_> = reputation.addresses.iter().filter(|address| address.score > 0).collect();
        listed.sort_by_key(|address| (address.trusted, std::cmp::Reverse(address.score)));
        for (place, address) in listed.into_iter().enumerate() {
            // The highest score is what counts; the others are told after it.
            let weight = if place == 0 && !address.trusted { points.reputation } else { 0.0 };
            reasons.push((weight, format!("{} {}", named(address), standing(address))));
        }
        if reputation.addresses.iter().all(|address| address.score == 0) && !reputation.addresses.is_empty() {
            reasons.push((0.0, "no address of the alert is on any list".into()));
        }
    }
    if let Some(assets) = &evidence.assets {
        let mut known: Vec<_> = assets.assets.iter().collect();
        known.sort_by(|one, other| other.share().total_cmp(&one.share()));
        for (place, asset) in known.into_iter().enumerate() {
            reasons.push((if place == 0 { points.asset } else { 0.0 }, described(asset)));
        }
    }
    if let Some(severity) = evidence.severity {
        reasons.push((points.severity, format!("the sensor rates the alert {}", severity.word())));
    }
    if let Some(geography) = &evidence.geography {
        let watched = geography.source_in(watch);
        if let Some(source) = watched.or_else(|| geography.source()) {
            let address = &source.address;
            let code = source.country_code.as_deref();
            let place = match (source.country.as_deref(), code) {
                (Some(name), Some(code)) => Some(format!("{address} (source) is in {name} ({code})")),
                (None, Some(code)) => Some(format!("{address} (source) is in {code}")),
                _ if !matches!(&*source.scope, "public" | "") => {
                    Some(format!("{address} (source) is a {} address", source.scope))
                }
                _ => None,
            };
            let note = if watched.is_some() { ", a country on the watch list" } else { "" };
            reasons.extend(place.map(|place| (points.geography, format!("{place}{note}"))));
        }
    }
    reasons.sort_by(|one, other| other.0.abs().total_cmp(&one.0.abs()));
    reasons.into_iter().map(|(_, reason)| reason).collect()
}

fn named(address: &Reputed<'_>) -> String {
    match address.roles.as_slice() {
        [] => address.address.to_string(),
        roles => format!("{} ({})", address.address, roles.iter().map(Text::deref).collect::<Vec<_>>().join(", ")),
    }
}

fn tables(address: &Reputed<'_>, category: &str) -> String {
    let tables: Vec<_> =
        address.feeds.iter().filter(|feed| feed.category == category).map(|feed| &*feed.table).collect();
    tables.join(", ")
}

/// What an address is, as the lists and the API have it.
fn standing(address: &Reputed<'_>) -> String {
    let is = |category: &str| address.categories.iter().any(|one| &**one == category);
    let mut facts = Vec::new();
    if is("c2") {
        facts.push("is a known command-and-control server".to_owned());
    }
    let block: Vec<&Listed<'_>> = address.feeds.iter().filter(|feed| feed.category == "blocklist").collect();
    if !block.is_empty() {
        let lists: f64 = block.iter().map(|feed| feed.value.unwrap_or(1.0).max(1.0)).sum();
        facts.push(if lists < 2.0 { "is on a block list".to_owned() } else { format!("is on {lists:.0} block lists") });
    }
    if is("tor-exit") {
        facts.push("is a Tor exit".to_owned());
    }
    if is("anonymizer") {
        facts.push("is an anonymizer".to_owned());
    }
    if let Some(api) = &address.api {
        facts.push(format!("has an abuse confidence of {} from {} reports", api.score, api.reports));
    }
    joined(&facts)
}

/// "is a", "is a and is b" without the second "is", "is a, b and c".
fn joined(facts: &[String]) -> String {
    let short = |fact: &String| fact.strip_prefix("is ").unwrap_or(fact).to_owned();
    match facts {
        [] => "has a bad reputation".into(),
        [one] => one.clone(),
        [first, middle @ .., last] => {
            let mut text = first.clone();
            middle.iter().for_each(|fact| text.extend([", ".to_owned(), short(fact)]));
            format!("{text} and {}", short(last))
        }
    }
}

fn described(known: &Known<'_>) -> String {
    let text = |column| known.asset.text(column).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let first = known.matched.first();
    let part = match first.map(|found| &*found.role) {
        Some("destination") => "the target ",
        Some("source") => "the source ",
        _ => "",
    };
    let name = text("/hostname").or_else(|| first.map(|found| found.value.to_string())).unwrap_or_default();
    let role = text("/role");
    let what = match &role {
        Some(role) => {
            format!("is {} {role}", if role.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) { "an" } else { "a" })
        }
        None => "is an asset".into(),
    };
    match text("/criticality") {
        Some(criticality) => format!("{part}{name} {what} of criticality {}", criticality.to_ascii_lowercase()),
        None => format!("{part}{name} {what}"),
    }
}
