//! The configuration: what stands in `dossier.toml`, its defaults, and what is wrong with it.
//!
//! Owns the file's shape and every check that needs nothing but the file. It does not open tables, plugins or
//! connections: those who do, report as [`Finding`]s too, so that `dossier validate` can show everything at once.

mod admin;
mod alarms;
pub mod effective;
mod http;
mod log;
mod place;
mod raw;
pub mod schema;
mod shape;
mod telemetry;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::admin::{AdminConfig, Token};
pub use self::alarms::AlarmsConfig;
pub(crate) use self::http::MAX_FAILURE_LIFE;
pub use self::http::{CacheConfig, HttpConfig, Rate};
pub use self::log::{LogConfig, LogFormat};
use self::place::{Place, dotted};
use self::shape::RawConfig;
pub use self::telemetry::{ENDPOINT_VARIABLES, NAME_VARIABLE, TelemetryConfig};

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
    /// What the file held when it was read.
    pub text: Text,
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
    /// When what is an alarm.
    pub alarms: AlarmsConfig,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
}

/// The text of a configuration; it may hold passwords, so it is never printed.
#[derive(Clone)]
pub struct Text(pub String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
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
    /// How often an alert may kill the process in which it runs alone before it is a dead letter.
    pub max_crashes: u32,
    /// From how many dead letters on there is an alarm.
    pub dlq_alarm: u64,
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
    /// `redis://` URL, or one that names Sentinels or nodes of a Cluster; may hold a password, so it is never printed whole.
    pub url: String,
    /// Certificates (PEM) of who may vouch for the server, with TLS; none: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The host's own certificate (PEM), with TLS.
    pub cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    pub key: Option<PathBuf>,
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
    /// How many bytes of alerts are in flight, at most, but that a larger alert may be alone: a parsed alert takes up to sixteen
    /// times its bytes.
    pub in_flight_bytes: u32,
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
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ObservableConfig {
    /// JSON pointer; a `*` segment stands for every element of an array.
    #[schemars(extend("pattern" = "^/"))]
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
    /// Whether plugins for a version of the contract that is still in development are served, too.
    pub preview: bool,
    /// How a new version has to prove itself.
    pub probation: ProbationConfig,
}

/// How a new version of a plugin has to prove itself before it counts as good.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct ProbationConfig {
    /// How many of its first calls are looked at; 0 takes every version as good.
    #[schemars(extend("default" = 50))]
    pub calls: u32,
    /// The share of them, above 0 and at most 1, with which it has failed.
    #[schemars(extend("default" = 0.2, "exclusiveMinimum" = 0, "maximum" = 1))]
    pub failures: f64,
}

impl Default for ProbationConfig {
    fn default() -> Self {
        Self { calls: 50, failures: 0.2 }
    }
}

/// A table that steps can be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// How old its file may be before that is an alarm.
    pub max_age: Option<Duration>,
    /// Where it stands in the configuration.
    pub line: usize,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
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

/// A step: a plugin with its limits, grants and settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepConfig {
    /// The name under which its result stands.
    pub name: String,
    /// The stem of the plugin's file.
    pub plugin: String,
    /// SHA-256 of the only file that it may be, as 64 lower-case hexadecimal digits; none: any file that is granted enough.
    pub sha256: Option<String>,
    /// The tables that it may look into.
    pub tables: Vec<String>,
    /// The HTTP interfaces that it may ask.
    pub http: Vec<String>,
    /// How many of its HTTP requests run at once, over all its calls.
    pub http_concurrency: usize,
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
    /// Lines in the log.
    pub log_lines: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 50_000_000, timeout: Duration::from_secs(1), memory: 16 << 20, answer: 256 << 10, log_lines: 64 }
    }
}

impl StepConfig {
    /// The step of a plugin that nothing in the configuration names: default limits, no grants, not required.
    pub fn unnamed(plugin: &str) -> Self {
        Self {
            name: plugin.to_owned(),
            plugin: plugin.to_owned(),
            sha256: None,
            tables: Vec::new(),
            http: Vec::new(),
            http_concurrency: 8,
            settings: "{}".to_owned(),
            limits: Limits::default(),
            required: false,
            retries: 0,
            reuse: 1,
            line: None,
        }
    }
}

/// After so many values of a wrong type the rest of a file is not looked at.
const MAX_WRONG_VALUES: usize = 100;

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

    /// The same with a text; `file` is where it came from and what relative paths are relative to.
    pub fn examine_text(file: &Path, text: &str) -> (Option<Self>, Vec<Finding>) {
        let place = Place { file, text };
        let mut findings = Vec::new();

        // serde stops at the first value of a wrong type. Its line is blanked and the rest is read again, so that everything
        // else that is wrong is found too.
        let mut readable = text.to_owned();
        let (config, unknown) = loop {
            let deserializer = match toml::Deserializer::parse(&readable) {
                Ok(deserializer) => deserializer,
                Err(error) if findings.is_empty() => return (None, vec![place.toml_error(&error)]),
                Err(_) => break (None, Vec::new()),
            };
            let mut unknown = Vec::new();
            let raw = serde_ignored::deserialize(deserializer, |path| unknown.push(dotted(&path)));
            match raw {
                Ok(raw) => {
                    let mut unfit = Vec::new();
                    let config = RawConfig::finish(raw, &place, &mut unfit);
                    // A section whose value was blanked may lack just that.
                    let lacking: Vec<_> =
                        findings.iter().filter_map(|wrong: &Finding| place.header(wrong.line?)).collect();
                    unfit.retain(|finding| finding.line.is_none_or(|line| !lacking.contains(&line)));
                    findings.append(&mut unfit);
                    break (Some(config), unknown);
                }
                Err(error) => {
                    let missing = error.message().starts_with("missing field");
                    if !missing || findings.is_empty() {
                        findings.push(place.toml_error(&error));
                    }
                    match error.span() {
                        Some(span) if !missing && findings.len() < MAX_WRONG_VALUES => {
                            place::blank(&mut readable, &span)
                        }
                        _ => break (None, unknown),
                    }
                }
            }
        };
        for key in unknown {
            let message = format!("unknown key \"{key}\"; see the commented dossier.toml for those that there are");
            findings.push(Finding { line: place.line_of_key(&key), ..place.finding(None, message) });
        }
        findings.sort_by_key(|finding| finding.line);
        (config, findings)
    }

    /// A finding about this configuration at a line of it.
    pub fn finding(&self, line: Option<usize>, message: impl Into<String>) -> Finding {
        Finding { file: self.file.clone(), line, message: message.into() }
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
