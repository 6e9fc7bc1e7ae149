//! Plugins in C: bindings are generated from the plugin's world, clang compiles them with the plugin's sources against
//! wasi-libc, and the module becomes a component.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wit_bindgen_core::Files;

use super::world::World;
use super::{BuildError, run, works};
use crate::component;

/// Debian's packages that this takes.
pub const PACKAGES: [&str; 4] = ["clang-19", "lld-19", "wasi-libc", "libclang-rt-19-dev-wasm32"];

/// Where generated and compiled files go, in the plugin's folder.
const BUILD: &str = "build";

/// The compilers that are looked for, the first that works first.
const COMPILERS: [&str; 8] =
    ["clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16"];

pub(super) fn prepare() -> Result<(), BuildError> {
    compiler().map(drop)
}

/// A clang that compiles and links for wasm against a C library: that of `WASI_SDK_PATH`, or the first on PATH.
///
/// # Errors
/// There is none; the text says what to install.
pub fn compiler() -> Result<PathBuf, BuildError> {
    let sdk = std::env::var_os("WASI_SDK_PATH").map(|sdk| Path::new(&sdk).join("bin/clang"));
    let found = sdk.into_iter().chain(COMPILERS.map(PathBuf::from)).find(|clang| links(clang));
    found.ok_or_else(|| BuildError::Missing {
        what:
            "no clang here compiles C for wasm: it takes clang, lld, a libc and the compiler's runtime for wasm32-wasi"
                .into(),
        next: format!(
            "on Debian type `sudo apt-get install --no-install-recommends {}`; elsewhere unpack wasi-sdk \
             (https://github.com/WebAssembly/wasi-sdk) and let WASI_SDK_PATH name its folder",
            PACKAGES.join(" ")
        ),
    })
}

/// Whether a compiler finds all its parts: it is given nothing to do, and does it.
fn links(clang: &Path) -> bool {
    works(clang, &["--target=wasm32-wasi", "-mexec-model=reactor", "-x", "c", "/dev/null", "-o", "/dev/null"])
}

pub(super) fn build(folder: &Path) -> Result<(String, Vec<u8>), BuildError> {
    let clang = compiler()?;
    let mut world = World::of(folder)?;
    let build = folder.join(BUILD);
    generate(&mut world, &build)?;
    let module = Path::new(BUILD).join(format!("{}.wasm", world.name));
    let mut command = Command::new(&clang);
    command.current_dir(folder).args(["--target=wasm32-wasi", "-mexec-model=reactor", "-std=c17", "-Os"]);
    // A small stack keeps the memory small, and a fresh instance cheap.
    command.args(["-Wl,-z,stack-size=65536", "-Wl,--strip-all", "-Wall", "-Wextra", "-I", BUILD]);
    command.args(sources(folder, Path::new(""))?).args(sources(folder, Path::new(BUILD))?);
    command.arg(Path::new(BUILD).join(format!("{}_component_type.o", world.world.replace('-', "_"))));
    match run(command.arg("-o").arg(&module).stdin(Stdio::null())) {
        Ok(true) => {}
        Ok(false) => return Err(BuildError::Compile(clang.display().to_string())),
        Err(error) => return Err(BuildError::project(folder, format!("cannot run {}: {error}", clang.display()))),
    }
    let module = folder.join(module);
    let bytes = fs::read(&module).map_err(|error| BuildError::project(&module, error))?;
    Ok((world.name, component::encode(&bytes)?))
}

/// Writes the bindings anew.
fn generate(world: &mut World, build: &Path) -> Result<(), BuildError> {
    let mut files = Files::default();
    // The alert is lent for the call, and given back by the bindings: no plugin can forget it.
    let options = wit_bindgen_c::Opts { autodrop_borrows: wit_bindgen_c::Enabled::Yes, ..Default::default() };
    let mut generator = options.build();
    generator
        .generate(&mut world.resolve, world.id, &mut files)
        .map_err(|error| BuildError::project(build, format!("cannot generate the bindings: {error:#}")))?;
    // Nothing of an earlier world may be compiled.
    match fs::remove_dir_all(build) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(BuildError::project(build, error)),
        _ => fs::create_dir_all(build).map_err(|error| BuildError::project(build, error))?,
    }
    for (name, bytes) in files.iter() {
        let path = build.join(name);
        fs::write(&path, bytes).map_err(|error| BuildError::project(&path, error))?;
    }
    Ok(())
}

/// The C files of a folder in the plugin's, in order.
fn sources(plugin: &Path, folder: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let path = plugin.join(folder);
    let entries = fs::read_dir(&path).map_err(|error| BuildError::project(&path, error))?;
    let names = entries.filter_map(|entry| Some(folder.join(entry.ok()?.file_name())));
    let mut sources: Vec<_> = names.filter(|name| name.extension() == Some(OsStr::new("c"))).collect();
    sources.sort();
    Ok(sources)
}
