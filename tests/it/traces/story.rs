//! One request, one tree of spans.

use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::config::LogFormat;
use bearerd::proxy::AccessLog;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::sync::mpsc::unbounded_channel;

use super::collector::{Collector, Span, of_kind, one};
use crate::harness::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// `(trace, span, flags)` of what Graph saw in its request of this number.
fn told(rig: &Rig, number: usize) -> (String, String, String) {
    let seen = rig.seen();
    let values = seen[number].header("traceparent");
    assert_eq!(values.len(), 1, "{values:?}");
    let parts: Vec<_> = values[0].split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{values:?}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

fn told_of(span: &Span) -> (String, String, String) {
    (span.trace.clone(), span.id.clone(), "01".to_owned())
}

#[tokio::test]
async fn a_request_is_a_tree_of_spans_that_the_upstream_knows_of() {
    let collector = Collector::start().await;
    let (written, mut lines) = unbounded_channel();
    let log = AccessLog::new(LogFormat::Json, move |bytes| {
        // The test may have ended.
        let _ = written.send(serde_json::from_slice::<serde_json::Value>(bytes).expect("one line"));
    });
    let setup = Setup { config: collector.config("service_name = \"proxy-1\""), ..Setup::default() };
    let rig = setup.start_logged(&log).await.expect("bearerd starts");
    let answer = rig.get("/v1.0/me?$select=displayName").await;
    assert_eq!(answer.status(), 200);
    let spans = collector.spans(3).await;
    let [server] = of_kind(&spans, SpanKind::Server)[..] else { panic!("{spans:#?}") };
    let [attempt] = of_kind(&spans, SpanKind::Client)[..] else { panic!("{spans:#?}") };
    let lease = one(&spans, "lease");
    let request_id = rig.seen_one().header("client-request-id")[0].to_owned();
    let port = rig.sandbox.graph.origin().port().expect("a port").to_string();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/v1.0/me"),
        ("server.address", "127.0.0.1"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("url.scheme", "http"),
        ("bearerd.request_id", &request_id),
        ("bearerd.client", "payroll"),
        ("bearerd.account", "alice"),
        ("bearerd.upstream", "graph"),
        ("bearerd.attempts", "1"),
    ] {
        assert_eq!(server.says(name), Some(value), "{name}: {server:#?}");
    }
    assert_eq!((server.name.as_str(), server.parent.as_str(), server.failed), ("GET", "", false));
    assert_eq!(server.says("error.type"), None);
    for (name, value) in [
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("bearerd.upstream", "graph"),
    ] {
        assert_eq!(attempt.says(name), Some(value), "{name}: {attempt:#?}");
    }
    assert_eq!(attempt.says("http.request.resend_count"), None);
    assert_eq!((lease.kind, &lease.parent, &attempt.parent), (SpanKind::Internal, &server.id, &server.id));
    assert_eq!(told(&rig, 0), told_of(attempt));
    for span in &spans {
        assert_eq!(span.trace, server.trace);
        assert!(server.start <= span.start && span.start <= span.end && span.end <= server.end, "{spans:#?}");
        assert_eq!(span.flags & 0x301, 0x101, "sampled, and nobody else's child");
    }
    assert!(lease.end <= attempt.start);
    let line = within(lines.recv()).await.expect("a line");
    assert_eq!((line["trace_id"].as_str(), line["request_id"].as_str()), (Some(&*server.trace), Some(&*request_id)));
    let requests = collector.requests();
    assert_eq!(requests[0].0, "/v1/traces");
    assert_eq!(requests[0].1["content-type"], "application/x-protobuf");
    let resource = &collector.resources()[0];
    assert_eq!(
        (resource["service.name"].as_str(), resource["service.version"].as_str()),
        ("proxy-1", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(resource["service.instance.id"].len(), 36);
}

#[tokio::test]
async fn off_headers_pass_untouched_and_no_line_names_a_trace() {
    let (written, mut lines) = unbounded_channel();
    let log = AccessLog::new(LogFormat::Json, move |bytes| {
        // The test may have ended.
        let _ = written.send(String::from_utf8(bytes.to_vec()).expect("text"));
    });
    let rig = Setup::default().start_logged(&log).await.expect("bearerd starts");
    let request = alice("GET", "/v1.0/me").header("traceparent", "anything").header("tracestate", "a b");
    assert_eq!(rig.send(request.body(empty()).unwrap()).await.status(), 200);
    let seen = rig.seen_one();
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (vec!["anything"], vec!["a b"]));
    assert!(!within(lines.recv()).await.expect("a line").contains("trace"));
}

#[tokio::test]
async fn a_refused_token_is_two_attempts_and_a_refresh_between_them() {
    let collector = Collector::start().await;
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let rig = Setup { config: collector.config(""), clock: clock.clone(), ..Setup::default() }.start().await;
    clock.advance(Duration::from_secs(60));
    rig.sandbox.entra.revoke_access_tokens("alice");
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let spans = collector.spans(6).await;
    let server = of_kind(&spans, SpanKind::Server)[0];
    let mut attempts: Vec<_> =
        spans.iter().filter(|span| span.name == "GET" && span.kind == SpanKind::Client).collect();
    attempts.sort_by_key(|span| span.says("http.request.resend_count").is_some());
    let [first, second] = attempts[..] else { panic!("{spans:#?}") };
    assert_eq!((first.says("http.response.status_code"), first.says("error.type")), (Some("401"), Some("401")));
    assert!(first.failed);
    assert_eq!(
        (second.says("http.response.status_code"), second.says("bearerd.retry_reason")),
        (Some("200"), Some("401"))
    );
    assert_eq!(second.says("http.request.resend_count"), Some("1"));
    assert_eq!((told(&rig, 0), told(&rig, 1)), (told_of(first), told_of(second)), "each attempt names itself");
    let healing = spans.iter().find(|span| span.says("bearerd.reason") == Some("401")).expect("a second lease");
    let refresh = one(&spans, "refresh");
    assert_eq!((refresh.kind, &refresh.parent, refresh.failed), (SpanKind::Client, &healing.id, false));
    assert_eq!(
        (refresh.says("bearerd.provider"), refresh.says("bearerd.grant_type")),
        (Some("entra"), Some("refresh_token"))
    );
    assert!([first, second, healing].iter().all(|span| span.parent == server.id));
    assert!(spans.iter().all(|span| span.trace == server.trace));
    assert_eq!((server.says("bearerd.attempts"), server.failed), (Some("2"), false));
    let asked = rig.token_requests();
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn a_known_clients_trace_goes_on() {
    let collector = Collector::start().await;
    let rig = Rig::with(&collector.config("sample = 0")).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let request = alice("GET", "/v1.0/me").header("traceparent", parent).header("tracestate", "a=1,b@c=2");
    assert_eq!(rig.send(request.body(empty()).unwrap()).await.status(), 200);
    let spans = collector.spans(3).await;
    let server = of_kind(&spans, SpanKind::Server)[0];
    assert_eq!((server.trace.as_str(), server.parent.as_str(), server.flags & 0x300), (TRACE, SPAN, 0x300));
    assert_eq!(told(&rig, 0), told_of(of_kind(&spans, SpanKind::Client)[0]));
    assert_eq!(rig.seen_one().header("tracestate"), ["a=1,b@c=2"]);
}

#[tokio::test]
async fn what_nobody_sampled_goes_by_unrecorded() {
    let collector = Collector::start().await;
    let rig = Rig::with(&collector.config("sample = 0")).await;
    let parent = format!("00-{TRACE}-{SPAN}-00");
    let request = alice("GET", "/v1.0/me").header("traceparent", parent).header("tracestate", "a=1");
    assert_eq!(rig.send(request.body(empty()).unwrap()).await.status(), 200);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let ((trace, span, flags), (own, _, own_flags)) = (told(&rig, 0), told(&rig, 1));
    assert_eq!((trace.as_str(), flags.as_str(), own_flags.as_str()), (TRACE, "00", "00"));
    assert!(span != SPAN && own != TRACE);
    rig.app.drain().await;
    assert_eq!(collector.requests().len(), 0);
}

#[tokio::test]
async fn a_parent_that_is_none_starts_a_new_trace() {
    let collector = Collector::start().await;
    let rig = Rig::with(&collector.config("")).await;
    let sound = format!("00-{TRACE}-{SPAN}-01");
    let wrong = [
        vec![sound.to_uppercase()],
        vec![sound.clone(), sound.clone()],
        vec![sound.replacen("00", "ff", 1)],
        vec![String::new()],
    ];
    for (number, values) in wrong.iter().enumerate() {
        let request = alice("GET", "/v1.0/me").header("tracestate", "a=1");
        let request = values.iter().fold(request, |request, value| request.header("traceparent", value));
        assert_eq!(rig.send(request.body(empty()).unwrap()).await.status(), 200);
        let (trace, _, flags) = told(&rig, number);
        assert!(trace != TRACE && flags == "01", "{values:?}");
        assert!(rig.seen()[number].header("tracestate").is_empty(), "{values:?}");
    }
    // A state that is none is left out alone.
    let request = alice("GET", "/v1.0/me").header("traceparent", &sound).header("tracestate", "A=1");
    assert_eq!(rig.send(request.body(empty()).unwrap()).await.status(), 200);
    assert_eq!(told(&rig, wrong.len()).0, TRACE);
    assert!(rig.seen()[wrong.len()].header("tracestate").is_empty());
    collector.spans(3 * (wrong.len() + 1)).await;
}

#[tokio::test]
async fn strangers_neither_force_a_span_nor_name_a_trace() {
    let collector = Collector::start().await;
    let rig = Rig::with(&collector.config("")).await;
    let request = bare("GET", "/v1.0/me").header("traceparent", format!("00-{TRACE}-{SPAN}-01"));
    let answer = rig.send(request.body(empty()).unwrap()).await;
    assert_refused(&answer, 401, "client_unauthenticated");
    let spans = collector.spans(1).await;
    assert!(spans[0].trace != TRACE && spans[0].parent.is_empty(), "{spans:#?}");
    assert_eq!((spans[0].says("error.type"), spans[0].failed), (Some("client_unauthenticated"), false));
    assert_eq!(spans[0].says("bearerd.client"), None);
}

#[tokio::test]
async fn many_that_wait_for_one_refresh_have_one_span_of_it() {
    let collector = Collector::start().await;
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let rig = Setup { config: collector.config(""), clock: clock.clone(), ..Setup::default() }.start().await;
    clock.advance(Duration::from_secs(2 * 3600));
    let (one_answer, other) = tokio::join!(rig.get("/v1.0/me"), rig.get("/v1.0/me"));
    assert_eq!((one_answer.status().as_u16(), other.status().as_u16()), (200, 200));
    let spans = collector.spans(7).await;
    let refresh = one(&spans, "refresh");
    let leases: Vec<_> = spans.iter().filter(|span| span.name == "lease").collect();
    let starter: Vec<_> = leases.iter().filter(|lease| lease.id == refresh.parent).collect();
    assert_eq!((leases.len(), starter.len(), rig.token_requests().len()), (2, 1, 1), "{spans:#?}");
    assert_eq!(refresh.trace, starter[0].trace);
    let roots = of_kind(&spans, SpanKind::Server);
    assert_ne!(roots[0].trace, roots[1].trace);
}

#[tokio::test]
async fn no_secret_and_no_query_is_in_what_the_collector_gets() {
    let collector = Collector::start().await;
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let rig = Setup { config: collector.config(""), clock: clock.clone(), ..Setup::default() }.start().await;
    clock.advance(Duration::from_secs(60));
    rig.sandbox.entra.revoke_access_tokens("alice");
    let request = alice("POST", "/v1.0/echo?query=s3cret-query").header("x-custom", "s3cret-header");
    assert_eq!(rig.send(request.body(full("s3cret-body")).unwrap()).await.status(), 200);
    let wrong = bare("GET", "/v1.0/me").header("authorization", basic("alice", "s3cret-password"));
    assert_eq!(rig.send(wrong.body(empty()).unwrap()).await.status(), 401);
    rig.app.drain().await;
    let mut secrets: Vec<String> = ["s3cret", KEY, "authorization", "Bearer", "Basic"].map(str::to_owned).to_vec();
    let seen = rig.sandbox.graph.requests();
    assert_eq!(seen.len(), 2);
    for value in seen.iter().flat_map(|seen| seen.header("authorization")) {
        let token = value.strip_prefix("Bearer ").expect("a token");
        assert!(token.len() > 20);
        secrets.push(token.to_owned());
        secrets.push(token.rsplit('.').next().expect("a signature").to_owned());
    }
    secrets.extend(rig.sandbox.grant("alice").map(|grant| grant.refresh_token));
    secrets.extend(rig.sandbox.entra.options().client_secret.clone());
    let requests = collector.requests();
    assert!(!requests.is_empty());
    for (_, headers, body) in requests {
        let body = format!("{headers:?} {}", String::from_utf8_lossy(&body));
        for secret in &secrets {
            assert!(!body.contains(secret.as_str()), "{secret} is in {body}");
        }
    }
}
