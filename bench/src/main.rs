//! The benchmark's program: takes the same alerts through dossier and through what it is compared with, and gives figures as
//! JSON. `cargo xtask bench` builds and starts it, prints the table and writes docs/performance.md.
//!
//! It is several programs in one, because each row is measured as a process of its own: `measure` starts the others (and
//! `dossier` itself) and watches them from outside.

mod alerts;
mod floor;
mod latency;
mod measure;
mod native;
mod place;
mod process;
mod row;
mod site;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures dossier. Started by `cargo xtask bench`.
#[derive(Debug, Parser)]
#[command(name = "dossier-bench")]
enum Command {
    /// Measure every row and print the figures as JSON
    Measure(measure::Arguments),
    /// Be the floor: move alerts from stream to stream as fast as the client library can
    Floor {
        /// The server
        url: String,
    },
    /// Be a host whose four steps are plain Rust
    Native {
        /// The configuration
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Measure(arguments) => measure::run(&arguments),
        Command::Floor { url } => floor::run(&url),
        Command::Native { config } => native::run(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
