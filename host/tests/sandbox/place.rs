//! What the tests of the sandbox stand on: guests written as text, and a folder that the real program serves them from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dossier::admin::Health;
use dossier::alert::Decoder;
use dossier::config::Config;
use dossier::dead_letter::Reason;
use dossier::pipeline::{Answer, Cost, Failure, Given, Pipeline, Stage};
use dossier::plugin::{Plugins, check_with};
use dossier::telemetry::Telemetry;
use tempfile::TempDir;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A guest: what it says about itself, and what it does.
#[derive(Clone, Copy)]
pub struct Guest {
    pub name: &'static str,
    pub version: &'static str,
    pub stage: Stage,
    /// Instructions of `configure`.
    pub configure: &'static str,
    /// Instructions of `enrich`, which then answers `{}`.
    pub enrich: &'static str,
    /// Other parts of the module.
    pub extra: &'static str,
}

pub const GUEST: Guest =
    Guest { name: "guest", version: "1.0.0", stage: Stage::Enrich, configure: "", enrich: "", extra: "" };

/// A piece of WASI, and a world that has it beside ours.
pub const WASI_RANDOM: &str = "package wasi:random@0.2.6; interface random { get-random-u64: func() -> u64; }";
pub const WORLD_WITH_WASI: &str =
    "package test:guest; world with-wasi { include dossier:plugin/plugin@1.0.0; import wasi:random/random@0.2.6; }";

pub const ENRICHER: &str = "dossier:plugin/enricher@1.0.0";

impl Guest {
    pub fn component(&self) -> Vec<u8> {
        self.component_with("")
    }

    /// The same with more imports, which stand first in a module.
    pub fn component_with(&self, imports: &str) -> Vec<u8> {
        let stage = Stage::ALL.iter().position(|stage| *stage == self.stage).unwrap();
        let (name, version) = (self.name.len(), self.version.len());
        // The layout is the canonical ABI's: a description is three texts, a byte and an optional text, an answer a text, a list and an option.
        let text = format!(
            r#"(module
                (import "dossier:plugin/types@1.0.0" "[resource-drop]alert" (func $drop (param i32)))
                {imports}
                (memory (export "memory") 1)
                (global $configured (mut i32) (i32.const 0))
                (global $free (mut i32) (i32.const 8192))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                    (global.get $free)
                    (global.set $free (i32.add (global.get $free) (local.get 3))))
                (data (i32.const 1024) "{}")
                (data (i32.const 1056) "{}")
                (data (i32.const 1088) "summary")
                (data (i32.const 1120) "{{}}")
                (data (i32.const 2048) "\00\04\00\00\{name:02x}\00\00\00\20\04\00\00\{version:02x}\00\00\00\40\04\00\00\07\00\00\00\{stage:02x}")
                (data (i32.const 2304) "\00\00\00\00\60\04\00\00\02\00\00\00")
                (func (export "{ENRICHER}#describe") (result i32) (i32.const 2048))
                (func (export "{ENRICHER}#configure") (param i32 i32) (result i32)
                    {}
                    (global.set $configured (i32.const 1))
                    (i32.const 2176))
                (func (export "{ENRICHER}#enrich") (param i32) (result i32)
                    (call $drop (local.get 0))
                    (if (i32.ne (global.get $configured) (i32.const 1)) (then unreachable))
                    {}
                    (i32.const 2304))
                {})"#,
            self.name, self.version, self.configure, self.enrich, self.extra
        );
        let mut module = wat::parse_str(text).unwrap();
        let mut wit = wit_parser::Resolve::default();
        let (package, _) = wit.push_dir("../wit/v1").unwrap();
        wit.push_str("random.wit", WASI_RANDOM).unwrap();
        let with_wasi = wit.push_str("guest.wit", WORLD_WITH_WASI).unwrap();
        let (package, world) = if imports.contains("wasi:") { (with_wasi, "with-wasi") } else { (package, "plugin") };
        let world = wit.select_world(&[package], Some(world)).unwrap();
        wit_component::embed_component_metadata(&mut module, &wit, world, wit_component::StringEncoding::UTF8).unwrap();
        wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }
}

