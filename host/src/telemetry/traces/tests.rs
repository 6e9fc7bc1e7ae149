use super::*;
use crate::dead_letter::Reason;
use crate::record::Label;
use crate::telemetry::redact::Redactor;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn config(otlp: Option<&str>, sample: f64) -> TelemetryConfig {
    TelemetryConfig { otlp: otlp.map(|url| url.parse().unwrap()), headers: Vec::new(), sample }
}

fn traces(sample: f64) -> (Traces, Sender) {
    Traces::new(&config(Some("http://127.0.0.1:9"), sample)).unwrap().unwrap()
}

fn event<'a>() -> AlertFinished<'a> {
    AlertFinished {
        id: Some("jdoe-1"),
        entry: "1-0",
        outcome: "stored",
        verdict: Some(Label::Benign),
        reason: None,
        step: None,
        duration: Duration::from_millis(3),
        deliveries: 1,
        steps: &[],
        record: None,
    }
}

#[tokio::test]
async fn an_alert_goes_on_with_its_producers_trace_and_is_above_its_steps() {
    let (traces, _sender) = traces(0.0);
    let facts = crate::record::StepFacts {
        step: "geo".to_owned(),
        stage: "enrich",
        plugin: "geo".to_owned(),
        version: "0.1.0".to_owned(),
        sha256: "aa".to_owned(),
        settings_sha256: "bb".to_owned(),
    };
    let call = Called {
        step: Arc::new(facts.into()),
        began: SystemTime::now() - Duration::from_millis(1),
        duration: Duration::from_micros(9),
        outcome: "unavailable",
        fuel: 7,
        cached: false,
        attempt: 1,
    };
    let calls = [call.clone(), Called { outcome: "ok", attempt: 2, ..call }];
    let trail = Trail { traceparent: Some(PARENT), calls: &calls, masks: Masks::default() };
    let spans = traces.spans(&event(), &trail, traces.parent(trail.traceparent));
    let [first, second, alert] = &spans[..] else { panic!("three spans") };
    assert_eq!(alert.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((alert.parent_span_id.to_string().as_str(), alert.parent_span_is_remote), ("b7ad6b7169203331", true));
    assert_eq!(
        (first.parent_span_id, second.parent_span_id),
        (alert.span_context.span_id(), alert.span_context.span_id())
    );
    assert_eq!((&*first.name, &*alert.name), ("step geo", "alert"));
    assert!(matches!(first.status, Status::Error { .. }) && matches!(second.status, Status::Unset));
    assert_eq!(alert.end_time.duration_since(alert.start_time).unwrap(), Duration::from_millis(3));

    // It waited for its commit, and its calls are within it all the same.
    let began = SystemTime::now() - Duration::from_millis(50);
    let calls = [Called { began, ..calls[0].clone() }];
    let spans = traces.spans(&event(), &Trail { traceparent: None, calls: &calls, masks: Masks::default() }, None);
    assert_eq!(spans[1].start_time, began);
}

#[tokio::test]
async fn the_producer_decides_whether_an_alert_is_traced_and_else_the_share_does() {
    let (none, mut none_sent) = traces(0.0);
    let trail = |traceparent| Trail { traceparent, ..Trail::default() };
    let not_sampled = PARENT.replace("-01", "-00");
    for traceparent in [None, Some("nonsense"), Some(not_sampled.as_str())] {
        none.alert(&event(), &trail(traceparent));
        assert!(none_sent.queue.try_recv().is_err(), "{traceparent:?}");
    }
    none.alert(&event(), &trail(Some(PARENT)));
    assert!(none_sent.queue.try_recv().is_ok());
    let (all, mut all_sent) = traces(1.0);
    all.alert(&event(), &trail(Some("nonsense")));
    assert!(all_sent.queue.try_recv().is_ok());
}

#[tokio::test]
async fn spans_that_nobody_takes_are_counted_and_wait_in_bounded_number() {
    let (traces, _sender) = traces(1.0);
    let lost: usize = (0..2 * QUEUE).map(|_| traces.alert(&event(), &Trail::default())).sum();
    assert_eq!(lost, QUEUE);
}

#[tokio::test]
async fn what_is_to_be_redacted_is_in_no_span() {
    let (traces, _sender) = traces(1.0);
    let masks = Redactor::new(&["/user".to_owned()]).find_in(br#"{"user":"jdoe"}"#);
    let trail = Trail { masks, ..Trail::default() };
    let reason = Some((Reason::PluginError, "jdoe is odd"));
    let spans = traces.spans(&AlertFinished { reason, outcome: "dead", ..event() }, &trail, None);
    let text = format!("{spans:?}");
    assert!(!text.contains("jdoe") && text.contains("[redacted] is odd") && text.contains("[redacted]-1"), "{text}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_which_are_counted() {
    let (traces, sender) = traces(1.0);
    let telemetry = Arc::new(Telemetry::default());
    tokio::spawn(sender.run(Arc::clone(&telemetry)));
    traces.alert(&event(), &Trail::default());
    traces.flush(Duration::from_secs(30)).await;
    assert!(telemetry.scrape().contains("dossier_trace_spans_lost_total 1\n"), "{}", telemetry.scrape());
}

#[test]
fn the_configuration_comes_before_the_variables_and_the_one_for_traces_before_the_other() {
    let variables = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("http://t/own".to_owned()),
        _ => Some("http://o:4318/".to_owned()),
    };
    let found = |otlp, variables: &dyn Fn(&str) -> Option<String>| endpoint(&config(otlp, 1.0), variables);
    assert_eq!(found(Some("http://c:4318"), &variables).as_deref(), Some("http://c:4318/v1/traces"));
    assert_eq!(found(Some("http://c/x/v1/traces"), &variables).as_deref(), Some("http://c/x/v1/traces"));
    assert_eq!(found(None, &variables).as_deref(), Some("http://t/own"));
    let one = |name: &str| variables(name).filter(|_| name == "OTEL_EXPORTER_OTLP_ENDPOINT");
    assert_eq!(found(None, &one).as_deref(), Some("http://o:4318/v1/traces"));
    assert_eq!(found(None, &|_| None), None);
    assert_eq!(found(Some("http://h/x?key=K"), &variables).as_deref(), Some("http://h/x/v1/traces?key=K"));
    assert_eq!(found(Some("http://h/v1/traces?key=K"), &variables).as_deref(), Some("http://h/v1/traces?key=K"));
    let keyed = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://o/?key=K".to_owned());
    assert_eq!(found(None, &keyed).as_deref(), Some("http://o/v1/traces?key=K"));
}

#[test]
fn what_a_collector_rejects_is_told_once_and_an_answer_that_is_none_says_nothing() {
    let refusals = Refusals::default();
    let partial_success = Some(ExportTracePartialSuccess { rejected_spans: 5, error_message: "too many".to_owned() });
    refusals.note(&ExportTraceServiceResponse { partial_success }.encode_to_vec());
    assert_eq!(refusals.take(), Some((5, "the collector rejected them: too many".to_owned())));
    assert_eq!(refusals.take(), None);
    for rejected_spans in [0, -1] {
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message: "hm".to_owned() });
        refusals.note(&ExportTraceServiceResponse { partial_success }.encode_to_vec());
        assert_eq!(refusals.take(), None);
    }
    refusals.note(b"nonsense");
    assert_eq!(refusals.take(), None);
}
