//! Sign-in: discovery, keys, the authorize page, codes, devices, clients.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bearerd::sandbox::entra::KeyName;
use bearerd::sandbox::{Effect, EntraOptions, Fault, Flaw};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::client::{self, get, post, sandbox, send, token, verified};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://localhost:9999/callback";
const SCOPE: &str = "openid profile email offline_access User.Read";

/// An authorize target with what a proxy sends, and `more`.
fn authorize(entra: &bearerd::sandbox::Entra, tenant: &str, more: &[(&str, &str)]) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("client_id", entra.options().client_id.as_str()),
            ("response_type", "code"),
            ("redirect_uri", REDIRECT),
            ("scope", SCOPE),
            ("state", "st+a/te="),
            ("nonce", "n-0S6_WzA2Mj"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ])
        .extend_pairs(more)
        .finish();
    format!("/{tenant}/oauth2/v2.0/authorize?{query}")
}

fn callback(reply: &client::Reply) -> Vec<(String, String)> {
    assert_eq!(reply.status, 302, "{:?}", reply.body);
    let location = Url::parse(reply.header("location")).unwrap();
    assert!(location.as_str().starts_with(REDIRECT));
    location.query_pairs().into_owned().collect()
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

fn redeem<'a>(code: &'a str, verifier: &'a str) -> [(&'a str, &'a str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT), ("code_verifier", verifier)]
}

#[tokio::test]
async fn discovery_speaks_of_the_tenant_that_was_asked_for() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let origin = entra.origin().origin().ascii_serialization();
    let tenant = &entra.options().tenant;
    for (asked, place, issuer) in [
        (tenant.as_str(), tenant.as_str(), tenant.as_str()),
        (entra.options().domain.as_str(), tenant, tenant),
        ("common", "common", "{tenantid}"),
        ("organizations", "organizations", "{tenantid}"),
    ] {
        let reply = get(entra.address(), &format!("/{asked}/v2.0/.well-known/openid-configuration")).await;
        assert_eq!(reply.header("cache-control"), "max-age=86400, private");
        let document = reply.json();
        assert_eq!(document["issuer"], format!("{origin}/{issuer}/v2.0"));
        assert_eq!(document["token_endpoint"], format!("{origin}/{place}/oauth2/v2.0/token"));
        assert_eq!(document["jwks_uri"], format!("{origin}/{place}/discovery/v2.0/keys"));
    }
    assert_eq!(entra.discovery_fetches(), 4);
    let unknown = get(entra.address(), "/nobody.example/v2.0/.well-known/openid-configuration").await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["error_codes"]), (400, &json!([90002])));
}

#[tokio::test]
async fn a_code_becomes_tokens_once() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let tenant = entra.options().tenant.clone();
    let page = get(entra.address(), &authorize(entra, &tenant, &[("login_hint", "bob@contoso.example")])).await;
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(html.contains("Simulated Microsoft sign-in"));
    assert!(html.find("value=\"bob\"").unwrap() < html.find("value=\"alice\"").unwrap(), "the hinted user comes first");

    let back = callback(&post(entra, &authorize(entra, &tenant, &[]), "user=alice").await.unwrap());
    assert_eq!(value(&back, "state"), "st+a/te=");
    let code = value(&back, "code");
    let wrong = token(entra, &redeem(code, &"w".repeat(43))).await;
    assert_eq!((&wrong.json()["error"], &wrong.json()["error_codes"]), (&json!("invalid_grant"), &json!([501_481])));
    let elsewhere = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", "http://localhost:9999/other"),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(token(entra, &elsewhere).await.json()["error_codes"], json!([500_112]));

    let reply = token(entra, &redeem(code, VERIFIER)).await;
    assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, "no-store, no-cache"));
    let body = reply.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(body["scope"], "openid profile email User.Read");
    assert_eq!(body["access_token"].as_str().unwrap().len(), 2048);
    let (header, claims) = verified(entra, body["id_token"].as_str().unwrap()).await.unwrap();
    let alice = entra.user("alice").unwrap();
    assert_eq!(header["alg"], "RS256");
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(entra.issuer()), &json!(entra.options().client_id)));
    assert_eq!((&claims["oid"], &claims["tid"]), (&json!(alice.oid), &json!(tenant)));
    assert_eq!((&claims["nonce"], &claims["ver"]), (&json!("n-0S6_WzA2Mj"), &json!("2.0")));
    assert_eq!(claims["preferred_username"], json!(alice.mail));

    let again = token(entra, &redeem(code, VERIFIER)).await;
    assert_eq!((again.status.as_u16(), &again.json()["error_codes"]), (400, &json!([54005])));
    let outcomes: Vec<_> = entra.token_requests().into_iter().map(|request| request.outcome).collect();
    assert_eq!(outcomes, ["400 invalid_grant 501481", "400 invalid_client 500112", "200", "400 invalid_grant 54005"]);
    assert!(entra.token_requests().iter().all(|request| request.user.as_deref() == Some("alice")));
}

