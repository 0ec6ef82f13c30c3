//! Claims challenges (continuous access evaluation, step-up) through the whole proxy: what the token endpoint is asked with, what
//! Graph sees of each request, and what becomes of the account where a person is needed.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bearerd::claims::Claims;
use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{APP, Assertion, Denial, Effect, Fault, Gate};
use bearerd::store::Grant;
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use crate::harness::*;

mod sign_in;

const NBF: &str = r#"{"access_token":{"nbf":{"essential":true, "value":"1800000000"}}}"#;
/// An authentication context: the simulated provider wants to see the person for it. In base64 it shows which alphabet that is.
const ACRS: &str = r#"{"access_token":{"acrs":{"essential":true,"value":"c1?>~"}}}"#;
const POLIDS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["?>~?>~"]}}}"#;
const ECHO: &str = "/v1.0/echo";

async fn by_hand(config: &str) -> Rig {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    Setup { clock, config: config.to_owned(), ..Setup::default() }.start().await
}

/// Graph asks for these claims, once.
fn asks_for(claims: &str) -> Fault {
    Fault::graph(ECHO, Effect::Denied(Denial::Claims(claims.to_owned())))
}

/// A refusal with these `WWW-Authenticate` headers.
fn refuses(status: u16, challenges: &[String]) -> Effect {
    let header = |value: &String| ("WWW-Authenticate".to_owned(), value.clone());
    Effect::Http { status, headers: challenges.iter().map(header).collect(), body: "Graph's own words".to_owned() }
}

fn insufficient(claims: &str) -> String {
    format!(r#"Bearer realm="", error="insufficient_claims", claims="{}""#, BASE64_STANDARD.encode(claims))
}

/// `claims` and `cp1`, as the token endpoint should be asked.
fn with_cp1(claims: &str) -> Value {
    let mut asked: Value = serde_json::from_str(claims).expect("JSON");
    asked["access_token"]["xms_cc"] = json!({"values": ["cp1"]});
    asked
}

/// The claims of each request to the token endpoint.
fn presented(rig: &Rig) -> Vec<Value> {
    let claims = |claims: Option<String>| claims.map_or(Value::Null, |text| serde_json::from_str(&text).expect("JSON"));
    rig.token_requests().into_iter().map(|asked| claims(asked.claims)).collect()
}

fn statuses(rig: &Rig) -> Vec<u16> {
    rig.seen().iter().map(|seen| seen.status_sent).collect()
}

async fn grant(rig: &Rig) -> Grant {
    rig.app.core().store.find("alice").await.expect("the store answers").expect("the account is there")
}

fn body_of(number: usize) -> Vec<u8> {
    (0..16 * 1024).map(|at| u8::try_from((at * 31 + number * 7) % 251).expect("a byte")).collect()
}

/// The promise: however many, one redemption, and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_during_a_challenge_heal_with_one_redemption() {
    const REQUESTS: usize = 200;
    let rig = Arc::new(by_hand("server.workers = 2").await);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    rig.graph().clear();
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::graph(ECHO, Effect::HoldAnswer(gate.clone())).times(200));
    rig.graph().faults().push(asks_for(NBF).times(200));
    let requests: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let rig = Arc::clone(&rig);
            spawn_here(async move { rig.send(post(&format!("{ECHO}?number={number}"), body_of(number))).await })
        })
        .collect();
    within(gate.arrived(REQUESTS)).await;
    assert!(rig.token_requests().is_empty());
    gate.open();
    for (number, request) in requests.into_iter().enumerate() {
        let answer = within(request).await.expect("no panic");
        assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (200, None), "{answer:?}");
        assert!(header(&answer, "www-authenticate").is_none());
        let echoed = json(&answer);
        assert_eq!(echoed["target"], format!("{ECHO}?number={number}"));
        assert_eq!(echoed["body_sha256"], sha256(&body_of(number)), "{number}: the body was changed");
    }
    assert_eq!(presented(&rig), [with_cp1(NBF)], "one redemption, with the challenge and cp1");
    assert_eq!(rig.seen().len(), 2 * REQUESTS, "each was replayed once");
    assert_eq!(grant(&rig).await.state(), "active");
}

