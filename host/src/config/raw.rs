//! How what is written becomes a [`Config`]: defaults, and what does not fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::Spanned;

use super::admin::admin_config;
use super::alarms;
use super::http::http_config;
use super::place::Place;
use super::shape::{MAX_BATCH, MAX_IN_FLIGHT, OneOrMany, RawAlert, RawConfig, RawKind, RawQueue, RawStep, RawTable};
use super::value::{self, RedisUrl, Text};
use super::{
    AlertConfig, Config, Finding, HostConfig, Limits, PluginsConfig, ProbationConfig, QueueConfig, QueueKind,
    RedisConfig, StepConfig, TableConfig, TableFormat,
};

/// The time that a step with an HTTP grant has, where none is said.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest settings of a step as JSON, in bytes: the contract promises plugins no more.
const MAX_SETTINGS: usize = 64 << 10;

impl RawConfig {
    pub(super) fn finish(self, place: &Place<'_>, findings: &mut Vec<Finding>) -> Config {
        // A step may name what is there, be it right or wrong: what is wrong with it is said once.
        let known = Known { tables: self.tables.keys().cloned().collect(), http: self.http.keys().cloned().collect() };
        let tables: BTreeMap<_, _> = self
            .tables
            .into_iter()
            .filter_map(|(name, table)| Some((name.clone(), table_config(&name, table, place, findings)?)))
            .collect();
        let http: BTreeMap<_, _> = self
            .http
            .into_iter()
            .filter_map(|(name, http)| Some((name.clone(), http_config(&name, http, place, findings)?)))
            .collect();
        let mut steps: Vec<StepConfig> = Vec::new();
        for step in self.step {
            let offset = step.span().start;
            let step = step_config(step, &known, place, findings);
            if steps.iter().any(|other| other.name == step.name) {
                let message = format!("two steps are named \"{}\"; give one of them another name = \"…\"", step.name);
                findings.push(place.finding(Some(offset), message));
            }
            steps.push(step);
        }
        alarms::pointers(&self.log.redact, place.line_of_key("log.redact"), place, findings);
        let retention = self.store.retention;
        if let (Some(retention), RawKind::Directory) = (&retention, self.queue.kind) {
            let message = "retention is for the queue kind \"redis\"; delete old files of processed/ yourself, \
                           e.g. with find -mtime";
            findings.push(place.finding(Some(retention.span().start), message));
        }
        Config {
            file: place.file.to_owned(),
            text: super::Text(place.text.to_owned()),
            sha256: crate::digest::sha256_hex(place.text.as_bytes()),
            queue: self.queue.finish(retention.map(|value| value.into_inner().0), place, findings),
            host: HostConfig {
                state_dir: place.path(self.state_dir.as_ref().map_or("state", |text| &text.0)),
                in_flight: positive(self.host.in_flight, 256, MAX_IN_FLIGHT, "in_flight", place, findings),
                // A permit for each byte; none would let nothing in.
                in_flight_bytes: self
                    .host
                    .in_flight_bytes
                    .map_or(16 << 20, |size| u32::try_from(size.0).unwrap_or(u32::MAX).max(1)),
                grace: self.host.grace.map_or(Duration::from_secs(30), |period| period.0),
            },
            alert: alert_config(self.alert, place, findings),
            plugins: PluginsConfig {
                dir: place.path(self.plugins.dir.as_ref().map_or("plugins", |text| &text.0)),
                auto: self.plugins.auto.unwrap_or(true),
                preview: self.plugins.preview.unwrap_or(false),
                probation: probation_config(self.plugins.probation, place, findings),
            },
            tables,
            http,
            steps,
            admin: admin_config(self.admin, place, findings),
            log: self.log,
            alarms: self.alarms.finish(place, findings),
            telemetry: self.telemetry.finish(place, findings),
        }
    }
}