#[tokio::test]
async fn the_ways_through_the_authorize_page() {
    let (sandbox, clock) = sandbox();
    let entra = &sandbox.entra;
    let visit = async |more: &[(&str, &str)]| get(entra.address(), &authorize(entra, "common", more)).await;
    let silent = [("prompt", "none")];
    assert_eq!(value(&callback(&visit(&silent).await), "error"), "login_required");
    let hinted = [("prompt", "none"), ("login_hint", "bob")];
    assert!(!value(&callback(&visit(&hinted).await), "code").is_empty());
    let denied = post(entra, &authorize(entra, "common", &[]), "deny=1").await.unwrap();
    assert_eq!(value(&callback(&denied), "error"), "access_denied");
    let posted = visit(&[("response_mode", "form_post"), ("bearerd_user", "alice")]).await;
    let html = String::from_utf8(posted.body.to_vec()).unwrap();
    assert!(html.contains(&format!("action=\"{REDIRECT}\"")) && html.contains("name=\"code\""));
    let stranger = get(entra.address(), "/common/oauth2/v2.0/authorize?client_id=other&redirect_uri=http://x/").await;
    assert_eq!(stranger.status, 400);

    // A code is good for the tenant that it was issued under, and for ten minutes.
    let back = callback(&visit(&[("bearerd_user", "alice")]).await);
    let under_another_tenant = token(entra, &redeem(value(&back, "code"), VERIFIER)).await;
    assert_eq!(under_another_tenant.json()["error_codes"], json!([700_005]));
    clock.advance(std::time::Duration::from_mins(10));
    let target = authorize(entra, &entra.options().tenant, &[("bearerd_user", "alice")]);
    let back = callback(&get(entra.address(), &target).await);
    clock.advance(std::time::Duration::from_mins(10));
    assert_eq!(token(entra, &redeem(value(&back, "code"), VERIFIER)).await.json()["error_codes"], json!([70008]));
    let asked = entra.authorize_requests();
    assert_eq!(value(&asked[1].parameters, "login_hint"), "bob");
}

#[tokio::test]
async fn consent_may_cover_several_resources_and_the_code_is_for_the_first() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let target = authorize(entra, &entra.options().tenant, &[("bearerd_user", "alice")]);
    let target = target.replace("scope=", "scope=api%3A%2F%2Fbilling%2FRead+");
    let back = callback(&get(entra.address(), &target).await);
    let first = token(entra, &redeem(value(&back, "code"), VERIFIER)).await.json();
    let granted = first["scope"].as_str().unwrap();
    assert!(granted.contains("api://billing/Read") && !granted.contains("User.Read"), "{granted}");
    let refresh_token = first["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("scope", "User.Read")];
    assert_eq!(token(entra, &form).await.json()["scope"], "User.Read");
}

