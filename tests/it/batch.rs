//! `$batch` through the whole proxy: what of it is healed and what is not, what Graph gets to see of it, and one answer for the client.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{ChallengeShape, Denial, Effect, Fault, TokenFault};
use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use serde_json::{Value, json};

use crate::harness::*;
use crate::raw_upstream::{Arrived, Play, RawUpstream};

const BATCH: &str = "/v1.0/$batch";
const NBF: &str = r#"{"access_token":{"nbf":{"essential":true, "value":"1800000000"}}}"#;

async fn by_hand(config: &str) -> Rig {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    Setup { clock, config: config.to_owned(), ..Setup::default() }.start().await
}

fn get_member(id: &str, url: &str) -> Value {
    json!({"id": id, "method": "GET", "url": url})
}

fn batch(members: &[Value]) -> String {
    json!({ "requests": members }).to_string()
}

/// An answer of an upstream of bytes.
fn says(status: u16, body: &str) -> Play {
    let kind = "application/json;odata.metadata=minimal;charset=utf-8";
    Play::say(&format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn answers(items: &[Value]) -> Play {
    says(200, &json!({ "responses": items }).to_string())
}

/// The ids of a batch's requests.
fn ids(arrived: &Arrived) -> Vec<String> {
    let body: Value = serde_json::from_slice(&arrived.message.body).expect("JSON");
    let id = |member: &Value| member["id"].as_str().expect("an id").to_owned();
    body["requests"].as_array().expect("requests").iter().map(id).collect()
}

fn members(arrived: &Arrived) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&arrived.message.body).expect("JSON");
    body["requests"].as_array().expect("requests").clone()
}

/// (id, status) in their order.
fn statuses(answer: &Response<Bytes>) -> Vec<(String, u64)> {
    assert_eq!(answer.status(), 200, "{answer:?}");
    let length = header(answer, "content-length").map(|length| length.parse::<usize>().expect("a length"));
    assert!(length.is_none_or(|length| length == answer.body().len()), "{answer:?}");
    let status =
        |item: &Value| (item["id"].as_str().expect("an id").to_owned(), item["status"].as_u64().expect("a status"));
    json(answer)["responses"].as_array().expect("responses").iter().map(status).collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(id, status)| ((*id).to_owned(), *status)).collect()
}

fn assert_counted(rig: &Rig, lines: &[&str]) {
    let text = rig.app.core().metrics.render();
    for line in lines {
        assert!(text.lines().any(|counted| counted == *line), "{line} is not in\n{text}");
    }
}

