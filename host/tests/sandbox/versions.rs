//! Versions of a plugin that follow one another: probation, what is remembered of it, and what a version may ask for.

use std::fs;
use std::sync::Arc;

use dossier::config::Config;
use dossier::digest::sha256_hex;
use dossier::pipeline::{Enricher, Given};
use dossier::plugin::Plugins;
use dossier::tables::Tables;
use dossier_authoring::manifest::Manifest;

use super::place::*;

const SECOND: Guest = Guest { version: "2.0.0", ..GUEST };
const BAD: Guest = Guest { enrich: "unreachable", ..SECOND };

/// Two failures of ten are too many.
const PROBATION: &str = "[plugins]\nprobation = { calls = 10, failures = 0.2 }\n[tables.secrets]\nfile = \"secrets.txt\"\n[[step]]\nplugin = \"guest\"\n";

impl Place {
    /// The same folder with another configuration, from the next start on.
    fn configure(&mut self, config: &str) {
        self.config = Arc::new(Config::parse(&self.folder.path().join("dossier.toml"), config).unwrap());
    }

    fn last_good(&self) -> Option<Vec<u8>> {
        fs::read(self.folder.path().join("state/last-good/guest.wasm")).ok()
    }
}

/// Waits until somebody who asks whether the host is ready is told so.
async fn noticed(place: &Place, plugins: &Plugins, what: &str) {
    let mut steps = plugins.subscribe();
    let told = async {
        while !place.alarms().iter().any(|alarm| alarm.contains(what)) {
            steps.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{what}: {:?}", place.alarms()));
}

async fn serves(plugins: &Plugins, wanted: &str) -> Arc<dyn Enricher> {
    let steps = until(plugins, |steps| version(steps, "guest").as_deref() == Some(wanted)).await;
    steps.steps()[0].enricher.clone().unwrap()
}

/// Waits until this is the last good version for a start, too.
async fn kept(place: &Place, bytes: &[u8]) {
    let kept = async {
        while place.last_good().as_deref() != Some(bytes) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("it is not kept");
}

async fn calls(enricher: &Arc<dyn Enricher>, count: u32) -> u32 {
    let mut failed = 0;
    for _ in 0..count {
        failed += u32::from(enricher.enrich(given()).await.0.is_err());
    }
    failed
}

/// A place whose first version has proven itself, and the second one is on probation.
async fn on_probation(second: &[u8]) -> (Place, Plugins) {
    let place = Place::new(PROBATION);
    place.put("guest.wasm", &GUEST.component());
    let plugins = place.start().await;
    calls(&serves(&plugins, "1.0.0").await, 10).await;
    place.put("guest.wasm", second);
    serves(&plugins, "2.0.0").await;
    (place, plugins)
}

#[tokio::test]
async fn a_version_that_fails_its_probation_is_taken_out_and_not_taken_again_until_it_is_pinned() {
    let (mut place, plugins) = on_probation(&BAD.component()).await;
    noticed(&place, &plugins, "version 2.0.0").await;
    let bad = serves(&plugins, "2.0.0").await;
    assert_eq!(calls(&bad, 2).await, 2);
    let good = serves(&plugins, "1.0.0").await;
    assert_eq!(calls(&good, 20).await, 0);
    noticed(&place, &plugins, "it was taken out: 2 of its first 2 calls failed (trap 2); 1.0.0 serves again").await;
    // An alert is finished by the plugins that it began with.
    assert_eq!(bad.version(), "2.0.0");
    assert_eq!((calls(&bad, 1).await, place.problem()), (1, None));

    // Neither the same bytes in a new file nor a restart bring it back.
    place.put("guest.wasm", &BAD.component());
    noticed(&place, &plugins, "it was taken out at ").await;
    serves(&plugins, "1.0.0").await;
    drop(plugins);
    let plugins = place.start().await;
    assert_eq!(calls(&serves(&plugins, "1.0.0").await, 20).await, 0);
    assert!(place.findings().await.iter().any(|finding| finding.contains("it was taken out at ")));

    // Another version is tried, and when it passes it is the last good one.
    let third = Guest { version: "3.0.0", ..GUEST }.component();
    place.put("guest.wasm", &third);
    assert_eq!(calls(&serves(&plugins, "3.0.0").await, 10).await, 0);
    kept(&place, &third).await;
    drop(plugins);

    // Who pins it wants it, and then there is nothing to go back to.
    place.configure(&format!("{PROBATION}sha256 = \"{}\"", sha256_hex(&BAD.component())));
    place.put("guest.wasm", &BAD.component());
    let plugins = place.start().await;
    assert_eq!(calls(&serves(&plugins, "2.0.0").await, 3).await, 3);
    noticed(&place, &plugins, "plugin-unfit guest: version ").await;
    assert!(version(&now(&plugins).unwrap(), "guest").as_deref() == Some("2.0.0"));
    drop(plugins);
    assert_eq!(place.last_good(), Some(third));
}

#[tokio::test]
async fn a_version_is_the_last_good_one_when_it_has_passed_and_not_before() {
    let (place, plugins) = on_probation(&SECOND.component()).await;
    let second = serves(&plugins, "2.0.0").await;
    assert_eq!(calls(&second, 9).await, 0);
    assert_eq!(place.last_good(), Some(GUEST.component()));
    calls(&second, 1).await;
    kept(&place, &SECOND.component()).await;
    // From then on it is the one to go back to.
    place.put("guest.wasm", &Guest { version: "3.0.0", ..BAD }.component());
    calls(&serves(&plugins, "3.0.0").await, 2).await;
    serves(&plugins, "2.0.0").await;
}

#[tokio::test]
async fn a_restart_begins_the_probation_anew_and_the_last_good_version_is_still_the_one_to_go_back_to() {
    let (place, plugins) = on_probation(&BAD.component()).await;
    assert_eq!(calls(&serves(&plugins, "2.0.0").await, 1).await, 1);
    drop(plugins);
    let plugins = place.start().await;
    let bad = serves(&plugins, "2.0.0").await;
    assert_eq!(calls(&bad, 1).await, 1);
    noticed(&place, &plugins, "is on probation").await;
    assert_eq!(calls(&bad, 1).await, 1);
    serves(&plugins, "1.0.0").await;
}

#[tokio::test]
async fn the_first_version_of_a_plugin_serves_on_though_it_fails_and_nothing_goes_back_to_it() {
    let place = Place::new(PROBATION);
    place.put("guest.wasm", &Guest { enrich: "unreachable", ..GUEST }.component());
    let plugins = place.start().await;
    assert!(place.last_good().is_some(), "in want of another");
    let first = serves(&plugins, "1.0.0").await;
    assert_eq!(calls(&first, 2).await, 2);
    noticed(&place, &plugins, "plugin-unfit guest: version ").await;
    place.put("guest.wasm", &BAD.component());
    assert_eq!(calls(&serves(&plugins, "2.0.0").await, 2).await, 2);
    noticed(&place, &plugins, "version 2.0.0").await;
    noticed(&place, &plugins, "plugin-unfit guest: version ").await;
    serves(&plugins, "2.0.0").await;
}

#[tokio::test]
async fn a_start_whose_compiler_does_not_work_serves_the_last_good_version() {
    let place = Place::new(PROBATION);
    place.put("guest.wasm", &GUEST.component());
    drop(place.start().await);
    place.put("guest.wasm", &SECOND.component());
    let plugins = place.start_with("/nonexistent".into()).await;
    assert_eq!(calls(&serves(&plugins, "1.0.0").await, 1).await, 0);
    noticed(&place, &plugins, "the last good one serves on").await;
}

#[tokio::test]
async fn a_broken_file_that_comes_where_nothing_serves_any_more_brings_the_last_good_version_back() {
    let place = Place::new("[[step]]\nplugin = \"guest\"\nrequired = false");
    place.put("guest.wasm", &GUEST.component());
    let plugins = place.start().await;
    serves(&plugins, "1.0.0").await;
    // As rm and a cp that goes wrong do.
    fs::remove_file(place.path("guest.wasm")).unwrap();
    until(&plugins, |steps| version(steps, "guest").is_none()).await;
    place.put("guest.wasm", b"half");
    serves(&plugins, "1.0.0").await;
    noticed(&place, &plugins, "the last good one serves on").await;
}

/// What cannot be copied once it is configured.
const NO_COPY: &str = "(table 1 funcref) (func (export \"never\") (drop (table.grow 0 (ref.null func) (i32.const 1))))";

#[tokio::test]
async fn a_guest_that_is_configured_in_each_instance_must_fit_its_bounds_with_that() {
    let configure = "(local.set 0 (i32.const 100000))
                     (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))";
    for (fuel, fits) in [(100_000, false), (10_000_000, true)] {
        let place = Place::new(&format!("[[step]]\nplugin = \"guest\"\nfuel = {fuel}"));
        place.put("guest.wasm", &Guest { configure, extra: NO_COPY, ..GUEST }.component());
        let plugins = place.start().await;
        assert_eq!(now(&plugins).is_some(), fits, "{:?}", place.problem());
        assert!(fits || place.problem().unwrap().contains("out-of-fuel"), "{:?}", place.problem());
    }
}

#[tokio::test]
async fn a_guest_that_is_configured_in_each_instance_is_denied_its_tables_meanwhile_and_has_them_then() {
    let import = r#"(import "dossier:plugin/tables@1.0.0" "lookup" (func $lookup (param i32 i32 i32 i32 i32)))"#;
    let lookup = "(call $lookup (i32.const 3000) (i32.const 1) (i32.const 3001) (i32.const 1) (i32.const 3008))";
    // 0 is an answer, 1 a refusal.
    let expect = |what: u8| {
        format!("{lookup} (if (i32.ne (i32.load8_u (i32.const 3008)) (i32.const {what})) (then unreachable))")
    };
    let (configure, enrich) = (expect(1).leak(), expect(0).leak());
    let extra = format!("{NO_COPY} (data (i32.const 3000) \"tk\")").leak();
    let place = Place::new("[tables.t]\nfile = \"t.txt\"\n[[step]]\nplugin = \"guest\"\ntables = [\"t\"]");
    fs::write(place.folder.path().join("t.txt"), "k\n").unwrap();
    place.put("guest.wasm", &Guest { configure, enrich, extra, ..GUEST }.component_with(import));
    let plugins = place.start().await;
    let steps = now(&plugins).unwrap_or_else(|| panic!("{:?}", place.problem()));
    let tables = Tables::open(&place.config, Arc::default()).unwrap().snapshot();
    let given = Arc::new(Given {
        alert: Arc::clone(&given().alert),
        observables: Arc::default(),
        enrichment: Vec::new(),
        tables,
    });
    let (outcome, _) = steps.steps()[0].enricher.clone().unwrap().enrich(given).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// On the one thread of this test everything would stand still if kept code were read there: what is read is a pipe, and the
/// test itself gives it its end.
#[tokio::test]
async fn reading_kept_code_holds_up_nobody_else() {
    let place = Place::new("[[step]]\nplugin = \"guest\"");
    place.put("guest.wasm", &GUEST.component());
    drop(place.start().await);
    let compiled = fs::read_dir(place.folder.path().join("state/compiled")).unwrap();
    let paths = compiled.map(|entry| entry.unwrap().path());
    let label = paths.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    fs::remove_file(&label).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&label).status().unwrap();
    assert!(made.success());
    let late = Arc::new(std::sync::atomic::AtomicBool::new(true));
    // If the thread is held up after all, somebody has to let it go for the test to fail.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let rescue = std::thread::spawn({
        let (label, late) = (label.clone(), Arc::clone(&late));
        move || {
            if ended.recv_timeout(PATIENCE / 2).is_err() {
                drop(fs::OpenOptions::new().write(true).open(label));
            }
            late.load(std::sync::atomic::Ordering::Relaxed)
        }
    });
    let writer = async {
        // Opening it for writing waits for the reader, and so must not be done on this thread either.
        tokio::task::spawn_blocking(move || drop(fs::OpenOptions::new().write(true).open(label))).await.unwrap();
        late.store(false, std::sync::atomic::Ordering::Relaxed);
        end.send(()).unwrap();
    };
    let (plugins, ()) = tokio::join!(place.start(), writer);
    assert!(!rescue.join().unwrap(), "reading held up the thread");
    assert!(now(&plugins).is_some(), "what cannot be read is compiled again");
}

