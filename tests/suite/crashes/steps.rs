//! Each step of the directory queue that the disk sees, cut: the process dies right after it. What follows a step stands before the next
//! one, so that every place between two of them is met.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use dossier_tests::alerts;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, root, wait_for};
use dossier_tests::redis_server::RedisServer;

use super::{Sent, cut};
use crate::queues::Kind;

/// How many sites are at work at once: most of the time a host waits for more alerts.
const AT_ONCE: usize = 12;

/// Whether a failpoint is met only by a host that outlives the process of a suspect.
fn outlives(name: &str) -> bool {
    ["suspect-died", "lock-accused", "redis-noted"].contains(&name)
}

/// A failpoint at this pass; every process of suspects is cut as well where that is what it takes to get there.
fn passes(name: &str, pass: usize) -> String {
    format!("{}{name}={pass}", if outlives(name) { "suspect-runs=1," } else { "" })
}

/// The failpoints that stand in a kind of queue, and those of the worker: a new one is taken in by itself.
pub(super) fn failpoints(queue: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut files = Vec::new();
    for module in [&format!("queue/{queue}"), "worker"] {
        files.push(root().join(format!("host/src/{module}.rs")));
        let folder =
            std::fs::read_dir(root().join(format!("host/src/{module}"))).expect("the host's sources are there");
        files.extend(folder.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()));
    }
    for file in files {
        let text = std::fs::read_to_string(file).expect("a source");
        let names_in = text.split("failpoint!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        names.extend(names_in.map(str::to_owned));
    }
    names
}

/// Where everything was when a process was cut.
pub(super) struct Cut<'a> {
    pub site: &'a Site,
    /// The failpoint, and its pass.
    pub at: String,
}

/// Cuts a command at each pass of each failpoint that it meets, each time in a site of its own, and checks what `then` says. Gives how often
/// each failpoint was met.
pub(super) fn everywhere(
    make: impl Fn(&Site) + Sync,
    arguments: &[&str],
    then: impl Fn(&Cut<'_>) + Sync,
) -> BTreeMap<String, usize> {
    let template = Site::new(&Kind::Directory.config());
    make(&template);
    let next =
        Mutex::new(failpoints("directory").into_iter().map(|name| (name, 1)).collect::<VecDeque<(String, usize)>>());
    let met = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let Some((name, pass)) = next.lock().expect("no thread panicked").pop_front() else { return };
            // A third time could be the third one of the same suspect, which is dead then.
            if !(outlives(&name) && pass == 2) {
                next.lock().expect("no thread panicked").push_back((name.clone(), pass + 1));
            }
            let site = Site::new(&Kind::Directory.config());
            let copied = Command::new("cp").arg("-a").arg(template.path("queue")).arg(site.dir.path()).status();
            assert!(copied.expect("cp runs").success());
            let at = passes(&name, pass);
            if !cut(&site, arguments, &at) {
                next.lock().expect("no thread panicked").retain(|(other, _)| *other != name);
                continue;
            }
            then(&Cut { site: &site, at });
            *met.lock().expect("no thread panicked").entry(name).or_default() += 1;
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| _ = scope.spawn(work)));
    met.into_inner().expect("no thread panicked")
}

/// The names in a folder of the queue.
fn names(site: &Site, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(site.path("queue").join(folder)).expect("a folder of the queue");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What lies in a folder of the queue under names that are no dot files', and end so.
fn contents(site: &Site, folder: &str, end: &str) -> Vec<Vec<u8>> {
    let names = names(site, folder).into_iter().filter(|name| !name.starts_with('.') && name.ends_with(end));
    names.map(|name| std::fs::read(site.path("queue").join(folder).join(name)).expect("a file")).collect()
}

/// Sees to it that what a dead process left goes at the next start, once it is old enough to be a dead one's.
fn nothing_litters(cut: &Cut<'_>) {
    let old = |folder: &Path| {
        for entry in std::fs::read_dir(folder).expect("a folder of the queue") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".dossier-")) {
                let file = std::fs::File::options().append(true).open(path).expect("a file");
                file.set_modified(SystemTime::now() - Duration::from_secs(120)).expect("a time");
            }
        }
    };
    let folders = ["pending", "processed", "errors", ".state"];
    folders.iter().for_each(|folder| old(&cut.site.path("queue").join(folder)));
    cut.site.succeed(&["status"]);
    if !names(cut.site, ".state").is_empty() {
        // Locks of alerts that are gone are cleared away by whoever looks for alerts.
        cut.site.send(b"{\"id\":\"one more\"}\n");
        cut.site.succeed(&["run", "--until-empty"]);
    }
    for folder in folders {
        let hidden: Vec<_> = names(cut.site, folder).into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{}: {folder} holds {hidden:?}", cut.at);
    }
    assert!(names(cut.site, ".state").is_empty(), "{}: {:?}", cut.at, names(cut.site, ".state"));
    let errors = names(cut.site, "errors");
    let stems = |end: &str| errors.iter().filter_map(|name| name.strip_suffix(end)).collect::<Vec<_>>();
    assert_eq!(stems(".json"), stems(".reason"), "{}", cut.at);
}

