//! The directory queue.

use std::path::Path;
use std::sync::Arc;

use crate::config::QueueConfig;
use crate::telemetry::Telemetry;

use super::QueueError;

/// A queue in a directory.
#[derive(Debug)]
pub struct DirectoryQueue {}

impl DirectoryQueue {
    /// Opens it.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn open(_path: &Path, _config: &QueueConfig, _telemetry: Arc<Telemetry>) -> Result<Self, QueueError> {
        unimplemented!()
    }
}

/// Looks at it.
pub async fn check(_path: &Path) -> Vec<String> {
    Vec::new()
}

#[async_trait::async_trait]
impl super::Queue for DirectoryQueue {
    async fn send(&self, _: &[bytes::Bytes]) -> Result<(), QueueError> {
        unimplemented!()
    }
    async fn receive(&self, _: usize) -> Result<Vec<super::Delivery>, QueueError> {
        unimplemented!()
    }
    async fn accuse(&self, _: &super::Delivery) -> Result<(), QueueError> {
        unimplemented!()
    }
    async fn acquit(&self, _: &super::Delivery) -> Result<(), QueueError> {
        unimplemented!()
    }
    async fn commit(&self, _: &[super::Settled]) -> Result<Vec<super::Committed>, QueueError> {
        unimplemented!()
    }
    async fn depth(&self) -> Result<super::Depth, QueueError> {
        unimplemented!()
    }
    async fn dead(&self, _: Option<&str>, _: usize) -> Result<Vec<super::Dead>, QueueError> {
        unimplemented!()
    }
    async fn dead_body(&self, _: &str) -> Result<Option<bytes::Bytes>, QueueError> {
        unimplemented!()
    }
    async fn replay(&self, _: &str) -> Result<bool, QueueError> {
        unimplemented!()
    }
    async fn discard(&self, _: &str) -> Result<bool, QueueError> {
        unimplemented!()
    }
    async fn record(&self, _: &str) -> Result<Option<bytes::Bytes>, QueueError> {
        unimplemented!()
    }
    async fn close(&self) -> Result<(), QueueError> {
        unimplemented!()
    }
}
