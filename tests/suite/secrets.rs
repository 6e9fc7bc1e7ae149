//! What must not be seen: credentials in no output at all, alerts' bodies not in the log, and what is redacted nowhere but in the store.
//! Every place of the configuration that takes a credential holds a word of its own here, and everything that can be printed is searched.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};

use dossier_tests::collector::Collector;
use dossier_tests::host::{Site, built, get, wait_for};
use dossier_tests::redis_server::{RedisServer, free_port};

/// Credentials.
const SECRETS: [&str; 6] = [
    "canary-redis-password",
    "canary-http-header",
    "canary-environment",
    "canary-otlp-header",
    "canary-url-password",
    "canary-admin-token",
];

/// What alerts hold.
const BODY: &str = "canary-body";

/// What of them is to be redacted.
const NAME: &str = "canary-name";

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}

fn free_of(words: &[&str], what: &str, said: &str) {
    for word in words {
        if let Some(at) = said.find(word) {
            let around = &said[said.floor_char_boundary(at.saturating_sub(200))..said.ceil_char_boundary(at + 50)];
            panic!("{what} shows {word}: …{around}…");
        }
    }
}

/// Runs a command that may never end by itself.
fn run(site: &Site, arguments: &[&str]) -> String {
    let program = built("release/dossier");
    let mut limited = vec!["-s", "INT", "-k", "5", "5", program.to_str().expect("a path")];
    limited.extend(arguments);
    let mut command: Command = site.program(std::path::Path::new("timeout"), &limited);
    text(&command.env("CANARY", SECRETS[2]).output().expect("timeout is installed"))
}

/// The names of the subcommands that a help lists.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Every command with its subcommands, as arguments.
fn commands(site: &Site) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let help: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        for name in subcommands(&run(site, &help)) {
            let below = [path.clone(), vec![name]].concat();
            open.push(below.clone());
            found.push(below);
        }
    }
    assert!(found.len() > 8, "{found:?}");
    found
}

/// A site in which every credential is one of the words.
fn site(redis: &str, collector: &str) -> Site {
    let site = Site::new(&format!(
        r#"[queue]
kind = "redis"
url = "{redis}"
[alert]
id = ["/id"]
[log]
level = "debug"
redact = ["/user/name", "/people/*"]
[telemetry]
otlp = "{collector}"
headers = {{ Authorization = "Bearer canary-otlp-header" }}
[http.api]
url = "http://127.0.0.1:9"
headers = {{ Key = "canary-http-header", Other = "${{CANARY}}" }}
private = true
[tables.t]
file = "t.txt"
[[step]]
plugin = "mischief"
tables = ["t"]
http = ["api"]
fuel = 20_000_000
timeout = "2s"
memory = "4MiB"
retries = 1
"#
    ));
    site.install("mischief");
    site.write("t.txt", b"key\n");
    site
}

/// Alerts that end in every way.
fn alerts() -> String {
    let ways = [
        "none",
        "trap",
        "loop",
        "grow",
        "not-json",
        "not-object",
        "invalid",
        "internal",
        "unavailable",
        "lookup",
        "http",
    ];
    let alert = |(n, way): (usize, &&str)| {
        format!(
            "{{\"id\":\"{NAME}-{n}\",\"mischief\":\"{way}\",\"text\":\"{BODY}\",\"user\":{{\"name\":\"{NAME}\"}},\
             \"people\":[\"{NAME}-b\"],\"url\":\"http://192.0.2.1/\"}}\n"
        )
    };
    ways.iter().enumerate().map(alert).chain([format!("{{\"broken\":\"{BODY}\n"), format!("\"{BODY}\"\n")]).collect()
}

