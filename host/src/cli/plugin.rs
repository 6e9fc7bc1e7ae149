//! `dossier plugin`: what the author of a plugin types. Everything here works without a configuration and without a host.

mod bench;
mod build;
mod fixture;
mod inspect;
mod new;
mod paste;
mod run;
mod test;
pub(super) mod trying;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use dossier_authoring::language::Language;

use super::output::Out;

/// What to do with a plugin.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Begin a plugin: a folder that builds as it stands
    New(new::Arguments),

    /// Make a component of a plugin's source
    Build(build::Arguments),

    /// Show what a component is, what it asks for, and a step to paste
    Inspect(inspect::Arguments),

    /// Enrich one alert with a component
    Run(run::Arguments),

    /// Try a component on its fixtures, and show what is not as expected
    Test(test::Arguments),

    /// Measure what a component costs, and suggest limits
    Bench(bench::Arguments),
}

/// Does what is asked; `file` is the configuration, for those that are told to look at it.
///
/// # Errors
/// What the command says.
pub async fn execute<W: Write>(command: Command, file: &Path, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(arguments) => new::new(&arguments, out),
        Command::Build(arguments) => build::build(&arguments, out),
        Command::Inspect(arguments) => inspect::inspect(&arguments, out).await,
        Command::Run(arguments) => run::run(&arguments, file, out).await,
        Command::Test(arguments) => test::test(&arguments, out).await,
        Command::Bench(arguments) => bench::bench(&arguments, file, out).await,
    }
}

/// Reads a language by its name.
fn language() -> impl clap::builder::TypedValueParser<Value = Language> {
    PossibleValuesParser::new(Language::ALL.map(Language::as_str)).try_map(|text| text.parse::<Language>())
}