/// The steps, in words for the table.
pub(super) fn told(met: &BTreeMap<String, usize>) -> String {
    let steps: Vec<_> = met.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!("{} cuts ({})", met.values().sum::<usize>(), steps.join(", "))
}

#[test]
fn a_host_may_die_after_any_step_of_storing_and_burying_and_each_alert_is_in_its_place_once() {
    let kind = Kind::Directory;
    // Another alert's record, under the name that one of ours would have.
    let others = br#"{"id":"alert-00003","alert":{"of":"somebody else"},"pipeline":{"deliveries":1}}"#;
    let (old, new) = (Sent::ids(0..2, &["[0]"]), Sent::ids(2..4, &["[1]"]));
    let make = |site: &Site| {
        Sent::send(&kind, site, 0..2, 0..1);
        // These are suspects: they are to run alone.
        assert!(cut(site, &["run", "--until-empty"], "alerts-read=1"));
        Sent::send(&kind, site, 2..4, 1..2);
        site.write("queue/processed/alert-alert-00003.json", others);
    };
    let mut sent = Sent { good: &old.good | &new.good, bad: &old.bad | &new.bad };
    let line = alerts::suricata(3..4);
    sent.good.insert(format!("alert-00003~{}", &dossier::digest::sha256_hex(line.trim_ascii_end())[..8]));
    let worst = AtomicUsize::new(0);
    let met = everywhere(make, &["run", "--until-empty"], |cut| {
        // Whatever has a name is whole.
        for (folder, end) in [("pending", ".json"), ("processed", ".json"), ("errors", ".reason")] {
            for bytes in contents(cut.site, folder, end) {
                serde_json::from_slice::<serde_json::Value>(&bytes)
                    .unwrap_or_else(|error| panic!("{}: {folder}: {error}", cut.at));
            }
        }
        cut.site.succeed(&["run", "--until-empty"]);
        println!("{}", cut.at);
        let most = sent.settled(&kind, cut.site).values().copied().max().unwrap_or_default();
        worst.fetch_max(usize::try_from(most).expect("a small number"), Ordering::Relaxed);
        let kept = std::fs::read(cut.site.path("queue/processed/alert-alert-00003.json")).expect("it is there");
        assert_eq!(kept, others, "{}: it was overwritten", cut.at);
        nothing_litters(cut);
    });
    let not_met: Vec<_> = failpoints("directory").into_iter().filter(|name| !met.contains_key(name)).collect();
    assert!(not_met.is_empty(), "no run of a host meets {not_met:?}");
    happened(&format!(
        "directory: {}; each alert in its place once, after at most {} deliveries",
        told(&met),
        worst.load(Ordering::Relaxed)
    ));
}

/// What a trace tells of one step: its failpoint, and the paths that it is about.
fn steps(trace: &str) -> Vec<(&str, Vec<&str>)> {
    trace.lines().filter_map(|line| Some((line.split(' ').next()?, line.split(' ').skip(1).collect()))).collect()
}

