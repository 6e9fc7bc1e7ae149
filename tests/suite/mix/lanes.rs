//! The lanes of a mix: what somebody does to the server, to the hosts and to the plugins, and what producers send, all at the same
//! time, until they are told to stop. Each does what its plan says.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dossier_tests::guest::framed;
use dossier_tests::host::{Host, Site, wait_for};
use dossier_tests::redis_server::RedisServer;
use rustix::process::Signal;

use super::plan::{self, Deed, HostFault, ServerFault};
use crate::queues::Kind;

/// How many alerts wait at least.
const BACKLOG: u64 = 1_000;
const BATCH: u64 = 150;

/// How much memory a host may use, in bytes.
const MEMORY: u64 = 512 << 20;

/// What the lanes share.
pub struct Mix<'a> {
    pub kind: &'a Kind,
    pub site: &'a Site,
    pub seed: u64,
    pub until: Instant,
    /// Ends all lanes when one has failed.
    pub over: AtomicBool,
    /// How often each thing was done.
    pub done: Mutex<BTreeMap<String, u64>>,
    /// Hosts that were killed.
    pub kills: AtomicU64,
    /// Lines that were handed to `dossier send`.
    pub lines: AtomicU64,
    /// The most memory that a host used, in bytes.
    pub memory: AtomicU64,
}