/// Twenty members, five refused, and those that depended on them: one refresh, and one more envelope with just these.
#[tokio::test(flavor = "multi_thread")]
async fn refused_members_and_their_dependents_are_sent_again_after_one_refresh() {
    let refused = ["1", "5", "9", "13", "17"];
    // 2 waits for 1, 3 for 2; 6 for 5 and 4, which succeeds; 10 for 9 and 8, which fails for good.
    let parents = BTreeMap::from([("2", vec!["1"]), ("3", vec!["2"]), ("6", vec!["5", "4"]), ("10", vec!["9", "8"])]);
    let upstream = RawUpstream::start(move |arrived, number| {
        let status = |id: &str| match (id, number) {
            ("8", _) => 404,
            ("10", _) | ("2" | "3" | "6", 0) => 424,
            (id, 0) if refused.contains(&id) => 401,
            ("3", _) => 201,
            _ => 200,
        };
        let item = |id: &String| json!({"id": id, "status": status(id), "headers": {"X": number.to_string()}, "body": {"of": id}});
        let mut items: Vec<Value> = ids(arrived).iter().map(item).collect();
        items.rotate_left(3);
        items.reverse();
        answers(&items)
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let member = |number: u32| {
        let id = number.to_string();
        let mut member = json!({"id": id, "method": if number.is_multiple_of(2) { "POST" } else { "GET" }, "url": "/me/x", "body": {"of": id}});
        if let Some(parents) = parents.get(&*id) {
            member["dependsOn"] = json!(parents);
        }
        member
    };
    let all: Vec<Value> = (1..=20).map(member).collect();
    let answer = rig.send(post(BATCH, batch(&all))).await;

    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), 2);
    assert_eq!(ids(&arrived[1]), ["1", "2", "3", "5", "6", "9", "13", "17"]);
    let again = members(&arrived[1]);
    let depends_on: Vec<_> = again.iter().map(|member| member["dependsOn"].clone()).collect();
    assert_eq!(
        depends_on[1..5],
        [json!(["1"]), json!(["2"]), Value::Null, json!(["5"])],
        "what is done is not waited for"
    );
    assert!(again.iter().all(|member| member["body"]["of"] == member["id"]));
    let token = |at: usize| arrived[at].message.header("authorization").unwrap().to_owned();
    assert_ne!(token(0), token(1));
    assert_eq!(arrived[0].message.header("client-request-id"), arrived[1].message.header("client-request-id"));
    assert_eq!(rig.token_requests().len(), 1);

    let mut order: Vec<String> = (1..=20).map(|number| number.to_string()).collect();
    order.rotate_left(3);
    order.reverse();
    let expected = order.into_iter().map(|id| {
        let status = match &*id {
            "8" => 404,
            "10" => 424,
            "3" => 201,
            _ => 200,
        };
        (id, status)
    });
    assert_eq!(statuses(&answer), expected.collect::<Vec<_>>());
    for item in json(&answer)["responses"].as_array().unwrap() {
        assert_eq!(item["body"]["of"], item["id"], "an answer in the place of another");
    }
    assert_counted(
        &rig,
        &["bearerd_retries_total{reason=\"batch_401\"} 1", "bearerd_upstream_401_total{outcome=\"healed\"} 1"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inner_challenge_is_answered_with_its_claims() {
    for forbidden in [false, true] {
        let rig = by_hand("").await;
        let claims = Effect::Denied(Denial::Claims(NBF.to_owned()));
        rig.graph().faults().push(Fault::graph("/v1.0/me/drive", claims));
        if forbidden {
            rig.graph().faults().push(Fault::graph("/v1.0/me/drive", Effect::Challenge(ChallengeShape::Forbidden)));
        }
        let body =
            batch(&[get_member("a", "/me"), get_member("b", "/me/drive/root/children"), get_member("c", "/nowhere")]);
        let answer = rig.send(post(BATCH, body)).await;
        assert_eq!(statuses(&answer), pairs(&[("c", 400), ("b", 200), ("a", 200)]), "{answer:?}");
        let asked = rig.token_requests();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].claims.as_ref().is_some_and(|claims| claims.contains("nbf")), "{asked:?}");
        assert_eq!(rig.seen().len(), 2);
    }
}

/// As for any request: one refresh, and then none for a token of seconds ago. The other members' answers are never lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_token_heals_goes_through_with_everything_else() {
    let rig = by_hand("").await;
    rig.graph().faults().push(Fault::graph("/v1.0/me/drive", Effect::Denied(Denial::Expired)).always());
    let body = batch(&[get_member("a", "/me"), get_member("b", "/me/drive")]);
    for envelopes in [2, 3] {
        let answer = rig.send(post(BATCH, body.clone())).await;
        assert_eq!(statuses(&answer), pairs(&[("b", 401), ("a", 200)]));
        assert_eq!(json(&answer)["responses"][0]["body"]["error"]["code"], "InvalidAuthenticationToken");
        assert!(header(&answer, "bearerd-error").is_none());
        assert_eq!((rig.seen().len(), rig.token_requests().len()), (envelopes, 1));
    }
    assert_counted(
        &rig,
        &[
            "bearerd_upstream_401_total{outcome=\"refused_again\"} 1",
            "bearerd_upstream_401_total{outcome=\"too_young\"} 1",
        ],
    );
    // The person has to sign in, or the provider is down: still an answer, since the others were executed.
    for refusal in [Effect::html(503, Some("1")), Effect::Error(TokenFault::aadsts(50173))] {
        rig.clock.advance(Duration::from_secs(60));
        rig.graph().clear();
        rig.graph().faults().push(Fault::token(refusal.clone()));
        let answer = rig.send(post(BATCH, body.clone())).await;
        assert_eq!(statuses(&answer), pairs(&[("b", 401), ("a", 200)]), "{refusal:?}");
        assert_eq!(rig.seen().len(), 1, "{refusal:?}");
    }
    assert_counted(&rig, &["bearerd_upstream_401_total{outcome=\"no_new_token\"} 2"]);
}

