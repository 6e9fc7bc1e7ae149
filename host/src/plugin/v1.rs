//! Version 1 of the contract: mirrors `wit/v1` and nothing else. Generated types, the linker that gives a component its
//! imports, and the conversions to the host's own types. What the imports do is in [`super::host_calls`], which version a
//! component gets in [`super::contract`].

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};

use super::host_calls::{self, LookupError, State, settle};
use super::http;
use super::limits::RawAnswer;
use crate::alert::observables::Observable;
use crate::pipeline::{Failure, Stage};
use crate::record::{Label, Verdict};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/v1",
        world: "plugin",
        imports: { default: trappable },
        exports: { default: async },
        with: { "dossier:plugin/types.alert": super::AlertHandle },
    });
}

pub(super) use bindings::PluginPre;
pub use bindings::dossier::plugin::{http as wit_http, log, tables, types};

use self::log::Level;
use self::tables::TableError;
use super::contract::interface;

/// The most requests that are sent at once.
const MAX_REQUESTS: usize = 16;

/// The contract's version.
pub(super) const VERSION: &str = "1.0.0";

/// What stands behind a plugin's `alert`. A call has one alert only, so the handle says nothing more.
pub struct AlertHandle;

impl AlertHandle {
    /// The handle to lend to a call.
    pub fn lend() -> Resource<Self> {
        Resource::new_borrow(0)
    }
}

/// A host function: pays for what it hands out, and yields now and then so that a flood of calls cannot hold a thread.
macro_rules! host_fn {
    ($linker:expr, $name:literal, |$state:ident, $params:pat_param in $types:ty| $body:expr, $size:expr) => {
        $linker.func_wrap_async($name, |mut store: StoreContextMut<'_, State>, $params: $types| {
            Box::new(async move {
                let answer = {
                    let $state = store.data_mut();
                    $body
                };
                settle(&mut store, $size(&answer)).await?;
                Ok((answer,))
            })
        })?
    };
}

fn text_size(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

fn response_size(answer: &Result<wit_http::Response, wit_http::HttpError>) -> usize {
    answer.as_ref().map_or(0, |response| {
        let headers = response.headers.iter().map(|(name, value)| name.len() + value.len());
        response.body.len() + headers.sum::<usize>()
    })
}

fn row_size(row: &Result<Option<String>, TableError>) -> usize {
    row.as_ref().map_or(0, text_size)
}

/// Offers everything of this contract to a component, under the names of a version that has at least as much.
///
/// # Errors
/// None in practice: a name defined twice.
pub(super) fn add_to_linker(linker: &mut Linker<State>, version: &str) -> wasmtime::Result<()> {
    let mut types = linker.instance(&interface("types", version))?;
    types.resource("alert", ResourceType::host::<AlertHandle>(), |_, _| Ok(()))?;
    type Handle = Resource<AlertHandle>;
    host_fn!(types, "[method]alert.id", |state, (_,) in (Handle,)| state.id()?, String::len);
    host_fn!(types, "[method]alert.received", |state, (_,) in (Handle,)| state.received()?, |_: &u64| 0);
    host_fn!(types, "[method]alert.json", |state, (_,) in (Handle,)| state.json()?, String::len);
    host_fn!(types, "[method]alert.get", |state, (_, pointer) in (Handle, String)| state.get(&pointer)?, text_size);
    host_fn!(types, "[method]alert.text", |state, (_, pointer) in (Handle, String)| state.text(&pointer)?, text_size);
    host_fn!(
        types,
        "[method]alert.enrichment",
        |state, (_, step, pointer) in (Handle, String, String)| state.enrichment(&step, &pointer)?,
        text_size
    );
    host_fn!(
        types,
        "[method]alert.enrichment-text",
        |state, (_, step, pointer) in (Handle, String, String)| state.enrichment_text(&step, &pointer)?,
        text_size
    );
    host_fn!(
        types,
        "[method]alert.steps",
        |state, (_,) in (Handle,)| state.steps()?,
        |steps: &Vec<String>| steps.iter().map(|step| 16 + step.len()).sum()
    );
    host_fn!(
        types,
        "[method]alert.observables",
        |state, (_, kind) in (Handle, Option<String>)| {
            state.observables(kind.as_deref())?.map(types::Observable::from).collect::<Vec<_>>()
        },
        |found: &Vec<types::Observable>| found.iter().map(|o| 32 + o.kind.len() + o.role.len() + o.value.len()).sum()
    );

    let mut tables = linker.instance(&interface("tables", version))?;
    host_fn!(
        tables,
        "lookup",
        |state, (table, key) in (String, String)| state.lookup(&table, &key).map_err(TableError::from),
        row_size
    );
    host_fn!(
        tables,
        "text",
        |state, (table, key, pointer) in (String, String, String)| state
            .table_text(&table, &key, &pointer)
            .map_err(TableError::from),
        row_size
    );

    linker.instance(&interface("http", version))?.func_wrap_async(
        "send",
        |mut store: StoreContextMut<'_, State>, (request,): (wit_http::Request,)| {
            Box::new(async move {
                let answer = host_calls::send(store.data_mut(), request.into()).await;
                let answer = answer.map(wit_http::Response::from).map_err(wit_http::HttpError::from);
                settle(&mut store, response_size(&answer)).await?;
                Ok((answer,))
            })
        },
    )?;
    linker.instance(&interface("http", version))?.func_wrap_async(
        "send-all",
        |mut store: StoreContextMut<'_, State>, (requests,): (Vec<wit_http::Request>,)| {
            Box::new(async move {
                let over = requests.len().saturating_sub(MAX_REQUESTS);
                let requests = requests.into_iter().take(MAX_REQUESTS).map(Into::into).collect();
                let answers = host_calls::send_all(store.data_mut(), requests).await.into_iter();
                let mut answers: Vec<_> = answers
                    .map(|answer| answer.map(wit_http::Response::from).map_err(wit_http::HttpError::from))
                    .collect();
                let too_many = format!("at most {MAX_REQUESTS} requests are sent at once; send the others afterwards");
                answers.extend((0..over).map(|_| Err(wit_http::HttpError::Invalid(too_many.clone()))));
                settle(&mut store, answers.iter().map(response_size).sum()).await?;
                Ok((answers,))
            })
        },
    )?;

    linker.instance(&interface("log", version))?.func_wrap_async(
        "log",
        |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
            Box::new(async move {
                store.data_mut().say(level.into(), &message);
                settle(&mut store, message.len()).await
            })
        },
    )?;
    Ok(())
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warn => Self::WARN,
            Level::Error => Self::ERROR,
        }
    }
}

