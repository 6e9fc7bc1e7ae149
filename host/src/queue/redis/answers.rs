//! Answers of HTTP interfaces that hosts share: one key for each, which the server lets go when its time is over.
//!
//! A cache and nothing more: a server that is slow, full or gone makes it miss, for a moment without being asked again.
//! On a connection of its own, so that no alert waits behind it.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{RedisResult, Value};
use tokio::time::{Instant, timeout};

use super::keep::millis;
use super::keys::Keys;
use super::link::{Call, Link, Source};
use super::reaction;
use crate::config::RedisConfig;
use crate::plugin::http::{Key, MAX_ENTRY, SharedAnswers};
use crate::queue::QueueError;
use crate::telemetry::Telemetry;
use crate::telemetry::events::HttpCacheTrouble;

/// How long the server may take. An interface seldom answers faster than that, and a host that waited as long again and
/// again would be slower than one without a cache: hence [`REST`].
const PATIENCE: Duration = Duration::from_millis(250);

/// How long the server is left alone after it did not answer, or refused.
const REST: Duration = Duration::from_secs(5);

static ANSWER: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("answer.lua")));

/// Answers in Redis.
pub struct RedisAnswers {
    link: Link,
    keys: Keys,
    resting: Mutex<Option<Instant>>,
    telemetry: Arc<Telemetry>,
}

impl RedisAnswers {
    /// Prepares a connection; it is made when it is first needed.
    ///
    /// # Errors
    /// [`QueueError::Broken`] when the URL is none.
    pub fn new(redis: &RedisConfig, telemetry: Arc<Telemetry>) -> Result<Self, QueueError> {
        let link = Link::new(redis, PATIENCE)?;
        Ok(Self { link, keys: Keys::new(&redis.stream), resting: Mutex::default(), telemetry })
    }

    fn key(&self, key: &Key) -> String {
        format!("{}{key}", self.keys.answers)
    }

    /// What the server says within [`PATIENCE`], connecting included; none is a miss.
    async fn within(&self, answer: impl Future<Output = RedisResult<Value>>) -> Option<Value> {
        let now = Instant::now();
        if self.resting.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until) {
            return None;
        }
        let error = match timeout(PATIENCE, answer).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => reaction::words(&error),
            Err(_) => format!("no answer within {} ms", PATIENCE.as_millis()),
        };
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        self.telemetry.emit(&HttpCacheTrouble { error: &format!("redis at {}: {error}", self.link.place()) });
        None
    }
}

#[async_trait]
impl SharedAnswers for RedisAnswers {
    async fn get(&self, key: &Key) -> Option<(Bytes, Duration)> {
        let call = Call::new(&ANSWER, &[&self.key(key)]).arg(MAX_ENTRY);
        let Value::Array(answer) = self.within(self.link.run(&call)).await? else { return None };
        let [Value::BulkString(entry), Value::Int(left)] = <[Value; 2]>::try_from(answer).ok()? else { return None };
        // One that never ends is none of ours.
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        Some((entry.into(), Duration::from_millis(left)))
    }

    async fn put(&self, key: &Key, entry: Bytes, life: Duration) {
        let life = millis(life);
        if life > 0 {
            let mut command = redis::cmd("SET");
            command.arg(self.key(key)).arg(&entry[..]).arg("PX").arg(life);
            self.within(self.link.query(&command)).await;
        }
    }
}
