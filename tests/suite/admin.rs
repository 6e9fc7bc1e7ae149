//! What a running host says of itself: the API, who may ask it, and taps. The description of the API is held against a real host by
//! schemathesis.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dossier_tests::alerts;
use dossier_tests::host::{Host, Site, wait_for};
use dossier_tests::not_run::not_run;
use dossier_tests::python;
use serde_json::{Value, json};

use crate::end_to_end::four_plugins;
use crate::operations::mischief;
use crate::queues::{Kind, both};

/// The version of schemathesis that these tests were written for.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// What a path of the API says.
fn api(host: &Host, path: &str) -> Value {
    let (status, body) = host.get(&format!("/api/v1/{path}"));
    assert_eq!(status, 200, "{path}: {body}");
    // A body of unknown length comes in chunks, this one does not.
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn the_api_says_what_the_host_did_and_what_is_left() {
    both(|kind| {
        let site = four_plugins(kind);
        let host = site.start();
        host.admin();
        site.send(&alerts::suricata(0..60));
        site.send(b"not json\nnor this\n");
        site.drained();
        let status = wait_for("the host to have measured", || {
            Some(api(&host, "status")).filter(|status| status["queue"]["depth"]["finished"] == 62)
        });
        assert_eq!((&status["ready"], &status["queue"]["kind"]), (&json!(true), &json!(kind.name())));
        let depth = &status["queue"]["depth"];
        assert_eq!((&depth["waiting"], &depth["dead"], &depth["finished"]), (&json!(0), &json!(2), &json!(62)));
        let alerts = &status["alerts"];
        assert_eq!((&alerts["stored"], &alerts["dead"], &alerts["in_flight"]), (&json!(60), &json!(2), &json!(0)));
        assert_eq!(alerts["duration_seconds"]["count"], 62, "{alerts}");
        let added = match kind {
            Kind::Directory => Value::Null,
            Kind::Redis(_) => json!(62),
        };
        assert_eq!(status["queue"]["flow"]["added"], added, "{status}");

        let steps = api(&host, "steps");
        let names: Vec<_> = steps["steps"].as_array().expect("steps").iter().map(|step| step["step"].clone()).collect();
        assert_eq!(names, ["ip-reputation", "asset", "geo", "verdict"]);
        for step in steps["steps"].as_array().expect("steps") {
            assert_eq!((&step["calls"], &step["outcomes"]), (&json!(60), &json!({ "ok": 60 })), "{step}");
            assert!(step["duration_seconds"]["p99"].as_f64() > Some(0.0) && step["fuel"]["p50"].as_f64() > Some(0.0));
            assert_eq!(step["sha256"].as_str().map(str::len), Some(64), "{step}");
        }
        let dead = api(&host, "dead-letters");
        assert_eq!((&dead["total"], &dead["counted"]), (&json!(2), &json!(2)), "{dead}");
        assert_eq!((&dead["reasons"][0]["reason"], &dead["reasons"][0]["count"]), (&json!("malformed"), &json!(2)));
        let tables = api(&host, "tables");
        let assets = tables["tables"].as_array().and_then(|tables| tables.iter().find(|it| it["table"] == "assets"));
        let assets = assets.expect("a table");
        assert_eq!((&assets["rows"], &assets["steps"]), (&json!(1), &json!(["asset"])), "{assets}");
        let events = api(&host, "events").to_string();
        assert!(events.contains("plugin loaded") && events.contains("alert dead") && events.contains("host ready"));
        assert!(api(&host, "alarms")["alarms"].is_array());
    });
}

#[test]
fn a_host_whose_required_plugin_is_missing_shows_the_step_as_absent() {
    let site = four_plugins(&Kind::Directory);
    std::fs::remove_file(site.path("plugins/geo.wasm")).expect("the plugin was there");
    let host = site.start();
    assert_eq!(host.get("/readyz").0, 503);
    let steps = api(&host, "steps");
    let geo = steps["steps"].as_array().and_then(|steps| steps.iter().find(|step| step["step"] == "geo")).expect("geo");
    assert_eq!((&geo["version"], &geo["required"], &geo["calls"]), (&Value::Null, &json!(true), &json!(0)), "{geo}");
    assert_eq!(api(&host, "status")["ready"], false);
}

/// What a path answers to who sends this token.
fn ask(address: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the host listens");
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: dossier.example\r\n{token}\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[test]
fn an_address_that_others_can_reach_is_refused_without_a_token_and_with_one_asks_for_it() {
    const TOKEN: &str = "s3cret-of-the-admin-address";
    let site = Site::new("[admin]\naddress = \"0.0.0.0:0\"\n");
    for command in [&["validate"][..], &["run", "--until-empty"]] {
        let output = site.dossier(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("dossier.toml:2: other machines can reach \"0.0.0.0:0\""), "{said}");
        assert!(said.contains("token = \"${DOSSIER_ADMIN_TOKEN}\""), "{said}");
    }
    site.write(
        "dossier.toml",
        b"[admin]\naddress = \"0.0.0.0:0\"\ntoken = \"${DOSSIER_ADMIN_TOKEN}\"\n[log]\nlevel = \"trace\"\n",
    );
    let mut run = site.command(&["run"]);
    run.env("DOSSIER_ADMIN_TOKEN", TOKEN);
    let host = site.start_as(run);
    let address = host.admin().replace("0.0.0.0", "127.0.0.1");
    assert_eq!(ask(&address, "/healthz", None).0, 200);
    for path in ["/metrics", "/readyz", "/api/v1/status", "/api/v1/tap", "/api/v1/openapi.json"] {
        for wrong in [None, Some(""), Some("s3cret-of-the-admin-addresT"), Some("s3cret-of-the-admin-address2")] {
            let (status, answer) = ask(&address, path, wrong);
            assert_eq!(status, 401, "{path} {wrong:?}");
            assert!(!answer.contains(TOKEN), "{answer}");
        }
    }
    for path in ["/metrics", "/readyz", "/api/v1/status"] {
        let (status, answer) = ask(&address, path, Some(TOKEN));
        assert_eq!(status, 200, "{path}");
        assert!(!answer.contains(TOKEN), "{answer}");
    }
    let top = |token: Option<&str>| {
        let mut top = site.command(&["top", "--once", "--address", &address]);
        top.env_remove("DOSSIER_ADMIN_TOKEN");
        token.map(|token| top.env("DOSSIER_ADMIN_TOKEN", token));
        top.output().expect("dossier runs")
    };
    let stranger = top(None);
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && said.contains("export DOSSIER_ADMIN_TOKEN"), "{said}");
    let friend = top(Some(TOKEN));
    assert!(friend.status.success(), "{}", String::from_utf8_lossy(&friend.stderr));
    assert!(!String::from_utf8_lossy(&friend.stdout).contains(TOKEN));
    drop(host);
    let log = std::fs::read_to_string(site.path("log.ndjson")).expect("a log");
    assert!(!log.contains(TOKEN), "the token is in the log");
}

/// Taps a host while alerts are sent, until the tap has seen enough; gives its lines.
fn tapped(site: &Site, host: &Host, arguments: &[&str], alert: impl Fn(u32) -> String) -> Vec<Value> {
    let address = host.admin();
    let arguments = [&["tap", "--address", address.as_str()], arguments].concat();
    let mut tap = site.command(&arguments).stdout(Stdio::piped()).spawn().expect("dossier runs");
    let output = tap.stdout.take().expect("a pipe");
    let lines = std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut n = 0;
    let status = wait_for("the tap to end", || {
        site.send(alert(n).as_bytes());
        n += 1;
        tap.try_wait().expect("the tap can be asked")
    });
    assert!(status.success());
    let lines = lines.join().expect("the tap's lines");
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn a_tap_shows_records_as_they_are_stored_and_what_a_step_is_given_and_gives() {
    let kind = Kind::Directory;
    let site = four_plugins(&kind);
    let host = site.start();
    let alert = |n: u32| format!("{{\"id\":\"tapped-{n}\",\"src_ip\":\"45.0.0.7\",\"dest_ip\":\"10.0.0.5\"}}\n");
    let records = tapped(&site, &host, &["--limit", "3"], alert);
    assert_eq!(records.len(), 3);
    site.drained();
    let stored = kind.records(&site);
    for record in &records {
        assert!(stored.contains(record), "{record}");
    }
    let label = records[0]["verdict"]["label"].as_str().expect("a verdict");
    let alike = tapped(&site, &host, &["--verdict", label, "--limit", "2"], |n| alert(n + 100_000));
    assert!(alike.iter().all(|record| record["verdict"]["label"] == label));
    let calls = tapped(&site, &host, &["--step", "geo", "--limit", "2"], |n| alert(n + 200_000));
    for call in &calls {
        assert_eq!((&call["step"], &call["outcome"], &call["attempt"]), (&json!("geo"), &json!("ok"), &json!(1)));
        assert_eq!(call["alert"]["src_ip"], "45.0.0.7", "{call}");
        assert!(call["given"]["observables"].to_string().contains("45.0.0.7"), "{call}");
        assert!(call["gave"]["fields"].to_string().contains("NL"), "{call}");
    }
    let output = site.dossier(&["tap", "--address", &host.admin(), "--step", "goe"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("there is no step \"goe\"; there are ip-reputation, asset, geo, verdict"), "{said}");
}

#[test]
fn a_tap_shows_how_a_step_failed() {
    let site = mischief(&Kind::Directory, "");
    let host = site.start();
    let call = |n| format!("{{\"id\":\"{n}\",\"mischief\":\"trap\"}}\n");
    let calls = tapped(&site, &host, &["--step", "mischief", "--limit", "1"], call);
    assert_eq!((&calls[0]["outcome"], &calls[0]["gave"]), (&json!("trap"), &Value::Null), "{}", calls[0]);
    assert!(calls[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}

#[test]
fn a_tap_that_nobody_reads_holds_up_no_alert_and_is_told_what_it_lost() {
    let kind = Kind::Directory;
    let site = four_plugins(&kind);
    let host = site.start();
    let address = host.admin();
    let mut tap = TcpStream::connect(&address).expect("the host listens");
    write!(tap, "GET /api/v1/tap HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("a request");
    // Its answer begins when it is open; from then on nobody reads.
    let mut reader = BufReader::new(tap);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).expect("an answer");
    }
    assert!(head.contains("application/x-ndjson"), "{head}");
    // 16 MB of records: more than a tap and the buffers of a connection hold.
    let filler = "x".repeat(40_000);
    let before = host.memory();
    for batch in 0..4 {
        let alerts: String = (0..100)
            .map(|n| format!("{{\"id\":\"{batch}-{n}\",\"src_ip\":\"45.0.0.7\",\"x\":\"{filler}\"}}\n"))
            .collect();
        site.send(alerts.as_bytes());
    }
    site.drained();
    assert_eq!(kind.records(&site).len(), 400);
    println!("{before} bytes of memory before, {} after", host.memory());
    assert_eq!(host.get("/healthz").0, 200);
    let mut lines = reader.lines().map_while(Result::ok);
    let lost = lines.find(|line| line.starts_with("{\"lost\":")).expect("it is told");
    let lost: Value = serde_json::from_str(&lost).expect("JSON");
    println!("{lost}");
    assert!(lost["lost"].as_u64() > Some(0), "{lost}");
}

/// schemathesis, in an environment of its own below `target`; none where it cannot be had.
fn schemathesis(test: &str) -> Option<PathBuf> {
    match python::environment("schemathesis", &[SCHEMATHESIS]) {
        Ok(programs) => Some(programs.join("schemathesis")),
        Err(why) => {
            not_run(test, &format!("{why:#}"));
            None
        }
    }
}

/// Holds a host's description of its API against what it answers to requests with this header.
fn check_by_schemathesis(program: &Path, site: &Site, address: &str, header: &str) {
    let mut command = Command::new(program);
    command.args(["run", "openapi.json", "--url"]).arg(format!("http://{address}")).current_dir(site.dir.path());
    command.args(["--header", header]);
    // A tap goes on for ever, which no schema can say; it has tests of its own.
    command.args(["--exclude-path", "/api/v1/tap", "--checks", "all", "--max-examples", "10", "--seed", "1"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "20", "--no-color"]);
    let output = command.output().expect("schemathesis starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn what_is_refused_without_a_token_is_described_says_schemathesis() {
    let Some(program) = schemathesis("what_is_refused_without_a_token_is_described_says_schemathesis") else { return };
    let site = Site::new("");
    let host = site.start();
    let address = host.admin();
    site.write("openapi.json", host.get("/api/v1/openapi.json").1.as_bytes());
    for path in ["/metrics", "/readyz", "/api/v1/tap"] {
        let (status, said) = ask(&address, path, None);
        assert!(status == 403 && said.contains("token in [admin]"), "{path}: {said}");
    }
    check_by_schemathesis(&program, &site, &address, "Host: dossier.example");
}

#[test]
fn the_description_of_the_api_is_true_says_schemathesis() {
    let Some(program) = schemathesis("the_description_of_the_api_is_true_says_schemathesis") else { return };
    const TOKEN: &str = "a-token-for-schemathesis";
    let site = four_plugins(&Kind::Directory);
    let config = std::fs::read_to_string(site.path("dossier.toml")).expect("a configuration");
    let config = config.replace("[admin]\n", &format!("[admin]\ntoken = \"{TOKEN}\"\n"));
    site.write("dossier.toml", config.as_bytes());
    let host = site.start();
    let address = host.admin();
    site.send(&alerts::suricata(0..20));
    site.send(b"not json\n");
    let (status, description) = ask(&address, "/api/v1/openapi.json", Some(TOKEN));
    assert_eq!(status, 200);
    let description = description.split_once("\r\n\r\n").expect("a body").1;
    site.write("openapi.json", description.as_bytes());
    check_by_schemathesis(&program, &site, &address, &format!("Authorization: Bearer {TOKEN}"));
    assert_eq!(ask(&address, "/healthz", None).0, 200);
}
