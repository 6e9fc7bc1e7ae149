use std::path::{Path, PathBuf};

use super::*;
use crate::config::Config;
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
async fn what_is_refused_is_a_notice_until_its_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = empty(folder.path()).await;
    let refused = Outcome::Refused { sha256: None, why: "it is no plugin".into(), instead: None, again: false };
    directory.finish(load_of(&Err("broken".to_owned()), refused)).await;
    directory.publish();
    assert_eq!(directory.health.notices()["plugin guest"], "its file is refused: it is no plugin; nothing serves");
    directory.scan();
    assert!(directory.health.notices().is_empty());
}