fn positive(
    value: Option<Spanned<usize>>,
    default: usize,
    most: usize,
    name: &str,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> usize {
    let Some(value) = value else { return default };
    if !(1..=most).contains(value.get_ref()) {
        findings.push(place.finding(Some(value.span().start), format!("{name} must be from 1 to {most}")));
        return default;
    }
    value.into_inner()
}

impl RawQueue {
    fn finish(self, retention: Option<Duration>, place: &Place<'_>, findings: &mut Vec<Finding>) -> QueueConfig {
        let mut stray = |present: Option<usize>, key: &str, kind: &str| {
            if let Some(offset) = present {
                let message = format!("{key} is for the queue kind \"{kind}\"; set kind = \"{kind}\" or leave it out");
                findings.push(place.finding(Some(offset), message));
            }
        };
        let at = |text: &Option<Spanned<Text>>| text.as_ref().map(|text| text.span().start);
        match self.kind {
            RawKind::Directory => {
                stray(at(&self.url), "url", "redis");
                stray(at(&self.ca), "ca", "redis");
                stray(at(&self.cert), "cert", "redis");
                stray(at(&self.key), "key", "redis");
                stray(at(&self.stream), "stream", "redis");
                stray(at(&self.group), "group", "redis");
                stray(self.lease.as_ref().map(|lease| lease.span().start), "lease", "redis");
                stray(self.dedupe_window.as_ref().map(|window| window.span().start), "dedupe_window", "redis");
            }
            RawKind::Redis => stray(at(&self.path), "path", "directory"),
        }
        for (name, value) in [("stream", &self.stream), ("group", &self.group)] {
            if let Some(value) = value.as_ref().filter(|value| value.get_ref().0.is_empty()) {
                let message = format!("{name} must have a name; write one, or leave it out");
                findings.push(place.finding(Some(value.span().start), message));
            }
        }
        if let Some(url) = self.url.as_ref().filter(|url| !RedisUrl::is_one(&url.get_ref().0)) {
            // It is not repeated: it may hold a password.
            let message = "url is no URL of a Redis server; write redis://[user:password@]host:port/db, rediss:// for TLS, \
                           unix:///path, redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port";
            findings.push(place.finding(Some(url.span().start), message));
        }
        let text = |value: Option<Spanned<Text>>, default: &str| {
            value.map_or_else(|| default.to_owned(), |text| text.into_inner().0)
        };
        if let Some(lease) = &self.lease
            && lease.get_ref().0 < Duration::from_secs(1)
        {
            findings.push(place.finding(Some(lease.span().start), "lease must be at least 1s"));
        }
        let files = (at(&self.ca).or(at(&self.cert)).or(at(&self.key)), at(&self.cert).xor(at(&self.key)));
        let plain = self.url.as_ref().is_none_or(|url| !url.get_ref().0.starts_with("rediss"));
        match files {
            (_, Some(offset)) => {
                findings.push(place.finding(Some(offset), "cert and key belong together; add the other one"));
            }
            (Some(offset), None) if plain && self.kind == RawKind::Redis => {
                let message = "ca, cert and key are for TLS; write url = \"rediss://…\", or leave them out";
                findings.push(place.finding(Some(offset), message));
            }
            _ => {}
        }
        let file = |text: Option<Spanned<Text>>| text.map(|text| place.path(&text.get_ref().0));
        QueueConfig {
            kind: match self.kind {
                RawKind::Directory => QueueKind::Directory { path: place.path(&text(self.path, "queue")) },
                RawKind::Redis => QueueKind::Redis(RedisConfig {
                    url: text(self.url, "redis://127.0.0.1:6379/0"),
                    ca: file(self.ca),
                    cert: file(self.cert),
                    key: file(self.key),
                    stream: text(self.stream, "alerts"),
                    group: text(self.group, "dossier"),
                    lease: self.lease.map_or(Duration::from_secs(15), |lease| lease.into_inner().0),
                    dedupe_window: self.dedupe_window.map_or(Duration::from_secs(600), |period| period.into_inner().0),
                    retention,
                }),
            },
            batch: positive(self.batch, 100, MAX_BATCH, "batch", place, findings),
            max_alert_size: self.max_alert_size.map_or(1 << 20, |size| size.0),
            max_crashes: self.max_crashes.unwrap_or(3).max(1),
            dlq_alarm: self.dlq_alarm.unwrap_or(10_000).max(1),
        }
    }
}

fn alert_config(raw: RawAlert, place: &Place<'_>, findings: &mut Vec<Finding>) -> AlertConfig {
    let mut check = |pointer: &str, offset: usize| {
        if !pointer.starts_with('/') {
            let message = format!("\"{pointer}\" is no JSON pointer; write it with a slash, as in \"/source/ip\"");
            findings.push(place.finding(Some(offset), message));
        }
    };
    if let Some(ids) = &raw.id {
        ids.get_ref().iter().for_each(|pointer| check(pointer, ids.span().start));
    }
    for observable in &raw.observables {
        check(&observable.get_ref().pointer, observable.span().start);
    }
    AlertConfig {
        id: raw.id.map_or_else(|| ["/id", "/uuid", "/alert_id"].map(str::to_owned).to_vec(), Spanned::into_inner),
        observables: raw.observables.into_iter().map(Spanned::into_inner).collect(),
    }
}

fn probation_config(
    raw: Option<Spanned<ProbationConfig>>,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> ProbationConfig {
    let Some(raw) = raw else { return ProbationConfig::default() };
    if !(raw.get_ref().failures > 0.0 && raw.get_ref().failures <= 1.0) {
        let message =
            "failures must be a share above 0 and at most 1, as in probation = { calls = 50, failures = 0.2 }";
        findings.push(place.finding(Some(raw.span().start), message));
    }
    raw.into_inner()
}

fn table_config(
    name: &str,
    table: Spanned<RawTable>,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> Option<TableConfig> {
    let offset = table.span().start;
    let table = table.into_inner();
    let file = place.path(&table.file.0);
    let mut refuse = |message: String| {
        findings.push(place.finding(Some(offset), format!("table \"{name}\": {message}")));
        None
    };
    let by_name = match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Some(TableFormat::Csv),
        Some("tsv") => Some(TableFormat::Tsv),
        Some("jsonl" | "ndjson") => Some(TableFormat::Jsonl),
        Some("mmdb") => Some(TableFormat::Mmdb),
        Some("txt" | "list") => Some(TableFormat::List),
        _ => None,
    };
    let Some(format) = table.format.or(by_name) else {
        return refuse("its format does not show in the file's name; add format = \"csv\", \"tsv\", \"list\", \"jsonl\" or \"mmdb\"".into());
    };
    let key = match table.key {
        Some(OneOrMany::One(key)) => vec![key],
        Some(OneOrMany::Many(keys)) => keys,
        None => Vec::new(),
    };
    let keyed = matches!(format, TableFormat::Csv | TableFormat::Tsv | TableFormat::Jsonl);
    if keyed && key.is_empty() {
        return refuse("it has no key; add key = \"column\"".into());
    }
    if !keyed && !key.is_empty() {
        return refuse("key is for csv, tsv and jsonl; leave it out".into());
    }
    if let Some(columns) = &table.columns {
        if !matches!(format, TableFormat::Csv | TableFormat::Tsv) {
            return refuse("columns are for csv and tsv; leave them out".into());
        }
        if let Some(missing) = key.iter().find(|key| !columns.contains(key)) {
            return refuse(format!("its key \"{missing}\" is none of its columns ({})", columns.join(", ")));
        }
    }
    if table.comment.is_some() && format == TableFormat::Mmdb {
        return refuse("comment is not for mmdb; leave it out".into());
    }
    if table.comment.is_some_and(|comment| !comment.is_ascii()) {
        return refuse("comment must be one ASCII character".into());
    }
    let line = place.line(offset);
    let max_age = table.max_age.map(|age| age.0);
    Some(TableConfig { file, format, columns: table.columns, key, comment: table.comment, max_age, line })
}

/// The names that a step's grants can have.
struct Known {
    tables: BTreeSet<String>,
    http: BTreeSet<String>,
}

fn step_config(step: Spanned<RawStep>, known: &Known, place: &Place<'_>, findings: &mut Vec<Finding>) -> StepConfig {
    let line = place.line(step.get_ref().plugin.span().start);
    let step = step.into_inner();
    let name = step.name.unwrap_or_else(|| step.plugin.get_ref().clone());
    let mut refuse = |offset: usize, message: String| {
        findings.push(place.finding(Some(offset), format!("step \"{name}\": {message}")));
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        refuse(step.plugin.span().start, "its name may hold letters, digits, '-', '_' and '.' only".into());
    }
    for table in &step.tables {
        if !known.tables.contains(table.get_ref()) {
            let table_name = table.get_ref();
            refuse(
                table.span().start,
                format!("there is no table \"{table_name}\"; add [tables.{table_name}] or take it out of tables"),
            );
        }
    }
    for api in &step.http {
        if !known.http.contains(api.get_ref()) {
            let api_name = api.get_ref();
            refuse(
                api.span().start,
                format!("there is no HTTP interface \"{api_name}\"; add [http.{api_name}] or take it out of http"),
            );
        }
    }
    let settings = match step.settings {
        None => "{}".to_owned(),
        Some(settings) => {
            let offset = settings.span().start;
            let settings = toml::Value::Table(settings.into_inner());
            if let Some(text) = value::find_variable(&settings) {
                refuse(
                    offset,
                    format!(
                        "settings hold {text}; they end in the plugin's memory, so no variable is filled in there: write the value, or put a secret into the headers of [http.…]"
                    ),
                );
            }
            let settings = value::to_json(&settings).to_string();
            if settings.len() > MAX_SETTINGS {
                refuse(
                    offset,
                    format!("settings are longer than {} KiB; put what is long into a table", MAX_SETTINGS >> 10),
                );
            }
            settings
        }
    };
    let default = Limits::default();
    let memory = step.memory.map_or(default.memory, |memory| {
        if memory.get_ref().0 < 64 << 10 {
            refuse(memory.span().start, "memory must be at least 64KiB, one page".into());
        }
        memory.into_inner().0
    });
    let reuse = step.reuse.map_or(1, |reuse| {
        if *reuse.get_ref() == 0 {
            refuse(reuse.span().start, "reuse must be at least 1 (a fresh instance for every alert)".into());
        }
        reuse.into_inner()
    });
    let http_concurrency = step.http_concurrency.map_or(8, |concurrency| {
        if *concurrency.get_ref() == 0 {
            refuse(concurrency.span().start, "http_concurrency must be at least 1".into());
        }
        concurrency.into_inner().max(1)
    });
    let sha256 = step.sha256.map(|pinned| {
        let digest = pinned.get_ref().to_ascii_lowercase();
        if hex::decode(&digest).map_or(true, |digest| digest.len() != 32) {
            refuse(pinned.span().start, "sha256 must have 64 hexadecimal digits, as `sha256sum` prints them".into());
        }
        digest
    });
    let timeout = if step.http.is_empty() { default.timeout } else { HTTP_TIMEOUT };
    StepConfig {
        plugin: step.plugin.into_inner(),
        sha256,
        tables: step.tables.into_iter().map(Spanned::into_inner).collect(),
        http: step.http.into_iter().map(Spanned::into_inner).collect(),
        http_concurrency,
        settings,
        limits: Limits {
            fuel: step.fuel.unwrap_or(default.fuel),
            timeout: step.timeout.map_or(timeout, |period| period.0),
            memory,
            answer: step.answer.map_or(default.answer, |size| size.0),
            log_lines: step.log_lines.unwrap_or(default.log_lines),
        },
        required: step.required.unwrap_or(true),
        retries: step.retries.unwrap_or(5),
        reuse,
        line: Some(line),
        name,
    }
}
