//! What a fault's test tells for the table of `cargo xtask faults`.

/// Says what happened, in a few words with their figures; `faults.toml` names the test.
pub fn happened(what: &str) {
    println!("happened: {what}");
}
