//! Compiles components in a child process and keeps what came of it. A thread could be neither cancelled nor bounded, and
//! compiling must not slow the alerts.

mod starving;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use wasmtime::Engine;
use wasmtime::component::Component;

use self::starving::starves;
use super::COMPILE_MEMORY;
use super::contract::Contract;
use super::engine::Sandbox;
use super::host_calls::Said;
use super::snapshot::{Compiled, Report};
use crate::config::StepConfig;
use crate::digest::sha256_hex;
use crate::telemetry::Telemetry;
use crate::telemetry::events::PluginSaid;

/// Processor time that compiling may take, and how much more for each MiB: an interpreter of 18 MB takes minutes on one slow core.
/// It does not depend on what else the machine does, so a component that takes more is refused for good.
const CPU: Duration = Duration::from_secs(30);
const CPU_PER_MIB: Duration = Duration::from_secs(8);

/// How much longer than its processor time a child may live: where it has a low priority, and where it runs only when nobody else wants
/// the processor. One that is not done by then is begun anew with a low priority, or tried again later.
const PATIENCE: u32 = 3;
const PATIENCE_GIVING_WAY: u32 = 2;

/// How much a child may say, in bytes: 128 lines of 4 KiB, of which each byte may take six in JSON.
const MAX_REPORT: u64 = 4 << 20;
const MAX_COMPLAINT: u64 = 4 << 10;

/// How long unused code is kept.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// How much code is kept for somebody who tries plugins: what was used last. An interpreter's takes 50 MB, and each change of
/// a plugin makes another.
const RECENT: usize = 8;

/// How what is still being written is named: folders to compile in, and files that are not whole yet.
const UNFINISHED: [&str; 2] = [".compile-", ".tmp"];

/// How old that is when it is left behind for sure: nothing is compiled for so long.
const UNFINISHED_FOR: Duration = Duration::from_secs(3600);

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// The component is to blame; the same bytes with the same settings would be refused again.
    #[error("{0}")]
    Refused(String),
    /// The machine is to blame: another try may work.
    #[error("{0}")]
    Failed(String),
}

/// Where code comes from.
pub(super) struct Compiler {
    /// The program that knows `compile`: this one.
    program: PathBuf,
    /// The only folder that code is loaded from; mode 0700.
    cache: PathBuf,
    telemetry: Arc<Telemetry>,
    /// Whether alerts are served meanwhile, which compiling must not slow.
    serving: AtomicBool,
    /// Deletes the cache in the end, where nothing may be left behind.
    _temporary: Option<tempfile::TempDir>,
}

/// What lies beside the code.
#[derive(Serialize, Deserialize)]
struct Label {
    /// SHA-256 of the code: a file that was cut short must not be loaded.
    code_sha256: String,
    compiled: Compiled,
}

/// Code, ready to be prepared.
pub(super) struct Code {
    pub component: Component,
    pub compiled: Compiled,
}

impl Compiler {
    /// A compiler that keeps its code in a state folder.
    ///
    /// # Errors
    /// The folder cannot be made or is not ours.
    pub(super) fn new(state_dir: &Path, program: PathBuf, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let cache = state_dir.join("compiled");
        private_dir(&cache)?;
        let compiler = Self { program, cache, telemetry, serving: AtomicBool::new(false), _temporary: None };
        compiler.prune();
        Ok(compiler)
    }

    /// A compiler beside another one: uses what lies in the state folder, and clears nothing away.
    pub(super) fn beside(state_dir: &Path, program: PathBuf, telemetry: Arc<Telemetry>) -> Self {
        let (cache, serving) = (state_dir.join("compiled"), AtomicBool::new(false));
        Self { program, cache, telemetry, serving, _temporary: None }
    }

    /// A compiler for whoever tries plugins: keeps the code that was used last where a user's caches lie, because an
    /// interpreter takes a minute to compile. Where nothing can be kept it leaves nothing behind.
    ///
    /// # Errors
    /// Not even a temporary folder can be made.
    pub(super) fn for_trials(program: PathBuf, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let kept = user_cache().map(|cache| Self::new(&cache.join("dossier"), program.clone(), Arc::clone(&telemetry)));
        let Some(Ok(compiler)) = kept else { return Self::temporary(program, telemetry) };
        compiler.keep_recent(RECENT);
        Ok(compiler)
    }

