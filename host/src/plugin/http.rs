//! HTTP for plugins: one bounded request at a time, to what the operator granted, with credentials that the plugin never
//! sees.
//!
//! Owns what a request may be, whither it may go and what comes back. It does not know which step was granted what: the
//! names come with each request. Nothing is followed, decompressed, cached or remembered: no redirects, cookies, proxies.

mod address;
mod credentials;
mod grant;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use reqwest::{Client, Method, redirect};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use self::address::{Refused, Resolver};
use self::credentials::Credentials;
use crate::config::HttpConfig;
use crate::telemetry::Telemetry;
use crate::telemetry::events::HttpCalled;

/// The longest URL, in bytes.
const MAX_URL: usize = 8 << 10;
/// How many headers a request may have.
const MAX_HEADERS: usize = 32;
/// How long the headers of a request may be together, in bytes.
const MAX_HEADER_BYTES: usize = 8 << 10;
/// The longest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;
/// How many headers a response may have.
const MAX_RESPONSE_HEADERS: usize = 100;
/// How long the headers of a response may be together, in bytes.
const MAX_RESPONSE_HEADER_BYTES: usize = 64 << 10;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

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
    apis: BTreeMap<String, Api>,
    telemetry: Arc<Telemetry>,
}

/// One interface.
struct Api {
    base: Url,
    private: bool,
    max_response: usize,
    client: Client,
    credentials: Credentials,
    /// Requests at once: a plugin must not use up an interface's quota, or the host's sockets, at a stroke.
    permits: Semaphore,
}

