//! Tokens that callers present: every rule broken once, whose a good one is, and what the issuer is asked.

use std::time::Duration;

use bearerd::config::JwtIssuer;
use bearerd::oauth::{Verified, Verifier, VerifyError, issuer_of};
use serde_json::{Value, json};

use crate::provider::{Answer, OBJECT, Simulator, TENANT};
use crate::tokens::{self, RSA_A_PUBLIC, hs256, message};

const AUDIENCE: &str = "api://bearerd";

fn config(simulator: &Simulator) -> JwtIssuer {
    JwtIssuer {
        issuer: simulator.origin.clone(),
        audience: vec![AUDIENCE.to_owned(), "other".to_owned()],
        jwks_url: None,
        account_claim: None,
        required: [("azp".to_owned(), "app-1".to_owned())].into(),
        ca_pem: None,
    }
}

fn verifier(simulator: &Simulator) -> Verifier {
    Verifier::new(&config(simulator), simulator.clock.clone()).unwrap()
}

/// Of the simulator's Entra, whose issuer names its tenant.
fn entra(simulator: &Simulator) -> Verifier {
    let issuer = format!("{}/{TENANT}/v2.0", simulator.origin);
    Verifier::new(&JwtIssuer { issuer, ..config(simulator) }, simulator.clock.clone()).unwrap()
}

fn claims(simulator: &Simulator) -> Value {
    let now = simulator.clock.now().secs();
    json!({
        "iss": simulator.origin, "sub": "user-1", "aud": AUDIENCE, "azp": "app-1", "scp": "access_as_user",
        "iat": now, "nbf": now, "exp": now + 3600, "name": "Alice",
    })
}

fn with(simulator: &Simulator, changes: &Value) -> Value {
    let mut claims = claims(simulator);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn refusal(verifier: &Verifier, token: &str) -> String {
    match verifier.verify(token).await {
        Err(VerifyError::Refused(why)) => why,
        other => panic!("{other:?} for {token}"),
    }
}

async fn verified(verifier: &Verifier, claims: &Value) -> Verified {
    verifier.verify(&tokens::rsa("a").token("a", claims)).await.unwrap_or_else(|error| panic!("{error}: {claims}"))
}

#[tokio::test]
async fn a_token_that_keeps_every_rule_says_whose_it_is() {
    let simulator = Simulator::start().await;
    let verifier = verifier(&simulator);
    let token = verified(&verifier, &claims(&simulator)).await;
    assert_eq!((&*token.tenant, &*token.subject), (&*simulator.origin, "user-1"));
    assert_eq!((token.name.as_deref(), token.account.as_deref()), (Some("Alice"), None));
    assert_eq!(token.expires.secs(), simulator.clock.now().secs() + 3600);
    assert!(token.is_of_a_user());

    let key = tokens::rsa("a");
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"] {
        let header = json!({"alg": "RS256", "typ": typ, "kid": "a"});
        assert!(verifier.verify(&key.sign(&header, &claims(&simulator))).await.is_ok(), "{typ}");
    }
    let untyped = json!({"alg": "RS256", "kid": "a", "x5t": "thumbprint"});
    assert!(verifier.verify(&key.sign(&untyped, &claims(&simulator))).await.is_ok());
    let list = with(&simulator, &json!({"aud": ["x", "other"], "nbf": null, "iat": null, "azp": ["app-1"]}));
    assert!(verifier.verify(&key.token("a", &list)).await.is_ok());
    simulator.asked_once("/.well-known/openid-configuration");
    simulator.asked_once("/keys");
}