#[tokio::test]
async fn a_device_waits_for_a_person() {
    let (sandbox, clock) = sandbox();
    let entra = &sandbox.entra;
    let tenant = entra.options().tenant.clone();
    let form = format!("client_id={}&scope=openid+profile+offline_access+Mail.Read", entra.options().client_id);
    let start = async || {
        let reply = post(entra, &format!("/{tenant}/oauth2/v2.0/devicecode"), &form).await.unwrap();
        assert_eq!(reply.status, 200);
        reply.json()
    };
    let poll = async |device: &Value| {
        let code = device["device_code"].as_str().unwrap();
        token(entra, &[("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code)]).await
    };
    let device = start().await;
    let code = device["user_code"].as_str().unwrap();
    assert!(device["message"].as_str().unwrap().contains(code));
    assert_eq!(poll(&device).await.json()["error"], "authorization_pending");
    let page = Url::parse(device["verification_uri"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8_lossy(&get(entra.address(), page.path()).await.body).contains("name=\"user_code\""));
    let mistyped = post(entra, page.path(), "user_code=WRONG&user=bob").await.unwrap();
    assert_eq!(mistyped.status, 400);
    let typed = format!("user_code={}&user=bob", code.to_lowercase());
    assert_eq!(post(entra, page.path(), &typed).await.unwrap().status, 200);
    let done = poll(&device).await.json();
    let (_, claims) = verified(entra, done["id_token"].as_str().unwrap()).await.unwrap();
    assert_eq!(claims["oid"], json!(entra.user("bob").unwrap().oid));
    assert!(done["refresh_token"].is_string());
    assert_eq!(poll(&device).await.json()["error_codes"], json!([54005]));

    let declined = start().await;
    assert!(entra.decline_device(declined["user_code"].as_str().unwrap()));
    assert_eq!(poll(&declined).await.json()["error"], "authorization_declined");
    let late = start().await;
    clock.advance(std::time::Duration::from_mins(15));
    assert_eq!(poll(&late).await.json()["error"], "expired_token");
    assert!(!entra.approve_device(late["user_code"].as_str().unwrap(), "alice"));
}

#[tokio::test]
async fn the_client_has_to_prove_itself() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let grant = sandbox.grant("alice").unwrap();
    let target = format!("/{}/oauth2/v2.0/token", grant.tenant);
    let body = format!("grant_type=refresh_token&refresh_token={}", grant.refresh_token);
    let id = entra.options().client_id.clone();
    let wrong = post(entra, &target, &format!("{body}&client_id={id}&client_secret=wrong")).await.unwrap();
    assert_eq!((wrong.status.as_u16(), &wrong.json()["error"]), (401, &json!("invalid_client")));
    let error = wrong.json();
    assert_eq!(error["error_codes"], json!([7_000_215]));
    assert!(error["error_description"].as_str().unwrap().starts_with("AADSTS7000215: "));
    assert_eq!(error["timestamp"], "2027-01-15 08:00:00Z");
    for field in ["trace_id", "correlation_id", "error_uri"] {
        assert!(error[field].is_string(), "{field}");
    }
    let none = post(entra, &target, &format!("{body}&client_id={id}")).await.unwrap();
    assert_eq!(none.json()["error_codes"], json!([7_000_218]));
    let other = post(entra, &target, &format!("{body}&client_id=other&client_secret=x")).await.unwrap();
    assert_eq!(other.json()["error_codes"], json!([700_016]));

    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:sandbox%2Dclient%2Dsecret")));
    let headers = [("authorization", basic.as_str())];
    let reply = send(entra.address(), "POST", &target, &headers, body.clone()).await.unwrap();
    assert_eq!(reply.status, 200, "both parts of Basic are form-encoded");

    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "iss": id, "sub": id, "aud": format!("{}{}", entra.origin(), &target[1..]), "jti": "1",
        "nbf": client::START.secs().to_string(), "exp": client::START.secs() + 600 });
    let assertion = format!("{}.{}.c2ln", encode(json!({ "alg": "PS256" })), encode(claims));
    let asserted = format!(
        "{body}&client_id={id}&client_assertion={assertion}&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
    );
    assert_eq!(post(entra, &target, &asserted).await.unwrap().status, 200);
    assert_eq!(post(entra, &target, &asserted).await.unwrap().status, 200, "as often as one likes, while it lives");
    let presented = entra.refresh_token(&grant.refresh_token).unwrap();
    assert_eq!((presented.presented, presented.redeemed), (6, 3));

    let (public, _) = client::entra(EntraOptions { client_secret: None, ..EntraOptions::default() });
    let grant = public.grant("alice", "User.Read").unwrap();
    assert_eq!(client::refresh(&public, &grant.refresh_token).await.status, 200);
    let form =
        format!("grant_type=refresh_token&refresh_token={}&client_id={id}&client_secret=unasked", grant.refresh_token);
    assert_eq!(post(&public, &target, &form).await.unwrap().json()["error_codes"], json!([700_025]));
}

#[tokio::test]
async fn keys_rotate_and_identity_tokens_break_one_rule_at_a_time() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let grant = sandbox.grant("alice").unwrap();
    let id_token = async || {
        let body = client::refresh(entra, &grant.refresh_token).await.json();
        body["id_token"].as_str().unwrap().to_owned()
    };
    let first = verified(entra, &id_token().await).await.unwrap().0;
    entra.sign_with(KeyName::Second);
    let second = verified(entra, &id_token().await).await.unwrap().0;
    assert_ne!(first["kid"], second["kid"]);
    entra.publish_keys(&[KeyName::First]);
    assert_eq!(verified(entra, &id_token().await).await.unwrap_err(), "kid");
    entra.publish_keys(&[KeyName::First, KeyName::Second, KeyName::Consumer]);

    for (flaw, breach) in [
        (Flaw::Issuer, Some("issuer of the key")),
        (Flaw::Signature, Some("signature")),
        (Flaw::UnknownKey, Some("kid")),
        (Flaw::NoKeyId, Some("kid")),
        (Flaw::ConsumerKey, Some("issuer of the key")),
        (Flaw::AlgorithmNone, Some("signature")),
        (Flaw::AlgorithmHmac, Some("signature")),
        (Flaw::NotAToken, Some("shape")),
        (Flaw::OtherUser, None),
        (Flaw::Expired, None),
        (Flaw::NoSubject, None),
    ] {
        entra.faults().push(Fault::token(Effect::IdToken(flaw)));
        let token = id_token().await;
        assert_eq!(verified(entra, &token).await.err(), breach, "{flaw:?}");
    }
    assert_eq!(entra.faults().waiting(), 0);
    assert!(verified(entra, &id_token().await).await.is_ok());
}

