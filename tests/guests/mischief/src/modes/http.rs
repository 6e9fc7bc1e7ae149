//! Requests `/url` and says what it got.

use dossier_sdk::{Answer, Failure, http};
use serde_json::json;

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    let (error, why) = match http::get(&ask.text("/url")) {
        Ok(response) => {
            let bytes = response.body.len();
            return Answer::of(&json!({ "status": response.status, "bytes": bytes, "headers": response.headers }));
        }
        Err(http::HttpError::Denied(why)) => ("denied", why),
        Err(http::HttpError::Invalid(why)) => ("invalid", why),
        Err(http::HttpError::Timeout) => ("timeout", String::new()),
        Err(http::HttpError::Unreachable(how)) => ("unreachable", how),
        Err(http::HttpError::TooLarge(bound)) => ("too-large", bound.to_string()),
    };
    Answer::of(&json!({ "error": error, "why": why }))
}