#[tokio::test]
async fn every_rule_broken_once() {
    let simulator = Simulator::start().await;
    let p256 = tokens::p256();
    simulator.publish_keys(&[tokens::rsa("a").public("a"), p256.public("e")]);
    let verifier = verifier(&simulator);
    verified(&verifier, &claims(&simulator)).await;
    let now = simulator.clock.now().secs();
    let of = |changes: &Value| with(&simulator, changes);
    for (changes, expected) in [
        (json!({"iss": null}), "it has no iss"),
        (json!({"iss": format!("{}/", simulator.origin)}), "its issuer is"),
        (json!({"iss": simulator.origin.to_uppercase()}), "its issuer is"),
        (json!({"iss": [simulator.origin]}), "its iss is no text"),
        (json!({"aud": null}), "it has no aud"),
        (json!({"aud": "api://other"}), "its audience is another"),
        (json!({"aud": format!("{AUDIENCE}/")}), "its audience is another"),
        (json!({"aud": ["api://other"]}), "its audience is another"),
        (json!({"aud": [AUDIENCE, 1]}), "its audience is another"),
        (json!({"aud": {"a": AUDIENCE}}), "its aud is neither"),
        (json!({"exp": null}), "it has no exp"),
        (json!({"exp": "9999999999"}), "its exp is no time"),
        (json!({"exp": 1.5e10}), "its exp is no time"),
        (json!({"exp": -1}), "its exp is no time"),
        (json!({"exp": now - 300}), "it has expired"),
        (json!({"nbf": now + 301}), "it is from the future"),
        (json!({"nbf": "0"}), "its nbf is no time"),
        (json!({"iat": now + 301}), "it is from the future"),
        (json!({"azp": null}), "its azp is not the one"),
        (json!({"azp": "app-2"}), "its azp is not the one"),
        (json!({"azp": "app-1 "}), "its azp is not the one"),
        (json!({"sub": null}), "it has no sub"),
        (json!({"sub": ""}), "its sub is no text"),
        (json!({"Aud": AUDIENCE}), "two of its claims differ by upper and lower case"),
        (json!({"nonce": "n", "scp": null}), "it is an identity token"),
        (json!({"at_hash": "n", "scp": null, "roles": ["admin"]}), "it is an identity token"),
        (json!({"typ": "ID"}), "it is an identity token"),
    ] {
        let token = tokens::rsa("a").token("a", &of(&changes));
        let why = refusal(&verifier, &token).await;
        assert!(why.starts_with(expected), "{why:?} is not {expected:?} for {changes}");
    }
    let good = claims(&simulator);
    let (a, b) = (tokens::rsa("a"), tokens::rsa("b"));
    let header = |changes: Value| {
        let mut header = json!({"alg": "RS256", "typ": "JWT", "kid": "a"});
        for (name, value) in changes.as_object().unwrap() {
            header[name] = value.clone();
        }
        header
    };
    let embedded = header(json!({"jwk": b.public("a"), "jku": format!("{}/evil", simulator.origin), "x5u": "x"}));
    let text = a.token("a", &good);
    let cut = text.rsplit_once('.').unwrap().0;
    let twice = format!("{},\"aud\":\"x\"}}", good.to_string().trim_end_matches('}'));
    for (token, expected) in [
        (String::new(), "it has not three parts"),
        ("a.b.c.d".to_owned(), "it has not three parts"),
        (format!("{text}.x"), "it has not three parts"),
        ("!.!.!".to_owned(), "its header is not base64url"),
        (format!("{text}{}", "A".repeat(256_001)), "it is too long"),
        (format!("{}.", message(&header(json!({"alg": "none"})).to_string(), &good.to_string())), "its alg"),
        (format!("{}.AA", message(&header(json!({"alg": "ES512"})).to_string(), &good.to_string())), "its alg"),
        (hs256(RSA_A_PUBLIC.as_bytes(), &header(json!({"alg": "HS256"})), &good), "its alg"),
        (a.sign(&header(json!({"typ": "logout+jwt"})), &good), "its typ is not"),
        (a.sign(&header(json!({"crit": ["exp"]})), &good), "it has a crit header"),
        (a.sign(&json!({"alg": "RS256", "typ": "JWT"}), &good), "it has no kid"),
        (a.sign(&header(json!({"kid": 7})), &good), "its kid is no text"),
        (a.sign(&header(json!({"kid": "e"})), &good), "no key of the provider fits"),
        (b.sign(&embedded, &good), "its signature is wrong"),
        (b.token("a", &good), "its signature is wrong"),
        (format!("{cut}."), "its signature is wrong"),
        (a.sign_text(&header(json!({})).to_string(), &twice), "its payload can't be read"),
    ] {
        let why = refusal(&verifier, &token).await;
        assert!(why.starts_with(expected), "{why:?} is not {expected:?} for {token:.80}");
    }
    assert!(simulator.asked("/evil").is_empty());
    assert!(verifier.verify(&p256.token("e", &good)).await.is_ok());
    let late = of(&json!({"exp": now - 299, "nbf": now + 300}));
    assert!(verifier.verify(&a.token("a", &late)).await.is_ok(), "clocks may differ by so much");
}

