//! The API itself: `GET /api/v2/check` as AbuseIPDB v2 documents it (<https://docs.abuseipdb.com/#check-endpoint>), the
//! same fields, statuses and error texts, and ways of misbehaving that tests ask for. Nothing else of AbuseIPDB.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::addresses::Addresses;

/// How the API behaves.
#[derive(Debug, Default)]
pub struct Behaviour {
    /// The key that is asked for; none takes any.
    pub key: Option<String>,
    /// How long each check waits.
    pub delay: Duration,
    /// The status of every check.
    pub fail: Option<u16>,
    /// How many checks are answered.
    pub quota: Option<u64>,
    /// What `Retry-After` says then, in seconds.
    pub retry_after: u32,
}

struct Api {
    addresses: Addresses,
    behaviour: Behaviour,
    /// What counts against the quota.
    checks: AtomicU64,
    /// Every request for a check, whatever became of it.
    asked: AtomicU64,
}

/// The service.
pub fn router(addresses: Addresses, behaviour: Behaviour) -> Router {
    let api = Arc::new(Api { addresses, behaviour, checks: AtomicU64::new(0), asked: AtomicU64::new(0) });
    Router::new()
        .route("/api/v2/check", get(check))
        .route("/asked", get(asked))
        .route("/healthz", get("ok"))
        .with_state(api)
}

/// What a check asks. Texts, so that a wrong one gets the documented answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    ip_address: Option<String>,
    max_age_in_days: Option<String>,
}

/// A refusal in AbuseIPDB's form.
struct Refusal {
    status: StatusCode,
    detail: String,
    parameter: Option<&'static str>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "detail": self.detail, "status": self.status.as_u16() });
        if let Some(parameter) = self.parameter {
            error["source"] = json!({ "parameter": parameter });
        }
        (self.status, Json(json!({ "errors": [error] }))).into_response()
    }
}

/// How often a check was asked for: so that a test sees who asks too much.
async fn asked(State(api): State<Arc<Api>>) -> String {
    api.asked.load(Ordering::Relaxed).to_string()
}

async fn check(State(api): State<Arc<Api>>, headers: HeaderMap, Query(question): Query<Question>) -> Response {
    api.asked.fetch_add(1, Ordering::Relaxed);
    let behaviour = &api.behaviour;
    tokio::time::sleep(behaviour.delay).await;
    if let Some(status) = behaviour.fail {
        // The command line lets through what is a status.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Refusal { status, detail: "Failing as asked.".into(), parameter: None }.into_response();
    }
    let key = headers.get("key").and_then(|key| key.to_str().ok()).filter(|key| !key.is_empty());
    if key.is_none() || behaviour.key.as_deref().is_some_and(|wanted| Some(wanted) != key) {
        let detail = "Authentication failed. Your API key is either missing, incorrect, or revoked. Note: The APIv2 key \
                      differs from the APIv1 key.";
        let refusal = Refusal { status: StatusCode::UNAUTHORIZED, detail: detail.into(), parameter: None };
        return refusal.into_response();
    }
    let remaining = match behaviour.quota {
        None => None,
        Some(quota) => match quota.checked_sub(api.checks.fetch_add(1, Ordering::Relaxed) + 1) {
            Some(remaining) => Some((quota, remaining)),
            None => return quota_used_up(quota, behaviour.retry_after),
        },
    };
    let mut response = match answer(&api.addresses, &question) {
        Ok(data) => Json(json!({ "data": data })).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    if let Some((quota, remaining)) = remaining {
        response.headers_mut().insert("x-ratelimit-limit", HeaderValue::from(quota));
        response.headers_mut().insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    }
    response
}

fn quota_used_up(quota: u64, retry_after: u32) -> Response {
    let detail =
        format!("Daily rate limit of {quota} requests exceeded for this endpoint. See headers for additional details.");
    let mut response = Refusal { status: StatusCode::TOO_MANY_REQUESTS, detail, parameter: None }.into_response();
    let headers = response.headers_mut();
    headers.insert("retry-after", HeaderValue::from(retry_after));
    headers.insert("x-ratelimit-limit", HeaderValue::from(quota));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(0));
    response
}

