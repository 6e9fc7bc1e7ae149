//! `dossier plugin build`: builds the plugin of a folder and says what came of it. How each language is built is `authoring`'s.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use dossier_authoring::build;

use crate::cli::output::{Out, grouped, printable, remark};

use super::inspect::{write_asks, write_imports};

/// What `dossier plugin build` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin build
  dossier plugin build plugins/owners && cp plugins/owners/owners.wasm /srv/dossier/plugins/")]
pub struct Arguments {
    /// The plugin's folder
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Builds, and says where the component is, how large, what it imports and what it asks for.
///
/// # Errors
/// A tool is missing, the source does not compile, or what it makes is no plugin.
pub fn build<W: Write>(arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let built = build::build(&arguments.folder, &mut |line| remark(line))?;
    let path = built.path.strip_prefix(".").unwrap_or(&built.path);
    writeln!(out, "file      {}, {} bytes", printable(&path.display().to_string()), grouped(built.size))?;
    write_imports(&built.imports, out)?;
    write_asks(Some(&built.manifest), out)?;
    Ok(ExitCode::SUCCESS)
}
