//! A real redis-server of a test's own: on a unix socket in its own folder, killed when it is dropped. It can be killed
//! with -9, started again on the same files, frozen, and asked. With TCP, TLS, as a Sentinel or a node of a Cluster it is started
//! by its options.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use redis::{Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running server.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    /// What starts it: `env` and its variables, for one.
    launcher: Vec<String>,
    options: Vec<String>,
    /// What starts it in a place of its own, before its own name; `$1` of it is its folder of data.
    within: Option<&'static str>,
    process: Mutex<Option<Child>>,
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    ///
    /// # Errors
    /// When redis-server is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// A server with more options, as on its command line: `&["--appendonly", "yes"]`.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn with(options: &[&str]) -> Result<Self> {
        Self::begun(&[], None, options)
    }

    /// A server that another program starts, by taking its place: `&["env", "NAME=value"]`.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn under(launcher: &[&str], options: &[&str]) -> Result<Self> {
        Self::begun(launcher, None, options)
    }

    /// The same with files on a file system of its own of 8 MiB, of which a filler takes most: [`RedisServer::make_room`].
    ///
    /// # Errors
    /// As [`RedisServer::start`]; or no file system can be mounted here.
    pub fn on_a_small_disk(options: &[&str]) -> Result<Self> {
        let script =
            "mount -t tmpfs -o size=8m tmpfs \"$1\" && head -c 6m /dev/zero > \"$1/filler\" && shift && exec \"$@\"";
        Self::begun(&[], Some(script), options)
    }

    fn begun(launcher: &[&str], within: Option<&'static str>, options: &[&str]) -> Result<Self> {
        let server = Self {
            folder: tempfile::tempdir()?,
            launcher: launcher.iter().map(|&word| word.to_owned()).collect(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            within,
            process: Mutex::new(None),
        };
        std::fs::create_dir(server.data())?;
        server.launch()?;
        Ok(server)
    }

    /// Starts the process and returns when it takes connections.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn launch(&self) -> Result<()> {
        let mut lines = self.begin()?;
        let mut said = String::new();
        loop {
            let Some(line) = lines.next() else { bail!("redis-server ended at its start; it said:\n{said}") };
            let line = line?;
            // The other is what a Sentinel says.
            if line.contains("eady to accept connections") || line.contains("Sentinel ID is") {
                break;
            }
            said.push_str(&line);
            said.push('\n');
        }
        // A pipe that nobody reads fills up and stops the server.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(())
    }

    /// Starts the process and returns at once.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn launch_without_waiting(&self) -> Result<()> {
        let lines = self.begin()?;
        std::thread::spawn(move || lines.for_each(drop));
        Ok(())
    }

    fn begin(&self) -> Result<Lines<BufReader<ChildStdout>>> {
        let mut words = self.launcher.clone();
        if let Some(script) = self.within {
            words.extend(["unshare", "-Urm", "sh", "-c", script, "sh"].map(str::to_owned));
            words.push(self.data().display().to_string());
        }
        words.push("redis-server".to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // A Sentinel and a node of a Cluster write into their files, which stand before the options.
        command.args(self.options.first().filter(|first| !first.starts_with("--")));
        let mut process = command
            .args(["--port", "0", "--save", "", "--daemonize", "no", "--logfile", ""])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.data())
            .args(self.options.iter().skip_while(|option| !option.starts_with("--")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("redis-server does not start; install it, e.g. with apt-get install redis-server")?;
        let output = process.stdout.take().context("redis-server has no output")?;
        *self.process.lock().expect("no test panics while it holds this") = Some(process);
        Ok(BufReader::new(output).lines())
    }

    /// Where its files are.
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes the filler from its small disk.
    ///
    /// # Errors
    /// It has none.
    pub fn make_room(&self) -> Result<()> {
        let process = self.process.lock().expect("no test panics while it holds this");
        let pid = process.as_ref().context("redis-server does not run")?.id();
        // Its file system is seen by itself alone.
        let filler = format!("/proc/{pid}/root{}/filler", self.data().display());
        Ok(std::fs::remove_file(filler)?)
    }

    /// The unix socket on which it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// What clients connect to.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its process id; none when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().expect("no test panics while it holds this").as_ref().map(Child::id)
    }

    /// A blocking connection of its own.
    ///
    /// # Errors
    /// When the server is down.
    pub fn connection(&self) -> Result<Connection> {
        Ok(redis::Client::open(self.url())?.get_connection()?)
    }

    /// Asks as redis-cli would: `server.ask::<u64>(&["XLEN", "alerts"])`.
    ///
    /// # Errors
    /// When the server is down, refuses, or answers something else.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let (name, arguments) = words.split_first().context("no command")?;
        Ok(redis::cmd(name).arg(arguments).query(&mut self.connection()?)?)
    }

    /// Kills it with -9.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("no test panics while it holds this").take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Cuts off what it had written of a transaction when it was killed, as whoever runs Redis should. The server by itself (up to 7.0 at least)
    /// leaves the beginning of the transaction in its file, and what is written after it becomes part of it: at the next start but one it
    /// is lost, or there twice.
    ///
    /// # Panics
    /// There is no redis-check-aof, which comes with redis-server.
    pub fn mend(&self) {
        let manifest = self.data().join("appendonlydir/appendonly.aof.manifest");
        let mut check = Command::new("redis-check-aof");
        let check = check.arg("--fix").arg(manifest).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut check = check.spawn().expect("redis-check-aof comes with redis-server");
        // It asks only where there is something to cut off; otherwise it may have ended already.
        let _ = check.stdin.take().expect("a pipe").write_all(b"y\n");
        check.wait().expect("it ends");
    }

    /// Freezes it: connections stay open and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends [`RedisServer::freeze`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.lock().expect("no test panics while it holds this");
        let process = process.as_ref().context("redis-server does not run")?;
        Ok(kill_process(Pid::from_child(process), signal)?)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP port that nobody listens on, for a server that cannot be told to take any.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
