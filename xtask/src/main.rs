//! The project's tasks, called as `cargo xtask TASK`. Each does its own set-up and asks for nothing.
//!
//! It owns what a newcomer types first; it knows dossier only as a program with a command line and files, as its users do.

mod bench;
mod demo;
mod docs;
mod faults;
mod fuzz;
mod setup;
mod test;
mod tidy;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Project;

/// The project's tasks. Each does its own set-up and asks for nothing.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "\
Examples:
  cargo xtask demo                 See what dossier does, on the project's sample alerts
  cargo xtask test                 Run every check and every test
  cargo xtask test redis           Run the tests with \"redis\" in their name, no checks
  cargo xtask plugins              Build plugins/*.wasm after a change to one of them"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Take the sample alerts through the directory queue and show what became of them
    ///
    /// Builds host and plugins, puts the alerts of examples/demo/ into a fresh queue in target/demo/, lets the host enrich
    /// them, and shows the records, what failed and why, and what to try next.
    #[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo && target/release/dossier --config target/demo/dossier.toml dlq list")]
    Demo,
    /// Check formatting, lints and house rules, and run every test
    ///
    /// Sets up what the tests need (a redis-server, the plugins), then runs what fails fast first. Stops at the first part
    /// that fails.
    #[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test a_plugin            Only tests of this name, and no checks
  cargo xtask test redis -- --nocapture")]
    Test(test::Arguments),
    /// Run every fault that dossier must survive, by its number, and write docs/reliability.md
    ///
    /// Each runs alone, against real processes: a redis-server and hosts of its own. Faults by number are run and shown; without
    /// numbers all of them are, which takes a while, and the table of docs/reliability.md is written.
    #[command(after_help = "\
Examples:
  cargo xtask faults
  cargo xtask faults 6 24
  cargo xtask faults 51 --mix 60             An hour of everything at once
  cargo xtask faults 51 --seed 4711          Repeat what a failed run named")]
    Faults(faults::Arguments),
    /// Measure dossier beside what the same queue can do without it, and write docs/performance.md
    ///
    /// Builds in release, starts a redis-server of its own, and takes the same alerts through every row of the table; then measures what
    /// was aimed at beside rates, and what changes with workers, batch, size, steps and so on. Without options all of it, into the
    /// page; an option that says "only" measures that part and prints it.
    #[command(after_help = "\
Examples:
  cargo xtask bench                          All of it: about a quarter of an hour
  cargo xtask bench --quick                  A minute: does it work?
  cargo xtask bench --rows floor,fresh
  cargo xtask bench --rows fresh,vrl         Peers are built first: some minutes, once
  cargo xtask bench --scaling
  cargo xtask bench --long 10000000          Cost and memory over ten million alerts
  cargo xtask bench --micro                  What the parts of an alert's way take
  cargo xtask bench --check                  Has anything become dearer? Instructions, not time")]
    Bench(bench::Arguments),
    /// Feed nonsense to everything that reads what comes from outside, and look for new ways through it
    ///
    /// libFuzzer drives the targets of fuzz/; what it finds is named and stays in target/fuzz/. `cargo xtask test` feeds the same targets
    /// with their corpora and a fixed number of mutations.
    #[command(after_help = "\
Examples:
  cargo xtask fuzz                           20 seconds each
  cargo xtask fuzz mmdb --minutes 60")]
    Fuzz(fuzz::Arguments),
    /// Build the plugins: target/plugins/*.wasm
    #[command(after_help = "\
Examples:
  cargo xtask plugins
  cargo xtask plugins && cp target/plugins/geo.wasm /srv/dossier/plugins/")]
    Plugins,
    /// Make the references anew: docs/plugins/reference.md from the contract, docs/configuration-reference.md from the program
    Docs,
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    let done = Project::find().and_then(|project| match task {
        Task::Demo => demo::run(&project),
        Task::Test(arguments) => test::run(&project, &arguments),
        Task::Faults(arguments) => faults::run(&project, &arguments),
        Task::Bench(arguments) => bench::run(&project, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&project, &arguments),
        Task::Plugins => wasm::build(&project.root).and_then(|()| wasm::print(&project.root)),
        Task::Docs => project.build().and_then(|()| docs::write(&project.root)),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
