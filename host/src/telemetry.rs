//! What happened, told once: an event both logs and counts, so that the two cannot disagree.
//!
//! Nothing here decides anything. Events are structs; [`Telemetry::emit`] takes them.

pub mod events;

use crate::queue::Depth;

/// Something that happened.
pub trait Event {
    /// Counts it.
    fn count(&self, metrics: &Metrics);

    /// Writes its line.
    fn log(&self);
}

/// The metrics, in Prometheus' conventions.
#[derive(Debug, Default)]
pub struct Metrics {}

/// Where events go.
#[derive(Debug, Default)]
pub struct Telemetry {
    metrics: Metrics,
}

impl Telemetry {
    /// Counts and logs an event.
    pub fn emit(&self, event: &impl Event) {
        event.count(&self.metrics);
        event.log();
    }

    /// Notes how full the queue is.
    pub fn depth(&self, _depth: &Depth) {}
}
