//! The rows: what is measured, and how its process is started. What is done with it is the business of `throughput` and `latency`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
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
    /// dossier's loop around nothing.
    Queue,
    Native,
    Dossier,
    /// A library in dossier's loop, and the mode that it is opened in.
    Peer(PathBuf, &'static str),
    /// A Python that has what bench/peers/requirements.txt asks for.
    Python(PathBuf),
}

/// How much of a row's records must say what dossier's say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Nothing: it finds nothing out.
    Nothing,
    /// What was looked up, and the verdict: another language says the same in other words.
    Found,
    /// All but how it came to be.
    All,
}

/// Peers, where there are any: how else people do it.
#[derive(Debug, Default, clap::Args)]
pub struct Peers {
    /// The library `peer-vrl` of bench/peers
    #[arg(long, value_name = "LIBRARY")]
    vrl: Option<PathBuf>,
    /// The library `peer-extism` of bench/peers; PEER_GUESTS says where its guests are
    #[arg(long, value_name = "LIBRARY")]
    extism: Option<PathBuf>,
    /// A Python that has the packages of bench/peers/requirements.txt
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
}

impl Peers {
    fn rows(&self) -> Vec<(&'static str, &'static str, Program, Same)> {
        let library = |file: &Option<PathBuf>, mode| file.clone().map(|file| Program::Peer(file, mode));
        let python = self.python.clone().map(Program::Python);
        let all = [
            ("vrl", "Vector's language, in dossier's loop", library(&self.vrl, ""), Same::Found),
            ("extism", "extism, instances used again, in dossier's loop", library(&self.extism, ""), Same::Found),
            ("extism-fresh", "extism, fresh instances, in dossier's loop", library(&self.extism, "fresh"), Same::Found),
            ("python", "a worker with redis-py and dicts", python, Same::Found),
        ];
        all.into_iter().filter_map(|(name, about, program, same)| Some((name, about, program?, same))).collect()
    }
}

/// A row of the table.
pub struct Row<'a> {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How much of its records is compared with others'.
    pub same: Same,
    /// Whether it is one that may fail: what is wrong with a peer is said, and the others go on.
    pub peer: bool,
    /// Its queue.
    pub place: Box<dyn Place + 'a>,
    /// The folder that it runs in.
    pub site: Site,
    /// Environment variables of its process.
    pub variables: Vec<(&'static str, String)>,
    program: Program,
    url: String,
}

/// A row's process, which waits for alerts; killed when it is dropped.
pub struct Running {
    /// Its process id.
    pub pid: u32,
    /// The process.
    pub host: Host,
}

impl<'a> Row<'a> {
    /// The rows with these names, in their order; all of them where there are none.
    ///
    /// # Errors
    /// Their folders cannot be made.
    pub fn chosen(names: &[String], peers: &Peers, server: &'a RedisServer, state: &Path) -> Result<Vec<Self>> {
        let url = server.url();
        let redis = format!("kind = \"redis\"\nurl = \"{url}\"");
        let directory = "kind = \"directory\"".to_owned();
        let all = Same::All;
        let fresh = "dossier, a fresh instance for each alert and step";
        let mut rows = vec![
            ("floor", "moved from stream to stream, nothing done with it", Program::Floor, &redis, 1, Same::Nothing),
            (
                "queue",
                "dossier's queue, record and log line; nothing is looked up",
                Program::Queue,
                &redis,
                1,
                Same::Nothing,
            ),
            ("native", "the host, its four steps plain Rust", Program::Native, &redis, 1, all),
            ("fresh", fresh, Program::Dossier, &redis, 1, all),
            ("reuse", "dossier, an instance serves 1,000 alerts", Program::Dossier, &redis, site::REUSE, all),
            ("directory", "dossier, fresh, directory queue", Program::Dossier, &directory, 1, all),
        ];
        rows.extend(
            peers.rows().into_iter().map(|(name, about, program, same)| (name, about, program, &redis, 1, same)),
        );
        for name in names {
            let known = rows.iter().map(|row| row.0).collect::<Vec<_>>();
            ensure!(known.contains(&name.as_str()), "there is no row \"{name}\"; there are: {}", known.join(", "));
        }
        let chosen = rows.into_iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.0));
        let row = |(name, about, program, queue, reuse, same): (&str, &str, _, &String, _, _)| {
            let site = site::with(queue, reuse, state, "")?;
            let place: Box<dyn Place> = match *queue == directory {
                true => Box::new(DirectoryPlace::new(site.path("queue"))),
                false => Box::new(RedisPlace::new(server)?),
            };
            Ok(Self {
                name: name.to_owned(),
                about: about.to_owned(),
                same,
                peer: matches!(program, Program::Peer(..) | Program::Python(_)),
                place,
                site,
                variables: Vec::new(),
                program,
                url: url.clone(),
            })
        };
        chosen.map(row).collect()
    }

    /// A host of dossier in this folder, whose configuration names the server.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn host(name: &str, site: Site, server: &'a RedisServer) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            about: String::new(),
            same: Same::All,
            peer: false,
            place: Box::new(RedisPlace::new(server)?),
            site,
            variables: Vec::new(),
            program: Program::Dossier,
            url: server.url(),
        })
    }

    /// Starts its process and waits until it takes alerts.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> Result<Running> {
        let mut host = self.begin()?;
        wait_for(&format!("the row \"{}\" to be ready", self.name), || {
            if !host.is_alive() {
                return Some(Err(anyhow!("the process of the row \"{}\" ended: {:?}", self.name, host.log())));
            }
            let ready = |line: &serde_json::Value| field(line, "message").is_some_and(|said| said == "host ready");
            host.log().iter().any(ready).then_some(Ok(()))
        })?;
        Ok(Running { pid: host.pid(), host })
    }

    /// Starts its process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn begin(&self) -> Result<Host> {
        let mut command = match &self.program {
            Program::Floor => ours(&["floor".as_ref(), self.url.as_ref()])?,
            Program::Queue => ours(&["queue".as_ref(), "dossier.toml".as_ref()])?,
            Program::Native => ours(&["native".as_ref(), "dossier.toml".as_ref()])?,
            Program::Dossier => self.site.command(&["run"]),
            Program::Peer(library, mode) => {
                ours(&["peer".as_ref(), "dossier.toml".as_ref(), library.as_ref(), mode.as_ref()])?
            }
            Program::Python(python) => {
                let mut command = Command::new(python);
                command.arg(root().join("bench/peers/worker.py")).arg(self.url.trim_start_matches("unix://")).arg(".");
                let script = ["rights.lua", "store.lua"].map(|part| root().join("host/src/queue/redis").join(part));
                command.args(script);
                command
            }
        };
        // Only the log of this process is of interest, and it can be long.
        let _ = std::fs::remove_file(self.site.path("log.ndjson"));
        command.current_dir(self.site.dir.path()).stdin(Stdio::null()).envs(self.variables.iter().cloned());
        Ok(self.site.start_as(command))
    }
}

/// This program, as something else.
fn ours(arguments: &[&std::ffi::OsStr]) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// The program that is measured, so that a missing one is said before anything is begun.
pub fn check_built() {
    built("release/dossier");
}