/// The whole envelope's 401 is healed as any request's is; an inner one after it is not blamed on the token again.
#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_is_refused_heals_whole() {
    let rig = Rig::start().await;
    rig.sandbox.entra.revoke_access_tokens("alice");
    rig.graph().faults().push(Fault::graph("/v1.0/me/drive", Effect::Denied(Denial::Expired)));
    let body = batch(&[get_member("a", "/me"), get_member("b", "/me/drive")]);
    let answer = rig.send(post(BATCH, body)).await;
    assert_eq!(statuses(&answer), pairs(&[("b", 401), ("a", 200)]));
    assert_eq!(rig.seen().iter().map(|seen| seen.status_sent).collect::<Vec<_>>(), [401, 200]);
    assert_eq!(rig.token_requests().len(), 1);
    assert_counted(&rig, &["bearerd_upstream_401_total{outcome=\"healed\"} 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_members_are_sent_again_after_the_longest_wait() {
    let rig = Rig::start().await;
    rig.graph().faults().push(Fault::graph("/v1.0/me/messages", Effect::graph_error(429, Some("1"))));
    rig.graph().faults().push(Fault::graph("/v1.0/me/drive", Effect::graph_error(503, Some("0.2,2"))));
    let body = batch(&[
        get_member("A", "/me"),
        get_member("B", "/me/messages"),
        get_member("C", "me/drive/root/children"),
        json!({"id": "D", "method": "GET", "url": "/me/messages?$top=1", "dependsOn": ["b", "a"]}),
    ]);
    let answer = rig.send(post(BATCH, body)).await;
    assert_eq!(statuses(&answer), pairs(&[("D", 200), ("C", 200), ("B", 200), ("A", 200)]), "{answer:?}");
    let seen = rig.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at.since(seen[0].at) >= Duration::from_millis(1990), "{:?}", seen[1].at.since(seen[0].at));
    assert!(seen[1].body_len < seen[0].body_len);
    assert!(rig.token_requests().is_empty(), "a token is not to blame");
    assert_counted(&rig, &["bearerd_retries_total{reason=\"batch_throttled\"} 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_be_repeated_is_and_what_was_not_executed() {
    let upstream = RawUpstream::start(|_, number| {
        answers(&match number {
            0 => vec![
                json!({"id": "post", "status": 429, "headers": {"Retry-After": "0"}}),
                json!({"id": "get", "status": 504, "headers": {"retry-after": "0"}}),
                json!({"id": "after-get", "status": 424}),
                json!({"id": "after-post", "status": 424}),
                json!({"id": "done", "status": 204}),
            ],
            _ => vec![json!({"id": "after-get", "status": 202}), json!({"id": "get", "status": 200})],
        })
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let body = batch(&[
        json!({"id": "post", "method": "POST", "url": "/me/sendMail"}),
        json!({"id": "get", "method": "GET", "url": "/me", "dependsOn": ["done"]}),
        json!({"id": "after-get", "method": "POST", "url": "/me/sendMail", "dependsOn": ["GET"]}),
        json!({"id": "after-post", "method": "GET", "url": "/me", "dependsOn": ["post"]}),
        json!({"id": "done", "method": "DELETE", "url": "/me/x"}),
    ]);
    let answer = rig.send(post(BATCH, body)).await;
    let expected = [("post", 429), ("get", 200), ("after-get", 202), ("after-post", 424), ("done", 204)];
    assert_eq!(statuses(&answer), pairs(&expected));
    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), 2);
    assert_eq!(
        members(&arrived[1]),
        [
            json!({"id": "get", "method": "GET", "url": "/me"}),
            json!({"id": "after-get", "method": "POST", "url": "/me/sendMail", "dependsOn": ["GET"]}),
        ]
    );
}

/// Given up: the client is told to wait itself, in a number that it can read.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_long_or_never_ends_goes_through_as_whole_seconds() {
    let rig = Rig::start().await;
    let body = || batch(&[get_member("a", "/me"), get_member("b", "/me/drive")]);
    for (said, told, most) in [("119.2,3", "120", 1), ("0.0", "0", 4)] {
        rig.graph().faults().push(Fault::graph("/v1.0/me/drive", Effect::graph_error(429, Some(said))).always());
        let answer = rig.send(post(BATCH, body())).await;
        assert_eq!(statuses(&answer), pairs(&[("b", 429), ("a", 200)]));
        assert_eq!(json(&answer)["responses"][0]["headers"]["Retry-After"], told);
        let sent = rig.seen().len();
        assert!(sent <= most && (most == 1 || sent > 1), "{said}: {sent}");
        rig.graph().faults().clear();
        rig.graph().clear();
    }
    assert!(rig.token_requests().is_empty());
}

/// Graph counts a member like a request of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_member_pauses_its_own_workload_and_no_other() {
    let rig = by_hand("").await;
    rig.graph().faults().push(Fault::graph("/v1.0/me/messages", Effect::graph_error(429, Some("60"))));
    let write = json!({"id": "b", "method": "POST", "url": "/me/messages", "body": {}, "headers": {"Content-Type": "application/json"}});
    let answer = rig.send(post(BATCH, batch(&[get_member("a", "/me"), write]))).await;
    assert_eq!(statuses(&answer), pairs(&[("b", 429), ("a", 200)]));
    rig.clock.advance(Duration::from_secs(20));
    let refused = rig.get("/v1.0/me/messages").await;
    assert_refused(&refused, 429, "throttled");
    assert_eq!(header(&refused, "retry-after"), Some("40"));
    assert_eq!(rig.get("/v1.0/me/drive/root/children").await.status(), 200);
    assert_eq!(rig.send(post(BATCH, batch(&[get_member("a", "/me")]))).await.status(), 200);
    assert_eq!(rig.seen().len(), 3);
    assert_counted(&rig, &["bearerd_gate_pauses_total{upstream=\"graph\",workload=\"outlook\"} 1"]);
}

