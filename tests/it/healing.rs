//! What heals by itself and what must not be tried again, counted at Graph and at the token endpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{Denial, Effect, Fault, Gate, Seen};
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::Response;

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

fn by_hand() -> Setup {
    Setup { clock: Clock::manual(Timestamp::from_secs(1_800_000_000)), ..Setup::default() }
}

fn is_upstream_401(answer: &Response<Bytes>) -> bool {
    answer.status() == 401 && header(answer, "bearerd-error") == Some("upstream_401")
}

/// What Graph saw of each target.
fn by_target(seen: Vec<Seen>) -> HashMap<String, Vec<Seen>> {
    let mut map: HashMap<String, Vec<Seen>> = HashMap::new();
    for seen in seen {
        map.entry(seen.target.clone()).or_default().push(seen);
    }
    map
}

const POSTS: usize = 200;

fn body_of(number: usize) -> Vec<u8> {
    let mut body: Vec<u8> =
        (0..64 * 1024_usize).map(|at| u8::try_from((at * 31 + number * 7) % 251).unwrap()).collect();
    body[..8].copy_from_slice(&(number as u64).to_be_bytes());
    body
}

fn assert_healed(rig: &Rig, answers: &[Response<Bytes>]) {
    assert_eq!(answers.len(), POSTS);
    for answer in answers {
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(header(answer, "bearerd-error").is_none());
    }
    let asked = rig.token_requests();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert_eq!((asked[0].grant_type.as_str(), asked[0].outcome.as_str()), ("refresh_token", "200"));
    assert_eq!(asked[0].user.as_deref(), Some("alice"));
    let seen = by_target(rig.seen());
    assert_eq!(seen.len(), POSTS);
    for number in 0..POSTS {
        let attempts = &seen[&format!("/v1.0/echo?number={number}")];
        assert!(attempts.len() <= 2, "{number}: {} attempts", attempts.len());
        let digest = sha256(&body_of(number));
        for attempt in attempts {
            assert_eq!((attempt.method.as_str(), attempt.body_len, attempt.body_complete), ("POST", 64 * 1024, true));
            assert_eq!(attempt.body_sha256, digest, "{number}: the body was changed");
        }
        let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.status_sent).collect();
        assert!(statuses == [200] || statuses == [401, 200], "{number}: {statuses:?}");
        let answer = json(&answers[number]);
        assert_eq!(
            (&answer["body_sha256"], &answer["target"]),
            (&digest.into(), &format!("/v1.0/echo?number={number}").into())
        );
    }
}

/// The promise of the product, as it comes: two hundred clients on two workers.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_posts_after_a_revocation_heal_with_one_refresh() {
    let rig = Arc::new(Rig::with("server.workers = 2").await);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    rig.graph().clear();
    assert!(rig.sandbox.entra.revoke_access_tokens("alice"));
    let posts: Vec<_> = (0..POSTS)
        .map(|number| {
            let rig = Arc::clone(&rig);
            spawn_here(async move { rig.send(post(&format!("/v1.0/echo?number={number}"), body_of(number))).await })
        })
        .collect();
    let mut answers = Vec::new();
    for post in posts {
        answers.push(within(post).await.unwrap());
    }
    assert_healed(&rig, &answers);
    let first = rig.seen();
    assert!(first.iter().any(|seen| seen.status_sent == 401), "nothing was refused: the test proved nothing");
}

