//! Every rule of an identity token, broken once.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bearerd::config::ProviderKind;
use bearerd::oauth::{Identity, Provider, SignInError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::provider::{Answer, CLIENT, NOW, Simulator, TENANT, entra_account, success};
use crate::tokens::{self, RSA_A_PUBLIC, hs256, message, rsa};

const NONCE: &str = "nonce-1";

/// Redeems a code for this token.
async fn identify(simulator: &Simulator, provider: &Provider, token: &str) -> Result<Identity, SignInError> {
    simulator.token_answer(Answer::json(200, &success(token)));
    let (code, verifier, nonce) = ("code-1".into(), "v".into(), NONCE.into());
    let redeemed = provider.redeem_code(&code, "http://localhost/", &verifier, &nonce, &[], None).await;
    redeemed.map(|signed_in| signed_in.identity)
}

async fn refusal(simulator: &Simulator, provider: &Provider, token: &str) -> String {
    match identify(simulator, provider, token).await {
        Err(SignInError::Identity(why)) => why,
        Err(SignInError::Tenant(tenant)) => format!("tenant {tenant}"),
        other => panic!("{other:?}"),
    }
}

fn entra_claims(simulator: &Simulator) -> Value {
    let mut claims = simulator.entra_claims();
    claims["nonce"] = NONCE.into();
    claims
}

fn oidc_claims(simulator: &Simulator) -> Value {
    let mut claims = simulator.oidc_claims();
    claims["nonce"] = NONCE.into();
    claims
}

/// `changes` laid over `claims`; null removes.
fn changed(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn good_tokens() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let now = NOW.secs();
    for changes in [
        json!({}),
        json!({"aud": [CLIENT]}),
        json!({"aud": [CLIENT, "other"], "azp": CLIENT}),
        json!({"nbf": null}),
        json!({"exp": now - 299}),
        json!({"iat": now + 300, "nbf": now + 300}),
        json!({"at_hash": BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest("access-token-1")[..16])}),
    ] {
        let token = rsa("a").token("a", &changed(entra_claims(&simulator), &changes));
        let identity = identify(&simulator, &provider, &token).await.unwrap();
        assert_eq!(identity.key, entra_account(), "{changes}");
    }
    let names = json!({"preferred_username": null, "upn": "upn@contoso.com", "name": "A\u{202e}lice\n"});
    let token = rsa("a").token("a", &changed(entra_claims(&simulator), &names));
    let identity = identify(&simulator, &provider, &token).await.unwrap();
    assert_eq!((identity.username.as_deref(), identity.name.as_deref()), (Some("upn@contoso.com"), Some("Alice")));

    let generic = simulator.oidc();
    let unnamed = rsa("a").sign(&json!({"alg": "RS256"}), &oidc_claims(&simulator));
    for token in [rsa("a").token("a", &oidc_claims(&simulator)), unnamed] {
        let identity = identify(&simulator, &generic, &token).await.unwrap();
        assert_eq!(identity.key, simulator.oidc_account());
        assert_eq!(identity.username.as_deref(), Some("alice@example.com"));
    }
}

