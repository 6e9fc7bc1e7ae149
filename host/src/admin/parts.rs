//! The parts of a host that the API looks at. They come once the host has put itself together, after the admin address listens.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::pipeline::Pipeline;
use crate::pipeline::setup::Setup;
use crate::queue::Queue;

/// The parts, once they are there. Copies share them.
#[derive(Clone, Default)]
pub struct Parts(Arc<OnceLock<Inside>>);

/// What a running host is made of.
pub struct Inside {
    /// What it began with: configuration and tables.
    pub began: Arc<Setup>,
    /// Where alerts wait.
    pub queue: Arc<dyn Queue>,
    /// What they go through; none while a required plugin is missing.
    pub pipeline: watch::Receiver<Option<Arc<Pipeline>>>,
}

impl Inside {
    /// The configuration and the tables that serve: a reload puts others into their place.
    pub fn setup(&self) -> Arc<Setup> {
        let serving = self.pipeline.borrow().as_ref().and_then(|pipeline| pipeline.setup().cloned());
        serving.unwrap_or_else(|| Arc::clone(&self.began))
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
