//! Spans on their way to a collector.

use crate::telemetry::{Event, Metrics};

/// Spans were sent.
#[derive(Debug)]
pub struct TracesSent {
    /// How many.
    pub spans: usize,
}

impl Event for TracesSent {
    fn count(&self, metrics: &Metrics) {
        metrics.trace_spans_sent.inc_by(self.spans as u64);
    }

    /// At `debug`: it happens every second.
    fn log(&self) {
        tracing::debug!(target: "dossier::traces", spans = self.spans, "spans sent");
    }
}

/// Spans were not sent, and are gone: the collector is down, slow or refuses. Alerts do not suffer from it.
#[derive(Debug)]
pub struct TracesLost<'a> {
    /// How many.
    pub spans: usize,
    /// Why.
    pub error: &'a str,
}

impl Event for TracesLost<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.trace_spans_lost.inc_by(self.spans as u64);
    }

    fn log(&self) {
        tracing::warn!(target: "dossier::traces", spans = self.spans, error = self.error, "spans lost");
    }

    fn throttle(&self) -> Option<(&'static str, &str)> {
        Some(("traces-lost", ""))
    }
}
