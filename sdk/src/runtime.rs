//! What [`export!`](crate::export) expands to: where a configured plugin stays between the host's calls. Not for use by
//! hand.

use std::cell::Cell;

use crate::alert::Source;
use crate::{Alert, Answer, Failure, Plugin, log, settings};

/// Holds the configured plugin for as long as the instance lives. Plain memory, so that a snapshot takes it along.
pub struct Slot<P: 'static>(Cell<Option<&'static P>>);

impl<P: Plugin> Slot<P> {
    /// An empty slot.
    #[expect(clippy::new_without_default, reason = "only the macro makes one, in a const")]
    #[must_use]
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Makes the plugin of its settings and keeps it; a later call replaces it.
    ///
    /// # Errors
    /// The settings do not parse, or the plugin refuses them; the text says which and why.
    pub fn configure(&self, settings: &str) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
        let plugin = P::configure(settings::parse(settings)?)?;
        self.0.set(Some(Box::leak(Box::new(plugin))));
        Ok(())
    }

    /// Enriches an alert; a plugin that was never configured gets its default settings first.
    ///
    /// # Errors
    /// What the plugin answers, or `internal` when it has no default settings.
    pub fn enrich(&self, alert: Source<'_>) -> Result<Answer, Failure> {
        if self.0.get().is_none() {
            self.configure("{}").map_err(|error| Failure::internal(format!("never configured: {error}")))?;
        }
        match self.0.get() {
            Some(plugin) => plugin.enrich(&Alert::new(alert)),
            None => Err(Failure::internal("never configured")),
        }
    }
}
