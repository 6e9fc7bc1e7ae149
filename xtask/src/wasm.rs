//! Builds the guests: finds a wasm toolchain by looking, compiles the workspace `plugins/` and makes components of it.
//!
//! It owns `target/wasm` (cargo's), `target/plugins` and `target/guests` (the components). It installs what is missing
//! where it may, asks nothing, and knows nothing of what the host does with a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use dossier_authoring::manifest::Manifest;
use wit_component::{ComponentEncoder, DecodedWasm};

const TARGET: &str = "wasm32-unknown-unknown";

/// Every guest: the folder under `target/` that it goes to, and its package.
const GUESTS: [(&str, &str); 6] = [
    ("plugins", "ip-reputation"),
    ("plugins", "asset"),
    ("plugins", "geo"),
    ("plugins", "verdict"),
    ("guests", "mischief"),
    ("guests", "preview"),
];

/// Debian's Rust, its standard library's source, and a linker: all that building for wasm takes.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// Builds every guest to `target/plugins/*.wasm` and `target/guests/*.wasm`. A file whose bytes are the same is left
/// alone, so that its time says when it last changed.
///
/// # Errors
/// No toolchain can be had (the text says what to install), a guest does not compile, or it imports what is not ours.
pub fn build(root: &Path) -> Result<()> {
    let toolchain = Toolchain::find(root)?;
    if GUESTS.iter().any(|(folder, name)| !component(root, folder, name).exists()) {
        eprintln!("building the plugins for wasm; the first time takes a minute or two");
    }
    let status = toolchain.cargo(root).args(["build", "--release", "--locked", "--quiet", "--target", TARGET]).status();
    ensure!(status.context("cannot run cargo for the plugins")?.success(), "the plugins do not compile");
    for (folder, name) in GUESTS {
        let module =
            root.join("target/wasm").join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
        let module = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let mut bytes = encode(&module).with_context(|| format!("cannot make a component of {name}"))?;
        if let Ok(manifest) = fs::read_to_string(root.join("plugins").join(name).join("plugin.toml")) {
            let manifest =
                Manifest::from_toml(&manifest).map_err(|why| anyhow!("plugins/{name}/plugin.toml: {why}"))?;
            manifest.append_to(&mut bytes).map_err(|why| anyhow!("plugins/{name}/plugin.toml: {why}"))?;
        }
        write_if_changed(&component(root, folder, name), &bytes)?;
    }
    Ok(())
}