/// What is called so elsewhere is a request like any other, and nothing that rules could judge.
#[tokio::test(flavor = "multi_thread")]
async fn json_batching_is_graphs_alone() {
    let rest = "upstreams.graph.kind = \"rest\"\n";
    let rig = Rig::with(rest).await;
    let member =
        json!({"id": "a", "method": "GET", "url": "https://graph.microsoft.com/v1.0/me", "headers": {"Cookie": "c"}});
    let body = batch(&[member]);
    rig.send(post(BATCH, body.clone())).await;
    assert_eq!(rig.seen_one().body_sha256, sha256(body.as_bytes()));

    let rig = Rig::with(&format!("{rest}{}", client("accounts = [\"*\"]\nallow = [\"* /v1.0/**\"]"))).await;
    assert_refused(&rig.send(post(BATCH, batch(&[get_member("a", "/me")]))).await, 403, "policy_denied");
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn bearerd_retry_off_switches_healing_off() {
    let rig = Rig::start().await;
    for effect in [Effect::Denied(Denial::Expired), Effect::graph_error(429, Some("0.1"))] {
        rig.graph().faults().push(Fault::graph("/v1.0/me/drive", effect));
        let mut request = post(BATCH, batch(&[get_member("a", "/me"), get_member("b", "/me/drive")]));
        request.headers_mut().insert("bearerd-retry", "off".parse().unwrap());
        let answer = rig.send(request).await;
        assert!(matches!(statuses(&answer)[0].1, 401 | 429), "{answer:?}");
        assert!(json(&answer)["responses"][0]["headers"]["Retry-After"].as_str().is_none_or(|said| said == "0.1"));
        rig.seen_one();
        rig.graph().clear();
    }
    assert!(rig.token_requests().is_empty());
}

/// Whatever the second answer is but a whole one, the first stays whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_second_answer_changes_nothing() {
    let first =
        r#"{"responses":[{"id":"b","status":401, "body":{"n":1.0}},{"id":"a","status":401},{"id":"c","status":200}]}"#;
    let ok = |id: &str| json!({"id": id, "status": 200});
    for (second, maybe) in [
        (says(200, "{\"responses\":[{\"id\":\"a\""), true),
        (says(200, "<html>"), true),
        (answers(&[ok("a")]), true),
        (answers(&[ok("a"), ok("b"), ok("c")]), true),
        (answers(&[ok("a"), ok("b"), ok("B")]), true),
        (says(400, "{}"), false),
        (says(401, "{}"), false),
        (says(500, "{}"), true),
        (Play::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"responses\":[".to_vec()), true),
        (Play::SayAndClose(Vec::new()), true),
    ] {
        let played = second.clone();
        let upstream =
            RawUpstream::start(move |_, number| if number == 0 { says(200, first) } else { played.clone() }).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        let body = batch(&[
            json!({"id": "a", "method": "POST", "url": "/me/x"}),
            get_member("b", "/me"),
            get_member("c", "/me"),
        ]);
        let answer = rig.send(post(BATCH, body)).await;
        assert_eq!((answer.status().as_u16(), text(answer.body())), (200, first.to_owned()), "{second:?}");
        assert_eq!(header(&answer, "bearerd-maybe-executed").is_some(), maybe, "{second:?}");
        assert!(upstream.arrived().len() >= 2 && ids(&upstream.arrived()[1]) == ["a", "b"]);
        assert_eq!(rig.token_requests().len(), 1);
    }
}

