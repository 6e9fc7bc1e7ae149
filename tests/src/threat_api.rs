//! A threat API of a test's own: the real `threat-api` on a port of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::host::{built, get};

/// A running API; killed when it is dropped.
pub struct ThreatApi {
    process: Child,
    address: String,
}

impl ThreatApi {
    /// Starts it with these options: `&["--delay", "100ms"]`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(options: &[&str]) -> Self {
        let mut process = Command::new(built("release/threat-api"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("threat-api starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("threat-api has an output");
        BufReader::new(output).read_line(&mut line).expect("threat-api says where it listens");
        let address = line.trim().strip_prefix("listening on http://").expect("the address").to_owned();
        Self { process, address }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many checks were asked for.
    pub fn asked(&self) -> u64 {
        get(&self.address, "/asked").1.trim().parse().expect("a number")
    }
}

impl Drop for ThreatApi {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
