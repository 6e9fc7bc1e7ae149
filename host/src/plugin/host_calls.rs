//! What a plugin can ask of the host while it runs, over what its call was given. Knows nothing of the contract's shape
//! (that is [`super::v1`]) and decides nothing about what a step may be granted (that is [`super::grants`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use wasmtime::{StoreContextMut, Trap};

use super::http::{Answered, Asker, Http, HttpError, Request, Response};
use super::limits::MemoryLimit;
use super::wasi::Wasi;
use crate::alert::observables::Observable;
use crate::json::document::Part;
use crate::pipeline::Given;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{PluginDenied, PluginLogCut, PluginSaid};

/// What a host call costs in fuel, beside one for each byte that it hands out: about what it takes of the processor, so
/// that a flood of calls ends like any other loop.
const CALL_FUEL: u64 = 300;

/// How much fuel host calls may owe before it is taken and other work gets its turn.
const SETTLE_AT: u64 = 20_000;

/// The longest log line, in bytes.
const MAX_LINE: usize = 4 << 10;

/// Refusals that one call is told about in the log; a loop of them is one plugin's mistake, not a thousand.
const MAX_DENIALS: u32 = 8;

/// Why a table gives no answer.
pub(super) enum LookupError {
    /// It is not granted; names it and says what to do.
    Denied(String),
    /// It is granted and not loaded; names it.
    Unavailable(String),
    /// It is damaged where the row should be.
    Broken(String),
}

/// A line that a plugin wrote while it was configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// `ERROR`, `WARN`, `INFO` or `DEBUG`.
    pub level: String,
    /// The line.
    pub message: String,
}

/// Where what a plugin says goes.
pub(super) enum Ear {
    /// To the log and the metrics.
    Telemetry(Arc<Telemetry>),
    /// Kept: the process that configures a plugin has no log of its own.
    Kept(Vec<Said>),
}

/// Who sends a plugin's requests: [`Http`], or what answers in its place in a trial.
#[async_trait]
pub(super) trait Messenger: Send + Sync {
    /// Sends a request to one of the interfaces that the asker was granted and waits for the whole response, until the deadline at most.
    async fn send(&self, asker: &Asker, request: Request, deadline: Instant) -> Answered;
}

#[async_trait]
impl Messenger for Http {
    async fn send(&self, asker: &Asker, request: Request, deadline: Instant) -> Answered {
        Self::send(self, asker, request, deadline).await
    }
}

/// What a step may ask for. The same for all its calls.
pub(super) struct Grants {
    /// The step's name.
    pub step: String,
    /// Tables.
    pub tables: Vec<String>,
    /// HTTP interfaces.
    pub http: Asker,
    /// Log lines of one call.
    pub log_lines: u32,
    /// Who sends requests; none where nothing can be sent.
    pub client: Option<Arc<dyn Messenger>>,
}

/// One alert's call.
struct Call {
    given: Arc<Given>,
    deadline: Instant,
    /// Its turn to compute; given up while it waits for HTTP.
    turn: Option<OwnedSemaphorePermit>,
    tables: BTreeMap<String, String>,
    cached: bool,
    fails_until: Option<Instant>,
}

/// What a call leaves behind.
#[derive(Default)]
pub(super) struct Ended {
    /// The digest of each table that answered it.
    pub tables: BTreeMap<String, String>,
    /// What host calls still owe in fuel.
    pub owed: u64,
    /// Whether an HTTP answer came without a request of the call's own.
    pub cached: bool,
    /// Until when a request of the call will fail as it did, without being sent.
    pub fails_until: Option<Instant>,
}

/// What a store holds: the state of one instance.
pub(super) struct State {
    /// What counts its memory.
    pub memory: MemoryLimit,
    /// What the empty world of `wasi:*` needs; made when first asked for.
    pub wasi: Option<Box<Wasi>>,
    grants: Arc<Grants>,
    ear: Ear,
    call: Option<Call>,
    owed: u64,
    lines: u32,
    dropped: u64,
    denials: u32,
}

impl State {
    /// The state of an instance that is not called yet: all it can do is log.
    pub(super) fn new(grants: Arc<Grants>, memory: usize, ear: Ear) -> Self {
        Self {
            memory: MemoryLimit::new(memory),
            wasi: None,
            grants,
            ear,
            call: None,
            owed: 0,
            lines: 0,
            dropped: 0,
            denials: 0,
        }
    }

