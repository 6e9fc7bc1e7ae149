//! The configuration: what stands in `dossier.toml`, its defaults, and what is wrong with it.
//!
//! Owns the file's shape and every check that needs nothing but the file. It does not open tables, plugins or
//! connections: those who do, report as [`Finding`]s too, so that `dossier validate` can show everything at once.

mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use self::value::{ByteCount, Period, Text};

/// One thing that is wrong, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file that is wrong.
    pub file: PathBuf,
    /// The line in it, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Finding>);

/// A whole configuration, defaults filled in, paths made absolute or relative to the working directory.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// SHA-256 of the file's bytes, for the records.
    pub sha256: String,
    /// Where alerts wait.
    pub queue: QueueConfig,
    /// What bounds the host.
    pub host: HostConfig,
    /// How alerts are read.
    pub alert: AlertConfig,
    /// Where plugins lie.
    pub plugins: PluginsConfig,
    /// The tables by name.
    pub tables: BTreeMap<String, TableConfig>,
    /// The HTTP interfaces by name.
    pub http: BTreeMap<String, HttpConfig>,
    /// The steps, in the file's order.
    pub steps: Vec<StepConfig>,
    /// The admin address.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
}

/// Where alerts wait, are stored and go when they fail.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// The kind with what only it needs.
    pub kind: QueueKind,
    /// How many alerts are read and committed together, at most.
    pub batch: usize,
    /// The largest alert, in bytes; a larger one goes to the dead letters as `too-large`.
    pub max_alert_size: usize,
    /// How often an alert may crash the host while it runs alone before it is a dead letter.
    pub max_crashes: u32,
}

/// Which queue.
#[derive(Debug, Clone)]
pub enum QueueKind {
    /// A directory with `pending`, `processed` and `errors`.
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// Redis Streams.
    Redis(RedisConfig),
}

/// What the Redis queue needs.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://` URL; may hold a password, so it is never printed whole.
    pub url: String,
    /// The stream of alerts; `<stream>:enriched` and `<stream>:dlq` are derived from it.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// How long a host may be silent before others claim what it had.
    pub lease: Duration,
    /// How long at least an alert's id is remembered as stored.
    pub dedupe_window: Duration,
    /// How long records are kept; none keeps them for ever.
    pub retention: Option<Duration>,
}

/// What bounds the host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Where compiled plugins and the last good ones are kept.
    pub state_dir: PathBuf,
    /// How many alerts are in flight, at most.
    pub in_flight: usize,
    /// How long a shutdown waits for what is in flight.
    pub grace: Duration,
}

/// How alerts are read.
#[derive(Debug, Clone)]
pub struct AlertConfig {
    /// JSON pointers to the id; the first that is there counts.
    pub id: Vec<String>,
    /// JSON pointers to observables, before the built-in ones.
    pub observables: Vec<ObservableConfig>,
}

/// A place where alerts keep an observable.
#[derive(Debug, Clone, Deserialize)]
pub struct ObservableConfig {
    /// JSON pointer; a `*` segment stands for every element of an array.
    pub pointer: String,
    /// What stands there: `ip`, `host`, `user`, `domain`, `url`, `hash`, or a word of your own.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its part in the alert: `source`, `destination`, `observer`, `subject`, `related`, or a word of your own.
    pub role: String,
}

/// Where plugins lie.
#[derive(Debug, Clone)]
pub struct PluginsConfig {
    /// The folder of `.wasm` files.
    pub dir: PathBuf,
    /// Whether a plugin that no step names runs all the same.
    pub auto: bool,
}

/// A table that steps can be granted.
#[derive(Debug, Clone)]
pub struct TableConfig {
    /// The file.
    pub file: PathBuf,
    /// How it is written.
    pub format: TableFormat,
    /// Column names, for files without a header.
    pub columns: Option<Vec<String>>,
    /// The columns whose values find a row; any one of them does.
    pub key: Vec<String>,
    /// Lines that begin with this are left out.
    pub comment: Option<char>,
    /// Where it stands in the configuration.
    pub line: usize,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// Comma-separated, with a header unless `columns` are named.
    Csv,
    /// Tab-separated, likewise.
    Tsv,
    /// One key a line.
    List,
    /// One JSON object a line.
    Jsonl,
    /// MaxMind's database format.
    Mmdb,
}

