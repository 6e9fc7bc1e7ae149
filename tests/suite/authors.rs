//! What the author of a plugin types: inspect, run, test, bench and the host that is left open, on the four plugins and on
//! `mischief`.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use dossier_tests::alerts::suricata;
use dossier_tests::host::{Site, built, root, wait_for};
use serde_json::{Value, json};

const PLUGINS: [&str; 4] = ["ip-reputation", "asset", "geo", "verdict"];

fn component(plugin: &str) -> String {
    let folder = if plugin == "mischief" { "guests" } else { "plugins" };
    built(&format!("{folder}/{plugin}.wasm")).display().to_string()
}

fn site() -> Site {
    Site::new("")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `dossier plugin test` on mischief with one fixture.
fn tried(site: &Site, fixture: &Value, more: &[&str]) -> Output {
    site.write("tests/one.json", fixture.to_string().as_bytes());
    let component = component("mischief");
    site.dossier(&[&["plugin", "test", &component, "--tests", "tests"], more].concat())
}

#[test]
fn what_another_compiler_wrote_becomes_a_plugin_with_what_it_asks_for() {
    let site = site();
    let module = std::fs::read(built("wasm/wasm32-unknown-unknown/release/asset.wasm")).expect("a core module");
    site.write("build/asset.wasm", &module);
    site.write("plugin.toml", b"[[tables]]\nname = \"machines\"\nwhy = \"it says who owns them\"\n");
    let said = site.succeed(&["plugin", "build", "build/asset.wasm"]);
    assert!(said.contains("asset.wasm") && said.contains("table machines: it says who owns them"), "{said}");
    let report: Value = serde_json::from_str(&site.succeed(&["plugin", "inspect", ".", "--json"])).expect("JSON");
    assert_eq!((&report["name"], &report["asks"]["tables"][0]["name"]), (&json!("asset"), &json!("machines")));
    for (file, words) in [("asset.wasm", "written over"), ("copy/asset.wasm", "carries what it asks for already")] {
        if file != "asset.wasm" {
            site.write(file, &std::fs::read(site.path("asset.wasm")).expect("what was built"));
        }
        let output = site.dossier(&["plugin", "build", file]);
        assert!(!output.status.success() && stderr(&output).contains(words), "{file}: {}", stderr(&output));
    }
}

#[test]
fn inspect_says_what_it_does_not_know_and_refuses_what_a_host_refuses() {
    let site = site();
    let good = std::fs::read(component("asset")).expect("a component");
    let inspect = |file: &str, bytes: &[u8]| {
        site.write(file, bytes);
        let output = site.dossier(&["plugin", "inspect", file]);
        (output.status.code(), stdout(&output))
    };
    let (code, said) = inspect("other.wasm", &good);
    assert!(code == Some(1) && said.contains("rename it to asset.wasm") && said.contains("[[step]]"), "{said}");
    let (code, said) = inspect("asset.wasm", &good[..good.len() / 2]);
    assert!(code == Some(1) && said.contains("contract  not known") && !said.contains("does not export"), "{said}");
    let section = |json: &[u8]| {
        let mut bytes = std::fs::read(built("wasm/wasm32-unknown-unknown/release/asset.wasm")).expect("a core module");
        bytes = dossier_authoring::component::encode(&bytes).expect("a component");
        let section = wasm_encoder::CustomSection { name: "dossier:manifest".into(), data: json.into() };
        wasm_encoder::ComponentSection::append_to_component(&section, &mut bytes);
        bytes
    };
    let (code, said) = inspect("asset.wasm", &section(b"{"));
    assert!(code == Some(1) && said.contains("asks for  not known") && !said.contains("no manifest"), "{said}");
    let (code, said) = inspect("asset.wasm", &section(br#"{"files":["/etc"]}"#));
    assert!(code == Some(0) && said.contains("files [\"/etc\"]: not known to this version"), "{said}");
}

#[test]
fn inspect_gives_a_step_that_validate_accepts_for_every_plugin() {
    for plugin in PLUGINS.into_iter().chain(["mischief"]) {
        let bare = site();
        let report: Value =
            serde_json::from_str(&bare.succeed(&["plugin", "inspect", &component(plugin), "--json"])).expect("JSON");
        assert_eq!((&report["name"], &report["copied"]), (&json!(plugin), &json!(true)), "{report}");
        assert_eq!(report["contract"], "1.0.0");
        let block = report["step"].as_str().expect("a block");

        let site = Site::new(block);
        site.install(plugin);
        for table in ["geo", "asn", "assets", "blocklist", "some-table"] {
            site.write(&format!("{table}.csv"), b"ip,country_code\n192.0.2.0/24,NL\n");
        }
        let output = site.command(&["validate"]).env("ABUSEIPDB_KEY", "secret").output().expect("dossier runs");
        assert!(output.status.success(), "{plugin}: {block}\n{}", stdout(&output));

        let shown = bare.succeed(&["plugin", "inspect", &component(plugin)]);
        for word in [plugin, "sha256", "imports", "[[step]]", "a copy of what configure left"] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
    }
}

#[test]
fn inspect_shows_what_a_host_refuses_as_far_as_it_can_with_the_reason() {
    let site = site();
    site.write("empty.wasm", b"");
    site.write("random.wasm", b"#!/bin/sh");
    site.write("module.wasm", &wat::parse_str(r#"(module (import "env" "f" (func)))"#).expect("a module"));
    let unknown = wat::parse_str(r#"(component (import "evil:corp/exec@1.0.0" (instance)))"#).expect("a component");
    site.write("unknown.wasm", &unknown);
    for (file, words) in [
        ("empty.wasm", ["the file is empty", "no WebAssembly"]),
        ("random.wasm", ["no WebAssembly component", "sha256"]),
        ("module.wasm", ["it is a core module", "env"]),
        ("unknown.wasm", ["evil:corp/exec@1.0.0", "unknown: no host gives it this"]),
    ] {
        let output = site.dossier(&["plugin", "inspect", file]);
        assert_eq!(output.status.code(), Some(1), "{file}");
        for word in words {
            assert!(stdout(&output).contains(word), "{file}: {}", stdout(&output));
        }
    }
    let refused = ["plugin", "inspect", &component("mischief"), "--settings", r#"{"refuse":"no such \u001b[2Jfeed"}"#];
    let output = site.dossier(&refused);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("it refuses its settings: no such \\u{1b}[2Jfeed"), "{}", stdout(&output));
    assert!(stdout(&output).contains("imports"), "the rest is shown all the same");
}

#[test]
fn run_gives_the_result_of_one_alert_and_what_it_cost() {
    let site = site();
    site.write("alert.json", br#"{"src_ip":"45.0.0.7"}"#);
    site.write("countries.csv", b"network,country_code\n45.0.0.0/16,NL\n");
    let geo = component("geo");
    let arguments = ["plugin", "run", &geo, "--alert", "alert.json", "--table", "geo=countries.csv"];
    let output = site.dossier(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let result: Value = serde_json::from_str(&stdout(&output)).expect("the standard output is JSON");
    assert_eq!(result["fields"]["countries"], json!(["NL"]));
    for word in ["fuel", "memory", "a fresh copy of what configure left", "tables  geo"] {
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }

    // As a step of a configuration, with its table under its name.
    let config = "[tables.places]\nfile = \"countries.csv\"\nkey = \"network\"\n[[step]]\nname = \"where\"\nplugin = \"geo\"\n\
                  tables = [\"places\"]\nsettings = { table = \"places\" }\n";
    site.write("other.toml", config.as_bytes());
    let step = ["plugin", "run", &geo, "--alert", "alert.json", "--config", "other.toml", "--step", "where"];
    let result: Value = serde_json::from_str(&site.succeed(&step)).expect("JSON");
    assert_eq!(result["fields"]["countries"], json!(["NL"]));
}

#[test]
fn run_names_each_way_to_fail_and_what_a_host_would_do() {
    let site = site();
    for (what, kind, fate) in [
        ("trap", "trap", "dead letters as \"trap\""),
        ("loop", "out-of-fuel", "dead letters"),
        ("grow", "memory", "dead letters"),
        ("not-json", "invalid-output", "dead letters"),
        ("invalid", "invalid", "dead letters"),
        ("internal", "internal", "dead letters as \"plugin-error\""),
        ("unavailable", "unavailable", "called again up to 5 times"),
        ("http", "", ""),
        ("not-applicable", "not-applicable", "no failure"),
    ] {
        let alert = json!({ "mischief": what, "url": "https://api.example/" });
        site.write("alert.json", alert.to_string().as_bytes());
        let output = site.dossier(&["plugin", "run", &component("mischief"), "--alert", "alert.json"]);
        let result: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        if what == "http" {
            // Nothing goes out unless that is asked for.
            assert_eq!(result["fields"]["error"], "denied", "{result}");
            assert!(stderr(&output).contains("add --network"), "{}", stderr(&output));
            continue;
        }
        assert_eq!(result["failure"]["kind"], kind, "{result}");
        assert!(stderr(&output).contains(fate), "{what}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(i32::from(what != "not-applicable")), "{what}");
    }
}

#[test]
fn the_fixtures_of_the_four_plugins_pass() {
    for plugin in PLUGINS {
        let fixtures: PathBuf = root().join("plugins").join(plugin).join("tests");
        let fixtures = fixtures.display().to_string();
        let shown = site().succeed(&["plugin", "test", &component(plugin), "--tests", &fixtures]);
        assert!(shown.contains(" 0 failed"), "{shown}");
    }
}

#[test]
fn a_fixture_can_expect_each_way_to_fail() {
    let site = site();
    for (kind, fixture) in [
        ("not-applicable", json!({ "alert": { "mischief": "not-applicable" } })),
        ("unavailable", json!({ "alert": { "mischief": "unavailable" } })),
        ("invalid", json!({ "alert": { "mischief": "invalid" } })),
        ("internal", json!({ "alert": { "mischief": "internal" } })),
        ("trap", json!({ "alert": { "mischief": "trap" } })),
        ("out-of-fuel", json!({ "alert": { "mischief": "loop" } })),
        ("memory", json!({ "alert": { "mischief": "grow" }, "limits": { "memory": "4MiB" } })),
        (
            "timeout",
            json!({ "alert": { "mischief": "loop" }, "limits": { "fuel": 1_000_000_000_000_u64, "timeout_ms": 200 } }),
        ),
        (
            "invalid-output",
            json!({ "alert": { "mischief": "big-answer", "bytes": 2000 }, "limits": { "answer": "1KiB" } }),
        ),
        ("refused", json!({ "alert": {}, "settings": { "refuse": "so there" } })),
    ] {
        let mut fixture = fixture;
        fixture["expect"] = json!({ "failure": { "kind": kind } });
        let output = tried(&site, &fixture, &[]);
        assert!(output.status.success(), "{kind}: {}{}", stdout(&output), stderr(&output));
        let other = if kind == "trap" { "memory" } else { "trap" };
        fixture["expect"] = json!({ "failure": { "kind": other } });
        let output = tried(&site, &fixture, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains(&format!("expected the failure {other}, got {kind}")), "{}", stdout(&output));
    }
}

#[test]
fn a_fixture_that_fails_shows_the_difference_and_update_writes_it_down() {
    let site = site();
    let text = "{ \"alert\": {},\n  \"settings\": {\"a\": 1},\n  \"expect\": {\"fields\": {\"calls\": 2, \"configured\": {\"a\": 1}}} }\n";
    site.write("tests/one.json", text.as_bytes());
    let component = component("mischief");
    let arguments = ["plugin", "test", &component, "--tests", "tests/one.json"];
    let output = site.dossier(&arguments);
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown.contains("-   \"calls\": 2,") && shown.contains("+   \"calls\": 1,"), "{shown}");
    assert!(shown.contains("FAIL  one") && shown.contains("0 passed, 1 failed"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours but on a terminal");

    let shown = site.succeed(&[&arguments[..], &["--update"]].concat());
    assert!(shown.contains("1 expectation written") && shown.contains("\"calls\": 1"), "{shown}");
    let written = std::fs::read_to_string(site.path("tests/one.json")).expect("the fixture");
    assert!(written.starts_with("{ \"alert\": {},\n  \"settings\": {\"a\": 1},\n"), "the rest stays: {written}");
    assert!(site.succeed(&arguments).contains("1 passed, 0 failed"));
    assert!(site.succeed(&[&arguments[..], &["--update"]].concat()).contains("0 expectations written"));
}

#[test]
fn requests_that_are_not_recorded_and_recorded_ones_that_are_not_sent_fail_by_name() {
    let site = site();
    let answer = |url: &str| json!({ "method": "GET", "url": url, "status": 200, "body": { "a": 1 } });
    let alert = json!({ "mischief": "http", "url": "https://api.example/x" });
    let output = tried(&site, &json!({ "alert": alert, "http": [answer("https://api.example/x")] }), &["--update"]);
    assert!(output.status.success(), "{}", stdout(&output));
    let mut fixture: Value =
        serde_json::from_slice(&std::fs::read(site.path("tests/one.json")).expect("the fixture")).expect("JSON");
    assert_eq!(fixture["expect"]["fields"]["status"], 200);
    assert!(tried(&site, &fixture, &[]).status.success());

    fixture["http"] = json!([answer("https://api.example/y")]);
    for more in [&[][..], &["--update"]] {
        let output = tried(&site, &fixture, more);
        let shown = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains("it asked GET https://api.example/x, which is not recorded"), "{shown}");
        assert!(shown.contains("it never asked GET https://api.example/y"), "{shown}");
    }
}

#[test]
fn a_mistake_in_a_fixture_is_named_with_its_file() {
    let output = tried(&site(), &json!({ "alert": {}, "expcet": {} }), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("one.json") && stderr(&output).contains("expcet"), "{}", stderr(&output));
}

#[test]
fn bench_measures_both_kinds_of_instances_and_its_limits_are_enough() {
    let site = site();
    site.write("countries.csv", b"network,country_code\n45.0.0.0/16,NL\n45.1.0.0/16,DE\n45.2.0.0/16,US\n");
    site.write("alerts.ndjson", &suricata(0..20));
    let geo = component("geo");
    let arguments =
        ["plugin", "bench", &geo, "--alert", "alerts.ndjson", "--table", "geo=countries.csv", "--seconds", "1"];
    let shown = site.succeed(&arguments);
    for word in ["20 alerts", "fresh", "reused", "median", "p99", "calls/s"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let limits = shown.split("[[step]]:").nth(1).expect("limits");
    let config = format!(
        "[tables.geo]\nfile = \"countries.csv\"\nkey = \"network\"\n[[step]]\nplugin = \"geo\"\ntables = [\"geo\"]\n{limits}"
    );
    let site = Site::new(&config);
    site.write("countries.csv", b"network,country_code\n45.0.0.0/16,NL\n");
    site.install("geo");
    site.send(&suricata(0..20));
    site.succeed(&["run", "--until-empty"]);
    assert_eq!(site.status()["stored"], 20, "{config}");
}

#[test]
fn validate_shows_what_a_plugin_asks_for_beside_what_it_was_granted() {
    let site = Site::new(
        "[tables.geo]\nfile = \"countries.csv\"\nkey = \"network\"\n[[step]]\nplugin = \"geo\"\ntables = [\"geo\"]\n",
    );
    site.write("countries.csv", b"network,country_code\n45.0.0.0/16,NL\n");
    site.install("geo");
    site.install("mischief");
    let shown = site.succeed(&["validate"]);
    assert!(shown.contains("tables   asks for geo, asn (optional)  granted geo"), "{shown}");
    assert!(shown.contains("imports it, does not say why") && shown.contains("nothing granted"), "{shown}");
    assert!(shown.contains("start    a copy of what configure left"), "{shown}");

    // Where a grant is missing the comparison is what shows which one.
    let config = std::fs::read_to_string(site.path("dossier.toml")).expect("the configuration");
    site.write("dossier.toml", format!("{config}[[step]]\nname = \"m\"\nplugin = \"mischief\"\n").as_bytes());
    let shown = stdout(&site.dossier(&["validate"]));
    assert!(shown.contains("imports tables and http"), "{shown}");
    assert!(shown.contains("step   m: plugin mischief is refused"), "{shown}");
    assert!(shown.contains("tables   imports it, does not say why  nothing granted"), "{shown}");
}

#[test]
fn a_host_that_is_watched_tells_of_reloads_refusals_and_results() {
    let site = site();
    let log = std::fs::File::create(site.path("watched.txt")).expect("a file");
    let mut child =
        site.command(&["run", "--watch"]).stdout(log).stderr(Stdio::inherit()).spawn().expect("dossier runs");
    let told = |what: &str| {
        wait_for(what, || {
            let text = std::fs::read_to_string(site.path("watched.txt")).ok()?;
            text.contains(what).then_some(())
        });
    };
    told("ready");
    site.install("mischief");
    told("plugin mischief 0.1.0 loaded");
    site.send(b"{\"id\":\"first\"}\n{\"id\":\"second\",\"mischief\":\"trap\"}\n");
    told("alert first stored");
    told("mischief {\"calls\":1,");
    told("mischief trap");
    site.write("plugins/mischief.wasm", b"no component");
    told("plugin mischief refused");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the host runs");
    assert!(child.wait().expect("the host ends").success());
    told("stopping");
}
