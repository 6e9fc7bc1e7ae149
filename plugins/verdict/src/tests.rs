//! Native tests: scales, thresholds, trust, and sentences.

use dossier_sdk::testing::{Case, configure};
use serde_json::{Value, json};

use super::*;

const TOR: &str = "185.220.101.1";

fn listed(score: u8, trusted: bool) -> Value {
    let mut feeds = vec![
        json!({"table": "ipsum", "category": "blocklist", "score": 96, "value": 7}),
        json!({"table": "tor", "category": "tor-exit", "score": 60}),
    ];
    let mut categories = vec!["tor-exit", "blocklist"];
    if trusted {
        feeds.push(json!({"table": "vpn", "category": "trusted", "score": 0}));
        categories.push("trusted");
    }
    json!({"score": if trusted { 0 } else { score }, "trusted": trusted, "addresses": [
        {"address": TOR, "roles": ["source"], "score": score, "trusted": trusted, "categories": categories, "feeds": feeds}]})
}

fn clean() -> Value {
    json!({"score": 0, "addresses": [{"address": "8.8.8.8", "roles": ["source"], "score": 0}]})
}

fn dc01() -> Value {
    json!({"criticality": "critical", "assets": [{"matched": [{"kind": "ip", "role": "destination", "value": "10.0.0.5"}],
        "asset": {"ip": "10.0.0.5", "hostname": "dc01", "role": "domain controller", "criticality": "critical"}}]})
}

fn judge(case: &Case, settings: Value) -> Verdict {
    case.run(&configure::<Judge>(settings).unwrap()).unwrap().verdict.unwrap()
}

fn label(case: &Case) -> (Label, u8) {
    let verdict = judge(case, json!({}));
    (verdict.label, verdict.score)
}

#[test]
fn a_listed_source_against_a_critical_target_is_malicious_and_says_why() {
    let case =
        Case::new(json!({"severity": "HIGH"})).earlier("ip-reputation", listed(100, false)).earlier("asset", dc01());
    let case = case.earlier(
        "geo",
        json!({"addresses": [{"address": TOR, "roles": ["source"], "scope": "public", "country_code": "DE"}]}),
    );
    let verdict = judge(&case, json!({}));
    assert_eq!((verdict.label, verdict.score), (Label::Malicious, 88));
    let expected = [
        "185.220.101.1 (source) is on 7 block lists and a Tor exit",
        "the sensor rates the alert high",
        "the target dc01 is a domain controller of criticality critical",
        "185.220.101.1 (source) is in DE",
    ];
    assert_eq!(verdict.reasons, expected);
}

#[test]
fn a_trusted_source_lowers_the_score_and_is_said_to_be_trusted() {
    let case = Case::new(json!({"severity": "critical"})).earlier("ip-reputation", listed(100, true));
    let verdict = judge(&case, json!({}));
    assert_eq!((verdict.label, verdict.score), (Label::Benign, 0));
    assert_eq!(verdict.reasons[0], "185.220.101.1 (source) is trusted (vpn)");
}

#[test]
fn thresholds_hold_exactly() {
    let case = |score: u8| Case::new(json!({})).earlier("ip-reputation", listed(score, false));
    let settings = json!({"weights": {"reputation": 100}});
    let label = |score| judge(&case(score), settings.clone()).label;
    assert_eq!((label(70), label(69)), (Label::Malicious, Label::Suspicious));
    assert_eq!((label(40), label(39)), (Label::Suspicious, Label::Unknown));
    assert_eq!((label(20), label(19)), (Label::Unknown, Label::Benign));
}

#[test]
fn benign_needs_somebody_who_looked() {
    assert_eq!(label(&Case::new(json!({"severity": "low"}))), (Label::Unknown, 8));
    assert_eq!(label(&Case::new(json!({"severity": "low"})).earlier("ip-reputation", clean())), (Label::Benign, 8));
    assert_eq!(label(&Case::new(json!({}))), (Label::Unknown, 0));
}

#[test]
fn each_sensor_has_its_scale() {
    let points = |alert: Value| judge(&Case::new(alert), json!({"weights": {"severity": 100}})).score;
    assert_eq!(points(json!({"alert": {"severity": 1}})), 75);
    assert_eq!(points(json!({"alert": {"severity": 3}})), 25);
    assert_eq!(points(json!({"event": {"severity": 99}})), 100);
    assert_eq!(points(json!({"event": {"severity": 47}})), 50);
    assert_eq!(points(json!({"severity_id": 4, "severity": "High"})), 75);
    assert_eq!(points(json!({"severity_id": 99})), 0);
    assert_eq!(points(json!({"severity": "CRITICAL"})), 100);
    assert_eq!(points(json!({"severity": 7})), 0, "a number of an unknown scale is no severity");
}

#[test]
fn a_watched_country_counts_only_for_a_source() {
    let geo = |role: &str| json!({"addresses": [{"address": "1.1.1.1", "roles": [role], "scope": "public", "country": "Australia", "country_code": "AU"}]});
    let verdict = |role| {
        judge(&Case::new(json!({})).earlier("where", geo(role)), json!({"watch": ["au"], "steps": {"geo": "where"}}))
    };
    assert_eq!(verdict("source").score, 5);
    assert_eq!(verdict("source").reasons, ["1.1.1.1 (source) is in Australia (AU), a country on the watch list"]);
    assert_eq!(verdict("destination").score, 0);
}

#[test]
fn a_result_of_an_unexpected_form_is_an_error_and_a_row_of_odd_columns_is_not() {
    let judge = configure::<Judge>(json!({})).unwrap();
    let odd = Case::new(json!({})).earlier("ip-reputation", json!({"score": "high"})).run(&judge);
    assert!(matches!(odd, Err(Failure::Internal(why)) if why.contains("\"ip-reputation\"")));
    let row = json!({"assets": [{"matched": [{"kind": "ip", "role": "related", "value": "10.0.0.5"}], "asset": {"role": 7, "criticality": null}}]});
    assert_eq!(self::judge(&Case::new(json!({})).earlier("asset", row), json!({})).reasons, ["10.0.0.5 is an asset"]);
}

#[test]
fn thresholds_out_of_order_are_refused() {
    let error = configure::<Judge>(json!({"thresholds": {"malicious": 30}})).err().unwrap();
    assert!(error.contains("suspicious (40) <= malicious (30)"), "{error}");
    assert!(configure::<Judge>(json!({"weight": {}})).err().unwrap().contains("unknown field `weight`"));
}