impl Http {
    /// Prepares every interface. Opens no connection.
    ///
    /// # Errors
    /// All interfaces with a header that HTTP does not allow or that is empty, or for which no TLS can be set up.
    pub fn new(config: &BTreeMap<String, HttpConfig>, telemetry: Arc<Telemetry>) -> Result<Self, HttpSetupError> {
        // It fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut apis = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, config) in config {
            match Api::new(config) {
                Ok(api) => _ = apis.insert(name.clone(), api),
                Err(why) => problems.extend(why.into_iter().map(|why| format!("http \"{name}\": {why}"))),
            }
        }
        if problems.is_empty() { Ok(Self { apis, telemetry }) } else { Err(HttpSetupError(problems)) }
    }

    /// Sends a request to one of the granted interfaces and waits for the whole response, until the deadline at most.
    ///
    /// # Errors
    /// [`HttpError`]; a request that was begun is an event, too.
    pub async fn send(&self, granted: &[String], request: Request, deadline: Instant) -> Result<Response, HttpError> {
        let url = checked_url(&request.url)?;
        let (name, api) = self.granted(granted, &url)?;
        address::check_literal(&url, api.private).map_err(|refused| denied(name, &refused))?;
        let request = api.request(request, url)?;
        let begun = Instant::now();
        let result = match tokio::time::timeout_at(deadline, api.exchange(name, request)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout),
        };
        let outcome = match &result {
            Ok(response) if response.status >= 500 => "server-error",
            Ok(response) if response.status >= 400 => "client-error",
            Ok(_) => "ok",
            Err(HttpError::Timeout) => "timeout",
            Err(HttpError::TooLarge(_)) => "too-large",
            Err(HttpError::Unreachable(_)) => "unreachable",
            // Whoever asked tells of these.
            Err(HttpError::Denied(_) | HttpError::Invalid(_)) => return result,
        };
        self.telemetry.emit(&HttpCalled { api: name, outcome, duration: begun.elapsed() });
        result
    }

    /// The granted interface that a URL belongs to; of several the one with the longest path.
    fn granted(&self, granted: &[String], url: &Url) -> Result<(&str, &Api), HttpError> {
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

impl Api {
    fn new(config: &HttpConfig) -> Result<Self, Vec<String>> {
        let credentials = Credentials::new(&config.headers)?;
        let mut client = Client::builder()
            .user_agent(concat!("dossier/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_max_headers(MAX_RESPONSE_HEADERS)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.concurrency)
            .dns_resolver(Resolver::new(config.private));
        if config.url.scheme() == "http" {
            // Without TLS no root certificates are needed, and a machine need not have any.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|error| {
            vec![format!("TLS cannot be set up: {}; are root certificates installed (ca-certificates)?", chain(&error))]
        })?;
        Ok(Self {
            base: config.url.clone(),
            private: config.private,
            max_response: config.max_response,
            client,
            credentials,
            permits: Semaphore::new(config.concurrency),
        })
    }

    /// A plugin's request, checked, with the credentials.
    fn request(&self, request: Request, url: Url) -> Result<reqwest::Request, HttpError> {
        let invalid = |why: String| Err(HttpError::Invalid(why));
        let method = match request.method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "HEAD" => Method::HEAD,
            _ => return invalid("the method must be GET, POST, PUT or HEAD".into()),
        };
        let bytes: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if request.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            return invalid(format!("more than {MAX_HEADERS} headers, or more than {MAX_HEADER_BYTES} bytes of them"));
        }
        if request.body.as_ref().is_some_and(|body| body.len() > MAX_BODY) {
            return invalid(format!("the body is longer than {MAX_BODY} bytes"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
                return invalid(format!("{name:?} is no name of a header"));
            };
            if credentials::is_reserved(&parsed) || self.credentials.sets(&parsed) {
                return invalid(format!("the header {parsed} is set by the host; leave it out"));
            }
            let Ok(value) = HeaderValue::from_str(value) else {
                return invalid(format!("the header {parsed} has a value that HTTP does not allow"));
            };
            headers.append(parsed, value);
        }
        self.credentials.add_to(&mut headers);
        let mut sent = reqwest::Request::new(method, url);
        *sent.headers_mut() = headers;
        *sent.body_mut() = request.body.map(Into::into);
        Ok(sent)
    }

    /// Sends and receives. May be dropped at any time, which closes the connection.
    async fn exchange(&self, name: &str, request: reqwest::Request) -> Result<Response, HttpError> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(HttpError::Unreachable("the host is stopping".into()));
        };
        let error = |error| self.error(name, error);
        let mut response = self.client.execute(request).await.map_err(error)?;
        let headers = self.headers(response.headers())?;
        let bound = self.max_response;
        let too_large = HttpError::TooLarge(bound as u64);
        if response.content_length().is_some_and(|length| length > bound as u64) {
            return Err(too_large);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(error)? {
            if chunk.len() > bound - body.len() {
                return Err(too_large);
            }
            body.extend_from_slice(&chunk);
        }
        self.credentials.hide_in(&mut body);
        Ok(Response { status: response.status().as_u16(), headers, body })
    }

    fn headers(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, HttpError> {
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > MAX_RESPONSE_HEADER_BYTES {
            return Err(HttpError::TooLarge(MAX_RESPONSE_HEADER_BYTES as u64));
        }
        let passed = headers.iter().filter(|(name, _)| *name != SET_COOKIE);
        Ok(passed
            .map(|(name, value)| {
                let mut value = value.as_bytes().to_vec();
                self.credentials.hide_in(&mut value);
                (name.as_str().to_owned(), String::from_utf8_lossy(&value).into_owned())
            })
            .collect())
    }

    fn error(&self, name: &str, error: reqwest::Error) -> HttpError {
        let error = error.without_url();
        if let Some(refused) = causes(&error).find_map(|cause| cause.downcast_ref::<Refused>()) {
            return denied(name, refused);
        }
        let mut text = chain(&error).into_bytes();
        self.credentials.hide_in(&mut text);
        HttpError::Unreachable(String::from_utf8_lossy(&text).into_owned())
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

fn denied(name: &str, refused: &Refused) -> HttpError {
    HttpError::Denied(format!("http \"{name}\": {refused}; add private = true to [http.{name}] if that is meant"))
}

/// What an error came from, itself first.
fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let first: &'a (dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error: &&'a (dyn std::error::Error + 'static)| (*error).source())
}

/// An error with what it came from, in one line.
fn chain(error: &reqwest::Error) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
