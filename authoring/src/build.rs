//! Builds a plugin: finds out what it is written in, calls that language's tools, and puts what the plugin asks for into the
//! component. It installs nothing but what a project's own file names, from the language's registry, into the project's folder.

mod c;
mod javascript;
mod python;
mod rust;
mod world;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::component;
use crate::language::Language;
use crate::manifest::Manifest;
use crate::toolchain;

pub use c::{PACKAGES as C_PACKAGES, compiler as c_compiler};

/// A component that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The plugin's name: the stem of its file.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What it imports, in its own order.
    pub imports: Vec<String>,
    /// What it asks for.
    pub manifest: Manifest,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder is no plugin's.
    #[error("{} is no plugin's folder: it has none of {}; `dossier plugin new` makes one", .0.display(), marks())]
    NoPlugin(PathBuf),
    /// Something in the project is not as it must be.
    #[error("{}: {why}", .path.display())]
    Project {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A tool is not on this machine.
    #[error("{what}; {next}")]
    Missing {
        /// Which one, and what for.
        what: String,
        /// What to type.
        next: String,
    },
    /// The registry's client could not get what the project names. It has said why.
    #[error("`{0}` failed; why stands above")]
    Install(String),
    /// The language's tool has refused the source, and has said why.
    #[error("`{0}` failed; why stands above")]
    Compile(String),
    /// What was compiled is no plugin.
    #[error(transparent)]
    Component(#[from] component::ComponentError),
}

impl BuildError {
    /// Whether the machine lacks something, a tool or a registry: with the same source it may work elsewhere.
    pub const fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Install(_))
    }

    fn project(path: &Path, why: impl ToString) -> Self {
        Self::Project { path: path.to_owned(), why: why.to_string() }
    }
}

impl From<toolchain::NoToolchain> for BuildError {
    fn from(missing: toolchain::NoToolchain) -> Self {
        Self::Missing { what: missing.what, next: missing.next }
    }
}

fn marks() -> String {
    Language::ALL.map(Language::mark).join(", ")
}

/// Takes a line that tells what goes on.
pub type Say<'a> = &'a mut dyn FnMut(&str);

/// Builds the plugin of a folder to `FOLDER/NAME.wasm`. What it does meanwhile it tells `say`, a line at a time; what the
/// language's own tools say goes to the standard error as it is. A file whose bytes are the same is left alone.
///
/// # Errors
/// See [`BuildError`].
pub fn build(folder: &Path, say: Say<'_>) -> Result<Built, BuildError> {
    let language = prepare(folder, say)?;
    // What it asks for first: a mistake there need not wait for the compiler.
    let manifest = asks(folder)?;
    let (name, bytes) = match language {
        Language::Rust => rust::build(folder, say)?,
        Language::JavaScript => javascript::build(folder)?,
        Language::Python => python::build(folder)?,
        Language::C => c::build(folder)?,
    };
    finish(folder, name, bytes, manifest)
}

/// Makes a plugin of what another tool compiled, in whatever language: a component, or a core module that carries its world. What
/// it asks for stands in the `plugin.toml` of `folder`, and `FOLDER/NAME.wasm` is written, NAME being the stem of the compiled file.
///
/// # Errors
/// It cannot be read, is no plugin, is finished already, or would be written over.
pub fn wrap(compiled: &Path, folder: &Path) -> Result<Built, BuildError> {
    let manifest = asks(folder)?;
    let bytes = fs::read(compiled).map_err(|error| BuildError::project(compiled, error))?;
    let name = compiled.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let same = |path: &Path| path.canonicalize().is_ok_and(|path| compiled.canonicalize().is_ok_and(|it| it == path));
    if same(&folder.join(format!("{name}.wasm"))) {
        let why = format!("it would be written over; let your compiler write it elsewhere, as in build/{name}.wasm");
        return Err(BuildError::project(compiled, why));
    }
    if Manifest::read(&bytes) != Ok(None) {
        let why = "it carries what it asks for already; take what your compiler wrote";
        return Err(BuildError::project(compiled, why));
    }
    let bytes = if wasmparser::Parser::is_core_wasm(&bytes) { component::encode(&bytes)? } else { bytes };
    finish(folder, name, bytes, manifest)
}

/// What the plugin of a folder asks for.
fn asks(folder: &Path) -> Result<Manifest, BuildError> {
    let file = folder.join("plugin.toml");
    match fs::read_to_string(&file) {
        Ok(text) => Manifest::from_toml(&text).map_err(|why| BuildError::project(&file, why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Manifest::default()),
        Err(error) => Err(BuildError::project(&file, error)),
    }
}

fn finish(folder: &Path, name: String, mut bytes: Vec<u8>, manifest: Manifest) -> Result<Built, BuildError> {
    let imports = component::check(&bytes)?;
    manifest.append_to(&mut bytes).map_err(|why| BuildError::project(&folder.join("plugin.toml"), why))?;
    let path = folder.join(format!("{name}.wasm"));
    component::write_if_changed(&path, &bytes).map_err(|error| BuildError::project(&path, error))?;
    Ok(Built { name, path, size: bytes.len() as u64, imports, manifest })
}

/// Gets what the build needs, and gives the language: looks for the tools, and has the language's registry fill the project's
/// folder. [`build`] does this by itself.
///
/// # Errors
/// The folder is no plugin's; or the machine lacks something.
pub fn prepare(folder: &Path, say: Say<'_>) -> Result<Language, BuildError> {
    let language = Language::of(folder).ok_or_else(|| BuildError::NoPlugin(folder.to_owned()))?;
    match language {
        Language::Rust => rust::prepare(folder, say)?,
        Language::JavaScript => javascript::prepare(folder, say)?,
        Language::Python => python::prepare(folder, say)?,
        Language::C => c::prepare()?,
    }
    Ok(language)
}

/// Runs a tool. What it says goes to the standard error, so that the standard output stays ours.
fn run(command: &mut Command) -> io::Result<bool> {
    Ok(command.stdout(Stdio::from(io::stderr())).status()?.success())
}

/// Whether a program is there and works.
fn works(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
