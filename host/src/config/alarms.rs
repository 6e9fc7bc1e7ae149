//! The thresholds of alarms: what is written in `[alarms]`, and its defaults.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::Finding;
use super::place::Place;
use super::value::{Period, PeriodOrOff, RateText};

/// When what is an alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmsConfig {
    /// JSON pointers to an alert's source; the first that is a text counts.
    pub source: Vec<String>,
    /// How long a source may be silent; none watches no sources.
    pub silence: Option<Duration>,
    /// When a silent source is forgotten, and its alarm with it.
    pub forget: Duration,
    /// Sources that are not watched.
    pub ignore: Vec<String>,
    /// How long alerts may wait while none is finished.
    pub stalled: Option<Duration>,
    /// How old the oldest alert may be.
    pub oldest: Option<Duration>,
    /// How many alerts may become dead letters in how much time.
    pub dead_letters: Option<(NonZeroU32, Duration)>,
    /// The share of its room, above 0 and at most 1, from which the store counts as nearly full.
    pub store: f64,
    /// How long an alarm is shown about what is never over.
    pub keep: Duration,
}

/// A rate, or `"off"`.
pub(super) struct RateOrOff(Option<(NonZeroU32, Duration)>);

impl<'de> Deserialize<'de> for RateOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let RateText { count, per } = RateText::deserialize(serde::de::value::StringDeserializer::new(text))?;
        Ok(Self(Some((count, per))))
    }
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawAlarms {
    /// JSON pointers to where an alert comes from; the first that is a text counts.
    #[schemars(with = "Option<Vec<String>>", extend("default" = ["/source", "/host", "/in_iface"], "items" = { "type": "string", "pattern": "^/" }))]
    source: Option<Spanned<Vec<String>>>,
    /// How long a source that was heard may be silent. One that often pauses for longer is given twice its usual pause. At
    /// most 1024 sources are watched.
    #[schemars(extend("default" = "5m"))]
    silence: Option<PeriodOrOff>,
    /// When a silent source is forgotten.
    #[schemars(extend("default" = "30d"))]
    forget: Option<Period>,
    /// Sources that are not watched at all.
    #[schemars(extend("default" = []))]
    ignore: Vec<String>,
    /// How long alerts may wait while none is finished.
    #[schemars(extend("default" = "5m"))]
    stalled: Option<PeriodOrOff>,
    /// How long the oldest alert may be in the queue.
    #[schemars(extend("default" = "15m"))]
    oldest: Option<PeriodOrOff>,
    /// How many alerts may become dead letters in a "s", "min", "hour" or "day". How many there may be is `dlq_alarm` in `[queue]`.
    #[schemars(extend("default" = "100/hour"))]
    dead_letters: Option<RateOrOff>,
    /// From which share of its room on the store is nearly full: Redis' maxmemory, or else the machine's memory; the disk of the queue's
    /// folder.
    #[schemars(with = "Option<f64>", extend("exclusiveMinimum" = 0, "maximum" = 1, "default" = 0.9))]
    store: Option<Spanned<f64>>,
    /// How long an alarm is shown about what happened and is never over, such as lost entries.
    #[schemars(extend("default" = "1h"))]
    keep: Option<Period>,
}

impl RawAlarms {
    pub(super) fn finish(self, place: &Place<'_>, findings: &mut Vec<Finding>) -> AlarmsConfig {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let or_off = |value: Option<PeriodOrOff>, default| value.map_or(Some(default), |value| value.0);
        if let Some(source) = &self.source {
            pointers(source.get_ref(), Some(place.line(source.span().start)), place, findings);
        }
        if let Some(store) = &self.store
            && !(*store.get_ref() > 0.0 && *store.get_ref() <= 1.0)
        {
            let message = "store must be a share above 0 and at most 1, as in store = 0.9";
            findings.push(place.finding(Some(store.span().start), message));
        }
        AlarmsConfig {
            source: self
                .source
                .map_or_else(|| ["/source", "/host", "/in_iface"].map(str::to_owned).to_vec(), Spanned::into_inner),
            silence: or_off(self.silence, minutes(5)),
            forget: self.forget.map_or(minutes(30 * 24 * 60), |period| period.0),
            ignore: self.ignore,
            stalled: or_off(self.stalled, minutes(5)),
            oldest: or_off(self.oldest, minutes(15)),
            dead_letters: self
                .dead_letters
                .map_or_else(|| NonZeroU32::new(100).map(|count| (count, Duration::from_secs(3600))), |rate| rate.0),
            store: self.store.map_or(0.9, Spanned::into_inner),
            keep: self.keep.map_or(minutes(60), |period| period.0),
        }
    }
}

/// Says which of these are no JSON pointers.
pub(super) fn pointers(pointers: &[String], line: Option<usize>, place: &Place<'_>, findings: &mut Vec<Finding>) {
    for pointer in pointers.iter().filter(|pointer| !pointer.starts_with('/')) {
        let message = format!("\"{pointer}\" is no JSON pointer; write it with a slash, as in \"/user/name\"");
        findings.push(Finding { line, ..place.finding(None, message) });
    }
}
