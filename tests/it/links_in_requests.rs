//! What the upstream sees of links that name us: in bodies, in targets that clients made of links, and of bodies that are left alone.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Frame;

use crate::harness::*;
use crate::raw_upstream::RawUpstream;

const JSON: (&str, &str) = ("content-type", "application/json");

/// A proxy in front of an upstream of bytes.
async fn before(config: &str) -> (Rig, RawUpstream) {
    let upstream = RawUpstream::ok().await;
    (Rig::before(&upstream.origin(), config).await, upstream)
}

/// Sends as Alice to `path` and returns what the upstream got, or the refusal.
async fn sent(rig: &Rig, upstream: &RawUpstream, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut request = alice("POST", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let before = upstream.arrived().len();
    let answer = rig.send(request.body(full(body.to_owned())).unwrap()).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let mut arrived = upstream.arrived();
    assert_eq!(arrived.len(), before + 1);
    let message = arrived.remove(before).message;
    assert_eq!(message.header("content-length"), Some(message.body.len().to_string().as_str()));
    message.body
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_name_us_reach_the_upstream_as_its_own() {
    let (rig, upstream) = before("server.public_url = \"https://graph.example\"").await;
    let graph = upstream.origin();
    for (path, body, expected) in [
        (
            "/v1.0/groups/1/members/$ref",
            r#"{"@odata.id":"http://127.0.0.1/v1.0/users/2"}"#,
            r#"{"@odata.id":"GRAPH/v1.0/users/2"}"#,
        ),
        (
            "/v1.0/x",
            r#"{"@odata.id":"https://graph.example/v1.0/a?b=%2B&c='d'"}"#,
            r#"{"@odata.id":"GRAPH/v1.0/a?b=%2B&c='d'"}"#,
        ),
        (
            "/as/alice/v1.0/x",
            r#"{"@odata.id":"http://127.0.0.1/as/%61lice/v1.0/a"}"#,
            r#"{"@odata.id":"GRAPH/v1.0/a"}"#,
        ),
        (
            "/graph/v1.0/x",
            r#"{"@odata.id":"http:\/\/127.0.0.1\/graph\/v1.0\/a" , "x":1.0}"#,
            r#"{"@odata.id":"GRAPH/v1.0/a" , "x":1.0}"#,
        ),
        (
            "/v1.0/groups",
            r#"{"displayName":"http://127.0.0.1/v1.0/é", "owners@odata.bind" : [ "http://127.0.0.1/v1.0/users/1",
                "https://else.example/v1.0/users/2" ],"manager@odata.bind":"http://127.0.0.1/beta/users/3"}"#,
            r#"{"displayName":"http://127.0.0.1/v1.0/é", "owners@odata.bind" : [ "GRAPH/v1.0/users/1",
                "https://else.example/v1.0/users/2" ],"manager@odata.bind":"GRAPH/beta/users/3"}"#,
        ),
    ] {
        let seen = sent(&rig, &upstream, path, &[JSON], body).await;
        assert_eq!(text(seen), expected.replace("GRAPH", &graph), "{path}");
    }
    // A client that is set to an HTTP proxy calls the upstream by its name.
    let body = r#"{"@odata.id":"http://localhost:1234/v1.0/aaa"}"#;
    let wire = format!(
        "POST http://{0}/v1.0/x HTTP/1.1\r\nHost: {0}\r\nAuthorization: {1}\r\nConnection: close\r\n\
         Content-Type: application/merge-patch+json; charset=utf-8\r\nContent-Length: {2}\r\n\r\n{body}",
        "localhost:1234",
        basic("alice", KEY),
        body.len(),
    );
    rig.exchange(wire).await;
    assert_eq!(
        text(&upstream.arrived().pop().unwrap().message.body),
        format!("{{\"@odata.id\":\"{graph}/v1.0/aaa\"}}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_goes_out_as_it_came() {
    let (rig, upstream) = before("").await;
    let link = r#"{ "@odata.id" : "http:\/\/127.0.0.1/v1.0/users/2" }"#;
    for (path, headers) in [
        ("/v1.0/x", &[("content-type", "text/plain")][..]),
        ("/v1.0/x", &[]),
        ("/v1.0/x", &[JSON, ("content-encoding", "gzip")]),
        ("/v1.0/me/photo/$value", &[JSON]),
        ("/v1.0/me/drive/items/1/content", &[JSON]),
    ] {
        assert_eq!(text(sent(&rig, &upstream, path, headers, link).await), link, "{path} {headers:?}");
    }
    for body in [
        "",
        "{",
        r#"{"@odata.id":"http://127.0.0.1:1/v1.0/a"}"#,
        r#"{"@odata.id":"http://127.0.0.1.evil/v1.0/a"}"#,
        r#"{"@odata.id":"http://127.0.0.1@evil/v1.0/a"}"#,
        r#"{"@odata.id":"https://127.0.0.1/v1.0/a"}"#,
        r#"{"@odata.id":"http://127.0.0.1/elsewhere"}"#,
        r#"{"@odata.id":"http://127.0.0.1/v1.0/a"} "#.trim_end_matches(['}', ' ']),
        r#"{"notificationUrl":"http://127.0.0.1/v1.0/a","body":"{\"@odata.id\":\"http://127.0.0.1/v1.0/a\"}"}"#,
    ] {
        assert_eq!(text(sent(&rig, &upstream, "/v1.0/x", &[JSON], body).await), body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_another_account_is_refused_and_one_to_another_upstream_stays() {
    let upstream = RawUpstream::ok().await;
    let billing = "[upstreams.billing]\nurl = \"http://127.0.0.1:9\"\nprovider = \"entra\"\nscopes = [\"User.Read\"]";
    let rig = Rig::before(&upstream.origin(), billing).await;
    let body = r#"{"manager@odata.bind":"http://127.0.0.1/as/bob/v1.0/users/2"}"#;
    let refused = rig.send(post("/v1.0/users", body)).await;
    let document = assert_refused(&refused, 400, "bad_request");
    assert!(document["error"]["message"].as_str().unwrap().contains("manager@odata.bind"), "{document}");
    assert!(upstream.arrived().is_empty());
    let body = r#"{"manager@odata.bind":"http://127.0.0.1/as/bob/billing/users/2"}"#;
    assert_eq!(text(sent(&rig, &upstream, "/v1.0/users", &[JSON], body).await), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_can_be_left_out() {
    let (rig, upstream) = before("upstreams.graph.rewrite_links = false").await;
    let body = r#"{"@odata.id":"http://127.0.0.1/v1.0/users/2"}"#;
    assert_eq!(text(sent(&rig, &upstream, "/v1.0/x", &[JSON], body).await), body);
}

/// With a known length nothing waits; without one the first bytes wait until the body is known to be long.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_streams_through() {
    let (rig, upstream) = before("server.limits.replay_bytes = 10000").await;
    let link = r#"{"@odata.id":"http://127.0.0.1/v1.0/a","x":""#;
    let body = format!("{link}{}\"}}", "y".repeat(20_000));
    assert_eq!(text(sent(&rig, &upstream, "/v1.0/x", &[JSON], &body).await), body);

    let mut wire = rig.wire().await;
    let head = format!(
        "POST /v1.0/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        basic("alice", KEY),
        body.len()
    );
    let before = upstream.bytes().concat().len();
    wire.send(head + link).await;
    upstream.until_bytes(before + link.len()).await;
    wire.send(&body[link.len()..]).await;
    assert_eq!(wire.answer().await.status(), 200);
    assert_eq!(text(&upstream.arrived().pop().unwrap().message.body), body);

    let chunks: Vec<Bytes> = body.as_bytes().chunks(3000).map(Bytes::copy_from_slice).collect();
    for (chunks, expected) in [
        (chunks.clone(), body.clone()),
        (
            vec![chunks[0].clone(), Bytes::from("\"}")],
            format!("{}\"}}", &body[..3000]).replace("http://127.0.0.1", &upstream.origin()),
        ),
    ] {
        let request = alice("POST", "/v1.0/x").header(JSON.0, JSON.1).body(Chunks(chunks.into()).boxed()).unwrap();
        assert_eq!(rig.send(request).await.status(), 200);
        assert_eq!(text(&upstream.arrived().pop().unwrap().message.body), expected);
    }
}

/// The JavaScript SDK takes only `https://` for absolute.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubled_target_is_undone_before_any_rule() {
    let config = client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me/**\"]");
    let (rig, upstream) = before(&config).await;
    for (target, expected) in [
        ("/v1.0/http://127.0.0.1/v1.0/me/messages?$skip=%2B'x'", Some("/v1.0/me/messages?$skip=%2B'x'")),
        ("/as/alice/v1.0/http://127.0.0.1/v1.0/me/a", Some("/v1.0/me/a")),
        ("/v1.0/http://127.0.0.1/as/alice/v1.0/me/a", Some("/v1.0/me/a")),
        ("/as/alice/v1.0/http://127.0.0.1/as/alice/v1.0/me/a%21b", Some("/v1.0/me/a%21b")),
        ("/v1.0/http://127.0.0.1/v1.0/users", None),
        ("/v1.0/me/http://127.0.0.1/v1.0/me/a", None),
        ("/v1.0/http://127.0.0.1.evil/v1.0/me/a", None),
        ("/v1.0/http://127.0.0.1/v1.0/me/../users", None),
        ("/v1.0/http://127.0.0.1/.bearerd/login", None),
    ] {
        let before = upstream.arrived().len();
        let answer = rig.get(target).await;
        let seen = upstream.arrived().get(before).map(|arrived| arrived.message.start.clone());
        assert_eq!(seen, expected.map(|target| format!("GET {target} HTTP/1.1")), "{target}: {answer:?}");
        assert_eq!(answer.status().is_success(), expected.is_some(), "{target}: {answer:?}");
    }
    for target in ["/as/bob/v1.0/http://127.0.0.1/as/alice/v1.0/me/a", "/as/bob/v1.0/http://127.0.0.1/v1.0/me/a"] {
        assert_refused(&rig.get(target).await, 400, "account_ambiguous");
    }
}

/// Teams names its operations by a relative `Location` without a version.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_a_version_gets_one() {
    let (rig, upstream) = before("").await;
    for (target, expected) in [
        ("/teams('1')/operations('2')?x", "/v1.0/teams('1')/operations('2')?x"),
        ("/as/alice/teams('1')", "/v1.0/teams('1')"),
    ] {
        assert_eq!(rig.get(target).await.status(), 200);
        assert_eq!(upstream.arrived().pop().unwrap().message.start, format!("GET {expected} HTTP/1.1"));
    }
    assert_refused(&rig.get("/users('1')").await, 404, "not_found");
}

/// A body whose length nobody knows before its end.
struct Chunks(VecDeque<Bytes>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}
