//! How single values are written: texts with `${VAR}`, durations, sizes.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::alarms::RateOrOff;

/// Says what a text must look like, as far as a pattern can; a variable may stand for anything.
macro_rules! schema {
    ($type:ty, $name:literal, $($pattern:literal)?) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string" $(, "pattern": concat!($pattern, r"|\$\{"))? })
            }
        }
    };
}

schema!(Text, "text",);
schema!(Period, "duration", r"^[^0-9]*[0-9].*[A-Za-z]");
schema!(PeriodOrOff, "duration or off", r"^(off|0)$|^[^0-9]*[0-9].*[A-Za-z]");
schema!(RateText, "rate", r"^ *0*[1-9][0-9]* */ *(s|sec|second|m|min|minute|h|hour|d|day) *$");
schema!(RateOrOff, "rate or off", r"^off$|^ *0*[1-9][0-9]* */ *(s|sec|second|m|min|minute|h|hour|d|day) *$");
schema!(
    SomeBytes,
    "size above zero",
    r"^ *([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*) *([kKmMgGtTpP]i?)?[bB]? *$"
);
schema!(RedisUrl, "Redis URL", r"^(rediss?(\+(sentinel|cluster))?|valkeys?)://[^/?#]|^((redis|valkey)\+)?unix:///");
schema!(SocketText, "address or off", r"^off$|^[0-9.]+:[0-9]+$|^\[[0-9A-Fa-f:.]+(%[0-9]+)?\]:[0-9]+$");
schema!(ByteCount, "size", r"^ *[0-9]+(\.[0-9]+)? *([kKmMgGtTpP]i?)?[bB]? *$");

/// A text in which `${VAR}` stands for a variable of the environment.
pub(super) struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        expand(&text, |name| std::env::var(name).ok()).map(Self).map_err(D::Error::custom)
    }
}

/// A duration such as `250ms`, `10 min` or `30d`; a day has 24 hours.
pub(super) struct Period(pub Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?.0;
        duration(&text).filter(|duration| !duration.is_zero()).map(Self).ok_or_else(|| {
            D::Error::custom(format!("\"{text}\" is no duration; write it as in \"250ms\", \"30s\" or \"10m\""))
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    let span = text.parse::<jiff::Span>().ok()?;
    Duration::try_from(span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

/// A duration, or `"off"`, which no time at all is too.
pub(super) struct PeriodOrOff(pub Option<Duration>);

impl<'de> Deserialize<'de> for PeriodOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?.0;
        match text.as_str() {
            "off" | "0" => Some(Self(None)),
            text => duration(text).map(|duration| Self(Some(duration).filter(|duration| !duration.is_zero()))),
        }
        .ok_or_else(|| {
            D::Error::custom(format!("\"{text}\" is no duration; write it as in \"30s\" or \"10m\", or \"off\""))
        })
    }
}

/// So many in a unit of time, such as `60/min` or `1000/day`.
pub(super) struct RateText {
    pub count: NonZeroU32,
    pub per: Duration,
}

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?.0;
        let rate = || {
            let (count, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "s" | "sec" | "second" => 1,
                "m" | "min" | "minute" => 60,
                "h" | "hour" => 3600,
                "d" | "day" => 86_400,
                _ => return None,
            };
            Some(Self { count: count.trim().parse().ok()?, per: Duration::from_secs(seconds) })
        };
        rate().ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is no rate; write it as in \"10/s\", \"60/min\", \"500/hour\" or \"1000/day\""
            ))
        })
    }
}

/// A number of bytes such as `16MiB`.
pub(super) struct ByteCount(pub usize);

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?.0;
        text.parse::<bytesize::ByteSize>()
            .ok()
            .and_then(|size| usize::try_from(size.as_u64()).ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("\"{text}\" is no size; write it as in \"64KiB\" or \"16MiB\"")))
    }
}

/// The same, and not none at all.
pub(super) struct SomeBytes(pub usize);

impl<'de> Deserialize<'de> for SomeBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ByteCount::deserialize(deserializer)?.0 {
            0 => Err(D::Error::custom("no size at all makes no sense here; write it as in \"64KiB\" or \"16MiB\"")),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// How the URL of a Redis server is described; it is read as a text, because it may hold a secret and its line is worth knowing.
pub(super) struct RedisUrl;

impl RedisUrl {
    /// Whether a text is one: with a scheme that says how to connect, and a host or the path of a socket.
    pub(super) fn is_one(text: &str) -> bool {
        let Some((scheme, rest)) = text.split_once("://") else { return false };
        match scheme {
            "unix" | "redis+unix" | "valkey+unix" => rest.starts_with('/'),
            "redis" | "rediss" | "valkey" | "valkeys" => {
                url::Url::parse(text).is_ok_and(|url| url.has_host() && !url.path().contains('@'))
            }
            "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster" => {
                let authority = rest.split(['/', '?']).next().unwrap_or_default();
                authority.rsplit('@').next().is_some_and(|hosts| !hosts.is_empty())
            }
            _ => false,
        }
    }
}

/// How an address to listen on is described; `"off"` is none.
pub(super) struct SocketText;

/// Fills in `${VAR}`. `$` without a brace stands for itself.
pub(super) fn expand(text: &str, mut variable: impl FnMut(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        let end = after.find('}').ok_or_else(|| format!("\"{text}\" has a ${{ without its }}"))?;
        let name = &after[2..end];
        let value = variable(name)
            .ok_or_else(|| format!("the environment variable {name} is not set; export it before starting"))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = &after[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The first text in a plugin's settings that asks for a variable.
pub(super) fn find_variable(settings: &toml::Value) -> Option<&str> {
    match settings {
        toml::Value::String(text) => text.contains("${").then_some(text),
        toml::Value::Array(values) => values.iter().find_map(find_variable),
        toml::Value::Table(table) => table.values().find_map(find_variable),
        _ => None,
    }
}

/// Settings as the JSON that plugins are given; dates become texts.
pub(super) fn to_json(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(yes) => (*yes).into(),
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(values) => values.iter().map(to_json).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_says_how_to_connect_and_where() {
        for right in [
            "redis://127.0.0.1:6379/0",
            "rediss://u:p@[::1]:1/2?protocol=resp3",
            "valkeys://h",
            "unix:///run/redis.sock?user=u&pass=p",
            "redis+unix:///run/redis.sock",
            "redis+sentinel://u:p@a:1,b:2/main/0?sentinel_password=x",
            "rediss+cluster://a,b",
        ] {
            assert!(RedisUrl::is_one(right), "{right}");
        }
        for wrong in [
            "",
            "127.0.0.1:6379",
            "default:password@127.0.0.1:6379",
            "redis:default:password@127.0.0.1:6379",
            "redis:/default:password@127.0.0.1:6379",
            "redis:///default:password@127.0.0.1:6379",
            "redis://",
            "redis://u:p/w@h",
            "unix://run/redis.sock",
            "unix:/run/redis.sock",
            "redis+sentinel://u:p@/main",
            "http://h",
        ] {
            assert!(!RedisUrl::is_one(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_variable_is_filled_in_and_a_missing_one_is_named() {
        let variable = |name: &str| (name == "KEY").then(|| "s3cret".to_owned());
        assert_eq!(expand("a ${KEY} b $5", variable), Ok("a s3cret b $5".to_owned()));
        assert!(expand("${OTHER}", variable).unwrap_err().contains("OTHER"));
        assert!(expand("${KEY", variable).is_err());
    }
}
