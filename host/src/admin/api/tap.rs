//! `/api/v1/tap`: what is stored, or what a step is given and gives, as it happens, one JSON object a line.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::super::{Lease, Shown};
use super::{problem, report};
use crate::record::Label;
use crate::telemetry::redact::Redactor;
use crate::telemetry::tap::{TAPS, Wanted, lost};

/// What of it.
#[derive(Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    /// What this step is given and what it gives, in place of records.
    step: Option<String>,
    /// Only records with this verdict; not together with a step, for a verdict is known at the end.
    #[param(inline, value_type = Option<Verdict>)]
    verdict: Option<Label>,
    /// End after so many lines.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// The labels of a verdict.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "its names are what is described")]
enum Verdict {
    Malicious,
    Suspicious,
    Benign,
    Unknown,
}

impl Query {
    fn parse(query: &str) -> Result<Self, String> {
        let mut this = Self { step: None, verdict: None, limit: None };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let twice = match name.as_ref() {
                "step" => this.step.replace(value.into_owned()).is_some(),
                "verdict" => {
                    let label = Label::ALL.into_iter().find(|label| label.as_str() == value);
                    let label = label.ok_or_else(|| {
                        format!(
                            "there is no verdict \"{value}\"; there are {}",
                            Label::ALL.map(Label::as_str).join(", ")
                        )
                    })?;
                    this.verdict.replace(label).is_some()
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    let limit = limit.ok_or_else(|| format!("limit must be a whole number from 1, not \"{value}\""))?;
                    this.limit.replace(limit).is_some()
                }
                _ => return Err(format!("unknown parameter \"{name}\"; there are step, verdict, limit")),
            };
            if twice {
                return Err(format!("{name} is there twice; leave one out"));
            }
        }
        if this.step.is_some() && this.verdict.is_some() {
            return Err("a verdict is known only when the last step is done; leave out step, or verdict".to_owned());
        }
        Ok(this)
    }
}