/// The same with every one of them refused before the first refresh: as bad as it can get.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_posts_that_were_all_refused_heal_with_one_refresh() {
    let rig = Arc::new(Rig::with("server.workers = 2").await);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    rig.graph().clear();
    assert!(rig.sandbox.entra.revoke_access_tokens("alice"));
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::graph("/v1.0/echo", Effect::HoldAnswer(gate.clone())).times(200));
    // Half of them over two HTTP/2 connections.
    let http2 = [rig.http2().await, rig.http2().await];
    let posts: Vec<_> = (0..POSTS)
        .map(|number| {
            let rig = Arc::clone(&rig);
            let request = post(&format!("/v1.0/echo?number={number}"), body_of(number));
            let mut http2 = http2[number / 2 % 2].clone();
            spawn_here(async move {
                if number % 2 == 0 {
                    whole(http2.send_request(for_http2(request, rig.data))).await
                } else {
                    rig.send(request).await
                }
            })
        })
        .collect();
    within(gate.arrived(POSTS)).await;
    assert!(rig.token_requests().is_empty());
    gate.open();
    let mut answers = Vec::new();
    for post in posts {
        answers.push(within(post).await.unwrap());
    }
    assert_healed(&rig, &answers);
    assert_eq!(rig.seen().len(), 2 * POSTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_heals_and_the_client_notices_nothing() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        let rig = Rig::start().await;
        rig.sandbox.entra.revoke_access_tokens("alice");
        let answer = rig.send(alice(method, "/v1.0/echo").body(full("{}")).unwrap()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (200, None), "{method}");
        let seen = rig.seen();
        assert_eq!(seen.iter().map(|seen| seen.status_sent).collect::<Vec<_>>(), [401, 200], "{method}");
        assert_eq!(seen[0].body_sha256, seen[1].body_sha256);
        assert_eq!(seen[0].header("client-request-id"), seen[1].header("client-request-id"), "one request, one id");
        assert_ne!(seen[0].header("authorization"), seen[1].header("authorization"));
        assert_eq!(rig.token_requests().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_heals_too() {
    let rig = Rig::start().await;
    rig.sandbox.entra.revoke_access_tokens("alice");
    let mut wire = rig.wire().await;
    wire.send(format!(
        "PUT /v1.0/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        basic("alice", KEY)
    ))
    .await;
    assert_eq!(wire.answer().await.status(), 200);
    let seen = rig.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.body_sha256 == sha256(b"hello world") && seen.body_complete));
}

/// A 401 that comes while the body is still on its way, to a body that can be kept and to one that can't.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_body_was_read_heals_with_the_whole_body() {
    // More than the sockets in between take in.
    let body: Vec<u8> = (0..24 << 20).map(|at: u32| (at % 253) as u8).collect();
    for (config, early) in [
        ("server.limits.replay_bytes = 33554432", true),
        ("server.limits.replay_bytes = 33554432", false),
        ("server.limits.replay_bytes = 1000", true),
    ] {
        let upstream = if early {
            RawUpstream::early(REFUSAL, |_, _| Play::ok()).await
        } else {
            RawUpstream::start(|_, number| if number == 0 { Play::say(REFUSAL) } else { Play::ok() }).await
        };
        let rig = Rig::before(&upstream.origin(), config).await;
        let answer = rig.send(post("/v1.0/me/x", body.clone())).await;
        if config.ends_with("1000") {
            assert!(is_upstream_401(&answer), "{answer:?}");
            assert_eq!(rig.get("/v1.0/me").await.status(), 200);
            // It is renewed behind the answer.
            within(async {
                while rig.token_requests().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        } else {
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert!(upstream.arrived().pop().unwrap().message.body == body, "the body was changed");
        }
        assert_eq!(rig.token_requests().len(), 1);
    }
}

const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n\r\n{}";

/// A body that outgrows the cap while its token is renewed: what was sent in vain and not kept must not be missing from the replay.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_grows_during_a_refresh_is_replayed_whole_or_not_at_all() {
    for refusal in [REFUSAL, "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"] {
        let upstream = RawUpstream::early(refusal, |_, _| Play::ok()).await;
        let rig = Rig::before(&upstream.origin(), "server.limits.replay_bytes = 1000000").await;
        let gate = Gate::shut();
        rig.graph().faults().push(Fault::token(Effect::Hold(gate.clone())));
        let (mut wire, address) = (rig.wire().await, rig.data);
        wire.send(format!(
            "POST /v1.0/me/x HTTP/1.1\r\nHost: {address}\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            basic("alice", KEY)
        ))
        .await;
        let piece = |letter: char| format!("186a0\r\n{}\r\n", String::from(letter).repeat(100_000));
        wire.send(piece('a')).await;
        within(gate.arrived(1)).await;
        let rest = spawn_here(async move {
            for letter in 'b'..='z' {
                wire.send(piece(letter)).await;
            }
            wire.send("0\r\n\r\n").await;
            wire.answer().await
        });
        // Meanwhile the worker has every chance to read on.
        for _ in 0..100 {
            assert_eq!(rig.get("/nowhere").await.status(), 404);
        }
        gate.open();
        let answer = within(rest).await.unwrap();
        let whole: String = ('a'..='z').map(|letter| String::from(letter).repeat(100_000)).collect();
        let posts: Vec<_> =
            upstream.arrived().into_iter().filter(|arrived| arrived.message.start.starts_with("POST")).collect();
        if answer.status() == 200 {
            assert_eq!(posts.len(), 1);
            assert_eq!(posts[0].message.body.len(), whole.len());
            assert!(posts[0].message.body == whole.as_bytes(), "the body was changed");
        } else {
            assert!(is_upstream_401(&answer.response()), "{answer:?}");
            assert!(posts.is_empty(), "a part was taken for the whole");
        }
    }
}

