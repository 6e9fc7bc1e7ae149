//! What the child process does with a component: instantiates it, configures it, copies what that left in its memory, and
//! compiles the copy. Runs untrusted code with fuel and a memory cap, in a process whose limits
//! [`crate::cli::compile`] sets and whose deadline [`super::compiler`] watches.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use wasmtime::component::{Component, Linker, Val};
use wasmtime::{Engine, Store, Trap};
use wasmtime_wizer::Wizer;

use super::contract::Contract;
use super::host_calls::{Ear, Grants, Said, State};
use super::http::Asker;
use super::{engine, grants, instance, limits, result_schema, wasi};
use crate::config::{Limits, StepConfig};
use crate::pipeline::{Failure, Stage};

/// Fuel for the start and for `configure`: an interpreter that starts up needs a lot. A loop ends by it within seconds.
const FUEL: u64 = 3_000_000_000;

/// The largest machine code, in bytes; the host holds it in memory. An interpreter of 18 MB has some 60 MB.
const MAX_CODE: usize = 256 << 20;

/// The longest texts of a description, in bytes.
const MAX_NAME: usize = 128;
const MAX_SUMMARY: usize = 1024;

/// What the child is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// The settings, a JSON object.
    pub settings: String,
    /// The cap on linear memory, in bytes.
    pub memory: usize,
}

/// What the child tells, as one JSON object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The code was written.
    Compiled(Compiled),
    /// The component cannot be used.
    Refused {
        /// Why, and what to do.
        why: String,
        /// What it wrote before.
        said: Vec<Said>,
    },
}

/// What was found out about a component while it was compiled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiled {
    /// The name that it says.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is, in a sentence.
    pub summary: String,
    /// `normalize`, `enrich` or `verdict`.
    pub stage: String,
    /// The JSON Schema of its results, if it has one.
    pub result_schema: Option<String>,
    /// The version of the contract that it is made for.
    pub contract: String,
    /// What it imports.
    pub imports: Vec<String>,
    /// Why it could not be copied after `configure`, so that each instance is configured; none when it was.
    pub plain: Option<String>,
    /// What it wrote meanwhile.
    pub said: Vec<Said>,
}

impl Compiled {
    /// The stage.
    pub(super) fn stage(&self) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == self.stage)
    }
}

/// Whether bytes look like a component at all.
///
/// # Errors
/// What they are instead, and what to do.
pub(super) fn check_header(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [] => Err("the file is empty; copy it again".into()),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err("it is a core module, not a component; make one of it with \
                                                      `wasm-tools component new` or build the plugin with its SDK"
            .into()),
        _ => Err("it is no WebAssembly component; put the .wasm file that the plugin's build gives here".into()),
    }
}

/// Compiles and configures a component. Gives the code.
///
/// # Errors
/// Why the component cannot be used, and what it wrote.
pub async fn compile(bytes: &[u8], request: &Request) -> Result<(Vec<u8>, Compiled), (String, Vec<Said>)> {
    let silent = |why: String| (why, Vec::new());
    check_header(bytes).map_err(silent)?;
    let engine = engine::for_compiling().map_err(|error| silent(format!("the engine does not start: {error}")))?;
    let mut said = Vec::new();
    let result = compile_with(&engine, bytes, request, &mut said).await;
    match result {
        Ok((code, compiled)) => Ok((code, Compiled { said, ..compiled })),
        Err(why) => Err((why, said)),
    }
}

async fn compile_with(
    engine: &Engine,
    bytes: &[u8],
    request: &Request,
    said: &mut Vec<Said>,
) -> Result<(Vec<u8>, Compiled), String> {
    let contract = Contract::of(bytes)?;
    let (copy, plain) = match copy_configured(engine, contract, bytes, request, said).await? {
        Ok(copy) => (copy, None),
        Err(plain) => (bytes.to_vec(), Some(plain)),
    };
    let component = Component::new(engine, &copy).map_err(|error| invalid(&error))?;
    drop(copy);
    let imports = grants::imports(engine, &component);
    let mut store = new_store(engine, request).map_err(|error| error.to_string())?;
    let pre = linker(engine, contract, &imports)?.instantiate_pre(&component).map_err(|error| invalid(&error))?;
    let pre = contract.prepare(pre).map_err(|error| invalid(&error))?;
    let plugin = match pre.instantiate(&mut store).await {
        Ok(plugin) => plugin,
        Err(error) => return Err(failed("its start", &error, &store)),
    };
    if plain.is_some() {
        let configured = plugin.configure(&mut store, &request.settings).await;
        said.append(&mut store.data_mut().take_said());
        configured.map_err(|error| failed("configure", &error, &store))?.map_err(refused_settings)?;
    }
    let described = plugin.describe(&mut store).await;
    said.append(&mut store.data_mut().take_said());
    let described = described.map_err(|error| failed("describe", &error, &store))?;
    check_text("name", &described.name, MAX_NAME)?;
    check_text("version", &described.version, MAX_NAME)?;
    check_text("summary", &described.summary, MAX_SUMMARY)?;
    if let Some(schema) = &described.result_schema {
        result_schema::parse(schema).map_err(|why| format!("its description's result-schema {why}"))?;
    }
    let code = component.serialize().map_err(|error| error.to_string())?;
    if code.len() > MAX_CODE {
        return Err(format!("its machine code is larger than {} MiB; make it smaller", MAX_CODE >> 20));
    }
    let compiled = Compiled {
        name: described.name,
        version: described.version,
        summary: described.summary,
        stage: Stage::from(described.stage).as_str().to_owned(),
        result_schema: described.result_schema,
        contract: contract.version().to_owned(),
        imports,
        plain,
        said: Vec::new(),
    };
    Ok((code, compiled))
}

