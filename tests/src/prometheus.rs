//! A real Prometheus of a test's own, and the tools that come with it: from PATH or, where that has none, from Debian's package, which is
//! unpacked into `target/` and installed nowhere.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::host::{get, root, wait_for};

/// Where one of Prometheus' programs lies: `prometheus` or `promtool`.
///
/// # Errors
/// It is not on PATH, and cannot be had from Debian either.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()) {
        return Ok(found);
    }
    let folder = root().join("target/prometheus");
    let file = folder.join("usr/bin").join(name);
    if !file.is_file() {
        unpack(&folder).with_context(|| {
            format!("{name} is not on PATH; install prometheus (Debian: apt-get install prometheus)")
        })?;
    }
    ensure!(file.is_file(), "the package has no {name}");
    Ok(file)
}

/// Unpacks the package. Tests that run at once wait for each other.
fn unpack(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let lock = std::fs::File::create(folder.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if folder.join("usr/bin/prometheus").is_file() {
        return Ok(());
    }
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(folder).output().context(program.to_owned())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
        Ok(())
    };
    run("apt-get", &["download", "prometheus"])?;
    let package = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.ends_with(".deb"))
        .context("apt-get left no package")?;
    // Under another name until it is whole: somebody may look meanwhile.
    run("dpkg", &["-x", &package, "unpacked"])?;
    std::fs::rename(folder.join("unpacked/usr"), folder.join("usr"))?;
    std::fs::remove_file(folder.join(package))?;
    Ok(())
}

/// A running Prometheus; killed when it is dropped.
pub struct Prometheus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this admin address once a second, with these lines in `rule_files`.
    ///
    /// # Errors
    /// There is no Prometheus, or it does not start.
    pub fn scraping(target: &str, rules: &[&Path]) -> Result<Self> {
        let program = program("prometheus")?;
        let folder = tempfile::tempdir()?;
        let rules: Vec<_> = rules.iter().map(|file| file.display().to_string()).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: {}\nscrape_configs:\n\
             - {{ job_name: dossier, static_configs: [ {{ targets: [ '{target}' ] }} ] }}\n",
            serde_json::to_string(&rules)?
        );
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        // A port that is free now; whoever takes it first makes Prometheus end, which is noticed.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut process = Command::new(program)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let log = folder.path().join("log");
        wait_for("prometheus to be ready", || {
            if process.try_wait().ok().flatten().is_some() {
                return Some(Err(anyhow::anyhow!("it ended: {}", std::fs::read_to_string(&log).unwrap_or_default())));
            }
            std::net::TcpStream::connect(&address).ok()?;
            (get(&address, "/-/ready").0 == 200).then_some(Ok(()))
        })?;
        Ok(Self { process, address, _folder: folder })
    }

    /// What an expression gives now: a list of series.
    ///
    /// # Errors
    /// Prometheus refuses it.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) = get(&self.address, &format!("/api/v1/query?query={encoded}"));
        let body = body_of(&body);
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        if status != 200 {
            bail!("{expression}: {}", answer["error"]);
        }
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

/// A body without the marks of a chunked transfer: what stands between its first and its last brace.
fn body_of(body: &str) -> String {
    let whole = body.find('{').zip(body.rfind('}'));
    let body = whole.map_or(body, |(from, to)| &body[from..=to]);
    // Chunks are lines of their own, and JSON of Prometheus has no line breaks.
    body.split("\r\n").enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, part)| part).collect()
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
