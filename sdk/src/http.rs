//! HTTP requests to the hosts that the operator granted to the step. The host adds credentials; a plugin sees none.

use serde::de::DeserializeOwned;

pub use crate::bindings::dossier::plugin::http::{HttpError, Request, Response};
use crate::{Failure, host};

/// Sends a GET request and waits for the response, whatever its status.
///
/// # Errors
/// See [`HttpError`]; each turns into a [`Failure`] with `?`.
pub fn get(url: &str) -> Result<Response, HttpError> {
    Request::new("GET", url).send()
}

/// Sends several requests at once, at most 16, and waits for all responses; they stand in the order of the requests.
#[must_use]
pub fn send_all(requests: &[Request]) -> Vec<Result<Response, HttpError>> {
    host::send_all(requests)
}

impl Request {
    /// A request without headers and body. The method is `GET`, `POST`, `PUT` or `HEAD`.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: None, timeout_ms: None }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with a body, at most 64 KiB.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The same, but waits no longer than so many milliseconds; never longer than 80 % of what is left of the call's time.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = Some(milliseconds);
        self
    }

    /// Sends the request and waits for the response, whatever its status.
    ///
    /// # Errors
    /// See [`HttpError`]; each turns into a [`Failure`] with `?`.
    pub fn send(&self) -> Result<Response, HttpError> {
        host::send(self)
    }
}

impl Response {
    /// The first header of this name, which is written in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// How long the server asks to be left alone, in milliseconds: `Retry-After` (RFC 9110, 10.2.3) in seconds. Its other
    /// form, a date, is passed over: a plugin has no clock.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u32> {
        let seconds: u64 = self.header("retry-after")?.trim().parse().ok()?;
        Some(u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX))
    }

    /// The response, if its status is 2xx.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] for what passes by itself: 408, 425, 429 and 5xx, with `Retry-After` when it says one.
    /// [`Failure::Internal`] for any other status: the same request would get the same response.
    pub fn success(self) -> Result<Self, Failure> {
        match self.status {
            200..=299 => Ok(self),
            408 | 425 | 429 | 500..=599 => Err(self.unavailable("")),
            status => Err(Failure::internal(format!("http: status {status}"))),
        }
    }

    /// This response as a [`Failure::Unavailable`] that respects `Retry-After`; `hint` is added to the reason.
    #[must_use]
    pub fn unavailable(&self, hint: &str) -> Failure {
        let reason = format!("http: status {}{}{hint}", self.status, if hint.is_empty() { "" } else { ": " });
        match self.retry_after_ms() {
            Some(after) => Failure::unavailable_for(reason, after),
            None => Failure::unavailable(reason),
        }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when it is not of the form of `T`: what answered is a proxy's page or half a response,
    /// not the API.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::unavailable(format!("http: unexpected body: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, retry_after: Option<&str>) -> Response {
        let headers = retry_after.map(|value| ("retry-after".to_owned(), value.to_owned())).into_iter().collect();
        Response { status, headers, body: Vec::new() }
    }

    #[test]
    fn what_passes_by_itself_is_unavailable_for_as_long_as_the_server_says() {
        assert_eq!(response(429, Some("29")).success(), Err(Failure::unavailable_for("http: status 429", 29_000)));
        assert_eq!(response(503, None).success(), Err(Failure::unavailable("http: status 503")));
        assert_eq!(response(503, Some("99999999999")).retry_after_ms(), Some(u32::MAX));
        assert_eq!(response(503, Some("Fri, 31 Dec 1999 23:59:59 GMT")).retry_after_ms(), None);
    }

    #[test]
    fn what_stays_wrong_is_not_repeated() {
        assert_eq!(response(404, None).success(), Err(Failure::internal("http: status 404")));
        assert!(response(204, None).success().is_ok());
        assert!(matches!(Failure::from(HttpError::Timeout), Failure::Unavailable(_)));
        assert!(matches!(Failure::from(HttpError::Denied("x".into())), Failure::Internal(_)));
    }
}