/// An HTTP interface that steps can be granted.
#[derive(Clone)]
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
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("HttpConfig").field("url", &self.url.as_str()).field("headers", &names).finish_non_exhaustive()
    }
}

/// A step: a plugin with its limits, grants and settings.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// The name under which its result stands.
    pub name: String,
    /// The stem of the plugin's file.
    pub plugin: String,
    /// The tables that it may look into.
    pub tables: Vec<String>,
    /// The HTTP interfaces that it may ask.
    pub http: Vec<String>,
    /// What the plugin is configured with: a JSON object as text.
    pub settings: String,
    /// What bounds one call.
    pub limits: Limits,
    /// Whether its failure sends the alert to the dead letters.
    pub required: bool,
    /// How often an unavailable step is called again.
    pub retries: u32,
    /// How many alerts one instance may serve; 1 is a fresh instance for every alert.
    pub reuse: u32,
    /// Where it stands in the configuration; none for a plugin that no step names.
    pub line: Option<usize>,
}

/// What bounds one call of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// wasmtime's units: about one for each instruction.
    pub fuel: u64,
    /// Wall-clock time around the whole call.
    pub timeout: Duration,
    /// Linear memory, in bytes.
    pub memory: usize,
    /// The answer, in bytes.
    pub answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 50_000_000, timeout: Duration::from_secs(1), memory: 16 << 20, answer: 256 << 10 }
    }
}

/// The time that a step with an HTTP grant has, where none is said.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

impl StepConfig {
    /// The step of a plugin that nothing in the configuration names: default limits, no grants, not required.
    pub fn unnamed(plugin: &str) -> Self {
        Self {
            name: plugin.to_owned(),
            plugin: plugin.to_owned(),
            tables: Vec::new(),
            http: Vec::new(),
            settings: "{}".to_owned(),
            limits: Limits::default(),
            required: false,
            retries: 0,
            reuse: 1,
            line: None,
        }
    }
}

/// The admin address.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` answer; none turns them off.
    pub address: Option<std::net::SocketAddr>,
}

/// The log.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter of tracing's.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with the lines: not readable, not TOML, a wrong type, unknown keys, a
    /// variable that is not set, and whatever does not fit together.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::unless_wrong(Self::examine(file))
    }

    /// Checks a configuration's text; `file` is where it came from and what relative paths are relative to.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::unless_wrong(Self::examine_text(file, text))
    }

    /// Reads a configuration and says what is wrong with it. One that is wrong may still be there, without its wrong parts, so
    /// that what it names can be looked at too; it must not be run.
    pub fn examine(file: &Path) -> (Option<Self>, Vec<Finding>) {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::examine_text(file, &text),
            Err(error) => {
                let message = format!("cannot be read: {error}; name a configuration with --config FILE");
                (None, vec![Finding { file: file.to_owned(), line: None, message }])
            }
        }
    }

    fn unless_wrong((config, findings): (Option<Self>, Vec<Finding>)) -> Result<Self, ConfigError> {
        config.filter(|_| findings.is_empty()).ok_or(ConfigError(findings))
    }

    fn examine_text(file: &Path, text: &str) -> (Option<Self>, Vec<Finding>) {
        let place = Place { file, text };
        let mut findings = Vec::new();

        let deserializer = match toml::Deserializer::parse(text) {
            Ok(deserializer) => deserializer,
            Err(error) => return (None, vec![place.toml_error(&error)]),
        };
        let mut unknown = Vec::new();
        let raw = serde_ignored::deserialize(deserializer, |path| unknown.push(dotted(&path)));
        for key in unknown {
            let message = format!("unknown key \"{key}\"; see the commented dossier.toml for those that there are");
            findings.push(Finding { line: place.line_of_key(&key), ..place.finding(None, message) });
        }
        let config = match raw {
            Ok(raw) => Some(RawConfig::finish(raw, &place, &mut findings)),
            Err(error) => {
                findings.push(place.toml_error(&error));
                None
            }
        };
        findings.sort_by_key(|finding| finding.line);
        (config, findings)
    }

    /// A finding about this configuration at a line of it.
    pub fn finding(&self, line: Option<usize>, message: impl Into<String>) -> Finding {
        Finding { file: self.file.clone(), line, message: message.into() }
    }
}

