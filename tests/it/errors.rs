//! The table of errors that the proxy makes, row by row: what the client is told, and what Graph and Entra ID saw of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::proxy::Kind;
use bearerd::sandbox::{Effect, Fault, Gate, TokenFault};
use bearerd::store::{Grant, Status, TicketKind};
use http::{Request, Response};
use rusqlite::Connection;
use tokio::net::TcpListener;

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

/// A rig whose time stands still.
fn by_hand() -> Setup {
    Setup { clock: Clock::manual(Timestamp::from_secs(1_800_000_000)), ..Setup::default() }
}

/// A rig whose stored access tokens have all expired.
async fn expired(config: &str) -> Rig {
    let rig = Setup { config: config.to_owned(), ..by_hand() }.start().await;
    rig.clock.advance(Duration::from_secs(7200));
    rig
}

async fn grant(rig: &Rig, alias: &str) -> Grant {
    rig.app.core().store.find(alias).await.expect("the store answers").expect("the account is there")
}

async fn status(rig: &Rig, alias: &str) -> Status {
    grant(rig, alias).await.status
}

fn seconds(answer: &Response<bytes::Bytes>) -> u64 {
    header(answer, "retry-after").expect("a Retry-After").parse().expect("seconds")
}

fn maybe_executed(answer: &Response<bytes::Bytes>) -> bool {
    match header(answer, "bearerd-maybe-executed") {
        None => false,
        Some("1") => true,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_unauthenticated_says_basic_and_nothing_goes_out() {
    let rig = Rig::start().await;
    let bare = |name: &str, value: &str| bare("GET", "/v1.0/me").header(name, value).body(empty()).unwrap();
    let requests: Vec<Request<Body>> = vec![
        crate::harness::bare("GET", "/v1.0/me").body(empty()).unwrap(),
        bare("authorization", &basic("alice", "wrong")),
        bare("authorization", &basic("alice", "")),
        bare("authorization", &basic("alice", &KEY[1..])),
        bare("authorization", &basic("alice", &format!("{KEY} "))),
        bare("authorization", &basic(&"a".repeat(300), "wrong")),
        bare("authorization", "Bearer wrong"),
        bare("authorization", "Bearer"),
        bare("authorization", "Digest username=\"alice\""),
        bare("authorization", KEY),
        bare("x-api-key", "wrong"),
        bare("x-api-key", &key_hash(KEY)),
        bare("cookie", &format!("key={KEY}")),
        bare("bearerd-account", "alice"),
    ];
    for request in requests {
        let shown = format!("{request:?}");
        let answer = rig.send(request).await;
        assert_refused(&answer, 401, "client_unauthenticated");
        let challenge = header(&answer, "www-authenticate").expect(&shown);
        assert!(challenge.starts_with("Basic "), "{challenge}");
        assert!(header(&answer, "bearerd-signin-url").is_none());
    }
    let answer = rig.send_http2(bare("x-api-key", "wrong")).await;
    assert_refused(&answer, 401, "client_unauthenticated");
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_an_error_are_in_its_headers_and_the_clients_own_id_is_echoed() {
    let rig = Rig::start().await;
    let id = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
    let answer = rig.send(bare("GET", "/v1.0/me").header("client-request-id", id).body(empty()).unwrap()).await;
    let inner = assert_refused(&answer, 401, "client_unauthenticated")["error"]["innerError"].clone();
    assert_eq!(inner["client-request-id"], id);
    assert_eq!(inner["request-id"].as_str(), header(&answer, "request-id"));
    assert_ne!(inner["request-id"], id);
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_has_no_body_and_the_same_headers() {
    let rig = Rig::start().await;
    let answer = rig.send(bare("HEAD", "/v1.0/me").body(empty()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (401, Some("client_unauthenticated")));
    assert!(answer.body().is_empty());
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn account_ambiguous_where_selectors_disagree_or_are_missing() {
    let rig = Rig::start().await;
    let as_alice = |path: &str| alice("GET", path);
    let requests = vec![
        as_alice("/as/bob/v1.0/me").body(empty()).unwrap(),
        as_alice("/v1.0/me").header("bearerd-account", "bob").body(empty()).unwrap(),
        as_alice("/as/alice/v1.0/me").header("bearerd-account", "bob").body(empty()).unwrap(),
        as_alice("/v1.0/me").header("bearerd-account", "Alice").body(empty()).unwrap(),
        bare("GET", "/v1.0/me").header("x-api-key", KEY).body(empty()).unwrap(),
        bare("GET", "/v1.0/me").header("authorization", format!("Bearer {KEY}")).body(empty()).unwrap(),
        bare("GET", "/v1.0/me").header("authorization", basic("", KEY)).body(empty()).unwrap(),
    ];
    for request in requests {
        assert_refused(&rig.send(request).await, 400, "account_ambiguous");
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn account_forbidden_tells_nobody_which_accounts_there_are() {
    let rig = Rig::with(&format!(
        r#"clients = [{{ name = "payroll", key_hash = "{}", accounts = ["alice", "nobody"] }}]"#,
        key_hash(KEY)
    ))
    .await;
    let mut answers = Vec::new();
    // There, but not for this client; not there, and not for it; for it, but not there; no name at all.
    for account in ["bob", "carol", "nobody", "a/b", "*", "alice@evil@contoso.com"] {
        let request = bare("GET", "/v1.0/me").header("authorization", basic(account, KEY)).body(empty()).unwrap();
        let answer = rig.send(request).await;
        let mut document = assert_refused(&answer, 403, "account_forbidden");
        for id in ["request-id", "client-request-id", "date"] {
            document["error"]["innerError"][id] = "-".into();
        }
        let mut headers = answer.headers().clone();
        for id in ["request-id", "client-request-id", "date"] {
            headers.remove(id);
        }
        answers.push((account, document, headers));
    }
    for (account, document, headers) in &answers {
        assert_eq!((document, headers), (&answers[0].1, &answers[0].2), "{account}");
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn signin_required_after_a_revocation_offers_a_link_and_asks_nobody_twice() {
    let rig = Rig::start().await;
    assert!(rig.sandbox.entra.revoke_user("alice"));
    let answer = rig.get("/v1.0/me").await;
    let document = assert_refused(&answer, 403, "signin_required");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("50173") && message.contains("sign in again"), "{message}");
    let link = header(&answer, "bearerd-signin-url").expect("a link").to_owned();
    assert!(link.contains("/.bearerd/login?invite="), "{link}");
    assert!(header(&answer, "www-authenticate").is_none(), "a Basic prompt would be of no help");
    assert_eq!(rig.seen_one().status_sent, 401);
    let asked = rig.token_requests();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert!(asked[0].outcome.contains("invalid_grant 50173"), "{asked:#?}");
    assert!(matches!(status(&rig, "alice").await, Status::Reauth(reason) if reason.dead));

    for _ in 0..3 {
        let again = rig.get("/v1.0/me/messages").await;
        assert_refused(&again, 403, "signin_required");
        assert_eq!(header(&again, "bearerd-signin-url"), Some(link.as_str()));
    }
    // The access token may still be good elsewhere, so Graph is asked, once for each; the dead grant is not presented again.
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (4, 1));

    let (_, id) = link.split_once("?invite=").expect("a link");
    let store = &rig.app.core().store;
    let payload = store.read_ticket(TicketKind::Invite, id).await.expect("a store").expect("it is there");
    let payload: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    let owner = store.find("alice").await.expect("a store").expect("an account").key;
    assert_eq!(payload["account"], serde_json::to_value(&owner).expect("JSON"), "bound to the account");

    let page = rig.get(&link[link.find("/.bearerd").unwrap()..]).await;
    assert!(page.status().is_success() || page.status().is_redirection(), "{page:?}");

    assert_eq!(
        rig.send(bare("GET", "/v1.0/me").header("authorization", basic("bob", KEY)).body(empty()).unwrap())
            .await
            .status(),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signin_required_for_interaction_says_which_and_keeps_the_grant() {
    let rig = expired("").await;
    rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50076))));
    let answer = rig.get("/v1.0/me").await;
    let document = assert_refused(&answer, 403, "signin_required");
    assert!(document["error"]["message"].as_str().unwrap().contains("AADSTS50076"), "{document}");
    assert!(header(&answer, "bearerd-signin-url").is_some());
    assert!(rig.seen().is_empty(), "no token, no request");
    assert_eq!(rig.token_requests().len(), 1);
    let grant = grant(&rig, "alice").await;
    assert_eq!((grant.state(), grant.reason().map(|reason| reason.dead)), ("reauth", Some(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_denied_before_anything_goes_out() {
    let rig = Rig::with(&format!(
        r#"clients = [{{ name = "payroll", key_hash = "{}", accounts = ["*"], allow = ["GET /v1.0/me"] }}]"#,
        key_hash(KEY)
    ))
    .await;
    for (method, path) in
        [("GET", "/v1.0/me/messages"), ("POST", "/v1.0/me"), ("GET", "/beta/me"), ("get", "/v1.0/users")]
    {
        let answer = rig.send(alice(method, path).body(empty()).unwrap()).await;
        assert_refused(&answer, 403, "policy_denied");
        assert!(header(&answer, "bearerd-signin-url").is_none());
    }
    rig.assert_nothing_left();
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.seen_one().target, "/v1.0/me");
}

#[tokio::test(flavor = "multi_thread")]
async fn app_credential_invalid_harms_no_grant_and_is_not_hammered() {
    let rig = expired(r#"providers.entra.credentials = [{ secret = "not-the-secret" }]"#).await;
    let refused = rig.get("/v1.0/me").await;
    assert_refused(&refused, 502, "app_credential_invalid");
    assert!(!maybe_executed(&refused), "nothing was sent to Graph");
    let asked = rig.token_requests();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert!(asked[0].outcome.contains("invalid_client"), "{asked:#?}");
    // Of another account: our credential is no better for it.
    for user in ["alice", "bob"] {
        let request = bare("GET", "/v1.0/me").header("authorization", basic(user, KEY)).body(empty()).unwrap();
        assert_refused(&rig.send(request).await, 502, "app_credential_invalid");
    }
    assert_eq!(rig.token_requests().len(), 1, "a wrong secret is not presented again at once");
    rig.clock.advance(Duration::from_secs(60));
    assert_refused(&rig.get("/v1.0/me").await, 502, "app_credential_invalid");
    assert_eq!(rig.token_requests().len(), 2, "it is presented again after a pause");
    assert!(rig.seen().is_empty());
    assert_eq!(status(&rig, "alice").await, Status::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_misconfigured_names_what_the_provider_says() {
    for (code, config) in [(70011, ""), (500_011, ""), (90002, "")] {
        let rig = expired(config).await;
        rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(code))));
        let document = assert_refused(&rig.get("/v1.0/me").await, 502, "provider_misconfigured");
        assert!(document["error"]["message"].as_str().unwrap().contains(&format!("AADSTS{code}")), "{document}");
        assert_eq!(rig.token_requests().len(), 1);
        assert!(rig.seen().is_empty());
        assert_eq!(status(&rig, "alice").await, Status::Active, "no grant is lost by a mistake of ours");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_unavailable_passes_the_providers_wait_on_and_obeys_it() {
    for fault in [Effect::html(503, Some("40")), Effect::html(429, Some("40"))] {
        let rig = expired("").await;
        rig.graph().faults().push(Fault::token(fault.clone()).always());
        let answer = rig.get("/v1.0/me").await;
        assert_refused(&answer, 503, "provider_unavailable");
        assert!((38..=40).contains(&seconds(&answer)), "{fault:?}: {}", seconds(&answer));
        let asked = rig.token_requests().len();
        assert_eq!(asked, 1, "{:#?}", rig.token_requests());
        for _ in 0..3 {
            let again = rig.get("/v1.0/me").await;
            assert_refused(&again, 503, "provider_unavailable");
            assert!((1..=40).contains(&seconds(&again)));
        }
        rig.clock.advance(Duration::from_secs(39));
        assert_refused(&rig.get("/v1.0/me").await, 503, "provider_unavailable");
        assert_eq!(rig.token_requests().len(), asked, "{fault:?}: asked before the time");
        assert!(rig.seen().is_empty());
        rig.graph().faults().clear();
        rig.clock.advance(Duration::from_secs(2));
        assert_eq!(rig.get("/v1.0/me").await.status(), 200, "{fault:?}");
        assert_eq!((rig.token_requests().len(), rig.seen().len()), (asked + 1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_unavailable_where_nobody_listens() {
    let rig = expired("").await;
    rig.sandbox.entra.down().await;
    let answer = rig.get("/v1.0/me").await;
    assert_refused(&answer, 503, "provider_unavailable");
    assert!(seconds(&answer) >= 1);
    rig.assert_nothing_left();
    assert_eq!(status(&rig, "alice").await, Status::Active);
    rig.sandbox.entra.up().expect("the port is free");
    rig.clock.advance(Duration::from_secs(600));
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!((rig.token_requests().len(), rig.seen().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_lives_is_served_while_the_provider_is_down() {
    let rig = by_hand().start().await;
    rig.sandbox.entra.down().await;
    // Old enough to be renewed, and in its last minute.
    for seconds in [3000, 570] {
        rig.clock.advance(Duration::from_secs(seconds));
        assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    }
    assert_eq!(rig.seen().len(), 2);
    rig.clock.advance(Duration::from_secs(60));
    assert_refused(&rig.get("/v1.0/me").await, 503, "provider_unavailable");
    assert_eq!(rig.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_unavailable_spares_who_has_a_token_and_ends_with_the_trouble() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let database = Connection::open(rig.store.path().join("data/store.db")).unwrap();
    database.execute_batch("ALTER TABLE grants RENAME TO taken").unwrap();
    let as_bob = || bare("GET", "/v1.0/me").header("authorization", basic("bob", KEY)).body(empty()).unwrap();
    let answer = rig.send(as_bob()).await;
    let document = assert_refused(&answer, 503, "store_unavailable");
    assert!(seconds(&answer) >= 1);
    assert!(!document.to_string().contains("taken") && !document.to_string().contains("store.db"), "{document}");
    assert_eq!(rig.get("/v1.0/me").await.status(), 200, "Alice's token is in memory");
    assert_eq!(rig.seen().iter().filter(|seen| seen.user.as_deref() == Some("bob")).count(), 0);
    assert_eq!(rig.seen().len(), 2);
    database.execute_batch("ALTER TABLE taken RENAME TO grants").unwrap();
    assert_eq!(rig.send(as_bob()).await.status(), 200);
    assert!(rig.token_requests().is_empty());
}

/// T601: a record that was tampered with is nobody's token.
#[tokio::test(flavor = "multi_thread")]
async fn internal_error_for_a_damaged_record_and_no_token_is_used() {
    let rig = Rig::start().await;
    let database = Connection::open(rig.store.path().join("data/store.db")).unwrap();
    // Bob's token in the place of Alice's.
    database
        .execute_batch(
            "UPDATE access SET token = (SELECT token FROM access WHERE grant_id = 2) WHERE grant_id = 1;
             UPDATE grants SET rt = (SELECT rt FROM grants WHERE id = 2) WHERE id = 1;",
        )
        .unwrap();
    let document = assert_refused(&rig.get("/v1.0/me").await, 500, "internal_error");
    assert!(!document.to_string().contains("seal"), "{document}");
    rig.assert_nothing_left();
    let bob = bare("GET", "/v1.0/me").header("authorization", basic("bob", KEY)).body(empty()).unwrap();
    assert_eq!(rig.send(bob).await.status(), 200, "one bad record is nobody else's trouble");
    assert_eq!(rig.seen_one().user.as_deref(), Some("bob"));
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_unreachable_at_a_closed_port_and_nothing_can_have_been_done() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let rig = Rig::before(&format!("http://{closed}"), "").await;
    for request in [get("/v1.0/me"), post("/v1.0/me/sendMail", "{}")] {
        let answer = rig.send(request).await;
        assert_refused(&answer, 502, "upstream_unreachable");
        assert!(!maybe_executed(&answer));
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_unreachable_for_noise_and_a_post_may_have_been_done() {
    for noise in ["hello\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 99999 X\r\n\r\n", ""] {
        let upstream = RawUpstream::start(move |_, _| Play::SayAndClose(noise.as_bytes().to_vec())).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        let answer = rig.send(post("/v1.0/me/sendMail", "{}")).await;
        assert_refused(&answer, 502, "upstream_unreachable");
        assert!(maybe_executed(&answer), "{noise:?}");
        assert_eq!(upstream.arrived().len(), 1, "{noise:?}: a POST was sent twice");
        let answer = rig.get("/v1.0/me").await;
        assert_refused(&answer, 502, "upstream_unreachable");
        assert!(!maybe_executed(&answer), "{noise:?}");
        assert_eq!(upstream.arrived().len(), 2, "{noise:?}");
        assert!(rig.token_requests().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_timeout_and_a_post_may_have_been_done() {
    let upstream = RawUpstream::start(|_, _| Play::Silence).await;
    let rig = Rig::before(&upstream.origin(), r#"upstreams.graph.timeout = "300ms""#).await;
    let answer = rig.send(post("/v1.0/me/sendMail", "{}")).await;
    assert_refused(&answer, 504, "upstream_timeout");
    assert!(maybe_executed(&answer));
    let answer = rig.get("/v1.0/me").await;
    assert_refused(&answer, 504, "upstream_timeout");
    assert!(!maybe_executed(&answer));
    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), 2, "each was sent once: {arrived:#?}");
    assert_ne!(arrived[0].connection, arrived[1].connection, "a connection in doubt is not used again");
    assert!(rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_by_rate_says_when_to_come_back() {
    let client = format!(
        r#"clients = [{{ name = "payroll", key_hash = "{}", accounts = ["*"], limits = {{ requests_per_second = 0.5 }} }}]"#,
        key_hash(KEY)
    );
    let rig = Setup { config: client, ..by_hand() }.start().await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let answer = rig.get("/v1.0/me").await;
    assert_refused(&answer, 429, "throttled");
    assert_eq!(seconds(&answer), 2);
    assert_eq!(rig.seen().len(), 1);
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.seen().len(), 2);
}

/// One request is held at Graph; `config` allows no second one.
async fn one_at_a_time(config: &str, status: u16, code: &str) {
    let rig = Rig::with(config).await;
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::graph("/v1.0/me", Effect::Hold(gate.clone())));
    let mut held = rig.http1().await;
    let first = whole(held.send_request(get("/v1.0/me")));
    let second = async {
        gate.arrived(1).await;
        let answer = rig.get("/v1.0/users").await;
        gate.open();
        answer
    };
    let (first, second) = tokio::join!(first, second);
    assert_refused(&second, status, code);
    assert!(seconds(&second) >= 1);
    assert_eq!(first.status(), 200);
    assert_eq!(rig.seen_one().target, "/v1.0/me");
    assert_eq!(rig.get("/v1.0/users").await.status(), 200, "the place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_by_concurrency_and_free_again_afterwards() {
    let client = format!(
        r#"clients = [{{ name = "payroll", key_hash = "{}", accounts = ["*"], limits = {{ concurrent = 1 }} }}]"#,
        key_hash(KEY)
    );
    one_at_a_time(&client, 429, "throttled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overloaded_past_the_limit_of_all_clients() {
    one_at_a_time("server.limits.requests = 1", 503, "overloaded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_too_large_for_the_limit_and_for_the_library() {
    let rig = Rig::with("server.limits.header_bytes = 8192").await;
    let fits = alice("GET", "/v1.0/me").header("x-padding", "a".repeat(7500)).body(empty()).unwrap();
    assert_eq!(rig.send(fits).await.status(), 200);
    rig.graph().clear();
    let large = || alice("GET", "/v1.0/me").header("x-padding", "a".repeat(9000)).body(empty()).unwrap();
    assert_refused(&rig.send(large()).await, 431, "headers_too_large");
    // Answered by the HTTP library, which knows no `Bearerd-Error`.
    let many = (0..101).map(|number| format!("X-{number}: 1")).collect::<Vec<_>>().join("\r\n");
    let raw = rig.exchange(format!("GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\n{many}\r\n\r\n")).await;
    assert!(raw.starts_with(b"HTTP/1.1 431 "), "{}", text(&raw));
    let raw =
        rig.exchange(format!("GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "a".repeat(200_000))).await;
    assert!(raw.starts_with(b"HTTP/1.1 431 "), "{}", text(&raw));
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn uri_too_long_and_a_long_next_link_is_not() {
    let rig = Rig::start().await;
    let path = format!("/v1.0/echo?$skiptoken={}", "a".repeat(30_000));
    assert_eq!(rig.get(&path).await.status(), 200);
    assert_eq!(rig.seen_one().target, path);
    rig.graph().clear();
    for length in [33_000, 60_000] {
        let answer = rig.get(&format!("/v1.0/me?x={}", "a".repeat(length))).await;
        assert_refused(&answer, 414, "uri_too_long");
    }
    let raw = rig.exchange(format!("GET /v1.0/me?{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "a".repeat(70_000))).await;
    assert!(raw.starts_with(b"HTTP/1.1 414 "), "{}", text(&raw));
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn body_too_large_by_its_head_or_on_the_way() {
    let rig = Rig::with("server.limits.body_bytes = 1000").await;
    assert_eq!(rig.send(post("/v1.0/echo", vec![b'a'; 1000])).await.status(), 200);
    assert_eq!(rig.seen_one().body_len, 1000);
    rig.graph().clear();
    assert_refused(&rig.send(post("/v1.0/echo", vec![b'a'; 1001])).await, 413, "body_too_large");
    rig.assert_nothing_left();

    let head = format!(
        "POST /v1.0/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        basic("alice", KEY)
    );
    let mut wire = rig.wire().await;
    wire.send(format!("{head}258\r\n{}\r\n258\r\n{}\r\n0\r\n\r\n", "a".repeat(600), "b".repeat(600))).await;
    assert_refused(&wire.answer().await.response(), 413, "body_too_large");
    assert!(rig.seen().iter().all(|seen| !seen.body_complete), "Graph took it for whole: {:#?}", rig.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn not_found_only_for_who_may_ask() {
    let rig = Rig::start().await;
    for path in
        ["/", "/healthz", "/livez", "/metrics", "/v2.0/me", "/V1.0/me", "/v1.0x/me", "/as/alice", "/.well-known/x"]
    {
        assert_refused(&rig.get(path).await, 404, "not_found");
        let nobody = bare("GET", path).body(empty()).unwrap();
        assert_refused(&rig.send(nobody).await, 401, "client_unauthenticated");
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_graph_is_graphs_own() {
    let rig = Rig::start().await;
    for status in [400, 403, 404, 409, 500, 502, 507] {
        rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, None)));
        let answer = rig.get("/v1.0/me").await;
        assert_eq!(answer.status().as_u16(), status);
        assert!(header(&answer, "bearerd-error").is_none() && header(&answer, "proxy-status").is_none(), "{answer:?}");
        assert!(!json(&answer)["error"]["code"].as_str().unwrap().starts_with("bearerd."));
    }
    assert_eq!(rig.seen().len(), 7, "none was repeated");
    assert!(rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn host_not_allowed_and_cross_site_refused_before_anybody_is_asked_who_they_are() {
    let rig = Rig::start().await;
    let host = |host: &str| Request::builder().uri("/v1.0/me").header("host", host).body(empty()).unwrap();
    assert_refused(&rig.send(host("evil.example")).await, 421, "host_not_allowed");
    for (name, value) in
        [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")]
    {
        let request = alice("POST", "/v1.0/me/sendMail").header(name, value).body(empty()).unwrap();
        assert_refused(&rig.send(request).await, 403, "cross_site_refused");
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_request_says_what_is_wrong_with_it() {
    let rig = Rig::start().await;
    for (request, says) in [
        (alice("TRACE", "/v1.0/me"), "TRACE"),
        (alice("GET", "/v1.0/me/../users"), "two ways"),
        (
            alice("GET", "/v1.0/me").header("bearerd-account", "alice").header("bearerd-account", "alice"),
            "occurs twice",
        ),
        (alice("GET", "/v1.0/me").header("bearerd_account", "alice"), "bearerd_account"),
        (bare("GET", "/v1.0/me").header("authorization", "Basic !"), "Basic"),
        (alice("POST", "/v1.0/me").header("expect", "tea"), "100-continue"),
    ] {
        let document = assert_refused(&rig.send(request.body(empty()).unwrap()).await, 400, "bad_request");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
    let mut wire = rig.wire().await;
    wire.send("GET /v1.0/me HTTP/1.1\r\n\r\n").await;
    assert_refused(&wire.answer().await.response(), 400, "bad_request");
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_401_is_graphs_own_with_one_header_more() {
    let rig = Rig::start().await;
    rig.graph().faults().push(Fault::graph("/", Effect::graph_error(401, None)).always());
    let answer = rig.get("/v1.0/me").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (401, Some("upstream_401")));
    assert!(header(&answer, "proxy-status").is_none(), "{answer:?}");
    assert!(!json(&answer)["error"]["code"].as_str().unwrap().starts_with("bearerd."));
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (2, 1), "one refresh, one replay");
}

/// What `docs/errors` promises.
#[test]
fn every_code_has_its_page_and_the_page_has_its_status() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors");
    let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let index = read("README.md");
    let readme = fs::read_to_string(pages.join("../../README.md")).unwrap();
    let mut expected = BTreeSet::from(["README.md".to_owned(), "upstream_401.md".to_owned()]);
    for kind in Kind::ALL {
        let (code, status) = (kind.name(), kind.status());
        let page = read(&format!("{code}.md"));
        let line = format!(
            "**{} {}** · `Bearerd-Error: {code}` · `Proxy-Status: bearerd; error={}; details=\"{code}\"`",
            status.as_str(),
            status.canonical_reason().unwrap(),
            kind.proxy_error()
        );
        let mut lines = page.lines().filter(|line| !line.is_empty());
        assert_eq!((lines.next(), lines.next()), (Some(&*format!("# {code}")), Some(&*line)));
        for part in ["**What happened.**", "**What the application's owner does.**", "**What the operator does.**"] {
            assert_eq!(page.matches(part).count(), 1, "{code}: {part}");
        }
        assert!(index.contains(&format!("| [`{code}`]({code}.md) | {} | ", status.as_str())), "{code} in the index");
        assert!(readme.contains(&format!("(docs/errors/{code}.md)")), "{code} in the README");
        assert!(expected.insert(format!("{code}.md")), "{code} twice");
    }
    assert!(index.contains("| [`upstream_401`](upstream_401.md) | 401 | "));
    let found = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
}
