//! The benchmark's program: see the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dossier_bench::{floor, measure, native, peer, scaling, targets};

/// Measures dossier. Started by `cargo xtask bench`.
#[derive(Debug, Parser)]
#[command(name = "dossier-bench")]
enum Command {
    /// Measure every row and print the figures as JSON
    Measure(measure::Arguments),
    /// Measure what was aimed at beside the rows, and print the figures as JSON
    Targets(targets::Arguments),
    /// Measure how the figures change with one thing at a time, and print them as JSON
    Scaling(scaling::Arguments),
    /// Be the floor: move alerts from stream to stream as fast as the client library can
    Floor {
        /// The server
        url: String,
    },
    /// Be dossier's queue, record and log line around nothing
    Queue {
        /// The configuration
        config: PathBuf,
    },
    /// Be dossier's queue, record and log line around a library of bench/peers
    Peer {
        /// The configuration
        config: PathBuf,
        /// The library
        library: PathBuf,
        /// In which mode it is opened
        #[arg(default_value = "")]
        mode: String,
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
        Command::Targets(arguments) => targets::run(&arguments),
        Command::Scaling(arguments) => scaling::run(&arguments),
        Command::Peer { config, library, mode } => peer::run(&config, || peer::library(&library, &mode)),
        Command::Queue { config } => peer::run(&config, peer::nothing),
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
