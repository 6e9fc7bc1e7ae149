//! What goes wrong around plugins and alerts in a running host, as far as it has no test elsewhere: one test for each row of
//! `faults.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dossier::digest::sha256_hex;
use dossier_tests::alerts;
use dossier_tests::guest::framed;
use dossier_tests::happened::happened;
use dossier_tests::host::{Site, field, wait_for};
use serde_json::{Value, json};

use crate::end_to_end::four_plugins;
use crate::queues::both;

/// A version of the plugin `guest` that answers with its number.
fn good(number: u32) -> Vec<u8> {
    framed("guest", &format!("(func $enrich (param i32) (call $saw (i64.const {number})))"))
}

/// Puts a file into the plugins folder as careful people do: written aside, then moved.
fn put(site: &Site, name: &str, bytes: &[u8]) {
    site.write("plugins/.aside", bytes);
    fs::rename(site.path("plugins/.aside"), site.path(&format!("plugins/{name}"))).expect("the file in its place");
}

/// Sends one alert and gives what the plugin `guest` said of it; null where it was not there.
fn saw(site: &Site, id: &str) -> Value {
    site.send(format!("{{\"id\":\"{id}\"}}\n").as_bytes());
    site.drained();
    let records = site.processed();
    let record = records.iter().find(|(_, record)| record["id"] == id);
    record.map_or(Value::Null, |(_, record)| record["enrichment"]["guest"]["saw"].clone())
}

/// The dead letters as `dossier dlq list --json` gives them.
fn dead(site: &Site) -> Vec<Value> {
    let listed = site.succeed(&["dlq", "list", "--json"]);
    listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn ten_alerts_of_50_mb_among_small_ones_are_dead_letters_and_the_host_stays_small() {
    both(|kind| {
        let site = four_plugins(kind);
        let host = site.start();
        host.admin();
        let began = Instant::now();
        for n in 0..10_u32 {
            let large =
                [format!("{{\"id\":\"large-{n}\",\"a\":\"").into_bytes(), b"x".repeat(50 << 20), b"\"}".to_vec()]
                    .concat();
            kind.put(&site, &large);
            site.send(&alerts::suricata(n * 10..n * 10 + 10));
        }
        wait_for("everything to be done", || {
            let status = site.status();
            (status["waiting"] == 0 && status["in_flight"] == 0).then_some(())
        });
        let peak = host.peak();
        assert!(peak > 0 && peak < 512 << 20, "the host used {} MB", peak >> 20);
        assert_eq!(kind.records(&site).len(), 100);
        let dead = kind.dead(&site);
        let kept = |(reason, bytes): &(String, Vec<u8>)| {
            reason == "too-large" && bytes.len() > 50 << 20 && bytes.ends_with(b"x\"}")
        };
        assert!(dead.len() == 10 && dead.iter().all(kept));
        let ids: BTreeSet<_> = dead.iter().map(|(_, bytes)| bytes[..20].to_vec()).collect();
        assert_eq!(ids.len(), 10);
        happened(&format!(
            "10 dead letters with all their bytes, 100 stored, at most {} MB, {} ms",
            peak >> 20,
            began.elapsed().as_millis()
        ));
    });
}

#[test]
fn a_loop_with_fuel_to_spare_is_stopped_within_a_tenth_of_its_time_limit() {
    let site = Site::new("[[step]]\nplugin = \"guest\"\nfuel = 1000000000000\ntimeout = \"2s\"\n");
    put(&site, "guest.wasm", &framed("guest", "(func $enrich (param i32) (loop $again (br $again)))"));
    let host = site.start();
    host.admin();
    site.send(b"{\"id\":\"loops\"}\n");
    site.drained();
    let dead = dead(&site);
    assert_eq!(dead[0]["reason"], "timeout", "{dead:?}");
    let took = Duration::from_micros(dead[0]["step"]["duration_us"].as_u64().expect("a time"));
    assert!(took >= Duration::from_secs(2) && took <= Duration::from_millis(2200), "{took:?}");
    happened(&format!("stopped after {} ms of 2,000, dead letter \"timeout\"", took.as_millis()));
}

/// An interface that takes requests and then hangs, or gives a byte of its answer a second. Says when its client is gone.
fn tar_pit(drips: bool) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let gone = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&gone);
    let serve = move |mut stream: TcpStream| -> std::io::Result<()> {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        if drips {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        }
        loop {
            if drips {
                stream.write_all(b"x")?;
            }
            match stream.read(&mut request) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error),
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // However it ended, the client is gone.
            let _ = serve(stream);
            seen.store(true, Ordering::SeqCst);
        }
    });
    (url, gone)
}

