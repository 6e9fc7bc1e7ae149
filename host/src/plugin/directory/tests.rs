use std::path::{Path, PathBuf};

use super::*;
use crate::config::Config;
use crate::digest::sha256_hex;
use crate::plugin::compiler::Compiler;

/// A directory over an empty folder.
async fn empty(folder: &Path) -> Directory {
    std::fs::create_dir_all(folder.join("plugins")).unwrap();
    let config = Config::parse(&folder.join("dossier.toml"), "").unwrap();
    let telemetry = Arc::new(Telemetry::default());
    let compiler = Compiler::temporary(PathBuf::from("dossier"), Arc::clone(&telemetry)).unwrap();
    let loader = Loader::new(Arc::new(config), compiler, Arc::clone(&telemetry)).unwrap();
    Directory::open(loader, telemetry, Arc::default()).await.0
}

/// The alarms that hold.
fn held(directory: &Directory) -> Vec<String> {
    let alarms = directory.telemetry.alarms().list().into_iter();
    alarms.map(|alarm| format!("{} {}: {}", alarm.alarm, alarm.subject, alarm.detail)).collect()
}

fn load_of(found: &Found, outcome: Outcome) -> Load {
    Load { plugin: "guest".into(), found: found.clone(), took: Duration::ZERO, outcome }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_and_then_goes_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let (old, new) = (Err("an older state".to_owned()), Err("a newer state".to_owned()));
    let refused = Outcome::Refused { sha256: None, why: "it is no plugin".into(), instead: None, again: false };
    directory.finish(load_of(&old, refused)).await;
    directory.finish(load_of(&new, Outcome::Changed)).await;
    let entry = &directory.entries["guest"];
    assert_eq!((entry.dealt_with.as_ref(), entry.loading), (Some(&old), false), "the newer state is to be looked at");
    // The file is not in the folder: that it is gone is noticed, because it was known.
    directory.scan();
    let entry = &directory.entries["guest"];
    assert!(entry.dealt_with.is_none() && entry.refused.is_none());
}

#[tokio::test]
async fn what_is_refused_is_an_alarm_until_its_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let refused = Outcome::Refused { sha256: None, why: "it is no plugin".into(), instead: None, again: false };
    directory.finish(load_of(&Err("broken".to_owned()), refused)).await;
    directory.publish();
    assert_eq!(held(&directory), ["plugin-refused guest: it is no plugin"]);
    directory.scan();
    assert_eq!(held(&directory), [""; 0]);
}

/// A version that was loaded; it runs no step.
fn loaded(version: &str) -> Arc<Loaded> {
    let (sha256, version) = (sha256_hex(version.as_bytes()), version.to_owned());
    Arc::new(Loaded { sha256, version, manifest: None, steps: Vec::new(), about: Vec::new() })
}

/// A new version, loaded while another one was the last good one.
fn new_version(version: &str) -> Outcome {
    let (loaded, bytes) = (loaded(version), Bytes::copy_from_slice(version.as_bytes()));
    Outcome::Loaded(Candidate { loaded, bytes, proven: false, first: version == "1", good: None })
}

/// Has the probation of what serves end.
async fn decide(directory: &mut Directory, passes: bool) {
    let (probation, _) = directory.entries["guest"].serving.as_ref().unwrap().probation.as_ref().unwrap();
    probation.decide(passes);
    directory.judge().await;
}

fn serving(directory: &Directory) -> &str {
    &directory.entries["guest"].serving.as_ref().unwrap().loaded.version
}

#[tokio::test]
async fn what_passes_while_another_version_is_loaded_is_what_that_one_goes_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let found = Err("a state".to_owned());
    directory.finish(load_of(&found, new_version("1"))).await;
    decide(&mut directory, true).await;
    directory.finish(load_of(&found, new_version("2"))).await;
    let third = new_version("3");
    decide(&mut directory, true).await;
    directory.finish(load_of(&found, third)).await;
    decide(&mut directory, false).await;
    assert_eq!(serving(&directory), "2");
}

#[tokio::test]
async fn what_fails_while_another_version_is_loaded_is_not_what_that_one_goes_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let found = Err("a state".to_owned());
    directory.finish(load_of(&found, new_version("1"))).await;
    let second = new_version("2");
    decide(&mut directory, false).await;
    directory.finish(load_of(&found, second)).await;
    decide(&mut directory, false).await;
    assert_eq!(serving(&directory), "2");
}

#[tokio::test]
async fn a_file_that_is_touched_while_its_version_is_taken_out_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let (old, touched) = (Err("a state".to_owned()), Err("touched".to_owned()));
    directory.finish(load_of(&old, new_version("1"))).await;
    decide(&mut directory, true).await;
    directory.finish(load_of(&old, new_version("2"))).await;
    let same = Outcome::Same(sha256_hex(b"2"));
    decide(&mut directory, false).await;
    directory.finish(load_of(&touched, same)).await;
    directory.publish();
    assert_eq!((serving(&directory), directory.entries["guest"].dealt_with.as_ref()), ("1", Some(&old)));
    assert!(held(&directory)[0].starts_with("plugin-taken-out guest: version 2"), "{:?}", held(&directory));
    // Where nothing came between, it is dealt with.
    directory.finish(load_of(&touched, Outcome::Same(sha256_hex(b"1")))).await;
    directory.publish();
    assert_eq!(directory.entries["guest"].dealt_with.as_ref(), Some(&touched));
    assert_eq!(held(&directory), [""; 0]);
}

#[tokio::test]
async fn a_version_that_has_proven_nothing_is_on_probation_again_when_it_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let found = Err("a state".to_owned());
    directory.finish(load_of(&found, new_version("1"))).await;
    directory.finish(load_of(&found, new_version("2"))).await;
    decide(&mut directory, false).await;
    assert_eq!(serving(&directory), "1");
    decide(&mut directory, false).await;
    assert_eq!(serving(&directory), "1", "it serves on, and nothing goes back to it");
    assert!(directory.entries["guest"].good.is_none());
}