/// T509: Graph refuses whatever we send. Two attempts and one refresh, and then no refresh for a token of seconds ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_401_on_a_young_token_goes_through() {
    let rig = by_hand().start().await;
    rig.graph().faults().push(Fault::graph("/v1.0/echo", Effect::Denied(Denial::Expired)).always());
    let answer = rig.send(post("/v1.0/echo", "x")).await;
    assert!(is_upstream_401(&answer), "{answer:?}");
    assert_eq!(json(&answer)["error"]["code"], "InvalidAuthenticationToken", "Graph's own words");
    assert!(header(&answer, "www-authenticate").is_some_and(|value| value.starts_with("Bearer ")), "{answer:?}");
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (2, 1));
    for count in 3..8 {
        rig.clock.advance(Duration::from_secs(1));
        assert!(is_upstream_401(&rig.send(post("/v1.0/echo", "x")).await));
        assert_eq!((rig.seen().len(), rig.token_requests().len()), (count, 1), "no second refresh within ten seconds");
    }
    rig.clock.advance(Duration::from_secs(10));
    assert!(is_upstream_401(&rig.send(post("/v1.0/echo", "x")).await));
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (9, 2));
    rig.graph().faults().clear();
    assert_eq!(rig.send(post("/v1.0/echo", "x")).await.status(), 200);
    assert_eq!(rig.token_requests().len(), 2);
}

