//! The alert as a plugin sees it: read lazily from the host, typed here.

use serde::de::DeserializeOwned;

use crate::{Failure, Observable};

#[cfg(target_arch = "wasm32")]
pub(crate) type Source<'a> = &'a crate::bindings::dossier::plugin::types::Alert;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Source<'a> = &'a crate::testing::Case;

/// One alert. Every access is a call to the host, so ask once for what is needed twice.
pub struct Alert<'a>(Source<'a>);

impl<'a> Alert<'a> {
    pub(crate) const fn new(source: Source<'a>) -> Self {
        Self(source)
    }

    /// The alert's id.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// When the host took the alert from the queue, in milliseconds since 1970 (UTC). Another one when the same alert comes again,
    /// so it is not for answers.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.received()
    }

    /// The whole original, byte for byte.
    #[must_use]
    pub fn json(&self) -> String {
        self.0.json()
    }

    /// Everything that was found in the alert, in the order of the host's pointers.
    #[must_use]
    pub fn observables(&self) -> Vec<Observable> {
        self.0.observables(None)
    }

    /// The observables of one kind: `ip`, `host`, `user`, `domain`, `url`, `hash`, or what a `normalize` step added.
    #[must_use]
    pub fn observables_of(&self, kind: &str) -> Vec<Observable> {
        self.0.observables(Some(kind))
    }

    /// The value at a JSON pointer (RFC 6901) as JSON text; none when there is nothing at it.
    #[must_use]
    pub fn raw(&self, pointer: &str) -> Option<String> {
        self.0.get(pointer)
    }

    /// The value at a JSON pointer; none when there is nothing at it, or when it is of another type: alerts come in many
    /// forms, and a field of a form that the plugin does not know is as good as absent. [`Alert::raw`] tells the two apart.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, pointer: &str) -> Option<T> {
        serde_json::from_str(&self.raw(pointer)?).ok()
    }

    /// The string at a JSON pointer; none when there is nothing at it or no string.
    #[must_use]
    pub fn str(&self, pointer: &str) -> Option<String> {
        self.get(pointer)
    }

    /// The string, number or boolean at a JSON pointer as plain text; none when there is nothing at it, or something else.
    /// Cheaper than [`Alert::get`]: nothing is parsed in the plugin.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<String> {
        self.0.text(pointer)
    }

    /// The result of a step of an earlier stage; none when it gave none.
    ///
    /// # Errors
    /// [`Failure::Internal`] when the result has not the form of `T`: the step runs another plugin than was thought.
    pub fn enrichment<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, Failure> {
        let Some(json) = self.0.enrichment(step, "") else {
            return Ok(None);
        };
        serde_json::from_str(&json)
            .map(Some)
            .map_err(|error| Failure::internal(format!("result of step \"{step}\" has an unexpected form: {error}")))
    }

    /// What stands at a JSON pointer in the result of a step of an earlier stage, as JSON text: for a type that borrows from it,
    /// or an [`Object`](crate::Object), which is the cheap way to read a large result. The pointer `""` is the whole result.
    #[must_use]
    pub fn enrichment_raw(&self, step: &str, pointer: &str) -> Option<String> {
        self.0.enrichment(step, pointer)
    }

    /// The steps of earlier stages that gave a result, in the operator's order.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        self.0.steps()
    }

    /// The string, number or boolean at a JSON pointer in the result of a step of an earlier stage, as plain text.
    #[must_use]
    pub fn enrichment_text(&self, step: &str, pointer: &str) -> Option<String> {
        self.0.enrichment_text(step, pointer)
    }

    /// What stands at a JSON pointer in the result of a step of an earlier stage; none when the step gave no result, when
    /// there is nothing at it, or when it is of another type.
    #[must_use]
    pub fn enrichment_at<T: DeserializeOwned>(&self, step: &str, pointer: &str) -> Option<T> {
        serde_json::from_str(&self.0.enrichment(step, pointer)?).ok()
    }
}
