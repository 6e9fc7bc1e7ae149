//! HTTP for plugins: one bounded request at a time, to what the operator granted, with credentials that the plugin never
//! sees.
//!
//! Owns what a request may be, whither it may go and what comes back. It does not know which step was granted what: the
//! names come with each request. Nothing is followed or decompressed: no redirects, cookies, proxies. What is asked
//! alike ([`answers`], [`flights`], [`shared`]) is asked once; who asks more than an interface bears waits ([`turns`]).

mod address;
mod answers;
mod api;
mod credentials;
mod flights;
mod grant;
mod shared;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

pub use self::answers::Key;
use self::api::{Api, Outgoing};
pub use self::shared::{MAX_ENTRY, SharedAnswers};
use crate::config::HttpConfig;
use crate::telemetry::Telemetry;

/// The longest URL, in bytes.
const MAX_URL: usize = 8 << 10;
/// A request of a plugin.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, `PUT` or `HEAD`.
    pub method: String,
    /// An absolute URL without user or password, of at most 8 KiB.
    pub url: String,
    /// Names and values: at most 32, at most 8 KiB together.
    pub headers: Vec<(String, String)>,
    /// At most 64 KiB.
    pub body: Option<Vec<u8>>,
    /// How long to wait at most; the call's deadline bounds it, too.
    pub timeout: Option<Duration>,
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case and values, without `set-cookie`; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// As it was sent: what is compressed stays compressed.
    pub body: Vec<u8>,
}

/// Why there is no response. No text holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not granted, or at an address that may not be reached; says what to grant.
    #[error("{0}")]
    Denied(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The deadline passed first.
    #[error("no response in time")]
    Timeout,
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// The response is longer than this many bytes.
    #[error("the response is longer than {0} bytes")]
    TooLarge(u64),
}

/// Interfaces that cannot be used, each with its name and why. No text holds a header's value.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct HttpSetupError(pub Vec<String>);

/// The HTTP interfaces of a configuration.
pub struct Http {
    apis: BTreeMap<String, Arc<Api>>,
    shared: Option<Arc<dyn SharedAnswers>>,
    telemetry: Arc<Telemetry>,
}

/// Who asks: one for each step.
#[derive(Debug)]
pub struct Asker {
    /// The interfaces that it may ask.
    granted: Vec<String>,
    /// Its requests at once, over all its calls.
    at_once: Arc<Semaphore>,
}

impl Asker {
    /// A step that was granted these interfaces, and so many requests at once.
    pub fn new(granted: Vec<String>, at_once: usize) -> Self {
        Self { granted, at_once: Arc::new(Semaphore::new(at_once)) }
    }

    /// Whether it may ask anybody at all.
    pub fn may_ask(&self) -> bool {
        !self.granted.is_empty()
    }
}

/// What an asker gets.
#[derive(Debug)]
pub struct Answered {
    /// The response, or why there is none.
    pub result: Result<Response, HttpError>,
    /// Whether it came without a request of its own: it was known, or somebody had just asked the same.
    pub cached: bool,
    /// Until when the same request will fail in the same way without being sent; none when it is worth trying.
    pub fails_until: Option<Instant>,
}

impl Answered {
    pub(super) fn own(result: Result<Response, HttpError>) -> Self {
        Self { result, cached: false, fails_until: None }
    }
}

impl Http {
    /// Prepares every interface, with what it shares with other hosts if there is such a thing. Opens no connection.
    ///
    /// # Errors
    /// All interfaces with a header that HTTP does not allow or that is empty, or for which no TLS can be set up.
    pub fn new(
        config: &BTreeMap<String, HttpConfig>,
        shared: Option<Arc<dyn SharedAnswers>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, HttpSetupError> {
        Self::beside(&BTreeMap::new(), config, shared, telemetry)
    }

    /// The interfaces of another configuration. One that is configured as before goes on as it is, with its cache and its rate.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn renewed(&self, config: &BTreeMap<String, HttpConfig>) -> Result<Self, HttpSetupError> {
        Self::beside(&self.apis, config, self.shared.clone(), Arc::clone(&self.telemetry))
    }