/// A17: challenges of every kind: at most one refresh, no loop, and Graph's answer as it was.
#[tokio::test(flavor = "multi_thread")]
async fn odd_challenges_cost_one_refresh_and_go_through() {
    let long = format!("Bearer error=\"insufficient_claims\", claims=\"{}\"", "QUFB".repeat(8 << 10));
    for challenge in [
        "Bearer",
        "Bearer error=\"insufficient_claims\"",
        "Bearer error=\"insufficient_claims\", claims=\"!!!\"",
        "Bearer error=\"insufficient_claims\", claims=\"bm8ganNvbg==\"",
        "Bearer error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnt9fQ==\"",
        "Bearer a=\"b\", Bearer error=\"insufficient_claims\", claims=\"eyJ9\"",
        "Bearer claims=\"",
        "Negotiate",
        "",
        long.as_str(),
    ] {
        let rig = by_hand().start().await;
        let fault = Effect::Http {
            status: 401,
            headers: vec![("WWW-Authenticate".to_owned(), challenge.to_owned())],
            body: "as it was".to_owned(),
        };
        rig.graph().faults().push(Fault::graph("/", fault).always());
        let answer = rig.get("/v1.0/me").await;
        assert!(is_upstream_401(&answer), "{challenge:.80}: {answer:?}");
        assert_eq!(
            (header(&answer, "www-authenticate"), answer.body().as_ref()),
            (Some(challenge), b"as it was".as_slice())
        );
        assert_eq!((rig.seen().len(), rig.token_requests().len()), (2, 1), "{challenge:.80}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_past_the_cap_is_not_replayed_and_the_next_request_has_a_new_token() {
    let rig = Rig::with("server.limits.replay_bytes = 10000").await;
    rig.sandbox.entra.revoke_access_tokens("alice");
    let answer = rig.send(post("/v1.0/echo", vec![1; 10_001])).await;
    assert!(is_upstream_401(&answer), "{answer:?}");
    assert_eq!(json(&answer)["error"]["code"], "InvalidAuthenticationToken");
    let sent = rig.seen_one();
    assert_eq!((sent.body_len, sent.status_sent), (10_001, 401), "it went out once, and whole");
    let answer = rig.send(post("/v1.0/echo", vec![2; 10_000])).await;
    assert_eq!(answer.status(), 200, "at the cap it is kept");
    assert_eq!(rig.token_requests().len(), 1, "the refresh for the one served the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_all_replays_is_shared_and_given_back() {
    let rig = Setup { config: "server.limits.replay_total_bytes = 100000".to_owned(), ..by_hand() }.start().await;
    let big = || post("/v1.0/echo", vec![1; 80_000]);
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::graph("/v1.0/echo?held", Effect::Hold(gate.clone())));
    rig.graph().faults().push(Fault::graph("/v1.0/echo/held", Effect::Hold(gate.clone())));
    let mut client = rig.http1().await;
    let held = spawn_here(async move { whole(client.send_request(post("/v1.0/echo/held", vec![1; 80_000]))).await });
    within(gate.arrived(1)).await;

    rig.sandbox.entra.revoke_access_tokens("alice");
    assert!(is_upstream_401(&rig.send(big()).await), "no room to keep it");
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.token_requests().len(), 1);

    rig.clock.advance(Duration::from_secs(60));
    rig.sandbox.entra.revoke_access_tokens("alice");
    assert_eq!(rig.send(post("/v1.0/echo", vec![1; 10_000])).await.status(), 200, "what fits is kept");
    assert_eq!(rig.token_requests().len(), 2);

    gate.open();
    assert_eq!(within(held).await.unwrap().status(), 200);
    rig.clock.advance(Duration::from_secs(60));
    rig.sandbox.entra.revoke_access_tokens("alice");
    assert_eq!(rig.send(big()).await.status(), 200, "the room was given back");
    assert_eq!(rig.token_requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bearerd_retry_off_passes_everything_through_untouched() {
    let rig = Rig::start().await;
    let ask = || alice("GET", "/v1.0/me").header("bearerd-retry", "off").body(empty()).unwrap();
    for status in [429, 503] {
        rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, Some("0"))));
        let answer = rig.send(ask()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (status, Some("0")));
        assert!(header(&answer, "bearerd-error").is_none());
    }
    rig.sandbox.entra.revoke_access_tokens("alice");
    let answer = rig.send(ask()).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (401, None), "{answer:?}");
    assert_eq!(rig.seen().len(), 3);
    assert!(rig.seen().iter().all(|seen| seen.header("bearerd-retry").is_empty()));
    assert!(rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_waits_as_long_as_graph_asks_and_no_longer_than_reasonable() {
    for status in [429, 503] {
        for method in ["GET", "HEAD"] {
            let rig = Rig::start().await;
            let ask = || alice(method, "/v1.0/me").body(empty()).unwrap();
            rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, Some("0"))).times(2));
            assert_eq!(rig.send(ask()).await.status(), 200);
            let sent: Vec<_> = rig.seen().iter().map(|seen| seen.status_sent).collect();
            assert_eq!(sent, [status, status, 200]);
            rig.graph().clear();

            rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, Some("0"))).always());
            let answer = rig.send(ask()).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (status, Some("0")));
            assert!(header(&answer, "bearerd-error").is_none(), "it is Graph's own");
            assert_eq!(rig.seen().len(), 4);
            rig.graph().clear();
            rig.graph().faults().clear();

            rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, Some("120"))));
            let answer = rig.send(ask()).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (status, Some("120")));
            assert_eq!(rig.seen().len(), 1, "the client is told to wait itself");
            assert!(rig.token_requests().is_empty(), "a token is not to blame");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_that_graph_asks_for_is_kept() {
    let rig = Rig::start().await;
    rig.graph().faults().push(Fault::graph("/", Effect::graph_error(429, Some("1"))));
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let seen = rig.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at.since(seen[0].at) >= Duration::from_millis(990), "{:?}", seen[1].at.since(seen[0].at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_post_goes_through_since_nobody_knows_what_was_done() {
    let rig = Rig::start().await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for status in [429, 503] {
            rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, Some("0"))));
            let answer = rig.send(alice(method, "/v1.0/echo").body(full("x")).unwrap()).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (status, Some("0")));
            assert!(header(&answer, "bearerd-error").is_none() && header(&answer, "bearerd-maybe-executed").is_none());
            assert_eq!(rig.seen_one().method, method);
            rig.graph().clear();
        }
    }
}

