//! Version 1 of the contract: mirrors `wit/v1` and nothing else. Generated types, the linker that gives a component its
//! imports, and the conversions to the host's own types. What the imports do is in [`super::host_calls`].

use std::time::Duration;

use wasmtime::component::{InstancePre, Linker, Resource, ResourceType};
use wasmtime::{Engine, StoreContextMut};

use super::host_calls::{self, LookupError, State, settle};
use super::http;
use super::limits::RawAnswer;
use crate::alert::observables::Observable;
use crate::pipeline::{Failure, Stage};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/v1",
        world: "plugin",
        imports: { default: trappable },
        exports: { default: async },
        with: { "dossier:plugin/types.alert": super::AlertHandle },
    });
}

pub(super) use bindings::dossier::plugin::log::Level;
pub(super) use bindings::dossier::plugin::types;
pub(super) use bindings::{Plugin, PluginPre};

use bindings::dossier::plugin::http as wit_http;
use bindings::dossier::plugin::tables::TableError;

/// The contract's version, part of the name of everything that was compiled for it.
pub(crate) const VERSION: &str = "1.0.0";

/// The package that components of this contract import from.
pub(crate) const PACKAGE: &str = "dossier:plugin/";

/// What stands behind a plugin's `alert`. A call has one alert only, so the handle says nothing more.
pub struct AlertHandle;

impl AlertHandle {
    /// The handle to lend to a call.
    pub fn lend() -> Resource<Self> {
        Resource::new_borrow(0)
    }
}

/// The name of an interface as components import it.
fn interface(name: &str) -> String {
    format!("{PACKAGE}{name}@{VERSION}")
}

/// The call of `configure` as `wasmtime-wizer` wants it: in WAVE, whose strings escape `"` and `\` as JSON does. The JSON
/// of settings holds no other character that needs it.
pub(super) fn configure_call(settings: &str) -> String {
    let settings = settings.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{PACKAGE}enricher.configure@{VERSION}(\"{settings}\")")
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

fn row_size(row: &Result<Option<String>, TableError>) -> usize {
    row.as_ref().map_or(0, text_size)
}

/// Everything that the contract offers to a component.
///
/// # Errors
/// None in practice: a name defined twice.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);

    let mut types = linker.instance(&interface("types"))?;
    types.resource("alert", ResourceType::host::<AlertHandle>(), |_, _| Ok(()))?;
    type Handle = Resource<AlertHandle>;
    host_fn!(types, "[method]alert.id", |state, (_,) in (Handle,)| state.id()?, String::len);
    host_fn!(types, "[method]alert.received", |state, (_,) in (Handle,)| state.received()?, String::len);
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
        "[method]alert.observables",
        |state, (_, kind) in (Handle, Option<String>)| {
            state.observables(kind.as_deref())?.map(types::Observable::from).collect::<Vec<_>>()
        },
        |found: &Vec<types::Observable>| found.iter().map(|o| 32 + o.kind.len() + o.role.len() + o.value.len()).sum()
    );

    let mut tables = linker.instance(&interface("tables"))?;
    host_fn!(
        tables,
        "lookup",
        |state, (table, key) in (String, String)| state.lookup(&table, &key).map_err(TableError::from),
        row_size
    );
    host_fn!(
        tables,
        "field",
        |state, (table, key, column) in (String, String, String)| state
            .field(&table, &key, &column)
            .map_err(TableError::from),
        row_size
    );

    linker.instance(&interface("http"))?.func_wrap_async(
        "send",
        |mut store: StoreContextMut<'_, State>, (request,): (wit_http::Request,)| {
            Box::new(async move {
                let answer = host_calls::send(store.data_mut(), request.into()).await;
                let answer = answer.map(wit_http::Response::from).map_err(wit_http::HttpError::from);
                settle(&mut store, answer.as_ref().map_or(0, |response| response.body.len())).await?;
                Ok((answer,))
            })
        },
    )?;

    linker.instance(&interface("log"))?.func_wrap_async(
        "log",
        |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
            Box::new(async move {
                store.data_mut().say(level.into(), &message);
                settle(&mut store, message.len()).await
            })
        },
    )?;
    Ok(linker)
}

/// A component with its imports, ready to be instantiated.
///
/// # Errors
/// The component imports a function that there is not, or does not export what the contract says.
pub(super) fn prepare(linker: InstancePre<State>) -> wasmtime::Result<PluginPre<State>> {
    PluginPre::new(linker)
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
            verdict: answer.verdict.map(|verdict| (verdict.label, verdict.score, verdict.reasons)),
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