    /// Gives the instance its alert. Until then it can do nothing but log; what it logged and owes since it was made counts as
    /// this call's.
    pub(super) fn begin(&mut self, given: Arc<Given>, deadline: Instant, turn: Option<OwnedSemaphorePermit>) {
        self.flush_prints();
        self.call = Some(Call { given, deadline, turn, tables: BTreeMap::new(), cached: false, fails_until: None });
        self.memory.begin();
    }

    /// Ends a call.
    pub(super) fn end(&mut self) -> Ended {
        self.flush_prints();
        if let (Ear::Telemetry(telemetry), 1..) = (&self.ear, self.dropped) {
            telemetry.emit(&PluginLogCut { step: &self.grants.step, dropped: self.dropped });
        }
        (self.lines, self.dropped, self.denials) = (0, 0, 0);
        let owed = std::mem::take(&mut self.owed);
        match self.call.take() {
            Some(Call { tables, cached, fails_until, .. }) => Ended { tables, owed, cached, fails_until },
            None => Ended { owed, ..Ended::default() },
        }
    }

    /// Puts the clock and the random numbers of `wasi:*` back to their beginning, so that a call sees the same ones in an instance
    /// that served before, or that was just configured, as in a fresh copy.
    pub(super) fn rewind(&mut self) {
        if let Some(wasi) = &mut self.wasi {
            wasi.rewind();
        }
    }

    /// What was said and kept.
    pub(super) fn take_said(&mut self) -> Vec<Said> {
        self.flush_prints();
        match &mut self.ear {
            Ear::Kept(said) => std::mem::take(said),
            Ear::Telemetry(_) => Vec::new(),
        }
    }

    /// Turns what was printed since into log lines.
    fn flush_prints(&mut self) {
        let Some(wasi) = &mut self.wasi else { return };
        let (printed, dropped) = wasi.take_printed();
        for line in String::from_utf8_lossy(&printed).lines().filter(|line| !line.is_empty()) {
            self.say(tracing::Level::INFO, line);
        }
        self.dropped += u64::from(dropped);
    }

    fn call(&self) -> wasmtime::Result<&Call> {
        self.call.as_ref().ok_or_else(|| wasmtime::Error::msg("there is no alert outside of a call of enrich"))
    }

    pub(super) fn id(&self) -> wasmtime::Result<String> {
        Ok(self.call()?.given.alert.id.clone())
    }

