//! A disk that is full, and dead letters that cannot be written.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dossier_tests::alerts;
use dossier_tests::happened::happened;
use dossier_tests::host::{Host, Site, built, field, wait_for};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::Sent;
use crate::queues::{Kind, both};

/// Waits until a host is ready again, and says how long its trouble lasted.
fn recovered(host: &Host) -> f64 {
    wait_for("the host to be ready", || (host.get("/readyz").0 == 200).then_some(()));
    wait_for("the host to tell of it", || {
        let log = host.log();
        let line =
            log.iter().find(|line| field(line, "message").is_some_and(|message| message == "queue recovered"))?;
        Some(field(line, "after_us").and_then(|after| after.as_f64()).expect("how long") / 1e6)
    })
}

/// What makes dead letters impossible, and what ends that.
fn block(kind: &Kind, site: &Site) {
    match kind {
        Kind::Directory => {
            // For root, too, a file is no folder.
            std::fs::rename(site.path("queue/errors"), site.path("errors")).expect("the folder was there");
            site.write("queue/errors", b"");
        }
        Kind::Redis(server) => {
            let _: redis::Value = server.ask(&["SET", "alerts:dlq", "no stream"]).expect("SET");
        }
    }
}

fn unblock(kind: &Kind, site: &Site) {
    match kind {
        Kind::Directory => {
            std::fs::remove_file(site.path("queue/errors")).expect("the file was there");
            std::fs::rename(site.path("errors"), site.path("queue/errors")).expect("the folder is put back");
        }
        Kind::Redis(server) => assert_eq!(server.ask::<u64>(&["DEL", "alerts:dlq"]).expect("DEL"), 1),
    }
}

#[test]
fn dead_letters_that_cannot_be_written_stay_in_the_queue_with_an_alarm_and_hold_up_no_other_alert() {
    both(|kind| {
        let site = Site::new(&kind.config());
        let host = site.start();
        host.admin();
        block(kind, &site);
        let mut sent =
            Sent { bad: ["[0]", "[1]", "[2]"].map(|bytes| bytes.as_bytes().to_vec()).into(), ..Sent::default() };
        sent.bad.iter().for_each(|bytes| kind.put(&site, bytes));
        let said = host.told("commit refused", "");
        let said = field(&said, "error").and_then(|error| error.as_str()).unwrap_or_default().to_owned();
        // Those that come after are stored all the same.
        for line in alerts::suricata(0..50).split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            kind.put(&site, line);
        }
        sent.good = (0..50).map(|n| format!("alert-{n:05}")).collect();
        wait_for("the others to be stored", || (kind.records(&site).len() == 50).then_some(()));
        // Each is let go of a moment after it is stored.
        let pending = || match kind {
            Kind::Directory => std::fs::read_dir(site.path("queue/pending")).expect("a folder").count(),
            Kind::Redis(server) => server.ask(&["XLEN", "alerts"]).expect("XLEN"),
        };
        wait_for("the others to be let go of", || (pending() <= 3).then_some(()));
        assert_eq!(pending(), 3, "a dead letter was let go of");
        if let Kind::Redis(server) = kind {
            let summary: (u64, redis::Value, redis::Value, redis::Value) =
                server.ask(&["XPENDING", "alerts", "dossier"]).expect("XPENDING");
            assert_eq!(summary.0, 3);
            assert!(said.contains("WRONGTYPE"), "{said}");
        }
        // The host serves on, and says that something is to be done.
        wait_for("all three to be told of", || {
            let (ready, why) = host.get("/readyz");
            assert_eq!(ready, 200, "{why}");
            why.contains("3 cannot be committed").then_some(())
        });
        assert_eq!(host.metric("dossier_queue_refused_commits_total"), Some(3.0));
        assert_eq!(host.metric("dossier_alarms_total{alarm=\"commit-refused\"}"), Some(3.0));
        assert_eq!(pending(), 3, "a dead letter was let go of");
        unblock(kind, &site);
        let began = std::time::Instant::now();
        site.drained();
        let after = began.elapsed().as_secs_f64();
        sent.settled(kind, &site);
        assert_eq!(host.stop(), Some(0));
        happened(&format!(
            "{}: 3 kept in the queue, alarm ({}), 50 others stored meanwhile; buried after {after:.1} s",
            kind.name(),
            said.split(':').next_back().unwrap_or_default().trim()
        ));
    });
}

/// A disk that can be filled.
trait Disk {
    /// The queue's folder as this process sees it.
    fn queue(&self) -> PathBuf;
    fn fill(&self);
    fn free(&self);
}

/// A small file system in the host's own mount namespace.
struct Small {
    queue: PathBuf,
}

impl Disk for Small {
    fn queue(&self) -> PathBuf {
        self.queue.clone()
    }

    fn fill(&self) {
        // To the last byte: what does not fit any more says so.
        let full = std::fs::write(self.queue.join("filler"), vec![0; 2 << 20]).expect_err("the disk is small");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.queue.join("filler")).expect("the filler was there");
    }
}

