//! Runs a plugin natively, in its unit tests, against tables and responses of the test. Not there on wasm.
//!
//! It imitates what a plugin's logic needs and no more: keys of tables match exactly (the host finds the longest prefix),
//! there are no limits, and answers are not checked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value;

use crate::bindings::dossier::plugin::log::Level;
use crate::http::{HttpError, Request, Response};
use crate::tables::TableError;
use crate::{Alert, Answer, Failure, Observable, Plugin, settings};

type Server = Rc<dyn Fn(&Request) -> Result<Response, HttpError>>;

thread_local! {
    static HOST: RefCell<Case> = RefCell::new(Case::new(Value::Null));
}

/// Configures a plugin as the host would.
///
/// # Errors
/// What the operator would read.
#[expect(clippy::needless_pass_by_value, reason = "reads best with json!() in place")]
pub fn configure<P: Plugin>(settings: Value) -> Result<P, String> {
    P::configure(settings::parse(&settings.to_string())?)
}

/// One alert and the world that its plugin sees.
#[derive(Clone)]
pub struct Case {
    alert: Value,
    observables: Vec<Observable>,
    tables: BTreeSet<String>,
    rows: BTreeMap<(String, String), String>,
    enrichments: BTreeMap<String, String>,
    server: Option<Server>,
}

impl Case {
    /// An alert and nothing else: no observables, no tables, no hosts.
    #[must_use]
    pub fn new(alert: Value) -> Self {
        Self {
            alert,
            observables: Vec::new(),
            tables: BTreeSet::new(),
            rows: BTreeMap::new(),
            enrichments: BTreeMap::new(),
            server: None,
        }
    }

    /// The same with an observable.
    #[must_use]
    pub fn observable(mut self, kind: &str, role: &str, value: &str) -> Self {
        self.observables.push(Observable { kind: kind.into(), role: role.into(), value: value.into() });
        self
    }

    /// The same with a granted table, empty as yet.
    #[must_use]
    pub fn table(mut self, table: &str) -> Self {
        self.tables.insert(table.into());
        self
    }

    /// The same with a row in a table, which is granted by that.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "reads best with json!() in place")]
    pub fn row(mut self, table: &str, key: &str, row: Value) -> Self {
        self.rows.insert((table.into(), key.to_ascii_lowercase()), row.to_string());
        self.table(table)
    }

    /// The same with the result of an earlier step.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "reads best with json!() in place")]
    pub fn earlier(mut self, step: &str, result: Value) -> Self {
        self.enrichments.insert(step.into(), result.to_string());
        self
    }

    /// The same with a server that answers every request.
    #[must_use]
    pub fn server(mut self, server: impl Fn(&Request) -> Result<Response, HttpError> + 'static) -> Self {
        self.server = Some(Rc::new(server));
        self
    }

    /// Calls the plugin.
    ///
    /// # Errors
    /// What the plugin answers.
    pub fn run<P: Plugin>(&self, plugin: &P) -> Result<Answer, Failure> {
        HOST.set(self.clone());
        plugin.enrich(&Alert::new(self))
    }

    pub(crate) fn id(&self) -> String {
        self.alert["id"].as_str().unwrap_or("test").into()
    }

    /// 2026-01-01T00:00:00Z.
    pub(crate) fn received(&self) -> u64 {
        1_767_225_600_000
    }

    pub(crate) fn json(&self) -> String {
        self.alert.to_string()
    }

    pub(crate) fn observables(&self, kind: Option<&str>) -> Vec<Observable> {
        let wanted = |observable: &&Observable| kind.is_none_or(|kind| kind == observable.kind);
        self.observables.iter().filter(wanted).cloned().collect()
    }

    pub(crate) fn get(&self, pointer: &str) -> Option<String> {
        self.alert.pointer(pointer).map(Value::to_string)
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<String> {
        self.alert.pointer(pointer).and_then(plain_text)
    }

    pub(crate) fn enrichment(&self, step: &str, pointer: &str) -> Option<String> {
        self.at(step, pointer).map(|value| value.to_string())
    }

    pub(crate) fn enrichment_text(&self, step: &str, pointer: &str) -> Option<String> {
        self.at(step, pointer).as_ref().and_then(plain_text)
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.enrichments.keys().cloned().collect()
    }

    fn at(&self, step: &str, pointer: &str) -> Option<Value> {
        serde_json::from_str::<Value>(self.enrichments.get(step)?).ok()?.pointer(pointer).cloned()
    }
}

pub(crate) fn lookup(table: &str, key: &str) -> Result<Option<String>, TableError> {
    HOST.with_borrow(|case| match case.tables.contains(table) {
        true => Ok(case.rows.get(&(table.into(), key.to_ascii_lowercase())).cloned()),
        false => Err(TableError::Denied(format!("table \"{table}\" is not granted"))),
    })
}

pub(crate) fn table_text(table: &str, key: &str, pointer: &str) -> Result<Option<String>, TableError> {
    let row = lookup(table, key)?.and_then(|row| serde_json::from_str::<Value>(&row).ok());
    Ok(row.as_ref().and_then(|row| row.pointer(pointer)).and_then(plain_text))
}

/// A scalar as plain text.
fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn send(request: &Request) -> Result<Response, HttpError> {
    match HOST.with_borrow(|case| case.server.clone()) {
        Some(server) => server(request),
        None => Err(HttpError::Denied(request.url.clone())),
    }
}

pub(crate) fn send_all(requests: &[Request]) -> Vec<Result<Response, HttpError>> {
    requests.iter().map(send).collect()
}

pub(crate) fn log(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
