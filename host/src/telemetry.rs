//! What happened, told once: an event both logs and counts, so that the two cannot disagree.
//!
//! Nothing here decides anything. Events are structs ([`events`]); [`Telemetry::emit`] takes them, counts them in
//! [`metrics`] and hands them to tracing, whose lines [`logging`] writes. Only this folder names prometheus-client and
//! tracing-subscriber.

pub mod alarms;
mod distribution;
pub mod events;
pub mod logging;
pub mod metrics;
mod noted;
mod process;
pub mod reading;
pub mod redact;
pub mod relay;
pub mod tap;
mod throttle;
pub mod traces;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::Level;

use self::alarms::{Alarms, Change, Kind};
pub use self::distribution::Reading;
use self::events::{AlarmCleared, AlarmRaised, AlertFinished, TracesLost};
use self::logging::{LogError, LogSink};
pub use self::metrics::Metrics;
use self::noted::Memory;
pub use self::noted::{Noted, Remembered};
use self::reading::{Alerts, Calls, Measured};
use self::redact::Masks;
use self::relay::{Relay, Relayed};
use self::tap::Taps;
use self::throttle::Throttle;
use self::traces::{Traces, Trail};
use crate::dead_letter::Reason;
use crate::queue::Depth;

/// Something that happened.
pub trait Event {
    /// Counts it.
    fn count(&self, metrics: &Metrics);

    /// Writes its line.
    fn log(&self);

    /// The alarm that it is, or that is over with it.
    fn alarm(&self) -> Option<Change<'_>> {
        None
    }

    /// Whose lines of this kind are thinned out to one a second; every event is counted all the same. For what a plugin
    /// can do thousands of times in one call, so that it cannot flood the log.
    fn throttle(&self) -> Option<(&'static str, &str)> {
        None
    }

    /// What whoever writes a plugin wants to read of it at once; none for what is the operator's business.
    fn told(&self) -> Option<Told> {
        None
    }

    /// What somebody who looks at the host should know of it afterwards; none for what goes on all the time.
    fn noted(&self) -> Option<Noted> {
        None
    }

    /// Shows it to those who look on. Only asked while there are any.
    fn tap(&self, _: &Taps) {}

    /// The form in which a process that runs alerts for the host sends it there; none for what does not happen in such a process.
    fn relayed(&self) -> Option<Relayed> {
        None
    }
}

/// An event in words for whoever writes a plugin. Values may come from attackers and are given as they are: who shows them
/// makes them safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How much it matters.
    pub level: Level,
    /// The first line says what happened; the others, if any, belong to it.
    pub lines: Vec<String>,
}

impl Told {
    fn line(level: Level, line: String) -> Self {
        Self { level, lines: vec![line] }
    }
}

/// Takes what events tell, as they happen. Must not block.
pub type Listener = Box<dyn Fn(Told) + Send + Sync>;

/// Where events go. The default one counts and leaves lines to whatever subscriber tracing has, if any: for tests and for
/// the commands that are no host.
pub struct Telemetry {
    metrics: Metrics,
    alarms: Alarms,
    throttle: Throttle,
    /// None: nobody can say how full the log is.
    sink: Option<LogSink>,
    listener: Option<Listener>,
    /// Takes events to the host, where this process is not the host.
    relay: Option<Relay>,
    /// None: nobody asked for traces.
    traces: Option<Traces>,
    memory: Memory,
    taps: Arc<Taps>,
    /// What bounds the alerts in flight, and how many there may be; none before there is a worker.
    slots: OnceLock<(Arc<Semaphore>, usize)>,
    started: Instant,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("metrics", &self.metrics).field("sink", &self.sink).finish_non_exhaustive()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            metrics: Metrics::default(),
            alarms: Alarms::default(),
            throttle: Throttle::default(),
            sink: None,
            listener: None,
            relay: None,
            traces: None,
            memory: Memory::default(),
            taps: Arc::default(),
            slots: OnceLock::new(),
            started: Instant::now(),
        }
    }
}

impl Telemetry {
    /// Telemetry whose lines go into the sink of [`logging::init`].
    pub fn new(sink: LogSink) -> Self {
        Self { sink: Some(sink), ..Self::default() }
    }