const ASKS: &str = "[[tables]]\nname = \"secrets\"\nwhy = \"it is curious\"\n[limits]\nmemory = \"32MiB\"";

/// A version that carries what it asks for.
fn asking(guest: Guest, asks: &str) -> Vec<u8> {
    let mut component = guest.component();
    Manifest::from_toml(asks).unwrap().append_to(&mut component).unwrap();
    component
}

#[tokio::test]
async fn a_version_that_asks_for_more_is_refused_until_it_is_granted_or_pinned() {
    let greedy = asking(SECOND, ASKS);
    let granted = format!("{PROBATION}tables = [\"secrets\"]\nmemory = \"32MiB\"");
    let pinned = format!("{PROBATION}sha256 = \"{}\"", sha256_hex(&greedy));
    for reviewed in [granted, pinned] {
        let mut place = Place::new(PROBATION);
        place.put("guest.wasm", &GUEST.component());
        let plugins = place.start().await;
        calls(&serves(&plugins, "1.0.0").await, 10).await;
        place.put("guest.wasm", &greedy);
        noticed(&place, &plugins, "it asks for more than the version before it: table \"secrets\" (it is curious)")
            .await;
        noticed(&place, &plugins, "memory = \"32768KiB\" where the step has \"16384KiB\"").await;
        assert_eq!(calls(&serves(&plugins, "1.0.0").await, 1).await, 0);
        // To take the file away before makes no difference, nor does a restart: what was good before is what counts.
        fs::remove_file(place.path("guest.wasm")).unwrap();
        until(&plugins, |_| !place.alarms().iter().any(|alarm| alarm.starts_with("plugin-refused"))).await;
        place.put("guest.wasm", &greedy);
        noticed(&place, &plugins, "it asks for more").await;
        drop(plugins);
        let plugins = place.start().await;
        serves(&plugins, "1.0.0").await;
        noticed(&place, &plugins, "it asks for more").await;
        assert!(place.findings().await.iter().any(|finding| finding.contains("it asks for more")));
        drop(plugins);
        place.configure(&reviewed);
        let plugins = place.start().await;
        serves(&plugins, "2.0.0").await;
        assert!(place.findings().await.is_empty());
    }
}

