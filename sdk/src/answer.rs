//! Building an answer.

use serde::Serialize;

use crate::{Answer, Failure, Label, Observable, Verdict};

impl Verdict {
    /// A verdict: a score from 0 (harmless) to 100 (certain) and one sentence for each reason, the weightiest first.
    pub fn new(label: Label, score: u8, reasons: Vec<String>) -> Self {
        Self { label, score, reasons }
    }
}

impl Answer {
    /// An answer whose fields are `result`, which must serialize to a JSON object: a struct, or a map.
    ///
    /// # Errors
    /// [`Failure::Internal`] when it does not.
    pub fn of(result: &impl Serialize) -> Result<Self, Failure> {
        let fields = serde_json::to_string(result)?;
        if !fields.starts_with('{') {
            return Err(Failure::internal("the result does not serialize to a JSON object"));
        }
        Ok(Self::from_json(fields))
    }

    /// An answer whose fields are JSON already. Nothing is checked here; the host refuses what is no object.
    pub fn from_json(fields: impl Into<String>) -> Self {
        Self { fields: fields.into(), observables: Vec::new(), verdict: None }
    }

    /// The same with a verdict. Only a `verdict` step may give one, and it must.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    /// The same with one more observable. Only a `normalize` step may give some.
    #[must_use]
    pub fn observable(mut self, kind: impl Into<String>, role: impl Into<String>, value: impl Into<String>) -> Self {
        self.observables.push(Observable { kind: kind.into(), role: role.into(), value: value.into() });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_can_be_an_answer() {
        assert_eq!(Answer::of(&serde_json::json!({"a": 1})).unwrap().fields, r#"{"a":1}"#);
        assert!(matches!(Answer::of(&[1, 2]), Err(Failure::Internal(_))));
    }
}
