//! The admin address: `/metrics`, `/healthz`, `/readyz`. Read-only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What keeps the host from being ready, by part. Set by whoever knows, read by `/readyz`.
#[derive(Debug, Default)]
pub struct Health {
    problems: Mutex<BTreeMap<String, String>>,
}

impl Health {
    /// Says that a part is not ready, or that it is.
    pub fn set(&self, part: &str, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(part.to_owned(), problem),
            None => problems.remove(part),
        };
    }

    /// What is not ready, and why.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
