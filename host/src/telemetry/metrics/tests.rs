use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::*;

/// Checks a scrape as strictly as the format allows, and gives its samples: series to value.
///
/// After <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md#text-format>.
pub(in crate::telemetry) fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("a scrape ends with # EOF");
    let mut samples = BTreeMap::new();
    let mut families = HashSet::new();
    let (mut helped, mut family, mut kind) = (String::new(), String::new(), String::new());
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("help has a name and a text");
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(types) = line.strip_prefix("# TYPE ") {
            let (name, is) = types.split_once(' ').expect("a type has a name and a kind");
            assert_eq!(name, helped, "help comes before the type");
            assert!(families.insert(name.to_owned()), "{name} is one family");
            assert!(
                name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_'),
                "{name}"
            );
            assert!(name.starts_with("dossier_") || name.starts_with("process_"), "{name}");
            assert!(!name.ends_with("_total"), "{name} gets its _total by itself");
            (family, kind) = (name.to_owned(), is.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let name = series.split('{').next().unwrap_or_default();
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{name} stands under {family}"));
            let fits = match kind.as_str() {
                "counter" => suffix == "_total",
                "gauge" => suffix.is_empty(),
                "histogram" => matches!(suffix, "_bucket" | "_sum" | "_count"),
                _ => false,
            };
            assert!(fits, "{line}: {kind}");
            check_labels(&series[name.len()..]);
            let value = value.parse().unwrap_or_else(|_| panic!("{line}: a number"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is there once");
        }
    }
    samples
}

/// `{name="value",…}` with every quote, backslash and line feed of a value escaped.
fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let mut rest = labels.strip_prefix('{').expect("labels begin with a brace");
    let mut names = HashSet::new();
    while rest != "}" {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{labels}"));
        assert!(name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_'), "{labels}");
        assert!(names.insert(name), "{labels}");
        let mut escaped = false;
        let end = value
            .find(|char| {
                let end = char == '"' && !escaped;
                assert!(!escaped || matches!(char, '"' | '\\' | 'n'), "{labels}");
                escaped = char == '\\' && !escaped;
                end
            })
            .unwrap_or_else(|| panic!("{labels}"));
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[test]
fn a_scrape_of_nothing_is_valid_and_says_nothing_of_a_queue_that_nobody_looked_at() {
    let samples = parse(&Metrics::default().scrape());
    assert_eq!(samples[r#"dossier_alerts_total{outcome="stored",verdict="malicious"}"#], 0.0);
    assert_eq!(samples[r#"dossier_dead_letters_total{reason="out-of-fuel",step=""}"#], 0.0);
    assert_eq!(samples[r#"dossier_alarms_total{alarm="queue-trouble"}"#], 0.0);
    assert_eq!(samples[concat!(r#"dossier_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#)], 1.0);
    assert!(!samples.keys().any(|series| series.starts_with("dossier_queue_backlog")));
}

#[test]
fn the_process_says_when_it_began_and_what_it_uses() {
    let samples = parse(&Metrics::default().scrape());
    assert!(samples["process_start_time_seconds"] > 1.7e9);
    assert!(samples["process_cpu_seconds_total"] > 0.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    assert!(samples["process_open_fds"] >= 3.0);
}

#[test]
fn the_backlog_is_what_waits_and_what_is_in_flight() {
    let metrics = Metrics::default();
    metrics.queue_depth(&Depth {
        waiting: 5,
        in_flight: 2,
        stored: 40,
        dead: 3,
        oldest: Some(Duration::from_millis(1500)),
    });
    let samples = parse(&metrics.scrape());
    for (series, value) in [
        ("dossier_queue_backlog", 7.0),
        ("dossier_queue_waiting", 5.0),
        ("dossier_queue_in_flight", 2.0),
        ("dossier_queue_stored", 40.0),
        ("dossier_queue_dead_letters", 3.0),
        ("dossier_queue_oldest_age_seconds", 1.5),
    ] {
        assert_eq!(samples[series], value, "{series}");
    }
}

#[test]
fn a_reloaded_plugin_has_one_version_and_a_removed_one_has_none() {
    let metrics = Metrics::default();
    let shown = || {
        parse(&metrics.scrape()).into_keys().filter(|key| key.starts_with("dossier_plugin_info")).collect::<Vec<_>>()
    };
    metrics.plugin_serves("geo", "0.1.0", "aa");
    metrics.plugin_serves("asset", "0.1.0", "cc");
    metrics.plugin_serves("geo", "0.2.0", "bb");
    assert_eq!(
        shown(),
        [
            r#"dossier_plugin_info{plugin="asset",version="0.1.0",sha256="cc"}"#,
            r#"dossier_plugin_info{plugin="geo",version="0.2.0",sha256="bb"}"#
        ]
    );
    metrics.plugin_gone("asset");
    assert_eq!(shown().len(), 1);
}

#[test]
fn a_version_that_a_plugin_made_up_cannot_break_the_scrape() {
    let metrics = Metrics::default();
    metrics.plugin_serves("geo", "1.0\"} 5\ndossier_evil 1 \\", &"é".repeat(100));
    let samples = parse(&metrics.scrape());
    assert!(!samples.contains_key("dossier_evil"));
    assert!(samples.keys().all(|series| series.len() < 250));
}
