use std::path::Path;

use super::super::documented::{said, variants};
use super::*;
use crate::cli::config::to_toml;

fn parse(text: &str) -> Config {
    Config::parse(Path::new("dossier.toml"), text).unwrap()
}

fn none(_: &str) -> Option<String> {
    None
}

fn find<'a>(settings: &'a [Setting], name: &str) -> &'a Setting {
    settings.iter().find(|setting| setting.setting == name).unwrap_or_else(|| panic!("{name} is not there"))
}

#[test]
fn what_is_shown_says_the_same_as_what_was_read() {
    for text in
        variants().iter().map(String::as_str).chain(["", "[queue]\nkind = \"redis\"", "[http.a]\nurl = \"http://a/\""])
    {
        let text = text.replace("${ABUSEIPDB_KEY}", "key").replace("${DOSSIER_ADMIN_TOKEN}", "a-token-for-the-tests");
        // A header's value is masked, which is the only thing that may be different.
        let masked = text.replace("\"key\"", "\"****************\"");
        assert_eq!(said(&to_toml(&parse(&text), &none)), said(&masked), "{text}");
    }
}

#[test]
fn a_setting_says_where_its_value_comes_from() {
    let config = parse("state_dir = \"s\"\n[queue]\nbatch = 7\n\n[[step]]\nplugin = \"geo\"\nfuel = 9\n");
    let settings = settings(&config, &none);
    assert_eq!(find(&settings, "state_dir").origin, Origin::File { line: Some(1), variables: Vec::new() });
    assert_eq!(find(&settings, "queue.batch").origin, Origin::File { line: Some(3), variables: Vec::new() });
    assert_eq!(find(&settings, "step.geo.fuel").origin, Origin::File { line: Some(7), variables: Vec::new() });
    assert_eq!(find(&settings, "step.geo.memory").origin, Origin::Default);
    assert_eq!(find(&settings, "step.geo.timeout").value, Value::from("1s"));
    assert_eq!(find(&settings, "plugins.probation.calls").value, Value::from(50));
    assert!(settings.iter().all(|setting| setting.setting != "queue.url"), "it is for another kind");
}

#[test]
fn a_variable_is_filled_in_and_named_unless_it_may_be_secret() {
    let name = std::env::var("CARGO_PKG_NAME").unwrap();
    let config = parse(
        "state_dir = \"${CARGO_PKG_NAME}\"\n[queue]\nkind = \"redis\"\nurl = \"redis://u:${CARGO_PKG_NAME}@h/0\"\n\
         [http.a]\nurl = \"http://a/\"\nheaders = { A = \"Bearer ${CARGO_PKG_NAME}\", B = \"s3cret\" }",
    );
    let settings = settings(&config, &|name| std::env::var(name).ok());
    assert_eq!(find(&settings, "state_dir").value, Value::from(name.as_str()));
    let named = Origin::File { line: Some(4), variables: vec!["CARGO_PKG_NAME".to_owned()] };
    assert_eq!(find(&settings, "queue.url").origin, named);
    assert_eq!(find(&settings, "queue.url").value, Value::from("redis://u:${CARGO_PKG_NAME}@h/0"));
    assert_eq!(
        find(&settings, "http.a.headers").value.to_string(),
        "{ A = \"Bearer ${CARGO_PKG_NAME}\", B = \"****************\" }"
    );
    assert_eq!(format!("{settings:?}").matches("s3cret").count(), 0);
}

#[test]
fn the_variable_that_sets_the_level_of_the_log_is_where_it_comes_from() {
    let level = |name: &str| (name == "DOSSIER_LOG").then(|| "debug".to_owned());
    let settings = settings(&parse(""), &level);
    let setting = find(&settings, "log.level");
    assert_eq!(setting.value, Value::from("debug"));
    assert_eq!(setting.origin, Origin::Variable { variable: "DOSSIER_LOG".to_owned() });
}

