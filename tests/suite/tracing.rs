//! Traces: what a collector gets, and what a host does without one.

use std::net::TcpListener;

use dossier_tests::collector::{Collector, attribute};
use dossier_tests::host::{Site, wait_for};
use dossier_tests::redis_server::RedisServer;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A site whose one step is the guest that misbehaves, with traces.
fn site(server: &RedisServer, more: &str) -> Site {
    let site = Site::new(&format!(
        "[queue]\nkind = \"redis\"\nurl = \"{}\"\n[[step]]\nplugin = \"mischief\"\ntables = [\"t\"]\nhttp = [\"api\"]\nretries = 1\n\
         [tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://127.0.0.1:9\"\n{more}",
        server.url()
    ));
    site.install("mischief");
    site.write("t.txt", b"key\n");
    site
}

fn add(server: &RedisServer, fields: &[&str]) {
    let words = [&["XADD", "alerts", "*"], fields].concat();
    server.ask::<String>(&words).expect("XADD");
}

#[test]
fn a_collector_gets_a_span_for_each_alert_and_each_call_in_the_producers_trace() {
    let server = RedisServer::start().expect("redis-server starts");
    let collector = Collector::start();
    let more = format!(
        "[telemetry]\notlp = \"http://{}\"\nheaders = {{ Authorization = \"Bearer canary-token\" }}\n",
        collector.address
    );
    let site = site(&server, &more);
    add(&server, &["alert", r#"{"id":"a"}"#, "traceparent", &format!("00-{TRACE}-{PARENT}-01")]);
    add(&server, &["traceparent", &format!("00-{TRACE}-{PARENT}-00"), "alert", r#"{"id":"not-sampled"}"#]);
    add(&server, &["alert", r#"{"id":"b","mischief":"unavailable"}"#, "traceparent", "nonsense"]);
    add(&server, &["alert", r#"{"id":"c"}"#]);
    site.succeed(&["run", "--until-empty"]);
    let taken = collector.taken();
    assert!(taken.services.iter().all(|service| service == "dossier") && !taken.services.is_empty());
    assert!(
        taken.heads.iter().all(|head| head.starts_with("POST /v1/traces ") && head.contains("Bearer canary-token"))
    );
    let spans = &taken.spans;
    let of = |id: &str| spans.iter().find(|span| attribute(span, "dossier.alert.id").as_deref() == Some(id));
    let below = |id: &str| {
        let above = of(id).unwrap_or_else(|| panic!("a span of {id}"));
        spans.iter().filter(|span| span.parent_span_id == above.span_id).collect::<Vec<_>>()
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();

    let first = of("a").expect("a span of a");
    assert_eq!((hex(&first.trace_id), hex(&first.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(attribute(first, "dossier.outcome").as_deref(), Some("stored"));
    let [step] = below("a")[..] else { panic!("one call: {spans:?}") };
    assert_eq!((step.name.as_str(), hex(&step.trace_id)), ("step mischief", TRACE.to_owned()));
    assert!(
        first.start_time_unix_nano <= step.start_time_unix_nano && step.end_time_unix_nano <= first.end_time_unix_nano
    );

    assert!(of("not-sampled").is_none(), "its producer does not trace it");

    let dead = of("b").expect("a span of b");
    assert_ne!(hex(&dead.trace_id), TRACE);
    assert_eq!(attribute(dead, "dossier.reason").as_deref(), Some("unavailable"));
    assert_eq!(dead.status.as_ref().map(|status| status.code), Some(2), "an error");
    let attempts: Vec<_> = below("b").iter().filter_map(|span| attribute(span, "dossier.attempt")).collect();
    assert_eq!(attempts, ["1", "2"]);
    assert!(of("c").is_some_and(|span| span.parent_span_id.is_empty()) && below("c").len() == 1);
    assert_eq!(spans.len(), 3 + 4);
}

#[test]
fn a_collector_that_hangs_costs_no_alert_anything_but_spans_are_counted_as_lost() {
    let server = RedisServer::start().expect("redis-server starts");
    // Takes connections, for the system does, and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = hanging.local_addr().expect("an address");
    let site = site(&server, "");
    let mut command = site.command(&["run"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    let host = site.start_as(command);
    let alerts: String = (0..3000).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect();
    site.send(alerts.as_bytes());
    site.drained();
    wait_for("lost spans to be counted", || host.metric("dossier_trace_spans_lost_total").filter(|lost| *lost > 0.0));
    let stored = host.metric("dossier_alerts_total{outcome=\"stored\",verdict=\"unknown\"}");
    assert_eq!(stored, Some(3000.0));
    assert_eq!(host.metric("dossier_trace_spans_sent_total"), Some(0.0));
    let stopping = std::time::Instant::now();
    assert_eq!(host.stop(), Some(0));
    assert!(stopping.elapsed().as_secs() < 10, "it waits for the collector no longer than a moment");
}

#[test]
fn spans_that_a_collector_rejects_are_counted_as_lost_and_a_key_in_its_address_stays_behind_the_path() {
    let server = RedisServer::start().expect("redis-server starts");
    let collector = Collector::rejecting(1);
    let site = site(&server, &format!("[telemetry]\notlp = \"http://{}/x?key=K\"\n", collector.address));
    add(&server, &["alert", r#"{"id":"a"}"#]);
    let host = site.start();
    let lost = wait_for("a span to be counted as lost", || {
        host.metric("dossier_trace_spans_lost_total").filter(|lost| *lost > 0.0)
    });
    let sent = wait_for("the others to be counted", || {
        host.metric("dossier_trace_spans_sent_total").filter(|sent| *sent > 0.0)
    });
    assert_eq!((lost, sent), (1.0, 1.0), "an alert and a call");
    assert!(host.told("spans lost", "the collector rejected them: too many").is_object());
    assert!(collector.taken().heads.iter().all(|head| head.starts_with("POST /x/v1/traces?key=K ")));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn nobody_who_did_not_ask_for_traces_gets_a_connection() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server, "");
    add(&server, &["alert", r#"{"id":"a"}"#, "traceparent", &format!("00-{TRACE}-{PARENT}-01")]);
    let mut command = site.command(&["run", "--until-empty"]);
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let output = command.output().expect("dossier runs");
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("dossier::traces"));
}