    /// The same with somebody who listens to what is [`Event::told`].
    #[must_use]
    pub fn with_listener(self, listener: Listener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// The same with traces.
    #[must_use]
    pub fn with_traces(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Where spans go, if they go anywhere.
    pub fn traces(&self) -> Option<&Traces> {
        self.traces.as_ref()
    }

    /// Tells of an alert's end, and hands its trace over where somebody wants it.
    pub fn finished(&self, event: &AlertFinished<'_>, trail: &Trail<'_>) {
        self.emit(event);
        if let Some(traces) = &self.traces {
            let lost = traces.alert(event, trail);
            if lost > 0 {
                self.emit(&TracesLost { spans: lost, error: "too many wait to be sent" });
            }
        }
    }

    /// Telemetry of a process that runs alerts for the host: it counts and logs nothing by itself.
    pub fn relaying(relay: Relay) -> Self {
        Self { relay: Some(relay), ..Self::default() }
    }

    /// Counts and logs an event. Blocks while the log is entirely full: see [`Telemetry::log_ready`].
    pub fn emit(&self, event: &(impl Event + ?Sized)) {
        if let Some(relay) = &self.relay {
            event.relayed().into_iter().for_each(relay);
            return;
        }
        event.count(&self.metrics);
        if let Some(listener) = &self.listener
            && let Some(mut told) = event.told()
        {
            let masks = Masks::current();
            told.lines.iter_mut().for_each(|line| *line = masks.mask(line).into_owned());
            listener(told);
        }
        if self.taps.any() {
            event.tap(&self.taps);
        }
        if let Some(mut noted) = event.noted() {
            if let Cow::Owned(masked) = Masks::current().mask(&noted.text) {
                noted.text = masked;
            }
            self.memory.note(noted);
        }
        if event.throttle().is_none_or(|(kind, whose)| self.throttle.admits(kind, whose)) {
            event.log();
        }
        match event.alarm() {
            None => {}
            Some(Change::Raise(kind, subject, detail)) => {
                self.metrics.alarm(kind.name());
                if self.alarms.raise(Instant::now(), kind, subject, &Masks::current().mask(&detail)) {
                    self.metrics.alarm_held(kind.name()).inc();
                }
            }
            Some(Change::Clear(kind, subject)) => self.clear(kind, subject),
        }
    }

    /// Says that an alarm holds: told when it did not before; then only its detail changes. For what is looked at again and again.
    pub fn raise(&self, kind: Kind, subject: &str, detail: &str) {
        if !self.alarms.again(kind, subject, detail) {
            self.emit(&AlarmRaised { kind, subject, detail });
        }
    }

    /// Says that an alarm is over; told if it held.
    pub fn clear(&self, kind: Kind, subject: &str) {
        if let Some(after) = self.alarms.clear(Instant::now(), kind, subject) {
            self.metrics.alarm_held(kind.name()).dec();
            self.emit(&AlarmCleared { kind, subject, after });
        }
    }

    /// Says that an alarm holds, with a detail, or that it does not.
    pub fn hold(&self, kind: Kind, subject: &str, detail: Option<&str>) {
        match detail {
            Some(detail) => self.raise(kind, subject, detail),
            None => self.clear(kind, subject),
        }
    }

    /// Clears alarms about what has not happened for so long.
    pub fn forget_quiet(&self, keep: Duration) {
        for (kind, subject) in self.alarms.quiet(Instant::now(), keep) {
            self.clear(kind, &subject);
        }
    }

    /// The alarms that hold.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Does something that emits many events, whose lines go into the log together.
    pub fn together<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.sink {
            Some(sink) => sink.together(work),
            None => work(),
        }
    }

    /// Notes whether the host takes alerts now.
    pub fn ready(&self, ready: bool) {
        self.metrics.ready.set(ready.into());
    }

    /// Notes how full the queue is.
    pub fn depth(&self, depth: &Depth) {
        self.metrics.queue_depth(depth);
    }

    /// Notes how many sources are watched.
    pub fn sources(&self, watched: usize) {
        self.metrics.sources.set(i64::try_from(watched).unwrap_or(i64::MAX));
    }

    /// Waits while more than half of the log is still to be written. The worker waits here before each read, so that a
    /// blocked log stops the reading and what is in flight still finds room for its lines. Cancel safe.
    ///
    /// # Errors
    /// [`LogError::Broken`] when lines cannot be written any more: the host must stop.
    pub async fn log_ready(&self) -> Result<(), LogError> {
        match &self.sink {
            Some(sink) => sink.ready().await,
            None => Ok(()),
        }
    }

    /// Comes back when lines cannot be written any more, with why ([`LogError::Broken`]), and never while they can. Cancel
    /// safe.
    pub async fn log_failed(&self) -> LogError {
        match &self.sink {
            Some(sink) => sink.failed().await,
            None => std::future::pending().await,
        }
    }

    /// What `/metrics` shows, as OpenMetrics text.
    pub fn scrape(&self) -> String {
        self.metrics.scrape()
    }

    /// Everybody who looks on.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// What somebody should know of, the newest first.
    pub fn remembered(&self) -> Vec<Remembered> {
        self.memory.all()
    }

    /// Says what bounds the alerts in flight: one permit for each of so many. Only the first one counts.
    pub fn bounded_by(&self, slots: Arc<Semaphore>, number: usize) {
        // There is one worker in a process; tests may have several, which look at nothing of this.
        let _ = self.slots.set((slots, number));
    }

    /// How many alerts this host has in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.get().map_or(0, |(slots, number)| number.saturating_sub(slots.available_permits()))
    }

    /// How full the queue was when it was measured last.
    pub fn measured(&self) -> Option<Measured> {
        self.metrics.measured()
    }

    /// The alerts until now.
    pub fn alerts(&self) -> Alerts {
        self.metrics.alerts()
    }

    /// The calls of a step until now; none when it was never called.
    pub fn calls(&self, step: &str) -> Option<Calls> {
        self.metrics.calls(step)
    }

    /// The dead letters that this host made, by reason and by step, of these steps; no zeros.
    pub fn dead<'a>(&self, steps: impl Iterator<Item = &'a str>) -> Vec<(Reason, Option<String>, u64)> {
        self.metrics.dead(steps)
    }

    /// When a table was loaded, in Unix seconds.
    pub fn table_loaded(&self, table: &str) -> Option<f64> {
        self.metrics.table_loaded(table)
    }

    /// When this began.
    pub fn started(&self) -> Instant {
        self.started
    }
}
