//! Continuous access evaluation and step-up: who is challenged, what satisfies a challenge, how challenges are written.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bearerd::sandbox::{Assertion, ChallengeShape, Denial, Effect, EntraOptions, Fault, Graph, GraphOptions, Sandbox};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::{self, Reply, get, graph, sandbox, token};

const STEP_UP: &str = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
const CP1: &str = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;

/// All challenges of an answer.
fn challenges(reply: &Reply) -> Vec<String> {
    reply.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn claims(reply: &Reply) -> Option<Value> {
    let header = challenges(reply).pop()?;
    let (_, rest) = header.rsplit_once("claims=\"")?;
    let decoded = STANDARD.decode(rest.split_once('"')?.0).unwrap();
    Some(serde_json::from_slice(&decoded).unwrap())
}

async fn refreshed(sandbox: &Sandbox, refresh_token: &str, claims: &str) -> Value {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("claims", claims)];
    token(&sandbox.entra, &fields).await.json()
}

async fn me(sandbox: &Sandbox, body: &Value) -> Reply {
    graph(&sandbox.graph, body["access_token"].as_str().unwrap(), "GET", "/v1.0/me", "").await
}

#[tokio::test]
async fn of_two_revocations_the_later_one_is_demanded() {
    let (sandbox, clock) = sandbox();
    let first = sandbox.grant("alice").unwrap().refresh_token;
    let token = refreshed(&sandbox, &first, CP1).await;
    for after in [5_u64, 10] {
        clock.advance(Duration::from_secs(5));
        sandbox.entra.revoke_access_tokens("alice");
        let at = (client::START.secs() + i64::try_from(after).unwrap()).to_string();
        let demanded = claims(&me(&sandbox, &token).await).unwrap();
        assert_eq!(demanded["access_token"]["nbf"]["value"], json!(at));
    }
}

#[tokio::test]
async fn after_a_revocation_only_its_claims_will_do() {
    let (sandbox, clock) = sandbox();
    let first = sandbox.grant("alice").unwrap().refresh_token;
    refreshed(&sandbox, &first, CP1).await;
    clock.advance(Duration::from_secs(5));
    sandbox.entra.revoke_access_tokens("alice");
    clock.advance(Duration::from_secs(5));
    let unaware = refreshed(&sandbox, &first, CP1).await;
    let reply = me(&sandbox, &unaware).await;
    let revoked_at = (client::START.secs() + 5).to_string();
    assert_eq!(reply.status, 401, "minted later, but not with the claims");
    let demanded = claims(&reply).unwrap();
    assert_eq!(demanded, json!({ "access_token": { "nbf": { "essential": true, "value": revoked_at } } }));
    let early =
        json!({ "access_token": { "nbf": { "essential": true, "value": "1" }, "xms_cc": { "values": ["cp1"] } } });
    assert_eq!(me(&sandbox, &refreshed(&sandbox, &first, &early.to_string()).await).await.status, 401);
    let mut merged = demanded;
    merged["access_token"]["xms_cc"] = json!({ "values": ["cp1"] });
    let healed = refreshed(&sandbox, &first, &merged.to_string()).await;
    assert_eq!(me(&sandbox, &healed).await.status, 200);
    assert_eq!(me(&sandbox, &unaware).await.status, 401, "what is revoked stays so");
    assert_eq!(me(&sandbox, &refreshed(&sandbox, &first, CP1).await).await.status, 200, "asked and answered");
    let request = &sandbox.entra.token_requests()[3];
    assert_eq!((request.claims.as_deref(), request.outcome.as_str()), (Some(merged.to_string().as_str()), "200"));

    sandbox.entra.revoke_access_tokens("alice");
    assert_eq!(
        me(&sandbox, &refreshed(&sandbox, &first, "{}").await).await.status,
        200,
        "it never spoke of challenges"
    );

    let (entra, _) = client::entra(EntraOptions { demand_claims: false, ..EntraOptions::default() });
    let graph = Graph::start(client::free(), GraphOptions::default(), &entra, clock.clone(), client::here()).unwrap();
    let lenient = Sandbox { entra, graph };
    let first = lenient.grant("alice").unwrap().refresh_token;
    lenient.entra.revoke_access_tokens("alice");
    assert_eq!(me(&lenient, &refreshed(&lenient, &first, CP1).await).await.status, 200);
}

