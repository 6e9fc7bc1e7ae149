//! Finds a Rust toolchain that compiles for wasm, by looking: the active one if it has the target's standard library or
//! rustup can bring it, else Debian's, which builds the standard library from its source.
//!
//! It asks rustup to add the target, and installs nothing else; who may install more does it by [`DEBIAN_PACKAGES`].

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::component::write_if_changed;

/// The target of plugins in Rust.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's Rust, its standard library's source, and a linker: all that building for wasm takes.
pub const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// There is no toolchain that can compile for wasm.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {next}")]
pub struct NoToolchain {
    /// What is missing.
    pub what: String,
    /// What to type.
    pub next: String,
}

/// A way to compile for wasm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// The active toolchain has the target's standard library.
    Active,
    /// Debian's.
    Debian,
}

impl Toolchain {
    /// Looks for one; the first that works is taken. What rustup could not add to this very compiler is noted in the file
    /// `memory`, so that it need not be asked again as long as there is another way.
    ///
    /// # Errors
    /// There is none, and rustup cannot bring one.
    pub fn find(memory: &Path, say: &mut dyn FnMut(&str)) -> Result<Self, NoToolchain> {
        if has_target() {
            return Ok(Self::Active);
        }
        let rustc = clean("rustc").arg("-vV").output().map(|output| output.stdout).unwrap_or_default();
        let known = fs::read(memory).is_ok_and(|compiler| compiler == rustc);
        if !(known && debian_is_there()) && succeeds(clean("rustup").arg("--version")) {
            say(&format!("adding the target {TARGET} with rustup"));
            // Without retries: a machine without a network must not be waited for.
            let add = succeeds(clean("rustup").args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "0"));
            if add && has_target() {
                return Ok(Self::Active);
            }
        }
        if debian_is_there() {
            // Not to be able to note it costs a question next time.
            let _ = write_if_changed(memory, &rustc);
            return Ok(Self::Debian);
        }
        Err(NoToolchain {
            what: format!("no Rust toolchain here compiles for {TARGET}"),
            next: format!(
                "type `rustup target add {TARGET}`, or on Debian `sudo apt-get install --no-install-recommends {}`",
                DEBIAN_PACKAGES.join(" ")
            ),
        })
    }

    /// Its cargo, freed of what a cargo that runs us has put into the environment.
    pub fn cargo(self) -> Command {
        match self {
            Self::Active => clean("cargo"),
            Self::Debian => {
                let mut command = clean(DEBIAN_CARGO);
                command.env_remove("RUSTUP_TOOLCHAIN");
                // `build-std` asks for a nightly compiler or this; what it builds is the compiler's own library.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
                command.env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort");
                command
            }
        }
    }

    /// Its `cargo build` for wasm in a folder: a release, and the same bytes wherever the folder and cargo's home lie.
    pub fn build(self, folder: &Path) -> Command {
        let mut command = self.cargo();
        command.current_dir(folder).args(["build", "--release", "--target", TARGET]);
        let home = std::env::var_os("CARGO_HOME").map(Into::into);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        // What panics say names files.
        let here = fs::canonicalize(folder).ok();
        let names = [(here, "plugin"), (home, "cargo")];
        let maps: Vec<String> = names
            .into_iter()
            .filter_map(|(path, name)| Some(format!("--remap-path-prefix={}={name}", path?.to_str()?)))
            .collect();
        let flags = toml::Value::from(maps);
        command.arg("--config").arg(format!("target.{TARGET}.rustflags={flags}"));
        command
    }
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
    let output = clean("rustc").args(["--print", "target-libdir", "--target", TARGET]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() && output.status.success()
    })
}

fn debian_is_there() -> bool {
    let sysroot =
        clean(DEBIAN_RUSTC).args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").stderr(Stdio::null()).output();
    let source = |output: std::process::Output| {
        Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib/src/rust/library/std").is_dir()
    };
    Path::new(DEBIAN_CARGO).exists() && Path::new(DEBIAN_LINKER).exists() && sysroot.is_ok_and(source)
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