#[test]
fn no_output_of_any_command_shows_a_credential_and_no_log_an_alerts_body_or_what_is_redacted() {
    let server = RedisServer::start().expect("redis-server starts");
    server.ask::<()>(&["ACL", "SETUSER", "dossier", "on", ">canary-redis-password", "~*", "&*", "+@all"]).expect("ACL");
    let collector = Collector::start();
    let url = format!("unix://{}?user=dossier&pass=canary-redis-password", server.socket().display());
    let site = site(&url, &format!("http://{}", collector.address));
    // Handed out to somebody who is gone: a process of its own tells the host what it does, and it waits for its second try there.
    let suspect =
        format!("{{\"id\":\"{NAME}-suspect\",\"mischief\":\"unavailable\",\"user\":{{\"name\":\"{NAME}\"}}}}");
    server.ask::<String>(&["XADD", "alerts", "*", "alert", &suspect]).expect("XADD");
    server.ask::<()>(&["XGROUP", "CREATE", "alerts", "dossier", "0"]).expect("XGROUP");
    let group = ["XREADGROUP", "GROUP", "dossier", "gone", "STREAMS", "alerts", ">"];
    server.ask::<redis::Value>(&group).expect("XREADGROUP");
    let mut send = site.command(&["send"]);
    let mut sender = send.env("CANARY", SECRETS[2]).stdin(std::process::Stdio::piped()).spawn().expect("dossier runs");
    sender.stdin.take().expect("a pipe").write_all(alerts().as_bytes()).expect("send reads");
    assert!(sender.wait().expect("send ends").success());

    let mut command = site.command(&["run"]);
    let host = site.start_as({
        command.env("CANARY", SECRETS[2]).env("DOSSIER_LOG", "trace");
        command
    });
    wait_for("the alerts to be done", || {
        let lines = host.log().into_iter().filter(|line| line.get("outcome").is_some() && line.get("entry").is_some());
        (lines.count() >= 14).then_some(())
    });
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/nothing",
        "status",
        "steps",
        "tables",
        "alarms",
        "events",
        "openapi.json",
    ] {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/api/v1/{path}") };
        let (status, body) = host.get(&path);
        assert!(status == 200 || path == "/nothing", "{path}: {status}");
        free_of(&[&SECRETS[..], &[BODY, NAME]].concat(), &path, &body);
    }
    // What lies in the dead letters is named as it is there.
    free_of(&[&SECRETS[..], &[BODY]].concat(), "the dead letters", &host.get("/api/v1/dead-letters").1);
    assert_eq!(host.stop(), Some(0));
    let log = std::fs::read_to_string(site.path("log.ndjson")).expect("a log");
    assert!(log.contains("[redacted]-0"), "an id that holds a name is masked: {log}");
    let retried = |line: &str| line.contains("retried") && line.contains("[redacted]-suspect");
    assert!(log.lines().any(retried), "a suspect's is, too: {log}");
    free_of(&[&SECRETS[..], &[BODY, NAME]].concat(), "the log", &log);
    let taken = collector.taken();
    assert!(taken.spans.len() >= 13, "{} spans", taken.spans.len());
    free_of(&[&SECRETS[..4], &[BODY, NAME]].concat(), "a trace", &format!("{:?}", taken.spans));

    for command in commands(&site) {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        for more in [&["--help"][..], &[], &["--json"], &["--config", "missing.toml"]] {
            // A second host would only wait for work.
            if command == ["run"] && more != ["--help"] {
                continue;
            }
            let arguments = [&command[..], more].concat();
            free_of(&SECRETS, &format!("dossier {arguments:?}"), &run(&site, &arguments));
        }
    }
}

#[test]
fn a_url_without_its_scheme_or_its_slashes_is_refused_by_every_command_without_its_password() {
    const RIGHT: &str = "redis://dossier:canary-redis-password@127.0.0.1:9/0";
    let site = site(RIGHT, "http://127.0.0.1:9");
    let good = std::fs::read_to_string(site.path("dossier.toml")).expect("a configuration");
    let commands = commands(&site);
    for wrong in [
        "dossier:canary-redis-password@127.0.0.1:9",
        "redis:dossier:canary-redis-password@127.0.0.1:9",
        "redis:/dossier:canary-redis-password@127.0.0.1:9",
    ] {
        site.write("dossier.toml", good.replace(RIGHT, wrong).as_bytes());
        for command in &commands {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            for more in [&[][..], &["--json"]] {
                let arguments = [&command[..], more].concat();
                free_of(&SECRETS, &format!("dossier {arguments:?} with {wrong}"), &run(&site, &arguments));
            }
        }
        for command in ["validate", "doctor", "status", "run"] {
            let said = run(&site, &[command]);
            for part in ["dossier.toml:3: url is no URL of a Redis server", "write redis://"] {
                assert!(said.contains(part), "{command}: {said}");
            }
        }
    }
}

