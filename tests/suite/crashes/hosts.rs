//! Several hosts on one queue, and a host that cannot finish because of what lies in it.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;

use dossier_tests::alerts;
use dossier_tests::happened::happened;
use dossier_tests::host::{Host, Site, built, field, wait_for};

use super::Sent;
use crate::queues::{Kind, both};

/// Waits until everything is done.
fn drained(site: &Site) {
    wait_for("the queue to be empty", || {
        let status = site.status();
        (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
    });
}

/// How often each alert was stored, as this host tells it.
fn stored(host: &Host) -> BTreeMap<String, u32> {
    let mut stored = BTreeMap::new();
    for line in host.log() {
        if field(&line, "outcome").is_some_and(|outcome| outcome == "stored") {
            let id = field(&line, "id").and_then(|id| id.as_str()).expect("an id").to_owned();
            *stored.entry(id).or_default() += 1;
        }
    }
    stored
}

#[test]
fn two_hosts_on_one_queue_process_each_alert_once() {
    both(|kind| {
        let site = Site::new(&kind.config());
        // Two logs, so that it can be told who did what.
        let start = |name: &str| {
            let mut command = site.command(&["run"]);
            command.env("DOSSIER_LOG", "info");
            site.start_logging(command, name)
        };
        let hosts = [start("one.ndjson"), start("two.ndjson")];
        hosts.iter().for_each(|host| _ = host.admin());
        let mut sent = Sent::default();
        for part in 0..4 {
            sent.good.extend(Sent::send(kind, &site, part * 500..part * 500 + 500, 0..0).good);
        }
        drained(&site);
        let told = wait_for("a line for each alert", || {
            let told = hosts.each_ref().map(stored);
            (told.iter().map(|told| told.values().sum::<u32>()).sum::<u32>() >= 2000).then_some(told)
        });
        for host in hosts {
            assert_eq!(host.stop(), Some(0));
        }
        let mut all = told[0].clone();
        for (id, count) in &told[1] {
            *all.entry(id.clone()).or_default() += count;
        }
        assert!(all.len() == 2000 && all.values().all(|&count| count == 1), "some were processed twice");
        assert!(told.iter().all(|told| !told.is_empty()), "one host did it all");
        let deliveries = sent.settled(kind, &site);
        assert!(deliveries.values().all(|&count| count == 1));
        happened(&format!("{}: {} and {} of 2000 alerts, each once", kind.name(), told[0].len(), told[1].len()));
    });
}

#[test]
fn a_run_until_empty_ends_with_an_error_that_names_what_cannot_be_read() {
    let site = Site::new(&Kind::Directory.config());
    site.send(&alerts::suricata(0..3));
    site.succeed(&["status"]);
    site.write("queue/pending/secret.json", b"{\"id\":\"secret\"}");
    let secret = site.path("queue/pending/secret.json");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o0)).expect("no permission");
    let mut command = site.program(&built("release/dossier"), &["run", "--until-empty"]);
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable for root: so the host is somebody else, who can reach a copy of the program.
        let program = site.path("dossier");
        std::fs::copy(built("release/dossier"), &program).expect("a copy");
        let mut folders = vec![site.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            chown(&folder, Some(65534), Some(65534)).expect("root may give away");
            if folder.is_dir() {
                folders
                    .extend(std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()));
            }
        }
        command = site.program(&program, &["run", "--until-empty"]);
        command.uid(65534).gid(65534);
    }
    let output = command.output().expect("dossier runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("secret.json") && said.contains("cannot be read"), "{said}");
    assert_eq!(site.processed().len(), 3);
}
