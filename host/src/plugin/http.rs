//! HTTP for plugins. (This file is replaced by its owner's.)
#![allow(missing_docs)]
use crate::config::HttpConfig;
use crate::telemetry::Telemetry;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
pub struct Http;
#[derive(Debug, thiserror::Error)]
#[error("cannot set up")]
pub struct HttpSetupError;
impl Http {
    pub fn new(_config: &BTreeMap<String, HttpConfig>, _telemetry: Arc<Telemetry>) -> Result<Self, HttpSetupError> {
        Ok(Self)
    }
    pub async fn send(
        &self,
        _granted: &[String],
        _request: Request,
        deadline: tokio::time::Instant,
    ) -> Result<Response, HttpError> {
        tokio::time::sleep_until(deadline).await;
        Err(HttpError::Timeout)
    }
}
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
}
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}
#[derive(Debug)]
pub enum HttpError {
    Denied(String),
    Invalid(String),
    Timeout,
    Unreachable(String),
    TooLarge(u64),
}