#[test]
fn what_is_redacted_is_in_no_name_of_a_source_and_in_no_tap_however_early_and_deep() {
    let server = RedisServer::start().expect("redis-server starts");
    let address = format!("127.0.0.1:{}", free_port().expect("a port"));
    let site = Site::new(&format!(
        "[queue]\nkind = \"redis\"\nurl = \"{}\"\n[alarms]\nsilence = \"2s\"\n[admin]\naddress = \"{address}\"\n\
         [log]\nredact = [\"/source\", \"/user\"]\n",
        server.url()
    ));
    // A host whose queue is not there yet is still starting.
    server.kill();
    let host = site.start();
    let mut tap = wait_for("the admin address", || TcpStream::connect(&address).ok());
    write!(tap, "GET /api/v1/tap?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut lines = BufReader::new(tap).lines().map_while(Result::ok);
    assert!(lines.next().is_some_and(|status| status.contains(" 200 ")));
    assert_eq!(get(&address, "/api/v1/status").0, 503, "it starts");
    server.launch().expect("redis-server starts");
    let mut count = 0;
    let mut send = |more: &str| {
        count += 1;
        let alert = format!("{{\"id\":\"{count}\",\"source\":\"{NAME}-1\",\"user\":\"{NAME}\"{more}}}");
        server.ask::<String>(&["XADD", "alerts", "*", "alert", &alert]).expect("XADD");
    };
    // As deep as an alert may be: 126 levels.
    send(&format!(",\"deep\":{}1{}", "[".repeat(125), "]".repeat(125)));
    let line = lines.find(|line| line.contains("record")).expect("a line of the tap");
    assert!(line.contains("\"source\":\"[redacted]\"") && line.contains("[[[1]]]"), "{line}");
    free_of(&[NAME], "an early tap", &line);

    wait_for("the source to be watched", || {
        send("");
        (host.metric("dossier_sources") == Some(1.0)).then_some(())
    });
    host.told("alarm raised", "source-silent");
    for path in ["/readyz", "/api/v1/alarms", "/api/v1/events"] {
        let (_, said) = host.get(path);
        assert!(path.ends_with("events") || said.contains("[redacted]-"), "{path}: {said}");
        free_of(&[NAME], path, &said);
    }
    let known: Vec<String> = server.ask(&["ZRANGE", "alerts:sources", "0", "-1"]).expect("ZRANGE");
    assert!(known.len() == 1 && known[0].starts_with("[redacted]-"), "{known:?}");
    assert_eq!(host.stop(), Some(0));
    free_of(&[NAME], "the log", &std::fs::read_to_string(site.path("log.ndjson")).expect("a log"));
}

#[test]
fn no_error_shows_a_credential() {
    let site =
        site("redis://dossier:canary-redis-password@127.0.0.1:9/0", "http://user:canary-url-password@127.0.0.1:9");
    let good = std::fs::read_to_string(site.path("dossier.toml")).expect("a configuration");
    let good = good.replace("[admin]\n", "[admin]\ntoken = \"canary-admin-token-0123456789\"\n");
    let wrong = [
        ("", ""),
        ("redis://dossier:canary-redis-password@127.0.0.1:9/0", "redis://dossier:canary-redis-password@:nonsense"),
        ("redis://dossier:canary-redis-password@127.0.0.1:9/0", "canary-redis-password"),
        ("redis://dossier:canary-redis-password@127.0.0.1:9/0", "rediss://:canary-redis-password@127.0.0.1:9/0"),
        (
            "redis://dossier:canary-redis-password@127.0.0.1:9/0",
            "redis+sentinel://dossier:canary-redis-password@127.0.0.1:9/mymaster/0?sentinel_password=canary-url-password",
        ),
        ("url = \"http://127.0.0.1:9\"", "url = \"http://user:canary-url-password@127.0.0.1:9\""),
        ("otlp = \"http://user:", "otlp = \"ftp://user:"),
        ("Key = \"canary-http-header\"", "Key = \"canary-http-header\\n\""),
        ("\"Bearer canary-otlp-header\"", "\"Bearer canary-otlp-header\\n\""),
        ("private = true", "private = \"canary-http-header\""),
        ("token = \"canary-admin-token-0123456789\"", "token = \"canary-admin-token ä\""),
        ("[telemetry]", "[telemetry"),
    ];
    for (from, to) in wrong {
        site.write("dossier.toml", good.replacen(from, to, 1).as_bytes());
        for arguments in [
            &["validate"][..],
            &["status"],
            &["doctor"],
            &["run", "--until-empty"],
            &["dlq", "list"],
            &["config", "show"],
        ] {
            let said = run(&site, arguments);
            // What stands where no credential belongs may be named.
            let secrets: Vec<_> = SECRETS
                .into_iter()
                .filter(|secret| !(from.starts_with("private") && *secret == "canary-http-header"))
                .collect();
            free_of(&secrets, &format!("dossier {arguments:?} with {to}"), &said);
        }
    }
}