/// A process that dies loses nothing that it wrote; a power cut does. So the order is looked at, not what is left.
#[test]
fn nothing_has_a_name_before_it_is_on_the_disk_and_no_alert_is_let_go_of_before_its_place_is() {
    let site = Site::new(&Kind::Directory.config());
    let traced = |name: &str, arguments: &[&str]| {
        let mut command = site.program(&built("release/dossier-failpoints"), arguments);
        let status = command.env("DOSSIER_FAILPOINT_TRACE", site.path(name)).output().expect("it runs").status;
        assert!(status.success(), "{arguments:?} ended with {status}");
        std::fs::read_to_string(site.path(name)).expect("a trace")
    };
    site.write("alerts.ndjson", &alerts::suricata(0..20));
    let sent = traced("sent", &["send", "alerts.ndjson"]);
    (0..5).for_each(|n| Kind::Directory.put(&site, format!("[{n}]").as_bytes()));
    let ran = traced("ran", &["run", "--until-empty"]);
    let replayed = traced("replayed", &["dlq", "replay", "--all"]);
    let [mut named, mut let_go] = [0, 0];
    for trace in [&sent, &ran, &replayed] {
        let mut on_disk = BTreeSet::new();
        // Names that are not yet on the disk, by their folder.
        let mut loose: BTreeMap<String, usize> = BTreeMap::new();
        for (step, paths) in steps(trace) {
            let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            match (step, &paths[..]) {
                ("file-synced", [path]) => _ = on_disk.insert(path.to_owned()),
                ("file-renamed" | "file-replaced", [from, to]) => {
                    let unfinished = from.contains("/.dossier-");
                    assert!(!unfinished || on_disk.contains(from), "{to} has a name and is not on the disk\n{trace}");
                    *loose.entry(folder(to)).or_default() += 1;
                    named += 1;
                }
                ("folder-synced", [folder]) => _ = loose.remove(*folder),
                ("file-removed", [path]) if path.contains("/pending/") => {
                    let stored = |end: &str| loose.keys().any(|folder| folder.ends_with(end));
                    // One batch is let go of at a time; what another one stores meanwhile has not been let go of.
                    assert!(!stored("/processed"), "{path} is let go of before its record is on the disk\n{trace}");
                    let_go += 1;
                }
                _ => {}
            }
        }
        assert!(loose.is_empty(), "names that never were on the disk: {loose:?}\n{trace}");
    }
    assert!(named >= 50 && let_go == 20, "{named} named, {let_go} let go of");
    happened(&format!(
        "directory: {named} names given, each after its bytes were synced; {let_go} alerts let go of after the folder was"
    ));
}

#[test]
fn a_producer_may_die_after_any_step_of_sending_and_what_is_there_is_whole() {
    let kind = Kind::Directory;
    let sent = Sent::ids(0..3, &[]);
    let lines = alerts::suricata(0..3);
    let make = |site: &Site| {
        site.succeed(&["status"]);
        site.write("queue/alerts.ndjson", &lines);
    };
    let met = everywhere(make, &["send", "queue/alerts.ndjson"], |cut| {
        for bytes in contents(cut.site, "pending", "") {
            let whole = lines.split(|&byte| byte == b'\n').any(|line| line == bytes);
            assert!(whole, "{}: half an alert has a name: {}", cut.at, String::from_utf8_lossy(&bytes));
        }
        // Nobody told the producer that they arrived, so it sends them again.
        cut.site.succeed(&["send", "queue/alerts.ndjson"]);
        cut.site.succeed(&["run", "--until-empty"]);
        sent.settled(&kind, cut.site);
        nothing_litters(cut);
    });
    happened(&format!("directory, sending: {}; sent again, stored once", told(&met)));
}