/// A folder with a plugins folder and a configuration.
pub struct Place {
    pub folder: TempDir,
    pub config: Arc<Config>,
    pub health: Arc<Health>,
    /// Of the host that was started last.
    telemetry: Mutex<Arc<Telemetry>>,
}

impl Place {
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        let config = Config::parse(&folder.path().join("dossier.toml"), config).unwrap();
        Self { folder, config: Arc::new(config), health: Arc::default(), telemetry: Mutex::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("plugins").join(name)
    }

    /// Puts a file there as careful people do: written aside, then moved.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let aside = self.folder.path().join("aside");
        fs::write(&aside, bytes).unwrap();
        fs::rename(aside, self.path(name)).unwrap();
    }

    pub async fn start(&self) -> Plugins {
        self.start_with(program()).await
    }

    /// The same with another program for what runs in processes of its own.
    pub async fn start_with(&self, program: PathBuf) -> Plugins {
        let (config, health) = (Arc::clone(&self.config), Arc::clone(&self.health));
        let telemetry = Arc::<Telemetry>::default();
        *self.telemetry.lock().unwrap() = Arc::clone(&telemetry);
        Plugins::start_with(program, config, telemetry, health).await.unwrap()
    }

    /// The alarms that hold: name, subject and detail.
    pub fn alarms(&self) -> Vec<String> {
        let held = self.telemetry.lock().unwrap().alarms().list().into_iter();
        held.map(|alarm| format!("{} {}: {}", alarm.alarm, alarm.subject, alarm.detail)).collect()
    }

    pub fn problem(&self) -> Option<String> {
        self.health.problems().remove("plugins")
    }

    pub async fn findings(&self) -> Vec<String> {
        check_with(program(), &self.config).await.0.iter().map(ToString::to_string).collect()
    }
}

pub fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_dossier")).to_owned()
}

pub fn given() -> Arc<Given> {
    let config = Config::parse(Path::new("dossier.toml"), "").unwrap();
    let alert = Decoder::new(&config.alert).decode(Bytes::from_static(b"{\"id\":\"a\"}"), jiff::Timestamp::UNIX_EPOCH);
    Arc::new(Given {
        alert: Arc::new(alert.unwrap()),
        observables: Arc::default(),
        enrichment: Vec::new(),
        tables: Arc::default(),
    })
}

pub fn now(plugins: &Plugins) -> Option<Arc<Pipeline>> {
    plugins.subscribe().borrow().clone()
}

/// Waits until the steps are as wanted.
pub async fn until(plugins: &Plugins, wanted: impl Fn(&Pipeline) -> bool) -> Arc<Pipeline> {
    let mut steps = plugins.subscribe();
    let found =
        tokio::time::timeout(PATIENCE, steps.wait_for(|steps| steps.as_ref().is_some_and(|steps| wanted(steps))));
    let found = found.await.expect("the steps did not become as wanted").unwrap();
    Arc::clone(found.as_ref().unwrap())
}

pub fn version(steps: &Pipeline, name: &str) -> Option<String> {
    let step = steps.steps().iter().find(|step| step.config.name == name)?;
    Some(step.enricher.as_ref()?.version().to_owned())
}

/// Calls a guest once under these limits.
pub async fn call(guest: Guest, limits: &str) -> (Result<Answer, Failure>, Cost) {
    let place = Place::new(&format!("[[step]]\nplugin = \"guest\"\n{limits}"));
    place.put("guest.wasm", &guest.component());
    let plugins = place.start().await;
    let steps = now(&plugins).unwrap_or_else(|| panic!("{:?}", place.problem()));
    steps.steps()[0].enricher.clone().unwrap().enrich(given()).await
}

pub fn reason(outcome: &Result<Answer, Failure>) -> Option<Reason> {
    match outcome {
        Err(Failure::Failed { reason, .. }) => Some(*reason),
        _ => None,
    }
}
