//! Ids that come from attackers: paths, too long ones, none at all.

use std::collections::BTreeSet;

use dossier_tests::happened::happened;
use serde_json::{Value, json};

use super::mischief;
use crate::queues::{Kind, both};

const STEP: &str = "[[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\n";

/// Every file below the site, but for what the queue and the log may write.
fn around(site: &dossier_tests::host::Site) -> BTreeSet<String> {
    let mut folders = vec![site.dir.path().to_owned()];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let name = entry.path().strip_prefix(site.dir.path()).expect("below it").to_string_lossy().into_owned();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if !["queue/", "state/", "cache/"].iter().any(|own| name.starts_with(own)) {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn ids_of_any_kind_make_safe_names_and_overwrite_nothing() {
    let long = "x".repeat(300);
    let ids = [
        json!("../../evil"),
        json!("/etc/passwd"),
        json!("a/b"),
        json!(".."),
        json!("."),
        json!(" "),
        json!(".hidden"),
        json!("-rf"),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!("ä"),
        json!("~"),
        json!("x.lock"),
        json!(long),
        json!(format!("{long}y")),
        json!("../".repeat(100)),
        // These say the same id with other bytes.
        json!("17"),
        json!(17),
        json!(1.5),
        // These say none.
        json!(""),
        json!(true),
        json!(null),
        json!([1]),
        json!({"a": 1}),
    ];
    both(|kind| {
        let site = mischief(kind, STEP);
        site.succeed(&["status"]);
        let before = around(&site);
        // Each id twice: one alert passes, the other one traps. Half of them are put there by somebody else.
        let alert = |n: usize, id: &Value, trap: bool| {
            let alert = json!({ "id": id, "n": n, "mischief": if trap { "trap" } else { "" } });
            alert.to_string().into_bytes()
        };
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (n, id) in ids.iter().enumerate() {
            for (trap, list) in [(false, &mut good), (true, &mut bad)] {
                let bytes = alert(n, id, trap);
                match n % 2 {
                    0 => kind.put(&site, &bytes),
                    _ => site.send(&[&bytes[..], b"\n"].concat()),
                }
                list.push(bytes);
            }
        }
        site.succeed(&["run", "--until-empty"]);
        // What is dead comes again under its name, and finds it free.
        site.succeed(&["dlq", "replay", "--all"]);
        site.succeed(&["run", "--until-empty"]);

        let records = kind.records(&site);
        let mut stored: Vec<_> = records.iter().map(|record| record["alert"].to_string().into_bytes()).collect();
        let mut dead: Vec<_> = kind.dead(&site).into_iter().map(|(_, bytes)| bytes).collect();
        for list in [&mut good, &mut bad, &mut stored, &mut dead] {
            list.sort();
        }
        assert!(stored == good, "{} of {} stored", stored.len(), good.len());
        assert!(dead == bad, "{} of {} dead", dead.len(), bad.len());
        let unique: BTreeSet<_> = records.iter().map(|record| record["id"].to_string()).collect();
        assert_eq!(unique.len(), records.len(), "two records have one id");
        for id in ids.iter().filter_map(Value::as_str).filter(|id| !id.is_empty()) {
            assert!(records.iter().any(|record| record["id"] == *id), "no record has the id {id:?}");
        }
        let letters = site.succeed(&["dlq", "list", "--json"]);
        let twice = letters
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).expect("a line is JSON")["attempts"] == 2);
        assert_eq!(twice.count(), bad.len(), "{letters}");

        let mut after = around(&site);
        after.retain(|name| !before.contains(name));
        assert!(after.is_empty(), "written beside the queue: {after:?}");
        let mut names = 0;
        if let Kind::Directory = kind {
            for folder in ["processed", "errors"] {
                for entry in std::fs::read_dir(site.path("queue").join(folder)).expect("a folder") {
                    let name = entry.expect("an entry").file_name().into_string().expect("names are plain text");
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
                    assert!(name.starts_with("alert-") && name.len() <= 255 && name.bytes().all(plain), "{name}");
                    names += 1;
                }
            }
        }
        happened(&format!(
            "{}: {} ids, {} stored and {} dead byte for byte, {names} file names, all plain",
            kind.name(),
            ids.len(),
            good.len(),
            bad.len()
        ));
    });
}
