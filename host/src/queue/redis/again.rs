//! Sending a stored alert through the pipeline again. What becomes of it then is the commit's business.

use std::sync::LazyLock;

use super::link::{Call, Source};
use super::{Shared, reply};
use crate::queue::{Again, QueueError, Resent};

static AGAIN: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("again.lua")));

/// The longest text that says what an alert replaces, in bytes.
pub(super) const MAX_REPLACES: usize = 64 << 10;

impl Shared {
    /// See [`crate::queue::Queue::reenrich`].
    pub(super) async fn reenrich(&self, again: &Again) -> Result<Resent, QueueError> {
        let Again { held, id, alert, attempts, first_seen, history } = again;
        let replaces = format!("{} {id}", held.key);
        if replaces.len() > MAX_REPLACES {
            return Err(QueueError::Broken(format!(
                "the alert's id has {} bytes, too many to be sent again",
                id.len()
            )));
        }
        let history = history.to_json().map_err(|error| QueueError::Broken(error.to_string()))?;
        let index = format!("{}{id}", self.keys.index);
        let call = Call::new(&AGAIN, &[&self.keys.stream, &self.keys.store, &self.keys.again, &index])
            .arg(&held.key)
            .arg(replaces)
            .arg(&alert[..])
            .arg(*attempts)
            .arg(first_seen.to_string())
            .arg(history);
        match reply::number(self.run(&self.commands, &call).await?) {
            Some(0) => Ok(Resent::Gone),
            Some(1) => Ok(Resent::Sent),
            Some(2) => Ok(Resent::Waits),
            Some(3) => Ok(Resent::Refused),
            _ => Err(self.commands.nonsense("again.lua")),
        }
    }

    /// See [`crate::queue::Queue::sent_again`]. Whoever asks looks whether the entry is there.
    pub(super) async fn sent_again(&self, record: &str) -> Result<Option<String>, QueueError> {
        let answer = self.query(&self.commands, redis::cmd("HGET").arg(&self.keys.again).arg(record)).await?;
        Ok(reply::text(answer))
    }
}
