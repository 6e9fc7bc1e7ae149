//! Why a call gives no answer, and what turns into which kind of failure.

use crate::bindings::dossier::plugin::{http::HttpError, tables::TableError};
use crate::{Failure, Retry};

impl Failure {
    /// There is nothing here that this plugin is for; noted on the record, no failure.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::NotApplicable(why.into())
    }

    /// Something that the plugin needs is not there now; the host calls again, when it thinks fit.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable(Retry { reason: reason.into(), after_ms: None })
    }

    /// As [`Failure::unavailable`], but not before so many milliseconds have passed.
    pub fn unavailable_for(reason: impl Into<String>, after_ms: u32) -> Self {
        Self::Unavailable(Retry { reason: reason.into(), after_ms: Some(after_ms) })
    }

    /// The alert is not what it should be; it goes to the dead letters.
    pub fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    /// The plugin is wrong; the alert goes to the dead letters.
    pub fn internal(why: impl Into<String>) -> Self {
        Self::Internal(why.into())
    }
}

/// JSON that the plugin itself reads or writes and that is not what it thinks: `internal`.
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error.to_string())
    }
}

/// A table that is not loaded may be so later: `unavailable`. One that is not granted stays so until the operator grants it:
/// `internal`, no retry.
impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unavailable(why) => Self::unavailable(why),
            TableError::Denied(why) | TableError::Broken(why) => Self::Internal(why),
        }
    }
}

/// No response may come right by itself: `unavailable`. What is denied, wrong or too large stays so: `internal`.
impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Timeout => Self::unavailable("http: no response in time"),
            HttpError::Unreachable(how) => Self::unavailable(format!("http: unreachable: {how}")),
            HttpError::Denied(why) => Self::internal(format!("http: denied: {why}")),
            HttpError::Invalid(why) => Self::internal(format!("http: invalid request: {why}")),
            HttpError::TooLarge(bound) => Self::internal(format!("http: response longer than {bound} bytes")),
        }
    }
}
