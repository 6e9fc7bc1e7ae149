//! The project's tasks. Each task is a module; this file only names them.

mod wasm;

use std::path::Path;

use clap::Parser;

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Build the plugins and the test guests to target/plugins and target/guests.
    Plugins,
}

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(1)
        .unwrap_or(Path::new("."));
    match Task::parse() {
        Task::Plugins => wasm::build(root).and_then(|()| wasm::print(root)),
    }
}