/// The same with what Graph does by itself after a revocation, and no fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_graph_tells_by_a_challenge_heals() {
    let rig = by_hand("").await;
    rig.clock.advance(Duration::from_secs(7200));
    assert_eq!(rig.get("/v1.0/me").await.status(), 200, "with a token that was got with cp1");
    rig.clock.advance(Duration::from_secs(60));
    rig.sandbox.entra.clear();
    assert!(rig.sandbox.entra.revoke_access_tokens("alice"));
    let answer = rig.send(post(ECHO, "x")).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let asked = presented(&rig);
    assert_eq!(asked.len(), 1);
    assert!(asked[0]["access_token"]["nbf"]["essential"] == true, "{asked:?}");
    assert_eq!(asked[0]["access_token"]["xms_cc"]["values"], json!(["cp1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_understood_in_every_clothing() {
    let plain = r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize""#;
    let wrapped = |claims: String| format!(r#"Bearer error="insufficient_claims", claims="{claims}""#);
    for (status, challenges) in [
        (401, vec![insufficient(POLIDS)]),
        (403, vec![insufficient(POLIDS)]),
        (401, vec!["Negotiate".to_owned(), plain.to_owned(), insufficient(POLIDS)]),
        (401, vec![format!(r#"PoP nonce="a, Bearer b", {plain}, {}"#, insufficient(POLIDS))]),
        (401, vec![wrapped(BASE64_STANDARD_NO_PAD.encode(POLIDS))]),
        (401, vec![wrapped(BASE64_URL_SAFE_NO_PAD.encode(POLIDS))]),
        (401, vec![wrapped(POLIDS.replace('"', "\\\""))]),
        (401, vec![format!("bearer CLAIMS={} , Error=insufficient_claims", BASE64_STANDARD.encode(POLIDS))]),
    ] {
        let rig = by_hand("").await;
        rig.graph().faults().push(Fault::graph(ECHO, refuses(status, &challenges)));
        let answer = rig.send(post(ECHO, "x")).await;
        assert_eq!(answer.status(), 200, "{challenges:?}: {answer:?}");
        assert_eq!(presented(&rig), [with_cp1(POLIDS)], "{challenges:?}");
        assert!(BASE64_URL_SAFE_NO_PAD.encode(POLIDS).contains(['-', '_']), "the alphabets differ");
        assert_eq!(statuses(&rig), [status, 200]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_challenges_are_met_together() {
    let rig = by_hand("").await;
    rig.graph().faults().push(Fault::graph(ECHO, refuses(401, &[insufficient(NBF), insufficient(POLIDS)])));
    assert_eq!(rig.send(post(ECHO, "x")).await.status(), 200);
    let mut both = with_cp1(NBF);
    both["access_token"]["polids"] = json!({"essential": true, "values": ["?>~?>~"]});
    assert_eq!(presented(&rig), [both]);
}

/// A token of seconds ago is no reason to pass a challenge on: the next one is another one. But there is no loop.
/// What is kept with the account has to be read again.
#[tokio::test(flavor = "multi_thread")]
async fn challenges_that_are_too_long_together_cost_nobody_an_account() {
    let rig = by_hand("").await;
    let long = |name: &str| format!(r#"{{"access_token":{{"{name}":{{"value":"{}"}}}}}}"#, "x".repeat(9 * 1024));
    let challenges = [insufficient(&long("a")), insufficient(&long("b"))];
    rig.sandbox.faults().push(Fault::graph(ECHO, refuses(401, &challenges)));
    assert_eq!(rig.send(alice("GET", ECHO).body(empty()).expect("a request")).await.status(), 200);
    rig.clock.advance(Duration::from_hours(2));
    assert_eq!(rig.send(alice("GET", ECHO).body(empty()).expect("a request")).await.status(), 200);
    assert_eq!((grant(&rig).await.state(), rig.token_requests().len()), ("active", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_stays_goes_through_after_one_redemption() {
    let rig = by_hand("").await;
    rig.graph().faults().push(asks_for(NBF).always());
    let answer = rig.send(post(ECHO, "x")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (401, Some("upstream_401")));
    assert!(header(&answer, "www-authenticate").is_some_and(|value| value.contains("insufficient_claims")));
    assert_eq!(json(&answer)["error"]["code"], "InvalidAuthenticationToken", "Graph's own words");
    assert_eq!((statuses(&rig), presented(&rig).len()), (vec![401, 401], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_after_a_plain_401_is_answered_too_and_then_no_more() {
    let rig = by_hand("").await;
    rig.graph().faults().push(Fault::graph(ECHO, Effect::Denied(Denial::Expired)));
    rig.graph().faults().push(asks_for(NBF));
    assert_eq!(rig.send(post(ECHO, "x")).await.status(), 200);
    assert_eq!((statuses(&rig), presented(&rig)), (vec![401, 401, 200], vec![with_cp1("{}"), with_cp1(NBF)]));

    let rig = by_hand("").await;
    rig.graph().faults().push(asks_for(NBF));
    rig.graph().faults().push(Fault::graph(ECHO, Effect::Denied(Denial::Expired)));
    let answer = rig.send(post(ECHO, "x")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (401, Some("upstream_401")));
    assert_eq!((statuses(&rig), presented(&rig).len()), (vec![401, 401], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_not_kept_has_its_token_the_next_time() {
    let rig = by_hand("server.limits.replay_bytes = 10000").await;
    rig.graph().faults().push(asks_for(NBF));
    let answer = rig.send(post(ECHO, vec![1; 10_001])).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (401, Some("upstream_401")));
    assert!(header(&answer, "www-authenticate").is_some_and(|value| value.contains("insufficient_claims")));
    // The redemption goes on behind; whoever is refused meanwhile waits for the same one.
    rig.graph().faults().push(asks_for(NBF));
    assert_eq!(rig.send(post(ECHO, vec![2; 10_000])).await.status(), 200);
    assert_eq!(presented(&rig), [with_cp1(NBF)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bearerd_retry_off_passes_a_challenge_through() {
    let rig = by_hand("").await;
    for status in [401, 403] {
        rig.graph().faults().push(Fault::graph(ECHO, refuses(status, &[insufficient(NBF)])));
        let answer = rig.send(alice("POST", ECHO).header("bearerd-retry", "off").body(full("x")).unwrap()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (status, None));
        assert_eq!(header(&answer, "www-authenticate"), Some(insufficient(NBF).as_str()));
    }
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_without_a_challenge_is_graphs_own() {
    let rig = by_hand("").await;
    for challenge in ["Bearer realm=\"\"", "Bearer error=\"insufficient_scope\", scope=\"Mail.Read\""] {
        rig.graph().faults().push(Fault::graph(ECHO, refuses(403, &[challenge.to_owned()])));
        let answer = rig.send(post(ECHO, "x")).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (403, None));
    }
    assert_eq!((rig.seen().len(), rig.token_requests().len()), (2, 0));
}

/// Alice is asked for one more step on `ECHO`, and the provider wants to see her for it. The answer is the link.
async fn park(rig: &Rig) -> String {
    assert!(rig.graph().demand(Some("alice"), ECHO, ACRS));
    let answer = rig.send(post(ECHO, "x")).await;
    let document = assert_refused(&answer, 403, "signin_required");
    let said = document["error"]["message"].as_str().expect("a message");
    assert!(said.contains("AADSTS50076") && said.contains("one more step"), "{said}");
    assert!(header(&answer, "www-authenticate").is_none(), "an application of old can't follow a challenge");
    header(&answer, "bearerd-signin-url").expect("a link").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_person_blocks_nothing_else() {
    let rig = by_hand("").await;
    let link = park(&rig).await;
    let parked = grant(&rig).await;
    assert_eq!(parked.state(), "reauth");
    let reason = parked.reason().expect("a reason");
    assert_eq!((reason.dead, reason.since), (false, rig.clock.now()));
    let waits_for = parked.challenge().expect("claims");
    assert!(waits_for.covers(&Claims::parse(ACRS).expect("claims")), "{waits_for}");
    assert_eq!(presented(&rig).len(), 1);

    for _ in 0..3 {
        assert_eq!(rig.get("/v1.0/me").await.status(), 200, "other paths go on");
        let again = rig.send(post(ECHO, "x")).await;
        assert_refused(&again, 403, "signin_required");
        assert_eq!(header(&again, "bearerd-signin-url"), Some(link.as_str()));
        rig.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(presented(&rig).len(), 1, "what waits for a person is not asked again");
    rig.clock.advance(Duration::from_secs(7200));
    assert_eq!(rig.get("/v1.0/me").await.status(), 200, "without the claims the refresh token is as good as before");
    assert_refused(&rig.send(post(ECHO, "x")).await, 403, "signin_required");
    assert_eq!(grant(&rig).await.state(), "reauth");
}

/// What `portal` asks on behalf of the owner of this token.
async fn on_behalf(rig: &Rig, token: &str) -> Response<Bytes> {
    let request = bare("POST", ECHO).header("authorization", format!("Bearer {token}"));
    rig.send(request.body(full("x")).expect("a request")).await
}

/// The claims that an application which acts on behalf of a user is challenged with.
fn challenged(answer: &Response<Bytes>) -> Claims {
    assert_refused(answer, 401, "signin_required");
    assert!(header(answer, "bearerd-signin-url").is_none(), "the user signs in at the application");
    let challenge = header(answer, "www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer realm=\"\", error=\"insufficient_claims\", claims=\""), "{challenge}");
    bearerd::graph::challenge::challenge(answer.headers()).expect("claims")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_on_behalf_of_a_user_gets_the_challenge_and_can_meet_it() {
    let rig = by_hand(&on_behalf_of()).await;
    assert!(rig.graph().demand(Some("alice"), ECHO, ACRS));
    let refused = on_behalf(&rig, &rig.sandbox.entra.assertion("alice")).await;
    let asked = challenged(&refused);
    assert!(asked.covers(&Claims::parse(ACRS).expect("claims")), "{asked}");
    assert_eq!((statuses(&rig), rig.token_requests().len()), (vec![401], 2), "one exchange, one with the challenge");

    let claims = Some(asked.to_string());
    let stronger = rig.sandbox.entra.assertion_with("alice", &Assertion { claims, ..Assertion::default() });
    assert_eq!(on_behalf(&rig, &stronger).await.status(), 200);
    assert_eq!(on_behalf(&rig, &rig.sandbox.entra.assertion("bob")).await.status(), 200, "nobody else is concerned");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_on_behalf_of_a_user_gets_a_challenge_that_stays() {
    let rig = by_hand(&on_behalf_of()).await;
    rig.graph().faults().push(asks_for(NBF).always());
    let asked = challenged(&on_behalf(&rig, &rig.sandbox.entra.assertion("alice")).await);
    assert_eq!(asked.as_str(), NBF);
    assert_eq!((statuses(&rig), presented(&rig)), (vec![401, 401], vec![with_cp1("{}"), with_cp1(NBF)]));
    rig.graph().faults().clear();
    assert_eq!(on_behalf(&rig, &rig.sandbox.entra.assertion("alice")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_itself_tries_once_and_then_graph_has_the_word() {
    let rig = by_hand(&client("identity = \"app\"")).await;
    let users = || keyed("GET", "/v1.0/users").body(empty()).expect("a request");
    assert!(rig.graph().demand(Some(APP), "/v1.0/users", POLIDS));
    assert_eq!(rig.send(users()).await.status(), 200, "what can be had without a person");
    assert_eq!((statuses(&rig), presented(&rig)), (vec![401, 200], vec![with_cp1("{}"), with_cp1(POLIDS)]));

    rig.graph().clear();
    rig.sandbox.entra.clear();
    assert!(rig.graph().demand(Some(APP), "/v1.0/users", ACRS));
    for _ in 0..3 {
        let refused = rig.send(users()).await;
        assert_eq!(
            (refused.status().as_u16(), header(&refused, "bearerd-error")),
            (401, Some("upstream_401")),
            "{refused:?} {:?}",
            rig.token_requests()
        );
        assert!(header(&refused, "www-authenticate").is_some_and(|value| value.contains("insufficient_claims")));
    }
    assert_eq!((statuses(&rig), presented(&rig).len()), (vec![401, 401, 401], 1), "asked for once");
}
