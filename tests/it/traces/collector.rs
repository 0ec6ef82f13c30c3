//! A receiver of OTLP over HTTP that keeps what it gets, and looks it over as a collector would.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::harness::within;

/// One span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty: none.
    pub parent: String,
    pub name: String,
    pub kind: SpanKind,
    pub failed: bool,
    pub flags: u32,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    resources: Vec<BTreeMap<String, String>>,
    /// Of each request: its path, its headers, its body.
    requests: Vec<(String, HeaderMap, Bytes)>,
}

#[derive(Clone)]
pub struct Collector {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    /// How many spans came, in how many requests.
    changed: watch::Receiver<(usize, usize)>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::answering(|_| 200).await
    }

    /// Answers the request of this number, from 0 on, with this status.
    pub async fn answering(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (count, changed) = watch::channel((0, 0));
        let collector = Self { address, seen: Arc::default(), changed };
        let (seen, status, count) = (Arc::clone(&collector.seen), Arc::new(status), Arc::new(count));
        spawn_here(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, status, count) = (Arc::clone(&seen), Arc::clone(&status), Arc::clone(&count));
                let service = service_fn(move |request| {
                    let (seen, status, count) = (Arc::clone(&seen), Arc::clone(&status), Arc::clone(&count));
                    async move { Ok::<_, hyper::Error>(take(request, &seen, &*status, &count).await) }
                });
                spawn_here(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        collector
    }

    /// `[traces]` that leads here, with these further lines.
    pub fn config(&self, further: &str) -> String {
        format!("[traces]\nendpoint = \"http://{}\"\n{further}\n", self.address)
    }

    /// All spans, as soon as there are so many.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        let mut changed = self.changed.clone();
        within(changed.wait_for(|(spans, _)| *spans >= count)).await.expect("the receiver lives");
        let spans = self.seen.lock().unwrap().spans.clone();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    /// Returns when so many requests have come.
    pub async fn asked(&self, count: usize) {
        let mut changed = self.changed.clone();
        within(changed.wait_for(|(_, requests)| *requests >= count)).await.expect("the receiver lives");
    }

    pub fn now(&self) -> Vec<Span> {
        self.seen.lock().unwrap().spans.clone()
    }

    pub fn resources(&self) -> Vec<BTreeMap<String, String>> {
        self.seen.lock().unwrap().resources.clone()
    }

    pub fn requests(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.seen.lock().unwrap().requests.clone()
    }
}

impl Span {
    pub fn says(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// The only span of that name.
pub fn one<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// The spans of a kind, in the order in which they began.
pub fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    let mut found: Vec<_> = spans.iter().filter(|span| span.kind == kind).collect();
    found.sort_by_key(|span| span.start);
    found
}

async fn take(
    request: Request<Incoming>,
    seen: &Mutex<Seen>,
    status: &(dyn Fn(usize) -> u16 + Send + Sync),
    count: &watch::Sender<(usize, usize)>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let message = ExportTraceServiceRequest::decode(body.clone()).expect("a message of OTLP");
    let mut seen = seen.lock().unwrap();
    let status = status(seen.requests.len());
    seen.requests.push((head.uri.path().to_owned(), head.headers, body));
    if status == 200 {
        for resource in message.resource_spans {
            seen.resources.push(attributes(resource.resource.expect("a resource").attributes));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.spans.extend(spans.map(|span| Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name.clone(),
                kind: span.kind(),
                failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
                flags: span.flags,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: attributes(span.attributes),
            }));
        }
    }
    count.send_replace((seen.spans.len(), seen.requests.len()));
    Response::builder().status(status).body(Full::default()).expect("an answer")
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let count = all.len();
    let map: BTreeMap<_, _> = all
        .into_iter()
        .map(|KeyValue { key, value, .. }| (key, text(value.and_then(|value| value.value).expect("a value"))))
        .collect();
    assert_eq!(map.len(), count, "a key twice: {map:#?}");
    map
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
