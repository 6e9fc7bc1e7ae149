//! One interface: what a request to it may be, how it is sent, what comes back, and who else may have the answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use reqwest::{Certificate, Client, Method, redirect};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::address::{Refused, Resolver};
use super::answers::{Answers, Key, Outcome};
use super::credentials::{self, Credentials};
use super::flights::{Flights, Found, Landed};
use super::shared::{self, SharedAnswers};
use super::turns::Turns;
use super::{Answered, HttpError, Request, Response};
use crate::config::HttpConfig;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{HttpAnswered, HttpCalled};

/// How many headers a request may have.
pub(super) const MAX_HEADERS: usize = 32;
/// How long the headers of a request may be together, in bytes.
pub(super) const MAX_HEADER_BYTES: usize = 8 << 10;
/// The longest body of a request, in bytes.
pub(super) const MAX_BODY: usize = 64 << 10;
/// How many headers a response may have.
pub(super) const MAX_RESPONSE_HEADERS: usize = 100;
/// How long the headers of a response may be together, in bytes.
pub(super) const MAX_RESPONSE_HEADER_BYTES: usize = 64 << 10;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// One interface.
pub(super) struct Api {
    pub base: Url,
    pub private: bool,
    /// What it was made from.
    pub config: HttpConfig,
    name: String,
    max_response: usize,
    client: Client,
    credentials: Credentials,
    /// Requests at once and in a row: a plugin must not use up an interface's quota, or the host's sockets, at a stroke.
    pub turns: Turns,
    pub flights: Flights,
    /// None when every request is sent.
    answers: Option<Answers>,
    shared: Option<Arc<dyn SharedAnswers>>,
    telemetry: Arc<Telemetry>,
}

/// A request that may be sent.
pub(super) struct Outgoing {
    request: reqwest::Request,
    /// What others must ask to get the same answer; none when each is asked for itself.
    key: Option<Key>,
}

impl Api {
    /// # Errors
    /// Everything that keeps the interface from being used, without the values of its headers.
    pub(super) fn new(
        name: &str,
        config: &HttpConfig,
        shared: Option<Arc<dyn SharedAnswers>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, Vec<String>> {
        Self::with(name, config, Resolver::new(config.private), &[], shared, telemetry)
    }

    /// The same with another resolver, and with root certificates of its own where there are any.
    pub(super) fn with(
        name: &str,
        config: &HttpConfig,
        resolver: Resolver,
        roots: &[Certificate],
        shared: Option<Arc<dyn SharedAnswers>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, Vec<String>> {
        // It fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
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
            .dns_resolver(resolver);
        if config.url.scheme() == "http" || !roots.is_empty() {
            // Without TLS no root certificates are needed, and a machine need not have any.
            client = client.tls_certs_only(roots.iter().cloned());
        }
        let client = client.build().map_err(|error| {
            vec![format!("TLS cannot be set up: {}; are root certificates installed (ca-certificates)?", chain(&error))]
        })?;
        Ok(Self {
            base: config.url.clone(),
            private: config.private,
            config: config.clone(),
            max_response: config.max_response,
            client,
            credentials,
            name: name.to_owned(),
            turns: Turns::new(config),
            flights: Flights::default(),
            answers: config.cache.map(Answers::new),
            shared,
            telemetry,
        })
    }

    /// Sends a request, or has the answer of one like it, and waits until the deadline at most.
    pub(super) async fn answer(
        self: &Arc<Self>,
        step: &Arc<Semaphore>,
        outgoing: Outgoing,
        deadline: Instant,
    ) -> Answered {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return Answered::own(Err(HttpError::Timeout));
        }
        let Outgoing { request, key } = outgoing;
        let (Some(key), Some(answers)) = (key, &self.answers) else {
            let flight = Trip::new(self, None).send(Arc::clone(step), request);
            return match tokio::time::timeout_at(deadline, flight).await {
                Ok(landed) => Answered::own(landed.outcome.result.map(Arc::unwrap_or_clone)),
                Err(_) => Answered::own(Err(HttpError::Timeout)),
            };
        };
        let known = || answers.get(&key, patience);
        let found = match known() {
            Some(outcome) => Found::Known(outcome),
            None => self.flights.join(key, known, |number| {
                Trip::new(self, Some((key, number))).send(Arc::clone(step), request).boxed()
            }),
        };
        let (flight, begun) = match found {
            Found::Known(outcome) => return self.answered("memory", outcome),
            Found::Joined(flight) => (flight, false),
            Found::Begun(flight) => (flight, true),
        };
        match tokio::time::timeout_at(deadline, flight).await {
            Ok(Landed { outcome, shared: true }) => self.answered("shared", outcome),
            Ok(Landed { outcome, .. }) => self.answered(if begun { "api" } else { "in-flight" }, outcome),
            Err(_) => self.answered(if begun { "api" } else { "in-flight" }, Outcome::once(Err(HttpError::Timeout))),
        }
    }

    /// How many bytes of answers are kept.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> u64 {
        self.answers.as_ref().map_or(0, Answers::bytes)
    }

    fn answered(&self, source: &'static str, outcome: Outcome) -> Answered {
        self.telemetry.emit(&HttpAnswered { api: &self.name, source });
        Answered {
            fails_until: outcome.fails_until(),
            cached: source != "api",
            result: outcome.result.map(Arc::unwrap_or_clone),
        }
    }

