//! Guests that attack whoever compiles them: refused within bounds of size, time and memory, while what served before serves on,
//! and nothing is left behind.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dossier_tests::guest::Guest;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, built, field, wait_for};
use serde_json::Value;

use super::all::*;
use super::{asked, load, peak, site};

/// Memory that compiling may take, as `dossier compile` bounds it.
const MEMORY: u64 = 3 << 30;

/// Every guest of this kind.
const ATTACKS: [Guest; 8] =
    [HUGE_FUNCTION, NESTED_BLOCKS, MANY_LOCALS, BRANCH_TABLES, MANY_MODULES, DEEP_COMPONENTS, DEEP_TYPES, GIANT_DATA];

/// Compiles as the host does, and watches how much memory that takes. Gives the report, the peak and the time.
fn compile(component: &[u8], more: &[&str]) -> (String, u64, Duration, Option<i32>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("guest.wasm");
    fs::write(&file, component).expect("the component");
    let began = Instant::now();
    let mut child: Child = Command::new(built("release/dossier"))
        .arg("compile")
        .args(more)
        .arg("--output")
        .arg(folder.path().join("code"))
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dossier runs");
    let mut most = 0;
    while child.try_wait().expect("the child can be asked").is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let now = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(now.unwrap_or_default() << 10);
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("the child ended");
    use std::os::unix::process::ExitStatusExt as _;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (said, most, began.elapsed(), output.status.signal())
}

#[test]
fn every_attack_ends_within_its_bounds_of_time_and_memory() {
    for guest in ATTACKS {
        let component = guest.component();
        let (said, memory, took, signal) = compile(&component, &["--cpu-seconds", "20"]);
        let said: String = said.chars().take(200).collect();
        println!(
            "{}: {} KiB, {took:?}, {} MiB, signal {signal:?}: {said}",
            guest.name,
            component.len() >> 10,
            memory >> 20
        );
        assert!(memory <= MEMORY + (64 << 20), "{}: {memory} bytes", guest.name);
        assert!(took < Duration::from_secs(200), "{}: {took:?}", guest.name);
        assert!(!said.contains("Compiled") && !said.contains("compiled\":"), "{}: {said}", guest.name);
    }
}

#[tokio::test]
async fn an_attack_is_refused_and_leaves_nothing_behind() {
    for guest in [HUGE_FUNCTION, DEEP_COMPONENTS, DEEP_TYPES, MANY_MODULES] {
        let why = load(&guest, "").await.err().unwrap_or_else(|| panic!("{} is taken", guest.name));
        assert!(
            ["not a valid plugin", "the process", "does not export"].iter().any(|words| why.contains(words)),
            "{}: {why}",
            guest.name
        );
    }
}

#[test]
fn the_memory_of_the_child_is_obeyed_and_violated_by_the_compiler_and_by_the_guest() {
    let good = DICE.component();
    let (said, ..) = compile(&good, &["--data", "200000000"]);
    assert!(said.contains("\"compiled\""), "{said}");
    // Too little for the compiler's own heap.
    let (said, memory, ..) = compile(&MANY_LOCALS.component(), &["--data", "100000000"]);
    assert!(!said.contains("\"compiled\"") && memory < 200_000_000, "{memory}: {said}");
    // wasm's memory is a mapping, and counts as well: the guest takes 512 MiB where there are 200 MB.
    let hungry = dossier_tests::guest::framed(
        "hungry",
        "(func $configure (if (i32.eq (memory.grow (i32.const 8192)) (i32.const -1)) (then unreachable))
                          (memory.fill (i32.const 65536) (i32.const 1) (i32.const 0x1fff0000)))
         (func $enrich (param i32))",
    );
    let cap = ["--memory", "1073741824"];
    let (said, memory, ..) = compile(&hungry, &[&cap[..], &["--data", "200000000"]].concat());
    assert!(said.contains("refused") && memory < 300_000_000, "{memory}: {said}");
}

#[test]
fn a_compiler_that_computes_too_long_is_ended_by_its_processor_time() {
    let (_, _, took, signal) = compile(&MANY_LOCALS.component(), &["--cpu-seconds", "1"]);
    // SIGXCPU, which the host tells from a machine that kills.
    assert_eq!(signal, Some(24), "{took:?}");
}