/// A connection that dies after the request was written: a POST may have been done.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_on_a_connection_that_dies_is_not_repeated_and_a_get_is() {
    let rig = Rig::start().await;
    for end in [Effect::DropAfter, Effect::DropBefore] {
        for method in ["POST", "PATCH", "PUT", "DELETE"] {
            // The connection of the pool is one that was used before.
            assert_eq!(rig.get("/v1.0/me").await.status(), 200);
            rig.graph().clear();
            rig.graph().faults().push(Fault::graph("/v1.0/echo", end.clone()));
            let answer = rig.send(alice(method, "/v1.0/echo").body(full("x")).unwrap()).await;
            assert_refused(&answer, 502, "upstream_unreachable");
            assert_eq!(header(&answer, "bearerd-maybe-executed"), Some("1"), "{method}");
            assert_eq!(rig.seen_one().method, method);
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(rig.get("/v1.0/me").await.status(), 200);
            rig.graph().clear();
            rig.graph().faults().push(Fault::graph("/v1.0/echo", end.clone()));
            assert_eq!(rig.send(alice(method, "/v1.0/echo").body(empty()).unwrap()).await.status(), 200, "{method}");
            let seen = rig.seen();
            assert_eq!(seen.len(), 2);
            assert_ne!(seen[0].peer_port, seen[1].peer_port);
            // Once, and no more.
            rig.graph().clear();
            rig.graph().faults().push(Fault::graph("/v1.0/echo", end.clone()).always());
            let answer = rig.send(alice(method, "/v1.0/echo").body(empty()).unwrap()).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-maybe-executed")), (502, None));
            assert!(rig.seen().len() <= 2, "{:#?}", rig.seen());
            rig.graph().faults().clear();
        }
    }
    assert!(rig.token_requests().is_empty());
}

/// A connection that the upstream closed while it was idle: nothing was written on it, so anything may go elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_never_fails_for_a_stale_connection() {
    let upstream =
        RawUpstream::start(|_, _| Play::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut client = rig.http1().await;
    for number in 0..50 {
        let answer = whole(client.send_request(post("/v1.0/me/sendMail", format!("{number}")))).await;
        assert_eq!(answer.status(), 200, "{number}: {answer:?}");
        upstream.until_idle().await;
        within(client.ready()).await.unwrap();
    }
    let bodies: Vec<_> = upstream.arrived().into_iter().map(|arrived| text(arrived.message.body)).collect();
    assert_eq!(bodies, (0..50).map(|number| number.to_string()).collect::<Vec<_>>(), "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_pooled() {
    let rig = Rig::start().await;
    let mut client = rig.http1().await;
    for _ in 0..20 {
        assert_eq!(whole(client.send_request(post("/v1.0/echo", "x"))).await.status(), 200);
        within(client.ready()).await.unwrap();
    }
    let mut ports: Vec<_> = rig.seen().iter().map(|seen| seen.peer_port).collect();
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
}

/// T416's little sister: who asked may go; the rotation goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_cancel_the_refresh() {
    let rig = by_hand().start().await;
    rig.clock.advance(Duration::from_secs(7200));
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::token(Effect::Hold(gate.clone())));
    for _ in 0..3 {
        let mut wire = rig.wire().await;
        wire.send(format!(
            "GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n\r\n",
            basic("alice", KEY)
        ))
        .await;
        within(gate.arrived(1)).await;
        drop(wire);
    }
    gate.open();
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let asked = rig.token_requests();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert_eq!((asked[0].presented_count, asked[0].outcome.as_str()), (1, "200"));
    assert!(rig.seen().len() <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_the_work_at_the_upstream() {
    let upstream = RawUpstream::start(|_, _| Play::Silence).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut wire = rig.wire().await;
    wire.send(format!("GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY)))
        .await;
    upstream.until(1).await;
    drop(wire);
    upstream.until_idle().await;
    let mut http2 = rig.http2().await;
    let request = http2.send_request(for_http2(get("/v1.0/me"), rig.data));
    let hang_up = async {
        upstream.until(2).await;
    };
    tokio::select! {
        _ = request => panic!("nobody answered"),
        () = hang_up => {}
    }
    upstream.until_idle().await;
    assert_eq!(upstream.arrived().len(), 2);
}

/// A fresh token for whoever waits, however many wait: T509.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_for_an_expired_token_make_one_refresh() {
    let rig = Arc::new(by_hand().start().await);
    rig.clock.advance(Duration::from_secs(7200));
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::token(Effect::Hold(gate.clone())));
    let asks: Vec<_> = (0..100)
        .map(|_| {
            let rig = Arc::clone(&rig);
            spawn_here(async move { rig.get("/v1.0/me").await.status().as_u16() })
        })
        .collect();
    within(gate.arrived(1)).await;
    gate.open();
    for ask in asks {
        assert_eq!(within(ask).await.unwrap(), 200);
    }
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (100, 1));
    assert!(rig.seen().iter().all(|seen| seen.status_sent == 200), "nobody was sent with an expired token");
}