    /// A plugin's request, checked, with the credentials.
    ///
    /// # Errors
    /// [`HttpError::Invalid`].
    pub(super) fn request(&self, request: Request, url: Url) -> Result<Outgoing, HttpError> {
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
        let asked_alike = matches!(method, Method::GET | Method::HEAD) && request.body.is_none();
        let key = asked_alike.then(|| Key::of(&self.name, method.as_str(), url.as_str(), &request.headers));
        let mut sent = reqwest::Request::new(method, url);
        *sent.headers_mut() = headers;
        *sent.body_mut() = request.body.map(Into::into);
        Ok(Outgoing { request: sent, key })
    }

    /// Asks whether anybody answers there, without credentials and outside the turns; gives the status of the answer.
    pub(super) async fn reach(&self) -> Result<u16, HttpError> {
        super::address::check_literal(&self.base, self.private).map_err(|refused| denied(&self.name, &refused))?;
        let request = reqwest::Request::new(Method::HEAD, self.base.clone());
        Ok(self.client.execute(request).await.map_err(|error| self.error(error))?.status().as_u16())
    }

    /// Sends and receives. May be dropped at any time, which closes the connection.
    async fn exchange(&self, request: reqwest::Request) -> Result<Response, HttpError> {
        let error = |error| self.error(error);
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
                let mut name = name.as_str().as_bytes().to_vec();
                self.credentials.hide_in(&mut name);
                (String::from_utf8_lossy(&name).into_owned(), String::from_utf8_lossy(&value).into_owned())
            })
            .collect())
    }

    fn error(&self, error: reqwest::Error) -> HttpError {
        let error = error.without_url();
        if let Some(refused) = causes(&error).find_map(|cause| cause.downcast_ref::<Refused>()) {
            return denied(&self.name, refused);
        }
        let mut text = chain(&error).into_bytes();
        self.credentials.hide_in(&mut text);
        HttpError::Unreachable(String::from_utf8_lossy(&text).into_owned())
    }
}

/// One request under way. Dropped before it landed, it tells and remembers that nothing came in time.
struct Trip {
    api: Arc<Api>,
    /// How it is found by those who may join it.
    flight: Option<(Key, u64)>,
    begun: Instant,
    /// When it was its turn.
    sent: Option<Instant>,
    landed: bool,
}

impl Trip {
    fn new(api: &Arc<Api>, flight: Option<(Key, u64)>) -> Self {
        Self { api: Arc::clone(api), flight, begun: Instant::now(), sent: None, landed: false }
    }

    async fn send(mut self, step: Arc<Semaphore>, request: reqwest::Request) -> Landed {
        let api = Arc::clone(&self.api);
        let sharing = self.flight.and_then(|(key, _)| Some((key, api.answers.as_ref()?)));
        if let (Some((key, answers)), Some(shared)) = (sharing, &api.shared)
            && let Some((entry, left)) = shared.get(&key).await
            && let Some(response) = shared::read(&entry, api.max_response)
        {
            self.landed = true;
            return Landed { outcome: answers.keep_shared(key, Arc::new(response), left), shared: true };
        }
        let result = match api.turns.next(step).await {
            Ok(_turn) => {
                self.sent = Some(Instant::now());
                api.exchange(request).await.map(Arc::new)
            }
            Err(_) => Err(HttpError::Unreachable("the host is stopping".into())),
        };
        self.landed(&result);
        let Some((key, answers)) = sharing else { return Landed { outcome: Outcome::once(result), shared: false } };
        let outcome = answers.keep(key, result);
        if let (Some(shared), Ok(response), Some(until), None) =
            (&api.shared, &outcome.result, outcome.until, outcome.fails_until())
            && let Some(entry) = shared::write(response)
        {
            shared.put(&key, entry, until.saturating_duration_since(Instant::now())).await;
        }
        Landed { outcome, shared: false }
    }

    fn landed(&mut self, result: &Result<Arc<Response>, HttpError>) {
        self.landed = true;
        self.tell(match result {
            Ok(response) if response.status >= 500 => "server-error",
            Ok(response) if response.status >= 400 => "client-error",
            Ok(_) => "ok",
            Err(HttpError::Timeout) => "timeout",
            Err(HttpError::TooLarge(_)) => "too-large",
            Err(HttpError::Unreachable(_)) => "unreachable",
            // Whoever asked tells of these.
            Err(HttpError::Denied(_) | HttpError::Invalid(_)) => return,
        });
    }

    fn tell(&self, outcome: &'static str) {
        let now = Instant::now();
        let sent = self.sent.unwrap_or(now);
        self.api.telemetry.emit(&HttpCalled {
            api: &self.api.name,
            outcome,
            waited: sent.duration_since(self.begun),
            duration: now.duration_since(sent),
        });
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        if !self.landed {
            self.tell(if self.sent.is_some() { "timeout" } else { "no-turn" });
            if let (Some((key, _)), Some(answers), Some(sent)) = (self.flight, &self.api.answers, self.sent) {
                answers.keep_timeout(key, sent.elapsed());
            }
        }
        if let Some((key, number)) = self.flight {
            self.api.flights.end(&key, number);
        }
    }
}

/// Whether a response may have these headers.
pub(super) fn headers_fit(headers: &[(String, String)]) -> bool {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    headers.len() <= MAX_RESPONSE_HEADERS && bytes <= MAX_RESPONSE_HEADER_BYTES
}

pub(super) fn denied(name: &str, refused: &Refused) -> HttpError {
    HttpError::Denied(format!("http \"{name}\": {refused}; {}", refused.remedy(name)))
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