    /// A compiler that leaves nothing behind.
    ///
    /// # Errors
    /// No temporary folder can be made.
    pub(super) fn temporary(program: PathBuf, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dossier-").tempdir()?;
        let (cache, serving) = (folder.path().to_owned(), AtomicBool::new(false));
        Ok(Self { program, cache, telemetry, serving, _temporary: Some(folder) })
    }

    /// From now on alerts are served: what is compiled gives way to them.
    pub(super) fn serves(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// The code of a component as a step configures it: kept from an earlier time, or compiled now.
    ///
    /// # Errors
    /// [`CompileError`].
    pub(super) async fn code(
        &self,
        sandbox: &Sandbox,
        bytes: &Bytes,
        sha256: &str,
        step: &StepConfig,
    ) -> Result<Code, CompileError> {
        if let Some(code) = self.kept(sandbox, sha256, step).await? {
            return Ok(code);
        }
        let kept = self.place(sandbox, sha256, step);
        let compiled = self.compile(&kept, bytes, step).await?;
        let engine = sandbox.engine.clone();
        let failed = format!("its code in {} cannot be used", self.cache.display());
        let code = aside(move || {
            kept.label(compiled)?;
            let changed = || io::Error::other("it was changed, or compiled for another engine");
            kept.load(&engine).ok_or_else(changed)
        });
        code.await?.map_err(|error| CompileError::Failed(format!("{failed}: {error}")))
    }

    /// The code of a component with this digest, if it was kept.
    ///
    /// # Errors
    /// [`CompileError::Failed`].
    pub(super) async fn kept(
        &self,
        sandbox: &Sandbox,
        sha256: &str,
        step: &StepConfig,
    ) -> Result<Option<Code>, CompileError> {
        let (from, engine) = (self.place(sandbox, sha256, step), sandbox.engine.clone());
        aside(move || from.load(&engine)).await
    }

    /// Where the code of a component as a step configures it is kept.
    fn place(&self, sandbox: &Sandbox, sha256: &str, step: &StepConfig) -> Kept {
        let contracts = Contract::ALL.map(Contract::version).join(" ");
        let key = [sha256, &sha256_hex(step.settings.as_bytes()), &contracts, &sandbox.compatibility()].join("\n");
        Kept { folder: self.cache.clone(), key: sha256_hex(key.as_bytes()) }
    }

    /// Compiles in a child process; the code lies under its key then.
    async fn compile(&self, kept: &Kept, bytes: &Bytes, step: &StepConfig) -> Result<Compiled, CompileError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| CompileError::Failed(format!("{what}: {error}"));
        let (cache, input, configured) = (self.cache.clone(), bytes.clone(), step.settings.clone());
        let folder = aside(move || {
            let folder = tempfile::Builder::new().prefix(UNFINISHED[0]).tempdir_in(cache)?;
            fs::write(folder.path().join("component.wasm"), input)?;
            fs::write(folder.path().join("settings.json"), configured)?;
            Ok::<_, io::Error>(folder)
        });
        let folder = folder.await?.map_err(|error| failed("what is to be compiled cannot be written", &error))?;
        let [component, settings, first, second] =
            ["component.wasm", "settings.json", "code", "code-anew"].map(|name| folder.path().join(name));

        let mebibytes = u32::try_from(bytes.len() >> 20).unwrap_or(u32::MAX);
        let cpu = CPU.saturating_add(CPU_PER_MIB.saturating_mul(mebibytes));
        let deadline = cpu.saturating_mul(PATIENCE);
        let mut gives_way = self.serving.load(Ordering::Relaxed);
        let (status, report, complaint, output) = loop {
            // What was killed may write for a moment longer.
            let output = if gives_way { &first } else { &second };
            let mut command = Command::new(&self.program);
            command
                .arg("compile")
                .args([std::ffi::OsStr::new("--settings"), settings.as_os_str()])
                .args([std::ffi::OsStr::new("--output"), output.as_os_str()])
                .args(["--memory", &step.limits.memory.to_string()])
                .args(["--cpu-seconds", &cpu.as_secs().to_string()])
                .args(["--parent", &std::process::id().to_string()])
                .args(gives_way.then_some("--gives-way"))
                .arg(&component)
                // The variables hold the operator's secrets; there is no use for them there.
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let mut child = command.spawn().map_err(|error| failed("the compiler does not start", &error))?;
            let (id, report, complaint) = (child.id(), child.stdout.take(), child.stderr.take());
            let run = async {
                let (report, complaint) = tokio::join!(read(report, MAX_REPORT), read(complaint, MAX_COMPLAINT));
                child.wait().await.map(|status| (status, report, complaint))
            };
            tokio::select! {
                biased;
                ended = run => {
                    let (status, report, complaint) = ended.map_err(|error| failed("the compiler is lost", &error))?;
                    break (status, report, complaint, output);
                }
                // In both cases dropping the child kills it. The next one is of low priority only, and gets its share.
                () = starves(id, cpu.saturating_mul(PATIENCE_GIVING_WAY)), if gives_way => gives_way = false,
                () = tokio::time::sleep(deadline) => {
                    return Err(CompileError::Failed(format!("it is not compiled and configured within {deadline:?}")));
                }
            }
        };
        match serde_json::from_slice(&report) {
            Ok(Report::Compiled(compiled)) => {
                self.pass_on(&step.name, &compiled.said);
                let (code, output) = (kept.file("cwasm"), output.clone());
                let moved = aside(move || {
                    File::open(&output)?.sync_all()?;
                    fs::rename(&output, code)
                });
                moved.await?.map_err(|error| failed("its code cannot be kept", &error))?;
                Ok(compiled)
            }
            Ok(Report::Refused { why, said }) => {
                self.pass_on(&step.name, &said);
                Err(CompileError::Refused(why))
            }
            Err(_) => Err(ended(status, &String::from_utf8_lossy(&complaint), cpu)),
        }
    }

