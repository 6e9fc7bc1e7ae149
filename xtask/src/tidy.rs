//! The house rules that a program can check. What it cannot check is for review: see CONTRIBUTING.md.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The longest file, in lines.
const LONGEST: usize = 500;

/// Where sources lie, and what is no source there.
const SOURCES: [&str; 9] = ["authoring", "bench", "fuzz", "host", "plugins", "sdk", "tests", "threat-api", "xtask"];
const NO_SOURCES: [&str; 3] = ["target", "node_modules", ".git"];

/// What may not stand in a source. In two pieces, so that this file may be checked as well.
const FORBIDDEN: [(&str, &str, &str); 6] = [
    ("TO", "DO", "finish it, or open an issue"),
    ("FIX", "ME", "fix it, or open an issue"),
    ("#[ig", "nore", "a test that does not run tests nothing"),
    ("dbg", "!(", "emit an event instead"),
    ("to", "do!(", "write it"),
    ("unimple", "mented!(", "write it"),
];

/// Folders of a person's own machine.
const HOMES: [(&str, &str); 3] = [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/")];

/// Checks all rules.
///
/// # Errors
/// Everything that breaks one, each with its place.
pub fn check(root: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for folder in SOURCES {
        for file in files(&root.join(folder))? {
            if file.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                // With slashes, so that the rules can name places.
                let name = file.strip_prefix(root)?.components().map(|part| part.as_os_str().to_string_lossy());
                problems.extend(source(&name.collect::<Vec<_>>().join("/"), &text));
            }
        }
    }
    if !problems.is_empty() {
        bail!("{} house rules are broken:\n{}", problems.len(), problems.join("\n"));
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if NO_SOURCES.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with one source.
fn source(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    // The tests of a module own what their names say.
    if !name.ends_with("/tests.rs") && !after_attributes(text).starts_with("//!") {
        problems.push(format!("{name}:1: begins without //!; say what the module owns and what it does not"));
    }
    let lines = text.lines().count();
    if lines > LONGEST {
        problems.push(format!("{name}: {lines} lines, {LONGEST} are the most; give each of its jobs a file"));
    }
    let in_host = name.starts_with("host/src/");
    for (number, line) in text.lines().enumerate() {
        let mut report = |what: String| problems.push(format!("{name}:{}: {what}", number + 1));
        for (head, tail, instead) in FORBIDDEN {
            if line.contains(&format!("{head}{tail}")) {
                report(format!("{head}{tail}: {instead}"));
            }
        }
        for (head, tail) in HOMES {
            if line.contains(&format!("{head}{tail}")) {
                report(format!("{head}{tail}: a path of one machine"));
            }
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        if in_host && !name.starts_with("host/src/plugin") && names_crate(line, "wasmtime") {
            report("names wasmtime; only host/src/plugin/ may".into());
        }
        // queue.rs names its own module, which is called as the crate is.
        if in_host && !name.starts_with("host/src/queue") && names_crate(line, "redis") {
            report("names the crate redis; only host/src/queue/redis may".into());
        }
    }
    problems
}

/// Whether a line of code names a crate, and not a module of that name (`queue::redis`).
fn names_crate(line: &str, name: &str) -> bool {
    let word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_:.\"".contains(&byte));
    line.match_indices(name).any(|(at, _)| {
        let rest = &line[at + name.len()..];
        let before = at.checked_sub(1).map(|before| line.as_bytes()[before]);
        !word(before) && (rest.starts_with("::") || rest.starts_with('_') && rest.contains("::"))
    })
}

/// A source without its inner attributes.
fn after_attributes(text: &str) -> &str {
    let mut text = text.trim_start();
    while text.starts_with("#![") {
        let mut depth = 0;
        let end = text.find(|character| {
            depth += match character {
                '[' => 1,
                ']' => -1,
                _ => 0,
            };
            character == ']' && depth == 0
        });
        let Some(end) = end else { return text };
        text = text[end + 1..].trim_start();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_keeps_the_rules() {
        check(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
    }

    fn problems(name: &str, code: &str) -> usize {
        source(name, &format!("//! A module.\n{code}\n")).len()
    }

    #[test]
    fn a_module_begins_with_what_it_owns() {
        assert_eq!(source("host/src/x.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(source("host/src/x/tests.rs", "use super::*;\n").len(), 0);
        assert_eq!(source("host/src/x.rs", "#![cfg_attr(test, allow(x, reason = \"[]\"))]\n//! A module.\n").len(), 0);
    }

    #[test]
    fn what_is_unfinished_is_found() {
        for (head, tail, _) in FORBIDDEN {
            assert_eq!(problems("host/src/x.rs", &format!("    {head}{tail}")), 1, "{head}{tail}");
        }
    }

    #[test]
    fn a_file_may_be_as_long_as_the_bound_and_no_longer() {
        assert_eq!(problems("host/src/x.rs", &"\n".repeat(LONGEST - 2)), 0);
        assert_eq!(problems("host/src/x.rs", &"\n".repeat(LONGEST)), 1);
    }

    #[test]
    fn the_arrows_between_modules_are_kept() {
        assert_eq!(problems("host/src/worker.rs", "use wasmtime::Engine;"), 1);
        assert_eq!(problems("host/src/worker.rs", "use wasmtime_wasi::p2;"), 1);
        assert_eq!(problems("host/src/plugin/engine.rs", "use wasmtime::Engine;"), 0);
        assert_eq!(problems("host/src/worker.rs", "// wasmtime::Engine does that"), 0);
        assert_eq!(problems("host/src/worker.rs", "let client = redis::Client::open(url);"), 1);
        assert_eq!(problems("host/src/worker.rs", "queue::redis::RedisQueue::open(url)"), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for (head, tail) in HOMES {
            assert_eq!(problems("tests/x.rs", &format!("let path = \"{head}{tail}me/x\";")), 1);
        }
    }
}