#[tokio::test]
async fn a_version_that_asks_for_no_more_than_the_one_before_is_taken_and_so_is_what_is_optional() {
    let place = Place::new(PROBATION);
    place.put("guest.wasm", &asking(GUEST, ASKS));
    let plugins = place.start().await;
    serves(&plugins, "1.0.0").await;
    let optional =
        format!("{ASKS}\n[[http]]\nname = \"api\"\nurl = \"https://api.example\"\nwhy = \"w\"\noptional = true");
    place.put("guest.wasm", &asking(SECOND, &optional));
    serves(&plugins, "2.0.0").await;
    // What it gave up in between it must be granted again.
    calls(&serves(&plugins, "2.0.0").await, 10).await;
    let place = Place::new(PROBATION);
    place.put("guest.wasm", &asking(GUEST, ASKS));
    let plugins = place.start().await;
    calls(&serves(&plugins, "1.0.0").await, 10).await;
    place.put("guest.wasm", &SECOND.component());
    calls(&serves(&plugins, "2.0.0").await, 10).await;
    until(&plugins, |_| place.alarms().is_empty()).await;
    place.put("guest.wasm", &asking(Guest { version: "3.0.0", ..GUEST }, ASKS));
    noticed(&place, &plugins, "it asks for more").await;
}

#[tokio::test]
async fn a_file_with_another_digest_than_the_step_pins_is_refused_with_both() {
    let (first, second) = (GUEST.component(), SECOND.component());
    let place = Place::new(&format!("{PROBATION}sha256 = \"{}\"", sha256_hex(&first)));
    place.put("guest.wasm", &second);
    let plugins = place.start().await;
    assert!(now(&plugins).is_none());
    let problem = place.problem().unwrap();
    assert!(problem.contains(&sha256_hex(&first)) && problem.contains(&sha256_hex(&second)), "{problem}");
    place.put("guest.wasm", &first);
    serves(&plugins, "1.0.0").await;
    place.put("guest.wasm", &second);
    noticed(&place, &plugins, "but the step pins").await;
    serves(&plugins, "1.0.0").await;
}