#[tokio::test]
async fn claims_that_break_a_rule() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let now = NOW.secs();
    let other = "99999999-2222-3333-4444-555555555555";
    for (changes, why) in [
        (json!({"exp": null}), "it has no exp"),
        (json!({"exp": "9999999999"}), "its exp is no time"),
        (json!({"exp": 9_999_999_999.5}), "its exp is no time"),
        (json!({"exp": -1}), "its exp is no time"),
        (json!({"exp": true}), "its exp is no time"),
        (json!({"exp": [9_999_999_999_i64]}), "its exp is no time"),
        (json!({"exp": 18_446_744_073_709_551_615_u64}), "its exp is no time"),
        (json!({"exp": now - 300}), "it has expired"),
        (json!({"iat": null}), "it has no iat"),
        (json!({"iat": "1"}), "its iat is no time"),
        (json!({"iat": now + 301}), "it is from the future"),
        (json!({"nbf": "0"}), "its nbf is no time"),
        (json!({"nbf": 0.5}), "its nbf is no time"),
        (json!({"nbf": now + 301}), "it is from the future"),
        (json!({"iss": null}), "it has no iss"),
        (json!({"iss": 5}), "its iss is no text"),
        (json!({"iss": "https://evil.test"}), "its issuer is"),
        (json!({"iss": format!("https://sts.windows.net/{TENANT}/")}), "its issuer is"),
        (json!({"iss": format!("{}/{other}/v2.0", simulator.origin)}), "its issuer is"),
        (json!({"iss": format!("{}/{TENANT}/v2.0/", simulator.origin)}), "its issuer is"),
        (json!({"tid": null}), "it has no tid"),
        (json!({"tid": "contoso.com"}), "its tid is no GUID"),
        (json!({"tid": other}), "its issuer is"),
        (json!({"aud": null}), "it has no aud"),
        (json!({"aud": 5}), "its aud is neither"),
        (json!({"aud": {"a": CLIENT}}), "its aud is neither"),
        (json!({"aud": ""}), "its audience is not"),
        (json!({"aud": "00000003-0000-0000-c000-000000000000"}), "its audience is not"),
        (json!({"aud": ["a", "b"]}), "its audience is not"),
        (json!({"aud": [CLIENT, 5], "azp": CLIENT}), "its audience is not"),
        (json!({"aud": []}), "its audience is not"),
        (json!({"aud": [CLIENT, "other"]}), "it has several audiences"),
        (json!({"azp": "other"}), "its authorized party"),
        (json!({"azp": 5}), "its authorized party"),
        (json!({"nonce": null}), "its nonce is not"),
        (json!({"nonce": "other"}), "its nonce is not"),
        (json!({"nonce": [NONCE]}), "its nonce is not"),
        (json!({"sub": null}), "it has no sub"),
        (json!({"sub": ""}), "its sub is no text"),
        (json!({"sub": 5}), "its sub is no text"),
        (json!({"oid": null}), "it has no oid"),
        (json!({"at_hash": "AAAA"}), "its at_hash is not"),
        (json!({"at_hash": 5}), "its at_hash is not"),
        (json!({"TID": other}), "two of its claims differ"),
        (json!({"Exp": now + 7200}), "two of its claims differ"),
        (json!({"iat": 0.5}), "its iat is no time"),
        (json!({"tid": TENANT.replace('-', "")}), "its tid is no GUID"),
        (json!({"tid": 5}), "its tid is no text"),
    ] {
        let token = rsa("a").token("a", &changed(entra_claims(&simulator), &changes));
        let text = refusal(&simulator, &provider, &token).await;
        assert!(text.starts_with(why), "{changes}: {text}");
    }
    let generic = simulator.oidc();
    for (changes, why) in [
        (json!({"iss": format!("{}/", simulator.origin)}), "its issuer is"),
        (json!({"sub": null}), "it has no sub"),
        (json!({"aud": "other"}), "its audience is not"),
    ] {
        let token = rsa("a").token("a", &changed(oidc_claims(&simulator), &changes));
        let text = refusal(&simulator, &generic, &token).await;
        assert!(text.starts_with(why), "{changes}: {text}");
    }
}

