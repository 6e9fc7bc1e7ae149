//! A collector of OpenTelemetry's traces: takes OTLP over HTTP, decodes the protobuf, and keeps the spans.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// A running collector. Its thread ends with the test.
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
}

/// What came in.
#[derive(Debug, Default, Clone)]
pub struct Taken {
    /// The spans, as they came.
    pub spans: Vec<Span>,
    /// The heads of the requests.
    pub heads: Vec<String>,
    /// The names of those who sent them.
    pub services: Vec<String>,
}

impl Collector {
    /// Begins to listen.
    ///
    /// # Panics
    /// There is no port.
    pub fn start() -> Self {
        Self::rejecting(0)
    }

    /// The same of one that says of each request that it rejects so many of its spans.
    ///
    /// # Panics
    /// There is no port.
    pub fn rejecting(rejected: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let taken = Arc::<Mutex<Taken>>::default();
        let here = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = Arc::clone(&here);
                std::thread::spawn(move || serve(&stream, &taken, rejected));
            }
        });
        Self { address, taken }
    }

    /// What came in until now.
    pub fn taken(&self) -> Taken {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes requests until the client leaves.
fn serve(stream: &TcpStream, taken: &Mutex<Taken>, rejected_spans: i64) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            head.push_str(&std::mem::take(&mut line));
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let Some(length) = length else { return };
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a whole body");
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("the body is OTLP as protobuf");
        {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.heads.push(head);
            for resource in request.resource_spans {
                let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
                let name = attributes.iter().find(|attribute| attribute.key == "service.name");
                taken.services.extend(name.and_then(|name| text(name.value.as_ref()?.value.as_ref()?)));
                taken.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        let error_message = "too many".to_owned();
        let partial_success =
            (rejected_spans > 0).then_some(ExportTracePartialSuccess { rejected_spans, error_message });
        let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let mut writer = stream;
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&answer)).is_err() {
            return;
        }
    }
}

/// A span's attribute as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    text(attribute.value.as_ref()?.value.as_ref()?)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        _ => None,
    }
}