/// Configures the component and gives a copy of it as that left it; the inner error says why it cannot be copied.
async fn copy_configured(
    engine: &Engine,
    contract: Contract,
    bytes: &[u8],
    request: &Request,
    said: &mut Vec<Said>,
) -> Result<Result<Vec<u8>, String>, String> {
    let mut store = new_store(engine, request).map_err(|error| error.to_string())?;
    let mut wizer = Wizer::new();
    wizer.init_func(contract.configure_call(&request.settings)).keep_init_func(true);
    let mut unknown = None;
    let run = wizer.run_component(&mut store, bytes, async |store, component| {
        let imports = grants::imports(engine, component);
        match linker(engine, contract, &imports) {
            Ok(linker) => linker.instantiate_async(store, component).await,
            Err(why) => {
                unknown = Some(why);
                wasmtime::bail!("an import is not known")
            }
        }
    });
    // Reading the memory back unwraps: what cannot be copied may end there in a panic.
    let copied = AssertUnwindSafe(run).catch_unwind().await;
    if let Some(why) = unknown {
        return Err(why);
    }
    said.append(&mut store.data_mut().take_said());
    match copied {
        Ok(Ok((copy, results))) => match results.into_iter().next() {
            Some(Val::Result(Ok(_))) if store.data().wasi.as_ref().is_some_and(|wasi| wasi.is_held()) => {
                said.clear();
                Ok(Err("it holds handles of wasi:* when it is configured, which a copy would not have".into()))
            }
            Some(Val::Result(Ok(_))) => Ok(Ok(copy)),
            Some(Val::Result(Err(Some(why)))) => match *why {
                Val::String(why) => Err(refused_settings(why)),
                _ => Err("configure does not answer as the contract says; build the plugin against wit/v1".into()),
            },
            _ => Err("configure does not answer as the contract says; build the plugin against wit/v1".into()),
        },
        // It ran and failed: to run it again would not help.
        Ok(Err(error)) if error.is::<Trap>() => Err(failed("its start or configure", &error, &store)),
        Ok(Err(error)) => {
            said.clear();
            Ok(Err(error.root_cause().to_string()))
        }
        Err(_) => {
            said.clear();
            Ok(Err("its memory could not be read back".into()))
        }
    }
}

/// The linker that a component with these imports needs.
///
/// # Errors
/// An import that is not known.
pub(super) fn linker(engine: &Engine, contract: Contract, imports: &[String]) -> Result<Linker<State>, String> {
    grants::check_known(imports, contract)?;
    let mut linker = contract.linker(engine).map_err(|error| error.to_string())?;
    if grants::wants_wasi(imports) {
        wasi::add_to_linker(&mut linker).map_err(|error| error.to_string())?;
    }
    Ok(linker)
}

/// A store in which a component can do nothing but log.
fn new_store(engine: &Engine, request: &Request) -> wasmtime::Result<Store<State>> {
    let nothing = StepConfig::unnamed("");
    let grants = Grants {
        step: nothing.name,
        tables: nothing.tables,
        http: Asker::new(nothing.http, nothing.http_concurrency),
        log_lines: nothing.limits.log_lines,
        client: None,
    };
    let state = State::new(Arc::new(grants), request.memory, Ear::Kept(Vec::new()));
    let mut store = instance::store(engine, &Limits::default(), state)?;
    // The copy is read out of the guest as one list.
    store.set_hostcall_fuel(request.memory.saturating_mul(4));
    store.set_fuel(FUEL)?;
    Ok(store)
}

fn check_text(what: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
        return Err(format!("its description's {what} must have 1 to {longest} bytes on one line"));
    }
    Ok(())
}

/// What is said when a plugin refuses its settings, in its own words.
pub(super) fn refused_settings(why: String) -> String {
    format!("it refuses its settings: {}; change settings in its [[step]]", limits::cut(why))
}

fn invalid(error: &wasmtime::Error) -> String {
    // The whole chain: the innermost cause names the offset, the outer ones the import or the export.
    limits::cut(format!("it is not a valid plugin: {error:#}; build it against wit/v1"))
}

fn failed(when: &str, error: &wasmtime::Error, store: &Store<State>) -> String {
    match limits::failure(error, &store.data().memory) {
        Failure::Failed { reason, detail } => format!("it fails in {when} ({reason}): {detail}"),
        Failure::Unavailable { reason, .. } | Failure::NotApplicable(reason) => reason,
    }
}