/// The children of a host.
fn children(host: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{host}/task")).expect("the host runs");
    let lists = tasks.map(|task| fs::read_to_string(task.expect("a task").path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// How the first thread of a process is scheduled: by which policy, and with which niceness (`proc_pid_stat(5)`).
fn scheduled(process: u32) -> Option<(u32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // The third field is the first behind the name.
    Some((fields.get(41 - 3)?.parse().ok()?, fields.get(19 - 3)?.parse().ok()?))
}

#[test]
fn a_new_version_is_compiled_when_nobody_else_wants_the_processor_and_on_a_busy_machine_with_a_small_share_of_it() {
    const OTHER: u32 = 0;
    const IDLE: u32 = 5;
    let site = site(&SLOW, "");
    let host = site.start();
    host.admin();
    // Ends by itself too, where this test fails.
    let (over, at_most) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && Instant::now() < at_most {
                    std::hint::spin_loop();
                }
            });
        }
        site.write("plugins/.attack", &MANY_LOCALS.component());
        fs::rename(site.path("plugins/.attack"), site.path("plugins/mischief.wasm")).expect("the attack in its place");
        let child = |policy: u32| {
            let is = |process: &u32| scheduled(*process) == Some((policy, 10));
            children(host.pid()).into_iter().find(is)
        };
        let first = wait_for("a child that gives way", || child(IDLE));
        let began = Instant::now();
        wait_for("a child with a small share", || child(OTHER));
        over.store(true, Ordering::Relaxed);
        // Not only when it could have used up its processor time.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        wait_for("the first child to be gone", || scheduled(first).is_none().then_some(()));
    });
}

fn leftovers(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.path("state/compiled")).expect("a state folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn the_old_version_serves_on_while_an_attack_is_compiled_and_alerts_are_hardly_slower() {
    let guest = SLOW;
    let site = site(&guest, "");
    let host = site.start();
    host.admin();
    let work = asked(&guest, &serde_json::json!({ "spin": 100_000 }));
    let mut sent = 0;
    let mut batch = |count: u32| {
        for _ in 0..count {
            let mut alert = work.clone();
            alert["id"] = format!("{sent:05}").into();
            sent += 1;
            site.send(format!("{alert}\n").as_bytes());
        }
        site.drained();
        let records = site.processed();
        let new = &records[records.len() - count as usize..];
        let mut took: Vec<_> =
            new.iter().filter_map(|(_, record)| record["pipeline"]["duration_us"].as_u64()).collect();
        assert_eq!(took.len(), count as usize);
        took.sort_unstable();
        Duration::from_micros(took[took.len() / 2])
    };
    let alone = batch(40);
    let before = peak(&host);
    let attack = MANY_LOCALS.component();
    site.write("plugins/.attack", &attack);
    fs::rename(site.path("plugins/.attack"), site.path("plugins/mischief.wasm")).expect("the attack in its place");
    wait_for("the child", || (!children(host.pid()).is_empty()).then_some(()));
    let meanwhile = batch(40);
    let compiling = children(host.pid()).len();
    happened(&format!(
        "alerts took {} µs alone and {} µs while it was compiled (median of 40), by the old version; {compiling} child",
        alone.as_micros(),
        meanwhile.as_micros()
    ));
    assert!(meanwhile < alone * 10 + Duration::from_millis(50), "{alone:?}, {meanwhile:?}");
    let first = site.processed().remove(0).1;
    let digest = |record: &Value| record["pipeline"]["steps"][0]["sha256"].clone();
    assert!(site.processed().iter().all(|(_, record)| digest(record) == digest(&first)));
    assert!(site.processed().iter().all(|(_, record)| record["pipeline"]["steps"][0]["outcome"] == "ok"));
    // A host that is killed takes its child with it, and only a folder stays, which the next start clears when it is old.
    assert!(peak(&host) - before < attack.len() as u64 * 8 + (64 << 20));
    host.kill();
    wait_for("the child to be gone", || {
        let running = fs::read_dir("/proc").expect("processes").filter_map(|entry| {
            let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            (line.contains("compile") && line.contains(&*site.dir.path().to_string_lossy())).then_some(())
        });
        (running.count() == 0).then_some(())
    });
    for entry in fs::read_dir(site.path("state/compiled")).expect("a state folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            let long_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
            fs::File::open(entry.path())
                .and_then(|folder| folder.set_modified(long_ago))
                .expect("a folder can be aged");
        }
    }
    // The last good version serves again.
    site.install("mischief");
    let host = site.start();
    wait_for("what was left to be cleared", || leftovers(&site).is_empty().then_some(()));
    assert!(host.log().iter().all(|line| field(line, "why").is_none()));
}
