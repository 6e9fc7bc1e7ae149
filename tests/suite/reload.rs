//! A configuration that changes while its host runs: what can be taken over is, between alerts and as a whole; what is wrong changes
//! nothing and is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dossier::digest::sha256_hex;
use dossier_tests::guest::framed;
use dossier_tests::happened::happened;
use dossier_tests::host::{Host, Site, field, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::queues::{Kind, both};

const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "configuration refused; what served before serves on";

/// A configuration with a number that shows in what its two steps answer: in the settings of one, and in the table of the other.
fn numbered(kind: &Kind, number: u32, more: &str) -> String {
    format!(
        "{}{more}\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\nlevel = \"warn,dossier::config=info,dossier::host=info\"\n\
         [tables.t]\nfile = \"t{}.csv\"\nkey = \"key\"\n[http.api]\nurl = \"http://192.0.2.1:1\"\n\
         [[step]]\nname = \"settings\"\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\nsettings = {{ number = {number} }}\n\
         [[step]]\nname = \"table\"\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\nsettings = {{ do = \"lookup\" }}\n",
        kind.config(),
        number % 10,
    )
}

/// A site whose host has a configuration of its own: those who send and ask need one that is not wrong meanwhile.
fn site(kind: &Kind) -> Site {
    let site = Site::new(&kind.config());
    site.write("live.toml", numbered(kind, 0, "").as_bytes());
    site.install("mischief");
    for number in 0..10 {
        site.write(&format!("t{number}.csv"), format!("key,number\nk,{number}\n").as_bytes());
    }
    site
}

fn start(site: &Site) -> Host {
    let host = site.start_as(site.command(&["run", "--config", "live.toml"]));
    host.admin();
    host
}

/// Puts a configuration in the place of the one before, as careful people do.
fn put(site: &Site, config: &str) {
    site.write(".live.toml", config.as_bytes());
    std::fs::rename(site.path(".live.toml"), site.path("live.toml")).expect("the file in its place");
}

fn alerts(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let line = |n| format!("{{\"id\":\"alert-{n:06}\",\"table\":\"t\",\"key\":\"k\"}}\n").into_bytes();
    numbers.flat_map(line).collect()
}

fn serves(host: &Host, config: &str) -> Value {
    host.told(RELOADED, &sha256_hex(config.as_bytes()))
}

fn notice(host: &Host) -> Option<String> {
    let (status, body) = host.get("/readyz");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).expect("it is JSON");
    body["notices"]["config-refused"].as_str().map(str::to_owned)
}

/// Puts a configuration there that is refused, and gives why.
fn refused(site: &Site, host: &Host, config: &str, mentions: &str) -> String {
    put(site, config);
    let why = field(&host.told(REFUSED, mentions), "why").expect("a reason").as_str().expect("a text").to_owned();
    wait_for("/readyz to say so", || notice(host).filter(|notice| notice.contains(mentions)));
    why
}

/// Enriches one alert and gives its record.
fn one(kind: &Kind, site: &Site, number: u32) -> Value {
    site.send(&alerts(number..number + 1));
    site.drained();
    let id = format!("alert-{number:06}");
    kind.records(site).into_iter().find(|record| record["id"] == id.as_str()).expect("a record")
}

/// Which configuration a record is of; all of it must be of the same.
fn number_of(record: &Value, configs: &BTreeMap<String, u32>) -> u32 {
    let sha256 = record["pipeline"]["config_sha256"].as_str().expect("a digest");
    let number = *configs.get(sha256).unwrap_or_else(|| panic!("no configuration that was taken over: {record}"));
    assert_eq!(record["enrichment"]["settings"]["configured"]["number"], number, "{record}");
    assert_eq!(record["enrichment"]["table"]["row"]["number"], number % 10, "{record}");
    number
}

#[test]
fn a_file_that_was_emptied_or_has_lost_its_steps_changes_nothing() {
    let kind = Kind::Directory;
    let site = Site::new("");
    site.write("plugins/guest.wasm", &framed("guest", "(func $enrich (param i32))"));
    let rest = "[admin]\naddress = \"127.0.0.1:0\"\n";
    site.write("live.toml", format!("{rest}[[step]]\nplugin = \"guest\"\n").as_bytes());
    let host = start(&site);
    refused(&site, &host, "", "no [[step]] any more");
    refused(&site, &host, rest, "no [[step]] any more");
    let record = one(&kind, &site, 1);
    assert_eq!(record["pipeline"]["steps"][0]["step"], "guest", "{record}");
}

#[test]
fn who_asks_a_host_to_reload_that_has_not_read_its_configuration_yet_does_not_end_it() {
    let site = site(&Kind::Directory);
    std::fs::remove_file(site.path("live.toml")).expect("the configuration");
    // The host waits until somebody writes into it.
    let made = std::process::Command::new("mkfifo").arg(site.path("live.toml")).status().expect("mkfifo runs");
    assert!(made.success());
    let mut host = site.start_as(site.command(&["run", "--config", "live.toml"]));
    let status = format!("/proc/{}/status", host.pid());
    wait_for("the host to catch SIGHUP", || {
        let status = std::fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim();
        (u64::from_str_radix(caught, 16).expect("a mask of signals") & 1 == 1).then_some(())
    });
    host.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert!(host.is_alive());
}

