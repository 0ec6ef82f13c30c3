//! Spans as the messages of OTLP.

use std::sync::OnceLock;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{self as common, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as trace, ResourceSpans, ScopeSpans, SpanFlags, Status};

use super::span::{Kind, Span, Spans, Value};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The trace flag of W3C.
const SAMPLED: u32 = 1;

/// Who we are, said with every batch.
pub fn resource(service_name: &str) -> Resource {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    let instance = INSTANCE.get_or_init(|| {
        let mut bytes = [0; 16];
        // Without randomness there are other things to worry about.
        let _ = getrandom::fill(&mut bytes);
        let hex = format!("{:032x}", u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    });
    let text = |key: &str, value: &str| attribute(key, AnyValue::StringValue(value.to_owned()));
    let attributes = vec![
        text("service.name", service_name),
        text("service.version", VERSION),
        text("service.instance.id", instance),
    ];
    Resource { attributes, ..Resource::default() }
}

pub fn request(resource: &Resource, batch: Vec<Spans>) -> ExportTraceServiceRequest {
    let spans = batch.into_iter().flat_map(|Spans { trace, zero, list }| {
        list.into_iter().map(move |span| {
            let (start, end) = (zero.nanos(span.began), zero.nanos(span.ended));
            let mut message = message(span);
            message.trace_id = trace.0.to_vec();
            message.start_time_unix_nano = start;
            message.end_time_unix_nano = end;
            message
        })
    });
    let scope = InstrumentationScope { name: "bearerd".into(), version: VERSION.into(), ..Default::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.collect(), schema_url: String::new() }];
    let resource_spans = ResourceSpans { resource: Some(resource.clone()), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn message(span: Span) -> trace::Span {
    let mut attributes: Vec<_> =
        span.how.attributes.into_iter().map(|(key, value)| attribute(key, any(value))).collect();
    attributes.extend(span.how.error.map(|error| attribute("error.type", any(error))));
    let remote = if span.remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    let kind = match span.kind {
        Kind::Server => SpanKind::Server,
        Kind::Internal => SpanKind::Internal,
        Kind::Client => SpanKind::Client,
    };
    let code = if span.failed { StatusCode::Error } else { StatusCode::Unset };
    trace::Span {
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
        name: span.name.to_owned(),
        kind: kind as i32,
        attributes,
        status: Some(Status { message: span.how.message.unwrap_or_default(), code: code as i32 }),
        ..trace::Span::default()
    }
}

fn any(value: Value) -> AnyValue {
    match value {
        Value::Text(text) => AnyValue::StringValue(text),
        Value::Word(word) => AnyValue::StringValue(word.to_owned()),
        Value::Shared(text) => AnyValue::StringValue(text.as_ref().to_owned()),
        Value::Number(number) => AnyValue::IntValue(i64::try_from(number).unwrap_or(i64::MAX)),
    }
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(common::AnyValue { value: Some(value) }), ..KeyValue::default() }
}