#[tokio::test]
async fn an_identity_token_of_entra_names_no_application_that_calls() {
    let simulator = Simulator::start().await;
    let issuer = format!("{}/{TENANT}/v2.0", simulator.origin);
    let keys = Some(format!("{}/keys", simulator.origin).parse().unwrap());
    let config = JwtIssuer { issuer, jwks_url: keys, required: [].into(), ..config(&simulator) };
    let verifier = Verifier::new(&config, simulator.clock.clone()).unwrap();
    let of = |changes: Value| {
        let mut claims =
            with(&simulator, &json!({"tid": TENANT, "oid": OBJECT, "azp": null, "scp": null, "roles": ["x"]}));
        claims["iss"] = config.issuer.as_str().into();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        tokens::rsa("a").token("a", &claims)
    };
    for identity in [json!({}), json!({"nonce": "n"})] {
        assert_eq!(refusal(&verifier, &of(identity)).await, "it is an identity token, not an access token");
    }
    for access in [json!({"azp": "app-1"}), json!({"appid": "app-1"})] {
        assert!(verifier.verify(&of(access)).await.is_ok());
    }
}

#[tokio::test]
async fn entra_s_tenant_and_object_id_count_for_its_own_issuer_only() {
    let simulator = Simulator::start().await;
    let ids = json!({"tid": TENANT, "oid": OBJECT.to_uppercase(), "preferred_username": "alice@contoso.com"});
    let mut own = ids.clone();
    own["iss"] = format!("{}/{TENANT}/v2.0", simulator.origin).into();
    let token = verified(&entra(&simulator), &with(&simulator, &own)).await;
    assert_eq!((&*token.tenant, &*token.subject), (TENANT, OBJECT));
    assert_eq!(token.name.as_deref(), Some("alice@contoso.com"));

    let foreign = verified(&verifier(&simulator), &with(&simulator, &ids)).await;
    assert_eq!((&*foreign.tenant, &*foreign.subject), (&*simulator.origin, "user-1"), "it could name anybody");
}