    /// Logs what a plugin wrote while it was configured.
    fn pass_on(&self, step: &str, said: &[Said]) {
        for line in said {
            let level = line.level.parse().unwrap_or(tracing::Level::INFO);
            self.telemetry.emit(&PluginSaid { step, id: None, level, message: &line.message });
        }
    }

    /// Deletes all code but the `count` that were used last; what cannot be deleted stays.
    fn keep_recent(&self, count: usize) {
        let Ok(entries) = fs::read_dir(&self.cache) else { return };
        let code =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|x| x == "cwasm"));
        let mut code: Vec<_> =
            code.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).collect();
        code.sort();
        for (_, path) in code.iter().rev().skip(count) {
            let _ = fs::remove_file(path.with_extension("json"));
            let _ = fs::remove_file(path);
        }
    }

    /// Deletes what was not used for long, and what a host that was killed left unfinished; what cannot be deleted stays.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.cache) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            let Some(age) = age else { continue };
            let path = entry.path();
            let name = entry.file_name();
            if UNFINISHED.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                if age > UNFINISHED_FOR {
                    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                }
            } else if age > KEEP && path.extension().is_some_and(|extension| extension == "cwasm") {
                let _ = fs::remove_file(path.with_extension("json"));
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Where the caches of whoever runs us lie (<https://specifications.freedesktop.org/basedir-spec/latest/>); none when nobody says.
fn user_cache() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(std::env::home_dir()?.join(".cache")).filter(|path| path.is_absolute()))
}

/// Does what blocks where it may: reading, hashing and linking code of many megabytes would hold up the alerts.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CompileError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| CompileError::Failed(error.to_string()))
}

/// Where the code of one component with its settings is kept. Everything here blocks.
#[derive(Clone)]
struct Kept {
    folder: PathBuf,
    key: String,
}

impl Kept {
    fn file(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.key))
    }

    /// Writes down what was found out about the code that lies here, so that it may be loaded.
    fn label(&self, compiled: Compiled) -> io::Result<()> {
        let label = Label { code_sha256: sha256_hex(&fs::read(self.file("cwasm"))?), compiled };
        write_whole(&self.file("json"), &serde_json::to_vec(&label)?)
    }

    /// Code that was kept; none when there is none that can be used.
    fn load(&self, engine: &Engine) -> Option<Code> {
        let label: Label = serde_json::from_slice(&fs::read(self.file("json")).ok()?).ok()?;
        let path = self.file("cwasm");
        let code = fs::read(&path).ok()?;
        if sha256_hex(&code) != label.code_sha256 {
            return None;
        }
        // Noted as used, so that it is not pruned; if that fails it is only compiled again one day.
        let _ =
            File::options().write(true).open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        #[expect(
            unsafe_code,
            reason = "our own child wrote these bytes into our own 0700 folder, and their digest matches"
        )]
        let component = unsafe { Component::deserialize(engine, &code) }.ok()?;
        Some(Code { component, compiled: label.compiled })
    }
}

