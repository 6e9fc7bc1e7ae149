//! Plugins that misbehave: the guest `mischief`, built from source, does on request what a plugin must not do. Each limit is
//! obeyed and violated, and each way to fail is told from the others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dossier::admin::Health;
use dossier::alert::Decoder;
use dossier::config::Config;
use dossier::dead_letter::Reason;
use dossier::pipeline::{Answer, Cost, Enricher, Failure, Given};
use dossier::plugin::Plugins;
use dossier::telemetry::Telemetry;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A file below the workspace's `target`.
fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name)
}

/// A step that runs the plugin.
struct Mischief {
    enricher: Arc<dyn Enricher>,
    _plugins: Plugins,
    _folder: TempDir,
}

/// Loads the plugin; the error is what keeps the host from being ready.
async fn load(config: &str) -> Result<Mischief, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("plugins")).unwrap();
    let guest = target("guests/mischief.wasm");
    fs::copy(&guest, folder.path().join("plugins/mischief.wasm"))
        .unwrap_or_else(|error| panic!("{}: {error}; cargo xtask test builds it", guest.display()));
    let config = Arc::new(Config::parse(&folder.path().join("dossier.toml"), config).unwrap());
    let health = Arc::new(Health::default());
    let telemetry = Arc::new(Telemetry::default());
    // Tests lie in target/release/deps, the program one folder above.
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("dossier");
    let plugins = Plugins::start_with(program, config, telemetry, Arc::clone(&health)).await.unwrap();
    let steps = plugins.subscribe().borrow().clone();
    let steps = steps.ok_or_else(|| health.problems().remove("plugins").unwrap())?;
    let enricher = steps[0].enricher.clone().unwrap();
    Ok(Mischief { enricher, _plugins: plugins, _folder: folder })
}

/// A configuration with a step that has both grants that the plugin's imports ask for, and more.
fn granted(more: &str) -> String {
    format!(
        "[tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://192.0.2.1:1\"\n\
         [[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\n{more}"
    )
}

async fn step(more: &str) -> Mischief {
    load(&granted(more)).await.unwrap()
}

fn given(alert: &Value) -> Arc<Given> {
    let config = Config::parse(Path::new("dossier.toml"), "").unwrap();
    let received = "1970-01-01T00:00:00Z".parse().unwrap();
    let alert = Decoder::new(&config.alert).decode(alert.to_string().into_bytes().into(), received);
    let alert = Arc::new(alert.unwrap());
    let observables = alert.observables.clone();
    Arc::new(Given { alert, observables, enrichment: Vec::new(), tables: Arc::default() })
}

impl Mischief {
    async fn call(&self, alert: Value) -> (Result<Answer, Failure>, Cost) {
        self.enricher.enrich(given(&alert)).await
    }

    async fn fields(&self, alert: Value) -> Value {
        serde_json::from_str(self.call(alert).await.0.unwrap().fields.get()).unwrap()
    }