/// Prints what was built: the path, the size in bytes and the imports of each component.
///
/// # Errors
/// A component is missing or is none.
pub fn print(root: &Path) -> Result<()> {
    for (folder, name) in GUESTS {
        let path = component(root, folder, name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        println!("{}  {} bytes  {}", path.strip_prefix(root)?.display(), bytes.len(), imports(&bytes)?.join(" "));
    }
    Ok(())
}

fn component(root: &Path, folder: &str, name: &str) -> PathBuf {
    root.join("target").join(folder).join(format!("{name}.wasm"))
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let bytes = ComponentEncoder::default().validate(true).module(module)?.encode()?;
    let foreign: Vec<_> = imports(&bytes)?.into_iter().filter(|name| !name.starts_with("dossier:plugin/")).collect();
    ensure!(foreign.is_empty(), "it imports {}, which is not in wit/", foreign.join(", "));
    Ok(bytes)
}

fn imports(component: &[u8]) -> Result<Vec<String>> {
    match wit_component::decode(component)? {
        DecodedWasm::Component(resolve, world) => {
            Ok(resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect())
        }
        DecodedWasm::WitPackage(..) => bail!("a WIT package, not a component"),
    }
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("a component has a folder")?;
    fs::create_dir_all(folder)?;
    let aside = folder.join(format!(".{}.{}", path.file_name().unwrap_or_default().display(), std::process::id()));
    fs::write(&aside, bytes)?;
    fs::rename(&aside, path).with_context(|| format!("cannot write {}", path.display()))
}

/// A way to compile for wasm.
enum Toolchain {
    /// The active toolchain has the target's standard library.
    Active,
    /// Debian's, which builds the standard library from its source.
    Debian,
}

impl Toolchain {
    /// Looks for one; the first that works is taken. Installs what is missing where that needs no question.
    fn find(root: &Path) -> Result<Self> {
        let rustc = active("rustc").arg("-vV").output().map(|output| output.stdout).unwrap_or_default();
        if has_target() {
            return Ok(Self::Active);
        }
        // What rustup could not add to this very compiler it need not be asked for again, as long as there is another way.
        let memory = root.join("target/wasm/rustup-cannot");
        let known = fs::read(&memory).is_ok_and(|compiler| compiler == rustc);
        if !(known && debian_is_there()) && rustup_adds_target() && has_target() {
            return Ok(Self::Active);
        }
        if !debian_is_there() {
            install_debian()?;
        }
        ensure!(debian_is_there(), "{}", advice("Debian's packages were installed, but do not give what is needed"));
        write_if_changed(&memory, &rustc)?;
        Ok(Self::Debian)
    }

    /// Its cargo, in the workspace of the guests, freed of what the cargo that runs us has put into the environment.
    fn cargo(&self, root: &Path) -> Command {
        let mut command = match self {
            Self::Active => active("cargo"),
            Self::Debian => {
                let mut command = clean(DEBIAN_CARGO);
                command.env_remove("RUSTUP_TOOLCHAIN");
                // `build-std` asks for a nightly compiler or this; what it builds is the compiler's own library.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
                command.env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort");
                command
            }
        };
        command.current_dir(root.join("plugins"));
        command
    }
}

/// A program of the active toolchain, by way of rustup where that is in use.
fn active(program: &str) -> Command {
    clean(program)
}

/// A command without the settings of the build that runs us: they are for another target and perhaps another compiler.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let kept = ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"].contains(&text)
            || ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "RUSTUP_DIST_"]
                .iter()
                .any(|kind| text.starts_with(kind));
        let cargos = ["CARGO", "RUST", "LD_LIBRARY_PATH"].iter().any(|kind| text.starts_with(kind));
        if cargos && !kept {
            command.env_remove(&name);
        }
    }
    command
}

fn has_target() -> bool {
    let output = active("rustc").args(["--print", "target-libdir", "--target", TARGET]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() && output.status.success()
    })
}

fn rustup_adds_target() -> bool {
    // Without retries: a machine without a network must not be waited for.
    succeeds(active("rustup").args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "0"))
}

fn debian_is_there() -> bool {
    let sysroot =
        clean(DEBIAN_RUSTC).args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").stderr(Stdio::null()).output();
    let source = |output: std::process::Output| {
        Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib/src/rust/library/std").is_dir()
    };
    Path::new(DEBIAN_CARGO).exists() && Path::new(DEBIAN_LINKER).exists() && sysroot.is_ok_and(source)
}

fn install_debian() -> Result<()> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let prefix: &[&str] = match root {
        true => &[],
        false if succeeds(Command::new("sudo").args(["-n", "true"])) => &["sudo", "-n"],
        false => bail!("{}", advice("rustup cannot add the target, and apt-get may not be run without a password")),
    };
    eprintln!("installing Debian's {} to build for wasm", DEBIAN_PACKAGES.join(" "));
    // Nothing that is installed is removed for it: a machine's own Rust stays.
    let install: Vec<&str> = ["apt-get", "install", "-qq", "-y", "--no-remove", "--no-install-recommends"]
        .into_iter()
        .chain(DEBIAN_PACKAGES)
        .collect();
    for line in [&["apt-get", "update", "-qq"][..], &install] {
        let words: Vec<&str> =
            prefix.iter().chain(["env", "DEBIAN_FRONTEND=noninteractive"].iter()).chain(line).copied().collect();
        let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
        let output = output.with_context(|| advice(&format!("cannot run {}", words[0])))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", advice(&format!("`{}` failed: {}", line.join(" "), said.trim())));
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn advice(what: &str) -> String {
    format!(
        "{what}; the plugins are built for {TARGET}: type `rustup target add {TARGET}`, or on Debian \
         `sudo apt-get install --no-install-recommends {}`, and run this again",
        DEBIAN_PACKAGES.join(" ")
    )
}