    fn beside(
        before: &BTreeMap<String, Arc<Api>>,
        config: &BTreeMap<String, HttpConfig>,
        shared: Option<Arc<dyn SharedAnswers>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, HttpSetupError> {
        let mut apis = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, config) in config {
            if let Some(same) = before.get(name).filter(|api| api.config == *config) {
                apis.insert(name.clone(), Arc::clone(same));
                continue;
            }
            match Api::new(name, config, shared.clone(), Arc::clone(&telemetry)) {
                Ok(api) => _ = apis.insert(name.clone(), Arc::new(api)),
                Err(why) => problems.extend(why.into_iter().map(|why| format!("http \"{name}\": {why}"))),
            }
        }
        if problems.is_empty() { Ok(Self { apis, shared, telemetry }) } else { Err(HttpSetupError(problems)) }
    }

    /// Sends a request to one of the interfaces that the asker was granted, or has the answer of one like it, and waits for
    /// the whole response until the deadline at most.
    pub async fn send(&self, asker: &Asker, request: Request, deadline: Instant) -> Answered {
        match self.prepare(asker, request) {
            Ok((api, outgoing)) => api.answer(&asker.at_once, outgoing, deadline).await,
            Err(error) => Answered::own(Err(error)),
        }
    }

    /// Asks an interface whether anybody answers there, by the rules for plugins' requests but without credentials; gives the status of the
    /// answer, whatever it is. For `dossier doctor`.
    ///
    /// # Errors
    /// [`HttpError`]: its address may not be reached, nobody answers, or nobody does within this time.
    pub async fn reach(&self, name: &str, patience: Duration) -> Result<u16, HttpError> {
        let Some(api) = self.apis.get(name) else {
            return Err(HttpError::Invalid(format!("there is no [http.{name}]")));
        };
        tokio::time::timeout(patience, api.reach()).await.unwrap_or(Err(HttpError::Timeout))
    }

    fn prepare(&self, asker: &Asker, request: Request) -> Result<(&Arc<Api>, Outgoing), HttpError> {
        let url = checked_url(&request.url)?;
        let (name, api) = self.granted(&asker.granted, &url)?;
        address::check_literal(&url, api.private).map_err(|refused| api::denied(name, &refused))?;
        Ok((api, api.request(request, url)?))
    }

    /// The granted interface that a URL belongs to; of several the one with the longest path.
    fn granted(&self, granted: &[String], url: &Url) -> Result<(&str, &Arc<Api>), HttpError> {
        let covering = || self.apis.iter().filter(|(_, api)| grant::covers(&api.base, url));
        let found = covering()
            .filter(|(name, _)| granted.contains(name))
            .max_by_key(|(_, api)| api.base.path().len())
            .map(|(name, api)| (name.as_str(), api));
        found.ok_or_else(|| {
            let origin = url.origin().ascii_serialization();
            HttpError::Denied(match covering().next() {
                Some((name, _)) => {
                    format!("{origin} is http \"{name}\", which is not granted; add it to http = [...] in the [[step]]")
                }
                None => format!(
                    "{origin} with this path is granted by no [http.NAME]; add one with its url, and its name to http = [...] in the [[step]]"
                ),
            })
        })
    }
}

fn checked_url(text: &str) -> Result<Url, HttpError> {
    let invalid = |why: &str| Err(HttpError::Invalid(why.to_owned()));
    if text.len() > MAX_URL {
        return invalid(&format!("the URL is longer than {MAX_URL} bytes"));
    }
    let Ok(mut url) = Url::parse(text) else { return invalid("the URL is no absolute URL") };
    if !matches!(url.scheme(), "http" | "https") {
        return invalid("the URL must begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("the URL must not hold a user or a password; the host adds credentials by itself");
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests;
