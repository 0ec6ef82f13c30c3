//! Whose tokens a client's requests get, and clients that prove themselves by a token: an account's by a claim, the application's own,
//! on behalf of the token's user. What Graph saw is looked at, and how often the issuer was asked.

mod issuer;

use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::EntraOptions;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use self::issuer::{AUDIENCE, Issuer};
use crate::harness::{
    Body, KEY, Rig, Setup, alice, assert_refused, bare, basic, empty, http1_over, key_hash, keyed, whole, within,
};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const TOKEN_REFUSED: &str = "Bearer realm=\"bearerd\", error=\"invalid_token\"";

/// `GET /v1.0/me` with this token.
fn bearing(token: &str) -> http::request::Builder {
    bare("GET", "/v1.0/me").header("authorization", format!("Bearer {token}"))
}

async fn send(rig: &Rig, request: http::request::Builder) -> Response<Bytes> {
    rig.send(request.body(empty()).expect("a request")).await
}

/// All challenges.
fn challenges(answer: &Response<Bytes>) -> Vec<&str> {
    answer.headers().get_all("www-authenticate").iter().map(|value| value.to_str().expect("text")).collect()
}

fn assert_token_refused(answer: &Response<Bytes>) {
    assert_refused(answer, 401, "client_unauthenticated");
    assert_eq!(challenges(answer), ["Basic realm=\"bearerd\", charset=\"UTF-8\"", TOKEN_REFUSED]);
}

/// Users that Graph answered for, oldest first.
fn served(rig: &Rig) -> Vec<String> {
    rig.seen().into_iter().map(|seen| seen.user.expect("a token of somebody")).collect()
}

/// A proxy with the client `payroll` by key, and one more client by tokens of `issuer`.
async fn with_client(issuer: &Issuer, lines: &str) -> Rig {
    let clock = issuer.clock.clone();
    let keyed = format!("[[clients]]\nname = \"payroll\"\nkey_hash = \"{}\"\naccounts = [\"*\"]\n", key_hash(KEY));
    let config = format!("{keyed}[[clients]]\nname = \"portal\"\n{lines}\n");
    Setup { clock, config, ..Setup::default() }.start().await
}

fn jwt(issuer: &Issuer, more: &str) -> String {
    format!("jwt = {{ issuer = \"{}\", audience = \"{AUDIENCE}\"{more} }}", issuer.origin)
}