impl From<types::Stage> for Stage {
    fn from(stage: types::Stage) -> Self {
        match stage {
            types::Stage::Normalize => Self::Normalize,
            types::Stage::Enrich => Self::Enrich,
            types::Stage::Verdict => Self::Verdict,
        }
    }
}

impl From<LookupError> for TableError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Denied(why) => Self::Denied(why),
            LookupError::Unavailable(why) => Self::Unavailable(why),
            LookupError::Broken(why) => Self::Broken(why),
        }
    }
}

impl From<&Observable> for types::Observable {
    fn from(observable: &Observable) -> Self {
        Self { kind: observable.kind.clone(), role: observable.role.clone(), value: observable.value.clone() }
    }
}

impl From<types::Answer> for RawAnswer {
    fn from(answer: types::Answer) -> Self {
        let observable = |o: types::Observable| Observable { kind: o.kind, role: o.role, value: o.value };
        Self {
            fields: answer.fields,
            observables: answer.observables.into_iter().map(observable).collect(),
            verdict: answer.verdict.map(|verdict| Verdict {
                label: verdict.label.into(),
                score: verdict.score,
                reasons: verdict.reasons,
            }),
        }
    }
}

impl From<types::Label> for Label {
    fn from(label: types::Label) -> Self {
        match label {
            types::Label::Malicious => Self::Malicious,
            types::Label::Suspicious => Self::Suspicious,
            types::Label::Benign => Self::Benign,
            types::Label::Unknown => Self::Unknown,
        }
    }
}

impl From<types::Failure> for Failure {
    fn from(failure: types::Failure) -> Self {
        use super::limits::cut;
        use crate::dead_letter::Reason;
        match failure {
            types::Failure::NotApplicable(why) => Self::NotApplicable(cut(why)),
            types::Failure::Unavailable(retry) => Self::Unavailable {
                reason: cut(retry.reason),
                after: retry.after_ms.map(|milliseconds| Duration::from_millis(milliseconds.into())),
            },
            types::Failure::Invalid(why) => Self::Failed { reason: Reason::Invalid, detail: cut(why) },
            types::Failure::Internal(why) => Self::Failed { reason: Reason::PluginError, detail: cut(why) },
        }
    }
}

impl From<wit_http::Request> for http::Request {
    fn from(request: wit_http::Request) -> Self {
        Self {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            timeout: request.timeout_ms.map(|milliseconds| Duration::from_millis(milliseconds.into())),
        }
    }
}

impl From<http::Response> for wit_http::Response {
    fn from(response: http::Response) -> Self {
        Self { status: response.status, headers: response.headers, body: response.body }
    }
}

impl From<http::HttpError> for wit_http::HttpError {
    fn from(error: http::HttpError) -> Self {
        match error {
            http::HttpError::Denied(why) => Self::Denied(why),
            http::HttpError::Invalid(why) => Self::Invalid(why),
            http::HttpError::Timeout => Self::Timeout,
            http::HttpError::Unreachable(why) => Self::Unreachable(why),
            http::HttpError::TooLarge(bound) => Self::TooLarge(bound),
        }
    }
}
