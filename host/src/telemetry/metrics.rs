//! The metrics, in Prometheus' conventions: base units, `dossier_` in front, labels that are few and bounded (never an id
//! or an address). Names are public: dashboards and alarms are built on them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Metric, Registry};
use rustc_hash::FxBuildHasher;

use super::alarms::Kind;
use super::distribution::Distribution;
use super::process::Process;
use super::reading::Measured;
use crate::dead_letter::Reason;
use crate::queue::Depth;

/// The content type of [`Metrics::scrape`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds, from the fastest step to an alert that waits for retries.
static ALERT_SECONDS: [f64; 17] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// Seconds that one call of a step, or one request of it, takes.
static CALL_SECONDS: [f64; 17] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5,
    1.0, 2.5, 5.0,
];

/// Fuel of one call, up to twenty times the default limit.
static FUEL: [f64; 13] = [3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 1e9];

/// Labels of a histogram family's maker.
type Histograms<L> = Family<L, Distribution, fn() -> Distribution>;

/// Declares a label set. Names that come from the configuration are shared, so that looking a series up copies nothing.
macro_rules! labels {
    ($($name:ident { $($label:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $label: $type,)* }
    )*};
}

labels! {
    AlertLabels { outcome: &'static str, verdict: &'static str }
    DeadLabels { reason: &'static str, step: Arc<str> }
    StepLabel { step: Arc<str> }
    CallLabels { step: Arc<str>, stage: &'static str, outcome: &'static str }
    DeniedLabels { step: Arc<str>, what: &'static str }
    SaidLabels { step: Arc<str>, level: &'static str }
    OperationLabel { operation: &'static str }
    AlarmLabel { alarm: &'static str }
    PluginLabel { plugin: Arc<str> }
    PluginInfo { plugin: Arc<str>, version: Arc<str>, sha256: Arc<str> }
    BuildInfo { version: &'static str }
    TableLabel { table: Arc<str> }
    ApiLabel { api: Arc<str> }
    SourceLabels { api: Arc<str>, source: &'static str }
    RequestLabels { api: Arc<str>, outcome: &'static str }
}

/// Declares the metrics: what each is called, its help, and how it begins.
macro_rules! metrics {
    ($($field:ident: $type:ty = $make:expr, $name:literal, $help:literal;)*) => {
        /// The metrics.
        pub struct Metrics {
            registry: Registry,
            names: Names,
            /// What is counted of each step, so that a call finds it all at once.
            pub(super) steps: RwLock<HashMap<Arc<str>, Arc<StepSeries>, FxBuildHasher>>,
            pub(super) depth: Arc<Mutex<Option<Measured>>>,
            /// What `dossier_plugin_info` shows, by plugin, so that the series of a replaced version goes.
            plugins: Mutex<HashMap<Arc<str>, PluginInfo>>,
            plugin_info: Family<PluginInfo, Gauge>,
            $(#[doc = $help] pub(super) $field: $type,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::default();
                // These have the names that every exporter gives them, so no prefix.
                registry.register_collector(Box::new(Process::new()));
                let ours = registry.sub_registry_with_prefix("dossier");
                $(let $field: $type = $make;)*
                $(register(ours, $name, $help, &$field);)*
                let plugin_info = Family::default();
                register(ours, "plugin_info", "Plugins that serve; always 1", &plugin_info);
                let depth = Arc::default();
                ours.register_collector(Box::new(DepthCollector(Arc::clone(&depth))));
                // A gauge and not an `Info`: older readers of the format know only the one.
                let build = Family::<BuildInfo, Gauge>::default();
                build.get_or_create(&BuildInfo { version: env!("CARGO_PKG_VERSION") }).set(1);
                register(ours, "build_info", "The host's version; always 1", &build);
                let this = Self {
                    registry, names: Names::default(), steps: RwLock::default(), depth, plugins: Mutex::default(), plugin_info, $($field,)*
                };
                this.begin_at_zero();
                this
            }
        }
    };
}

metrics! {
    alerts: Family<AlertLabels, Counter> = Family::default(),
        "alerts", "Alerts that came to their end, by outcome and verdict";
    alert_duration: Distribution = Distribution::new(&ALERT_SECONDS),
        "alert_duration_seconds", "Time from received to committed";
    dead_letters: Family<DeadLabels, Counter> = Family::default(),
        "dead_letters", "Alerts that became dead letters, by reason, and by step if one failed";
    duplicates: Counter = Counter::default(),
        "duplicates", "Alerts that were stored before and not stored again";
    id_conflicts: Counter = Counter::default(),
        "id_conflicts", "Alerts that were stored beside another one with the same id and other bytes";
    suspect_crashes: Counter = Counter::default(),
        "suspect_crashes", "Processes that died while they ran nothing but one alert";
    step_calls: Family<CallLabels, Counter> = Family::default(),
        "step_calls", "Calls of steps by outcome";
    step_duration: Histograms<StepLabel> = Family::new_with_constructor(|| Distribution::new(&CALL_SECONDS)),
        "step_call_duration_seconds", "Wall-clock time of one call of a step";
    step_fuel: Histograms<StepLabel> = Family::new_with_constructor(|| Distribution::new(&FUEL)),
        "step_call_fuel", "Fuel that one call of a step used";
    step_retries: Family<StepLabel, Counter> = Family::default(),
        "step_retries", "Calls that are repeated because something was unavailable";
    queue_troubles: Family<OperationLabel, Counter> = Family::default(),
        "queue_troubles", "Operations that the queue refused";
    queue_recoveries: Counter = Counter::default(),
        "queue_recoveries", "Times that the queue worked again after trouble";
    queue_claimed: Counter = Counter::default(),
        "queue_claimed_alerts", "Alerts taken over from hosts that are gone";
    queue_lost: Counter = Counter::default(),
        "queue_lost_entries", "Entries that vanished from the queue while they were pending";
    queue_rescued: Counter = Counter::default(),
        "queue_rescued_alerts", "Alerts that a host stored from its memory, because their entries were gone from the queue";
    queue_refused: Counter = Counter::default(),
        "queue_refused_commits", "Alerts that alone could not be committed when they first were to be";
    dead_letters_over: Gauge = Gauge::default(),
        "dead_letters_over_threshold", "1 while there are as many dead letters as dlq_alarm says, or more";
    queue_skipped: Counter = Counter::default(),
        "queue_skipped_entries", "Files in the queue's folder that are no alerts or cannot be read";
    queue_histories: Counter = Counter::default(),
        "queue_ignored_histories", "Alerts whose earlier failures, as noted beside them, could not be read";
    queue_groups: Counter = Counter::default(),
        "queue_group_recreations", "Times that the stream or its group was gone and was made again";
    config_reloads: Counter = Counter::default(),
        "config_reloads", "Times that another configuration was taken over while the host ran";
    config_refusals: Counter = Counter::default(),
        "config_refusals", "Times that the configuration's file was refused while the host ran";
    config_unchanged: Counter = Counter::default(),
        "config_unchanged", "Times that the configuration's file was found to be what serves, when somebody asked or after it was refused";
    config_refused: Gauge = Gauge::default(),
        "config_refused", "1 while the configuration's file is not what serves, because it is refused";
    config_loaded: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default(),
        "config_loaded_timestamp_seconds", "When the configuration that serves was taken over, in Unix time; 0 where it is the first";
    plugin_loads: Family<PluginLabel, Counter> = Family::default(),
        "plugin_loads", "Versions of plugins that were loaded, the first included";
    plugin_reloads: Family<PluginLabel, Counter> = Family::default(),
        "plugin_reloads", "Versions of plugins that were swapped in for another";
    plugin_refusals: Family<PluginLabel, Counter> = Family::default(),
        "plugin_refusals", "Files of plugins that were refused";
    plugin_probation: Family<PluginLabel, Gauge> = Family::default(),
        "plugin_probation", "1 while a plugin's version is on probation, 0 once it has passed or failed";
    plugin_probations: Family<PluginLabel, Counter> = Family::default(),
        "plugin_probations", "Times that a plugin's version began its probation";
    plugin_rollbacks: Family<PluginLabel, Counter> = Family::default(),
        "plugin_rollbacks", "Versions of plugins that failed their probation and were taken out for the last good one";
    plugin_removals: Family<PluginLabel, Counter> = Family::default(),
        "plugin_removals", "Files of plugins that went away";
    plugin_denials: Family<DeniedLabels, Counter> = Family::default(),
        "plugin_denials", "Requests of plugins for what they were not granted";
    plugin_lines: Family<SaidLabels, Counter> = Family::default(),
        "plugin_log_lines", "Lines that plugins wrote";
    plugin_lines_dropped: Family<StepLabel, Counter> = Family::default(),
        "plugin_log_lines_dropped", "Lines of plugins over their bound, dropped";
    table_rows: Family<TableLabel, Gauge> = Family::default(),
        "table_rows", "Rows of tables, where the format tells";
    table_loaded: Family<TableLabel, Gauge<f64, std::sync::atomic::AtomicU64>> = Family::default(),
        "table_loaded_timestamp_seconds", "When the table that serves was loaded, in Unix time";
    table_duplicates: Family<TableLabel, Gauge> = Family::default(),
        "table_duplicate_keys", "Rows of the table that serves whose key came again later";
    table_reloads: Family<TableLabel, Counter> = Family::default(),
        "table_reloads", "Times that a table was loaded again";
    table_refusals: Family<TableLabel, Counter> = Family::default(),
        "table_refusals", "Files of tables that were refused";
    table_drops: Family<TableLabel, Counter> = Family::default(),
        "table_drops", "Times that a table went because the configuration names it no longer";
    http_requests: Family<RequestLabels, Counter> = Family::default(),
        "http_requests", "HTTP requests of plugins by outcome";
    http_answers: Family<SourceLabels, Counter> = Family::default(),
        "http_answers", "Answers to requests of plugins that can be shared, by where they came from";
    http_cache_troubles: Counter = Counter::default(),
        "http_cache_troubles", "Times that the cache which hosts share did not work";
    http_wait: Histograms<ApiLabel> = Family::new_with_constructor(|| Distribution::new(&CALL_SECONDS)),
        "http_request_wait_seconds", "Time that one HTTP request of a plugin waited for its turn";
    http_duration: Histograms<ApiLabel> = Family::new_with_constructor(|| Distribution::new(&CALL_SECONDS)),
        "http_request_duration_seconds", "Time that one HTTP request of a plugin took";
    alarms: Family<AlarmLabel, Counter> = Family::default(),
        "alarms", "Events that somebody should look at; each is one line with alarm=true";
    alarms_cleared: Family<AlarmLabel, Counter> = Family::default(),
        "alarms_cleared", "Alarms that were over";
    alarm_now: Family<AlarmLabel, Gauge> = Family::default(),
        "alarm", "For how many subjects (plugins, tables, sources, …) an alarm holds now";
    sources: Gauge = Gauge::default(),
        "sources", "Sources that are watched for their silence";
    trace_spans_sent: Counter = Counter::default(),
        "trace_spans_sent", "Spans that a collector took";
    trace_spans_lost: Counter = Counter::default(),
        "trace_spans_lost", "Spans that no collector took: it was down or slow, or too many waited for it";
    ready: Gauge = Gauge::default(),
        "ready", "1 while the host takes alerts, 0 before and while it stops";
    left_pending: Gauge = Gauge::default(),
        "left_pending_alerts", "Alerts that the host let go of when it stopped, because the grace was too short or they had to wait";
}

impl Metrics {
    /// A name of the configuration as a label, without a copy from its second use on.
    pub(super) fn name(&self, name: &str) -> Arc<str> {
        self.names.get(name)
    }

    /// What is counted of a step.
    pub(super) fn step(&self, name: &str) -> Arc<StepSeries> {
        if let Some(known) = self.steps.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let step = self.name(name);
        let label = StepLabel { step: Arc::clone(&step) };
        let series = Arc::new(StepSeries {
            step: Arc::clone(&step),
            calls: RwLock::default(),
            duration: self.step_duration.get_or_create_owned(&label),
            fuel: self.step_fuel.get_or_create_owned(&label),
        });
        self.steps.write().unwrap_or_else(PoisonError::into_inner).insert(step, Arc::clone(&series));
        series
    }

    /// Counts a call of a step.
    pub(super) fn step_called(&self, series: &StepSeries, stage: &'static str, outcome: &'static str) {
        let known = |(s, o, _): &&(&str, &str, Counter)| *s == stage && *o == outcome;
        if let Some((.., calls)) = series.calls.read().unwrap_or_else(PoisonError::into_inner).iter().find(known) {
            calls.inc();
            return;
        }
        let labels = CallLabels { step: Arc::clone(&series.step), stage, outcome };
        let calls = self.step_calls.get_or_create_owned(&labels);
        calls.inc();
        // Two that come at once note the same counter twice, which does no harm.
        series.calls.write().unwrap_or_else(PoisonError::into_inner).push((stage, outcome, calls));
    }

    /// Counts an alarm.
    pub(super) fn alarm(&self, alarm: &'static str) {
        self.alarms.get_or_create(&AlarmLabel { alarm }).inc();
    }

    /// For how many subjects an alarm holds.
    pub(super) fn alarm_held(&self, alarm: &'static str) -> Gauge {
        self.alarm_now.get_or_create_owned(&AlarmLabel { alarm })
    }

    /// Shows a plugin in `dossier_plugin_info` in place of what served before.
    pub(super) fn plugin_serves(&self, plugin: &str, version: &str, sha256: &str) {
        let plugin = self.name(plugin);
        // A version and a digest change with each reload: they are not kept as names are.
        let info =
            PluginInfo { plugin: plugin.clone(), version: bounded(version).into(), sha256: bounded(sha256).into() };
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = plugins.insert(plugin, info.clone()) {
            self.plugin_info.remove(&old);
        }
        self.plugin_info.get_or_create(&info).set(1);
    }

    /// Takes a plugin that serves no more out of `dossier_plugin_info`.
    pub(super) fn plugin_gone(&self, plugin: &str) {
        if let Some(old) = self.plugins.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin) {
            self.plugin_info.remove(&old);
            self.plugin_probation.remove(&PluginLabel { plugin: old.plugin });
        }
    }

    /// Notes how full the queue is.
    pub(super) fn queue_depth(&self, depth: &Depth) {
        let measured = Measured { depth: depth.clone(), at: Instant::now(), finished: self.alerts().finished() };
        *self.depth.lock().unwrap_or_else(PoisonError::into_inner) = Some(measured);
    }

    /// Everything as OpenMetrics text; its content type is [`CONTENT_TYPE`].
    pub fn scrape(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string does not fail, and neither does anything that writes here.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Makes the series that alarms are built on, so that the first event is a rise from 0 and not a new series.
    fn begin_at_zero(&self) {
        for verdict in ["malicious", "suspicious", "benign", "unknown"] {
            for outcome in ["stored", "conflict"] {
                let _ = self.alerts.get_or_create(&AlertLabels { outcome, verdict });
            }
        }
        for outcome in ["duplicate", "dead", "lost"] {
            let _ = self.alerts.get_or_create(&AlertLabels { outcome, verdict: "none" });
        }
        for reason in Reason::ALL.map(Reason::as_str) {
            let _ = self.dead_letters.get_or_create(&DeadLabels { reason, step: self.name("") });
        }
        for alarm in Kind::ALL.iter().map(|kind| kind.name()) {
            let _ = self.alarms.get_or_create(&AlarmLabel { alarm });
            let _ = self.alarms_cleared.get_or_create(&AlarmLabel { alarm });
            let _ = self.alarm_now.get_or_create(&AlarmLabel { alarm });
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

/// Now, in Unix time.
pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A label value that a plugin's author chose, cut to what a digest needs.
fn bounded(value: &str) -> &str {
    &value[..value.floor_char_boundary(64)]
}

/// What is counted of one step.
pub(super) struct StepSeries {
    step: Arc<str>,
    /// By stage and outcome. There are few of each.
    pub(super) calls: RwLock<Vec<(&'static str, &'static str, Counter)>>,
    pub(super) duration: Distribution,
    pub(super) fuel: Distribution,
}

/// The names that were seen. As many as steps, plugins, tables and interfaces are named.
#[derive(Debug, Default)]
struct Names(RwLock<HashSet<Arc<str>>>);

impl Names {
    fn get(&self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&new));
        new
    }
}

/// Shows how full the queue is; nothing before that is known, for a 0 would be a lie.
#[derive(Debug)]
struct DepthCollector(Arc<Mutex<Option<Measured>>>);

impl Collector for DepthCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Measured { depth, .. }) = measured else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)
        };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 alerts")]
        let count = |alerts: u64| alerts as f64;
        gauge("queue_backlog", "Alerts in the queue: waiting or in flight.", count(depth.waiting + depth.in_flight))?;
        gauge("queue_waiting", "Alerts that no host has taken.", count(depth.waiting))?;
        gauge("queue_in_flight", "Alerts that a host has taken and not let go of.", count(depth.in_flight))?;
        gauge("queue_stored", "Records in the store.", count(depth.stored))?;
        gauge("queue_dead_letters", "Dead letters.", count(depth.dead))?;
        gauge(
            "queue_oldest_age_seconds",
            "How long the oldest alert has been in the queue; 0 when it is empty.",
            depth.oldest.unwrap_or_default().as_secs_f64(),
        )
    }
}

#[cfg(test)]
pub(super) mod tests;
