use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A folder with `hosts.csv` and a configuration of it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write("hosts.csv", "name,owner\nweb,first\n");
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn config(&self, text: &str) -> Config {
        Config::parse(&self.file("dossier.toml"), text).unwrap()
    }

    /// Watched tables, and what stops that.
    fn watched(&self) -> (Arc<Tables>, CancellationToken) {
        let config = self.config("[tables.hosts]\nfile = \"hosts.csv\"\nkey = \"name\"\n");
        let tables = Arc::new(Tables::open(&config, Arc::default()).unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&tables).watch(stop.clone()));
        (tables, stop)
    }
}

fn owner(tables: &Tables) -> String {
    let snapshot = tables.snapshot();
    let row: serde_json::Value = serde_json::from_str(&snapshot["hosts"].lookup("web").unwrap().unwrap()).unwrap();
    row["owner"].as_str().unwrap().to_owned()
}

/// Waits for an owner, for at most the two seconds that are promised and what loading may take on a busy machine.
async fn becomes(tables: &Tables, expected: &str) {
    let begun = Instant::now();
    while owner(tables) != expected {
        assert!(begun.elapsed() < Duration::from_secs(4), "still {} and not {expected}", owner(tables));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_changed_file_serves_within_two_seconds_and_an_alert_keeps_what_it_began_with() {
    let place = Place::new();
    let (tables, stop) = place.watched();
    let begun_with = tables.snapshot();
    place.write("hosts.csv", "name,owner\nweb,second\n");
    becomes(&tables, "second").await;
    assert!(begun_with["hosts"].lookup("web").unwrap().unwrap().contains("first"));
    // Replaced by a rename, as careful writers do.
    place.write("new", "name,owner\nweb,third\n");
    std::fs::rename(place.file("new"), place.file("hosts.csv")).unwrap();
    becomes(&tables, "third").await;
    stop.cancel();
}

#[tokio::test]
async fn a_link_two_levels_above_that_changes_is_noticed() {
    let place = Place::new();
    // As Kubernetes does it: hosts.csv -> ..data/hosts.csv, ..data -> ..1, and ..data is replaced.
    for (folder, owner) in [("..1", "one"), ("..2", "two")] {
        std::fs::create_dir(place.file(folder)).unwrap();
        place.write(&format!("{folder}/hosts.csv"), &format!("name,owner\nweb,{owner}\n"));
    }
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, place.file(from)).unwrap();
    link("..1", "..data");
    std::fs::remove_file(place.file("hosts.csv")).unwrap();
    link("..data/hosts.csv", "hosts.csv");
    let (tables, stop) = place.watched();
    assert_eq!(owner(&tables), "one");
    link("..2", "..new");
    std::fs::rename(place.file("..new"), place.file("..data")).unwrap();
    becomes(&tables, "two").await;
    stop.cancel();
}

/// A table as the watcher sees it, looked at by hand: no waiting.
fn watched_by_hand(tables: &Tables) -> Watched {
    Watched {
        name: "hosts".into(),
        config: tables.configs["hosts"].clone(),
        done: tables.opened["hosts"].clone(),
        serves: tables.opened["hosts"].clone(),
        seen: None,
        refused: None,
    }
}

#[test]
fn a_file_that_is_broken_empty_or_gone_changes_nothing_and_a_good_one_ends_that() {
    let place = Place::new();
    let config = place.config("[tables.hosts]\nfile = \"hosts.csv\"\nkey = \"name\"\n");
    let tables = Tables::open(&config, Arc::default()).unwrap();
    let mut watched = watched_by_hand(&tables);
    let look_twice = |watched: &mut Watched| {
        watched.look(&tables);
        watched.look(&tables);
    };
    look_twice(&mut watched);
    assert!(watched.refused.is_none() && watched.seen.is_none(), "nothing changed");

    let mut refusals = Vec::new();
    for broken in [Some("name,owner\nweb,x\ntoo,many,cells\n"), Some(""), None] {
        match broken {
            Some(text) => place.write("hosts.csv", text),
            None => std::fs::remove_file(place.file("hosts.csv")).unwrap(),
        }
        look_twice(&mut watched);
        assert_eq!(owner(&tables), "first", "{broken:?}");
        refusals.push(watched.refused.clone().expect("it is refused"));
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 3, "each content is refused for itself: {refusals:?}");

    place.write("hosts.csv", "name,owner\nweb,second\n");
    look_twice(&mut watched);
    assert_eq!(owner(&tables), "second");
    assert!(watched.refused.is_none());
}

#[test]
fn a_file_that_is_still_being_written_is_left_alone() {
    let place = Place::new();
    let config = place.config("[tables.hosts]\nfile = \"hosts.csv\"\nkey = \"name\"\n");
    let tables = Tables::open(&config, Arc::default()).unwrap();
    let mut watched = watched_by_hand(&tables);
    let mut text = "name,owner\nweb,second\n".to_owned();
    for more in ["a,b\n", "c,d\n", "e,f\n"] {
        text.push_str(more);
        place.write("hosts.csv", &text);
        watched.look(&tables);
        assert_eq!(owner(&tables), "first", "it grew since the last look");
    }
    watched.look(&tables);
    assert_eq!(owner(&tables), "second");
}

#[tokio::test]
async fn every_table_that_does_not_load_is_found_with_its_line_in_the_configuration() {
    let place = Place::new();
    let config = place.config(
        "[tables.bad]\nfile = \"hosts.csv\"\nkey = \"ip\"\n\n[tables.gone]\nfile = \"gone.txt\"\n\n\
         [tables.hosts]\nfile = \"hosts.csv\"\nkey = \"name\"\n",
    );
    let Err(findings) = Tables::open(&config, Arc::default()) else { panic!("two tables are wrong") };
    assert_eq!(findings, check(&config).await);
    assert_eq!(findings.len(), 2);
    assert_eq!((findings[0].line, findings[1].line), (Some(1), Some(5)));
    assert!(findings[0].message.starts_with("table \"bad\": ") && findings[0].message.contains("no column \"ip\""));
    assert!(findings[1].message.contains("gone.txt cannot be read"), "{}", findings[1].message);
}

#[test]
fn a_table_is_stale_from_its_max_age_on_until_its_file_is_made_anew_even_with_the_same_content() {
    let place = Place::new();
    let config = place.config("[tables.hosts]\nfile = \"hosts.csv\"\nkey = \"name\"\nmax_age = \"1h\"\n");
    let old = |hours: u64| {
        let file = std::fs::File::options().write(true).open(place.file("hosts.csv")).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    place.write("hosts.csv", "name\none\n");
    old(0);
    let tables = Tables::open(&config, Arc::default()).unwrap_or_else(|_| panic!("no tables"));
    let held = || tables.telemetry.alarms().list().into_iter().map(|alarm| alarm.detail).collect::<Vec<_>>();
    let mut watched = watched_by_hand(&tables);
    watched.look(&tables);
    assert_eq!(held(), [""; 0]);
    // A second look is needed before a change is one.
    old(49);
    watched.look(&tables);
    watched.look(&tables);
    assert_eq!(held(), ["its file is 49 h old; max_age is 1 h"]);
    old(0);
    watched.look(&tables);
    watched.look(&tables);
    assert_eq!(held(), [""; 0]);
}