#[test]
fn what_opentelemetrys_variables_bring_in_is_shown_without_its_secrets() {
    let environment = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some(String::new()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://u:s3cret@collector:4318/?key=s3cret".to_owned()),
        "OTEL_SERVICE_NAME" => Some("dossier-eu".to_owned()),
        _ => None,
    };
    let config = parse("");
    let found = settings(&config, &environment);
    let from = |variable: &str| Origin::Variable { variable: variable.to_owned() };
    let otlp = find(&found, "telemetry.otlp");
    assert_eq!(otlp.origin, from("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let shown = "http://u:****************@collector:4318/?key=****************";
    assert_eq!(otlp.value, Value::from(shown));
    assert_eq!(find(&found, "OTEL_SERVICE_NAME").origin, from("OTEL_SERVICE_NAME"));
    let text = to_toml(&config, &environment);
    assert!(text.contains("# OTEL_SERVICE_NAME = \"dossier-eu\"") && !text.contains("s3cret"), "{text}");
    assert_eq!(parse(&text).telemetry.otlp.map(String::from).as_deref(), Some(shown), "it is a configuration");
    let said = settings(&parse("[telemetry]\notlp = \"http://c/\""), &environment);
    assert_eq!(find(&said, "telemetry.otlp").value, Value::from("http://c/"), "the file comes first");
    assert!(settings(&config, &none).iter().all(|setting| setting.setting != "OTEL_SERVICE_NAME"));
}

#[test]
fn no_secret_of_a_url_or_a_header_is_shown() {
    for (written, shown) in [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://u:p@h/0", "redis://u:****************@h/0"),
        ("redis://:p@h/0", "redis://:****************@h/0"),
        ("redis://p@h/0", "redis://****************@h/0"),
        ("redis://u:p@ss/w@h/0", "redis://u:****************@h/0"),
        ("redis://u:p?ss@h/0", "redis://****************"),
        ("redis://u:${P}@h/0", "redis://u:${P}@h/0"),
        ("redis://u:x${P}@h/0", "redis://u:****************@h/0"),
        ("redis://u:${P}${Q}x@h/0", "redis://u:****************@h/0"),
        (
            "redis+sentinel://u:p@a:1,b:2/m/0?sentinel_user=s&sentinel_password=${P}",
            "redis+sentinel://u:****************@a:1,b:2/m/0?sentinel_user=****************&sentinel_password=${P}",
        ),
        ("${URL}", "${URL}"),
        ("s3cret", "****************"),
        ("Bearer ${T}", "Bearer ${T}"),
        ("s3cret${T}", "****************"),
        ("Bearer s3cret", "****************"),
    ] {
        assert_eq!(masked(written), shown);
    }
}

#[test]
fn changes_tell_what_a_running_host_takes_from_what_it_is_restarted_for() {
    let before = parse("[queue]\nbatch = 100\n[[step]]\nplugin = \"geo\"\n");
    let same = parse("# no change\n[[step]]\nname = \"geo\"\nplugin = \"geo\"\nfuel = 50000000\n");
    assert_eq!(changes(&before, &same), Changes::default());
    let after = parse(
        "state_dir = \"elsewhere\"\n[queue]\nbatch = 7\n[host]\nin_flight = 1\n[plugins]\nauto = false\ndir = \"p\"\n\
         [tables.t]\nfile = \"t.csv\"\nkey = \"a\"\n[[step]]\nplugin = \"geo\"\ntables = [\"t\"]\nfuel = 1\n[[step]]\nplugin = \"asset\"\n",
    );
    let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
    let found = changes(&before, &after);
    assert_eq!(names(&found.fixed), "host.in_flight plugins.dir queue.batch state_dir");
    assert_eq!(names(&found.taken), "plugins.auto step.asset step.geo tables.t");
    assert_eq!(changes(&after, &before), found);
}

#[test]
fn a_secret_that_changes_is_a_change() {
    let with = |key: &str| parse(&format!("[http.a]\nurl = \"http://a/\"\nheaders = {{ Key = \"{key}\" }}"));
    assert!(changes(&with("one"), &with("two")).taken.contains("http.a"));
}
