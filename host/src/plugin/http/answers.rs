//! The answers of one interface that are given again: which, for how long, and how many of them.
//!
//! Owns nothing between interfaces: each has a cache of its own, so that none can push out or see another's.

use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::rfc2822;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{HttpError, Response};
use crate::config::{CacheConfig, MAX_FAILURE_LIFE};
use crate::digest::sha256;

/// What an entry takes beside its headers and its body, in bytes. It bounds the number of entries, too.
const ENTRY: usize = 512;

/// What makes requests the same: interface, method, URL and the headers that the plugin gave, and not the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a request, its headers in the order in which the plugin gave them.
    pub fn of(interface: &str, method: &str, url: &str, headers: &[(String, String)]) -> Self {
        let mut text = Vec::new();
        let headers = headers.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        // With the length before each part, so that no part can pass for two.
        for part in [interface, method, url].into_iter().chain(headers) {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        Self(sha256(&text))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a request came to.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub result: Result<Arc<Response>, HttpError>,
    /// Until when it is given again; none for what is not.
    pub until: Option<Instant>,
    /// How long it was waited for, where nothing came in that time.
    waited: Option<Duration>,
}

impl Outcome {
    /// What is not given again.
    pub(super) fn once(result: Result<Arc<Response>, HttpError>) -> Self {
        Self { result, until: None, waited: None }
    }

    /// Until when it is known that the same request fails.
    pub(super) fn fails_until(&self) -> Option<Instant> {
        self.until.filter(|_| self.result.as_ref().map_or(true, |response| !is_answer(response.status)))
    }

    fn size(&self) -> usize {
        let response = self.result.as_ref().ok();
        let bytes = response.map_or(0, |response| {
            response.body.len() + response.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        });
        ENTRY + bytes
    }
}

/// The cache of one interface.
pub(super) struct Answers {
    config: CacheConfig,
    kept: Cache<Key, Outcome>,
}

impl Answers {
    pub(super) fn new(config: CacheConfig) -> Self {
        let kept = Cache::builder()
            .max_capacity(config.size)
            .weigher(|_, outcome: &Outcome| u32::try_from(outcome.size()).unwrap_or(u32::MAX))
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Lives)
            .build();
        Self { config, kept }
    }

    /// What is known about a request to somebody who would wait so long for it.
    pub(super) fn get(&self, key: &Key, patience: Duration) -> Option<Outcome> {
        let kept = self.kept.get(key)?;
        let fresh = kept.until.is_some_and(|until| until > Instant::now());
        // That nothing came in a moment says nothing to those who have longer.
        let patient = kept.waited.is_some_and(|waited| patience > waited + waited / 4);
        (fresh && !patient).then_some(kept)
    }

    /// Keeps what the interface answered, as long as the configuration says.
    pub(super) fn keep(&self, key: Key, result: Result<Arc<Response>, HttpError>) -> Outcome {
        let life = self.life(&result);
        self.keep_for(key, result, life, None)
    }

    /// Keeps what another host was answered, for what is left of its life.
    pub(super) fn keep_shared(&self, key: Key, response: Arc<Response>, left: Duration) -> Outcome {
        self.keep_for(key, Ok(response), Some(left.min(self.config.life)), None)
    }

    /// Keeps that no response came to somebody who waited so long.
    pub(super) fn keep_timeout(&self, key: Key, waited: Duration) {
        self.keep_for(key, Err(HttpError::Timeout), self.config.failures, Some(waited));
    }

    fn keep_for(
        &self,
        key: Key,
        result: Result<Arc<Response>, HttpError>,
        life: Option<Duration>,
        waited: Option<Duration>,
    ) -> Outcome {
        let until = life.map(|life| Instant::now() + life);
        let outcome = Outcome { result, until, waited };
        if until.is_some() && outcome.size() as u64 <= self.config.size {
            self.kept.insert(key, outcome.clone());
            // What is over the bound goes now, and not when the cache finds time for it.
            self.kept.run_pending_tasks();
        }
        outcome
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.kept.weighted_size()
    }

    /// How long a result is given again; none for what must be asked anew.
    fn life(&self, result: &Result<Arc<Response>, HttpError>) -> Option<Duration> {
        match result {
            Ok(response) if is_answer(response.status) => Some(self.config.life),
            Ok(response) => {
                let failures = self.config.failures?;
                let asked = retry_after(response).unwrap_or_default().min(MAX_FAILURE_LIFE);
                Some(failures.max(asked))
            }
            Err(HttpError::Timeout | HttpError::Unreachable(_) | HttpError::TooLarge(_)) => self.config.failures,
            // What an operator can mend is asked anew, and costs the interface nothing.
            Err(HttpError::Denied(_) | HttpError::Invalid(_)) => None,
        }
    }
}

/// Whether a status says something about what was asked, and not about who asked or when. That there is nothing (404, 410) is
/// an answer.
pub(super) fn is_answer(status: u16) -> bool {
    matches!(status, 200..400 | 404 | 410)
}

/// How long a server wants to be left alone (RFC 9110, section 10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    if !matches!(response.status, 429 | 503) {
        return None;
    }
    let (_, value) = response.headers.iter().find(|(name, _)| name == "retry-after")?;
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = rfc2822::parse(value).ok()?.timestamp();
    Duration::try_from(then.duration_since(jiff::Timestamp::now())).ok()
}

/// Each entry lives as long as it says.
struct Lives;

impl Lives {
    fn left(outcome: &Outcome) -> Option<Duration> {
        Some(outcome.until?.saturating_duration_since(Instant::now()))
    }
}

impl Expiry<Key, Outcome> for Lives {
    fn expire_after_create(&self, _: &Key, outcome: &Outcome, _: std::time::Instant) -> Option<Duration> {
        Self::left(outcome)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        outcome: &Outcome,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Self::left(outcome)
    }
}
