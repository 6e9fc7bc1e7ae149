//! The HTTP interfaces: what they come to, how they are written, and what does not fit together in one.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::Finding;
use super::place::Place;
use super::value::{ByteCount, PeriodOrOff, RateText, Text};

/// How long answers are shared, where nothing is said.
const LIFE: Duration = Duration::from_secs(300);

/// How long failures are, where nothing is said.
const FAILURE_LIFE: Duration = Duration::from_secs(10);

/// How long failures may be shared, at most: no alert waits longer than this for its next try, which must find out anew.
pub(crate) const MAX_FAILURE_LIFE: Duration = Duration::from_secs(60);

/// How many bytes of answers are kept, where nothing is said.
const CACHE_SIZE: usize = 16 << 20;

/// An HTTP interface that steps can be granted.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Scheme, host and port that may be asked.
    pub url: url::Url,
    /// Headers that the host adds: credentials. Never printed.
    pub headers: Vec<(String, String)>,
    /// Whether the host may be at a private, loopback or link-local address.
    pub private: bool,
    /// The longest response body, in bytes.
    pub max_response: usize,
    /// How many requests run at once, at most.
    pub concurrency: usize,
    /// How fast requests may follow each other; none bounds nothing.
    pub rate: Option<Rate>,
    /// Whether and how long answers are shared; none asks for each request anew.
    pub cache: Option<CacheConfig>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many requests.
    pub count: NonZeroU32,
    /// In how much time.
    pub per: Duration,
    /// How many that were not used may be made up for at once.
    pub burst: NonZeroU32,
}

/// How answers of an HTTP interface are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// How long an answer is given again.
    pub life: Duration,
    /// How long a failure is; none forgets it at once.
    pub failures: Option<Duration>,
    /// How many bytes of answers are kept, at most.
    pub size: u64,
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("HttpConfig").field("url", &self.url.as_str()).field("headers", &names).finish_non_exhaustive()
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawHttp {
    /// Scheme, host and port are what may be asked, and paths below this one. Without credentials and query: secrets stand in `headers`.
    #[schemars(with = "Text", extend("writeOnly" = true))]
    url: Spanned<Text>,
    /// Headers that the host adds, as in `{ Key = "${ABUSEIPDB_KEY}" }`. No plugin sees them.
    #[serde(default)]
    #[schemars(extend("default" = {}, "writeOnly" = true))]
    headers: BTreeMap<String, Text>,
    /// Whether it may be at a private, loopback or link-local address.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    private: bool,
    /// The longest response body.
    #[schemars(extend("default" = "1MiB"))]
    max_response: Option<ByteCount>,
    /// How many requests run at once, at most.
    #[schemars(extend("default" = 8))]
    concurrency: Option<usize>,
    /// How many requests may follow each other: so many in "s", "min", "hour" or "day". What is more waits for its turn, for as long as
    /// its step has time. Each host counts for itself: two hosts make twice as many. Without it, any number.
    rate: Option<RateText>,
    /// How many may be made up for at once after a pause; 1 spreads them evenly. The default is the number of the rate.
    #[schemars(with = "Option<u32>", extend("minimum" = 1))]
    burst: Option<Spanned<u32>>,
    /// How long an answer to GET and HEAD is given again to whoever asks the same; "off" sends every request. With the queue kind "redis"
    /// hosts share answers.
    #[schemars(extend("default" = "5m"))]
    cache: Option<PeriodOrOff>,
    /// How long a failure is: no answer in time, 5xx, 429 (for as long as its Retry-After says, if that is longer) and other refusals. At
    /// most "60s"; "off" forgets failures at once.
    #[schemars(with = "Option<PeriodOrOff>", extend("default" = "10s"))]
    cache_failures: Option<Spanned<PeriodOrOff>>,
    /// How many bytes of answers are kept in memory; the least recently used go first.
    #[schemars(extend("default" = "16MiB"))]
    cache_size: Option<ByteCount>,
}

pub(super) fn http_config(
    name: &str,
    http: Spanned<RawHttp>,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> Option<HttpConfig> {
    let http = http.into_inner();
    let offset = http.url.span().start;
    let url = match url::Url::parse(&http.url.get_ref().0) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => url,
        _ => {
            let message = format!("http \"{name}\": url must be http:// or https:// with a host");
            findings.push(place.finding(Some(offset), message));
            return None;
        }
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        let message = format!("http \"{name}\": url must not hold credentials or a query; put secrets into headers");
        findings.push(place.finding(Some(offset), message));
        return None;
    }
    for (header, value) in &http.headers {
        // The value may be a secret: it is not shown.
        let wrong = if reqwest::header::HeaderName::try_from(header).is_err() {
            "is no header's name; it may hold letters, digits and '-'"
        } else if reqwest::header::HeaderValue::try_from(&value.0).is_err() {
            "has a value with a line break or another control character; take that out"
        } else {
            continue;
        };
        let message = format!("http \"{name}\": \"{header}\" {wrong}");
        let line = place.line_of_key(&format!("http.{name}.headers.{header}"));
        findings.push(Finding { line: line.or(Some(place.line(offset))), ..place.finding(None, message) });
    }
    let burst = http.burst.as_ref().map(|burst| (NonZeroU32::new(*burst.get_ref()), burst.span().start));
    let mut refuse = |offset: usize, message: &str| {
        findings.push(place.finding(Some(offset), format!("http \"{name}\": {message}")));
    };
    match (&http.rate, burst) {
        (_, Some((None, offset))) => refuse(offset, "burst must be at least 1"),
        (None, Some((Some(_), offset))) => {
            refuse(offset, "burst is for an interface with a rate; add one, as in rate = \"60/min\"");
        }
        _ => {}
    }
    let failures = http.cache_failures.map(|life| (life.span().start, life.into_inner().0));
    if let Some((offset, Some(life))) = failures
        && life > MAX_FAILURE_LIFE
    {
        refuse(offset, "cache_failures must be at most 60s, for an alert waits no longer for its next try");
    }
    Some(HttpConfig {
        url,
        headers: http.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
        private: http.private,
        max_response: http.max_response.map_or(1 << 20, |size| size.0),
        concurrency: http.concurrency.unwrap_or(8).max(1),
        rate: http.rate.map(|RateText { count, per }| {
            let burst = burst.and_then(|(burst, _)| burst).unwrap_or(count);
            Rate { count, per, burst }
        }),
        cache: http.cache.map_or(Some(LIFE), |life| life.0).map(|life| CacheConfig {
            life,
            failures: failures.map_or(Some(FAILURE_LIFE), |(_, life)| life),
            size: http.cache_size.map_or(CACHE_SIZE, |size| size.0) as u64,
        }),
    })
}
