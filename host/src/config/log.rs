//! `[log]`: how the log looks, how much it says, and what it must not show.

use schemars::JsonSchema;
use serde::Deserialize;

/// The log.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look: "auto" is pretty on a terminal and JSON elsewhere.
    #[schemars(extend("default" = "auto"))]
    pub format: LogFormat,
    /// "error", "warn", "info", "debug" or "trace"; or a filter such as "info,dossier::queue=debug".
    #[schemars(extend("default" = "info"))]
    pub level: String,
    /// JSON pointers to what must not be shown of alerts, in the log, in taps and in traces, as in `["/user/name", "/people/*/mail"]`.
    #[schemars(extend("default" = [], "items" = { "type": "string", "pattern": "^/" }))]
    pub redact: Vec<String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned(), redact: Vec::new() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}