/// What the end of a child that gave no report means. Its bounds are the component's to keep; nothing but the machine kills it
/// from outside.
fn ended(status: ExitStatus, complaint: &str, cpu: Duration) -> CompileError {
    let complaint = complaint.lines().find(|line| !line.is_empty()).unwrap_or("it said nothing");
    match status.signal().map(Signal::from_named_raw) {
        Some(Some(Signal::XCPU)) => CompileError::Refused(format!(
            "compiling it takes more than {} s of processor time; make it smaller",
            cpu.as_secs()
        )),
        Some(Some(Signal::ABORT)) if complaint.starts_with("memory allocation") => CompileError::Refused(format!(
            "compiling it takes more than {} MiB of memory; make it smaller",
            COMPILE_MEMORY >> 20
        )),
        Some(Some(Signal::KILL)) => {
            CompileError::Failed(format!("the process that compiles it was killed: {complaint}"))
        }
        _ => CompileError::Refused(format!("the process that compiles it ended with {status}: {complaint}")),
    }
}

/// Makes a folder that only we may read and write, or makes it so.
///
/// # Errors
/// It cannot be made, or belongs to somebody else.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mut permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        fs::set_permissions(path, permissions)?;
    }
    Ok(())
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// It cannot be written.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Reads a plugin's file, if it is not too large.
///
/// # Errors
/// It cannot be read. A longer file is cut at one byte more than allowed.
pub(super) fn read_bounded(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads what a child says up to a bound, and swallows the rest so that it does not block.
async fn read(from: Option<impl tokio::io::AsyncRead + Unpin>, longest: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // A child that cannot be read from has said nothing; its end tells.
        let _ = (&mut from).take(longest).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_host_left_unfinished_is_deleted_and_what_is_being_compiled_is_not() {
        let state = tempfile::tempdir().unwrap();
        let cache = state.path().join("compiled");
        let age = |name: &str, hours: u64| {
            let path = cache.join(name);
            let long_ago = std::time::SystemTime::now() - Duration::from_secs(hours * 3600);
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        };
        for (name, hours) in [(".compile-old", 2), (".compile-new", 0)] {
            fs::create_dir_all(cache.join(name)).unwrap();
            fs::write(cache.join(name).join("component.wasm"), b"").unwrap();
            age(name, hours);
        }
        for (name, hours) in [(".tmpOld", 2), (".tmpNew", 0), ("a.cwasm", 2), ("a.json", 2), ("b.cwasm", 31 * 24)] {
            fs::write(cache.join(name), b"").unwrap();
            age(name, hours);
        }
        Compiler::new(state.path(), PathBuf::from("dossier"), Arc::default()).unwrap();
        let mut left: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".compile-new", ".tmpNew", "a.cwasm", "a.json"]);
    }

    #[test]
    fn of_the_code_of_trials_only_what_was_used_last_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(cache.path(), PathBuf::from("dossier"), Arc::default()).unwrap();
        let file = |name: String| compiler.cache.join(name);
        for (name, minutes) in [("new", 1), ("old", 3), ("older", 4), ("newer", 0)] {
            for extension in ["cwasm", "json"] {
                let path = file(format!("{name}.{extension}"));
                fs::write(&path, b"").unwrap();
                let used = std::time::SystemTime::now() - Duration::from_secs(minutes * 60);
                File::open(path).unwrap().set_modified(used).unwrap();
            }
        }
        compiler.keep_recent(2);
        for (name, kept) in [("new", true), ("old", false), ("older", false), ("newer", true)] {
            for extension in ["cwasm", "json"] {
                assert_eq!(file(format!("{name}.{extension}")).exists(), kept, "{name}.{extension}");
            }
        }
    }
}
