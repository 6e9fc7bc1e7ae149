//! Tests that a machine lacks something for. They do not pass in silence: `cargo xtask test` names and counts them, and in CI they
//! fail.

use crate::host::root;

/// Says that a test did not run. Return after it.
///
/// # Panics
/// In CI, which is where the environment variable `CI` is set: there everything must be there.
pub fn not_run(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {why}");
    println!("not run: {test}: {why}");
    let folder = root().join("target/not-run");
    std::fs::create_dir_all(&folder).expect("a folder for what did not run");
    std::fs::write(folder.join(test), why).expect("a note of what did not run");
}