#[tokio::test]
async fn a_key_speaks_for_the_issuer_that_it_belongs_to() {
    let simulator = Simulator::start().await;
    let iss = format!("{}/{TENANT}/v2.0", simulator.origin);
    let claims = with(&simulator, &json!({"iss": iss, "tid": TENANT, "oid": OBJECT}));
    for (issuer, good) in [
        (format!("{}/{{tenantid}}/v2.0", simulator.origin), true),
        (iss.clone(), true),
        (format!("{}/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", simulator.origin), false),
    ] {
        let mut key = tokens::rsa("a").public("a");
        key["issuer"] = issuer.clone().into();
        simulator.publish_keys(&[key]);
        let outcome = entra(&simulator).verify(&tokens::rsa("a").token("a", &claims)).await;
        assert_eq!(outcome.is_ok(), good, "{issuer}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_claim_that_selects_the_account_has_to_be_there() {
    let simulator = Simulator::start().await;
    let config = JwtIssuer { account_claim: Some("upn".to_owned()), ..config(&simulator) };
    let verifier = Verifier::new(&config, simulator.clock.clone()).unwrap();
    let token = verified(&verifier, &with(&simulator, &json!({"upn": "alice"}))).await;
    assert_eq!(token.account.as_deref(), Some("alice"));
    for (upn, expected) in
        [(Value::Null, "it has no upn"), (json!(["alice"]), "its upn is no text"), (json!(""), "its upn is no text")]
    {
        let claims = with(&simulator, &json!({"upn": upn}));
        let why = refusal(&verifier, &tokens::rsa("a").token("a", &claims)).await;
        assert!(why.starts_with(expected), "{why}");
    }
}

#[tokio::test]
async fn required_scopes_are_words() {
    let simulator = Simulator::start().await;
    let required = [("scp".to_owned(), "access_as_user".to_owned()), ("roles".to_owned(), "Reader".to_owned())].into();
    let verifier = Verifier::new(&JwtIssuer { required, ..config(&simulator) }, simulator.clock.clone()).unwrap();
    let good = json!({"scp": "a access_as_user b", "roles": ["Writer", "Reader"]});
    verified(&verifier, &with(&simulator, &good)).await;
    for (name, value) in [("scp", json!("access_as_user2")), ("roles", json!(["Writer"])), ("roles", json!("Reader x"))]
    {
        let mut changes = good.clone();
        changes[name] = value;
        let why = refusal(&verifier, &tokens::rsa("a").token("a", &with(&simulator, &changes))).await;
        assert_eq!(why, format!("its {name} is not the one that is required"));
    }
}

#[tokio::test]
async fn a_token_of_an_application_is_no_user_s() {
    let simulator = Simulator::start().await;
    let verifier = verifier(&simulator);
    for (changes, expected) in [
        (json!({}), true),
        (json!({"scp": null, "scope": "openid x"}), true),
        (json!({"idtyp": "user"}), true),
        (json!({"scp": null}), false),
        (json!({"scp": " "}), false),
        (json!({"scp": null, "roles": ["x"]}), false),
        (json!({"idtyp": "app"}), false),
        (json!({"sub": "app-1"}), false),
        (json!({"sub": "x", "client_id": "x"}), false),
    ] {
        let token = verified(&verifier, &with(&simulator, &changes)).await;
        assert_eq!(token.is_of_a_user(), expected, "{changes}");
    }
}

#[tokio::test]
async fn the_issuer_is_asked_seldom_and_its_silence_is_not_the_token_s_fault() {
    let simulator = Simulator::start().await;
    simulator.answer("/keys", [Answer::text(503, "text/plain", "")]);
    let verifier = verifier(&simulator);
    let token = tokens::rsa("a").token("a", &claims(&simulator));
    for _ in 0..100 {
        let outcome = verifier.verify(&token).await;
        assert!(matches!(&outcome, Err(VerifyError::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(simulator.asked("/keys").len(), 1);
    simulator.publish_keys(&[tokens::rsa("a").public("a")]);
    simulator.clock.advance(Duration::from_secs(30));
    assert!(verifier.verify(&token).await.is_ok());
    for number in 0..100 {
        refusal(&verifier, &tokens::rsa("b").token(&format!("x{number}"), &claims(&simulator))).await;
    }
    assert_eq!(simulator.asked("/keys").len(), 3, "one more for all keys that nobody knows");
    simulator.asked_once("/.well-known/openid-configuration");
}

#[tokio::test]
async fn what_can_t_be_good_asks_nobody() {
    let simulator = Simulator::start().await;
    let verifier = verifier(&simulator);
    for changes in [json!({"exp": 1}), json!({"aud": "x"}), json!({"iss": "https://other"}), json!({"azp": "x"})] {
        refusal(&verifier, &tokens::rsa("a").token("a", &with(&simulator, &changes))).await;
    }
    assert!(simulator.all_asked().is_empty());
}

#[tokio::test]
async fn discovery_is_the_issuer_s_own_and_stays_encrypted() {
    let simulator = Simulator::start().await;
    for (issuer, keys, good) in [
        (simulator.origin.clone(), format!("{}/keys", simulator.origin), true),
        (format!("{}/", simulator.origin), format!("{}/keys", simulator.origin), true),
        ("https://other".to_owned(), format!("{}/keys", simulator.origin), false),
        (simulator.origin.clone(), "http://10.0.0.1/keys".to_owned(), false),
        (simulator.origin.clone(), "file:///etc/passwd".to_owned(), false),
    ] {
        // No more than what Kubernetes says.
        simulator.publish(&json!({"issuer": issuer, "jwks_uri": keys}));
        let outcome = verifier(&simulator).verify(&tokens::rsa("a").token("a", &claims(&simulator))).await;
        assert_eq!(outcome.is_ok(), good, "{issuer} {keys} {outcome:?}");
    }
    let jwks_url = Some(format!("{}/keys", simulator.origin).parse().unwrap());
    let told = Verifier::new(&JwtIssuer { jwks_url, ..config(&simulator) }, simulator.clock.clone()).unwrap();
    let before = simulator.asked("/.well-known/openid-configuration").len();
    verified(&told, &claims(&simulator)).await;
    assert_eq!(simulator.asked("/.well-known/openid-configuration").len(), before, "it is told where the keys are");
}

#[test]
fn whoever_a_token_says_that_it_is_from() {
    let of = |claims: &str| issuer_of(&format!("{}.AA", message("{}", claims)));
    assert_eq!(of(r#"{"iss":"https://a","x":[1]}"#).as_deref(), Some("https://a"));
    for none in [r#"{"iss":1}"#, "{}", "[]", r#"{"iss":"a","iss":"b"}"#] {
        assert_eq!(of(none), None, "{none}");
    }
    for none in ["", "bk_key", "a.b", "a.b.c", "a.e30.c.d", "....."] {
        assert_eq!(issuer_of(none), None, "{none}");
    }
}