    /// Milliseconds since 1970; 0 for a clock that stands before it.
    pub(super) fn received(&self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.call()?.given.alert.received.as_millisecond()).unwrap_or_default())
    }

    pub(super) fn json(&self) -> wasmtime::Result<String> {
        Ok(String::from_utf8_lossy(&self.call()?.given.alert.bytes).into_owned())
    }

    pub(super) fn get(&self, pointer: &str) -> wasmtime::Result<Option<String>> {
        Ok(self.call()?.given.alert.value.pointer(pointer).map(|part| part.to_string()))
    }

    pub(super) fn text(&self, pointer: &str) -> wasmtime::Result<Option<String>> {
        Ok(self.call()?.given.alert.value.pointer(pointer).and_then(Part::plain_text))
    }

    pub(super) fn enrichment(&mut self, step: &str, pointer: &str) -> wasmtime::Result<Option<String>> {
        let found = self.call()?.given.enrichment.iter().find(|(name, _)| name == step);
        let Some(fields) = found.map(|(_, fields)| fields.get()) else { return Ok(None) };
        if pointer.is_empty() {
            return Ok(Some(fields.to_owned()));
        }
        Ok(self.at(step, pointer)?.map(|value| value.to_string()))
    }

    pub(super) fn enrichment_text(&mut self, step: &str, pointer: &str) -> wasmtime::Result<Option<String>> {
        Ok(self.at(step, pointer)?.as_ref().and_then(plain_text))
    }

    pub(super) fn steps(&self) -> wasmtime::Result<Vec<String>> {
        Ok(self.call()?.given.enrichment.iter().map(|(step, _)| step.clone()).collect())
    }

    /// What stands at a pointer in an earlier result. All of that is read, so all of it is paid for.
    fn at(&mut self, step: &str, pointer: &str) -> wasmtime::Result<Option<Value>> {
        let found = self.call()?.given.enrichment.iter().find(|(name, _)| name == step);
        let Some(fields) = found.map(|(_, fields)| fields.get()) else { return Ok(None) };
        let read = fields.len();
        let mut fields: Value = serde_json::from_str(fields)?;
        self.owed = self.owed.saturating_add(read as u64);
        Ok(fields.pointer_mut(pointer).map(Value::take))
    }

    pub(super) fn observables<'a>(
        &'a self,
        kind: Option<&'a str>,
    ) -> wasmtime::Result<impl Iterator<Item = &'a Observable>> {
        let all = self.call()?.given.observables.iter();
        Ok(all.filter(move |observable| kind.is_none_or(|kind| observable.kind == kind)))
    }

    /// Looks into a table.
    ///
    /// # Errors
    /// [`LookupError`].
    pub(super) fn lookup(&mut self, table: &str, key: &str) -> Result<Option<String>, LookupError> {
        let step = &self.grants.step;
        let Some(call) = &mut self.call else {
            return Err(LookupError::Denied("tables cannot be asked while configuring".into()));
        };
        let why = if !self.grants.tables.iter().any(|granted| granted == table) {
            let table: String = table.chars().take(64).collect();
            format!("table \"{table}\" is not granted to step \"{step}\"; add it to tables = [...] in its [[step]]")
        } else if let Some(found) = call.given.tables.get(table) {
            if !call.tables.contains_key(table) {
                call.tables.insert(table.to_owned(), found.sha256().to_owned());
            }
            let row = found.lookup(key).map_err(|error| LookupError::Broken(format!("table \"{table}\": {error}")))?;
            return Ok(row.map(Cow::into_owned));
        } else {
            let why = format!("table \"{table}\" is granted to step \"{step}\" but not loaded; the log says why");
            return Err(LookupError::Unavailable(why));
        };
        self.denied("table", &why);
        Err(LookupError::Denied(why))
    }

    /// What stands at a pointer in a row, as plain text. All of the row is read, so all of it is paid for.
    ///
    /// # Errors
    /// [`LookupError`].
    pub(super) fn table_text(&mut self, table: &str, key: &str, pointer: &str) -> Result<Option<String>, LookupError> {
        let Some(row) = self.lookup(table, key)? else { return Ok(None) };
        self.owed = self.owed.saturating_add(row.len() as u64);
        let row: Value = serde_json::from_str(&row)
            .map_err(|error| LookupError::Broken(format!("table \"{table}\": its row is no JSON: {error}")))?;
        Ok(row.pointer(pointer).and_then(plain_text))
    }

    fn denied(&mut self, what: &'static str, detail: &str) {
        self.denials += 1;
        if let Ear::Telemetry(telemetry) = &self.ear
            && self.denials <= MAX_DENIALS
        {
            telemetry.emit(&PluginDenied { step: &self.grants.step, what, detail });
        }
    }

    /// Takes a log line, or drops and counts it when there were too many.
    pub(super) fn say(&mut self, level: tracing::Level, message: &str) {
        if self.lines >= self.grants.log_lines {
            self.dropped += 1;
            return;
        }
        self.lines += 1;
        let message = &message[..message.floor_char_boundary(MAX_LINE)];
        match &mut self.ear {
            Ear::Telemetry(telemetry) => {
                let id = self.call.as_ref().map(|call| call.given.alert.id.as_str());
                telemetry.emit(&PluginSaid { step: &self.grants.step, id, level, message });
            }
            Ear::Kept(said) => said.push(Said { level: level.to_string(), message: message.to_owned() }),
        }
    }
}

/// A scalar as plain text.
fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Sends an HTTP request and waits for the response: see [`send_all`].
pub(super) async fn send(state: &mut State, request: Request) -> Result<Response, HttpError> {
    let answer = send_all(state, vec![request]).await.pop();
    answer.unwrap_or_else(|| Err(HttpError::Invalid("there is no request".into())))
}

