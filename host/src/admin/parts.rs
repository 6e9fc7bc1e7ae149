//! The parts of a host that the API looks at. They come once the host has put itself together, after the admin address listens.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::queue::Queue;
use crate::tables::Tables;

/// The parts, once they are there. Copies share them.
#[derive(Clone, Default)]
pub struct Parts(Arc<OnceLock<Inside>>);

/// What a running host is made of.
pub struct Inside {
    /// The configuration that the host began with; what was reloaded comes with the pipeline.
    pub config: Arc<Config>,
    /// Where alerts wait.
    pub queue: Arc<dyn Queue>,
    /// What they go through; none while a required plugin is missing.
    pub pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
    /// What plugins look into, until a pipeline brings other tables along.
    pub tables: Arc<Tables>,
}

impl Inside {
    /// The configuration and the tables that serve now.
    pub fn serving(&self) -> (Arc<Config>, Arc<Tables>) {
        match self.pipeline.borrow().as_deref().and_then(Pipeline::setup) {
            Some(setup) => (Arc::clone(&setup.config), Arc::clone(&setup.tables)),
            None => (Arc::clone(&self.config), Arc::clone(&self.tables)),
        }
    }
}

impl Parts {
    /// Says what the host is made of. Only the first one counts.
    pub fn are(&self, inside: Inside) {
        // A host is put together once.
        let _ = self.0.set(inside);
    }

    /// What the host is made of; none while it starts.
    pub fn get(&self) -> Option<&Inside> {
        self.0.get()
    }
}
