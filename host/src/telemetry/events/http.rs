//! What plugins ask of HTTP interfaces, and where the answers come from.

use std::time::Duration;

use super::micros;
use crate::telemetry::metrics::{ApiLabel, RequestLabels, SourceLabels};
use crate::telemetry::relay::Relayed;
use crate::telemetry::{Event, Metrics, Noted};

/// A request to an interface ended.
#[derive(Debug)]
pub struct HttpCalled<'a> {
    /// The interface's name in the configuration.
    pub api: &'a str,
    /// `ok`, `client-error`, `server-error`, `timeout`, `unreachable`, `too-large`; `no-turn` when nobody waited for long
    /// enough that it could be sent.
    pub outcome: &'static str,
    /// How long it waited for its turn.
    pub waited: Duration,
    /// How long it took after that.
    pub duration: Duration,
}

impl Event for HttpCalled<'_> {
    fn count(&self, metrics: &Metrics) {
        let api = metrics.name(self.api);
        metrics.http_requests.get_or_create(&RequestLabels { api: api.clone(), outcome: self.outcome }).inc();
        let label = ApiLabel { api };
        metrics.http_wait.get_or_create(&label).observe(self.waited.as_secs_f64());
        if self.outcome != "no-turn" {
            metrics.http_duration.get_or_create(&label).observe(self.duration.as_secs_f64());
        }
    }

    /// At `debug`: what the plugin makes of it stands in the alert's line.
    fn log(&self) {
        tracing::debug!(
            target: "dossier::http",
            api = self.api,
            outcome = self.outcome,
            waited_us = micros(self.waited),
            duration_us = micros(self.duration),
            "http called"
        );
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::HttpCalled {
            api: self.api.to_owned(),
            outcome: self.outcome.to_owned(),
            waited: self.waited,
            duration: self.duration,
        })
    }
}

/// A plugin's request that others may make as well came to its end.
#[derive(Debug)]
pub struct HttpAnswered<'a> {
    /// The interface's name in the configuration.
    pub api: &'a str,
    /// Where the answer came from: `memory`, `shared` (another host had asked), `in-flight` (somebody was just asking), or
    /// `api`: this one asked.
    pub source: &'static str,
}

impl Event for HttpAnswered<'_> {
    fn count(&self, metrics: &Metrics) {
        let labels = SourceLabels { api: metrics.name(self.api), source: self.source };
        metrics.http_answers.get_or_create(&labels).inc();
    }

    fn log(&self) {
        tracing::debug!(target: "dossier::http", api = self.api, source = self.source, "http answered");
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::HttpAnswered { api: self.api.to_owned(), source: self.source.to_owned() })
    }
}

/// The cache that hosts share does not work; each host asks for itself meanwhile.
#[derive(Debug)]
pub struct HttpCacheTrouble<'a> {
    /// What it said.
    pub error: &'a str,
}

impl Event for HttpCacheTrouble<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.http_cache_troubles.inc();
    }

    fn noted(&self) -> Option<Noted> {
        Noted::warning("shared http cache unavailable", "", self.error)
    }

    fn log(&self) {
        tracing::warn!(target: "dossier::http", error = self.error, "shared http cache unavailable");
    }

    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("http-cache", ""))
    }

    fn relayed(&self) -> Option<Relayed> {
        Some(Relayed::HttpCacheTrouble { error: self.error.to_owned() })
    }
}