/// A path as people write it (`step.1.fuel`), without what [`Spanned`] puts into it.
fn dotted(path: &serde_ignored::Path<'_>) -> String {
    let path = path.to_string();
    let segments: Vec<_> = path.split('.').filter(|segment| *segment != "?" && !segment.starts_with('$')).collect();
    segments.join(".")
}

/// The file while it is read: turns offsets into lines.
struct Place<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    fn finding(&self, offset: Option<usize>, message: impl Into<String>) -> Finding {
        Finding { file: self.file.to_owned(), line: offset.map(|offset| self.line(offset)), message: message.into() }
    }

    fn toml_error(&self, error: &toml::de::Error) -> Finding {
        self.finding(error.span().map(|span| span.start), error.message().replace('\n', ", "))
    }

    /// The line of a dotted key (`step.0.plugni`).
    fn line_of_key(&self, path: &str) -> Option<usize> {
        let root = toml::de::DeTable::parse(self.text).ok()?;
        let mut table = root.get_ref();
        let mut segments = path.split('.').peekable();
        while let Some(segment) = segments.next() {
            let (key, value) = table.get_key_value(segment)?;
            if segments.peek().is_none() {
                return Some(self.line(key.span().start));
            }
            let mut value = value.get_ref();
            while let toml::de::DeValue::Array(array) = value {
                value = array.get(segments.next()?.parse::<usize>().ok()?)?.get_ref();
            }
            table = match value {
                toml::de::DeValue::Table(inner) => inner,
                _ => return None,
            };
        }
        None
    }

    /// A path of the file, relative to the file's folder.
    fn path(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConfig {
    state_dir: Option<Text>,
    queue: RawQueue,
    store: RawStore,
    host: RawHost,
    alert: RawAlert,
    plugins: RawPlugins,
    tables: BTreeMap<String, Spanned<RawTable>>,
    http: BTreeMap<String, Spanned<RawHttp>>,
    step: Vec<Spanned<RawStep>>,
    admin: RawAdmin,
    log: LogConfig,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    #[default]
    Directory,
    Redis,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawQueue {
    kind: RawKind,
    path: Option<Spanned<Text>>,
    url: Option<Spanned<Text>>,
    stream: Option<Spanned<Text>>,
    group: Option<Spanned<Text>>,
    lease: Option<Spanned<Period>>,
    dedupe_window: Option<Spanned<Period>>,
    batch: Option<Spanned<usize>>,
    max_alert_size: Option<ByteCount>,
    max_crashes: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStore {
    retention: Option<Spanned<Period>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHost {
    in_flight: Option<Spanned<usize>>,
    grace: Option<Period>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAlert {
    id: Option<Spanned<Vec<String>>>,
    observables: Vec<Spanned<ObservableConfig>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPlugins {
    dir: Option<Text>,
    auto: Option<bool>,
}

#[derive(Deserialize)]
struct RawTable {
    file: Text,
    format: Option<TableFormat>,
    columns: Option<Vec<String>>,
    key: Option<OneOrMany>,
    comment: Option<char>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct RawHttp {
    url: Spanned<Text>,
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    #[serde(default)]
    private: bool,
    max_response: Option<ByteCount>,
    concurrency: Option<usize>,
}

#[derive(Deserialize)]
struct RawStep {
    plugin: Spanned<String>,
    name: Option<String>,
    #[serde(default)]
    tables: Vec<Spanned<String>>,
    #[serde(default)]
    http: Vec<Spanned<String>>,
    settings: Option<Spanned<toml::Table>>,
    fuel: Option<u64>,
    timeout: Option<Period>,
    memory: Option<Spanned<ByteCount>>,
    answer: Option<ByteCount>,
    required: Option<bool>,
    retries: Option<u32>,
    reuse: Option<Spanned<u32>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAdmin {
    address: Option<Spanned<Text>>,
}

impl RawConfig {
    fn finish(self, place: &Place<'_>, findings: &mut Vec<Finding>) -> Config {
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
        let retention = self.store.retention;
        if let (Some(retention), RawKind::Directory) = (&retention, self.queue.kind) {
            let message = "retention is for the queue kind \"redis\"; delete old files of processed/ yourself, \
                           e.g. with find -mtime";
            findings.push(place.finding(Some(retention.span().start), message));
        }
        Config {
            file: place.file.to_owned(),
            sha256: crate::digest::sha256_hex(place.text.as_bytes()),
            queue: self.queue.finish(retention.map(|value| value.into_inner().0), place, findings),
            host: HostConfig {
                state_dir: place.path(self.state_dir.as_ref().map_or("state", |text| &text.0)),
                in_flight: positive(self.host.in_flight, 256, "in_flight", place, findings),
                grace: self.host.grace.map_or(Duration::from_secs(30), |period| period.0),
            },
            alert: alert_config(self.alert, place, findings),
            plugins: PluginsConfig {
                dir: place.path(self.plugins.dir.as_ref().map_or("plugins", |text| &text.0)),
                auto: self.plugins.auto.unwrap_or(true),
            },
            tables,
            http,
            steps,
            admin: admin_config(self.admin, place, findings),
            log: self.log,
        }
    }
}

fn positive(
    value: Option<Spanned<usize>>,
    default: usize,
    name: &str,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> usize {
    let Some(value) = value else { return default };
    if *value.get_ref() == 0 {
        findings.push(place.finding(Some(value.span().start), format!("{name} must be at least 1")));
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
                stray(at(&self.stream), "stream", "redis");
                stray(at(&self.group), "group", "redis");
                stray(self.lease.as_ref().map(|lease| lease.span().start), "lease", "redis");
                stray(self.dedupe_window.as_ref().map(|window| window.span().start), "dedupe_window", "redis");
            }
            RawKind::Redis => stray(at(&self.path), "path", "directory"),
        }
        let text = |value: Option<Spanned<Text>>, default: &str| {
            value.map_or_else(|| default.to_owned(), |text| text.into_inner().0)
        };
        if let Some(lease) = &self.lease
            && lease.get_ref().0 < Duration::from_secs(1)
        {
            findings.push(place.finding(Some(lease.span().start), "lease must be at least 1s"));
        }
        QueueConfig {
            kind: match self.kind {
                RawKind::Directory => QueueKind::Directory { path: place.path(&text(self.path, "queue")) },
                RawKind::Redis => QueueKind::Redis(RedisConfig {
                    url: text(self.url, "redis://127.0.0.1:6379/0"),
                    stream: text(self.stream, "alerts"),
                    group: text(self.group, "dossier"),
                    lease: self.lease.map_or(Duration::from_secs(15), |lease| lease.into_inner().0),
                    dedupe_window: self.dedupe_window.map_or(Duration::from_secs(600), |period| period.into_inner().0),
                    retention,
                }),
            },
            batch: positive(self.batch, 100, "batch", place, findings),
            max_alert_size: self.max_alert_size.map_or(1 << 20, |size| size.0),
            max_crashes: self.max_crashes.unwrap_or(3).max(1),
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

fn admin_config(raw: RawAdmin, place: &Place<'_>, findings: &mut Vec<Finding>) -> AdminConfig {
    let default = std::net::SocketAddr::from(([127, 0, 0, 1], 9464));
    let Some(address) = raw.address else { return AdminConfig { address: Some(default) } };
    match address.get_ref().0.as_str() {
        "off" => AdminConfig { address: None },
        text => match text.parse() {
            Ok(address) => AdminConfig { address: Some(address) },
            Err(_) => {
                let message =
                    format!("\"{text}\" is no address; write address and port, as in \"127.0.0.1:9464\", or \"off\"");
                findings.push(place.finding(Some(address.span().start), message));
                AdminConfig { address: None }
            }
        },
    }
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
    Some(TableConfig { file, format, columns: table.columns, key, comment: table.comment, line })
}

fn http_config(
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
    Some(HttpConfig {
        url,
        headers: http.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
        private: http.private,
        max_response: http.max_response.map_or(1 << 20, |size| size.0),
        concurrency: http.concurrency.unwrap_or(8).max(1),
    })
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
            value::to_json(&settings).to_string()
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
    let timeout = if step.http.is_empty() { default.timeout } else { HTTP_TIMEOUT };
    StepConfig {
        plugin: step.plugin.into_inner(),
        tables: step.tables.into_iter().map(Spanned::into_inner).collect(),
        http: step.http.into_iter().map(Spanned::into_inner).collect(),
        settings,
        limits: Limits {
            fuel: step.fuel.unwrap_or(default.fuel),
            timeout: step.timeout.map_or(timeout, |period| period.0),
            memory,
            answer: step.answer.map_or(default.answer, |size| size.0),
        },
        required: step.required.unwrap_or(true),
        retries: step.retries.unwrap_or(5),
        reuse,
        line: Some(line),
        name,
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
