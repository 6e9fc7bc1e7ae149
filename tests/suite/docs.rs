//! The documentation: that its links lead somewhere, that the book has every page, and that what its blocks say is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dossier_tests::host::{built, root};
use dossier_tests::page::blocks;
use dossier_tests::shell::Typist;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

fn markdown(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of pages").flatten() {
        let path = entry.path();
        if path.is_dir() {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Every page of the documentation.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    markdown(&root().join("docs"), &mut found);
    found.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root().join(page)));
    found.sort();
    found
}

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// What links of a page lead to.
fn links(text: &str) -> Vec<String> {
    let link = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
        _ => None,
    };
    parser(text).filter_map(link).collect()
}

/// The places of a page that links can lead to: its headings, as forges and mdBook name them, and anchors in HTML.
fn places(text: &str) -> BTreeSet<String> {
    let (mut places, mut heading) = (BTreeSet::new(), None);
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let title = heading.take().unwrap_or_default().to_lowercase();
                let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
                places.insert(kept.collect::<String>().replace(' ', "-"));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                let ids = html.split("id=\"").chain(html.split("name=\"")).skip(1);
                places.extend(ids.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
            _ => {}
        }
    }
    places
}

#[test]
fn every_link_of_the_documentation_leads_to_a_file_and_to_a_place_in_it() {
    let mut wrong = Vec::new();
    let docs = root().join("docs").canonicalize().expect("the documentation");
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, place) = link.split_once('#').map_or((link.as_str(), None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            // In the book nothing lies beside the pages: what they name outside of docs/ is named, not linked.
            let inside =
                !page.starts_with(&docs) || target.canonicalize().is_ok_and(|target| target.starts_with(&docs));
            let there = match place.filter(|_| target.extension().is_some_and(|extension| extension == "md")) {
                Some(place) => std::fs::read_to_string(&target).is_ok_and(|text| places(&text).contains(place)),
                None => target.exists(),
            };
            if !there || !inside {
                wrong.push(format!("{}: {link}", page.strip_prefix(root()).expect("a page of ours").display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere, or out of the book:\n{}", wrong.join("\n"));
}

#[test]
fn the_book_has_every_page_once() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).expect("the table of contents");
    let listed: Vec<_> = links(&summary).into_iter().map(|link| docs.join(link)).collect();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    let mut there = Vec::new();
    markdown(&docs, &mut there);
    let there: BTreeSet<_> = there.into_iter().filter(|page| !page.ends_with("SUMMARY.md")).collect();
    let missing: Vec<_> = there.difference(&once).collect();
    assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
    let gone: Vec<_> = once.difference(&there).collect();
    assert!(gone.is_empty(), "in docs/SUMMARY.md, and not there: {gone:?}");
}

#[test]
fn every_configuration_in_the_documentation_has_only_settings_that_there_are() {
    let mut found = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        let mut open = None;
        for event in parser(&text) {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) if info.split(' ').next() == Some("toml") => {
                    // A plugin's manifest and a guest's Cargo.toml have shapes of their own.
                    let other = info.contains("title=\"") && !info.contains("dossier.toml");
                    open = (!other).then(String::new);
                }
                Event::Text(code) => {
                    if let Some(open) = &mut open {
                        open.push_str(&code);
                    }
                }
                Event::End(TagEnd::CodeBlock) => {
                    let Some(block) = open.take() else { continue };
                    let of_a_host =
                        ["queue", "store", "host", "alert", "plugins", "admin", "log", "step", "http.", "tables."];
                    let head = |line: &str| line.trim_start_matches('[').to_owned();
                    let heads: Vec<_> = block.lines().filter(|line| line.starts_with('[')).map(head).collect();
                    if !heads.iter().any(|head| of_a_host.iter().any(|part| head.starts_with(part))) {
                        continue;
                    }
                    found += 1;
                    let (_, findings) = dossier::config::Config::examine_text(Path::new("dossier.toml"), &block);
                    let wrong: Vec<_> = findings
                        .iter()
                        .map(ToString::to_string)
                        // A part of a configuration names what another part defines, and variables that are not set here.
                        .filter(|said| {
                            said.contains("unknown key") || said.contains("invalid type") || said.contains("is no ")
                        })
                        .filter(|said| !said.contains("there is no"))
                        .collect();
                    assert!(wrong.is_empty(), "{}: {wrong:?}\n{block}", page.display());
                }
                _ => {}
            }
        }
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn the_page_on_configuration_names_exactly_what_needs_a_restart() {
    let schema = dossier::config::schema::schema();
    let mut expected = BTreeSet::new();
    for (name, part) in schema["properties"].as_object().expect("sections") {
        let inner = part["properties"].as_object();
        let live = |part: &serde_json::Value| part["x-reload"] == true;
        match inner {
            _ if live(part) => {}
            Some(inner) if inner.values().any(live) => {
                expected.extend(inner.iter().filter(|(_, part)| !live(part)).map(|(name, _)| name.clone()));
                expected.insert(format!("[{name}]"));
            }
            Some(_) => drop(expected.insert(format!("[{name}]"))),
            None => drop(expected.insert(name.clone())),
        }
    }
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).expect("the page");
    let (_, list) = page.split_once("**What needs a restart**").expect("the page says what needs a restart");
    let (_, list) = list.split_once("nothing else of that file is taken over:").expect("then comes the list");
    let list = list.split_once(". ").expect("the sentence ends").0;
    let named: BTreeSet<_> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(named, expected);
}

#[test]
fn the_quick_start_does_what_it_says() {
    let place = root().join("target/quick-start");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).expect("an empty folder");
    // It begins in a clone in which everything is built.
    std::os::unix::fs::symlink(root().join("target"), place.join("target")).expect("what is built");
    let programs = built("release/dossier").parent().expect("a program lies in a folder").to_owned();
    built("plugins/geo.wasm");
    let page = std::fs::read_to_string(root().join("docs/quick-start.md")).expect("the page");
    let followed =
        blocks(&page).and_then(|blocks| Typist::new(&place, &programs).and_then(|typist| typist.follow(blocks)));
    followed.unwrap_or_else(|error| panic!("docs/quick-start.md: {error:#}"));
}