/// Nothing that a token brings along is used, and nothing that it points to is fetched.
#[tokio::test]
async fn tokens_that_bring_their_own_key() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    provider.ready().await.unwrap();
    let claims = entra_claims(&simulator);
    let here = format!("{}/theirs", simulator.origin);
    let good = rsa("a").token("a", &claims);
    let signature = good.rsplit_once('.').unwrap().1.to_owned();
    let evil = rsa("b");
    let own = evil.public("b");
    let unsigned =
        |alg: &str| format!("{}.", message(&json!({"alg": alg, "kid": "a"}).to_string(), &claims.to_string()));
    let public = RSA_A_PUBLIC.as_bytes();
    let cases = [
        ("none", unsigned("none"), "its alg \"none\" is not allowed"),
        ("nOnE", unsigned("nOnE"), "its alg \"nOnE\" is not allowed"),
        ("no signature", unsigned("RS256"), "its signature is wrong"),
        ("public key as secret", hs256(public, &json!({"alg": "HS256", "kid": "a"}), &claims), "its alg \"HS256\""),
        ("another allowed key type", tokens::p256().token("a", &claims), "its alg \"ES256\""),
        ("PS256 is not Entra's", evil.sign(&json!({"alg": "PS256", "kid": "a"}), &claims), "its alg \"PS256\""),
        ("no alg", evil.sign(&json!({"kid": "a"}), &claims), "its alg \"\""),
        ("alg is a number", evil.sign(&json!({"alg": 5, "kid": "a"}), &claims), "its alg \"\""),
        ("another key", evil.token("a", &claims), "its signature is wrong"),
        ("jwk", evil.sign(&json!({"alg": "RS256", "kid": "a", "jwk": own}), &claims), "its signature is wrong"),
        ("jku", evil.sign(&json!({"alg": "RS256", "kid": "a", "jku": here}), &claims), "its signature is wrong"),
        ("x5u", evil.sign(&json!({"alg": "RS256", "kid": "a", "x5u": here}), &claims), "its signature is wrong"),
        ("x5c", evil.sign(&json!({"alg": "RS256", "kid": "a", "x5c": ["MIIB"]}), &claims), "its signature is wrong"),
        ("no kid", rsa("a").sign(&json!({"alg": "RS256"}), &claims), "it has no kid"),
        ("kid is a number", rsa("a").sign(&json!({"alg": "RS256", "kid": 5}), &claims), "its kid is no text"),
        ("kid is a path", evil.token("../../etc/passwd", &claims), "no key of the provider"),
        ("kid is SQL", evil.token("a' or '1'='1", &claims), "no key of the provider"),
        ("kid breaks lines", evil.token("a\r\nX: y", &claims), "no key of the provider"),
        (
            "crit",
            rsa("a").sign(&json!({"alg": "RS256", "kid": "a", "crit": ["b64"], "b64": false}), &claims),
            "it has a crit",
        ),
        (
            "access token",
            rsa("a").sign(&json!({"alg": "RS256", "kid": "a", "typ": "at+jwt"}), &claims),
            "its typ is not JWT",
        ),
        (
            "foreign signature",
            format!("{}.{signature}", message(r#"{"alg":"RS256","kid":"a"}"#, "{}")),
            "its signature",
        ),
        ("two parts", "e30.e30".to_owned(), "it has not three parts"),
        ("four parts", format!("{good}.AAAA"), "it has not three parts"),
        ("five parts", "e30.e30.e30.e30.e30".to_owned(), "it has not three parts"),
        ("padding", format!("{}=", good.replacen('.', "=.", 1)), "its header is not base64url"),
        ("not JSON", "AAAA.AAAA.AAAA".to_owned(), "its header can't be read"),
        (
            "huge header",
            rsa("a").token(&"k".repeat(5 << 20), &claims).chars().take(900_000).collect(),
            "it is too long",
        ),
        (
            "exp twice",
            rsa("a").sign_text(r#"{"alg":"RS256","kid":"a"}"#, &claims.to_string().replacen('{', r#"{"exp":1,"#, 1)),
            "its payload can't be read",
        ),
        (
            "alg twice",
            rsa("a").sign_text(r#"{"alg":"none","alg":"RS256","kid":"a"}"#, &claims.to_string()),
            "its header can't be read",
        ),
        (
            "exp without a value",
            rsa("a").sign_text(r#"{"alg":"RS256","kid":"a"}"#, r#"{"exp":1e400}"#),
            "its payload can't be read",
        ),
    ];
    for (name, token, why) in cases {
        let text = refusal(&simulator, &provider, &token).await;
        assert!(text.starts_with(why), "{name}: {text}");
    }
    assert!(simulator.asked("/theirs").is_empty(), "no address from a token is asked");
    assert_eq!(simulator.asked("/keys").len(), 2, "the first fetch, and one for unknown names");
    identify(&simulator, &provider, &good).await.unwrap();
}

#[tokio::test]
async fn a_token_has_256_000_bytes_at_most() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let padded = |padding: usize| {
        let changes = json!({"padding": "x".repeat(padding)});
        rsa("a").token("a", &changed(entra_claims(&simulator), &changes))
    };
    // Three bytes more are four characters more.
    let mut padding = (256_000 - padded(0).len()) / 4 * 3;
    while padded(padding + 1).len() <= 256_000 {
        padding += 1;
    }
    identify(&simulator, &provider, &padded(padding)).await.unwrap();
    assert_eq!(refusal(&simulator, &provider, &padded(padding + 1)).await, "it is too long");
}

#[tokio::test]
async fn r_and_s_may_not_be_zero() {
    let simulator = Simulator::start().await;
    simulator.publish_keys(&[tokens::p256().public("e")]);
    let claims = oidc_claims(&simulator);
    let good = tokens::p256().token("e", &claims);
    let psychic = format!("{}.{}", good.rsplit_once('.').unwrap().0, BASE64_URL_SAFE_NO_PAD.encode([0; 64]));
    let provider = simulator.oidc();
    assert_eq!(refusal(&simulator, &provider, &psychic).await, "its signature is wrong");
    identify(&simulator, &provider, &good).await.unwrap();
}

#[tokio::test]
async fn without_a_kid_one_key_must_fit() {
    let simulator = Simulator::start().await;
    simulator.publish_keys(&[rsa("a").public("a"), rsa("b").public("b")]);
    let token = rsa("a").sign(&json!({"alg": "RS256"}), &oidc_claims(&simulator));
    let text = refusal(&simulator, &simulator.oidc(), &token).await;
    assert!(text.starts_with("no key of the provider"), "{text}");
}

#[tokio::test]
async fn a_key_speaks_for_its_issuer_and_its_cloud_only() {
    let template = |simulator: &Simulator| format!("{}/{{tenantid}}/v2.0", simulator.origin);
    let exact = |simulator: &Simulator, tenant: &str| format!("{}/{tenant}/v2.0", simulator.origin);
    let consumers = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let simulator = Simulator::start().await;
    let mut metadata = simulator.metadata();
    metadata["cloud_instance_name"] = "microsoftonline.com".into();
    simulator.publish(&metadata);
    let ours = || json!("microsoftonline.com");
    for (issuer, cloud, expected) in [
        (json!(template(&simulator)), ours(), None),
        (json!(exact(&simulator, TENANT)), Value::Null, None),
        (json!(exact(&simulator, consumers)), ours(), Some("its key is another issuer's")),
        (json!("https://evil.test/{tenantid}/v2.0"), ours(), Some("its key is another issuer's")),
        (Value::Null, json!("microsoftonline.us"), Some("its key is another cloud's")),
    ] {
        let mut key = rsa("a").public("a");
        key["issuer"] = issuer;
        key["cloud_instance_name"] = cloud;
        simulator.publish_keys(&[key]);
        let token = rsa("a").token("a", &entra_claims(&simulator));
        let outcome = identify(&simulator, &simulator.entra(), &token).await;
        match (outcome, expected) {
            (Ok(_), None) => {}
            (Err(SignInError::Identity(why)), Some(expected)) => assert_eq!(why, expected),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn tenants() {
    let simulator = Simulator::start().await;
    let consumers = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let other = "99999999-2222-3333-4444-555555555555";
    let token = |tenant: &str| {
        let changes = json!({"tid": tenant, "iss": format!("{}/{tenant}/v2.0", simulator.origin)});
        rsa("a").token("a", &changed(entra_claims(&simulator), &changes))
    };
    for (tenant, allowed, presented, expected) in [
        ("common", &[][..], TENANT, true),
        ("common", &[], consumers, true),
        ("common", &[TENANT], other, false),
        ("common", &[TENANT, other], other, true),
        ("organizations", &[], TENANT, true),
        ("organizations", &[], consumers, false),
        ("consumers", &[], consumers, true),
        ("contoso.com", &[], TENANT, true),
        (TENANT, &[other], TENANT, false),
        (TENANT, &[TENANT], TENANT, true),
    ] {
        let mut config = simulator.entra_config();
        let authority = simulator.origin.parse().unwrap();
        config.kind = ProviderKind::Entra { authority, tenant: tenant.to_owned() };
        config.allowed_tenants = allowed.iter().map(|tenant| (*tenant).to_owned()).collect();
        let outcome = identify(&simulator, &simulator.provider(&config), &token(presented)).await;
        match outcome {
            Ok(identity) => assert!(expected && identity.key.tenant == presented, "{tenant} {allowed:?} {presented}"),
            Err(SignInError::Tenant(named)) => assert!(!expected && named == presented, "{tenant} {allowed:?}"),
            Err(error) => panic!("{tenant} {allowed:?} {presented}: {error}"),
        }
    }
    // A template does not let a token choose its own issuer.
    let mut config = simulator.entra_config();
    config.kind = ProviderKind::Entra { authority: simulator.origin.parse().unwrap(), tenant: "common".to_owned() };
    let claims = changed(entra_claims(&simulator), &json!({"tid": other}));
    let text = refusal(&simulator, &simulator.provider(&config), &rsa("a").token("a", &claims)).await;
    assert!(text.starts_with("its issuer is"), "{text}");
}
