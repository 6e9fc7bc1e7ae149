//! Tests that the commented `dossier.toml` tells the truth: that it names every key, and that what it calls a default is one.

use std::path::Path;

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::admin::RawAdmin;
use super::alarms::RawAlarms;
use super::http::RawHttp;
use super::shape::*;
use super::telemetry::RawTelemetry;
use super::*;

const FILE: &str = include_str!("../../../dossier.toml");

/// What is only for Redis; everything else is for both kinds, but `path`.
const REDIS: [&str; 5] = ["url", "stream", "group", "lease", "dedupe_window"];

/// The examples of what has no default and is only for Redis.
const REDIS_EXAMPLES: &str = "[queue]\nkind = \"redis\"\nurl = \"rediss://redis.example.org:6379/0\"\nca = \"ca.pem\"\n\
    cert = \"dossier.pem\"\nkey = \"dossier.key\"\n[store]\nretention = \"30d\"\n\
    [telemetry]\notlp = \"http://127.0.0.1:4318\"\n[admin]\ntoken = \"a-token-for-the-tests\"";

/// The part before the examples, and the examples.
fn parts() -> (&'static str, &'static str) {
    FILE.split_at(FILE.find("# What follows are examples").unwrap())
}

/// The key of a line such as `#batch = 100`, without the comment signs.
fn key(line: &str) -> &str {
    line.trim_start_matches('#').split(' ').next().unwrap_or_default()
}

/// Takes one comment sign from each line that holds a setting or a table's head with so many of them.
fn uncomment(text: &str, signs: usize, takes: impl Fn(&str) -> bool) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let setting = line.trim_start_matches('#');
        let is_setting = setting.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
        let commented = line.len() - setting.len();
        lines.push(if is_setting && commented == signs && takes(key(line)) { setting } else { line });
    }
    lines.join("\n")
}

/// Everything that a configuration says, without where it says it.
pub(super) fn said(text: &str) -> String {
    let text = text.replace("${ABUSEIPDB_KEY}", "key").replace("${DOSSIER_ADMIN_TOKEN}", "a-token-for-the-tests");
    let mut config = Config::parse(Path::new("dossier.toml"), &text).unwrap();
    config.sha256.clear();
    config.tables.values_mut().for_each(|table| table.line = 0);
    config.steps.iter_mut().for_each(|step| step.line = None);
    let http: Vec<_> = config
        .http
        .values()
        .map(|http| (http.headers.clone(), http.private, http.max_response, http.concurrency, http.rate, http.cache))
        .collect();
    format!("{config:#?} {http:?}")
}

/// The file as it stands, and with its comments taken away, in all ways that make sense.
pub(super) fn variants() -> Vec<String> {
    let (defaults, examples) = parts();
    let directory = uncomment(defaults, 1, |key| !REDIS.contains(&key));
    let redis = uncomment(&defaults.replace("#kind = \"directory\"", "kind = \"redis\""), 1, |key| key != "path");
    let short = uncomment(examples, 1, |_| true);
    let long = uncomment(&short, 2, |_| true);
    vec![
        FILE.to_owned(),
        directory.clone(),
        redis.clone(),
        REDIS_EXAMPLES.to_owned(),
        directory + &short,
        redis + &long,
    ]
}

#[test]
fn as_it_stands_it_changes_nothing() {
    assert_eq!(said(FILE), said(""));
}

#[test]
fn every_commented_default_is_the_default() {
    let (defaults, _) = parts();
    let uncommented = uncomment(defaults, 1, |key| !REDIS.contains(&key));
    assert_ne!(uncommented, defaults);
    assert_eq!(said(&uncommented), said(""));
}

#[test]
fn every_commented_default_of_redis_is_the_default() {
    let (defaults, _) = parts();
    let redis = defaults.replace("#kind = \"directory\"", "kind = \"redis\"");
    let uncommented = uncomment(&redis, 1, |key| key != "path");
    assert_eq!(said(&uncommented), said("[queue]\nkind = \"redis\""));
    let plain = "url = \"redis://127.0.0.1:6379/0\"";
    assert!(uncommented.contains(plain));
    let with_examples = uncomment(&uncommented.replace(plain, ""), 2, |_| true);
    assert_eq!(said(&with_examples), said(REDIS_EXAMPLES));
}

#[test]
fn the_examples_work_and_what_they_may_leave_out_is_the_default() {
    let (_, examples) = parts();
    let short = uncomment(examples, 1, |_| true);
    let long = uncomment(&short, 2, |_| true);
    assert!(said(&short).contains("ip-reputation"));
    assert_ne!(short, long);
    assert_eq!(said(&short), said(&long));
}

#[test]
fn every_key_is_documented() {
    let all = [
        fields::<RawConfig>(),
        fields::<RawQueue>(),
        fields::<RawStore>(),
        fields::<RawHost>(),
        fields::<RawAlert>(),
        fields::<RawPlugins>(),
        fields::<RawTable>(),
        fields::<RawHttp>(),
        fields::<RawStep>(),
        fields::<RawAdmin>(),
        fields::<LogConfig>(),
        fields::<RawAlarms>(),
        fields::<RawTelemetry>(),
    ]
    .concat();
    assert!(all.len() > 40, "{all:?}");
    let heads = ["[queue]", "[store]", "[host]", "[alert]", "[plugins]", "[admin]", "[log]", "[alarms]", "[telemetry]"];
    for field in all {
        let is_documented = FILE.lines().any(|line| line.starts_with('#') && key(line) == field)
            || heads.contains(&format!("[{field}]").as_str())
            || FILE.contains(&format!("#[{field}."))
            || FILE.contains(&format!("#[[{field}]]"));
        assert!(is_documented, "{field} is not in dossier.toml");
    }
}

/// The names that a struct's `Deserialize` asks for.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);
    impl<'de> serde::Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("no struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Self::Error::custom("the names are enough"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}
