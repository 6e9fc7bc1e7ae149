//! Traces for OpenTelemetry: one span for each alert and one for each call of a step, sent over OTLP where somebody asked for it.
//!
//! Off unless an address is configured, and then nothing here is ever called. Spans are made when an alert is at its end, of what was
//! noted on its way, and wait in a bounded queue for the one task that sends them. A collector that is slow or gone costs spans, which
//! are counted, and never an alert its time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanExporter as _, SpanLinks,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Telemetry;
use super::events::{AlertFinished, TracesLost, TracesSent};
use super::redact::Masks;
use crate::config::{ENDPOINT_VARIABLES, NAME_VARIABLE, TelemetryConfig};
use crate::record::KnownStep;

/// How many alerts' spans wait, at most.
const QUEUE: usize = 1024;

/// How many alerts' spans are sent together, at most, and for how long they wait for each other.
const BATCH: usize = 256;
const LINGER: Duration = Duration::from_secs(1);

/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes; all that matters in it is how many spans were rejected.
const ANSWER: usize = 64 << 10;

/// How much of a detail a span holds, in bytes.
const DETAIL: usize = 256;

/// Why there are no traces although somebody asked for them.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent: {0}; mend otlp in [telemetry], or the variable OTEL_EXPORTER_OTLP_ENDPOINT")]
pub struct TracesError(String);

/// One call of a step, noted on the way.
#[derive(Debug, Clone)]
pub struct Called {
    /// The step.
    pub step: Arc<KnownStep>,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// As in the log.
    pub outcome: &'static str,
    /// The fuel that it used.
    pub fuel: u64,
    /// Whether its answer was known already.
    pub cached: bool,
    /// The first is 1.
    pub attempt: u32,
}

/// What a trace adds to an alert's event.
#[derive(Debug, Default)]
pub struct Trail<'a> {
    /// The producer's context, as it wrote it.
    pub traceparent: Option<&'a str>,
    /// The calls of its steps.
    pub calls: &'a [Called],
    /// What must not be said of it.
    pub masks: Masks,
}

enum Message {
    Spans(Vec<SpanData>),
    /// Asks to be told when everything before is sent, or lost.
    Flush(oneshot::Sender<()>),
}

/// Where spans go.
pub struct Traces {
    queue: mpsc::Sender<Message>,
    sample: f64,
    ids: RandomIdGenerator,
    parents: TraceContextPropagator,
    scope: InstrumentationScope,
}

/// Sends what waits.
pub struct Sender {
    queue: mpsc::Receiver<Message>,
    exporter: SpanExporter,
    refusals: Refusals,
}

/// What the collector said of spans that it did not take, though it took the request; the exporter keeps that to itself.
#[derive(Debug, Clone, Default)]
struct Refusals(Arc<Mutex<Option<ExportTracePartialSuccess>>>);

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Option<ExportTracePartialSuccess>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an answer says; one that cannot be read says nothing.
    fn note(&self, answer: &[u8]) {
        *self.lock() = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    }

    /// How many spans were refused, and why; none where all were taken.
    fn take(&self) -> Option<(usize, String)> {
        let partial = self.lock().take()?;
        let spans = usize::try_from(partial.rejected_spans).ok().filter(|spans| *spans > 0)?;
        Some((spans, format!("the collector rejected them: {}", partial.error_message)))
    }
}