/// The account is what the token's `upn` says.
async fn by_claim(issuer: &Issuer) -> Rig {
    with_client(issuer, &format!("accounts = [\"*\"]\n{}", jwt(issuer, ", account_claim = \"upn\""))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_s_claim_selects_the_account_and_nothing_else_does() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let rig = by_claim(&issuer).await;
    let (alices, bobs) = (issuer.token(&json!({"upn": "alice"})), issuer.token(&json!({"upn": "bob"})));
    for request in [
        bearing(&bobs),
        bearing(&alices),
        bearing(&alices).header("bearerd-account", "alice"),
        bearing(&alices).uri("/as/alice/v1.0/me"),
    ] {
        assert_eq!(send(&rig, request).await.status(), 200);
    }
    assert_eq!(served(&rig), ["bob", "alice", "alice", "alice"]);
    for seen in rig.seen() {
        assert!(!seen.header("authorization")[0].contains(&alices) && !seen.header("authorization")[0].contains(&bobs));
    }
    rig.graph().clear();
    for request in [bearing(&bobs).header("bearerd-account", "alice"), bearing(&bobs).uri("/as/alice/v1.0/me")] {
        assert_refused(&send(&rig, request).await, 400, "account_ambiguous");
    }
    let stranger = issuer.token(&json!({"upn": "carol@elsewhere/x"}));
    assert_refused(&send(&rig, bearing(&stranger)).await, 403, "account_forbidden");
    assert_token_refused(&send(&rig, bearing(&issuer.token(&json!({"upn": null})))).await);
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_an_account_claim_leaves_the_choice_to_the_request() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let one = with_client(&issuer, &format!("accounts = [\"bob\"]\n{}", jwt(&issuer, ""))).await;
    let token = issuer.token(&json!({"upn": "alice"}));
    assert_eq!(send(&one, bearing(&token)).await.status(), 200);
    assert_refused(&send(&one, bearing(&token).header("bearerd-account", "alice")).await, 403, "account_forbidden");
    assert_eq!(served(&one), ["bob"]);
    let many = with_client(&issuer, &format!("accounts = [\"*\"]\n{}", jwt(&issuer, ""))).await;
    assert_refused(&send(&many, bearing(&token)).await, 400, "account_ambiguous");
    assert_eq!(send(&many, bearing(&token).header("bearerd-account", "alice")).await.status(), 200);
    assert_eq!(served(&many), ["alice"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_is_refused_and_nothing_goes_out() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let other = Issuer::start(issuer.clock.clone()).await;
    let rig = by_claim(&issuer).await;
    let alices = json!({"upn": "alice"});
    let with = |name: &str, value: Value| {
        let mut claims = alices.clone();
        claims[name] = value;
        issuer.token(&claims)
    };
    let good = issuer.token(&alices);
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    for token in [
        with("aud", json!("api://another")),
        with("exp", json!(START.secs() - 300)),
        with("nbf", json!(START.secs() + 301)),
        issuer.signed_by_a_stranger(&alices),
        issuer.under("unknown", &alices),
        format!("{head}.{}", signature.chars().rev().collect::<String>()),
        format!("{head}."),
        other.token(&alices),
        "a.b.c".to_owned(),
    ] {
        assert_token_refused(&send(&rig, bearing(&token)).await);
    }
    assert_eq!(rig.send_http2(bearing(&with("exp", json!(1))).body(empty()).expect("a request")).await.status(), 401);
    for request in [
        keyed("GET", "/v1.0/me").header("authorization", format!("Bearer {good}")),
        bare("GET", "/v1.0/me").header("authorization", basic("alice", &good)),
        bare("GET", "/v1.0/me").header("x-api-key", &good),
    ] {
        let answer = send(&rig, request).await;
        assert_ne!(answer.status(), 200, "a token is a Bearer, and a key in X-Api-Key counts before it: {answer:?}");
    }
    rig.assert_nothing_left();
    assert_eq!(send(&rig, bearing(&good)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_checked_once_until_it_expires() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let rig = by_claim(&issuer).await;
    let token = issuer.token(&json!({"upn": "alice", "exp": START.secs() + 48 * 3600}));
    assert_eq!(send(&rig, bearing(&token)).await.status(), 200);
    assert_eq!(issuer.asked(), ["/.well-known/openid-configuration", "/keys"]);
    // Keys that are a day old are asked for again where one is needed.
    rig.clock.advance(Duration::from_hours(25));
    for _ in 0..50 {
        assert_eq!(send(&rig, bearing(&token)).await.status(), 200);
    }
    assert_eq!(issuer.asked().len(), 2, "no signature was checked");
    rig.clock.advance(Duration::from_hours(23));
    assert_eq!(send(&rig, bearing(&token)).await.status(), 200, "within what clocks may differ, it is checked again");
    assert_eq!(issuer.asked().len(), 4, "{:?}", issuer.asked());
    rig.clock.advance(Duration::from_secs(300));
    assert_token_refused(&send(&rig, bearing(&token)).await);
    assert_eq!((served(&rig).len(), issuer.asked().len()), (52, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_is_not_the_caller_s_fault() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    issuer.publish(503, &json!({}));
    let rig = by_claim(&issuer).await;
    let token = issuer.token(&json!({"upn": "alice"}));
    for _ in 0..5 {
        let answer = send(&rig, bearing(&token)).await;
        assert_refused(&answer, 503, "provider_unavailable");
        assert!(answer.headers().contains_key("retry-after") && challenges(&answer).is_empty(), "{answer:?}");
    }
    assert_eq!(issuer.asked().len(), 2, "{:?}", issuer.asked());
    assert_eq!(send(&rig, alice("GET", "/v1.0/me")).await.status(), 200, "others don't notice");
    issuer.recover();
    rig.clock.advance(Duration::from_secs(30));
    assert_eq!(send(&rig, bearing(&token)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_by_key_are_asked_nothing_new() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let rig = by_claim(&issuer).await;
    for request in [
        alice("GET", "/v1.0/me"),
        bearing(KEY).header("bearerd-account", "alice"),
        keyed("GET", "/v1.0/me").header("bearerd-account", "alice"),
        keyed("GET", "/v1.0/me").header("bearerd-account", "alice").header("authorization", "Bearer a.b.c"),
    ] {
        assert_eq!(send(&rig, request).await.status(), 200);
    }
    assert_eq!(served(&rig).len(), 4);
    assert_eq!(issuer.asked(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_clients_of_one_issuer_the_one_whose_rules_it_keeps_is_it() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let lines = format!(
        "accounts = [\"alice\"]\n{}\n[[clients]]\nname = \"jobs\"\naccounts = [\"bob\"]\n{}\n",
        jwt(&issuer, ", required = { azp = \"portal\" }"),
        jwt(&issuer, ", required = { azp = \"jobs\" }"),
    );
    let rig = with_client(&issuer, &lines).await;
    for (azp, user) in [("jobs", "bob"), ("portal", "alice"), ("jobs", "bob")] {
        assert_eq!(send(&rig, bearing(&issuer.token(&json!({"azp": azp})))).await.status(), 200, "{azp}");
        assert_eq!(served(&rig).last().map(String::as_str), Some(user));
    }
    assert_token_refused(&send(&rig, bearing(&issuer.token(&json!({"azp": "third"})))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_a_token_is_does_not_depend_on_what_can_be_reached() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let gone = format!(", jwks_url = \"{}/gone\", required = {{ azp = \"portal\" }}", issuer.origin);
    let lines = format!(
        "accounts = [\"alice\"]\n{}\n[[clients]]\nname = \"jobs\"\naccounts = [\"bob\"]\n{}\n",
        jwt(&issuer, &gone),
        jwt(&issuer, ""),
    );
    let rig = with_client(&issuer, &lines).await;
    assert_refused(&send(&rig, bearing(&issuer.token(&json!({})))).await, 503, "provider_unavailable");
    assert_eq!(send(&rig, bearing(&issuer.token(&json!({"azp": "jobs"})))).await.status(), 200);
    assert_eq!(served(&rig), ["bob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_does_not_turn_into_the_client_of_the_connection() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("data.sock");
    let uid = rustix::process::getuid().as_raw();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\n[[clients]]\nname = \"local\"\npeer_uid = {uid}\naccounts = [\"bob\"]\n\
         [[clients]]\nname = \"portal\"\naccounts = [\"*\"]\n{}\n",
        socket.display(),
        jwt(&issuer, ", account_claim = \"upn\""),
    );
    let rig = Setup { clock: issuer.clock.clone(), config, ..Setup::default() }.start().await;
    let over_socket = async |request: http::request::Builder| {
        let stream = within(UnixStream::connect(&socket)).await.expect("the socket is there");
        let request: Request<Body> = request.body(empty()).expect("a request");
        whole(http1_over(stream).await.send_request(request)).await
    };
    let stranger = Issuer::start(issuer.clock.clone()).await;
    let dummy = stranger.token(&json!({"upn": "alice"}));
    for request in [bare("GET", "/v1.0/me"), bearing("dummy"), bearing(&dummy)] {
        assert_eq!(over_socket(request).await.status(), 200);
    }
    assert_eq!(served(&rig), ["bob", "bob", "bob"]);
    let expired = issuer.token(&json!({"upn": "alice", "exp": 1}));
    assert_token_refused(&over_socket(bearing(&expired)).await);
    assert_eq!(over_socket(bearing(&issuer.token(&json!({"upn": "alice"})))).await.status(), 200);
    assert_eq!(served(&rig).last().map(String::as_str), Some("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_the_application_acts_for_no_account() {
    let rig = Rig::with(&crate::harness::client("identity = \"app\"")).await;
    for request in [
        alice("GET", "/v1.0/users"),
        keyed("GET", "/v1.0/users").header("bearerd-account", "bob"),
        keyed("GET", "/as/alice/v1.0/users"),
        bare("GET", "/v1.0/users").header("authorization", basic("App", KEY)),
    ] {
        assert_refused(&send(&rig, request).await, 403, "account_forbidden");
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_behalf_of_needs_the_token_of_a_user_and_serves_nobody_else() {
    let issuer = Issuer::start(Clock::manual(START)).await;
    let rig = with_client(&issuer, &format!("identity = \"on-behalf-of\"\n{}", jwt(&issuer, ""))).await;
    for claims in [
        json!({"scp": null, "roles": ["x"]}),
        json!({"idtyp": "app"}),
        json!({"sub": "portal", "azp": "portal"}),
        json!({"exp": 1}),
        json!({"aud": "api://another"}),
    ] {
        assert_token_refused(&send(&rig, bearing(&issuer.token(&claims))).await);
    }
    let token = issuer.token(&json!({"preferred_username": "alice@contoso.example"}));
    for request in [bearing(&token).header("bearerd-account", "bob"), bearing(&token).uri("/as/alice/v1.0/me")] {
        assert_refused(&send(&rig, request).await, 403, "account_forbidden");
    }
    rig.assert_nothing_left();
}

// From here on: the tokens themselves. These need client credentials and on-behalf-of of the vault, the provider's side of `oauth`, and the
// simulated Entra ID.

/// What the token endpoint was asked for: grant type and scope.
fn grants(rig: &Rig) -> Vec<(String, String)> {
    let asked = rig.token_requests().into_iter();
    asked.map(|asked| (asked.grant_type, asked.scope.unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_own_token_is_fetched_once_for_all_its_requests() {
    let rig = Rig::with(&crate::harness::client("identity = \"app\"")).await;
    for request in [
        keyed("GET", "/v1.0/users"),
        bare("GET", "/v1.0/users").header("authorization", basic("app", KEY)),
        bare("GET", "/v1.0/users").header("authorization", basic("payroll", KEY)),
        keyed("GET", "/as/app/v1.0/users").header("bearerd-account", "payroll"),
    ] {
        let answer = send(&rig, request).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert_eq!(served(&rig), ["app", "app", "app", "app"]);
    assert_eq!(grants(&rig), [("client_credentials".into(), "https://graph.microsoft.com/.default".into())]);
}

/// A proxy whose client `portal` acts on behalf of users of the simulated Entra ID, and what makes their tokens.
async fn on_behalf_of() -> (Rig, impl Fn(&str) -> String) {
    let client_id = EntraOptions::default().client_id;
    let rig = Setup { config: crate::harness::on_behalf_of(), signed_in: Vec::new(), ..Setup::default() }.start().await;
    let entra = rig.sandbox.entra.clone();
    let scope = format!("api://{client_id}/access_as_user");
    (rig, move |user: &str| entra.grant(user, &scope).expect("the simulated user exists").access_token)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_behalf_of_a_user_graph_sees_the_user_and_never_the_caller_s_token() {
    let (rig, token_of) = on_behalf_of().await;
    let (alices, bobs) = (token_of("alice"), token_of("bob"));
    for token in [&alices, &bobs, &alices, &bobs] {
        let answer = send(&rig, bearing(token)).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert_eq!(served(&rig), ["alice", "bob", "alice", "bob"]);
    for seen in rig.seen() {
        let sent = seen.header("authorization").join(",");
        assert!(!sent.contains(&*alices) && !sent.contains(&*bobs), "the caller's own token went out");
    }
    let kinds: Vec<_> = grants(&rig).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["urn:ietf:params:oauth:grant-type:jwt-bearer"; 2], "one exchange for each user");

    // Another token of the same user: the same exchange serves it.
    assert_eq!(send(&rig, bearing(&token_of("alice"))).await.status(), 200);
    assert_eq!(grants(&rig).len(), 2);
    // Who is named has to be who the token is of.
    let mail = rig.sandbox.entra.user("alice").expect("a user").mail.clone();
    assert_eq!(send(&rig, bearing(&alices).header("bearerd-account", &mail)).await.status(), 200);
    assert_refused(&send(&rig, bearing(&bobs).header("bearerd-account", &mail)).await, 403, "account_forbidden");
}