/// What is stored, or what a step is given and gives, as it happens.
///
/// One JSON object a line: `{"record": …}` is a record as it is stored, `{"call": …}` one call of a step, and `{"lost": N}` says that
/// N lines were left out here, because the reader was slow or there were more than 1,000 in a second. An empty line every ten
/// seconds says that the host is there. It goes on until `limit` or until somebody ends it.
#[utoipa::path(
    get,
    path = "/api/v1/tap",
    operation_id = "tap",
    params(Query),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "A parameter is wrong", body = report::Problem),
        (status = 401, description = "The token is missing or wrong", body = report::Problem),
        (status = 403, description = "Asked under a name that may be somebody else\'s, and there is no token", body = report::Problem),
        (status = 404, description = "There is no such step", body = report::Problem),
        (status = 503, description = "As many look on as may", body = report::Problem),
    )
)]
pub(super) async fn tap(
    State(shown): State<Shown>,
    Extension(lease): Extension<Arc<Lease>>,
    RawQuery(query): RawQuery,
) -> Response {
    let Query { step, verdict, limit } = match Query::parse(&query.unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    if let Some(step) = &step
        && let Some(why) = no_such_step(&shown, step)
    {
        return problem(StatusCode::NOT_FOUND, why);
    }
    let wanted = step.map_or(Wanted::Records(verdict), Wanted::Step);
    let Some(reader) = shown.telemetry.taps().open(wanted, limit) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, format!("{TAPS} look on already; end one of them first"));
    };
    lease.prolong(reader.stuck());
    // Masked on its way out, so that the host's own threads do not wait for it.
    let lines = futures_util::stream::unfold((reader, shown.redactor), |(reader, redactor)| async move {
        let line = reader.next().await?;
        Some((Ok::<_, Infallible>(masked(line, &redactor)), (reader, redactor)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// A line without what must not be shown. One that cannot be read, or has no alert that says what that is, is left out, which is told.
fn masked(line: Bytes, redactor: &Redactor) -> Bytes {
    // A quiet tap's line is empty.
    if redactor.is_empty() || line.trim_ascii().is_empty() {
        return line;
    }
    let masked = serde_json::from_slice::<Line<'_>>(&line).ok().and_then(|read| match read {
        Line { lost: Some(_), record: None, call: None } => Some(line.clone()),
        Line { record: Some(body), call: None, lost: None } => body_masked("record", body, redactor),
        Line { call: Some(body), record: None, lost: None } => body_masked("call", body, redactor),
        Line { .. } => None,
    });
    masked.unwrap_or_else(|| lost(1))
}

/// A line of a tap.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
    #[serde(borrow, default)]
    call: Option<&'a RawValue>,
    #[serde(default)]
    lost: Option<u64>,
}

/// Read part by part: the deepest alert is as deep as `serde_json` reads, and it stands two levels down.
fn body_masked(what: &str, body: &RawValue, redactor: &Redactor) -> Option<Bytes> {
    let parts: BTreeMap<String, &RawValue> = serde_json::from_str(body.get()).ok()?;
    let parts = parts.into_iter().map(|(name, part)| Some((name, serde_json::from_str(part.get()).ok()?)));
    let mut body = serde_json::Value::Object(parts.collect::<Option<_>>()?);
    redactor.record(&mut body).then(|| format!("{{\"{what}\":{body}}}\n").into())
}

/// Why a step cannot be tapped; none when it can.
fn no_such_step(shown: &Shown, step: &str) -> Option<String> {
    let steps: Vec<_> = super::loaded(shown).into_iter().map(|(step, _)| step.name.clone()).collect();
    let known = match steps.len() {
        0 => "there are none yet".to_owned(),
        _ => format!("there are {}", steps.join(", ")),
    };
    (!steps.iter().any(|known| known == step)).then(|| format!("there is no step \"{step}\"; {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_shown_is_masked_in_the_alert_and_wherever_it_was_copied_to() {
        let redactor = Redactor::new(&["/user".to_owned()]);
        for line in [
            r#"{"record":{"id":"a","alert":{"user":"jdoe-17","n":1},"enrichment":{"x":{"said":"hello jdoe-17"}}}}"#,
            r#"{"call":{"id":"a","alert":{"user":"jdoe-17","n":1},"given":{"observables":[{"value":"jdoe-17"}]}}}"#,
        ] {
            let masked = masked(Bytes::from(line), &redactor);
            let text = std::str::from_utf8(&masked).unwrap();
            assert!(!text.contains("jdoe") && text.contains("\"n\":1") && text.ends_with("}\n"), "{text}");
        }
        for as_it_is in ["\n", "{\"lost\":3}\n"] {
            assert_eq!(masked(Bytes::from(as_it_is), &redactor), as_it_is);
        }
    }

    #[test]
    fn the_deepest_alert_is_masked_and_what_cannot_be_read_is_left_out() {
        let redactor = Redactor::new(&["/user".to_owned()]);
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let alert = format!("{{\"user\":\"jdoe-17\",\"deep\":{}}}", deep(crate::json::ALERT_LEVELS - 1));
        let fields = format!("{{\"said\":\"jdoe-17\",\"deep\":{}}}", deep(crate::json::FIELDS_LEVELS - 1));
        for line in [
            format!("{{\"record\":{{\"alert\":{alert},\"enrichment\":{{\"x\":{fields}}}}}}}\n"),
            format!(
                "{{\"call\":{{\"alert\":{alert},\"given\":{{\"enrichment\":{{\"x\":{fields}}}}},\"gave\":{{\"fields\":{fields}}}}}}}\n"
            ),
        ] {
            let masked = masked(Bytes::from(line.clone()), &redactor);
            let text = std::str::from_utf8(&masked).unwrap();
            assert!(!text.contains("jdoe") && text.contains("[redacted]") && text.contains("[[[1]]]"), "{text}");
            assert_eq!(text.matches('[').count() - text.matches("[redacted]").count(), line.matches('[').count());
        }
        let too_deep = format!("{{\"record\":{{\"alert\":{{\"user\":\"jdoe-17\",\"deep\":{}}}}}}}", deep(200));
        for wrong in [
            &too_deep,
            "{\"record\":{\"alert\":{\"user\":\"jdoe-17\"}}",
            "{\"call\":{\"alert\":null,\"id\":\"jdoe-17\"}}",
            "{\"other\":\"jdoe-17\"}",
            "jdoe-17",
        ] {
            assert_eq!(masked(Bytes::from(wrong.to_owned()), &redactor), "{\"lost\":1}\n", "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_query_is_named() {
        let query = |step: Option<&str>, verdict, limit| Query { step: step.map(str::to_owned), verdict, limit };
        assert_eq!(Query::parse(""), Ok(query(None, None, None)));
        assert_eq!(Query::parse("step=a%20b&limit=3"), Ok(query(Some("a b"), None, Some(3))));
        assert_eq!(Query::parse("verdict=malicious"), Ok(query(None, Some(Label::Malicious), None)));
        for (wrong, word) in [
            ("verdict=evil", "there are malicious, suspicious"),
            ("limit=0", "from 1"),
            ("limit=-1", "from 1"),
            ("limit=", "from 1"),
            ("stepp=a", "unknown parameter \"stepp\""),
            ("step=a&step=b", "twice"),
            ("step=a&verdict=benign", "leave out"),
        ] {
            assert!(Query::parse(wrong).is_err_and(|why| why.contains(word)), "{wrong}");
        }
    }
}
