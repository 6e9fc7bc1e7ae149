//! HTTP answers that were written down before. Same request, same answer, no network.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;
use url::Url;

use crate::plugin::host_calls::Messenger;
use crate::plugin::http::{Http, HttpError, Request, Response};

/// How many requests without an answer are remembered.
const MAX_STRAYS: usize = 16;

/// The longest URL that is remembered, in bytes.
const MAX_URL: usize = 1024;

/// A request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// `GET`, `POST`, `PUT` or `HEAD`.
    pub method: String,
    /// The URL.
    pub url: Url,
    /// The answer.
    pub response: Response,
}

/// Recordings, and what became of them. Several answers to one request are given in their order, and the last one again and
/// again.
pub(crate) struct Recorded {
    recordings: Vec<Recording>,
    /// Who is asked where nothing is recorded.
    otherwise: Option<Arc<Http>>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// For each recording, whether it was used.
    used: Vec<bool>,
    strays: Vec<String>,
}

impl Recorded {
    /// Answers with these, and otherwise with the network, if that is meant.
    pub(crate) fn new(recordings: Vec<Recording>, otherwise: Option<Arc<Http>>) -> Self {
        let used = vec![false; recordings.len()];
        Self { recordings, otherwise, asked: Mutex::new(Asked { used, strays: Vec::new() }) }
    }

    /// Requests that were recorded and never sent, and those that were sent and not recorded.
    pub(crate) fn differences(&self) -> (Vec<String>, Vec<String>) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = self.recordings.iter().zip(&asked.used).filter(|(_, used)| !**used);
        (unused.map(|(one, _)| format!("{} {}", one.method, one.url)).collect(), asked.strays.clone())
    }

    fn find(&self, request: &Request) -> Option<Response> {
        let mut url = Url::parse(&request.url).ok()?;
        url.set_fragment(None);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |index: &usize| {
            let recording = &self.recordings[*index];
            recording.method == request.method && recording.url == url
        };
        let fresh = (0..self.recordings.len()).find(|index| same(index) && !asked.used[*index]);
        let index = fresh.or_else(|| (0..self.recordings.len()).rfind(same))?;
        asked.used[index] = true;
        Some(self.recordings[index].response.clone())
    }
}

#[async_trait]
impl Messenger for Recorded {
    async fn send(&self, granted: &[String], request: Request, deadline: Instant) -> Result<Response, HttpError> {
        if let Some(response) = self.find(&request) {
            return Ok(response);
        }
        if let Some(http) = &self.otherwise {
            return http.send(granted, request, deadline).await;
        }
        let url = &request.url[..request.url.floor_char_boundary(MAX_URL)];
        let stray = format!("{} {url}", request.method);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.strays.len() < MAX_STRAYS && !asked.strays.contains(&stray) {
            asked.strays.push(stray.clone());
        }
        Err(HttpError::Unreachable(format!("no answer to {stray} is recorded")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(url: &str, status: u16) -> Recording {
        let response = Response { status, headers: Vec::new(), body: Vec::new() };
        Recording { method: "GET".into(), url: Url::parse(url).unwrap(), response }
    }

    async fn get(recorded: &Recorded, url: &str) -> Result<u16, HttpError> {
        let request = Request { method: "GET".into(), url: url.into(), headers: Vec::new(), body: None, timeout: None };
        Messenger::send(recorded, &[], request, Instant::now()).await.map(|response| response.status)
    }

    #[tokio::test]
    async fn answers_come_in_their_order_and_the_last_one_stays() {
        let recorded = Recorded::new(
            vec![recording("https://a/x", 500), recording("https://b/", 404), recording("https://a/x", 200)],
            None,
        );
        for expected in [500, 200, 200] {
            assert_eq!(get(&recorded, "https://A:443/x#part").await, Ok(expected));
        }
        assert_eq!(recorded.differences(), (vec!["GET https://b/".to_owned()], Vec::new()));
    }

    #[tokio::test]
    async fn what_is_not_recorded_is_unreachable_and_remembered_once() {
        let recorded = Recorded::new(Vec::new(), None);
        for _ in 0..3 {
            assert!(
                matches!(get(&recorded, "https://a/").await, Err(HttpError::Unreachable(why)) if why.contains("https://a/"))
            );
        }
        assert_eq!(recorded.differences(), (Vec::new(), vec!["GET https://a/".to_owned()]));
    }
}