#[tokio::test]
async fn a_registered_certificate_has_to_match() {
    let pem = include_str!("../../src/sandbox/keys/second.pem");
    let key = rcgen::KeyPair::from_pem(pem).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["app.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (entra, _) = client::entra(EntraOptions {
        client_secret: None,
        client_certificate: Some(certificate.pem()),
        single_use_assertions: true,
        ..EntraOptions::default()
    });
    let id = entra.options().client_id.clone();
    let pair = ring::signature::RsaKeyPair::from_pkcs8(key.serialized_der()).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
    let assertion = |jti: &str, sub: &str, thumbprint: &str| {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({ "iss": id, "sub": sub, "aud": entra.origin().as_str(), "jti": jti,
            "exp": client::START.secs() + 600 });
        let input =
            format!("{}.{}", encode(json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint })), encode(claims));
        let mut signature = vec![0; pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        pair.sign(&ring::signature::RSA_PSS_SHA256, &random, input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let grant = entra.grant("alice", "User.Read").unwrap();
    let ask = async |assertion: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", grant.refresh_token.as_str()),
            ("client_assertion", assertion),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ];
        let reply = token(&entra, &fields).await;
        (reply.status.as_u16(), reply.json()["error_codes"][0].as_u64())
    };
    let good = assertion("1", &id, &thumbprint);
    assert_eq!(ask(&format!("{}AAAA", &good[..good.len() - 4])).await, (401, Some(700_027)));
    assert_eq!(ask(&good).await, (200, None));
    assert_eq!(ask(&good).await, (401, Some(50012)));
    assert_eq!(ask(&assertion("2", "somebody else", &thumbprint)).await, (401, Some(50048)));
    assert_eq!(ask(&assertion("3", &id, "of another certificate")).await, (401, Some(700_027)));
    assert_eq!(ask("no.assertion").await, (401, Some(700_027)));
}