#[test]
fn an_api_that_hangs_or_drips_ends_within_the_deadline_and_its_socket_is_closed() {
    for drips in [false, true] {
        let (url, gone) = tar_pit(drips);
        let site = Site::new(&format!(
            "[http.api]\nurl = \"{url}\"\nprivate = true\n[tables.t]\nfile = \"t.txt\"\n\
             [[step]]\nplugin = \"mischief\"\nhttp = [\"api\"]\ntables = [\"t\"]\ntimeout = \"2s\"\n"
        ));
        site.write("t.txt", b"k\n");
        site.install("mischief");
        let host = site.start();
        host.admin();
        site.send(
            format!("{{\"id\":\"asks\",\"mischief\":\"http\",\"url\":\"{url}/\"}}\n{{\"id\":\"other\"}}\n").as_bytes(),
        );
        site.drained();
        let records = site.processed();
        let asked = records.iter().find(|(_, record)| record["id"] == "asks").expect("a record");
        assert_eq!(asked.1["enrichment"]["mischief"]["error"], "timeout", "{asked:?}");
        let took = asked.1["pipeline"]["steps"][0]["duration_us"].as_u64().expect("a time") / 1000;
        assert!((1_600..2_000).contains(&took), "{took} ms");
        assert_eq!(records.len(), 2);
        wait_for("the socket to be closed", || gone.load(Ordering::SeqCst).then_some(()));
        let how = if drips { "dripping" } else { "hanging" };
        happened(&format!("{how}: given up after {took} ms of the step's 2,000, socket closed"));
    }
}

