//! `dossier plugin new`: writes the template of a language, and says what to type next.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use dossier_authoring::language::Language;
use dossier_authoring::template;

use crate::cli::output::{Out, printable};

/// What `dossier plugin new` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin new owners
  dossier plugin new owners --lang python
  cd owners && dossier plugin build && dossier plugin test")]
pub struct Arguments {
    /// The plugin's name: letters, digits and dashes; a folder of this name is made, or PATH/NAME
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// The language to write it in
    #[arg(long, value_name = "LANGUAGE", default_value = "rust", value_parser = super::language())]
    lang: Language,
}

/// Writes the folder.
///
/// # Errors
/// The name is none, the folder is there already, or it cannot be written.
pub fn new<W: Write>(arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    template::create(&arguments.folder, arguments.lang)?;
    let folder = printable(&arguments.folder.display().to_string());
    writeln!(out, "{folder} is a plugin in {}; {folder}/README.md says what is where", arguments.lang)?;
    writeln!(out, "next: cd {folder} && dossier plugin build")?;
    Ok(ExitCode::SUCCESS)
}
