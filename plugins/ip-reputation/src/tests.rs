//! Native tests: feeds, scores, and every way in which the API can fail.

use dossier_sdk::http::{HttpError, Response};
use dossier_sdk::testing::{Case, configure};
use serde_json::{Value, json};

use super::*;

const TOR: &str = "185.220.101.1";

fn feeds() -> Value {
    json!({"feeds": [
        {"table": "ipsum", "category": "blocklist", "score": "lists"},
        {"table": "tor", "category": "tor-exit"},
        {"table": "vpn", "category": "trusted"}]})
}

fn case() -> Case {
    Case::new(json!({}))
        .observable("ip", "source", TOR)
        .observable("ip", "destination", "10.0.0.5")
        .table("ipsum")
        .table("tor")
        .table("vpn")
}

fn run(case: &Case, settings: Value) -> Value {
    serde_json::from_str(&case.run(&configure::<Reputation>(settings).unwrap()).unwrap().fields).unwrap()
}

fn respond(status: u16, headers: &[(&str, &str)], body: &Value) -> Result<Response, HttpError> {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Ok(Response { status, headers, body: body.to_string().into_bytes() })
}

#[test]
fn a_column_raises_the_score_and_further_feeds_too() {
    let result = run(&case().row("ipsum", TOR, json!({"ip": TOR, "lists": "3"})).row("tor", TOR, json!({})), feeds());
    let expected = json!({"address": TOR, "roles": ["source"], "scope": "public", "score": 69, "trusted": false,
        "categories": ["tor-exit", "blocklist"],
        "feeds": [{"table": "ipsum", "category": "blocklist", "score": 64, "value": 3.0}, {"table": "tor", "category": "tor-exit", "score": 60}]});
    assert_eq!(result["addresses"][0], expected);
    assert_eq!(result["score"], 69);
}

#[test]
fn base_and_weight_fit_a_column_from_0_to_100() {
    let settings =
        json!({"feeds": [{"table": "abuse", "category": "blocklist", "score": "confidence", "base": 0, "weight": 1}]});
    assert_eq!(run(&case().row("abuse", TOR, json!({"confidence": 77})), settings.clone())["score"], 77);
    assert_eq!(run(&case().row("abuse", TOR, json!({"confidence": 1e9})), settings)["score"], 100);
}

#[test]
fn an_address_that_is_on_no_list_scores_nothing() {
    let result = run(&case(), feeds());
    assert_eq!((&result["score"], &result["trusted"], &result["categories"]), (&json!(0), &json!(false), &json!([])));
}

#[test]
fn a_private_address_is_looked_up_in_trusted_feeds_only() {
    let result = run(&case().row("ipsum", "10.0.0.5", json!({"lists": 9})).row("vpn", "10.0.0.5", json!({})), feeds());
    assert_eq!(result["addresses"][1]["categories"], json!(["trusted"]));
    assert_eq!(result["score"], 0);
    assert_eq!(result["trusted"], true);
}

#[test]
fn a_trusted_address_does_not_count_and_is_not_shown_to_the_api() {
    let mut settings = feeds();
    settings["api"] = json!({});
    let listed = case().row("vpn", TOR, json!({})).row("ipsum", TOR, json!({"lists": 9}));
    let result = run(&listed.server(|_| unreachable!("the API must not be asked")), settings);
    assert_eq!(result["score"], 0);
    assert_eq!(result["addresses"][0]["score"], 100);
}

#[test]
fn the_api_is_asked_about_public_addresses_and_raises_the_score() {
    let server = |request: &dossier_sdk::http::Request| {
        assert_eq!(request.url, format!("https://api.abuseipdb.com/api/v2/check?ipAddress={TOR}&maxAgeInDays=90"));
        respond(
            200,
            &[],
            &json!({"data": {"abuseConfidenceScore": 91, "totalReports": 12, "isTor": true, "usageType": null}}),
        )
    };
    let result = run(&case().server(server), json!({"api": {}}));
    assert_eq!(result["addresses"][0]["api"], json!({"score": 91, "reports": 12, "tor": true}));
    assert_eq!((&result["score"], &result["categories"]), (&json!(91), &json!(["tor-exit"])));
}

#[test]
fn a_low_confidence_is_noted_and_does_not_count() {
    let low = |_: &_| respond(200, &[], &json!({"data": {"abuseConfidenceScore": 24}}));
    let result = run(&case().server(low), json!({"api": {}}));
    assert_eq!((&result["addresses"][0]["api"]["score"], &result["score"]), (&json!(24), &json!(0)));
}

#[test]
fn addresses_beyond_the_bound_are_listed_as_skipped() {
    let clean = |_: &_| respond(200, &[], &json!({"data": {"abuseConfidenceScore": 0}}));
    let result =
        run(&case().observable("ip", "related", "8.8.8.8").server(clean), json!({"api": {"max_addresses": 1}}));
    assert_eq!(result["api_skipped"], json!(["8.8.8.8"]));
}

#[test]
fn an_api_that_fails_is_unavailable_for_as_long_as_it_says() {
    let plugin = configure::<Reputation>(json!({"api": {}})).unwrap();
    let fails = |status, headers: &'static [(&str, &str)]| {
        case().server(move |_| respond(status, headers, &json!({}))).run(&plugin)
    };
    assert!(
        matches!(fails(429, &[("retry-after", "60")]), Err(Failure::Unavailable(retry)) if retry.after_ms == Some(60_000))
    );
    assert!(matches!(fails(503, &[]), Err(Failure::Unavailable(_))));
    assert!(matches!(fails(401, &[]), Err(Failure::Unavailable(retry)) if retry.reason.contains("key")));
    assert!(matches!(fails(200, &[]), Err(Failure::Unavailable(_))), "a body that is not the API's");
    assert!(matches!(fails(422, &[]), Err(Failure::Internal(_))));
    let hangs = case().server(|_| Err(HttpError::Timeout)).run(&plugin);
    assert!(matches!(hangs, Err(Failure::Unavailable(_))));
    assert!(matches!(case().run(&plugin), Err(Failure::Internal(_))), "not granted");
}

#[test]
fn settings_that_ask_for_nothing_or_for_what_is_not_there_are_refused() {
    assert!(configure::<Reputation>(json!({})).err().unwrap().contains("neither feeds nor an api"));
    let wrong = configure::<Reputation>(json!({"feeds": [{"table": "a", "category": "bad"}]})).err().unwrap();
    assert!(wrong.starts_with("settings: feeds[0].category: unknown variant `bad`, expected one of"), "{wrong}");
    let extra = configure::<Reputation>(json!({"feds": []})).err().unwrap();
    assert!(extra.contains("unknown field `feds`"), "{extra}");
}
