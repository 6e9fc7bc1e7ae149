//! A real redis-server of a test's own: on a unix socket in its own folder, killed when it is dropped. It can be killed
//! with -9, started again on the same files, frozen, and asked.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use redis::{Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running server.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    options: Vec<String>,
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
        let server = Self {
            folder: tempfile::tempdir()?,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: Mutex::new(None),
        };
        server.launch()?;
        Ok(server)
    }

    /// Starts the process and returns when it takes connections.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn launch(&self) -> Result<()> {
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--daemonize", "no", "--logfile", ""])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("redis-server does not start; install it, e.g. with apt-get install redis-server")?;
        let output = process.stdout.take().context("redis-server has no output")?;
        let mut lines = BufReader::new(output).lines();
        let mut said = String::new();
        loop {
            let Some(line) = lines.next() else { bail!("redis-server ended at its start; it said:\n{said}") };
            let line = line?;
            if line.contains("eady to accept connections") {
                break;
            }
            said.push_str(&line);
            said.push('\n');
        }
        // A pipe that nobody reads fills up and stops the server.
        std::thread::spawn(move || lines.for_each(drop));
        *self.process.lock().expect("no test panics while it holds this") = Some(process);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
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
