//! `dossier run --watch`: what the author of a plugin leaves open. Tells what happens in short lines for a person, and builds a
//! plugin's folder anew whenever something in it changes; the host itself notices the component that comes of it.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use console::{Style, style};
use dossier_authoring::build::build;
use notify::event::{AccessKind, EventKind};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::Level;

use crate::cli::output::printable;
use crate::telemetry::{Listener, Told};

/// How many lines may wait for the terminal; more are left out, and counted.
const WAITING: usize = 1024;

/// How long a folder must stay as it is before it is built: editors save in several steps.
const SETTLE: Duration = Duration::from_millis(300);

/// How long the end waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Folders of a project that its build writes to, and no source lies in.
const BUILT: [&str; 5] = ["target", "node_modules", "__pycache__", "build", "dist"];

/// Shows what is told, from a thread of its own: whoever tells must not wait for a terminal.
pub struct Screen {
    sender: SyncSender<Told>,
    left_out: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Screen {
    /// Begins to show.
    pub fn open() -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let left_out = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&left_out);
        let thread = std::thread::spawn(move || show(&receiver, &counted));
        Self { sender, left_out, thread }
    }

    /// Who hands over what is told.
    pub fn listener(&self) -> Listener {
        let (sender, left_out) = (self.sender.clone(), Arc::clone(&self.left_out));
        Box::new(move |told| {
            if sender.try_send(told).is_err() {
                left_out.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Waits until what was told is shown, but not for ever: somebody may still be able to tell more.
    pub fn close_soon(self) {
        drop(self.sender);
        let (done, ended) = sync_channel(1);
        std::thread::spawn(move || {
            // A thread that panicked has shown why.
            let _ = self.thread.join();
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(LAST_LINES);
    }
}

fn show(receiver: &Receiver<Told>, left_out: &AtomicU64) {
    let terminal = console::Term::stdout();
    let width = std::io::stdout().is_terminal().then(|| usize::from(terminal.size().1));
    while let Ok(told) = receiver.recv() {
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let mut text = lines(&time, &told, width);
        match left_out.swap(0, Ordering::Relaxed) {
            0 => {}
            some => text.push_str(&format!("{time} ! {some} more were left out: there were too many at once\n")),
        }
        // A reader that is gone needs no lines; the host goes on.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

/// What stands on the screen: the first line whole, since it may say what to do, the others cut to the screen's width.
fn lines(time: &str, told: &Told, width: Option<usize>) -> String {
    let (mark, paint) = match told.level {
        Level::ERROR => ("✗", Style::new().red()),
        Level::WARN => ("!", Style::new().yellow()),
        _ => ("·", Style::new()),
    };
    let mut text = String::new();
    for (at, line) in told.lines.iter().enumerate() {
        let line = printable(line);
        if at == 0 {
            text.push_str(&format!("{} {} {}\n", style(time).dim(), paint.apply_to(mark), paint.apply_to(line)));
        } else {
            let line = format!("           {line}");
            let line =
                width.map_or_else(|| line.clone(), |width| console::truncate_str(&line, width, "…").into_owned());
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// Builds a plugin's folder, now and whenever it changes, and puts the component into the plugins folder. Ends by being dropped.
///
/// # Errors
/// The folder cannot be watched.
pub async fn rebuild(folder: PathBuf, plugins: PathBuf, tell: Listener) -> anyhow::Result<()> {
    let stirred = Arc::new(Notify::new());
    let notified = Arc::clone(&stirred);
    // Events name files by their whole path.
    let root = folder.canonicalize().with_context(|| format!("cannot watch {}", folder.display()))?;
    let watched = root.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let looked =
            |event: &notify::Event| matches!(event.kind, EventKind::Access(AccessKind::Open(_) | AccessKind::Read));
        if event.is_ok_and(|event| !looked(&event) && event.paths.iter().any(|path| is_source(&watched, path))) {
            notified.notify_one();
        }
    })?;
    watcher.watch(&root, RecursiveMode::Recursive).with_context(|| format!("cannot watch {}", folder.display()))?;
    let tell = Arc::new(tell);
    loop {
        let (root, plugins, said) = (root.clone(), plugins.clone(), Arc::clone(&tell));
        let built = tokio::task::spawn_blocking(move || {
            let say = |level, line: String| said(Told { level, lines: vec![line] });
            match build(&root, &mut |line| say(Level::INFO, line.to_owned())) {
                Ok(built) => match install(&built.path, &plugins) {
                    Ok(true) => say(Level::INFO, format!("built {}, {} bytes", built.path.display(), built.size)),
                    Ok(false) => say(Level::INFO, format!("built {}: the same as before", built.path.display())),
                    Err(error) => say(Level::ERROR, format!("{} cannot be installed: {error}", built.path.display())),
                },
                Err(error) => say(Level::ERROR, format!("not built: {error}")),
            }
        });
        built.await?;
        stirred.notified().await;
        // As long as more comes, it is not settled.
        while tokio::time::timeout(SETTLE, stirred.notified()).await.is_ok() {}
    }
}

/// Whether a change of this file asks for another build.
fn is_source(root: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(root) else { return false };
    let quiet = path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part.starts_with('.') || BUILT.contains(&&*part)
    });
    let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
    !quiet
        && !matches!(extension.as_deref(), Some("wasm" | "lock"))
        && path.file_name().is_some_and(|name| name != "package-lock.json")
}

/// Puts a component into the plugins folder, whole or not at all. Whether that changed anything.
fn install(component: &Path, plugins: &Path) -> std::io::Result<bool> {
    let name = component.file_name().unwrap_or(component.as_os_str());
    let (bytes, target) = (std::fs::read(component)?, plugins.join(name));
    if std::fs::read(&target).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    std::fs::create_dir_all(plugins)?;
    let aside = plugins.join(format!(".{}.part", name.to_string_lossy()));
    std::fs::write(&aside, bytes)?;
    std::fs::rename(aside, target)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_ask_for_another_build() {
        let root = Path::new("/p/owners");
        for source in ["src/lib.rs", "plugin.toml", "app.py", "Cargo.toml", "wit/world.wit", "tests/a.json"] {
            assert!(is_source(root, &root.join(source)), "{source}");
        }
        for other in
            ["target/release/x.rs", ".git/HEAD", "owners.wasm", "Cargo.lock", "src/.lib.rs.swp", "package-lock.json"]
        {
            assert!(!is_source(root, &root.join(other)), "{other}");
        }
        assert!(!is_source(root, Path::new("/p/other/src/lib.rs")));
    }

    #[test]
    fn results_are_cut_to_the_screen_and_drive_no_terminal() {
        let long = format!("geo {}", "x".repeat(200));
        let told = Told { level: Level::INFO, lines: vec!["alert \x1b[2Ja stored".to_owned(), long] };
        let shown = lines("12:00:00", &told, Some(80));
        let mut shown = shown.lines();
        assert!(shown.next().unwrap().contains("\\u{1b}[2Ja stored"));
        assert_eq!(console::measure_text_width(shown.next().unwrap()), 80);
        assert!(lines("12:00:00", &told, None).lines().nth(1).unwrap().len() > 200);
    }

    #[test]
    fn a_component_is_installed_once() {
        let folder = tempfile::tempdir().unwrap();
        let (component, plugins) = (folder.path().join("a.wasm"), folder.path().join("plugins"));
        std::fs::write(&component, b"one").unwrap();
        assert!(install(&component, &plugins).unwrap());
        assert!(!install(&component, &plugins).unwrap());
        assert_eq!(std::fs::read(plugins.join("a.wasm")).unwrap(), b"one");
    }
}
