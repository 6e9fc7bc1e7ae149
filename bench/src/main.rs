//! The benchmark's program: see the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dossier_bench::{floor, measure, native};

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