    async fn reason(&self, alert: Value) -> Reason {
        match self.call(alert).await.0 {
            Err(Failure::Failed { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_reason() {
    let mischief = step("timeout = \"30s\"").await;
    for (what, reason) in [
        ("trap", Reason::Trap),
        ("panic", Reason::Trap),
        ("recurse", Reason::Trap),
        ("loop", Reason::OutOfFuel),
        ("lookup-flood", Reason::OutOfFuel),
        ("log-flood", Reason::OutOfFuel),
        ("grow", Reason::Memory),
        ("not-json", Reason::InvalidOutput),
        ("not-object", Reason::InvalidOutput),
        ("add-observable", Reason::InvalidOutput),
        ("bad-verdict", Reason::InvalidOutput),
        ("invalid", Reason::Invalid),
        ("internal", Reason::PluginError),
    ] {
        assert_eq!(mischief.reason(json!({ "mischief": what })).await, reason, "{what}");
    }
    // The host goes on: the next call of the same step is as good as the first.
    assert_eq!(mischief.fields(json!({})).await["calls"], 1);
}

#[tokio::test]
async fn a_plugin_may_say_that_it_is_unavailable_or_has_nothing_to_do() {
    let mischief = step("").await;
    let (outcome, _) = mischief.call(json!({ "mischief": "unavailable", "after_ms": 1500 })).await;
    let after = Some(Duration::from_millis(1500));
    assert_eq!(outcome.unwrap_err(), Failure::Unavailable { reason: "mischief is away".into(), after });
    let (outcome, _) = mischief.call(json!({ "mischief": "not-applicable" })).await;
    assert_eq!(outcome.unwrap_err(), Failure::NotApplicable("mischief has nothing to do here".into()));
}

#[tokio::test]
async fn fuel_is_obeyed_and_violated() {
    let slow = json!({ "mischief": "slow", "spin": 100_000 });
    let (outcome, cost) = step("").await.call(slow.clone()).await;
    assert!(outcome.is_ok());
    let (enough, little) = (cost.fuel + 10_000, cost.fuel - 10_000);
    assert!(step(&format!("fuel = {enough}")).await.call(slow.clone()).await.0.is_ok());
    assert_eq!(step(&format!("fuel = {little}")).await.reason(slow).await, Reason::OutOfFuel);
}

#[tokio::test]
async fn time_is_obeyed_and_violated() {
    let mischief = step("fuel = 1000000000000\ntimeout = \"200ms\"").await;
    assert!(mischief.call(json!({ "mischief": "slow", "spin": 1000 })).await.0.is_ok());
    for what in ["loop", "lookup-flood", "log-flood"] {
        let (outcome, cost) = mischief.call(json!({ "mischief": what })).await;
        assert!(matches!(outcome, Err(Failure::Failed { reason: Reason::Timeout, .. })), "{what}: {outcome:?}");
        assert!(cost.duration < Duration::from_secs(3), "{what}: {cost:?}");
    }
}

#[tokio::test]
async fn a_call_that_loops_does_not_keep_others_from_their_turn() {
    // One thread for everything: whoever does not yield would hold it.
    let mischief = step("fuel = 1000000000000\ntimeout = \"5s\"").await;
    for what in ["loop", "lookup-flood", "log-flood"] {
        let enricher = Arc::clone(&mischief.enricher);
        let looping = tokio::spawn(async move { enricher.enrich(given(&json!({ "mischief": what }))).await });
        tokio::task::yield_now().await;
        assert_eq!(mischief.fields(json!({})).await["calls"], 1);
        assert!(!looping.is_finished(), "{what}");
        looping.abort();
    }
}

#[tokio::test]
async fn memory_is_obeyed_and_violated() {
    let mischief = step("memory = \"4MiB\"").await;
    assert!(mischief.call(json!({ "mischief": "big-answer", "bytes": 100_000 })).await.0.is_ok());
    let (outcome, cost) = mischief.call(json!({ "mischief": "grow" })).await;
    assert!(matches!(outcome, Err(Failure::Failed { reason: Reason::Memory, .. })), "{outcome:?}");
    assert!(cost.memory > 1 << 20 && cost.memory <= 4 << 20, "{}", cost.memory);
}

#[tokio::test]
async fn the_size_of_an_answer_is_obeyed_and_violated() {
    let mischief = step("answer = \"64KiB\"\nmemory = \"64MiB\"\nfuel = 1000000000").await;
    let big = |bytes: usize| json!({ "mischief": "big-answer", "bytes": bytes });
    // {"big":""} has ten bytes.
    assert!(mischief.call(big((64 << 10) - 10)).await.0.is_ok());
    for bytes in [(64 << 10) - 9, 10 << 20] {
        assert_eq!(mischief.reason(big(bytes)).await, Reason::InvalidOutput, "{bytes}");
    }
}

#[tokio::test]
async fn settings_arrive_as_they_were_written() {
    let settings =
        r#"{ text = "quote \" backslash \\ \u0007 tab \t äöü 🦀", list = [1, 2.5, true], inner = { "a b" = "" } }"#;
    let mischief = step(&format!("settings = {settings}")).await;
    let expected = json!({
        "text": "quote \" backslash \\ \u{7} tab \t äöü 🦀", "list": [1, 2.5, true], "inner": { "a b": "" }
    });
    assert_eq!(mischief.fields(json!({})).await["configured"], expected);
}

#[tokio::test]
async fn settings_that_the_plugin_refuses_are_refused_in_its_words() {
    let refused = async |settings: &str| load(&granted(&format!("settings = {settings}"))).await.err().unwrap();
    let why = refused("{ refuse = \"there is no such feed\" }").await;
    assert!(why.contains("step \"mischief\"") && why.contains("there is no such feed"), "{why}");
    let why = refused("{ do = \"configure-trap\" }").await;
    assert!(why.contains("trap"), "{why}");
    let why = refused("{ do = \"configure-loop\" }").await;
    assert!(why.contains("out-of-fuel"), "{why}");
}

#[tokio::test]
async fn an_instance_is_fresh_for_each_call_or_kept_for_as_many_as_the_step_says() {
    let calls = async |mischief: &Mischief| mischief.fields(json!({})).await["calls"].as_u64().unwrap();
    let fresh = step("").await;
    assert_eq!([calls(&fresh).await, calls(&fresh).await, calls(&fresh).await], [1, 1, 1]);
    let kept = step("reuse = 3").await;
    assert_eq!([calls(&kept).await, calls(&kept).await, calls(&kept).await, calls(&kept).await], [1, 2, 3, 1]);
}

#[tokio::test]
async fn an_instance_that_failed_timed_out_or_was_cancelled_is_never_used_again() {
    let kept = step("reuse = 100\nfuel = 1000000000000\ntimeout = \"200ms\"").await;
    let calls = async || kept.fields(json!({})).await["calls"].as_u64().unwrap();
    assert_eq!((calls().await, calls().await), (1, 2));
    for what in ["trap", "loop", "recurse"] {
        assert!(kept.call(json!({ "mischief": what })).await.0.is_err());
        assert_eq!(calls().await, 1, "{what}");
    }
    let cancelled = tokio::time::timeout(Duration::from_millis(20), kept.call(json!({ "mischief": "loop" }))).await;
    assert!(cancelled.is_err());
    assert_eq!(calls().await, 1);
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_the_answer_says_so() {
    // No step names it: it may be loaded, and is told when it asks.
    let unnamed = load("").await.unwrap();
    let answer = unnamed.fields(json!({ "mischief": "lookup", "table": "t", "key": "k" })).await;
    assert_eq!(answer["error"], "denied");
    assert!(answer["why"].as_str().unwrap().contains("not granted"), "{answer}");
    assert_eq!(unnamed.fields(json!({ "mischief": "http", "url": "http://192.0.2.1/" })).await["error"], "denied");
    // A step names it without its grants: it is not loaded.
    assert!(load("[[step]]\nplugin = \"mischief\"").await.err().unwrap().contains("not granted"));
}

#[tokio::test]
async fn an_api_that_hangs_ends_before_the_step_does() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mischief = load(&format!(
        "[tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"{url}\"\nprivate = true\n\
         [[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\ntimeout = \"1s\""
    ))
    .await
    .unwrap();
    let started = Instant::now();
    assert_eq!(mischief.fields(json!({ "mischief": "http", "url": url })).await["error"], "timeout");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(1), "{took:?}");
}