#[test]
fn configurations_that_change_under_load_lose_nothing_and_every_alert_has_all_of_one() {
    both(|kind| {
        let site = site(kind);
        let mut configs = BTreeMap::from([(sha256_hex(numbered(kind, 0, "").as_bytes()), 0)]);
        let host = start(&site);
        let stop = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    site.send(&alerts(sent..sent + 50));
                    sent += 50;
                    // Whoever asks without a pause takes the processor from the host.
                    std::thread::sleep(Duration::from_millis(50));
                }
                sent
            });
            let stopped = Stop(&stop);
            for number in 1..=8 {
                let config = numbered(kind, number, "");
                match number % 4 {
                    // Half of it first, then the rest: as an editor on a slow disk does.
                    1 => {
                        let (half, _) = config.split_at(config.len() - 20);
                        site.write("live.toml", half.as_bytes());
                        wait_for("the half to be refused", || notice(&host));
                        site.write("live.toml", config.as_bytes());
                    }
                    2 => {
                        refused(&site, &host, "[[step]\n", "live.toml:1");
                        put(&site, &config);
                    }
                    // Without waiting for the file to be looked at.
                    3 => {
                        put(&site, &config);
                        host.signal(Signal::HUP);
                    }
                    _ => put(&site, &config),
                }
                serves(&host, &config);
                configs.insert(sha256_hex(config.as_bytes()), number);
                assert_eq!(notice(&host), None);
            }
            drop(stopped);
            feeder.join().expect("the feeder ends")
        });
        one(kind, &site, sent);
        let records = kind.records(&site);
        assert_eq!(records.len(), sent as usize + 1, "nothing is lost or doubled");
        let numbers: Vec<_> = records.iter().map(|record| number_of(record, &configs)).collect();
        for number in 0..=8 {
            assert!(numbers.contains(&number), "no alert had number {number}");
        }
        assert_eq!(site.status()["dead"], 0);
        assert_eq!(host.metric("dossier_config_reloads_total"), Some(8.0));
        assert_eq!(host.metric("dossier_config_refused"), Some(0.0));
        assert_eq!(host.stop(), Some(0));
    });
}

/// Stops the feeder, also when a change fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_a_host_must_be_restarted_for_is_refused_by_name_and_nothing_else_of_the_file_is_taken() {
    let kind = Kind::Directory;
    let site = site(&kind);
    let host = start(&site);
    let more = "batch = 7\n[host]\nin_flight = 3\n";
    let why = refused(&site, &host, &numbered(&kind, 1, more), "restart");
    assert!(why.starts_with("host.in_flight, queue.batch cannot change while the host runs"), "{why}");
    assert_eq!(one(&kind, &site, 0)["enrichment"]["settings"]["configured"]["number"], 0);
    assert_eq!(host.metric("dossier_config_refusals_total"), Some(1.0));
    assert_eq!(host.metric("dossier_config_refused"), Some(1.0));
    assert_eq!(host.metric("dossier_alarms_total{alarm=\"config-refused\"}"), Some(1.0));
    // Whoever asks is told again.
    host.signal(Signal::HUP);
    wait_for("the second refusal", || (host.metric("dossier_config_refusals_total") == Some(2.0)).then_some(()));
    let config = numbered(&kind, 2, "");
    put(&site, &config);
    let line = serves(&host, &config);
    assert_eq!(field(&line, "changed"), Some(&json!(["step.settings", "tables.t"])), "{line}");
    assert_eq!(one(&kind, &site, 1)["enrichment"]["settings"]["configured"]["number"], 2);
    assert_eq!(notice(&host), None);
}

#[test]
fn a_configuration_with_anything_wrong_in_it_changes_nothing() {
    let kind = Kind::Directory;
    let site = site(&kind);
    let before = numbered(&kind, 0, "");
    let host = start(&site);
    let good = numbered(&kind, 1, "");
    let wrong = [
        (good.replace("number = 1", "refuse = \"no such feed\""), "no such feed"),
        (good.replace("t1.csv", "t99.csv"), "t99.csv"),
        (good.replace("[tables.t]", "[tables.u]"), "there is no table"),
        (good.replace("http = [\"api\"]", ""), "http"),
        (good.replace("do = \"lookup\"", "do = \"configure-loop\""), "would be refused"),
        (
            good.replace(
                "url = \"http://192.0.2.1:1\"",
                "url = \"http://192.0.2.1:1\"\nheaders = { A = \"${DOSSIER_NONE}\" }",
            ),
            "DOSSIER_NONE",
        ),
        (format!("{good}\n[[step]]\nplugin = \"not-there\"\n"), "not-there.wasm is not there"),
        (good.replace("name = \"table\"", &format!("name = \"table\"\nsha256 = \"{}\"", "0".repeat(64))), "sha256"),
        (String::from("\u{0}"), "live.toml:1"),
    ];
    for (wrong, mentions) in &wrong {
        assert_ne!(*wrong, good);
        refused(&site, &host, wrong, mentions);
    }
    std::fs::remove_file(site.path("live.toml")).expect("it is there");
    host.told(REFUSED, "cannot be read");
    let record = one(&kind, &site, 0);
    assert_eq!(record["pipeline"]["config_sha256"], sha256_hex(before.as_bytes()).as_str());
    assert_eq!(record["enrichment"]["settings"]["configured"]["number"], 0);
    assert_eq!(host.metric("dossier_config_reloads_total"), Some(0.0));
    // What was there before is no change, and the end of the trouble.
    put(&site, &before);
    host.told("configuration unchanged", "");
    assert_eq!(notice(&host), None);
    happened(&format!("{} wrong configurations, each named; the one before served on", wrong.len()));
}

