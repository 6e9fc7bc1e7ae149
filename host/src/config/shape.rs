//! The file's shape as it is written. What is said of a field here is what `dossier config schema` and the reference in `docs/`
//! say of it; `dossier.toml` says it to whoever edits that. How it becomes a [`super::Config`] is in [`super::raw`].
//!
//! Beside JSON Schema's own words a field may have `x-kind`, the kind of queue that it is only for, and `x-reload`, when it is taken
//! over while the host runs. `writeOnly` marks what may hold a secret. A `default` stands where there is one that does not depend on
//! anything else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::admin::RawAdmin;
use super::alarms::RawAlarms;
use super::http::RawHttp;
use super::telemetry::RawTelemetry;
use super::value::{ByteCount, Period, RedisUrl, SomeBytes, Text};
use super::{LogConfig, ObservableConfig, ProbationConfig, TableFormat};

/// The most alerts that are read and committed together: more make a transaction longer than others should wait for it.
pub(super) const MAX_BATCH: usize = 10_000;

/// The most alerts in flight: more than fit into the memory of a machine.
pub(super) const MAX_IN_FLIGHT: usize = 1_000_000;

/// The configuration of dossier.
///
/// Durations are texts such as "250ms", "30s", "10m" or "7d"; sizes are texts such as "64KiB" or "16MiB". Relative paths start at the
/// folder of the file. `${NAME}` in a path, a URL or a header is taken from the environment.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(title = "dossier.toml", deny_unknown_fields)]
pub(super) struct RawConfig {
    /// Where compiled plugins and the last good ones are kept. Private to the host.
    #[schemars(extend("default" = "state"))]
    pub state_dir: Option<Text>,
    /// Where alerts wait, are stored, and go when they fail.
    pub queue: RawQueue,
    /// What is kept.
    pub store: RawStore,
    /// What bounds the host.
    pub host: RawHost,
    /// How alerts are read.
    #[schemars(extend("x-reload" = true))]
    pub alert: RawAlert,
    /// Where plugins lie.
    pub plugins: RawPlugins,
    /// Tables that steps can be granted, by name. A table is loaded again when its file changes.
    #[schemars(with = "BTreeMap<String, RawTable>", extend("x-reload" = true))]
    pub tables: BTreeMap<String, Spanned<RawTable>>,
    /// HTTP interfaces that steps can be granted, by name. Scheme, host and port are what may be asked.
    #[schemars(with = "BTreeMap<String, RawHttp>", extend("x-reload" = true))]
    pub http: BTreeMap<String, Spanned<RawHttp>>,
    /// The steps: plugins with their grants, settings and limits. Steps run in the stage that their plugin is made for.
    #[schemars(with = "Vec<RawStep>", extend("x-reload" = true))]
    pub step: Vec<Spanned<RawStep>>,
    /// The admin address.
    pub admin: RawAdmin,
    /// The log, on the standard output.
    pub log: LogConfig,
    /// When somebody should look: the thresholds of alarms. "off" turns one off. docs/operations/alarms.md has them all.
    pub alarms: RawAlarms,
    /// Traces, with a span for each alert and each call of a step, over OTLP (HTTP, protobuf).
    pub telemetry: RawTelemetry,
}