#[test]
fn a_replay_and_a_drop_may_die_after_any_step_and_each_dead_letter_is_somewhere_once() {
    let kind = Kind::Directory;
    let bury = |site: &Site| {
        Sent::send(&kind, site, 0..0, 0..2);
        site.succeed(&["run", "--until-empty"]);
    };
    // One of the letters has to take another name in pending: its own is taken.
    let taken = |site: &Site| {
        bury(site);
        let key = names(site, "errors").into_iter().find(|name| name.ends_with(".json")).expect("a dead letter");
        site.write(&format!("queue/pending/{key}"), b"[2]");
    };
    let everything = |site: &Site| {
        let mut all = [contents(site, "pending", ""), contents(site, "errors", ".json")].concat();
        all.sort();
        all
    };
    let three = [b"[0]".to_vec(), b"[1]".to_vec(), b"[2]".to_vec()];
    let replayed = everywhere(taken, &["dlq", "replay", "--all"], |cut| {
        assert_eq!(everything(cut.site), three, "{}", cut.at);
        cut.site.succeed(&["dlq", "replay", "--all"]);
        assert_eq!(contents(cut.site, "pending", "").len(), 3, "{}", cut.at);
        cut.site.succeed(&["run", "--until-empty"]);
        assert_eq!(everything(cut.site), three, "{}", cut.at);
        nothing_litters(cut);
    });
    let dropped = everywhere(
        |site| {
            bury(site);
            for (name, number) in names(site, "errors").iter().filter(|name| name.ends_with(".json")).zip(1..) {
                // Keys that can be said in advance.
                let key = name.strip_suffix(".json").expect("a dead letter");
                for end in ["json", "reason"] {
                    let to = site.path(&format!("queue/errors/{number}.{end}"));
                    std::fs::rename(site.path(&format!("queue/errors/{key}.{end}")), to).expect("another name");
                }
            }
        },
        &["dlq", "drop", "--yes", "1"],
        |cut| {
            nothing_litters(cut);
            let left = names(cut.site, "errors");
            assert!(left.contains(&"2.json".to_owned()) && left.len() <= 4, "{}: {left:?}", cut.at);
        },
    );
    happened(&format!("directory, replay: {}; drop: {}; nothing lost, nothing twice", told(&replayed), told(&dropped)));
}

#[test]
fn a_host_may_die_after_any_script_that_it_had_redis_run_and_each_alert_is_in_its_place_once() {
    let failpoints_met = [
        "alerts-read=1",
        "alert-runs=1",
        "alert-runs=3",
        "suspect-died=1",
        "redis-waited=1",
        "redis-claimed=1",
        "redis-fetched=1",
        "redis-noted=1",
        "redis-noted=2",
        "redis-committed=1",
        "redis-committed=3",
        "commit-begins=1",
        "commit-begins=3",
        "commit-ended=1",
        "commit-ended=3",
    ];
    let met: BTreeSet<_> = failpoints_met.iter().filter_map(|at| Some(at.split_once('=')?.0.to_owned())).collect();
    assert_eq!(met, failpoints("redis"), "every failpoint is to be met");
    let next = Mutex::new(failpoints_met.to_vec());
    let (old, new, last) = (Sent::ids(0..1, &["[0]"]), Sent::ids(2..4, &["[1]"]), Sent::ids(4..5, &[]));
    let sent = Sent { good: &(&old.good | &new.good) | &last.good, bad: &old.bad | &new.bad };
    let work = || {
        loop {
            let Some(at) = next.lock().expect("no thread panicked").pop() else { return };
            let (name, pass) = at.split_once('=').expect("a pass");
            let plan = passes(name, pass.parse().expect("a number"));
            let kind = Kind::Redis(RedisServer::start().expect("redis-server starts"));
            let site = Site::new(&kind.config());
            Sent::send(&kind, &site, 0..1, 0..1);
            // These are suspects: they are to run alone.
            assert!(cut(&site, &["run"], "alerts-read=1"));
            kind.wait_for_the_death();
            Sent::send(&kind, &site, 2..4, 1..2);
            let mut command = site.program(&built("release/dossier-failpoints"), &["run"]);
            command.env("DOSSIER_FAILPOINT", plan);
            let mut host = site.start_as(command);
            wait_for("the host to have nothing left, or to die", || {
                (!host.is_alive() || site.status()["waiting"] == 0 && site.status()["in_flight"] == 0).then_some(())
            });
            // One that finds the host waiting.
            site.send(&alerts::suricata(4..5));
            assert_eq!(host.wait().signal(), Some(9), "{at}");
            site.succeed(&["run", "--until-empty"]);
            println!("{at}");
            sent.settled(&kind, &site);
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| _ = scope.spawn(work)));
    happened(&format!("redis: {} cuts; each alert in its place once", failpoints_met.len()));
}

impl Sent {
    /// As [`Sent::send`], without sending.
    fn ids(good: std::ops::Range<u32>, bad: &[&str]) -> Self {
        Self {
            good: good.map(|n| format!("alert-{n:05}")).collect(),
            bad: bad.iter().map(|bytes| bytes.as_bytes().to_vec()).collect(),
        }
    }
}
