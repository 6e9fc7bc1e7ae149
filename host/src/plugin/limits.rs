//! What bounds a call: memory, tables and instances while it runs, its answer when it is done, and how each way to fail is
//! told from the others. Fuel and time are wasmtime's and tokio's; [`super::instance`] sets them.

use serde_json::value::RawValue;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Trap, WasmBacktrace};

use crate::alert::observables::{MAX_OBSERVABLES, Observable};
use crate::dead_letter::Reason;
use crate::json;
use crate::pipeline::{Answer, Failure, Stage};
use crate::record::Verdict;

/// Instances of core modules in one component. A component from `wit-component` has four, one from a Python toolchain
/// some thirty.
pub(super) const CORE_INSTANCES: u32 = 64;

/// Linear memories of one component.
pub(super) const MEMORIES: u32 = 2;

/// Tables of one component.
pub(super) const TABLES: u32 = 8;

/// Elements of one table; an interpreter has some ten thousand functions.
pub(super) const TABLE_ELEMENTS: usize = 1 << 16;

/// Handles of all resources, its own ones as well, that a component may hold at once; each is memory of the host's.
pub(super) const HANDLES: usize = 1024;

/// The longest text that a plugin may put into an error, in bytes: it ends in records and log lines.
const MAX_DETAIL: usize = 4 << 10;

/// The longest kind or role of an observable, in bytes.
const MAX_WORD: usize = 64;

/// The most reasons of a verdict, and the longest one, in bytes.
const MAX_REASONS: usize = 64;
const MAX_REASON: usize = 1024;

/// The longest value of an observable, in bytes.
const MAX_VALUE: usize = 4096;

/// What counts an instance's memory and refuses what goes over its cap.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    cap: usize,
    used: usize,
    /// Whether this call was refused some: a trap that follows is the allocator giving up.
    refused: bool,
}

impl MemoryLimit {
    /// A cap over all memories of a component together, in bytes.
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, used: 0, refused: false }
    }

    /// Begins another call in the same instance.
    pub(super) fn begin(&mut self) {
        self.refused = false;
    }

    /// Bytes of linear memory that the instance has now.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        // A module's own maximum is its own affair; growing past it fails without being the operator's cap.
        let allowed = total <= self.cap;
        if allowed && maximum.is_none_or(|maximum| desired <= maximum) {
            self.used = total;
        }
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= TABLE_ELEMENTS;
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

/// Why a call ended without the plugin having said so.
pub(super) fn failure(error: &wasmtime::Error, memory: &MemoryLimit) -> Failure {
    if error.is::<PoolConcurrencyLimitError>() {
        // Cannot be, since calls wait for room; if it were, the alert is not to blame.
        return Failure::Unavailable { reason: "no room for another sandbox".into(), after: None };
    }
    if is_out_of_memory(error) {
        let reason = format!("the machine has no memory for a sandbox: {}", cut(error.root_cause().to_string()));
        return Failure::Unavailable { reason, after: None };
    }
    let trap = error.downcast_ref::<Trap>();
    let reason = match trap {
        Some(Trap::OutOfFuel) => Reason::OutOfFuel,
        Some(Trap::StackOverflow) => Reason::Trap,
        _ if memory.refused => Reason::Memory,
        Some(_) => Reason::Trap,
        None if error.is::<wasmtime_wasi::I32Exit>() => Reason::Trap,
        // More handles than an instance may hold.
        None if error.is::<ResourceTableError>() => Reason::Trap,
        // What a plugin passed could not be read: not UTF-8, no such variant, more than may cross the border.
        None => Reason::InvalidOutput,
    };
    let mut detail = trap.map_or_else(|| error.root_cause().to_string(), |trap| trap.to_string());
    let place = error.downcast_ref::<WasmBacktrace>().and_then(|trace| trace.frames().first()?.func_name());
    if let Some(place) = place {
        detail = format!("{detail} in {place}");
    }
    let detail = match reason {
        Reason::OutOfFuel => "the call used up its fuel; raise fuel in its [[step]] if that is too little".into(),
        Reason::Memory => format!(
            "the plugin wanted more memory than its {} KiB ({}); raise memory in its [[step]] if that is too little",
            memory.cap >> 10,
            cut(detail)
        ),
        _ => cut(detail),
    };
    Failure::Failed { reason, detail }
}

