//! What somebody on call asks: what became of an alert, and what is wrong with what a host stands on.

use dossier_tests::host::{Site, wait_for};
use dossier_tests::redis_server::RedisServer;
use rustix::process::Signal;
use serde_json::Value;

use crate::operations::mischief;
use crate::queues::{Kind, both};

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_alerts_story_is_told_wherever_it_lies_and_all_that_share_the_id_are_told_of() {
    both(|kind| {
        let site = mischief(kind, "");
        site.send(b"{\"id\":\"a\",\"src_ip\":\"192.0.2.7\"}\n");
        site.succeed(&["run", "--until-empty"]);
        site.send(b"{\"id\":\"a\",\"other\":1}\n{\"id\":\"a\",\"mischief\":\"trap\"}\n{\"id\":\"a~b\"}\n{\"id\":\"\\u001b[2J/x\"}\n");
        site.succeed(&["run", "--until-empty"]);

        let page = site.succeed(&["explain", "a"]);
        assert!(page.starts_with("3 share the id a: 2 stored, 1 dead\n"), "{page}");
        for part in [
            "192.0.2.7",
            "UNKNOWN 0  a\n",
            "UNKNOWN 0  a~",
            "DEAD trap  a\n",
            "digest ",
            " fuel",
            "dossier dlq replay ",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("a~b"), "{page}");
        let told: Value = serde_json::from_str(&site.succeed(&["explain", "a", "--json"])).expect("it is JSON");
        let count = |what: &str| told[what].as_array().map(Vec::len);
        assert_eq!((count("stored"), count("dead"), count("waiting")), (Some(2), Some(1), Some(0)));
        assert_eq!(told["dead"][0]["body"], "{\"id\":\"a\",\"mischief\":\"trap\"}");
        let key = told["dead"][0]["key"].as_str().expect("a key");
        assert!(site.succeed(&["explain", key]).starts_with("DEAD trap  a\n"));
        // Ids that a terminal would obey, and that are no file names.
        let page = site.succeed(&["explain", "\u{1b}[2J/x"]);
        assert!(page.contains("\\u{1b}[2J/x") && !page.contains('\u{1b}'), "{page}");

        site.send(b"{\"id\":\"later\"}\n");
        let waits = site.dossier(&["explain", "later"]);
        assert_eq!(waits.status.code(), Some(3));
        assert!(text(&waits).starts_with("WAITING  later\n"), "{}", text(&waits));
        let nowhere = site.dossier(&["explain", "nobody"]);
        assert_eq!(nowhere.status.code(), Some(1));
        assert!(text(&nowhere).contains("no alert has the id \"nobody\""), "{}", text(&nowhere));
    });
}

#[test]
fn conflicts_are_found_by_a_user_who_may_not_look_for_keys() {
    let server = RedisServer::start().expect("redis-server starts");
    let kind = Kind::Redis(server);
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    let site = Site::new(&kind.config());
    site.send(b"{\"id\":\"a*\"}\n{\"id\":\"a*\",\"n\":1}\n{\"id\":\"ab~c\"}\n");
    site.succeed(&["run", "--until-empty"]);
    let stored = || {
        let told: Value = serde_json::from_str(&site.succeed(&["explain", "a*", "--json"])).expect("it is JSON");
        told["stored"].as_array().map(Vec::len)
    };
    assert_eq!(stored(), Some(2));
    let _: String = server.ask(&["ACL", "SETUSER", "default", "-scan"]).expect("ACL");
    assert_eq!(stored(), Some(2));
}