/// Bytes that are not ours to understand, with and without a length, longer than what is kept or read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_goes_out_and_comes_back_as_it_was() {
    let inner = r#"{"responses":[{"id":"1","status":401},{"id":"1","status":401}],"x": 1.0}"#;
    let many: Vec<Value> = (0..10_000).map(|id| get_member(&id.to_string(), "http://127.0.0.1/v1.0/me")).collect();
    let good = batch(&[get_member("1", "/me")]);
    for (name, value, body) in [
        ("content-encoding", "gzip", b"\x1f\x8b\x08\x00".to_vec()),
        ("content-type", "multipart/mixed; boundary=b", b"--b\r\n".to_vec()),
        ("content-type", "application/json; charset=utf-16", b"x".to_vec()),
        ("prefer", "x", b"{\"requests\":".to_vec()),
        ("prefer", "x", Vec::new()),
        ("prefer", "x", good.replace("}]", ",\"url\":\"/you\"}]").into_bytes()),
        ("prefer", "x", batch(&many).into_bytes()),
        ("prefer", "x", vec![b' '; 5 << 20]),
    ] {
        for limits in ["", "server.limits.replay_bytes = 1000", "server.limits.replay_total_bytes = 1000"] {
            let upstream = RawUpstream::start(move |_, _| says(200, inner)).await;
            let rig = Rig::before(&upstream.origin(), limits).await;
            for chunked in [false, true] {
                let request = alice("POST", BATCH).header(name, value).header("accept-encoding", "identity");
                let body = Bytes::from(body.clone());
                let sent = if chunked { streamed(&body) } else { full(body.clone()) };
                let answer = rig.send(request.body(sent).unwrap()).await;
                assert_eq!(text(answer.body()), inner);
                let arrived = upstream.arrived().pop().unwrap();
                assert!(arrived.message.body == body, "{name}: {value}, {limits}, {chunked}: the body was changed");
            }
            assert_eq!(upstream.arrived().len(), 2);
            assert!(rig.token_requests().is_empty());
        }
    }
}

/// A body whose length is unsaid, in pieces.
fn streamed(body: &Bytes) -> Body {
    let piece = |at: usize| Ok(Frame::data(body.slice(at..body.len().min(at + 300))));
    let pieces: VecDeque<_> = (0..body.len()).step_by(300).map(piece).collect();
    BoxBody::new(Pieces(pieces))
}

struct Pieces(VecDeque<Result<Frame<Bytes>, io::Error>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(self.0.pop_front())
    }
}

/// An answer that is longer than what we keep is the client's as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_streams_through() {
    let long = json!({"responses": [{"id": "1", "status": 401, "body": "x".repeat(17 << 20)}]}).to_string();
    let expected = sha256(long.as_bytes());
    let upstream = RawUpstream::start(move |_, _| says(200, &long)).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let answer = rig.send(post(BATCH, batch(&[get_member("1", "/me")]))).await;
    assert_eq!((answer.status().as_u16(), sha256(answer.body())), (200, expected));
    assert_eq!((upstream.arrived().len(), rig.token_requests().len()), (1, 0));
}

/// T109: absolute urls of ours or the upstream's are what some SDKs send; what is judged is what is sent.
#[tokio::test(flavor = "multi_thread")]
async fn urls_that_name_us_become_relative_and_credentials_stay_here() {
    for rules in ["", "allow = [\"GET /v1.0/me/**\", \"GET /v1.0/me\"]"] {
        let upstream = RawUpstream::start(|arrived, _| {
            let item = |id: &String| json!({"id": id, "status": 200});
            answers(&ids(arrived).iter().map(item).collect::<Vec<_>>())
        })
        .await;
        let rig = Rig::before(&upstream.origin(), &client(&format!("accounts = [\"*\"]\n{rules}"))).await;
        let origin = upstream.origin();
        let urls = [
            "/me",
            "http://127.0.0.1/v1.0/me?$filter=a%20eq%20'b%2B+'",
            "http://127.0.0.1/as/alice/v1.0/me/x",
            "/as/alice/v1.0/me/y",
            "lice/v1.0/me/z",
            &format!("{origin}/v1.0/me/messages"),
        ];
        let named = |(at, url): (usize, &&str)| json!({"id": at.to_string(), "method": "GET", "url": url, "headers": {"Authorization": "Bearer x", "Prefer": "p", "bearerd-account": "bob"}});
        let all: Vec<Value> = urls.iter().enumerate().map(named).collect();
        let answer = rig.send(post("/as/alice/v1.0/$batch", batch(&all))).await;
        assert_eq!(statuses(&answer).len(), urls.len(), "{rules}");
        let sent = members(&upstream.arrived()[0]);
        let urls: Vec<_> = sent.iter().map(|member| member["url"].as_str().unwrap()).collect();
        assert_eq!(urls, ["/me", "/me?$filter=a%20eq%20'b%2B+'", "/me/x", "/me/y", "/me/z", "/me/messages"]);
        assert!(sent.iter().all(|member| member["headers"] == json!({"Prefer": "p"})), "{sent:?}");

        let kind = if rules.is_empty() { (400, "bad_request") } else { (403, "policy_denied") };
        let body = batch(&[get_member("mine", "/me"), get_member("bobs", "http://127.0.0.1/as/bob/v1.0/me")]);
        let refused = assert_refused(&rig.send(post(BATCH, body)).await, kind.0, kind.1);
        assert!(refused["error"]["message"].as_str().unwrap().contains("\"bobs\""), "{refused}");
        assert_eq!(upstream.arrived().len(), 1);
    }
}

