//! The sandbox and the plugins folder, with small guests written as text: each limit obeyed and violated, and what happens to
//! files that come, change and go. The real program compiles them, as it does for a host.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

#[path = "sandbox/versions.rs"]
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest: what it says about itself, and what it does.
#[derive(Clone, Copy)]
struct Guest {
    name: &'static str,
    version: &'static str,
    stage: Stage,
    /// Instructions of `configure`.
    configure: &'static str,
    /// Instructions of `enrich`, which then answers `{}`.
    enrich: &'static str,
    /// Other parts of the module.
    extra: &'static str,
}

const GUEST: Guest =
    Guest { name: "guest", version: "1.0.0", stage: Stage::Enrich, configure: "", enrich: "", extra: "" };

/// A piece of WASI, and a world that has it beside ours.
const WASI_RANDOM: &str = "package wasi:random@0.2.6; interface random { get-random-u64: func() -> u64; }";
const WORLD_WITH_WASI: &str =
    "package test:guest; world with-wasi { include dossier:plugin/plugin@1.0.0; import wasi:random/random@0.2.6; }";

const ENRICHER: &str = "dossier:plugin/enricher@1.0.0";

impl Guest {
    fn component(&self) -> Vec<u8> {
        self.component_with("")
    }

    /// The same with more imports, which stand first in a module.
    fn component_with(&self, imports: &str) -> Vec<u8> {
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
struct Place {
    folder: TempDir,
    config: Arc<Config>,
    health: Arc<Health>,
}

impl Place {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        let config = Config::parse(&folder.path().join("dossier.toml"), config).unwrap();
        Self { folder, config: Arc::new(config), health: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("plugins").join(name)
    }

    /// Puts a file there as careful people do: written aside, then moved.
    fn put(&self, name: &str, bytes: &[u8]) {
        let aside = self.folder.path().join("aside");
        fs::write(&aside, bytes).unwrap();
        fs::rename(aside, self.path(name)).unwrap();
    }

    async fn start(&self) -> Plugins {
        let (config, health) = (Arc::clone(&self.config), Arc::clone(&self.health));
        Plugins::start_with(program(), config, Arc::new(Telemetry::default()), health).await.unwrap()
    }

    fn problem(&self) -> Option<String> {
        self.health.problems().remove("plugins")
    }

    async fn findings(&self) -> Vec<String> {
        check_with(program(), &self.config).await.0.iter().map(ToString::to_string).collect()
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_dossier")).to_owned()
}

fn given() -> Arc<Given> {
    let config = Config::parse(Path::new("dossier.toml"), "").unwrap();
    let alert = Decoder::new(&config.alert).decode(Bytes::from_static(b"{\"id\":\"a\"}"), jiff::Timestamp::UNIX_EPOCH);
    Arc::new(Given {
        alert: Arc::new(alert.unwrap()),
        observables: Arc::default(),
        enrichment: Vec::new(),
        tables: Arc::default(),
    })
}

fn now(plugins: &Plugins) -> Option<Arc<Pipeline>> {
    plugins.subscribe().borrow().clone()
}

/// Waits until the steps are as wanted.
async fn until(plugins: &Plugins, wanted: impl Fn(&Pipeline) -> bool) -> Arc<Pipeline> {
    let mut steps = plugins.subscribe();
    let found =
        tokio::time::timeout(PATIENCE, steps.wait_for(|steps| steps.as_ref().is_some_and(|steps| wanted(steps))));
    let found = found.await.expect("the steps did not become as wanted").unwrap();
    Arc::clone(found.as_ref().unwrap())
}

fn version(steps: &Pipeline, name: &str) -> Option<String> {
    let step = steps.steps().iter().find(|step| step.config.name == name)?;
    Some(step.enricher.as_ref()?.version().to_owned())
}

/// Calls a guest once under these limits.
async fn call(guest: Guest, limits: &str) -> (Result<Answer, Failure>, Cost) {
    let place = Place::new(&format!("[[step]]\nplugin = \"guest\"\n{limits}"));
    place.put("guest.wasm", &guest.component());
    let plugins = place.start().await;
    let steps = now(&plugins).unwrap_or_else(|| panic!("{:?}", place.problem()));
    steps.steps()[0].enricher.clone().unwrap().enrich(given()).await
}

fn reason(outcome: &Result<Answer, Failure>) -> Option<Reason> {
    match outcome {
        Err(Failure::Failed { reason, .. }) => Some(*reason),
        _ => None,
    }
}

const LOOP: &str = "(loop $again (br $again))";

/// Grows by 15 pages to 1 MiB, and gives up when it may not.
const GROW: &str = "(if (i32.eq (memory.grow (i32.const 15)) (i32.const -1)) (then unreachable))";

#[tokio::test]
async fn a_guest_within_its_limits_answers_and_its_cost_is_known() {
    let (outcome, cost) = call(Guest { enrich: GROW, ..GUEST }, "memory = \"1MiB\"").await;
    assert_eq!(outcome.unwrap().fields.get(), "{}");
    assert_eq!(cost.memory, 1 << 20);
    assert!(cost.fuel > 0 && cost.fuel < 1000, "{}", cost.fuel);
}

#[tokio::test]
async fn a_trap_is_a_trap() {
    let (outcome, _) = call(Guest { enrich: "unreachable", ..GUEST }, "").await;
    assert_eq!(reason(&outcome), Some(Reason::Trap));
}

#[tokio::test]
async fn a_loop_ends_when_its_fuel_is_used_up() {
    let (outcome, cost) = call(Guest { enrich: LOOP, ..GUEST }, "fuel = 100000\ntimeout = \"60s\"").await;
    assert_eq!(reason(&outcome), Some(Reason::OutOfFuel));
    assert_eq!(cost.fuel, 100_000);
}

#[tokio::test]
async fn a_loop_with_fuel_to_spare_ends_when_its_time_is_up() {
    let (outcome, cost) = call(Guest { enrich: LOOP, ..GUEST }, "fuel = 1000000000000\ntimeout = \"100ms\"").await;
    assert_eq!(reason(&outcome), Some(Reason::Timeout));
    assert!(cost.duration >= Duration::from_millis(100) && cost.duration < Duration::from_secs(5), "{cost:?}");
}

#[tokio::test]
async fn memory_over_the_cap_is_refused_and_the_guest_that_gives_up_is_told_apart_from_a_trap() {
    let (outcome, cost) = call(Guest { enrich: GROW, ..GUEST }, "memory = \"960KiB\"").await;
    assert_eq!(reason(&outcome), Some(Reason::Memory));
    assert_eq!(cost.memory, 64 << 10);
    // Who is refused and goes on did nothing wrong.
    let modest = "(drop (memory.grow (i32.const 15)))";
    assert!(call(Guest { enrich: modest, ..GUEST }, "memory = \"960KiB\"").await.0.is_ok());
}

#[tokio::test]
async fn recursion_without_end_is_a_trap() {
    let extra = "(func $deeper (param i64) (result i64) (i64.add (call $deeper (local.get 0)) (i64.const 1)))";
    let (outcome, _) = call(Guest { enrich: "(drop (call $deeper (i64.const 0)))", extra, ..GUEST }, "").await;
    let Err(Failure::Failed { reason: Reason::Trap, detail }) = outcome else { panic!("{outcome:?}") };
    assert!(detail.contains("stack"), "{detail}");
}

#[tokio::test]
async fn each_call_has_a_fresh_instance_unless_the_step_reuses_it() {
    // The second call of one instance traps.
    let guest = Guest {
        enrich: "(if (global.get $called) (then unreachable)) (global.set $called (i32.const 1))",
        extra: "(global $called (mut i32) (i32.const 0))",
        ..GUEST
    };
    for (reuse, expected) in [(1, [None, None, None]), (2, [None, Some(Reason::Trap), None])] {
        let place = Place::new(&format!("[[step]]\nplugin = \"guest\"\nreuse = {reuse}"));
        place.put("guest.wasm", &guest.component());
        let plugins = place.start().await;
        let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
        for expected in expected {
            assert_eq!(reason(&enricher.enrich(given()).await.0), expected, "reuse = {reuse}");
        }
    }
}

#[tokio::test]
async fn a_guest_is_configured_once_and_copied_or_configured_in_each_instance_where_that_cannot_be() {
    // Growing a table is what cannot be copied; the guest itself traps when it is not configured.
    let grows = "(table 1 funcref) (func (export \"never\") (drop (table.grow 0 (ref.null func) (i32.const 1))))";
    for (extra, copied) in [("", true), (grows, false)] {
        let place = Place::new("[[step]]\nplugin = \"guest\"");
        place.put("guest.wasm", &Guest { extra, ..GUEST }.component());
        let plugins = place.start().await;
        let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
        assert!(enricher.enrich(given()).await.0.is_ok());
        let compiled = fs::read_dir(place.folder.path().join("state/compiled")).unwrap();
        let labels = compiled.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "json");
        let label = fs::read_to_string(labels.last().unwrap()).unwrap();
        assert_eq!(label.contains("\"plain\":null"), copied, "{label}");
    }
}

#[tokio::test]
async fn more_calls_at_once_than_the_pool_holds_wait_for_room() {
    let place = Place::new("[host]\nin_flight = 1\n[[step]]\nplugin = \"guest\"\nfuel = 1000000000\ntimeout = \"60s\"");
    let enrich = "(local.set 0 (i32.const 300000))
                  (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))";
    place.put("guest.wasm", &Guest { enrich, ..GUEST }.component());
    let plugins = place.start().await;
    let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let enricher = Arc::clone(&enricher);
                async move { enricher.enrich(given()).await.0.is_ok() }
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
}

#[tokio::test]
async fn a_start_or_configure_that_loops_or_traps_is_refused_and_nothing_is_read() {
    for (guest, why) in [
        (Guest { extra: "(func $start (loop $again (br $again))) (start $start)", ..GUEST }, "out-of-fuel"),
        (Guest { configure: LOOP, ..GUEST }, "out-of-fuel"),
        (Guest { configure: "unreachable", ..GUEST }, "trap"),
    ] {
        let place = Place::new("[[step]]\nplugin = \"guest\"");
        place.put("guest.wasm", &guest.component());
        let plugins = place.start().await;
        assert!(now(&plugins).is_none());
        let problem = place.problem().unwrap();
        assert!(problem.contains("start or configure") && problem.contains(why), "{problem}");
    }
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let whole = GUEST.component();
    let evil = wat::parse_str("(component (import \"evil:corp/exec\" (func)))").unwrap();
    let bare = wat::parse_str("(component)").unwrap();
    let other = Guest { name: "other", ..GUEST }.component();
    let core = wat::parse_str("(module)").unwrap();
    for (bytes, why) in [
        (&b""[..], "empty"),
        (b"\x7fELF machine code", "no WebAssembly component"),
        (b"(component)", "no WebAssembly component"),
        (&core, "core module"),
        (&whole[..whole.len() / 2], "not a valid plugin"),
        (&evil, "does not export dossier:plugin/enricher@1.0.0"),
        (&bare, "does not export dossier:plugin/enricher@1.0.0"),
        (&other, "rename its file to other.wasm"),
    ] {
        let place = Place::new("[[step]]\nplugin = \"guest\"");
        place.put("guest.wasm", bytes);
        let plugins = place.start().await;
        assert!(now(&plugins).is_none());
        let problem = place.problem().unwrap();
        assert!(problem.contains(why), "{why}: {problem}");
        assert!(place.findings().await.iter().any(|finding| finding.contains(why)));
    }
}

#[tokio::test]
async fn a_plugin_whose_memory_does_not_fit_its_cap_is_refused_at_load() {
    let place = Place::new("[[step]]\nplugin = \"guest\"\nmemory = \"64KiB\"");
    // A second memory makes two pages together.
    place.put("guest.wasm", &Guest { extra: "(memory $second 1)", ..GUEST }.component());
    let plugins = place.start().await;
    assert!(now(&plugins).is_none());
    assert!(place.problem().unwrap().contains("memory"), "{:?}", place.problem());
}

#[tokio::test]
async fn a_named_step_needs_its_grants_and_an_unnamed_plugin_does_not() {
    let asking =
        GUEST.component_with(r#"(import "dossier:plugin/tables@1.0.0" "lookup" (func (param i32 i32 i32 i32 i32)))"#);
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    place.put("guest.wasm", &asking);
    let plugins = place.start().await;
    assert!(now(&plugins).is_none());
    assert!(
        place.problem().unwrap().contains("it imports tables, which the step is not granted"),
        "{:?}",
        place.problem()
    );

    let place = Place::new("");
    place.put("guest.wasm", &asking);
    assert_eq!(now(&place.start().await).unwrap().steps().len(), 1);
}

#[tokio::test]
async fn a_changed_file_is_swapped_in_and_a_broken_one_changes_nothing() {
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    place.put("guest.wasm", &GUEST.component());
    let plugins = place.start().await;
    assert_eq!(version(&now(&plugins).unwrap(), "guest").unwrap(), "1.0.0");

    let second = Guest { version: "2.0.0", ..GUEST }.component();
    place.put("guest.wasm", &second);
    let steps = until(&plugins, |steps| version(steps, "guest").unwrap() == "2.0.0").await;
    assert!(steps.steps()[0].enricher.clone().unwrap().enrich(given()).await.0.is_ok());

    // Half of the next version, then another plugin: when that is there, the half one was dealt with.
    let third = Guest { version: "3.0.0", ..GUEST }.component();
    fs::write(place.path("guest.wasm"), &third[..third.len() / 2]).unwrap();
    place.put("later.wasm", &Guest { name: "later", ..GUEST }.component());
    let steps = until(&plugins, |steps| version(steps, "later").is_some()).await;
    assert_eq!(version(&steps, "guest").unwrap(), "2.0.0");
    assert!(steps.steps()[0].enricher.clone().unwrap().enrich(given()).await.0.is_ok());

    fs::write(place.path("guest.wasm"), &third).unwrap();
    until(&plugins, |steps| version(steps, "guest").unwrap() == "3.0.0").await;
}

#[tokio::test]
async fn a_required_plugin_that_is_missing_makes_the_host_not_ready_until_it_appears() {
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    let plugins = place.start().await;
    assert!(now(&plugins).is_none());
    assert!(place.problem().unwrap().contains("guest.wasm is not there"));
    assert_eq!(place.findings().await.len(), 1);
    let started = Instant::now();
    place.put("guest.wasm", &GUEST.component());
    until(&plugins, |steps| version(steps, "guest").is_some()).await;
    assert_eq!(place.problem(), None);
    println!("noticed, compiled and swapped in within {:?}", started.elapsed());
    assert!(place.findings().await.is_empty());
}

#[tokio::test]
async fn a_removed_plugin_serves_on_when_it_is_required_and_goes_when_it_is_not() {
    let place = Place::new("[[step]]\nplugin = \"guest\"\n[[step]]\nplugin = \"spare\"\nrequired = false");
    for name in ["guest", "spare", "unnamed"] {
        place.put(&format!("{name}.wasm"), &Guest { name, ..GUEST }.component());
    }
    let plugins = place.start().await;
    let steps = now(&plugins).unwrap();
    let names: Vec<_> = steps.steps().iter().map(|step| (step.config.name.as_str(), step.enricher.is_some())).collect();
    assert_eq!(names, [("guest", true), ("spare", true), ("unnamed", true)]);
    for name in ["guest", "spare", "unnamed"] {
        fs::remove_file(place.path(&format!("{name}.wasm"))).unwrap();
    }
    let steps = until(&plugins, |steps| steps.steps().len() == 2 && version(steps, "spare").is_none()).await;
    assert!(version(&steps, "guest").is_some());
    assert_eq!(place.problem(), None);
}

#[tokio::test]
async fn a_plugin_that_no_step_names_runs_only_where_that_is_wanted_and_only_to_enrich() {
    let verdict = Guest { name: "judge", stage: Stage::Verdict, ..GUEST }.component();
    let place = Place::new("");
    place.put("guest.wasm", &GUEST.component());
    place.put("judge.wasm", &verdict);
    let steps = now(&place.start().await).unwrap();
    assert_eq!(steps.steps().len(), 1);
    assert!(!steps.steps()[0].config.required && steps.steps()[0].stage == Stage::Enrich);
    assert!(place.findings().await.iter().any(|finding| finding.contains("[[step]]")));

    let place = Place::new("[plugins]\nauto = false");
    place.put("guest.wasm", &GUEST.component());
    assert!(now(&place.start().await).unwrap().steps().is_empty());
}

#[tokio::test]
async fn a_second_verdict_step_is_refused() {
    let place = Place::new("[[step]]\nplugin = \"judge\"\n[[step]]\nplugin = \"jury\"\nrequired = false");
    for name in ["judge", "jury"] {
        place.put(&format!("{name}.wasm"), &Guest { name, stage: Stage::Verdict, ..GUEST }.component());
    }
    let steps = now(&place.start().await).unwrap();
    assert!(version(&steps, "judge").is_some() && version(&steps, "jury").is_none());
    assert!(place.findings().await.iter().any(|finding| finding.contains("one verdict step only")));
}

#[tokio::test]
async fn links_and_machine_code_are_refused() {
    let place = Place::new("");
    let elsewhere = place.folder.path().join("guest.wasm");
    fs::write(&elsewhere, GUEST.component()).unwrap();
    std::os::unix::fs::symlink(elsewhere, place.path("guest.wasm")).unwrap();
    fs::write(place.path("code.cwasm"), b"\x7fELF").unwrap();
    fs::write(place.path(".half.wasm"), b"").unwrap();
    assert!(now(&place.start().await).unwrap().steps().is_empty());
    let findings = place.findings().await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().any(|finding| finding.contains("symbolic link")));
    assert!(findings.iter().any(|finding| finding.contains("machine code")));
}

#[tokio::test]
async fn a_start_that_finds_a_broken_file_serves_the_last_good_one() {
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    place.put("guest.wasm", &GUEST.component());
    drop(place.start().await);
    place.put("guest.wasm", b"broken");
    let steps = now(&place.start().await).unwrap();
    assert!(steps.steps()[0].enricher.clone().unwrap().enrich(given()).await.0.is_ok());
}

#[tokio::test]
async fn compiled_code_is_kept_for_the_next_start_and_damaged_code_is_not_loaded() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    place.put("guest.wasm", &GUEST.component());
    drop(place.start().await);
    let compiled = place.folder.path().join("state/compiled");
    assert_eq!(fs::metadata(&compiled).unwrap().permissions().mode() & 0o777, 0o700);
    // Without a compiler only what was kept can serve.
    let start = async || {
        let (config, health) = (Arc::clone(&place.config), Arc::clone(&place.health));
        let telemetry = Arc::new(Telemetry::default());
        now(&Plugins::start_with("/nonexistent".into(), config, telemetry, health).await.unwrap())
    };
    assert!(start().await.is_some());
    let code = fs::read_dir(&compiled).unwrap().map(|entry| entry.unwrap().path());
    let code = code.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "cwasm")).unwrap();
    fs::write(&code, &fs::read(&code).unwrap()[1..]).unwrap();
    assert!(start().await.is_none());
}

#[tokio::test]
async fn a_component_of_a_wasi_toolchain_gets_the_same_random_numbers_every_time() {
    let place = Place::new("");
    let import = r#"(import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))"#;
    // Any other number than the first of the fixed row is a trap.
    let enrich = "(if (i64.ne (call $random) (i64.const 0x0001020304050607)) (then unreachable))";
    place.put("guest.wasm", &Guest { enrich, ..GUEST }.component_with(import));
    let plugins = place.start().await;
    let enricher = now(&plugins).unwrap().steps()[0].enricher.clone().unwrap();
    for _ in 0..2 {
        let (outcome, _) = enricher.enrich(given()).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
