//! Plugins in the four languages: made by `dossier plugin new`, built by `dossier plugin build`, tried on the fixtures that they
//! come with, which are the same in all, and run in a host beside the project's own. What a machine lacks a tool for is named.

use std::path::Path;
use std::process::Output;

use dossier_authoring::language::Language;
use dossier_tests::alerts::{ASSETS, BLOCK_LIST, COUNTRIES, FOUR_STEPS, real, suricata};
use dossier_tests::author::{NewPlugin, cache, dossier, files, new_plugin, said};
use dossier_tests::host::{Site, root, wait_for};
use dossier_tests::not_run::not_run;
use serde_json::{Value, json};

/// The new plugin of a language; none where this machine lacks what it takes.
fn plugin(test: &str, language: Language) -> Option<NewPlugin> {
    new_plugin(language).map_err(|why| not_run(test, &why)).ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(arguments: &[&str], path: &Path) -> Output {
    let mut command = dossier(arguments);
    command.arg(path).output().expect("dossier runs")
}

/// It passes its fixtures, which are the template's, and gives what its README promises when it is run as that says.
fn works_as_it_stands(test: &str, language: Language) {
    let Some(plugin) = plugin(test, language) else { return };
    let common = root().join("authoring/templates/common/tests");
    let fixtures = files(&common);
    for fixture in &fixtures {
        let own = plugin.folder.join("tests").join(fixture.file_name().expect("a file has a name"));
        assert_eq!(std::fs::read(own).ok(), std::fs::read(fixture).ok(), "{}", fixture.display());
    }
    let output = run(&["plugin", "test"], &plugin.component());
    let all = format!("{} passed, 0 failed", fixtures.len());
    assert!(text(&output.stdout).contains(&all), "{}{}", text(&output.stdout), text(&output.stderr));

    let (alert, table) = (plugin.folder.join("try/alert.json"), plugin.folder.join("try/addresses.csv"));
    let mut run = dossier(["plugin", "run", "--table", &format!("addresses={}", table.display()), "--alert"]);
    let result: Value = serde_json::from_str(&said(run.arg(alert).arg(plugin.component()))).expect("JSON");
    let row = json!({ "ip": "192.0.2.0/24", "owner": "guest network" });
    let found = json!([{ "address": "192.0.2.7", "role": "source", "row": row }]);
    assert_eq!(result["fields"]["matches"], found, "{language}");

    let report: Value =
        serde_json::from_str(&said(dossier(["plugin", "inspect", "--json"]).arg(plugin.component()))).expect("JSON");
    assert_eq!((&report["name"], &report["copied"]), (&json!(plugin.name), &json!(true)), "{report}");
}

#[test]
fn a_new_plugin_in_rust_works_as_it_stands() {
    works_as_it_stands("a_new_plugin_in_rust_works_as_it_stands", Language::Rust);
}

#[test]
fn a_new_plugin_in_javascript_works_as_it_stands() {
    works_as_it_stands("a_new_plugin_in_javascript_works_as_it_stands", Language::JavaScript);
}

#[test]
fn a_new_plugin_in_python_works_as_it_stands() {
    works_as_it_stands("a_new_plugin_in_python_works_as_it_stands", Language::Python);
}

#[test]
fn a_new_plugin_in_c_works_as_it_stands() {
    works_as_it_stands("a_new_plugin_in_c_works_as_it_stands", Language::C);
}

#[test]
fn a_new_plugin_in_rust_is_tested_natively_by_cargo_test() {
    let Some(plugin) = plugin("a_new_plugin_in_rust_is_tested_natively_by_cargo_test", Language::Rust) else { return };
    let native = std::fs::read_to_string(plugin.native()).expect("cargo has tested it");
    assert!(native.contains("test result: ok. 3 passed; 0 failed"), "{native}");
}

/// Both components of one source have the same bytes.
fn reproducible(test: &str, language: Language) {
    let Some(plugin) = plugin(test, language) else { return };
    let [one, other] = [plugin.component(), plugin.again()].map(|file| std::fs::read(file).expect("it was built"));
    assert!(one == other, "two builds of one source in {language} differ");
}

#[test]
fn one_source_in_rust_gives_the_same_bytes_in_another_folder() {
    reproducible("one_source_in_rust_gives_the_same_bytes_in_another_folder", Language::Rust);
}

#[test]
fn one_source_in_c_gives_the_same_bytes_in_another_folder() {
    reproducible("one_source_in_c_gives_the_same_bytes_in_another_folder", Language::C);
}

/// Settings that it does not know are refused at load, in its own words.
fn refuses_what_it_does_not_know(test: &str, language: Language) {
    let Some(plugin) = plugin(test, language) else { return };
    let output = run(&["plugin", "inspect", "--settings", r#"{"tabel":"hosts"}"#], &plugin.component());
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("it refuses its settings: ") && shown.contains("tabel"), "{shown}");
}

#[test]
fn settings_that_a_plugin_does_not_know_are_refused_in_rust() {
    refuses_what_it_does_not_know("settings_that_a_plugin_does_not_know_are_refused_in_rust", Language::Rust);
}

#[test]
fn settings_that_a_plugin_does_not_know_are_refused_in_javascript() {
    refuses_what_it_does_not_know(
        "settings_that_a_plugin_does_not_know_are_refused_in_javascript",
        Language::JavaScript,
    );
}

#[test]
fn settings_that_a_plugin_does_not_know_are_refused_in_python() {
    refuses_what_it_does_not_know("settings_that_a_plugin_does_not_know_are_refused_in_python", Language::Python);
}

#[test]
fn settings_that_a_plugin_does_not_know_are_refused_in_c() {
    refuses_what_it_does_not_know("settings_that_a_plugin_does_not_know_are_refused_in_c", Language::C);
}

#[test]
fn a_plugin_may_be_called_like_a_word_of_its_language() {
    let test = "a_plugin_may_be_called_like_a_word_of_its_language";
    // It has what this machine needs, if that can be had.
    if plugin(test, Language::C).is_none() {
        return;
    }
    let place = tempfile::tempdir().expect("a temporary folder");
    for name in ["record", "struct"] {
        let folder = place.path().join(name);
        said(dossier(["plugin", "new", "--lang", "c"]).arg(&folder));
        let built = said(dossier(["plugin", "build"]).arg(&folder));
        for word in [&format!("{name}.wasm"), "imports   tables", "asks for  table addresses"] {
            assert!(built.contains(word), "{built}");
        }
        let tested = said(dossier(["plugin", "test"]).arg(&folder));
        assert!(tested.contains("0 failed"), "{tested}");
    }
}

#[test]
fn what_is_wrong_with_a_new_plugin_is_said_with_the_next_step_and_leaves_nothing() {
    let site = Site::new("");
    for (arguments, words) in [
        (["plugin", "new", "My_Plugin", "--lang", "c"], ["\"My_Plugin\" is no name", "as in ip-owners"]),
        (["plugin", "new", "plugins", "--lang", "c"], ["plugins is there already", "choose another name"]),
        (["plugin", "new", "owners", "--lang", "go"], ["invalid value 'go'", "rust, js, python, c"]),
        (["plugin", "new", "dossier-sdk", "--lang", "rust"], ["\"dossier-sdk\" is the name of what", "choose another"]),
    ] {
        let output = site.dossier(&arguments);
        assert!(!output.status.success(), "{arguments:?}");
        for word in words {
            assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
        }
    }
    let left: Vec<_> = files(site.dir.path());
    assert_eq!(left, [site.path("dossier.toml")]);
}

#[test]
fn a_build_without_its_tools_names_them_and_leaves_nothing() {
    let site = Site::new("");
    for (lang, words) in [
        ("js", ["`node` is not on PATH", "https://nodejs.org"]),
        ("python", ["`python3` with the modules venv and ensurepip", "sudo apt-get install python3-venv"]),
        ("c", ["no clang here compiles C for wasm", "sudo apt-get install --no-install-recommends clang-19"]),
    ] {
        let name = format!("a-{lang}");
        site.succeed(&["plugin", "new", &name, "--lang", lang]);
        let before = files(&site.path(&name));
        let mut build = site.command(&["plugin", "build", &name]);
        let output = build.env("PATH", "/nowhere").env_remove("WASI_SDK_PATH").output().expect("dossier runs");
        assert_eq!(output.status.code(), Some(1), "{lang}");
        for word in words {
            assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
        }
        assert_eq!(files(&site.path(&name)), before, "{lang}");
    }
    let output = site.dossier(&["plugin", "build", "plugins"]);
    assert!(text(&output.stderr).contains("plugins is no plugin's folder"), "{}", text(&output.stderr));
}

/// A site with the project's four plugins and these, each with the step that `inspect` gives, as it stands.
fn site_with(plugins: &[NewPlugin]) -> Site {
    let mut config = FOUR_STEPS.to_owned();
    for (at, plugin) in plugins.iter().enumerate() {
        let report = said(dossier(["plugin", "inspect", "--json"]).arg(plugin.component()));
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let block = report["step"].as_str().expect("a step to paste");
        // They ask for the same table, which is configured once.
        let from = if at == 0 { 0 } else { block.find("[[step]]").expect("a step") };
        config += &block[from..];
    }
    let site = Site::new(&config);
    site.write("blocklist.tsv", BLOCK_LIST.as_bytes());
    site.write("assets.csv", ASSETS.as_bytes());
    site.write("countries.csv", COUNTRIES.as_bytes());
    site.write("addresses.csv", b"ip,owner\n45.0.0.0/8,somebody\n10.0.0.5,it-ops\n");
    for plugin in ["ip-reputation", "asset", "geo", "verdict"] {
        site.install(plugin);
    }
    for plugin in plugins {
        let bytes = std::fs::read(plugin.component()).expect("it was built");
        site.write(&format!("plugins/{}.wasm", plugin.name), &bytes);
    }
    // What `inspect` has compiled, so that nobody waits for it again.
    for file in files(&cache().join("dossier/compiled")) {
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        site.write(&format!("state/compiled/{name}"), &std::fs::read(&file).expect("code can be read"));
    }
    site
}

#[test]
fn plugins_in_all_languages_enrich_real_alerts_side_by_side_and_agree() {
    let test = "plugins_in_all_languages_enrich_real_alerts_side_by_side_and_agree";
    let Some(plugins) = Language::ALL.into_iter().map(|language| plugin(test, language)).collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let site = site_with(&plugins);
    let mut alerts = suricata(0..150);
    if let Some(file) = real("suricata-alerts.ndjson") {
        let text = std::fs::read(file).expect("the file is there");
        text.split_inclusive(|byte| *byte == b'\n').take(100).for_each(|line| alerts.extend_from_slice(line));
    }
    let count = alerts.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let host = site.start();
    host.admin();
    site.send(&alerts);
    wait_for("all alerts to be stored", || {
        let status = site.status();
        (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
    });
    assert_eq!(host.stop(), Some(0));

    let records = site.processed();
    assert_eq!((records.len(), site.status()["dead"].as_u64()), (count, Some(0)));
    for (file, record) in &records {
        let results = &record["enrichment"];
        assert_eq!(record["pipeline"]["steps"].as_array().map(Vec::len), Some(8), "{record}");
        for plugin in &plugins {
            assert_eq!(results[&plugin.name], results[&plugins[0].name], "{file}: {}", plugin.name);
            assert!(results[&plugin.name]["matches"].is_array(), "{file}: {}: {results}", plugin.name);
        }
        if file.starts_with("alert-alert-") {
            let first = &results[&plugins[0].name]["matches"][0];
            assert_eq!((&first["role"], &first["row"]["owner"]), (&json!("source"), &json!("somebody")), "{file}");
            assert!(results["ip-reputation"].is_object() && results["asset"].is_object(), "{file}: {results}");
            assert!(results["geo"].is_object() && record["verdict"]["label"].is_string(), "{file}: {results}");
        }
    }
    let ours = records.iter().filter(|(file, _)| file.starts_with("alert-alert-")).count();
    assert_eq!(ours, 150);
}
