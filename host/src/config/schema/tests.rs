use std::path::Path;

use serde_json::json;

use super::super::{Config, documented};
use super::*;

/// What a text says as the values that the schema is about.
fn values(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    validator.iter_errors(&values(text)).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn it_is_a_schema_of_its_draft() {
    assert_eq!(schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
    assert!(!schema().to_string().contains("$ref"), "it can be walked down");
    assert!(!schema().to_string().contains("null"), "TOML has none");
}

#[test]
fn what_dossier_toml_says_conforms_to_it_with_every_example_uncommented() {
    for text in documented::variants() {
        assert_eq!(problems(&text), Vec::<String>::new(), "{text}");
        assert!(
            Config::parse(
                Path::new("dossier.toml"),
                &text.replace("${ABUSEIPDB_KEY}", "key").replace("${DOSSIER_ADMIN_TOKEN}", "a-token-for-the-tests")
            )
            .is_ok()
        );
    }
}

#[test]
fn the_configurations_of_the_examples_conform_to_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = 0;
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let file = entry.unwrap().path().join("dossier.toml");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        assert_eq!(problems(&text), Vec::<String>::new(), "{}", file.display());
        found += 1;
    }
    assert!(found > 0);
}

#[test]
fn what_is_wrong_does_not_conform_and_is_refused_by_the_host_as_well() {
    for (wrong, place) in [
        ("[queue]\nbatch = 0", "/queue/batch"),
        ("[queue]\nbatch = \"many\"", "/queue/batch"),
        ("[queue]\nkind = \"kafka\"", "/queue/kind"),
        ("[queue]\nmax_alert_size = \"big\"", "/queue/max_alert_size"),
        ("[queue]\nkind = \"redis\"\nlease = \"soon\"", "/queue/lease"),
        ("[queue]\npaht = \"queue\"", "/queue"),
        ("[host]\ngrace = 30", "/host/grace"),
        ("[alert]\nid = [\"id\"]", "/alert/id/0"),
        ("[alert]\nobservables = [{ pointer = \"/a\", type = \"ip\" }]", "/alert/observables/0"),
        ("[plugins]\nauto = \"yes\"", "/plugins/auto"),
        ("[plugins]\nprobation = { failures = 2.0 }", "/plugins/probation/failures"),
        ("[tables.t]\nformat = \"csv\"", "/tables/t"),
        ("[tables.t]\nfile = \"t.csv\"\nkey = 1", "/tables/t/key"),
        ("[tables.t]\nfile = \"t.csv\"\nkey = \"a\"\ncomment = \"##\"", "/tables/t/comment"),
        ("[http.h]\nurl = \"https://a/\"\nrate = \"often\"", "/http/h/rate"),
        ("[http.h]\nurl = \"https://a/\"\ncache = \"never\"", "/http/h/cache"),
        ("[[step]]\nname = \"geo\"", "/step/0"),
        ("[[step]]\nplugin = \"geo\"\nsha256 = \"12\"", "/step/0/sha256"),
        ("[[step]]\nplugin = \"geo\"\nreuse = 0", "/step/0/reuse"),
        ("[log]\nformat = \"xml\"", "/log/format"),
        ("quue = 1", ""),
        ("[log]\nredact = [\"user\"]", "/log/redact/0"),
        (
            "[alert]\nobservables = [{ pointer = \"a\", type = \"ip\", role = \"source\" }]",
            "/alert/observables/0/pointer",
        ),
        ("[alarms]\ndead_letters = \"0/hour\"", "/alarms/dead_letters"),
        ("[alarms]\ndead_letters = \"7/week\"", "/alarms/dead_letters"),
        ("[http.h]\nurl = \"https://a/\"\nrate = \"0/min\"", "/http/h/rate"),
        ("[admin]\naddress = \"nonsense\"", "/admin/address"),
        ("[admin]\naddress = \"localhost:9464\"", "/admin/address"),
        ("[queue]\nmax_alert_size = \"0B\"", "/queue/max_alert_size"),
        ("[queue]\nmax_alert_size = \"0.0 KiB\"", "/queue/max_alert_size"),
        ("[queue]\nbatch = 100000000", "/queue/batch"),
        ("[host]\nin_flight = 9223372036854775807", "/host/in_flight"),
        ("[queue]\nkind = \"redis\"\nstream = \"\"", "/queue/stream"),
        ("[queue]\nkind = \"redis\"\ngroup = \"\"", "/queue/group"),
        ("[queue]\nkind = \"redis\"\nurl = \"user:password@127.0.0.1:6379\"", "/queue/url"),
        ("[queue]\nkind = \"redis\"\nurl = \"redis:/user:password@127.0.0.1:6379\"", "/queue/url"),
        ("[[step]]\nplugin = \"geo\"\nanswer = \"0B\"", "/step/0/answer"),
    ] {
        let said = problems(wrong);
        assert!(said.iter().any(|problem| problem.starts_with(&format!("{place}: "))), "{wrong}: {said:?}");
        assert!(Config::parse(Path::new("dossier.toml"), wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_the_host_takes_conforms_to_it_at_the_edges() {
    for right in [
        "[log]\nredact = [\"/a\", \"/b/*/c\"]",
        "[alarms]\ndead_letters = \"1/day\"",
        "[alarms]\ndead_letters = \" 010 / min \"",
        "[alarms]\ndead_letters = \"off\"",
        "[admin]\naddress = \"off\"",
        "[admin]\naddress = \"[::1]:0\"",
        "[queue]\nmax_alert_size = \"1B\"\nbatch = 10000",
        "[queue]\nmax_alert_size = \"0.5KiB\"",
        "[host]\nin_flight = 1000000",
        "[queue]\nkind = \"redis\"\nurl = \"unix:///run/redis.sock?pass=x\"\nstream = \"{a}\"",
        "[queue]\nkind = \"redis\"\nurl = \"rediss+sentinel://u:p@a:1,b/main/0\"",
        "[[step]]\nplugin = \"geo\"\nanswer = \"1\"",
    ] {
        assert_eq!(problems(right), Vec::<String>::new(), "{right}");
        assert!(Config::parse(Path::new("dossier.toml"), right).is_ok(), "{right}");
    }
}

#[test]
fn a_variable_may_stand_for_any_text() {
    assert_eq!(problems("[queue]\nmax_alert_size = \"${SIZE}\"\n[host]\ngrace = \"${GRACE}\""), Vec::<String>::new());
    assert_eq!(
        problems("[queue]\nkind = \"redis\"\nurl = \"${URL}\"\n[admin]\naddress = \"${ADDRESS}\""),
        Vec::<String>::new()
    );
}

/// Every setting of a schema, with its place.
fn settings(schema: &Value, place: &str, found: &mut Vec<(String, Value)>) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}/{key}");
        found.push((place.clone(), inner.clone()));
        settings(inner, &place, found);
        settings(&inner["additionalProperties"], &format!("{place}/*"), found);
        settings(&inner["items"], &format!("{place}/*"), found);
    }
}

#[test]
fn every_setting_is_described_and_every_default_conforms_to_its_own_schema() {
    let mut found = Vec::new();
    settings(&schema(), "", &mut found);
    assert!(found.len() > 60, "{}", found.len());
    for (place, setting) in found {
        assert!(setting["description"].as_str().is_some_and(|text| text.ends_with('.')), "{place} is not described");
        if let Some(default) = setting.get("default") {
            assert!(jsonschema::draft202012::is_valid(&setting, default), "{place}: {default}");
        }
    }
    assert_eq!(schema()["properties"]["queue"]["properties"]["batch"]["default"], json!(100));
}