/// A 401 or a 429 whose body never ends is no reason to wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_whose_body_stalls_is_given_up() {
    let short = "upstreams.graph.idle_timeout = \"300ms\"";
    for (stalled, config) in [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 1000\r\n\r\nhalf", short),
        ("HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", short),
        ("HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", ""),
        ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 1000\r\n\r\nhalf", short),
    ] {
        let upstream =
            RawUpstream::start(move |_, number| if number == 0 { Play::say(stalled) } else { Play::ok() }).await;
        let rig = Rig::before(&upstream.origin(), config).await;
        let answer = rig.get("/v1.0/me").await;
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"ok".as_slice()));
        let arrived = upstream.arrived();
        assert_eq!(arrived.len(), 2);
        assert_ne!(arrived[0].connection, arrived[1].connection, "a connection with half an answer is not used again");
    }
}

/// A 401 that breaks off and can't be healed must not look whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_breaks_off_is_never_passed_on_as_whole() {
    for cut in [
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 1000\r\n\r\nhalf",
        "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let upstream = RawUpstream::start(move |_, _| Play::SayAndClose(cut.as_bytes().to_vec())).await;
        let rig = Setup { upstream: Some(upstream.origin()), ..by_hand() }.start().await;
        // The first is healed in vain, the second is too young to be healed.
        for attempts in [2, 3] {
            let mut wire = rig.wire().await;
            wire.send(format!(
                "GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n\r\n",
                basic("alice", KEY)
            ))
            .await;
            let raw = wire.rest().await;
            let whole = Message::parse(&raw, false);
            assert!(whole.is_none_or(|(answer, _)| answer.status() == 502), "{}", text(&raw));
            assert_eq!(upstream.arrived().len(), attempts);
            assert_eq!(rig.token_requests().len(), 1);
        }
    }
}

/// Graph refuses the token and the provider gives no other: none that is valid is left, and the client is told when to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_401_that_the_provider_can_not_heal_now_says_when() {
    let rig = by_hand().start().await;
    rig.sandbox.entra.revoke_access_tokens("alice");
    rig.graph().faults().push(Fault::token(Effect::html(503, Some("30"))).always());
    for count in 1..=2 {
        let answer = rig.send(post("/v1.0/echo", "x")).await;
        assert_refused(&answer, 503, "provider_unavailable");
        assert!(header(&answer, "retry-after").is_some_and(|wait| (28..=30).contains(&wait.parse().unwrap())));
        assert!(header(&answer, "bearerd-maybe-executed").is_none(), "Graph refused it unread");
        assert_eq!((rig.seen().len(), rig.token_requests().len()), (count, 1), "the provider is left in peace");
    }
    rig.graph().faults().clear();
    rig.clock.advance(Duration::from_secs(31));
    assert_eq!(rig.send(post("/v1.0/echo", "x")).await.status(), 200);
    assert_eq!(rig.token_requests().len(), 2);
}
