//! What every task needs first: where things are, cargo, the host's build, a redis-server.
//!
//! It installs what is missing where that needs no question, and says how otherwise. How guests are built is `wasm`'s.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dossier_authoring::build;

/// Where everything is.
pub struct Project {
    /// The repository.
    pub root: PathBuf,
    /// Where cargo puts programs.
    release: PathBuf,
}

impl Project {
    /// Finds the project that this program was built from.
    ///
    /// # Errors
    /// When the program was moved away from it.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?.to_owned();
        let exe = std::env::current_exe().context("cannot tell where this program lies")?;
        // Beside this program: that holds with a target folder of one's own as well.
        let release = exe.parent().context("a program lies in a folder")?.to_owned();
        Ok(Self { root, release })
    }

    /// A program of the workspace.
    pub fn program(&self, name: &str) -> PathBuf {
        self.release.join(name)
    }

    /// A path as people write it: relative to where they are, where it is below that.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        let here = std::env::current_dir().unwrap_or_else(|_| self.root.clone());
        path.strip_prefix(here).unwrap_or(path).display()
    }

    /// The cargo that runs this task, in the repository.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).args(arguments);
        // What cargo told this program about itself is not for other builds: build scripts that look at it (ring's does)
        // would run again, and all that depends on them, whenever a build was called the other way before.
        for (name, _) in std::env::vars_os() {
            let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
            if name.to_str().is_some_and(|name| about_us.iter().any(|prefix| name.starts_with(prefix))) {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// Builds every program of the workspace. The whole of it at once, so that cargo chooses the same features for the demo,
    /// the tests and whoever types `cargo build`, and compiles wasmtime once.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn build(&self) -> Result<()> {
        if !self.program("dossier").exists() {
            say("Building dossier. The first time takes about ten minutes on two cores, most of it for wasmtime, the");
            say("WebAssembly runtime; every later build takes seconds.");
        }
        make()?;
        done("cargo build", self.cargo(&["build", "--release", "--workspace"]).status())
    }

    /// Builds the host that tests can kill at the places which it names: `dossier-failpoints`. The whole workspace is named here as well,
    /// so that no dependency is compiled a second time; of what is built only the host differs.
    ///
    /// # Errors
    /// It does not compile.
    pub fn build_with_failpoints(&self) -> Result<()> {
        let which = ["--features", "dossier/failpoints", "--bin", "dossier-failpoints"];
        let arguments = [&["build", "--release", "--workspace"][..], &which].concat();
        done("cargo build", self.cargo(&arguments).status())
    }
}

/// Says what goes on. On standard error, where cargo speaks as well, so that the order holds.
pub fn say(line: &str) {
    // A closed terminal is no reason to stop building.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Time as people read it.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// Turns the end of a program that has said itself what is wrong into a result.
pub fn done(what: &str, status: std::io::Result<ExitStatus>) -> Result<()> {
    let status = status.with_context(|| format!("cannot start {what}"))?;
    ensure!(status.success(), "{what} failed; what is wrong stands above");
    Ok(())
}

/// Sees to it that `cargo fmt` and `cargo clippy` are there: rustup's minimal profile leaves them out.
pub fn lints(project: &Project) -> Result<()> {
    let there = || ["fmt", "clippy"].iter().all(|tool| quietly(&mut project.cargo(&[tool, "--version"])));
    if there() || (quietly(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"])) && there()) {
        return Ok(());
    }
    bail!("cargo fmt or cargo clippy is missing; type: rustup component add rustfmt clippy")
}

/// Sees to it that there is a `make`, with which the host's allocator is built.
fn make() -> Result<()> {
    need("make", "Fedora: sudo dnf install make; macOS: xcode-select --install")
}

/// Sees to it that there is a redis-server: on PATH, or from Debian's packages where this may install.
pub fn redis() -> Result<()> {
    if !answers("redis-server") {
        say(
            "Where there is an init system the package of redis-server also starts a Redis on 127.0.0.1:6379; the tests leave",
        );
        say("that alone and start servers of their own.");
    }
    need("redis-server", "Fedora: sudo dnf install redis; macOS: brew install redis")
}

/// Sees to it that there is a valgrind.
///
/// # Errors
/// There is none, and it may not be installed.
pub fn valgrind() -> Result<()> {
    need("valgrind", "Fedora: sudo dnf install valgrind")
}

fn answers(program: &str) -> bool {
    quietly(Command::new(program).arg("--version"))
}

/// Sees to it that there is a program, of Debian's package of the same name where this may install.
fn need(program: &str, elsewhere: &str) -> Result<()> {
    if answers(program) {
        return Ok(());
    }
    let by_hand = format!(
        "{program} is not on PATH; install it (Debian, Ubuntu: sudo apt-get install {program}; {elsewhere}) and run this again"
    );
    apt(&[program]).with_context(|| by_hand.clone())?;
    ensure!(answers(program), "{by_hand}");
    Ok(())
}

/// Sees to it that plugins in C, JavaScript and Python can be built, where that needs no question. Where it cannot be, their tests say
/// that they did not run.
pub fn languages() {
    let works = |program: &str, arguments: &[&str]| quietly(Command::new(program).args(arguments));
    language("C", &build::C_PACKAGES, || build::c_compiler().is_ok());
    language("JavaScript", &["nodejs", "npm"], || works("node", &["--version"]) && works("npm", &["--version"]));
    language("Python", &["python3", "python3-venv"], || works("python3", &["-c", "import venv, ensurepip"]));
}

/// Sees to it that there is a tmux, the terminal of the tests of `dossier top`, where that needs no question. Where it cannot be, they say
/// that they did not run.
pub fn terminal() {
    let there = || quietly(Command::new("tmux").arg("-V"));
    if there() {
        return;
    }
    if let Err(error) = apt(&["tmux"]) {
        say(&format!(
            "dossier top cannot be tried on a terminal here: {error:#}; its tests say that they did not run."
        ));
    }
}

fn language(language: &str, packages: &[&str], there: impl Fn() -> bool) {
    if there() {
        return;
    }
    let why = match apt(packages) {
        Ok(()) if there() => return,
        Ok(()) => "Debian's packages do not bring it".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    say(&format!("Plugins in {language} cannot be built here, and {why}; their tests say that they did not run."));
}

/// Installs Debian's packages where that needs no question. Nothing that is installed is removed for it.
///
/// # Errors
/// There is no apt-get, it would ask for a password, or it fails.
pub fn apt(packages: &[&str]) -> Result<()> {
    ensure!(quietly(Command::new("apt-get").arg("--version")), "there is no apt-get here");
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let sudo: &[&str] = if root { &[] } else { &["sudo", "-n"] };
    ensure!(root || quietly(Command::new("sudo").args(["-n", "true"])), "apt-get may not be run without a password");
    say(&format!("installing with apt-get: {}", packages.join(" ")));
    let apt = |arguments: &[&str]| {
        let words = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"], arguments].concat();
        let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {}", words[0]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`apt-get {}` failed: {}", arguments.join(" "), said.trim());
        Ok(())
    };
    let install = [&["install", "--no-remove", "--no-install-recommends"], packages].concat();
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

/// Whether a program ends well; what it says is of no interest.
fn quietly(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(605)), "10 min 05 s");
    }
}
