//! A histogram that can be read as well as scraped: prometheus-client's own gives its buckets to its encoder only.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// How often values up to each of some bounds were seen. Copies share what they count.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    bounds: &'static [f64],
    seen: Arc<Mutex<Seen>>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    sum: f64,
    count: u64,
    /// One for each bound, and one for what is above all of them.
    buckets: Vec<u64>,
}

/// What a distribution has seen until now.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// All values together.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
    /// Those up to each bound and above the one before, in rising order; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// Nothing seen, with these bounds, which must rise.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, seen: Arc::new(Mutex::new(Seen { sum: 0.0, count: 0, buckets: vec![0; bounds.len() + 1] })) }
    }

    /// Notes a value.
    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sum += value;
        seen.count += 1;
        seen.buckets[bucket] += 1;
    }

    /// What it has seen.
    pub(super) fn read(&self) -> Reading {
        let Seen { sum, count, buckets } = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        Reading { sum, count, buckets: bounds.zip(buckets).collect() }
    }
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Reading { sum, count, mut buckets } = self.read();
        // What the encoder writes as +Inf.
        if let Some(last) = buckets.last_mut() {
            last.0 = f64::MAX;
        }
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Distribution {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn it_is_scraped_as_the_library_would_scrape_its_own_and_can_be_read() {
        const BOUNDS: [f64; 3] = [0.5, 1.0, 300.0];
        let (ours, theirs) = (Distribution::new(&BOUNDS), Histogram::new(BOUNDS));
        fn scraped(metric: impl prometheus_client::registry::Metric) -> String {
            let (mut registry, mut text) = (Registry::default(), String::new());
            registry.register("seconds", "Seconds", metric);
            encode(&mut text, &registry).unwrap();
            text
        }
        for value in [0.0, 0.5, 0.500_1, 1.0, 7.25, 300.0, 301.0, 1e9] {
            ours.observe(value);
            theirs.observe(value);
        }
        assert_eq!(ours.read().buckets, [(0.5, 2), (1.0, 2), (300.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(scraped(ours), scraped(theirs));
    }
}