/// A host that may not write: the weaker form.
struct Limited {
    queue: PathBuf,
    pid: Pid,
}

impl Limited {
    fn limit(&self, current: Option<u64>) {
        prlimit(Some(self.pid), Resource::Fsize, Rlimit { current, maximum: None }).expect("a limit can be set");
    }
}

impl Disk for Limited {
    fn queue(&self) -> PathBuf {
        self.queue.clone()
    }

    fn fill(&self) {
        self.limit(Some(0));
    }

    fn free(&self) {
        self.limit(None);
    }
}

/// Starts a host whose disk can be filled: a real one where a file system may be mounted, or else a limit.
fn on_a_small_disk(site: &Site) -> (Host, Box<dyn Disk>) {
    std::fs::create_dir(site.path("queue")).expect("a folder");
    let unshare = |script: &str, rest: &[&str]| {
        let words = [&["-Urm", "sh", "-c", script, "sh"], rest].concat();
        site.program(Path::new("unshare"), &words)
    };
    let dossier = built("release/dossier");
    let dossier = dossier.to_str().expect("a plain path");
    let mount = "mount -t tmpfs -o size=1m tmpfs queue";
    let may = unshare(mount, &[]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if may {
        let host = site.start_as(unshare(&format!("{mount} && exec \"$@\""), &[dossier, "run"]));
        host.admin();
        let root = PathBuf::from(format!("/proc/{}/root", host.pid()));
        let path = site.path("queue");
        let queue = root.join(path.strip_prefix("/").expect("an absolute path"));
        return (host, Box::new(Small { queue }));
    }
    // The log goes through another process: it is not to hit the limit.
    let script = "trap '' XFSZ; exec \"$@\" > >(cat >>log.ndjson) 2>&1";
    let host = site.start_as(site.program(Path::new("bash"), &["-c", script, "bash", dossier, "run"]));
    host.admin();
    let pid = Pid::from_raw(i32::try_from(host.pid()).expect("a process id")).expect("a process id");
    (host, Box::new(Limited { queue: site.path("queue"), pid }))
}

#[test]
fn a_full_disk_under_the_directory_queue_loses_nothing_and_all_goes_on_when_there_is_room() {
    let site = Site::new(&Kind::Directory.config());
    let (host, disk) = on_a_small_disk(&site);
    let queue = disk.queue();
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(queue.join("pending/.half"), bytes).expect("there is room");
        std::fs::rename(queue.join("pending/.half"), queue.join("pending").join(name)).expect("the file in its place");
    };
    let count = |folder: &str| {
        let names = std::fs::read_dir(queue.join(folder)).expect("a folder");
        names.filter(|entry| !entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with('.')).count()
    };
    let lines = alerts::suricata(0..30);
    let alerts: Vec<_> = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    for (n, alert) in alerts[..10].iter().enumerate() {
        put(&format!("{n}.json"), alert);
    }
    wait_for("the first ones", || (count("processed") == 10 && count("pending") == 0).then_some(()));

    // While the host looks away, so that the disk is full when it has something to do.
    host.signal(Signal::STOP);
    for (n, alert) in alerts[10..].iter().enumerate() {
        put(&format!("{}.json", n + 10), alert);
    }
    put("bad.json", b"[1]");
    disk.fill();
    host.signal(Signal::CONT);
    let said = wait_for("the alarm", || {
        let lines = host.log();
        let line =
            lines.iter().find(|line| field(line, "message").is_some_and(|message| message == "queue trouble"))?;
        field(line, "error").and_then(|error| error.as_str()).map(str::to_owned)
    });
    assert_eq!(host.get("/readyz").0, 503);
    // For a while: it tries again and again, and leaves nothing half done.
    let troubles = |host: &Host| {
        let metrics = host.get("/metrics").1;
        let lines = metrics.lines().filter(|line| line.starts_with("dossier_queue_troubles_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    wait_for("more tries", || (troubles(&host) >= 4.0).then_some(()));
    // What is done frees the room that its alert took, so that a few may still fit.
    let (pending, processed, errors) = (count("pending"), count("processed"), count("errors"));
    assert_eq!(pending + processed + errors / 2, 31, "{pending} pending, {processed} processed, {errors} errors");
    assert!(pending > 0, "the disk was full");

    disk.free();
    wait_for("the rest", || (count("processed") == 30 && count("pending") == 0).then_some(()));
    wait_for("the dead letter", || (count("errors") == 2).then_some(()));
    let after = recovered(&host);
    assert_eq!(std::fs::read(queue.join("errors/alert-bad.json")).expect("the original"), b"[1]");
    for folder in ["pending", "processed", "errors", ".state"] {
        let names =
            std::fs::read_dir(queue.join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
        let left: Vec<_> = names.filter(|path| path.to_string_lossy().contains("/.dossier-")).collect();
        assert!(left.is_empty(), "left unfinished: {left:?}");
    }
    assert_eq!(host.stop(), Some(0));
    let why = said.split("queue: ").last().unwrap_or_default();
    happened(&format!("directory: 21 alerts kept while the disk was full, alarm ({why}); all done {after:.1} s later"));
}
