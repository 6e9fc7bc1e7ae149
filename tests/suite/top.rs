//! `dossier top` on a real terminal, against a real host.

use dossier_tests::alerts;
use dossier_tests::host::{Host, Site, built, wait_for};
use dossier_tests::not_run::not_run;
use dossier_tests::redis_server::RedisServer;
use dossier_tests::tmux::Tmux;
use serde_json::{Value, json};

use crate::end_to_end::four_plugins;
use crate::queues::{Kind, both};

/// Waits until a screen shows all of this.
fn shows(tmux: &Tmux, words: &[&str]) -> String {
    let mut last = String::new();
    wait_for(&format!("a screen with {words:?}"), || {
        last = tmux.screen();
        words.iter().all(|word| last.contains(word)).then(|| last.clone())
    })
}

/// `dossier top` in a terminal, in a shell that says how it ended and what the terminal is then.
fn open(site: &Site, host: &Host, width: u16, height: u16) -> Tmux {
    let (top, dir) = (built("release/dossier"), site.dir.path().display());
    let line = format!(
        "cd {dir}; {} top --address {} --interval 0.2; echo \"ended with $?\"; stty -a; exec sleep 600",
        top.display(),
        host.admin()
    );
    Tmux::start(width, height, &line)
}

#[test]
fn top_shows_a_running_host_on_terminals_of_every_size_and_gives_them_back() {
    let test = "top_shows_a_running_host_on_terminals_of_every_size_and_gives_them_back";
    if !Tmux::is_there() {
        return not_run(test, "tmux is not here (sudo apt-get install tmux)");
    }
    let site = four_plugins(&Kind::Directory);
    let host = site.start();
    host.admin();
    for key in ["q", "Escape", "C-c"] {
        let tmux = open(&site, &host, 80, 24);
        shows(&tmux, &["dossier 0.1.0", "ready", "backlog", "STEP", "verdict", "dead letters", "q ends"]);
        if key == "q" {
            site.send(&alerts::suricata(0..200));
            site.send(b"not json\n");
            let screen = shows(&tmux, &["200 stored", "1  malformed", "alert dead"]);
            println!("{screen}");
            tmux.resize(40, 10);
            let small = shows(&tmux, &["more", "backlog", "q ends"]);
            println!("{small}");
            assert_eq!(small.lines().count(), 10);
            // How far down they are depends on the alarms that this machine raises: its disk may be nearly full.
            wait_for("the steps further down", || {
                tmux.press("Down");
                let screen = tmux.screen();
                ["STEP", "CALLS/S"].iter().all(|word| screen.contains(word)).then_some(())
            });
            wait_for("the events further down", || {
                tmux.press("PageDown");
                tmux.screen().contains("plugin loaded").then_some(())
            });
            tmux.resize(200, 60);
            println!("{}", shows(&tmux, &["DIGEST", "PROBATION", "USED BY", "plugin loaded"]));
        }
        tmux.press(key);
        let after = shows(&tmux, &["ended with 0", "icanon"]);
        assert!(!after.contains("-icanon") && !after.contains("-echo "), "the terminal is as it was: {after}");
        assert!(!after.contains("q ends"), "the screen is gone: {after}");
    }
}

#[test]
fn top_says_when_its_host_is_gone_and_finds_it_again() {
    let test = "top_says_when_its_host_is_gone_and_finds_it_again";
    if !Tmux::is_there() {
        return not_run(test, "tmux is not here (sudo apt-get install tmux)");
    }
    let site = four_plugins(&Kind::Directory);
    let host = site.start();
    let address = host.admin();
    let tmux = open(&site, &host, 100, 30);
    shows(&tmux, &["ready", "q ends"]);
    host.kill();
    shows(&tmux, &["old by", &format!("no host answers at {address}: connection refused")]);
    let config = std::fs::read_to_string(site.path("dossier.toml")).expect("a configuration");
    site.write("dossier.toml", config.replace("127.0.0.1:0", &address).as_bytes());
    let _again = site.start_logging(site.command(&["run"]), "again.ndjson");
    let screen = shows(&tmux, &["ready", "q ends"]);
    assert!(!screen.contains("no host answers"), "{screen}");
}

#[test]
fn top_once_is_for_scripts_and_for_people() {
    both(|kind| {
        let site = four_plugins(kind);
        let host = site.start();
        let address = host.admin();
        site.send(&alerts::suricata(0..100));
        site.drained();
        let shown = site.succeed(&["top", "--once", "--json", "--address", &address]);
        let json: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!((json["status"]["alerts"]["stored"].as_u64(), shown.lines().count()), (Some(100), 1));
        assert_eq!(json["steps"]["steps"].as_array().map(Vec::len), Some(4));
        assert!(json["rates"]["added"].is_number() && json["rates"]["steps"]["geo"]["calls"].is_number(), "{shown}");
        assert_eq!(json["dead_letters"]["reasons"], json!([]));
        let text = site.succeed(&["top", "--once", "--address", &address]);
        println!("{text}");
        for word in ["backlog 0", "100 stored", "ip-reputation", "dead letters 0", "assets"] {
            assert!(text.contains(word), "without {word}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");
        drop(host);
        let gone = site.dossier(&["top", "--once", "--address", &address]);
        let said = String::from_utf8_lossy(&gone.stderr).into_owned();
        assert_eq!(gone.status.code(), Some(1));
        assert!(said.contains(&format!("no host answers at {address}")) && said.contains("dossier run"), "{said}");
    });
}

#[test]
fn top_still_shows_a_host_whose_queue_hangs() {
    let server = RedisServer::start().expect("redis-server starts");
    let kind = Kind::Redis(server);
    let site = four_plugins(&kind);
    let host = site.start();
    let address = host.admin();
    site.send(&alerts::suricata(0..20));
    site.drained();
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    server.freeze().expect("the server stops answering");
    let shown = site.succeed(&["top", "--once", "--json", "--address", &address]);
    server.thaw().expect("it goes on");
    let json: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&json["status"]["alerts"]["stored"], &json["dead_letters"]), (&json!(20), &Value::Null), "{shown}");
}

#[test]
fn top_without_a_terminal_says_what_to_do_instead() {
    let site = Site::new("");
    let output = site.dossier(&["top", "--address", "127.0.0.1:1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--once"), "{said}");
}
