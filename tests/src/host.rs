//! A host of a test's own: the real `dossier` binary in a folder of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// A file that `cargo xtask test` builds before it runs the tests.
///
/// # Panics
/// When it is not there.
pub fn built(path: &str) -> PathBuf {
    let file = root().join("target").join(path);
    assert!(file.exists(), "{} is not built; run the tests with `cargo xtask test`", file.display());
    file
}

/// A folder with a configuration, plugins and tables, in which `dossier` is run.
pub struct Site {
    /// The folder; deleted with the site.
    pub dir: tempfile::TempDir,
}

impl Site {
    /// An empty site with this configuration; the admin address is any free port unless the configuration says one.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let site = Self { dir };
        let admin = if config.contains("[admin]") { "" } else { "\n[admin]\naddress = \"127.0.0.1:0\"\n" };
        site.write("dossier.toml", format!("{config}{admin}").as_bytes());
        std::fs::create_dir_all(site.path("plugins")).expect("a folder for plugins");
        site
    }

    /// A path in the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the site.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
        std::fs::write(&path, bytes).expect("a file in the site");
    }

    /// Puts one of the project's plugins, or a guest, into the plugins folder.
    pub fn install(&self, plugin: &str) {
        let plugins = built("plugins").join(format!("{plugin}.wasm"));
        let file = if plugins.exists() { plugins } else { built(&format!("guests/{plugin}.wasm")) };
        // By rename, as an operator should: a half-written file is a test of its own.
        let half = self.path(&format!("plugins/.{plugin}.part"));
        std::fs::copy(&file, &half).expect("a copy of the plugin");
        std::fs::rename(half, self.path(&format!("plugins/{plugin}.wasm"))).expect("the plugin in its place");
    }

    /// `dossier` with these arguments, in the site.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.program(&built("release/dossier"), arguments)
    }

    /// Another build of `dossier`, or what starts it, with these arguments, in the site.
    pub fn program(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_remove("DOSSIER_CONFIG").env_remove("DOSSIER_LOG").env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// Runs `dossier` to its end.
    pub fn dossier(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("dossier runs")
    }

    /// Runs `dossier`, which must succeed; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.dossier(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "dossier {arguments:?} ended with {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Sends alerts, one a line.
    pub fn send(&self, lines: &[u8]) {
        let mut child =
            self.command(&["send"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("dossier runs");
        child.stdin.take().expect("a pipe").write_all(lines).expect("send reads its input");
        assert!(child.wait().expect("send ends").success());
    }

    /// Starts the host and leaves it running.
    pub fn start(&self) -> Host {
        self.start_as(self.command(&["run"]))
    }

    /// Starts a host by this command and leaves it running.
    pub fn start_as(&self, command: Command) -> Host {
        self.start_logging(command, "log.ndjson")
    }

    /// Starts a host by this command, with a log of its own, and leaves it running.
    pub fn start_logging(&self, mut command: Command, log: &str) -> Host {
        let log = self.path(log);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let errors = file.try_clone().expect("the same file");
        let before = file.metadata().expect("a log file").len();
        let child = command.stdout(file).stderr(errors).spawn().expect("dossier runs");
        Host { child, log, before }
    }

    /// What `dossier status --json` says.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.succeed(&["status", "--json"])).expect("status prints JSON")
    }

    /// Waits until nothing is waiting or in flight.
    pub fn drained(&self) {
        wait_for("the queue to be empty", || {
            let status = self.status();
            (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
        });
    }

    /// The records of a directory queue, by file name.
    pub fn processed(&self) -> Vec<(String, serde_json::Value)> {
        let mut records: Vec<_> = std::fs::read_dir(self.path("queue/processed"))
            .expect("a folder of records")
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| {
                let bytes = std::fs::read(entry.path()).expect("a record");
                let record = serde_json::from_slice(&bytes).expect("a record is JSON");
                (entry.file_name().to_string_lossy().into_owned(), record)
            })
            .collect();
        records.sort_by(|a, b| a.0.cmp(&b.0));
        records
    }
}

/// A running host; killed when it is dropped.
pub struct Host {
    child: Child,
    log: PathBuf,
    /// What hosts before it wrote into the log, in bytes.
    before: u64,
}

impl Host {
    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("the host can be killed");
        self.child.wait().expect("the host ends");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the host runs");
    }

    /// Asks it to stop and waits; gives its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().expect("the host ends").code()
    }

    /// Waits until it ends by itself, or by a signal.
    pub fn wait(mut self) -> ExitStatus {
        wait_for("the host to end", || self.child.try_wait().expect("the host can be asked"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the host can be asked").is_none()
    }

    /// Its own log lines so far, not those of hosts before it in the same site.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let own = bytes.get(usize::try_from(self.before).expect("a log fits into memory")..).unwrap_or_default();
        let text = String::from_utf8_lossy(own);
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The address of its admin server, once it is ready.
    pub fn admin(&self) -> String {
        wait_for("the host to be ready", || {
            self.log().iter().find_map(|line| Some(field(line, "admin")?.as_str()?.to_owned()))
        })
    }

    /// What a path of the admin server answers: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&self.admin(), path)
    }

    /// A counter or gauge, as `/metrics` shows it; none while nothing was counted.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, metrics) = self.get("/metrics");
        metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Waits for a line of the log that says this and mentions that.
    pub fn told(&self, message: &str, mentions: &str) -> serde_json::Value {
        wait_for(&format!("a line \"{message}\" that mentions {mentions}"), || {
            self.log().into_iter().find(|line| {
                field(line, "message").and_then(serde_json::Value::as_str) == Some(message)
                    && line.to_string().contains(mentions)
            })
        })
    }

    /// Processor time so far, to a hundredth of a second.
    pub fn processor_time(&self) -> Duration {
        processor_time(self.pid()).expect("the host runs")
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.kept("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    pub fn peak(&self) -> u64 {
        self.kept("VmHWM:")
    }

    fn kept(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.trim().strip_suffix(" kB"));
        line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used so far, to a hundredth of a second; none when there is none.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name in brackets; user and system time are the 12th and 13th from there, in ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 10))
}

/// A field of a log line, wherever the format puts it.
pub fn field<'a>(line: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    line.get(name).or_else(|| line.get("fields")?.get(name))
}

/// A plain HTTP GET.
pub fn get(address: &str, path: &str) -> (u16, String) {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status, body)
}

/// Waits until there is what a test waits for; machines that build and test at once are slow, so the patience is long.
///
/// # Panics
/// When it does not come within a minute.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
