//! The alert that plugins are called for, and what they may ask about it.

use std::sync::Arc;

use anyhow::{Result, bail};
use peer_shared::Tables;
use serde_json::Value;

/// An alert on its way.
pub struct Case {
    pub alert: Value,
    pub observables: Vec<Value>,
    /// What earlier steps found.
    pub results: Vec<(&'static str, Value)>,
    tables: Arc<Tables<Arc<str>>>,
}

impl Case {
    /// No alert yet.
    pub fn new(tables: Arc<Tables<Arc<str>>>) -> Self {
        Self { alert: Value::Null, observables: Vec::new(), results: Vec::new(), tables }
    }

    /// Begins with another alert.
    pub fn begin(&mut self, alert: Value, observables: Vec<Value>) {
        (self.alert, self.observables) = (alert, observables);
        self.results.clear();
    }

    /// Answers what the guests' SDK asks; none where there is nothing.
    pub fn ask(&self, what: &str, one: &str, two: &str) -> Result<Option<String>> {
        let result = || self.results.iter().find(|(name, _)| *name == one).and_then(|(_, result)| result.pointer(two));
        Ok(match what {
            "get" => self.alert.pointer(one).map(Value::to_string),
            "text" => self.alert.pointer(one).and_then(plain),
            "observables" => {
                let wanted = |observable: &&Value| one.is_empty() || observable["type"] == one;
                Some(serde_json::to_string(&self.observables.iter().filter(wanted).collect::<Vec<_>>())?)
            }
            "enrichment" => result().map(Value::to_string),
            "enrichment-text" => result().and_then(plain),
            "lookup" => self.tables.row(one, two).map(|row| row.to_string()),
            "row-text" => {
                let (table, key) = one.split_once('\n').unwrap_or_default();
                let row = self.tables.row(table, key).map(|row| serde_json::from_str::<Value>(&row)).transpose()?;
                row.and_then(|row| row.pointer(two).and_then(plain))
            }
            other => bail!("there is no answer to {other}"),
        })
    }
}

/// A scalar as plain text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