/// Whether the system refused memory to wasmtime: the machine is to blame then, not the plugin. One that asks for more than its
/// step may have is told so by [`MemoryLimit`] and never gets that far.
fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    use rustix::io::Errno;
    let refused = |errno: Option<Errno>| matches!(errno, Some(Errno::NOMEM | Errno::AGAIN));
    error.is::<wasmtime::OutOfMemory>()
        || refused(error.downcast_ref::<Errno>().copied())
        || refused(error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error))
}

/// Cuts a text to what an error may hold.
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DETAIL));
    text
}

/// What a plugin answered, before anybody looked at it.
#[derive(Debug)]
pub(super) struct RawAnswer {
    /// Should be a JSON object.
    pub fields: String,
    /// Should be empty but in a `normalize` step.
    pub observables: Vec<Observable>,
    /// Should be there in a `verdict` step only.
    pub verdict: Option<Verdict>,
}

impl RawAnswer {
    /// Bytes of all its texts.
    fn size(&self) -> usize {
        let observables = self.observables.iter().map(|o| o.kind.len() + o.role.len() + o.value.len());
        let reasons = self.verdict.iter().flat_map(|verdict| verdict.reasons.iter().map(String::len));
        self.fields.len() + observables.sum::<usize>() + reasons.sum::<usize>()
    }

    /// Checks it against the contract.
    ///
    /// # Errors
    /// What is wrong with it, for [`Reason::InvalidOutput`].
    pub(super) fn check(self, stage: Stage, limit: usize) -> Result<Answer, String> {
        let size = self.size();
        if size > limit {
            return Err(format!("the answer has {size} bytes, over its {limit}; raise answer in its [[step]]"));
        }
        match (stage, &self.verdict, self.observables.len()) {
            (Stage::Enrich | Stage::Verdict, _, 1..) => {
                return Err(format!("only a normalize step may add observables; this is a step of {}", stage.as_str()));
            }
            (Stage::Normalize, _, count) if count > MAX_OBSERVABLES => {
                return Err(format!("{count} observables are more than {MAX_OBSERVABLES}"));
            }
            (Stage::Normalize | Stage::Enrich, Some(_), _) => {
                return Err(format!("only a verdict step may give a verdict; this is a step of {}", stage.as_str()));
            }
            (Stage::Verdict, None, _) => return Err("a verdict step must give a verdict".into()),
            _ => {}
        }
        for observable in &self.observables {
            let word = |word: &str| !word.is_empty() && word.len() <= MAX_WORD;
            if !word(&observable.kind) || !word(&observable.role) {
                return Err(format!("an observable's kind and role must have 1 to {MAX_WORD} bytes"));
            }
            if observable.value.is_empty() || observable.value.len() > MAX_VALUE {
                return Err(format!("an observable's value must have 1 to {MAX_VALUE} bytes"));
            }
        }
        if let Some(verdict) = &self.verdict {
            if verdict.score > 100 {
                return Err(format!("the score {} is above 100", verdict.score));
            }
            let reason = |reason: &String| {
                !reason.is_empty() && reason.len() <= MAX_REASON && !reason.chars().any(char::is_control)
            };
            if verdict.reasons.len() > MAX_REASONS || !verdict.reasons.iter().all(reason) {
                return Err(format!(
                    "a verdict may have at most {MAX_REASONS} reasons, each of 1 to {MAX_REASON} bytes on one line"
                ));
            }
        }
        let fields = object(self.fields).map_err(|error| format!("fields are no JSON object: {error}"))?;
        Ok(Answer { fields, observables: self.observables, verdict: self.verdict })
    }
}