impl Traces {
    /// Prepares traces, where the configuration or a variable names a collector; does not connect. The sender is to be run once.
    ///
    /// # Errors
    /// [`TracesError`] when the address is none, or TLS cannot be set up.
    pub fn new(config: &TelemetryConfig) -> Result<Option<(Self, Sender)>, TracesError> {
        let Some(endpoint) = endpoint(config, |name| std::env::var(name).ok()) else { return Ok(None) };
        let headers: HashMap<String, String> = config.headers.iter().cloned().collect();
        let refusals = Refusals::default();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(&endpoint, refusals.clone())?)
            .with_endpoint(endpoint)
            .with_headers(headers)
            .with_protocol(Protocol::HttpBinary)
            .build()
            // What is wrong with an address may be what is secret in it.
            .map_err(|_| TracesError("its address cannot be used".to_owned()))?;
        let named = std::env::var(NAME_VARIABLE).ok().filter(|name| !name.is_empty());
        let named = named.unwrap_or_else(|| "dossier".to_owned());
        let resource = Resource::builder()
            .with_service_name(named)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()))
            .build();
        exporter.set_resource(&resource);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let traces = Self {
            queue,
            sample: config.sample,
            ids: RandomIdGenerator::default(),
            parents: TraceContextPropagator::new(),
            scope: InstrumentationScope::builder("dossier").with_version(env!("CARGO_PKG_VERSION")).build(),
        };
        Ok(Some((traces, Sender { queue: waiting, exporter, refusals })))
    }

    /// Hands an alert's spans over to be sent; says how many were lost because too many wait.
    pub fn alert(&self, event: &AlertFinished<'_>, trail: &Trail<'_>) -> usize {
        let parent = self.parent(trail.traceparent);
        let sampled = match &parent {
            Some(parent) => parent.is_sampled(),
            None => self.sample >= 1.0 || fastrand::f64() < self.sample,
        };
        if !sampled {
            return 0;
        }
        let spans = self.spans(event, trail, parent);
        let count = spans.len();
        if self.queue.try_send(Message::Spans(spans)).is_err() { count } else { 0 }
    }

    /// Waits until what waits is sent or lost, at most so long.
    pub async fn flush(&self, patience: Duration) {
        let (done, told) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = told.await;
            }
        };
        // What is not sent by then is lost with the host.
        let _ = timeout(patience, flushed).await;
    }

    /// The producer's context; none where it is not one.
    fn parent(&self, traceparent: Option<&str>) -> Option<SpanContext> {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent?.to_owned())]);
        let context = self.parents.extract_with_context(&Context::new(), &carrier);
        let parent = context.span().span_context().clone();
        parent.is_valid().then_some(parent)
    }

    fn spans(&self, event: &AlertFinished<'_>, trail: &Trail<'_>, parent: Option<SpanContext>) -> Vec<SpanData> {
        let trace = parent.as_ref().map_or_else(|| self.ids.new_trace_id(), SpanContext::trace_id);
        let context = || SpanContext::new(trace, self.ids.new_span_id(), TraceFlags::SAMPLED, false, TraceState::NONE);
        let own = context();
        let ended = SystemTime::now();
        let text = |text: &str| {
            let masked = trail.masks.mask(text);
            masked[..masked.floor_char_boundary(DETAIL)].to_owned()
        };
        let mut attributes = vec![
            KeyValue::new("dossier.entry", text(event.entry)),
            KeyValue::new("dossier.outcome", event.outcome),
            KeyValue::new("dossier.deliveries", i64::from(event.deliveries)),
        ];
        attributes.extend(event.id.map(|id| KeyValue::new("dossier.alert.id", text(id))));
        attributes.extend(event.verdict.map(|verdict| KeyValue::new("dossier.verdict", verdict.as_str())));
        attributes.extend(event.step.map(|step| KeyValue::new("dossier.failed_step", step.to_owned())));
        let status = match &event.reason {
            Some((reason, detail)) => {
                attributes.push(KeyValue::new("dossier.reason", reason.as_str()));
                Status::Error { description: text(detail).into() }
            }
            None => Status::Unset,
        };
        let calls = trail.calls.iter().map(|call| {
            let attributes = vec![
                KeyValue::new("dossier.step", call.step.step.clone()),
                KeyValue::new("dossier.stage", call.step.stage),
                KeyValue::new("dossier.plugin", call.step.plugin.clone()),
                KeyValue::new("dossier.plugin.version", call.step.version.clone()),
                KeyValue::new("dossier.plugin.sha256", call.step.sha256.clone()),
                KeyValue::new("dossier.outcome", call.outcome),
                KeyValue::new("dossier.fuel", i64::try_from(call.fuel).unwrap_or(i64::MAX)),
                KeyValue::new("dossier.cached", call.cached),
                KeyValue::new("dossier.attempt", i64::from(call.attempt)),
            ];
            let failed = !matches!(call.outcome, "ok" | "not-applicable");
            let status = if failed { Status::Error { description: call.outcome.into() } } else { Status::Unset };
            let name = format!("step {}", call.step.step);
            let times = (call.began, call.began + call.duration);
            self.span(context(), own.span_id(), false, (name.into(), SpanKind::Internal), times, attributes, status)
        });
        let mut spans: Vec<_> = calls.collect();
        let (above, remote) = parent.map_or((SpanId::INVALID, false), |parent| (parent.span_id(), true));
        let kind = ("alert".into(), SpanKind::Consumer);
        // It took so long without the wait for others that were committed with it, which it ended with; so its calls may lie before that.
        let began = ended.checked_sub(event.duration).unwrap_or(ended);
        let times = trail.calls.iter().fold((began, ended), |(began, ended), call| {
            (began.min(call.began), ended.max(call.began + call.duration))
        });
        spans.push(self.span(own, above, remote, kind, times, attributes, status));
        spans
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of a span")]
    fn span(
        &self,
        span_context: SpanContext,
        parent_span_id: SpanId,
        parent_span_is_remote: bool,
        (name, span_kind): (Cow<'static, str>, SpanKind),
        (start_time, end_time): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
        status: Status,
    ) -> SpanData {
        SpanData {
            span_context,
            parent_span_id,
            parent_span_is_remote,
            span_kind,
            name,
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl Sender {
    /// Sends until nobody hands spans over any more.
    pub async fn run(mut self, telemetry: Arc<Telemetry>) {
        let mut messages = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut messages, BATCH).await > 0 {
            let hurry = |messages: &[Message]| messages.iter().any(|message| matches!(message, Message::Flush(_)));
            if !hurry(&messages) && messages.len() < BATCH {
                let left = BATCH - messages.len();
                let _ = timeout(LINGER, async {
                    let mut left = left;
                    while left > 0 && !hurry(&messages) {
                        match self.queue.recv_many(&mut messages, left).await {
                            0 => break,
                            more => left -= more,
                        }
                    }
                })
                .await;
            }
            let (mut spans, mut flushed) = (Vec::new(), Vec::new());
            for message in messages.drain(..) {
                match message {
                    Message::Spans(more) => spans.extend(more),
                    Message::Flush(done) => flushed.push(done),
                }
            }
            if !spans.is_empty() {
                let count = spans.len();
                match timeout(PATIENCE, self.exporter.export(spans)).await {
                    Ok(Ok(())) => {
                        let (refused, why) = self.refusals.take().unwrap_or_default();
                        let refused = refused.min(count);
                        if refused > 0 {
                            telemetry.emit(&TracesLost { spans: refused, error: &why });
                        }
                        telemetry.emit(&TracesSent { spans: count - refused });
                    }
                    Ok(Err(error)) => telemetry.emit(&TracesLost { spans: count, error: &error.to_string() }),
                    Err(_) => {
                        telemetry.emit(&TracesLost { spans: count, error: "the collector did not answer in time" })
                    }
                }
            }
            // Whoever asked may have given up.
            flushed.into_iter().for_each(|done| _ = done.send(()));
        }
    }
}

/// Where spans go: as the configuration says, or a variable; none: nowhere.
fn endpoint(config: &TelemetryConfig, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    const PATH: &str = "v1/traces";
    // What follows the path, a key in the query perhaps, stays behind it.
    let below = |mut url: url::Url| {
        let path = format!("{}/{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.to_string()
    };
    if let Some(url) = &config.otlp {
        return Some(if url.path().ends_with(PATH) { url.to_string() } else { below(url.clone()) });
    }
    let [traces, all] = ENDPOINT_VARIABLES.map(|name| variable(name).filter(|value| !value.is_empty()));
    // The one for traces is taken as it is, the one for everything gets the path.
    traces.or_else(|| all.map(|text| url::Url::parse(&text).map(below).unwrap_or(text)))
}

/// Sends requests with the client that everything here uses.
#[derive(Debug)]
struct Client(reqwest::Client, Refusals);

impl Client {
    fn new(endpoint: &str, refusals: Refusals) -> Result<Self, TracesError> {
        // It fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("dossier/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE);
        if endpoint.starts_with("http://") {
            // Without TLS no root certificates are needed, and a machine need not have any.
            client = client.tls_certs_only(std::iter::empty());
        }
        let client = client.build();
        client
            .map(|client| Self(client, refusals))
            .map_err(|error| TracesError(format!("TLS cannot be set up: {error}")))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The errors name the address, which may hold what is secret.
        let mut answer = self.0.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + chunk.len() > ANSWER {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        self.1.note(if status.is_success() { &body } else { &[] });
        Ok(Response::builder().status(status).body(body.into())?)
    }
}

#[cfg(test)]
mod tests;