/// T108: a member in disguise is denied where there are rules and loses its mask elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_in_disguise_is_denied_or_stripped() {
    let disguised = |name: &str| {
        let mut member = json!({"id": "1", "method": "POST", "url": "/me", "headers": {}});
        member["headers"][name] = json!("DELETE");
        batch(&[member])
    };
    for name in ["X-HTTP-Method", "x-http-method-override", "X-Method-Override", "X_HTTP_METHOD"] {
        let rig = Rig::with(&client("accounts = [\"*\"]\nallow = [\"POST /v1.0/**\"]")).await;
        assert_refused(&rig.send(post(BATCH, disguised(name))).await, 403, "policy_denied");
        rig.assert_nothing_left();
        let upstream = RawUpstream::start(|_, _| answers(&[json!({"id": "1", "status": 200})])).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        assert_eq!(rig.send(post(BATCH, disguised(name))).await.status(), 200);
        assert_eq!(members(&upstream.arrived()[0])[0]["headers"], json!({}), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_members_name_what_the_client_used() {
    let upstream = RawUpstream::start(|arrived, _| {
        let up = format!("http://{}", arrived.message.header("host").unwrap());
        answers(&[
            json!({"id": "1", "status": 201, "headers": {"Location": format!("{up}/v1.0/me/x"), "operation-location": format!("{up}/v1.0/o?a=%2b")}}),
            json!({"id": "2", "status": 302, "headers": {"Location": "https://files.example/x?t=1"}}),
            json!({"id": "3", "status": 200, "body": {"@odata.nextLink": format!("{up}/v1.0/me/messages?$skiptoken=X%2744"), "text": format!("see {up}/v1.0/me")}}),
            json!({"id": "4", "status": 200, "body": "aHR0cA=="}),
        ])
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let all: Vec<Value> = ["1", "2", "3", "4"].iter().map(|id| get_member(id, "/me")).collect();
    let answer = rig.send(post("/as/alice/v1.0/$batch", batch(&all))).await;
    assert_eq!(statuses(&answer).len(), 4);
    let us = "http://127.0.0.1/as/alice/v1.0";
    let items = json(&answer)["responses"].clone();
    assert_eq!(items[0]["headers"]["Location"], format!("{us}/me/x"));
    assert_eq!(items[0]["headers"]["operation-location"], format!("{us}/o?a=%2b"));
    assert_eq!(items[1]["headers"]["Location"], "https://files.example/x?t=1");
    assert_eq!(items[2]["body"]["@odata.nextLink"], format!("{us}/me/messages?$skiptoken=X%2744"));
    assert_eq!(items[2]["body"]["text"], format!("see {}/v1.0/me", upstream.origin()));
    assert_eq!(items[3]["body"], "aHR0cA==");

    // And back: what a body binds to is what the upstream knows.
    let bound = json!({"id": "1", "method": "POST", "url": "/groups", "body": {"owners@odata.bind": [format!("{us}/users/1")], "@odata.id": "http://127.0.0.1/v1.0/users/2", "note": us}});
    rig.send(post("/as/alice/v1.0/$batch", batch(&[bound]))).await;
    let sent = members(&upstream.arrived().pop().unwrap())[0]["body"].clone();
    let up = upstream.origin();
    assert_eq!(
        sent,
        json!({"owners@odata.bind": [format!("{up}/v1.0/users/1")], "@odata.id": format!("{up}/v1.0/users/2"), "note": us})
    );
}