/// What `doctor --json` says: its exit code, and gravity and text of each observation.
fn doctor(site: &Site) -> (Option<i32>, Vec<(String, String)>) {
    let output = site.dossier(&["doctor", "--json"]);
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    let all = told["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .flat_map(|part| part["observations"].as_array().expect("a list"));
    let word = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let all = all.map(|one| (word(one, "gravity"), word(one, "what") + " -> " + &word(one, "next")));
    (output.status.code(), all.collect())
}

#[test]
fn what_could_not_be_decoded_is_known_by_its_entry_and_what_is_stored_by_its_key() {
    both(|kind| {
        let site = mischief(kind, "");
        kind.put(&site, b"no json at all");
        let log = site.succeed(&["run", "--until-empty"]);
        kind.put(&site, b"{\"id\":\"\\u001b[31mred\"}");
        site.succeed(&["run", "--until-empty"]);
        let line = log.lines().find(|line| line.contains("\"malformed\"")).unwrap_or_else(|| panic!("{log}"));
        let line: Value = serde_json::from_str(line).expect("it is JSON");
        let entry = dossier_tests::host::field(&line, "entry").and_then(Value::as_str).expect("an entry");
        let page = site.succeed(&["explain", entry]);
        assert!(page.starts_with("DEAD malformed") && page.contains(&format!("entry       {entry}\n")), "{page}");
        // As a terminal shows it.
        let page = site.succeed(&["explain", "\\u{1b}[31mred"]);
        let key = page.lines().find_map(|line| line.trim().strip_prefix("stored as")).expect("a key").trim();
        let by_key = site.succeed(&["explain", key]);
        assert!(by_key.starts_with("UNKNOWN 0  \\u{1b}[31mred\n") && by_key.contains(key), "{by_key}");
    });
}

#[test]
fn what_a_host_raises_is_a_risk_until_it_is_mended_and_a_host_that_is_stopped_is_said_to_hang() {
    let server = RedisServer::with(&["--appendonly", "yes"]).expect("redis-server starts");
    let kind = Kind::Redis(server);
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let site = Site::new(&format!("{}[admin]\naddress = \"{free}\"\n", kind.config()));
    let host = site.start();
    host.admin();
    let ended = |wanted: i32, gravity: &str, part: &str| {
        wait_for(&format!("{gravity}: {part}"), || {
            let (code, all) = doctor(&site);
            (code == Some(wanted) && says(&all, gravity, part)).then_some(all)
        })
    };
    // It has read nothing yet, and is there.
    let all = ended(0, "fine", "a host answers");
    assert!(!says(&all, "note", "no host takes alerts"), "{all:?}");
    server.ask::<u64>(&["SADD", "alerts:id:odd", "x"]).expect("SADD");
    site.send(b"{\"id\":\"odd\"}\n{\"id\":\"other\"}\n");
    let all = ended(1, "risk", "raises commit-refused");
    assert!(all.iter().any(|(_, what)| what.contains("it names what is in the way")), "{all:?}");
    server.ask::<u64>(&["DEL", "alerts:id:odd"]).expect("DEL");
    ended(0, "fine", "a host answers");
    host.signal(Signal::STOP);
    let all = ended(1, "broken", "hangs or was stopped");
    assert!(!all.iter().any(|(_, what)| what.contains("another address")), "{all:?}");
    host.signal(Signal::CONT);
}

fn says(all: &[(String, String)], gravity: &str, part: &str) -> bool {
    all.iter().any(|(grave, what)| grave == gravity && what.contains(part))
}

#[test]
fn the_doctor_finds_what_endangers_alerts_in_a_server_and_nothing_in_one_that_is_well() {
    let server = RedisServer::with(&["--appendonly", "yes"]).expect("redis-server starts");
    let kind = Kind::Redis(server);
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    let site = Site::new(&kind.config());
    let (code, all) = doctor(&site);
    assert_eq!(code, Some(0), "{all:?}");
    assert!(says(&all, "note", "appendfsync everysec") && says(&all, "fine", "clock"), "{all:?}");
    // It changed nothing.
    assert_eq!(server.ask::<Vec<String>>(&["KEYS", "*"]).expect("KEYS"), Vec::<String>::new());
    for (words, gravity, part) in [
        (&["CONFIG", "SET", "appendonly", "no"][..], "broken", "nothing is ever written to disk"),
        (&["CONFIG", "SET", "save", "3600 1"], "risk", "what came since its last snapshot"),
        (&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"], "broken", "evicts keys"),
        (&["XGROUP", "CREATE", "alerts", "others", "0", "MKSTREAM"], "broken", "another consumer group, \"others\""),
        (&["ACL", "SETUSER", "default", "-config"], "note", "may not ask redis"),
    ] {
        let _: String = server.ask(words).expect("it is set");
        let (code, all) = doctor(&site);
        assert_eq!(code, Some(1));
        assert!(says(&all, gravity, part), "{part}: {all:?}");
        let alone = all.iter().find(|(gravity, what)| gravity != "note" && gravity != "fine" && what.ends_with(" -> "));
        assert_eq!(alone, None, "a problem without what to do");
    }
    let page = site.dossier(&["doctor", "--quiet"]);
    assert!(
        page.status.code() == Some(1) && text(&page).contains("  FAIL  ") && !text(&page).contains("  ok  "),
        "{}",
        text(&page)
    );
}

#[test]
fn the_doctor_asks_each_granted_interface_by_the_hosts_own_rules() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read as _, Write as _};
            let mut stream = stream.expect("a connection");
            let mut request = [0; 2048];
            let length = stream.read(&mut request).expect("a request");
            // Nobody's credentials go anywhere.
            let status =
                if String::from_utf8_lossy(&request[..length]).contains("s3cret") { "500 No" } else { "401 Who?" };
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        }
    });
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let interface = |name: &str, address: std::net::SocketAddr, private: bool| {
        format!("[http.{name}]\nurl = \"http://{address}\"\nprivate = {private}\nheaders.x-key = \"s3cret\"\n")
    };
    let site = Site::new(&format!(
        "[queue]\nkind = \"directory\"\n{}{}{}{}[[step]]\nplugin = \"mischief\"\nhttp = [\"there\", \"refused\", \"inside\"]\ntables = [\"t\"]\n\
         [tables.t]\nfile = \"t.csv\"\nkey = \"k\"\n",
        interface("there", address, true),
        interface("refused", closed, true),
        interface("inside", address, false),
        interface("idle", address, true),
    ));
    site.write("t.csv", b"k,v\n1,2\n");
    site.install("mischief");
    let (code, all) = doctor(&site);
    assert_eq!(code, Some(1));
    assert!(says(&all, "fine", "there: ") && says(&all, "fine", "answers 401"), "{all:?}");
    assert!(says(&all, "risk", "refused: ") && says(&all, "broken", "private = true"), "{all:?}");
    assert!(says(&all, "note", "idle: ") && says(&all, "fine", "t: t.csv, 1 row,"), "{all:?}");
    assert!(!all.iter().any(|(_, what)| what.contains("s3cret")), "{all:?}");
}
