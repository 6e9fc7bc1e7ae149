//! Where suspects run: alerts that were in flight when a host died, and may have killed it.
//!
//! A host gives them to a process of its own ([`process`], `dossier trial`), which answers what became of them ([`child`]). The two speak
//! in [`wire`]. [`local`] runs alerts in the process that it is called in: the one within the other, and a host without one, as in tests.

pub(crate) mod child;
pub mod local;
pub mod process;
pub(crate) mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::committer::Story;
use crate::pipeline::Pipeline;
use crate::queue::{Body, Delivery, Outcome};
use crate::tables::Snapshot;

/// Where suspects run.
#[async_trait]
pub trait Isolation: Send + Sync {
    /// Makes a place for a suspect, which runs only when its [`Trial`] is advanced.
    ///
    /// # Errors
    /// Why no suspect can be run now. Nothing speaks against this one.
    async fn admit(
        &self,
        case: Case,
        pipeline: &Arc<Pipeline>,
        tables: &Arc<Snapshot>,
    ) -> Result<Box<dyn Trial>, String>;
}

/// One suspect on its way.
#[async_trait]
pub trait Trial: Send {
    /// Does what can be done now. Called while nothing else runs.
    ///
    /// # Errors
    /// [`TrialError`]; it is over then.
    async fn advance(&mut self) -> Result<Progress, TrialError>;
}

/// Why a suspect did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// Its process died while it ran: how, and what the process said last.
    #[error("{0}")]
    Died(String),
    /// Its process was gone before it ran: it must begin anew.
    #[error("its process is gone")]
    Gone,
}

/// Where a suspect stands.
#[derive(Debug)]
pub enum Progress {
    /// At its end.
    Done(Box<Ended>),
    /// Advance again at this time.
    Wait(Instant),
}

/// What became of a suspect.
#[derive(Debug)]
pub struct Ended {
    pub(super) outcome: Outcome,
    pub(super) story: Story,
}

impl Ended {
    /// The same for whoever began to wait for it then.
    pub(super) fn at(self, started: Instant) -> (Outcome, Story) {
        (self.outcome, Story { started, ..self.story })
    }
}

/// All that is known of a suspect where it runs.
#[derive(Debug)]
pub struct Case {
    /// Its bytes.
    bytes: Bytes,
    /// When the host received it.
    received: Timestamp,
    /// What the queue told of it, without its receipt: it is let go of elsewhere.
    delivery: Delivery,
}

impl Case {
    pub(super) fn new(bytes: Bytes, received: Timestamp, delivery: &Delivery) -> Self {
        let delivery = Delivery {
            traceparent: None,
            body: Body::Alert(bytes.clone()),
            entry: delivery.entry.clone(),
            deliveries: delivery.deliveries,
            attempts: delivery.attempts,
            first_seen: delivery.first_seen,
            history: delivery.history.clone(),
            replaces: None,
            waited: delivery.waited,
            suspect: delivery.suspect,
            receipt: Box::new(()),
        };
        Self { bytes, received, delivery }
    }
}
