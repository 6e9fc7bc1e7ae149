//! `dossier plugin build`: builds the plugin of a folder, or makes one of what another tool compiled, and says what came of it. How each language is built is `authoring`'s.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dossier_authoring::build;

use crate::cli::output::{Out, grouped, printable, remark};

use super::inspect::{write_asks, write_imports};

/// What `dossier plugin build` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin build
  dossier plugin build plugins/owners && cp plugins/owners/owners.wasm /srv/dossier/plugins/
  dossier plugin build build/owners.wasm     What your own compiler wrote, with ./plugin.toml: ./owners.wasm")]
pub struct Arguments {
    /// The plugin's folder; or a compiled .wasm file, in any language, to which ./plugin.toml is added
    #[arg(value_name = "FOLDER|FILE", default_value = ".")]
    source: PathBuf,
}

/// Builds, and says where the component is, how large, what it imports and what it asks for.
///
/// # Errors
/// A tool is missing, the source does not compile, or what it makes is no plugin.
pub fn build<W: Write>(arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let built =
        if arguments.source.extension().is_some_and(|extension| extension == "wasm") && arguments.source.is_file() {
            build::wrap(&arguments.source, Path::new("."))?
        } else {
            build::build(&arguments.source, &mut |line| remark(line))?
        };
    let path = built.path.strip_prefix(".").unwrap_or(&built.path);
    writeln!(out, "file      {}, {} bytes", printable(&path.display().to_string()), grouped(built.size))?;
    write_imports(&built.imports, out)?;
    write_asks(Some(&built.manifest), out)?;
    Ok(ExitCode::SUCCESS)
}
