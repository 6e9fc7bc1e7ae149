//! The tutorial for authors of plugins, typed to the letter: `docs/plugins/tutorial.md` is the test. What its blocks mean is said
//! in `tests/src/page.rs`.

use dossier_tests::host::{built, root};
use dossier_tests::page::blocks;
use dossier_tests::shell::Typist;

#[test]
fn the_tutorial_does_what_it_says() {
    // The same place each time, and cargo's folder kept: else the standard library for wasm would be compiled anew.
    let place = root().join("target/tutorial");
    let folder = place.join("work");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("an empty folder");
    std::fs::create_dir_all(place.join(".cargo")).expect("a folder above it");
    let target = format!("[build]\ntarget-dir = \"{}\"\n", place.join("cargo").display());
    std::fs::write(place.join(".cargo/config.toml"), target).expect("cargo's settings");

    let programs = built("release/dossier").parent().expect("a program lies in a folder").to_owned();
    let page = std::fs::read_to_string(root().join("docs/plugins/tutorial.md")).expect("the tutorial");
    let followed =
        blocks(&page).and_then(|blocks| Typist::new(&folder, &programs).and_then(|typist| typist.follow(blocks)));
    followed.unwrap_or_else(|error| panic!("docs/plugins/tutorial.md: {error:#}"));
}
