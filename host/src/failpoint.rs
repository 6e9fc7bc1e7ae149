//! Places where a test may kill the host, as `kill -9` does: `failpoint!("name")`.
//!
//! In the program that is shipped they are nothing at all. Only `dossier-failpoints`, which is built for tests (cargo feature
//! `failpoints`), dies at one of them: `DOSSIER_FAILPOINT=name=3` at its third pass, `name~text` at a pass that is about bytes which
//! hold this text; several are separated by commas, and each process counts for itself. It also writes every pass into the file that `DOSSIER_FAILPOINT_TRACE` names: their order can be checked where a process
//! that dies shows nothing, as with what is synced. A failpoint can do nothing else, so that nothing in the host can depend on it. The
//! crate `fail` could do more, and would have ring, rustls and what stands on them compiled a second time: its `rand` switches features of
//! theirs.

/// Ends the process here if a test asked for it; the second form says what the pass is about.
macro_rules! failpoint {
    ($name:literal) => {
        failpoint!($name, b"")
    };
    ($name:literal, $about:expr) => {{
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($name, $about);
    }};
}

#[cfg(feature = "failpoints")]
pub(crate) use plan::pass;

#[cfg(feature = "failpoints")]
mod plan {
    //! What a test asked for.

    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    struct Plan {
        name: String,
        when: When,
        passes: AtomicU64,
    }

    enum When {
        /// At this pass, counted from 1.
        Pass(u64),
        /// At a pass that is about bytes with this text.
        About(String),
    }

    static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
        let Ok(text) = std::env::var("DOSSIER_FAILPOINT") else { return Vec::new() };
        text.split(',').map(parse).collect::<Option<_>>().unwrap_or_else(|| {
            eprintln!("error: DOSSIER_FAILPOINT is {text:?}; write name=3 or name~text, or several with commas");
            std::process::exit(2);
        })
    });

    /// Where passes are written down.
    static TRACE: LazyLock<Option<File>> = LazyLock::new(|| {
        let path = std::env::var_os("DOSSIER_FAILPOINT_TRACE")?;
        OpenOptions::new().create(true).append(true).open(path).ok()
    });

    fn parse(text: &str) -> Option<Plan> {
        let (name, when) = match text.split_once('=') {
            Some((name, number)) => (name, When::Pass(number.parse().ok()?)),
            None => text.split_once('~').map(|(name, about)| (name, When::About(about.to_owned())))?,
        };
        Some(Plan { name: name.to_owned(), when, passes: AtomicU64::new(0) })
    }

    /// A failpoint was reached.
    pub(crate) fn pass(name: &str, about: &[u8]) {
        if let Some(mut file) = TRACE.as_ref() {
            // One write each, so that lines of several threads do not mix.
            let _ = file.write_all(format!("{name} {}\n", String::from_utf8_lossy(about)).as_bytes());
        }
        let now = |plan: &Plan| match &plan.when {
            When::Pass(number) => plan.passes.fetch_add(1, Ordering::Relaxed) + 1 == *number,
            When::About(text) => memchr::memmem::find(about, text.as_bytes()).is_some(),
        };
        if PLANS.iter().filter(|plan| plan.name == name).any(now) {
            // To itself, SIGKILL comes before the call returns; should it not, the process ends all the same.
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }
}