#[tokio::test]
async fn a_demand_stands_until_it_is_cleared() {
    let (sandbox, _) = sandbox();
    let (alice, bob) = (sandbox.grant("alice").unwrap(), sandbox.grant("bob").unwrap());
    let ask = async |token: &str, target: &str| graph(&sandbox.graph, token, "GET", target, "").await;
    assert!(sandbox.entra.demand(Some("alice"), "/v1.0/me/messages", STEP_UP));
    assert!(!sandbox.graph.demand(None, "/", "no JSON"));
    for _ in 0..2 {
        let reply = ask(&alice.access_token, "/v1.0/me/messages?$top=1").await;
        assert_eq!((reply.status.as_u16(), claims(&reply).unwrap().to_string()), (401, STEP_UP.to_owned()));
    }
    assert_eq!(ask(&alice.access_token, "/v1.0/me").await.status, 200);
    assert_eq!(ask(&bob.access_token, "/v1.0/me/messages").await.status, 200);
    let batch = json!({ "requests": [{ "id": "1", "method": "GET", "url": "/me/messages" }] }).to_string();
    let item = graph(&sandbox.graph, &alice.access_token, "POST", "/v1.0/$batch", &batch).await.json();
    assert_eq!(item["responses"][0]["status"], 401);
    assert!(item["responses"][0]["headers"]["WWW-Authenticate"].as_str().unwrap().contains("insufficient_claims"));

    let refused = refreshed(&sandbox, &alice.refresh_token, STEP_UP).await;
    assert_eq!((&refused["error"], &refused["error_codes"]), (&json!("interaction_required"), &json!([50076])));
    assert_eq!(refused["claims"].as_str().unwrap().parse::<Value>().unwrap(), STEP_UP.parse::<Value>().unwrap());
    assert_eq!(sandbox.entra.refresh_token(&alice.refresh_token).unwrap().redeemed, 0);

    let stepped = sign_in(&sandbox, STEP_UP).await;
    assert_eq!(ask(stepped["access_token"].as_str().unwrap(), "/v1.0/me/messages").await.status, 200);
    let refresh_token = stepped["refresh_token"].as_str().unwrap();
    let again = refreshed(&sandbox, refresh_token, STEP_UP).await;
    assert_eq!(ask(again["access_token"].as_str().unwrap(), "/v1.0/me/messages").await.status, 200);
    let successor = again["refresh_token"].as_str().unwrap();
    assert!(refreshed(&sandbox, successor, STEP_UP).await["access_token"].is_string(), "the sign-in is remembered");
    let other = STEP_UP.replace("c1", "c2");
    assert_eq!(refreshed(&sandbox, successor, &other).await["error_codes"], json!([50076]));
    let plain = refreshed(&sandbox, successor, CP1).await;
    assert_eq!(ask(plain["access_token"].as_str().unwrap(), "/v1.0/me/messages").await.status, 401, "not asked for");

    sandbox.entra.clear_demands();
    assert_eq!(ask(&alice.access_token, "/v1.0/me/messages").await.status, 200);
}

#[tokio::test]
async fn a_middle_tier_hands_a_step_up_on() {
    let (sandbox, _) = sandbox();
    let exchange = async |assertion: &str| {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
            ("requested_token_use", "on_behalf_of"),
            ("scope", "https://graph.microsoft.com/.default"),
            ("claims", STEP_UP),
        ];
        token(&sandbox.entra, &fields).await.json()
    };
    let refused = exchange(&sandbox.assertion("alice")).await;
    assert_eq!((&refused["error"], &refused["error_codes"]), (&json!("interaction_required"), &json!([50076])));
    assert!(refused["claims"].as_str().unwrap().contains("acrs"));
    let assertion = Assertion { claims: Some(STEP_UP.to_owned()), ..Assertion::default() };
    let granted = exchange(&sandbox.entra.assertion_with("alice", &assertion)).await;
    assert!(sandbox.graph.demand(None, "/", STEP_UP));
    assert_eq!(me(&sandbox, &granted).await.status, 200);
}

#[tokio::test]
async fn the_shapes_of_a_challenge() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let body = json!({ "access_token": grant.access_token });
    let shaped = async |shapes: &[ChallengeShape]| {
        sandbox.faults().push(Fault::graph("/", Effect::Denied(Denial::Claims(STEP_UP.to_owned()))));
        for shape in shapes {
            sandbox.faults().push(Fault::graph("/", Effect::Challenge(*shape)));
        }
        let reply = me(&sandbox, &body).await;
        assert_eq!(sandbox.faults().waiting(), 0);
        reply
    };
    let parameter = |reply: &Reply| {
        let header = challenges(reply).pop().unwrap();
        header.rsplit_once("claims=\"").unwrap().1.trim_end_matches('"').to_owned()
    };
    let usual = shaped(&[]).await;
    assert_eq!((usual.status.as_u16(), challenges(&usual).len()), (401, 1));
    assert_eq!(parameter(&usual), STANDARD.encode(STEP_UP));
    let headers = shaped(&[ChallengeShape::SeveralHeaders]).await;
    assert_eq!(challenges(&headers).len(), 3);
    assert!(!challenges(&headers)[0].contains("claims"));
    let several = shaped(&[ChallengeShape::SeveralChallenges]).await;
    assert!(challenges(&several)[0].starts_with("PoP nonce=") && challenges(&several)[0].contains(", Bearer realm="));
    assert_eq!(parameter(&shaped(&[ChallengeShape::Unpadded]).await), STANDARD_NO_PAD.encode(STEP_UP));
    let both = [ChallengeShape::Unpadded, ChallengeShape::UrlSafe];
    assert_eq!(parameter(&shaped(&both).await), URL_SAFE_NO_PAD.encode(STEP_UP));
    assert_eq!(parameter(&shaped(&[ChallengeShape::RawJson]).await).replace("\\\"", "\""), STEP_UP);
    assert_eq!(shaped(&[ChallengeShape::Forbidden]).await.status, 403);
    sandbox.faults().push(Fault::graph("/", Effect::Challenge(ChallengeShape::Forbidden)));
    assert_eq!(me(&sandbox, &json!({ "access_token": "made up" })).await.status, 401, "no challenge, no shape");
}

/// Alice signs in for these claims.
async fn sign_in(sandbox: &Sandbox, claims: &str) -> Value {
    let verifier = "v".repeat(43);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let options = sandbox.entra.options();
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("client_id", options.client_id.as_str()),
            ("response_type", "code"),
            ("redirect_uri", "http://localhost/callback"),
            ("scope", "openid offline_access User.Read"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("bearerd_user", "alice"),
            ("claims", claims),
        ])
        .finish();
    let page = get(sandbox.entra.address(), &format!("/{}/oauth2/v2.0/authorize?{query}", options.tenant)).await;
    let back = url::Url::parse(page.header("location")).unwrap();
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", "http://localhost/callback"),
        ("code_verifier", verifier.as_str()),
    ];
    token(&sandbox.entra, &fields).await.json()
}