/// Tells the others to stop when a lane fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Mix<'_> {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || Instant::now() >= self.until
    }

    fn note(&self, what: &str) {
        // What stands in brackets tells how, not what.
        let what = what.split('(').next().unwrap_or_default().to_owned();
        *self.done.lock().expect("nobody panics while this is held").entry(what).or_default() += 1;
    }

    /// Waits, not longer than to the end of the mix.
    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over() {
            std::thread::sleep(Duration::from_millis(10).min(time));
        }
    }

    /// Does all of it at the same time.
    pub fn run(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.feed());
            scope.spawn(|| self.hosts());
            scope.spawn(|| self.operator());
            if let Kind::Redis(server) = self.kind {
                scope.spawn(|| self.server(server));
            }
        });
    }

    fn backlog(&self) -> u64 {
        match self.kind {
            Kind::Directory => std::fs::read_dir(self.site.path("queue/pending")).map_or(0, |list| list.count() as u64),
            // A server that is away takes nothing either.
            Kind::Redis(server) => server.ask(&["XLEN", "alerts"]).unwrap_or(u64::MAX),
        }
    }

    /// Sends so that there are always some. What `dossier send` could not send, it notes.
    fn feed(&self) {
        let _ends = Ends(&self.over);
        let mut number = 0;
        while !self.is_over() {
            if self.backlog() >= BACKLOG {
                self.pause(Duration::from_millis(20));
                continue;
            }
            let lines = (number..number + BATCH).map(|number| [plan::alert(self.seed, number), vec![b'\n']].concat());
            self.site.write("batch.ndjson", &lines.collect::<Vec<_>>().concat());
            number += BATCH;
            self.lines.store(number, Ordering::Relaxed);
            let sent = self.site.dossier(&["send", "--ids", "sent.ids", "batch.ndjson"]);
            self.note(if sent.status.success() { "Sent" } else { "NotSent" });
        }
    }

    fn server(&self, server: &RedisServer) {
        let _ends = Ends(&self.over);
        for (pause, fault) in plan::server(self.seed) {
            self.pause(pause);
            if self.is_over() {
                return;
            }
            self.note(&format!("Server{fault:?}"));
            // What is asked of it is done by a server that runs: this lane alone kills and freezes it.
            match fault {
                ServerFault::Kill(away) => {
                    server.kill();
                    self.pause(away);
                    server.mend();
                    server.launch().expect("redis-server starts again on its files");
                }
                ServerFault::Freeze(time) => {
                    server.freeze().expect("the server runs");
                    self.pause(time);
                    server.thaw().expect("the server is there");
                }
                ServerFault::FlushScripts => server.ask(&["SCRIPT", "FLUSH"]).expect("the server runs"),
                ServerFault::DestroyGroup => {
                    // It may be gone at this very moment, and not made again yet.
                    let _: Result<u64, _> = server.ask(&["XGROUP", "DESTROY", "alerts", "dossier"]);
                }
                ServerFault::KillConnections => {
                    let _: u64 = server.ask(&["CLIENT", "KILL", "TYPE", "normal"]).expect("the server runs");
                }
                ServerFault::OutOfMemory(time) => {
                    let limit =
                        |bytes| server.ask::<()>(&["CONFIG", "SET", "maxmemory", bytes]).expect("the server runs");
                    limit("1");
                    self.pause(time);
                    limit("0");
                }
                ServerFault::ReadOnly(time) => {
                    // Of a master that there is not: its data stays, and writes are refused.
                    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).expect("the server runs");
                    self.pause(time);
                    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]).expect("the server runs");
                }
            }
        }
    }

    fn hosts(&self) {
        let _ends = Ends(&self.over);
        let mut hosts = [Some(self.site.start()), None];
        for (pause, fault) in plan::hosts(self.seed) {
            self.watch(&mut hosts, pause);
            if self.is_over() {
                break;
            }
            match fault {
                HostFault::Start(number) => {
                    if hosts[number].is_none() {
                        hosts[number] = Some(self.site.start());
                        self.note("HostStarted");
                    }
                }
                HostFault::Kill(number) => {
                    if let Some(host) = hosts[number].take() {
                        host.kill();
                        self.kills.fetch_add(1, Ordering::Relaxed);
                        self.note("HostKilled");
                    }
                }
                HostFault::Stop(number) => {
                    if let Some(host) = hosts[number].take() {
                        stop(host);
                        self.note("HostStopped");
                    }
                }
                HostFault::Freeze(number, time) => {
                    if let Some(host) = &hosts[number] {
                        host.signal(Signal::STOP);
                        self.pause(time);
                        host.signal(Signal::CONT);
                        self.note("HostFrozen");
                    }
                }
            }
            // There is always one, or there would be no load.
            if hosts.iter().all(Option::is_none) {
                hosts[0] = Some(self.site.start());
            }
        }
        hosts.into_iter().flatten().for_each(stop);
    }

    /// Waits, and looks at the hosts meanwhile: that none ends by itself, or grows.
    fn watch(&self, hosts: &mut [Option<Host>; 2], time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over() {
            for host in hosts.iter_mut().flatten() {
                assert!(host.is_alive(), "a host ended by itself: {:?}", host.log().last());
                let memory = host.memory();
                self.memory.fetch_max(memory, Ordering::Relaxed);
                assert!(memory < MEMORY, "a host uses {} MB", memory >> 20);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn operator(&self) {
        let _ends = Ends(&self.over);
        for (pause, deed) in plan::operator(self.seed) {
            self.pause(pause);
            if self.is_over() {
                return;
            }
            self.note(&format!("{deed:?}"));
            match deed {
                Deed::Good(number) => put(self.site, &version(number, "")),
                Deed::Bad(number) => {
                    let trap = "(if (i32.lt_u (local.get $amount) (i32.const 5)) (then unreachable))";
                    put(self.site, &version(number, trap));
                }
                Deed::Half(number) => {
                    let whole = version(number, "");
                    std::fs::write(self.site.path("plugins/guest.wasm"), &whole[..whole.len() / 2]).expect("a file");
                }
                Deed::Replay(time) => {
                    let mut replay = self.site.command(&["dlq", "replay", "--all", "--rate", "300"]);
                    let replay = replay.stdout(Stdio::null()).stderr(Stdio::null());
                    let mut replay = replay.spawn().expect("dossier runs");
                    let end = Instant::now() + time;
                    while replay.try_wait().expect("it can be asked").is_none() {
                        if Instant::now() >= end || self.is_over() {
                            let _ = replay.kill();
                            let _ = replay.wait();
                            self.note("ReplayKilled");
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            }
        }
    }
}

/// Tells a host to stop, which it must do well. One that has just been started is given the time to learn what SIGTERM means.
fn stop(host: Host) {
    wait_for("the host to catch SIGTERM", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("the host runs");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).expect("a mask");
        (caught & 1 << (Signal::TERM.as_raw() - 1) != 0).then_some(())
    });
    assert_eq!(host.stop(), Some(0), "a host that is told to stop ends with 0");
}

/// A version of the plugin that does this and answers with its number.
pub fn version(number: u32, also: &str) -> Vec<u8> {
    framed("guest", &format!("(func $enrich (param $amount i32) {also} (call $saw (i64.const {number})))"))
}

/// Puts a version in the place of the one before, as careful people do.
pub fn put(site: &Site, version: &[u8]) {
    site.write("plugins/.guest", version);
    std::fs::rename(site.path("plugins/.guest"), site.path("plugins/guest.wasm")).expect("the plugin in its place");
}
