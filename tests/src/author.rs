//! New plugins, one in each language, made as an author makes them: `dossier plugin new` and `dossier plugin build`, in a folder
//! outside the repository. Building them takes minutes, so what came of it is kept in `target/languages/` until something that it
//! depends on changes: what `new` writes, what `build` does, or the Rust compiler.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dossier::digest::sha256_hex;
use dossier_authoring::build;
use dossier_authoring::language::Language;
use dossier_authoring::toolchain::Toolchain;

use crate::host::{built, root};

/// A new plugin that was built.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// Its name.
    pub name: String,
    /// A folder with its component, `tests/` and `try/`.
    pub folder: PathBuf,
}

impl NewPlugin {
    /// The component.
    pub fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }

    /// The component that was built again, in another folder, of what a clone of a repository would hold.
    pub fn again(&self) -> PathBuf {
        self.folder.join("again.wasm")
    }

    /// What `cargo test` said in the folder of a plugin in Rust.
    pub fn native(&self) -> PathBuf {
        self.folder.join("native.txt")
    }
}

/// Where components' code is kept from one run of the tests to the next: an interpreter takes a minute to compile.
pub fn cache() -> PathBuf {
    root().join("target/languages/cache")
}

/// `dossier` with these arguments and [`cache`].
pub fn dossier<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(built("release/dossier"));
    command.args(arguments).env("XDG_CACHE_HOME", cache());
    command
}

/// The new plugin of a language: kept from an earlier time, or made and built now.
///
/// # Errors
/// What the machine lacks for it, a tool or a registry.
///
/// # Panics
/// It cannot be built for any other reason.
pub fn new_plugin(language: Language) -> Result<NewPlugin, String> {
    let name = format!("lookup-{}", language.as_str());
    let place = tempfile::tempdir().expect("a temporary folder");
    let source = place.path().join("first").join(&name);
    let new = [OsStr::new("plugin"), "new".as_ref(), source.as_os_str(), "--lang".as_ref(), language.as_str().as_ref()];
    said(&mut dossier(new));
    let all = root().join("target/languages");
    fs::create_dir_all(&all).expect("a folder for plugins");
    let folder = all.join(format!("{}-{}", language.as_str(), &key(&source)[..16]));
    let plugin = NewPlugin { name, folder };
    // Several tests want it; the first one makes it.
    let lock = File::create(all.join(format!("{}.lock", language.as_str()))).expect("a lock");
    lock.lock().expect("the lock can be had");
    if !plugin.folder.exists() {
        make(language, &plugin, &source, &place.path().join("second").join(&plugin.name))?;
    }
    Ok(plugin)
}

/// Builds the plugin twice, the second time of what is not ignored; where it is in Rust, has cargo test it.
fn make(language: Language, plugin: &NewPlugin, source: &Path, clone: &Path) -> Result<(), String> {
    let all = plugin.folder.parent().expect("it lies in a folder");
    let mut took = Vec::new();
    let mut timed = |what: &str, command: &mut Command| {
        let began = Instant::now();
        let text = said(command);
        took.push(format!("{what}: {:.1} s", began.elapsed().as_secs_f64()));
        text
    };
    match build::prepare(source, &mut |_| ()) {
        Err(error) if error.is_of_the_machine() => return Err(error.to_string()),
        prepared => prepared.expect("a new plugin can be built"),
    };
    timed("build", &mut dossier([OsStr::new("plugin"), "build".as_ref(), source.as_os_str()]));
    let half = all.join(format!(".{}", language.as_str()));
    let _ = fs::remove_dir_all(&half);
    fs::create_dir(&half).expect("a folder for the plugin");
    if language == Language::Rust {
        let native = timed("cargo test", Toolchain::Active.cargo().arg("test").current_dir(source));
        fs::write(half.join("native.txt"), native).expect("a file");
    }
    let ignored = fs::read_to_string(source.join(".gitignore")).expect("a plugin says what is ignored");
    let ignored: Vec<_> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    copy(source, clone, &ignored);
    timed("build of a clone", &mut dossier([OsStr::new("plugin"), "build".as_ref(), clone.as_os_str()]));

    let file = format!("{}.wasm", plugin.name);
    fs::copy(source.join(&file), half.join(&file)).expect("it was built");
    fs::copy(clone.join(&file), half.join("again.wasm")).expect("it was built");
    for folder in ["tests", "try"] {
        copy(&source.join(folder), &half.join(folder), &[]);
    }
    println!("{}: {}", plugin.name, took.join(", "));
    fs::write(half.join("took.txt"), took.join("\n")).expect("a file");
    let entries = fs::read_dir(all).expect("the folder is there").map(|entry| entry.expect("an entry"));
    let earlier = format!("{}-", language.as_str());
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&earlier)) {
        fs::remove_dir_all(entry.path()).expect("what was kept earlier can be deleted");
    }
    fs::rename(half, &plugin.folder).expect("the plugin in its place");
    Ok(())
}

/// Runs a program, which must succeed; gives what it printed.
///
/// # Panics
/// It fails.
pub fn said(command: &mut Command) -> String {
    let output = command.stdin(std::process::Stdio::null()).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{out}{err}", output.status);
    out
}

/// A digest of all that the component depends on.
fn key(source: &Path) -> String {
    let mut text = said(Command::new("rustc").arg("-vV"));
    let files = [files(source), files(&root().join("authoring/src")), vec![root().join("Cargo.lock")]].concat();
    for file in files {
        let name = file.strip_prefix(source).unwrap_or(&file).display().to_string();
        text += &format!("{name} {}\n", sha256_hex(&fs::read(&file).expect("a file that was found can be read")));
    }
    sha256_hex(text.as_bytes())
}

/// Every file below a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Copies a folder without what has one of these names in it.
fn copy(from: &Path, to: &Path, without: &[&str]) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("an entry has a name");
        if without.iter().any(|ignored| name == *ignored) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name), &[]);
        } else {
            fs::copy(&path, to.join(name)).expect("a copy");
        }
    }
}
