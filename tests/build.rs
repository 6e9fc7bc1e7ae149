//! Makes a constant of every guest in `guests/`: the folder itself is the list. The suite takes them in where what is not used
//! is an error, so that a guest without a test does not compile.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=guests");
    let guests = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("guests");
    let mut code = String::new();
    for (folder, extension, make) in [
        ("mischief/src/modes", "rs", mode as fn(&str, &Path) -> String),
        ("text", "wat", text),
        ("made", "rs", made),
        ("c", "c", c),
    ] {
        for file in files(&guests.join(folder), extension) {
            let stem = file.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            let doc = doc(&file);
            let make = make(&stem, &file);
            write!(
                code,
                "#[doc = {doc:?}]\npub const {}: Guest = Guest {{ name: {:?}, source: {make} }};\n",
                stem.to_uppercase(),
                stem.replace('_', "-"),
            )
            .expect("a text can be written to");
        }
    }
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("guests.rs"), code).expect("the output folder can be written to");
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folders of guests are there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// The first line of a guest's comment: what it does.
fn doc(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a guest can be read");
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches(['/', '!', ';', '*']).trim().to_owned()
}

fn mode(stem: &str, _: &Path) -> String {
    format!("Source::Mode({:?})", stem.replace('_', "-"))
}

fn text(_: &str, file: &Path) -> String {
    format!("Source::Text(include_str!({file:?}))")
}

fn made(stem: &str, file: &Path) -> String {
    format!("{{\n    #[path = {file:?}]\n    mod {stem};\n    Source::Made({stem}::component)\n}}")
}

fn c(_: &str, file: &Path) -> String {
    format!("Source::C({file:?})")
}
