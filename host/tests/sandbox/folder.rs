//! The plugins folder: what comes, changes, breaks and goes, and what is kept of it for the next start.

use std::fs;
use std::time::Instant;

use dossier::pipeline::Stage;

use super::place::*;

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
    let start = async || now(&place.start_with("/nonexistent".into()).await);
    assert!(start().await.is_some());
    let code = fs::read_dir(&compiled).unwrap().map(|entry| entry.unwrap().path());
    let code = code.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "cwasm")).unwrap();
    fs::write(&code, &fs::read(&code).unwrap()[1..]).unwrap();
    assert!(start().await.is_none());
}
