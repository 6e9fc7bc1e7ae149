//! What configurations are taken, and what is said about those that are not.

use super::*;

fn parse(text: &str) -> Config {
    Config::parse(Path::new("etc/dossier.toml"), text).unwrap()
}

/// The findings, as they are shown.
fn findings(text: &str) -> Vec<String> {
    match Config::parse(Path::new("dossier.toml"), text) {
        Ok(_) => Vec::new(),
        Err(ConfigError(findings)) => findings.iter().map(ToString::to_string).collect(),
    }
}

/// The one finding.
fn finding(text: &str) -> String {
    let mut all = findings(text);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

const WHOLE: &str = r##"
[queue]
kind = "redis"                     # "directory" (the default) takes path = "queue"
url = "redis://127.0.0.1:6379/0"
stream = "alerts"                  # gives alerts:enriched and alerts:dlq
group = "dossier"

[plugins]
dir = "plugins"

[tables.ipsum]                     # a real block list: comments, tab-separated, no header
file = "ipsum.txt"
format = "tsv"
columns = ["ip", "lists"]
key = "ip"
comment = "#"

[tables.assets]                    # header: ip,hostname,owner,role,criticality
file = "assets.csv"
key = ["ip", "hostname"]

[tables.geo]
file = "country-ipv4.mmdb"

[[step]]
plugin = "ip-reputation"
tables = ["ipsum"]
settings = { feeds = [ { table = "ipsum", category = "blocklist", score = "lists" } ] }
fuel = 10_000_000
timeout = "250ms"
memory = "16MiB"

[[step]]
plugin = "asset"
tables = ["assets"]

[[step]]
plugin = "geo"
tables = ["geo"]

[[step]]
name = "verdict"                   # the default is the plugin's name
plugin = "verdict"
"##;

#[test]
fn a_whole_configuration_is_taken() {
    let config = parse(WHOLE);
    assert!(
        matches!(&config.queue.kind, QueueKind::Redis(redis) if redis.stream == "alerts" && redis.group == "dossier")
    );
    assert_eq!(config.tables["ipsum"].comment, Some('#'));
    assert_eq!(config.tables["assets"].key, ["ip", "hostname"]);
    assert_eq!(config.tables["geo"].format, TableFormat::Mmdb);
    let names: Vec<_> = config.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["ip-reputation", "asset", "geo", "verdict"]);
    let first = &config.steps[0];
    let limits = Limits { fuel: 10_000_000, timeout: Duration::from_millis(250), ..Limits::default() };
    assert_eq!((first.limits, first.required), (limits, true));
    assert_eq!(first.settings, r#"{"feeds":[{"category":"blocklist","score":"lists","table":"ipsum"}]}"#);
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = parse("[tables.a]\nfile = \"a.list\"\n[plugins]\ndir = \"/opt/plugins\"");
    assert_eq!(config.tables["a"].file, Path::new("etc/a.list"));
    assert_eq!(config.plugins.dir, Path::new("/opt/plugins"));
    assert!(matches!(&config.queue.kind, QueueKind::Directory { path } if path == Path::new("etc/queue")));
}

#[test]
fn every_unknown_key_is_named_with_its_line() {
    let text = "[queue]\nkin = \"redis\"\nbatch = 10\n\n[[step]]\nplugin = \"a\"\n\n[[step]]\nplugin = \"b\"\nfule = 1\n[tabels.x]\n";
    let all = findings(text);
    assert_eq!(all.len(), 3, "{all:#?}");
    assert!(all[0].starts_with("dossier.toml:2: unknown key \"queue.kin\""), "{}", all[0]);
    assert!(all[1].starts_with("dossier.toml:10: unknown key \"step.1.fule\""), "{}", all[1]);
    assert!(all[2].starts_with("dossier.toml:11: unknown key \"tabels\""), "{}", all[2]);
}

#[test]
fn unknown_keys_inside_tables_have_their_line_and_settings_may_hold_any() {
    let said = finding("[tables.geo]\nfile = \"a.mmdb\"\n\ncoment = \"#\"\n");
    assert!(said.starts_with("dossier.toml:4: unknown key \"tables.geo.coment\""), "{said}");
    assert!(findings("[[step]]\nplugin = \"a\"\nsettings = { any = { thing = 1 } }").is_empty());
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let all = findings(
        "[queue]\nbatch = 0\nurl = \"redis://x\"\nxyz = 1\n[[step]]\nplugin = \"a\"\ntables = [\"t\"]\nreuse = 0\n",
    );
    let lines: Vec<_> = all.iter().filter_map(|said| said.split(':').nth(1)).collect();
    assert_eq!(lines, ["2", "3", "4", "7", "8"], "{all:#?}");
}

#[test]
fn an_unknown_table_of_a_step_is_named_with_its_line() {
    let said = finding("[[step]]\nplugin = \"geo\"\n\ntables = [\"geo\"]");
    assert_eq!(
        said,
        "dossier.toml:4: step \"geo\": there is no table \"geo\"; add [tables.geo] or take it out of tables"
    );
    let said = finding("[[step]]\nplugin = \"geo\"\nhttp = [\"api\"]");
    assert!(said.starts_with("dossier.toml:3: step \"geo\": there is no HTTP interface \"api\""), "{said}");
}

#[test]
fn a_table_that_is_wrong_is_said_once_and_not_called_missing() {
    let said = finding("[tables.a]\nfile = \"a.csv\"\n[[step]]\nplugin = \"p\"\ntables = [\"a\"]");
    assert!(said.starts_with("dossier.toml:1: table \"a\": it has no key"), "{said}");
}

#[test]
fn a_wrong_type_has_its_line() {
    for (text, expected) in [
        ("[queue]\n\nbatch = \"ten\"", "dossier.toml:3: invalid type: string \"ten\""),
        ("[queue]\nkind = \"kafka\"", "dossier.toml:2: unknown variant `kafka`"),
        ("[[step]]\nplugin = \"a\"\nfuel = 1.5", "dossier.toml:3: invalid type: floating point"),
        ("[[step]]\nplugin = \"a\"\nfuel = -1", "dossier.toml:3: invalid value: integer `-1`"),
        ("[[step]]\n\nname = \"a\"", "dossier.toml:1: missing field `plugin`"),
        ("[queue\nkind = 1", "dossier.toml:1: "),
        ("[admin]\naddress = \"here\"", "dossier.toml:2: \"here\" is no address"),
        ("[tables.a]\nfile = \"a.csv\"\nkey = 7", "dossier.toml:3: "),
    ] {
        let said = finding(text);
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn durations_and_sizes_are_taken_in_their_usual_forms_only() {
    let step = |line: &str| format!("[[step]]\nplugin = \"a\"\n{line}");
    for (text, expected) in [("250ms", 250), ("1s", 1_000), ("10m", 600_000), ("10 min", 600_000), ("2h", 7_200_000)] {
        let config = parse(&step(&format!("timeout = \"{text}\"")));
        assert_eq!(config.steps[0].limits.timeout, Duration::from_millis(expected), "{text}");
    }
    for (text, expected) in [("64KiB", 64 << 10), ("16MiB", 16 << 20), ("1 GiB", 1 << 30), ("100000", 100_000)] {
        assert_eq!(parse(&step(&format!("memory = \"{text}\""))).steps[0].limits.memory, expected, "{text}");
    }
    for text in ["0s", "-1s", "soon", "", "1"] {
        let said = finding(&step(&format!("timeout = \"{text}\"")));
        assert!(said.starts_with(&format!("dossier.toml:3: \"{text}\" is no duration; write it as in")), "{said}");
    }
    for text in ["much", "", "-1MiB", "16 MiBs"] {
        let said = finding(&step(&format!("memory = \"{text}\"")));
        assert!(said.starts_with(&format!("dossier.toml:3: \"{text}\" is no size; write it as in")), "{said}");
    }
    assert!(finding(&step("memory = \"1KiB\"")).contains("at least 64KiB"));
}

#[test]
fn retention_and_windows_may_be_days() {
    let config = parse("[queue]\nkind = \"redis\"\ndedupe_window = \"7d\"\n[store]\nretention = \"30d\"");
    let QueueKind::Redis(redis) = &config.queue.kind else { panic!("not redis") };
    assert_eq!((redis.dedupe_window.as_secs(), redis.retention.map(|kept| kept.as_secs())), (604_800, Some(2_592_000)));
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_line() {
    let said = finding("[queue]\nkind = \"redis\"\nurl = \"redis://:${DOSSIER_NO_SUCH_VARIABLE}@x\"");
    assert!(said.starts_with("dossier.toml:3: the environment variable DOSSIER_NO_SUCH_VARIABLE is not set"), "{said}");
    let set = parse("[queue]\npath = \"/q/${PATH}\"");
    assert!(
        matches!(&set.queue.kind, QueueKind::Directory { path } if path.as_os_str().len() > 4 && !path.ends_with("${PATH}"))
    );
}

#[test]
fn no_variable_is_filled_into_settings() {
    let said = finding("[[step]]\nplugin = \"a\"\nsettings = { deep = [{ key = \"${HOME}\" }] }");
    assert!(
        said.starts_with("dossier.toml:3: step \"a\": settings hold ${HOME}; they end in the plugin's memory"),
        "{said}"
    );
}

#[test]
fn keys_of_the_other_queue_are_refused() {
    for key in ["url = \"redis://x\"", "stream = \"s\"", "group = \"g\"", "lease = \"5s\"", "dedupe_window = \"1m\""] {
        let said = finding(&format!("[queue]\n{key}"));
        assert!(said.contains("is for the queue kind \"redis\""), "{said}");
    }
    assert!(finding("[queue]\nkind = \"redis\"\npath = \"q\"").contains("is for the queue kind \"directory\""));
    assert!(finding("[store]\nretention = \"1h\"").starts_with("dossier.toml:2: retention is for"));
}

#[test]
fn headers_that_cannot_be_sent_are_named_without_their_value() {
    let http = "[http.api]\nurl = \"https://api.example.org\"\n[http.api.headers]\n";
    assert!(findings(&format!("{http}Key = \"s3cret\"")).is_empty());
    let said = finding(&format!("{http}\"a b\" = \"s3cret\""));
    assert!(said.starts_with("dossier.toml:4: http \"api\": \"a b\" is no header's name"), "{said}");
    let said = finding(&format!("{http}Key = \"s3cret\\nX: y\""));
    assert!(
        said.starts_with("dossier.toml:4: http \"api\": \"Key\" has a value with") && !said.contains("s3cret"),
        "{said}"
    );
}

#[test]
fn two_steps_of_one_name_and_names_that_are_no_names_are_refused() {
    assert!(finding("[[step]]\nplugin = \"a\"\n[[step]]\nplugin = \"a\"").contains("two steps are named \"a\""));
    assert!(findings("[[step]]\nplugin = \"a\"\n[[step]]\nname = \"b\"\nplugin = \"a\"").is_empty());
    assert!(finding("[[step]]\nplugin = \"../a\"").contains("its name may hold letters"));
}

#[test]
fn a_file_that_is_not_there_is_named_with_what_to_do() {
    let error = Config::load(Path::new("/nowhere/dossier.toml")).unwrap_err().to_string();
    assert!(
        error.starts_with("/nowhere/dossier.toml: cannot be read: ") && error.ends_with("--config FILE"),
        "{error}"
    );
}

#[test]
fn a_value_of_a_wrong_type_hides_nothing_else() {
    let text =
        "[queue]\nbatch = \"many\"\nkinds = 1\n[[step]]\nplugin = \"geo\"\ntimeout = \"soon\"\ntables = [\"none\"]\n";
    let Err(ConfigError(findings)) = Config::parse(Path::new("dossier.toml"), text) else { panic!("it is wrong") };
    let lines: Vec<_> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(6), Some(7)], "{findings:?}");
}

#[test]
fn a_probation_is_what_is_said_of_it_and_its_share_must_be_one() {
    assert_eq!(parse("").plugins.probation, ProbationConfig { calls: 50, failures: 0.2 });
    let probation = parse("[plugins]\nprobation = { calls = 10 }").plugins.probation;
    assert_eq!(probation, ProbationConfig { calls: 10, failures: 0.2 });
    assert!(parse("[plugins]\nprobation = { failures = 1 }").plugins.probation.failures == 1.0);
    for share in ["0", "0.0", "1.1", "-0.2", "nan"] {
        let finding = finding(&format!("[plugins]\nprobation = {{ failures = {share} }}"));
        assert!(finding.starts_with("dossier.toml:2:") && finding.contains("share"), "{finding}");
    }
}

#[test]
fn files_for_tls_are_for_a_url_with_tls_and_a_certificate_comes_with_its_key() {
    let queue = |rest: &str| format!("[queue]\nkind = \"redis\"\n{rest}");
    let tls = "url = \"rediss+sentinel://a,b/main\"\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"";
    let QueueKind::Redis(redis) = parse(&queue(tls)).queue.kind else { panic!("it says redis") };
    assert_eq!(redis.ca.as_deref(), Some(Path::new("etc/ca.pem")));
    assert_eq!(redis.key.as_deref(), Some(Path::new("etc/c.key")));
    assert!(
        finding(&queue("url = \"redis://a\"\nca = \"ca.pem\""))
            .contains("dossier.toml:4: ca, cert and key are for TLS")
    );
    assert!(finding(&queue("ca = \"ca.pem\"")).contains("rediss://"));
    assert!(finding(&queue("url = \"rediss://a\"\ncert = \"c.pem\"")).contains("cert and key belong together"));
    assert!(finding("[queue]\nca = \"ca.pem\"").contains("kind \"redis\""));
}

#[test]
fn an_admin_address_that_others_can_reach_needs_a_token() {
    for address in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:0", "[::ffff:10.0.0.1]:9464"] {
        let said = finding(&format!("[admin]\naddress = \"{address}\""));
        assert!(said.starts_with("dossier.toml:2: other machines can reach"), "{said}");
        assert!(said.contains("token = \"${DOSSIER_ADMIN_TOKEN}\""), "{said}");
        let config = parse(&format!("[admin]\naddress = \"{address}\"\ntoken = \"0123456789abcdef\""));
        assert_eq!(config.admin.token.map(|token| token.expose().to_owned()).as_deref(), Some("0123456789abcdef"));
    }
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:9464", "[::ffff:127.0.0.1]:9464", "off"] {
        assert!(findings(&format!("[admin]\naddress = \"{address}\"")).is_empty(), "{address}");
    }
}

#[test]
fn a_token_that_can_be_guessed_or_sent_in_no_header_is_refused_and_none_is_ever_printed() {
    let short = finding("[admin]\ntoken = \"0123456789abcde\"");
    assert!(short.starts_with("dossier.toml:2: token must have at least 16 characters"), "{short}");
    let spaces = finding("[admin]\naddress = \"0.0.0.0:1\"\ntoken = \"0123456789 abcdef\"");
    assert!(spaces.starts_with("dossier.toml:3: token may hold"), "{spaces}");
    assert!(!short.contains("0123") && !spaces.contains("0123"), "{short} {spaces}");
    let config = parse("[admin]\ntoken = \"s3cret-s3cret-s3cret\"");
    assert!(!format!("{config:?} {config:#?}").contains("s3cret"));
}
