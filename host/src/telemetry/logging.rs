//! The log: one line for each event, to standard output, where a container's runtime and a pipe look for it.
//!
//! JSON, one object a line, unless a person reads it on a terminal. A line stays one line and a value stays short whatever an
//! attacker wrote into it ([`line`](mod@line)). Nothing is lost: lines wait in a bounded buffer for the one thread that
//! writes them ([`sink`]); when nobody takes them the host stops reading alerts, and when they cannot be written any more it
//! stops altogether. Nothing here knows what the lines say.

mod line;
mod sink;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use self::line::JSON_FIELDS;
use self::line::Style;
pub use self::sink::{LogGuard, LogSink};
use crate::config::{LogConfig, LogFormat};

/// The environment variable that overrides `level` in `[log]`.
pub const LEVEL_VARIABLE: &str = "DOSSIER_LOG";

/// How much may wait to be written, in bytes: some thousand lines.
const CAPACITY: usize = 2 << 20;

/// Why there is no log, or no log any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be understood.
    #[error("{place}: \"{filter}\" is no level and no filter ({error}); write error, warn, info, debug or trace")]
    Filter {
        /// Where it stands: the key or the variable.
        place: &'static str,
        /// What stands there.
        filter: String,
        /// What is wrong with it.
        error: String,
    },
    /// Standard output cannot be used, or a log was begun before.
    #[error("the log cannot begin: {0}")]
    Start(String),
    /// Lines cannot be written any more.
    #[error(
        "the log cannot be written: {0}; mend standard output and start again: what was in flight is still pending"
    )]
    Broken(String),
    /// Lines were still waiting at the end, and nobody took them.
    #[error("the log is blocked: {0} bytes were not written before the host ended; see who reads standard output")]
    Blocked(usize),
}

/// Begins the log: from here on, events are lines on standard output. Once in a process.
///
/// # Errors
/// [`LogError::Filter`], [`LogError::Start`].
pub fn init(config: &LogConfig) -> Result<LogGuard, LogError> {
    let filter = filter(config)?;
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let style = match config.format {
        LogFormat::Json => Style::Json,
        LogFormat::Auto if !terminal => Style::Json,
        // https://no-color.org
        _ => Style::Pretty { colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) },
    };
    // A descriptor of its own: what `std` keeps of standard output is flushed line by line.
    let output = stdout.as_fd().try_clone_to_owned().map_err(|error| LogError::Start(error.to_string()))?;
    let guard = LogGuard::start(File::from(output), CAPACITY).map_err(|error| LogError::Start(error.to_string()))?;
    let subscriber = tracing_subscriber::registry().with(filter).with(Lines { style, sink: guard.sink() });
    tracing::subscriber::set_global_default(subscriber).map_err(|error| LogError::Start(error.to_string()))?;
    Ok(guard)
}

/// The filter of a configuration, or of [`LEVEL_VARIABLE`] where that is set.
///
/// # Errors
/// [`LogError::Filter`].
pub fn filter(config: &LogConfig) -> Result<EnvFilter, LogError> {
    let (place, filter) = match std::env::var(LEVEL_VARIABLE) {
        Ok(filter) if !filter.is_empty() => (LEVEL_VARIABLE, filter),
        _ => ("level in [log]", config.level.clone()),
    };
    parse_filter(place, &filter)
}

fn parse_filter(place: &'static str, filter: &str) -> Result<EnvFilter, LogError> {
    let error = |error: String| LogError::Filter { place, filter: filter.to_owned(), error };
    // A word that is no level would be taken for a target, and nearly everything would go unsaid.
    let level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let unknown = filter.split(',').map(str::trim).find(|word| !word.contains(['=', '[', ':']) && !level(word));
    if let Some(unknown) = unknown {
        return Err(error(format!("there is no level \"{unknown}\"")));
    }
    EnvFilter::try_new(filter).map_err(|parse| error(parse.to_string()))
}

/// Turns events into lines.
struct Lines {
    style: Style,
    sink: LogSink,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        line::with(self.style, event, |line| self.sink.push(line.as_bytes()));
    }
}

#[cfg(test)]
pub(super) mod tests;
