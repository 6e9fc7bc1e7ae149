//! `dossier plugin`: what the author of a plugin types. Everything here works without a configuration and without a host.

mod build;
mod new;

use std::io::Write;
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
}

/// Does what is asked.
///
/// # Errors
/// What the command says.
pub async fn execute<W: Write>(command: Command, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(arguments) => new::new(&arguments, out),
        Command::Build(arguments) => build::build(&arguments, out),
    }
}

/// Reads a language by its name.
fn language() -> impl clap::builder::TypedValueParser<Value = Language> {
    PossibleValuesParser::new(Language::ALL.map(Language::as_str)).try_map(|text| text.parse::<Language>())
}