/// Checks that a text is a JSON object that every reader accepts, on one line.
fn object(mut text: String) -> Result<Box<RawValue>, serde_json::Error> {
    json::check_object(&text, json::FIELDS_LEVELS)?;
    // Between values a line break is only white space, and in a text it cannot stand: so the record stays on one line.
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some() {
        text = text.replace(['\n', '\r'], " ");
    }
    RawValue::from_string(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Label;

    fn answer(fields: &str) -> RawAnswer {
        RawAnswer { fields: fields.into(), observables: Vec::new(), verdict: None }
    }

    fn verdict(score: u8, reasons: Vec<String>) -> RawAnswer {
        RawAnswer { verdict: Some(Verdict { label: Label::Malicious, score, reasons }), ..answer("{}") }
    }

    fn observable(kind: &str, value: &str) -> Observable {
        Observable { kind: kind.into(), role: "related".into(), value: value.into() }
    }

    #[test]
    fn memory_that_the_system_refuses_is_the_machines_fault_and_no_other_error_of_the_system_is() {
        use rustix::io::Errno;
        let of = |error: wasmtime::Error| failure(&error, &MemoryLimit::new(1 << 20));
        for error in [
            wasmtime::Error::from(std::io::Error::from(Errno::NOMEM)),
            wasmtime::Error::from(std::io::Error::from(Errno::AGAIN)).context("no memory for a stack"),
            wasmtime::Error::from(Errno::NOMEM).context("no mapping"),
            wasmtime::Error::from(wasmtime::OutOfMemory::new(64)),
        ] {
            assert!(matches!(of(error), Failure::Unavailable { .. }));
        }
        for error in [wasmtime::Error::from(std::io::Error::from(Errno::BADF)), wasmtime::Error::msg("not UTF-8")] {
            assert!(matches!(of(error), Failure::Failed { reason: Reason::InvalidOutput, .. }));
        }
    }

    #[test]
    fn an_object_within_its_size_is_kept_as_it_was_written_but_on_one_line() {
        let text = "{\"b\": [1, 2.50, \"\\u00e4\"],\n \"a\": {}}";
        let checked = answer(text).check(Stage::Enrich, text.len()).unwrap();
        assert_eq!(checked.fields.get(), text.replace('\n', " "));
    }

    #[test]
    fn an_answer_over_its_size_is_refused() {
        let text = "{\"a\":1}";
        assert!(answer(text).check(Stage::Enrich, text.len()).is_ok());
        assert!(answer(text).check(Stage::Enrich, text.len() - 1).unwrap_err().contains("over its 6"));
    }

    #[test]
    fn what_is_no_strict_json_object_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for text in ["", "[]", "1", "null", "\"x\"", "{", "{} {}", "{\"a\":\"\\ud800\"}", "{1:2}", "{\"a\":NaN}", &deep]
        {
            assert!(answer(text).check(Stage::Enrich, 1 << 20).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_normalize_step_may_add_observables_and_only_good_ones() {
        let with = |observables: Vec<Observable>| RawAnswer { observables, ..answer("{}") };
        assert!(with(vec![observable("ip", "1.2.3.4")]).check(Stage::Normalize, 1 << 20).is_ok());
        assert!(with(vec![observable("ip", "1.2.3.4")]).check(Stage::Enrich, 1 << 20).is_err());
        assert!(with(vec![observable("", "1.2.3.4")]).check(Stage::Normalize, 1 << 20).is_err());
        assert!(with(vec![observable(&"k".repeat(65), "v")]).check(Stage::Normalize, 1 << 20).is_err());
        assert!(with(vec![observable("ip", "")]).check(Stage::Normalize, 1 << 20).is_err());
        assert!(with(vec![observable("ip", &"v".repeat(4097))]).check(Stage::Normalize, 1 << 20).is_err());
        let many = vec![observable("ip", "v"); MAX_OBSERVABLES];
        assert!(with(many.clone()).check(Stage::Normalize, 1 << 20).is_ok());
        assert!(with([many, vec![observable("ip", "v")]].concat()).check(Stage::Normalize, 1 << 20).is_err());
    }

    #[test]
    fn a_verdict_step_must_give_a_verdict_that_is_one() {
        let why = || vec!["why".to_owned()];
        assert!(verdict(100, why()).check(Stage::Verdict, 1 << 20).is_ok());
        assert!(verdict(101, why()).check(Stage::Verdict, 1 << 20).is_err());
        assert!(verdict(1, why()).check(Stage::Enrich, 1 << 20).is_err());
        assert!(verdict(1, vec!["x".repeat(1024); 64]).check(Stage::Verdict, 1 << 20).is_ok());
        for reasons in [vec!["why".to_owned(); 65], vec!["x".repeat(1025)], vec![String::new()], vec!["a\nb".into()]] {
            assert!(verdict(1, reasons).check(Stage::Verdict, 1 << 20).is_err());
        }
        assert!(answer("{}").check(Stage::Verdict, 1 << 20).is_err());
    }
}
