//! A real Prometheus of a test's own, and `promtool`: the ones that are installed, or else those in Debian's package, unpacked below
//! `target/`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::host::{get, root, wait_for};

/// One of Prometheus' programs that can be run: `prometheus` or `promtool`.
///
/// # Errors
/// It is not installed, and there is no `apt-get` that could fetch it.
pub fn program(name: &str) -> Result<PathBuf> {
    let runs =
        |program: &Path| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let installed = PathBuf::from(name);
    if runs(&installed) {
        return Ok(installed);
    }
    let folder = root().join("target/tools").join(name);
    let unpacked = folder.join("usr/bin").join(name);
    std::fs::create_dir_all(&folder)?;
    // Tests that run at once wait for the first of them.
    let lock = std::fs::File::create(folder.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if runs(&unpacked) {
        return Ok(unpacked);
    }
    // Of the package only the one program is unpacked: all of it would be ten times as large. Needs no root.
    let script = "get() { apt-get -qq download prometheus >&2; }; get || { apt-get -qq update >&2 && get; }; \
                  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/$1 && rm prometheus_*.deb";
    let output =
        Command::new("sh").args(["-ec", script, "sh", name]).current_dir(&folder).output().context("there is no sh")?;
    ensure!(
        output.status.success() && runs(&unpacked),
        "{name} is not installed, and Debian's package prometheus cannot be fetched: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(unpacked)
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
