//! The rows: what is measured, and how its process is started. What is done with it is the business of `throughput` and `latency`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use dossier_tests::host::{Host, Site, built, field, root, wait_for};
use dossier_tests::redis_server::RedisServer;

use crate::place::Place;
use crate::place::directory::DirectoryPlace;
use crate::place::redis::RedisPlace;
use crate::site;

/// What a row's process is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Program {
    Floor,
    Native,
    Dossier,
    /// A program that is given the server's URL and a folder of tables.
    Peer(PathBuf),
    /// A Python that has what bench/peers/requirements.txt asks for.
    Python(PathBuf),
}

/// Peers, where there are any: how else people do it.
#[derive(Debug, Default, clap::Args)]
pub struct Peers {
    /// The program `peer-vrl` of bench/peers
    #[arg(long, value_name = "PROGRAM")]
    vrl: Option<PathBuf>,
    /// A Python that has the packages of bench/peers/requirements.txt
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
}

/// A row of the table.
pub struct Row<'a> {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether its records say what dossier's say.
    pub enriches: bool,
    /// Its queue.
    pub place: Box<dyn Place + 'a>,
    program: Program,
    site: Site,
    url: String,
}

/// A row's process, which waits for alerts; killed when it is dropped.
pub struct Running {
    /// Its process id.
    pub pid: u32,
    _host: Host,
}

impl<'a> Row<'a> {
    /// The rows with these names, in their order; all of them where there are none.
    ///
    /// # Errors
    /// Their folders cannot be made.
    pub fn chosen(names: &[String], peers: &Peers, server: &'a RedisServer, state: &Path) -> Result<Vec<Self>> {
        let url = server.url();
        let redis = format!("kind = \"redis\"\nurl = \"{url}\"");
        let directory = "kind = \"directory\"";
        let mut rows = vec![
            ("floor", "moved from stream to stream, nothing done with it", Program::Floor, redis.as_str(), 1),
            ("native", "the host, its four steps plain Rust", Program::Native, redis.as_str(), 1),
            ("fresh", "dossier, a fresh instance for each alert and step", Program::Dossier, redis.as_str(), 1),
            ("reuse", "dossier, an instance serves 1,000 alerts", Program::Dossier, redis.as_str(), site::REUSE),
            ("directory", "dossier, fresh, directory queue", Program::Dossier, directory, 1),
        ];
        let vrl = peers.vrl.clone().map(Program::Peer);
        rows.extend(vrl.map(|program| ("vrl", "Vector's language, in the floor's loop", program, redis.as_str(), 1)));
        let python = peers.python.clone().map(Program::Python);
        rows.extend(python.map(|program| ("python", "a worker with redis-py and dicts", program, redis.as_str(), 1)));
        for name in names {
            let known = rows.iter().map(|row| row.0).collect::<Vec<_>>();
            anyhow::ensure!(
                known.contains(&name.as_str()),
                "there is no row \"{name}\"; there are: {}",
                known.join(", ")
            );
        }
        let chosen = rows.into_iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.0));
        let row = |(name, about, program, queue, reuse)| {
            let site = site::with(queue, reuse, state, "")?;
            let place: Box<dyn Place> = match queue == directory {
                true => Box::new(DirectoryPlace::new(site.path("queue"))),
                false => Box::new(RedisPlace::new(server)?),
            };
            Ok(Self {
                name,
                about,
                enriches: matches!(program, Program::Native | Program::Dossier),
                place,
                program,
                site,
                url: url.clone(),
            })
        };
        chosen.map(row).collect()
    }

    /// Starts its process and waits until it takes alerts.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> Result<Running> {
        let command = match &self.program {
            Program::Floor => ours(&["floor", &self.url])?,
            Program::Native => ours(&["native", "dossier.toml"])?,
            Program::Dossier => self.site.command(&["run"]),
            Program::Peer(program) => {
                let mut command = Command::new(program);
                command.args([&self.url, "."]);
                command
            }
            Program::Python(python) => {
                let mut command = Command::new(python);
                command.arg(root().join("bench/peers/worker.py")).args([self.url.trim_start_matches("unix://"), "."]);
                command
            }
        };
        // Only the log of this process is of interest, and it can be long.
        let _ = std::fs::remove_file(self.site.path("log.ndjson"));
        let mut command = command;
        command.current_dir(self.site.dir.path()).stdin(Stdio::null());
        let mut host = self.site.start_as(command);
        wait_for(&format!("the row \"{}\" to be ready", self.name), || {
            if !host.is_alive() {
                return Some(Err(anyhow::anyhow!("the process of the row \"{}\" ended: {:?}", self.name, host.log())));
            }
            let ready = |line: &serde_json::Value| field(line, "message").is_some_and(|said| said == "host ready");
            host.log().iter().any(ready).then_some(Ok(()))
        })?;
        Ok(Running { pid: host.pid(), _host: host })
    }
}

/// This program, as something else.
fn ours(arguments: &[&str]) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// The program that is measured, so that a missing one is said before anything is begun.
pub fn check_built() {
    built("release/dossier");
}