fn answer(addresses: &Addresses, question: &Question) -> Result<Value, Refusal> {
    let unprocessable = |parameter, detail: &str| Refusal {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        detail: detail.to_owned(),
        parameter: Some(parameter),
    };
    let Some(address) = &question.ip_address else {
        return Err(unprocessable("ipAddress", "The ip address field is required."));
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let detail = "The ip address must be a valid IPv4 or IPv6 address (e.g. 8.8.8.8 or 2001:4860:4860::8888).";
        return Err(unprocessable("ipAddress", detail));
    };
    let days = question.max_age_in_days.as_deref().map_or(Ok(30), str::parse::<u16>);
    if !days.is_ok_and(|days| (1..=365).contains(&days)) {
        return Err(unprocessable("maxAgeInDays", "The max age in days must be between 1 and 365."));
    }
    let report = addresses.get(address);
    Ok(json!({
        "ipAddress": address.to_string(),
        "isPublic": is_public(address),
        "ipVersion": if address.is_ipv4() { 4 } else { 6 },
        "isWhitelisted": report.map(|report| report.whitelisted),
        "abuseConfidenceScore": report.map_or(0, |report| report.score),
        "countryCode": report.and_then(|report| report.country.as_ref()),
        "usageType": report.and_then(|report| report.usage_type.as_ref()),
        "isp": report.and_then(|report| report.isp.as_ref()),
        "domain": report.and_then(|report| report.domain.as_ref()),
        "hostnames": [],
        "isTor": report.is_some_and(|report| report.tor),
        "totalReports": report.map_or(0, |report| report.reports),
        "numDistinctUsers": report.map_or(0, |report| report.users),
        "lastReportedAt": report.and_then(|report| report.last_reported.as_ref()),
    }))
}

/// Private, loopback, link-local and unspecified addresses are not public; documentation ranges pass, because they stand
/// for attackers here.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            !(v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(api: &Arc<Api>, key: &'static str, address: &str) -> (u16, HeaderMap, Value) {
        let mut headers = HeaderMap::new();
        headers.insert("key", HeaderValue::from_static(key));
        let question = Question { ip_address: Some(address.to_owned()), max_age_in_days: Some("90".into()) };
        let (parts, body) = check(State(api.clone()), headers, Query(question)).await.into_parts();
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap())
    }

    fn api(behaviour: Behaviour) -> Arc<Api> {
        Arc::new(Api {
            addresses: Addresses::built_in().unwrap(),
            behaviour,
            checks: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        })
    }

    #[tokio::test]
    async fn a_reported_address_has_its_score_and_an_unknown_one_has_none() {
        let api = api(Behaviour::default());
        let (status, _, body) = asked(&api, "k", "185.220.101.34").await;
        assert_eq!((status, &body["data"]["abuseConfidenceScore"]), (200, &json!(100)));
        assert_eq!((&body["data"]["isTor"], &body["data"]["countryCode"]), (&json!(true), &json!("DE")));
        let (_, _, body) = asked(&api, "k", "2001:db8::1").await;
        assert_eq!((&body["data"]["totalReports"], &body["data"]["countryCode"]), (&json!(0), &Value::Null));
        assert_eq!(body["data"]["ipVersion"], 6);
    }

    #[tokio::test]
    async fn a_missing_or_wrong_key_is_refused() {
        assert_eq!(asked(&api(Behaviour::default()), "", "8.8.8.8").await.0, 401);
        let strict = api(Behaviour { key: Some("right".into()), ..Behaviour::default() });
        assert_eq!(asked(&strict, "wrong", "8.8.8.8").await.0, 401);
        assert_eq!(asked(&strict, "right", "8.8.8.8").await.0, 200);
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_with_the_parameter() {
        let (status, _, body) = asked(&api(Behaviour::default()), "k", "dc01").await;
        assert_eq!((status, &body["errors"][0]["source"]["parameter"]), (422, &json!("ipAddress")));
    }

    #[tokio::test]
    async fn a_quota_is_obeyed_and_then_says_when_to_come_back() {
        let api = api(Behaviour { quota: Some(2), retry_after: 7, ..Behaviour::default() });
        assert_eq!(asked(&api, "k", "8.8.8.8").await.1["x-ratelimit-remaining"], "1");
        assert_eq!(asked(&api, "k", "8.8.8.8").await.0, 200);
        let (status, headers, _) = asked(&api, "k", "8.8.8.8").await;
        assert_eq!((status, &headers["retry-after"]), (429, &HeaderValue::from(7)));
    }

    #[tokio::test]
    async fn it_fails_when_it_is_asked_to() {
        let (status, _, body) =
            asked(&api(Behaviour { fail: Some(503), ..Behaviour::default() }), "k", "8.8.8.8").await;
        assert_eq!((status, &body["errors"][0]["status"]), (503, &json!(503)));
    }
}