#[test]
fn addresses_and_urls_that_were_not_granted_are_denied_and_counted_and_redirects_are_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let Ok(read) = stream.read(&mut request) else { continue };
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            seen.lock()
                .expect("no test panics while it holds this")
                .push(text.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(
                b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let site = Site::new(&format!(
        "[http.inside]\nurl = \"http://localhost:{port}/\"\n\
         [http.granted]\nurl = \"http://127.0.0.1:{port}/v1/\"\nprivate = true\n\
         [http.mapped]\nurl = \"http://[::ffff:127.0.0.1]:{port}/\"\n\
         [http.metadata]\nurl = \"http://169.254.169.254/latest/\"\n[tables.t]\nfile = \"t.txt\"\n\
         [[step]]\nplugin = \"mischief\"\nhttp = [\"inside\", \"granted\", \"mapped\", \"metadata\"]\ntables = [\"t\"]\n"
    ));
    site.write("t.txt", b"k\n");
    site.install("mischief");
    let host = site.start();
    host.admin();
    let urls = [
        (format!("http://localhost:{port}/"), "denied"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "denied"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "denied"),
        ("http://[fd00:ec2::254]/".to_owned(), "denied"),
        (format!("http://127.0.0.1:{}/v1/", port.wrapping_add(1)), "denied"),
        (format!("http://127.0.0.1:{port}/v2/"), "denied"),
        (format!("http://127.0.0.1:{port}/v1/../v2/"), "denied"),
        (format!("http://evil@127.0.0.1:{port}/v1/"), "invalid"),
        (format!("http://127.0.0.1:{port}/v1/http://169.254.169.254/"), "302"),
    ];
    let lines: String = urls
        .iter()
        .enumerate()
        .map(|(n, (url, _))| format!("{}\n", json!({ "id": n.to_string(), "mischief": "http", "url": url })))
        .collect();
    site.send(lines.as_bytes());
    site.drained();
    let records = site.processed();
    for (n, (url, expected)) in urls.iter().enumerate() {
        let record =
            records.iter().find(|(_, record)| record["id"].as_str() == Some(n.to_string().as_str())).expect("a record");
        let got = &record.1["enrichment"]["mischief"];
        let got = got["status"]
            .as_u64()
            .map_or_else(|| got["error"].as_str().unwrap_or_default().to_owned(), |status| status.to_string());
        assert_eq!(got, *expected, "{url}: {:#}", record.1);
    }
    let asked = asked.lock().expect("no test panics while it holds this").clone();
    assert_eq!(asked.len(), 1, "only what was granted was asked: {asked:?}");
    // The request line has a path, and no other server's address in its place.
    assert!(asked[0].starts_with("GET /v1/"), "{asked:?}");
    let denied = wait_for("the counter", || {
        let (_, metrics) = host.get("/metrics");
        let sum: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("dossier_plugin_denials_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        Some(sum).filter(|sum| *sum > 0.0)
    });
    assert!(denied >= 7.0, "{denied}");
    happened(&format!(
        "8 of 9 requests refused, {denied} counted as denied; the redirect was an answer and not followed"
    ));
}

#[test]
fn lines_over_the_bound_of_a_step_are_dropped_and_counted() {
    let site = Site::new(
        "[log]\nlevel = \"info\"\n[tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://127.0.0.1:9\"\n\
         [[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\nlog_lines = 10\n",
    );
    site.write("t.txt", b"k\n");
    site.install("mischief");
    let host = site.start();
    host.admin();
    site.send(b"{\"id\":\"floods\",\"mischief\":\"log-flood\",\"count\":1000}\n");
    site.drained();
    host.told("plugin log cut", "mischief");
    let said = host.log().iter().filter(|line| field(line, "message") == Some(&json!("plugin said"))).count();
    let dropped = host.metric("dossier_plugin_log_lines_dropped_total{step=\"mischief\"}");
    assert_eq!((said, dropped), (10, Some(990.0)));
    assert_eq!(site.processed().len(), 1);
    happened("of 1,000 lines 10 were logged, 990 counted as dropped");
}

#[test]
fn a_corrupt_file_is_refused_and_a_half_written_one_waits_until_it_is_whole() {
    let site = Site::new("[[step]]\nplugin = \"guest\"\n");
    put(&site, "guest.wasm", &good(1));
    let host = site.start();
    host.admin();
    assert_eq!(saw(&site, "a"), 1);
    put(&site, "guest.wasm", b"\0asm this is no component");
    let refused = host.told("plugin refused", "guest");
    assert!(field(&refused, "why").is_some_and(Value::is_string), "{refused}");
    assert_eq!(saw(&site, "b"), 1);
    let refusals = host.metric("dossier_plugin_refusals_total{plugin=\"guest\"}");

    // In place, as `cp` writes: the first half, and after a while the rest.
    let next = good(2);
    let (first, rest) = next.split_at(next.len() / 2);
    let mut file = fs::File::create(site.path("plugins/guest.wasm")).expect("the plugin's file");
    let began = Instant::now();
    // Steadily written to, as over a slow network: it never stays as it is for long.
    for chunk in first.chunks(first.len().div_ceil(20)) {
        file.write_all(chunk).expect("a part");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(saw(&site, "c"), 1);
    file.write_all(rest).expect("the rest");
    drop(file);
    let mut number = 0;
    wait_for("the new version", || {
        number += 1;
        (saw(&site, &format!("d{number}")) == 2).then_some(())
    });
    happened(&format!(
        "corrupt: refused, counted ({}), version 1 served on; half-written: version 1 served for {} ms, then version 2",
        refusals.unwrap_or_default(),
        began.elapsed().as_millis()
    ));
    assert!(refusals >= Some(1.0));
}

#[test]
fn an_import_that_is_not_granted_is_refused_for_a_named_step_and_denied_and_counted_for_an_unnamed_plugin() {
    let site = Site::new("[[step]]\nplugin = \"mischief\"\nrequired = false\n");
    site.install("mischief");
    put(&site, "unknown.wasm", &unknown_import());
    let host = site.start();
    let named = host.told("plugin refused", "mischief");
    assert!(named.to_string().contains("it imports tables and http"), "{named}");
    let unknown = host.told("plugin refused", "unknown");
    assert!(unknown.to_string().contains("evil:corp/exec"), "{unknown}");

    let site = Site::new("");
    site.install("mischief");
    let host = site.start();
    host.admin();
    site.send(b"{\"id\":\"asks\",\"mischief\":\"http\",\"url\":\"http://127.0.0.1:9/\"}\n");
    site.drained();
    let records = site.processed();
    assert_eq!(records[0].1["enrichment"]["mischief"]["error"], "denied", "{records:?}");
    host.told("plugin denied", "mischief");
    let counted = host.get("/metrics").1.lines().any(|line| line.starts_with("dossier_plugin_denials_total{"));
    assert!(counted);
    happened(
        "named step: refused, with the import's name; unknown import: refused by name; unnamed plugin: \"denied\", counted",
    );
}

/// A component that imports what nobody knows.
fn unknown_import() -> Vec<u8> {
    let mut component = good(1);
    let import = wat::parse_str("(component (import \"evil:corp/exec\" (instance)))").expect("the text is fixed");
    // A component's sections may follow another's: its preamble is the first 8 bytes.
    component.extend_from_slice(&import[8..]);
    component
}

#[test]
fn machine_code_a_link_and_a_changed_digest_are_refused() {
    let pinned = good(1);
    let site = Site::new(&format!("[[step]]\nplugin = \"guest\"\nsha256 = \"{}\"\n", sha256_hex(&pinned)));
    put(&site, "guest.wasm", &pinned);
    put(&site, "code.cwasm", b"\x7fELF machine code");
    site.write("elsewhere.wasm", &framed("link", "(func $enrich (param i32))"));
    std::os::unix::fs::symlink(site.path("elsewhere.wasm"), site.path("plugins/link.wasm")).expect("a link");
    let host = site.start();
    host.admin();
    assert!(host.told("plugin refused", "code").to_string().contains("machine code"));
    assert!(host.told("plugin refused", "link").to_string().contains("symbolic link"));
    assert_eq!(saw(&site, "a"), 1);
    put(&site, "guest.wasm", &good(2));
    let changed = host.told("plugin refused", "guest").to_string();
    assert!(changed.contains(&sha256_hex(&pinned)) && changed.contains(&sha256_hex(&good(2))), "{changed}");
    assert_eq!(saw(&site, "b"), 1);
    let steps: BTreeSet<_> = site
        .processed()
        .iter()
        .flat_map(|(_, record)| record["pipeline"]["steps"].as_array().expect("steps").clone())
        .map(|step| step["step"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(steps, BTreeSet::from(["guest".to_owned()]));
    happened("all three refused with the reason; the pinned version served on");
}

#[test]
fn a_removed_plugin_serves_on_where_it_is_required_and_its_absence_is_recorded_where_it_is_not() {
    let site = Site::new("[[step]]\nplugin = \"guest\"\n[[step]]\nplugin = \"other\"\nrequired = false\n");
    let other = framed("other", "(func $enrich (param i32) (call $saw (i64.const 7)))");
    put(&site, "guest.wasm", &good(1));
    put(&site, "other.wasm", &other);
    let host = site.start();
    host.admin();
    assert_eq!(saw(&site, "a"), 1);
    fs::remove_file(site.path("plugins/guest.wasm")).expect("the plugin was there");
    fs::remove_file(site.path("plugins/other.wasm")).expect("the plugin was there");
    let alarm = host.told("plugin removed", "guest");
    assert_eq!(field(&alarm, "alarm"), Some(&json!(true)), "{alarm}");
    host.told("plugin removed", "other");
    assert_eq!(saw(&site, "b"), 1);
    let outcome = |id: &str| {
        let records = site.processed();
        let record = &records.iter().find(|(_, record)| record["id"] == id).expect("a record").1;
        let steps = record["pipeline"]["steps"].as_array().expect("steps").clone();
        steps.into_iter().find(|step| step["step"] == "other").map(|step| step["outcome"].clone())
    };
    assert_eq!((outcome("a"), outcome("b")), (Some(json!("ok")), Some(json!("absent"))));
    assert_eq!(host.stop(), Some(0));

    // Without its file the last good version is kept in the state folder only for a broken file, not for an absent one.
    let host = site.start();
    let (status, body) = wait_for("the host to say that it is not ready", || {
        let (status, body) = host.get("/readyz");
        body.contains("guest").then_some((status, body))
    });
    assert_eq!(status, 503, "{body}");
    site.send(b"{\"id\":\"waits\"}\n");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(site.status()["waiting"], 1);
    put(&site, "guest.wasm", &good(1));
    site.drained();
    assert_eq!(site.processed().len(), 3);
    assert_eq!(outcome("waits"), Some(json!("absent")));
    happened(
        "required: served on with an alarm, and at the next start not ready, nothing read until the file came; optional: recorded as absent",
    );
}

#[test]
fn the_third_step_of_four_that_traps_is_named_and_nothing_partial_is_stored() {
    both(|kind| {
        let step = |name: &str, plugin: &str| format!("[[step]]\nname = \"{name}\"\nplugin = \"{plugin}\"\n");
        let site = Site::new(&format!(
            "{}{}{}{}{}",
            kind.config(),
            step("one", "fine"),
            step("two", "fine"),
            step("three", "traps"),
            step("four", "fine")
        ));
        put(&site, "fine.wasm", &framed("fine", "(func $enrich (param i32) (call $saw (i64.const 1)))"));
        let trap = "(func $enrich (param $amount i32) (if (local.get $amount) (then unreachable)))";
        put(&site, "traps.wasm", &framed("traps", trap));
        let alert = br#"{"id":"traps", "amount":1}"#;
        kind.put(&site, alert);
        kind.put(&site, br#"{"id":"fine"}"#);
        site.succeed(&["run", "--until-empty"]);
        let letters = dead(&site);
        assert_eq!(letters.len(), 1);
        assert_eq!((&letters[0]["reason"], &letters[0]["step"]["step"]), (&json!("trap"), &json!("three")));
        assert_eq!(letters[0]["step"]["plugin"], "traps");
        assert_eq!(kind.dead(&site), [("trap".to_owned(), alert.to_vec())]);
        let records = kind.records(&site);
        assert!(records.len() == 1 && records[0]["id"] == "fine", "{records:?}");
        happened("dead letter \"trap\" of step \"three\", the original byte for byte; nothing of it stored");
    });
}

#[test]
fn settings_tables_and_digests_that_are_wrong_in_a_reload_are_named_and_the_old_ones_serve_on() {
    let pinned = framed("pinned", "(func $enrich (param i32) (call $saw (i64.const 5)))");
    let site = Site::new(&format!(
        "[tables.assets]\nfile = \"assets.csv\"\nkey = \"ip\"\n\
         [[step]]\nplugin = \"guest\"\n[[step]]\nplugin = \"pinned\"\nsha256 = \"{}\"\n[[step]]\nplugin = \"asset\"\ntables = [\"assets\"]\n",
        sha256_hex(&pinned)
    ));
    site.write("assets.csv", b"ip,owner\n10.0.0.5,it-ops\n");
    site.install("asset");
    put(&site, "guest.wasm", &good(1));
    put(&site, "pinned.wasm", &pinned);
    let host = site.start();
    host.admin();
    // A new version that does not take the settings that are there.
    let picky = "(func $configure unreachable) (func $enrich (param i32) (call $saw (i64.const 2)))";
    put(&site, "guest.wasm", &framed("guest", picky));
    put(&site, "pinned.wasm", &framed("pinned", "(func $enrich (param i32) (call $saw (i64.const 6)))"));
    site.write("assets.csv", b"ip,owner\n10.0.0.5,it,ops\n");
    let refusals: Vec<_> = ["guest", "pinned"].iter().map(|plugin| host.told("plugin refused", plugin)).collect();
    let table = host.told("table refused", "assets");
    assert!(field(&table, "why").is_some_and(|why| why.to_string().contains("assets.csv:2")), "{table}");
    assert!(refusals.iter().all(|line| field(line, "why").is_some()), "{refusals:?}");
    site.send(b"{\"id\":\"a\",\"dest_ip\":\"10.0.0.5\"}\n");
    site.drained();
    let record = site.processed().remove(0).1;
    assert_eq!(record["enrichment"]["guest"]["saw"], 1, "{record:#}");
    assert_eq!(record["enrichment"]["pinned"]["saw"], 5);
    assert_eq!(record["enrichment"]["asset"]["assets"][0]["asset"]["owner"], "it-ops");
    assert_eq!(host.get("/readyz").0, 200);
    happened("settings, table and pinned digest refused, each with its reason; the old ones served");
}
