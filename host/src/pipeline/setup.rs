//! What goes with a pipeline: the configuration that it was made for, and what alerts need of that. A reload swaps both at once, so
//! that no alert has the steps of one configuration and the tables of another.

use std::sync::Arc;

use crate::alert::Decoder;
use crate::config::Config;
use crate::tables::Tables;

/// What goes with a pipeline.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its tables.
    pub tables: Arc<Tables>,
    /// How it reads alerts.
    pub decoder: Decoder,
}

impl Setup {
    /// What goes with the pipelines of this configuration.
    pub fn new(config: Arc<Config>, tables: Arc<Tables>) -> Self {
        Self { decoder: Decoder::new(&config.alert), config, tables }
    }
}