/// Sends HTTP requests at once. Waits at most 80 % of what is left of the call's time, so that an API that hangs ends as
/// `unavailable` and not as the step's time-out. Other calls compute meanwhile.
pub(super) async fn send_all(state: &mut State, requests: Vec<Request>) -> Vec<Result<Response, HttpError>> {
    let denied = |why: &str| requests.iter().map(|_| Err(HttpError::Denied(why.to_owned()))).collect();
    let Some(call) = &mut state.call else { return denied("nothing can be sent while configuring") };
    let turns = call.turn.take().map(|turn| Arc::clone(turn.semaphore()));
    let now = Instant::now();
    let longest = call.deadline.saturating_duration_since(now).mul_f64(0.8);
    let answers: Vec<Result<Response, HttpError>> =
        match state.grants.client.as_ref().filter(|_| state.grants.http.may_ask()) {
            Some(client) => {
                let asker = &state.grants.http;
                let sent = requests.into_iter().map(|request| {
                    let deadline = now + request.timeout.map_or(longest, |timeout| timeout.min(longest));
                    client.send(asker, request, deadline)
                });
                let answered = futures_util::future::join_all(sent).await.into_iter();
                let take = |answered: Answered| {
                    call.cached |= answered.cached;
                    call.fails_until = call.fails_until.max(answered.fails_until);
                    answered.result
                };
                answered.map(take).collect()
            }
            None => denied(&format!(
                "no HTTP interface is granted to step \"{}\"; add http = [...] to its [[step]]",
                state.grants.step
            )),
        };
    if let Some(turns) = turns {
        call.turn = turns.acquire_owned().await.ok();
    }
    for answer in &answers {
        if let Err(HttpError::Denied(why)) = answer {
            state.denied("http", why);
        }
    }
    answers
}

/// Charges a host call that handed out so many bytes.
///
/// Debts are taken together: setting a store's fuel begins its interval for yielding anew, so a flood of calls would never
/// yield by itself and does so here.
///
/// # Errors
/// [`Trap::OutOfFuel`] when there is not enough left.
pub(super) async fn settle(store: &mut StoreContextMut<'_, State>, bytes: usize) -> wasmtime::Result<()> {
    let owed = store.data().owed.saturating_add(CALL_FUEL).saturating_add(bytes as u64);
    if owed < SETTLE_AT {
        store.data_mut().owed = owed;
        return Ok(());
    }
    store.data_mut().owed = 0;
    let left = store.get_fuel()?;
    store.set_fuel(left.saturating_sub(owed))?;
    if left < owed {
        return Err(Trap::OutOfFuel.into());
    }
    tokio::task::yield_now().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StepConfig;

    fn state() -> State {
        let step = StepConfig::unnamed("geo");
        let grants = Grants {
            step: step.name,
            tables: step.tables,
            http: Asker::new(step.http, 8),
            log_lines: 64,
            client: None,
        };
        State::new(Arc::new(grants), 1 << 20, Ear::Kept(Vec::new()))
    }

    #[test]
    fn lines_within_the_bound_are_kept_and_those_over_it_are_dropped_and_counted() {
        let mut state = state();
        (0..64).for_each(|_| state.say(tracing::Level::INFO, "line"));
        assert_eq!(state.dropped, 0);
        state.say(tracing::Level::INFO, "one too many");
        assert_eq!((state.take_said().len(), state.dropped), (64, 1));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut state = state();
        state.say(tracing::Level::WARN, &"x".repeat(MAX_LINE));
        state.say(tracing::Level::WARN, &format!("x{}", "ä".repeat(MAX_LINE)));
        let said = state.take_said();
        assert_eq!(said[0].message.len(), MAX_LINE);
        assert_eq!(said[1].message.len(), MAX_LINE - 1);
    }

    #[tokio::test]
    async fn while_it_configures_a_plugin_can_only_log() {
        let mut state = state();
        assert!(state.lookup("geo", "1.2.3.4").is_err());
        assert!(state.id().is_err() && state.json().is_err() && state.get("/a").is_err());
        let request =
            Request { method: "GET".into(), url: "http://x/".into(), headers: Vec::new(), body: None, timeout: None };
        assert!(matches!(send(&mut state, request).await, Err(HttpError::Denied(_))));
        state.say(tracing::Level::INFO, "hello");
        assert_eq!(state.take_said(), [Said { level: "INFO".into(), message: "hello".into() }]);
    }
}