#[test]
fn a_step_whose_plugin_is_not_there_yet_is_taken_over_once_it_is() {
    let kind = Kind::Directory;
    let site = site(&kind);
    let host = start(&site);
    let config = format!(
        "{}\n[[step]]\nplugin = \"geo\"\ntables = [\"t\"]\nsettings = {{ table = \"t\" }}\n",
        numbered(&kind, 1, "")
    );
    refused(&site, &host, &config, "geo.wasm is not there");
    assert!(one(&kind, &site, 0)["enrichment"]["geo"].is_null());
    site.install("geo");
    serves(&host, &config);
    let steps = one(&kind, &site, 1)["pipeline"]["steps"].clone();
    assert_eq!(steps.as_array().map(Vec::len), Some(3), "{steps}");
    // And a step that is taken out is gone.
    let config = numbered(&kind, 2, "[plugins]\nauto = false\n");
    put(&site, &config);
    serves(&host, &config);
    assert_eq!(one(&kind, &site, 2)["pipeline"]["steps"].as_array().map(Vec::len), Some(2));
}

#[test]
fn of_configurations_in_quick_succession_the_last_one_serves() {
    let kind = Kind::Directory;
    let site = site(&kind);
    let host = start(&site);
    for number in 1..=30 {
        put(&site, &numbered(&kind, number, ""));
        host.signal(Signal::HUP);
        site.send(&alerts(number * 10..number * 10 + 10));
    }
    let config = numbered(&kind, 30, "");
    serves(&host, &config);
    let configs: BTreeMap<_, _> =
        (0..=30).map(|number| (sha256_hex(numbered(&kind, number, "").as_bytes()), number)).collect();
    assert_eq!(number_of(&one(&kind, &site, 0), &configs), 30);
    for record in kind.records(&site) {
        number_of(&record, &configs);
    }
    assert_eq!(kind.records(&site).len(), 301);
    assert_eq!(host.metric("dossier_config_refusals_total"), Some(0.0));
}

#[test]
fn how_alerts_are_read_and_what_their_calls_may_cost_change_with_the_configuration() {
    let kind = Kind::Directory;
    let site = site(&kind);
    let host = start(&site);
    let config = numbered(&kind, 0, "[alert]\nid = [\"/key\"]\n")
        .replace("{ number = 0 }", "{ do = \"loop\" }\nfuel = 1000\nrequired = false");
    put(&site, &config);
    serves(&host, &config);
    site.send(&alerts(5..6));
    site.drained();
    let records = kind.records(&site);
    assert_eq!(records[0]["id"], "k", "{}", records[0]);
    let step = &records[0]["pipeline"]["steps"][0];
    assert_eq!((step["step"].as_str(), step["outcome"].as_str()), (Some("settings"), Some("out-of-fuel")), "{step}");
}

#[test]
fn a_plugin_that_runs_alike_goes_on_with_its_probation_and_its_file_is_not_asked_for() {
    let kind = Kind::Directory;
    let site = site(&kind);
    let host = start(&site);
    one(&kind, &site, 0);
    let loads = host.metric("dossier_plugin_loads_total{plugin=\"mischief\"}");
    assert_eq!(loads, Some(1.0));
    std::fs::remove_file(site.path("plugins/mischief.wasm")).expect("it is there");
    host.told("plugin removed", "mischief");
    let config = numbered(&kind, 0, "").replace("t0.csv", "t3.csv") + "# and a comment\n";
    put(&site, &config);
    serves(&host, &config);
    assert_eq!(one(&kind, &site, 1)["enrichment"]["table"]["row"]["number"], 3);
    assert_eq!(host.metric("dossier_plugin_loads_total{plugin=\"mischief\"}"), loads);
    // Other settings need its bytes, which the host has kept.
    let config = numbered(&kind, 7, "");
    put(&site, &config);
    serves(&host, &config);
    assert_eq!(one(&kind, &site, 2)["enrichment"]["settings"]["configured"]["number"], 7);
}
