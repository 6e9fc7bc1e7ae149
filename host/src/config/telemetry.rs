//! Where traces go: what is written in `[telemetry]`, and what stands in OpenTelemetry's variables.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::Finding;
use super::place::Place;
use super::value::Text;

/// The variables of OpenTelemetry's that say where traces go; the first that is set counts.
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp>
pub const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The variable of OpenTelemetry's that says under which name spans are sent; "dossier" without it.
pub const NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";

/// Where traces go.
#[derive(Clone, Default, PartialEq)]
pub struct TelemetryConfig {
    /// The address of a collector's OTLP over HTTP; none: no traces, unless a variable names one.
    pub otlp: Option<url::Url>,
    /// Headers that are sent along: credentials. Never printed.
    pub headers: Vec<(String, String)>,
    /// The share of alerts, from 0 to 1, that are traced where the producer says nothing.
    pub sample: f64,
}

impl fmt::Debug for TelemetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let otlp = self.otlp.as_ref().map(|url| url.host_str());
        f.debug_struct("TelemetryConfig")
            .field("otlp", &otlp)
            .field("headers", &names)
            .field("sample", &self.sample)
            .finish()
    }
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    /// The address of a collector, as in `http://127.0.0.1:4318`. Without it `OTEL_EXPORTER_OTLP_ENDPOINT` counts, and without both there
    /// are no traces.
    #[schemars(with = "Option<Text>", extend("writeOnly" = true))]
    otlp: Option<Spanned<Text>>,
    /// Headers that are sent along, as in `{ Authorization = "Bearer ${OTLP_TOKEN}" }`.
    #[schemars(extend("default" = {}, "writeOnly" = true))]
    headers: BTreeMap<String, Text>,
    /// The share of alerts that are traced, where the producer has not decided.
    #[schemars(with = "Option<f64>", extend("minimum" = 0, "maximum" = 1, "default" = 1.0))]
    sample: Option<Spanned<f64>>,
}

impl RawTelemetry {
    pub(super) fn finish(self, place: &Place<'_>, findings: &mut Vec<Finding>) -> TelemetryConfig {
        let mut otlp = None;
        match self.otlp.as_ref().map(|text| (text, url::Url::parse(&text.get_ref().0))) {
            None => {}
            Some((_, Ok(url))) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {
                otlp = Some(url);
            }
            // The text may hold a secret: it is not shown.
            Some((text, _)) => findings.push(place.finding(
                Some(text.span().start),
                "otlp must be http:// or https:// with a host, as in otlp = \"http://127.0.0.1:4318\"",
            )),
        }
        if let Some(sample) = &self.sample
            && !(0.0..=1.0).contains(sample.get_ref())
        {
            findings.push(place.finding(Some(sample.span().start), "sample must be a share from 0 to 1"));
        }
        for (name, value) in &self.headers {
            let fits = reqwest::header::HeaderName::try_from(name).is_ok()
                && reqwest::header::HeaderValue::try_from(&value.0).is_ok();
            if !fits {
                let line = place.line_of_key(&format!("telemetry.headers.{name}"));
                let message = format!("telemetry: \"{name}\" is no header, or has a value with a control character");
                findings.push(Finding { line, ..place.finding(None, message) });
            }
        }
        TelemetryConfig {
            otlp,
            headers: self.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
            sample: self.sample.map_or(1.0, Spanned::into_inner),
        }
    }
}