/// Which queue.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawKind {
    /// A directory: needs nothing else.
    #[default]
    Directory,
    /// Redis Streams, 6.2 or later: several machines share the work.
    Redis,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawQueue {
    /// "directory" needs nothing else; "redis" takes a Redis server, 6.2 or later, and lets several machines share the work.
    #[schemars(extend("default" = "directory"))]
    pub kind: RawKind,
    /// The directory: its `pending/`, `processed/` and `errors/` are made when they are missing.
    #[schemars(with = "Option<Text>", extend("default" = "queue", "x-kind" = "directory"))]
    pub path: Option<Spanned<Text>>,
    /// The server; with user and password `redis://user:${REDIS_PASSWORD}@redis.example.org:6379/0`, over TLS `rediss://…`, on a socket
    /// `unix:///run/redis.sock`; where Sentinels name it `redis+sentinel://a:26379,b:26379/mymaster/0`; a Cluster
    /// `redis+cluster://a:6379,b:6379`.
    #[schemars(with = "Option<RedisUrl>", extend("default" = "redis://127.0.0.1:6379/0", "x-kind" = "redis", "writeOnly" = true))]
    pub url: Option<Spanned<Text>>,
    /// With TLS: a file (PEM) of who may vouch for the server. Without it, whom the system trusts.
    #[schemars(with = "Option<Text>", extend("x-kind" = "redis"))]
    pub ca: Option<Spanned<Text>>,
    /// With TLS: a file (PEM) with the host's own certificate.
    #[schemars(with = "Option<Text>", extend("x-kind" = "redis"))]
    pub cert: Option<Spanned<Text>>,
    /// With TLS: a file (PEM) with the key of `cert`.
    #[schemars(with = "Option<Text>", extend("x-kind" = "redis"))]
    pub key: Option<Spanned<Text>>,
    /// The stream of alerts. Records go to `<stream>:enriched`, dead letters to `<stream>:dlq`. "{alerts}" keeps all in one Cluster slot.
    #[schemars(with = "Option<Text>", extend("default" = "alerts", "x-kind" = "redis", "minLength" = 1))]
    pub stream: Option<Spanned<Text>>,
    /// The consumer group. Let no other group read the stream: an alert that is done is deleted.
    #[schemars(with = "Option<Text>", extend("default" = "dossier", "x-kind" = "redis", "minLength" = 1))]
    pub group: Option<Spanned<Text>>,
    /// How long a host may be silent before others take over what it had; at least "1s".
    #[schemars(with = "Option<Period>", extend("default" = "15s", "x-kind" = "redis"))]
    pub lease: Option<Spanned<Period>>,
    /// How long an alert is remembered as stored, so that the same one is not stored twice; records are remembered while they are kept.
    #[schemars(with = "Option<Period>", extend("default" = "10m", "x-kind" = "redis"))]
    pub dedupe_window: Option<Spanned<Period>>,
    /// How many alerts are read and committed together, at most.
    #[schemars(with = "Option<usize>", extend("minimum" = 1, "maximum" = MAX_BATCH, "default" = 100))]
    pub batch: Option<Spanned<usize>>,
    /// The largest alert. A larger one goes to the dead letters as `too-large`.
    #[schemars(extend("default" = "1MiB"))]
    pub max_alert_size: Option<SomeBytes>,
    /// How often an alert that a host died of may kill the process in which it runs alone before it goes to the dead letters as
    /// `host-crash`.
    #[schemars(extend("default" = 3))]
    pub max_crashes: Option<u32>,
    /// From how many dead letters on there is an alarm. Nothing trims them: `dossier dlq replay` or `drop` does.
    #[schemars(extend("default" = 10_000))]
    pub dlq_alarm: Option<u64>,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawStore {
    /// How long records are kept. The default is for ever, which has no word: leave it out.
    #[schemars(with = "Option<Period>", extend("x-kind" = "redis"))]
    pub retention: Option<Spanned<Period>>,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawHost {
    /// How many alerts are in flight, at most.
    #[schemars(with = "Option<usize>", extend("minimum" = 1, "maximum" = MAX_IN_FLIGHT, "default" = 256))]
    pub in_flight: Option<Spanned<usize>>,
    /// How many bytes of alerts are worked on at a time, at most; a larger alert is alone. A parsed alert takes up to sixteen times its bytes.
    /// What is read and has no room yet comes beside them: 16 MiB and one alert, at most.
    #[schemars(extend("default" = "16MiB"))]
    pub in_flight_bytes: Option<ByteCount>,
    /// How long a shutdown waits for what is in flight.
    #[schemars(extend("default" = "30s"))]
    pub grace: Option<Period>,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawAlert {
    /// JSON pointers to an alert's id; the first that is there counts. Without one, the id is made from the alert's bytes.
    #[schemars(with = "Option<Vec<String>>", extend("default" = ["/id", "/uuid", "/alert_id"], "items" = { "type": "string", "pattern": "^/" }))]
    pub id: Option<Spanned<Vec<String>>>,
    /// Where else alerts keep what plugins look up. ECS, OCSF, Suricata EVE and flat field names are known already. As in
    /// `[{ pointer = "/attacker/*/addr", type = "ip", role = "source" }]`.
    #[schemars(with = "Vec<ObservableConfig>", extend("default" = []))]
    pub observables: Vec<Spanned<ObservableConfig>>,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawPlugins {
    /// The folder of `.wasm` files. It is watched: what appears, changes or goes is noticed within two seconds.
    #[schemars(extend("default" = "plugins"))]
    pub dir: Option<Text>,
    /// Whether a plugin that no step names runs all the same, without grants and not required.
    #[schemars(extend("default" = true, "x-reload" = true))]
    pub auto: Option<bool>,
    /// Whether plugins for a version of the contract that is still in development are served, too. They stop working one day.
    #[schemars(extend("default" = false, "x-reload" = true))]
    pub preview: Option<bool>,
    /// How a new version of a plugin proves itself: when this share of its first calls fails (a trap, a limit, an answer that is none, or
    /// the plugin says that it is wrong), the last good version is put back and the file is not taken again, unless a step pins it
    /// with `sha256`.
    #[schemars(with = "ProbationConfig", extend("x-reload" = true))]
    pub probation: Option<Spanned<ProbationConfig>>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawTable {
    /// The file.
    pub file: Text,
    /// How it is written; the default is what the file's ending says (`.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.mmdb`; `.txt` and `.list` are
    /// lists).
    pub format: Option<TableFormat>,
    /// The names of the columns of a csv or tsv file without a header.
    pub columns: Option<Vec<String>>,
    /// The column whose value finds a row (csv, tsv, jsonl). Of several, as in `["ip", "hostname"]`, any one does. Addresses find the
    /// longest prefix.
    pub key: Option<OneOrMany>,
    /// Lines that begin with this ASCII character are left out; without it, none are.
    #[schemars(with = "Option<String>", extend("minLength" = 1, "maxLength" = 1))]
    pub comment: Option<char>,
    /// How old the file may be before that is an alarm. Without it, any age is fine.
    pub max_age: Option<Period>,
}

/// A column's name, or a list of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "key must be a column's name, or a list of them")]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

#[derive(Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawStep {
    /// The stem of the plugin's file: `plugins/ip-reputation.wasm`.
    #[schemars(with = "String")]
    pub plugin: Spanned<String>,
    /// The name under which its result stands in the record; the default is the plugin's. Give one where two steps have the same plugin.
    #[schemars(extend("pattern" = "^[A-Za-z0-9._-]+$"))]
    pub name: Option<String>,
    /// SHA-256 of the only file that it may be, as `sha256sum` prints it. Without it any version may come that asks for no more than
    /// the one before it.
    #[schemars(with = "Option<String>", extend("pattern" = "^[0-9A-Fa-f]{64}$"))]
    pub sha256: Option<Spanned<String>>,
    /// The tables that it may look into.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("default" = []))]
    pub tables: Vec<Spanned<String>>,
    /// The HTTP interfaces that it may ask.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("default" = []))]
    pub http: Vec<Spanned<String>>,
    /// What the plugin is configured with; see its documentation. No `${NAME}` and no secrets: a plugin's memory is not private.
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>", extend("default" = {}))]
    pub settings: Option<Spanned<toml::Table>>,
    /// What one call may use of the processor, in wasmtime's units: about one for each instruction.
    #[schemars(extend("default" = 50_000_000))]
    pub fuel: Option<u64>,
    /// How long one call may take; the default is "5s", and "1s" for a step without `http`.
    pub timeout: Option<Period>,
    /// How much memory one call may use; at least "64KiB".
    #[schemars(with = "Option<ByteCount>", extend("default" = "16MiB"))]
    pub memory: Option<Spanned<ByteCount>>,
    /// The largest answer.
    #[schemars(extend("default" = "256KiB"))]
    pub answer: Option<SomeBytes>,
    /// How many lines it may log in one call; what is more is dropped and counted.
    #[schemars(extend("default" = 64))]
    pub log_lines: Option<u32>,
    /// How many of its HTTP requests run at once, over all its calls.
    #[schemars(with = "Option<usize>", extend("minimum" = 1, "default" = 8))]
    pub http_concurrency: Option<Spanned<usize>>,
    /// Whether its failure sends the alert to the dead letters. If not, the record says what is absent.
    #[schemars(extend("default" = true))]
    pub required: Option<bool>,
    /// How often it is called again when what it needs is unavailable, before the alert goes to the dead letters.
    #[schemars(extend("default" = 5))]
    pub retries: Option<u32>,
    /// How many alerts one instance may serve; 1 is a fresh one for every alert, so that nothing of one reaches the next.
    #[schemars(with = "Option<u32>", extend("minimum" = 1, "default" = 1))]
    pub reuse: Option<Spanned<u32>>,
}
