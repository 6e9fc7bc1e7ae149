//! `cargo xtask fuzz`: lets libFuzzer feed the targets of fuzz/, one after the other, and says what it found.
//!
//! It owns how they are built and for how long they run. Only the workspace's own crates are instrumented (fuzz/instrument.sh), so that
//! wasmtime is not compiled again; no nightly toolchain is needed. What a target promises is fuzz/src's affair.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::setup::{Project, done, say, seconds};

/// For how long each target is fed where nothing else is said.
const SHORT: Duration = Duration::from_secs(20);

/// What `cargo xtask fuzz` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The target, a folder of fuzz/corpus/; all of them when there is none
    target: Option<String>,
    /// For how many minutes each target is fed; 20 seconds when nothing is said
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
}

/// Does it.
///
/// # Errors
/// A target fails: the input is named, and can be fed again. A target does not compile, or there is none of this name.
pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    let all = targets(&project.root)?;
    let chosen: Vec<_> = match &arguments.target {
        None => all.clone(),
        Some(name) => {
            ensure!(all.contains(name), "there is no target \"{name}\"; there are {}", all.join(", "));
            vec![name.clone()]
        }
    };
    let time = arguments.minutes.map_or(SHORT, |minutes| Duration::from_secs(60 * minutes));
    // The host itself as well: it compiles the guest of host_calls.
    project.build()?;
    build(project, &chosen)?;
    let mut failed = Vec::new();
    for name in &chosen {
        say(&format!("\n== {name}, for {}", seconds(time)));
        if !feed(project, name, time)? {
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("{} failed; mend what the input breaks and keep it in fuzz/corpus/", failed.join(", "));
    }
    Ok(())
}

/// The targets, by their corpora.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/corpus");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

fn build(project: &Project, targets: &[String]) -> Result<()> {
    let mut cargo = project.cargo(&["build", "--release", "--workspace", "--features", "dossier-fuzz/libfuzzer"]);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", project.root.join("fuzz/instrument.sh"));
    for name in targets {
        cargo.args(["--bin", name]);
    }
    done("cargo build of the fuzz targets, which needs a C++ compiler,", cargo.status())
}

/// Feeds one target; false when it failed. What covers something new is kept in target/fuzz/, for the next time.
fn feed(project: &Project, name: &str, time: Duration) -> Result<bool> {
    let kept = project.root.join("target/fuzz").join(name);
    let grown = kept.join("corpus");
    std::fs::create_dir_all(&grown).with_context(|| format!("cannot make {}", grown.display()))?;
    let mut fuzzer = Command::new(project.program(name));
    fuzzer
        .current_dir(&project.root)
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-artifact_prefix={}/", kept.display()))
        .args(["-print_final_stats=1", "-timeout=25", "-rss_limit_mb=2048"])
        .arg(&grown)
        .arg(project.root.join("fuzz/corpus").join(name));
    Ok(fuzzer.status().with_context(|| format!("cannot start {name}"))?.success())
}
