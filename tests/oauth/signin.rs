//! Sign-ins: what the browser is sent with, and what comes of a code or a device code.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bearerd::claims::Claims;
use bearerd::config::{AppCredential, ProviderKind};
use bearerd::oauth::{Authorize, AuthorizeOptions, Class, DevicePoll, Provider, SignInError, SignedIn};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::provider::{Answer, CLIENT, ENTRA_TOKEN, OBJECT, Simulator, TENANT, entra_account, success};
use crate::tokens;

const CALLBACK: &str = "http://localhost:8080/.bearerd/callback/idp";

fn options() -> AuthorizeOptions {
    AuthorizeOptions {
        redirect_uri: CALLBACK.to_owned(),
        scopes: vec!["User.Read".to_owned(), "profile".to_owned()],
        ..AuthorizeOptions::default()
    }
}

fn query(authorize: &Authorize) -> BTreeMap<String, String> {
    authorize.url.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn the_way_out_to_entra() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let authorize = provider.authorize(&options()).await.unwrap();
    assert_eq!(authorize.url.path(), format!("/{TENANT}/oauth2/v2.0/authorize"));
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(authorize.verifier.expose()));
    let expected = [
        ("client_id", CLIENT),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("nonce", authorize.nonce.expose()),
        ("redirect_uri", CALLBACK),
        ("response_mode", "query"),
        ("response_type", "code"),
        ("scope", "User.Read profile openid offline_access"),
        ("state", authorize.state.expose()),
    ];
    assert_eq!(query(&authorize), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert!(authorize.state.expose().len() == 43 && authorize.verifier.expose().len() == 43);
    assert!(simulator.all_asked().is_empty(), "Entra's endpoints need no discovery");

    let again = provider.authorize(&options()).await.unwrap();
    assert_ne!(again.state.expose(), authorize.state.expose());
    assert_ne!(again.verifier.expose(), authorize.verifier.expose());
}

#[tokio::test]
async fn what_may_be_added() {
    let simulator = Simulator::start().await;
    let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
    let more = AuthorizeOptions {
        login_hint: Some("alice+1@contoso.com".to_owned()),
        prompt: Some("select_account".to_owned()),
        claims: Claims::parse(claims),
        ..options()
    };
    let query = query(&simulator.entra().authorize(&more).await.unwrap());
    assert_eq!(query["login_hint"], "alice+1@contoso.com");
    assert_eq!(query["prompt"], "select_account");
    assert_eq!(query["claims"], claims);
}

#[tokio::test]
async fn generic_providers_are_asked_for_consent() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    for (prompt, expected) in [
        (None, "consent"),
        (Some("login"), "login consent"),
        (Some("consent login"), "consent login"),
        (Some("none"), "none"),
    ] {
        let authorize = provider.authorize(&AuthorizeOptions { prompt: prompt.map(str::to_owned), ..options() }).await;
        let query = query(&authorize.unwrap());
        assert_eq!(query["prompt"], expected);
        assert_eq!(query["kept"], "1", "the endpoint's own query stays");
    }
}

async fn redeem(provider: &Provider, authorize: &Authorize, issuer: Option<&str>) -> Result<SignedIn, SignInError> {
    let scopes = options().scopes;
    provider.redeem_code(&"code-1".into(), CALLBACK, &authorize.verifier, &authorize.nonce, &scopes, issuer).await
}

#[tokio::test]
async fn a_code_becomes_a_person_and_tokens() {
    let simulator = Simulator::start().await;
    let provider = simulator
        .with_credentials(simulator.entra_config(), vec![AppCredential::Secret { secret: "s".into(), expires: None }]);
    let authorize = provider.authorize(&options()).await.unwrap();
    let mut claims = simulator.entra_claims();
    claims["nonce"] = authorize.nonce.expose().as_str().into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
    let signed_in = redeem(&provider, &authorize, None).await.unwrap();
    assert_eq!(signed_in.identity.key, entra_account());
    assert_eq!(signed_in.identity.key.subject, OBJECT);
    assert_eq!(signed_in.identity.username.as_deref(), Some("alice@contoso.com"));
    assert_eq!(signed_in.identity.name.as_deref(), Some("Alice"));
    assert_eq!(signed_in.reply.refresh_token.unwrap().expose(), "refresh-token-2");

    let asked = simulator.asked_once(ENTRA_TOKEN);
    assert_eq!(asked.form["grant_type"], "authorization_code");
    assert_eq!(asked.form["code"], "code-1");
    assert_eq!(asked.form["redirect_uri"], CALLBACK);
    let presented = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&asked.form["code_verifier"]));
    assert_eq!(presented, query(&authorize)["code_challenge"]);
    assert_eq!(asked.form["client_secret"], "s");
}

#[tokio::test]
async fn sign_ins_that_come_to_nothing() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    let authorize = provider.authorize(&options()).await.unwrap();
    let mut claims = simulator.oidc_claims();
    claims["nonce"] = authorize.nonce.expose().as_str().into();
    let good = success(&tokens::rsa("a").token("a", &claims));
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        Answer::json(200, &body)
    };
    simulator.token_answer(without("refresh_token"));
    assert!(matches!(redeem(&provider, &authorize, None).await, Err(SignInError::NoRefreshToken)));
    simulator.token_answer(without("id_token"));
    assert!(matches!(redeem(&provider, &authorize, None).await, Err(SignInError::Identity(_))));
    claims["nonce"] = "another".into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
    assert!(
        matches!(redeem(&provider, &authorize, None).await, Err(SignInError::Identity(why)) if why.contains("nonce"))
    );
    simulator.token_answer(Answer::json(400, &json!({"error": "invalid_grant"})));
    assert!(matches!(redeem(&provider, &authorize, None).await, Err(SignInError::Token(_))));

    // A code is presented once and only to be used: not while there are no keys to check the answer with.
    let simulator = Simulator::start().await;
    simulator.publish_keys(&[]);
    let refused = redeem(&simulator.entra(), &authorize, None).await;
    assert!(matches!(refused, Err(SignInError::Discovery(_))));
    assert!(simulator.asked(ENTRA_TOKEN).is_empty());
}

/// RFC 9207.
#[tokio::test]
async fn answers_of_another_issuer() {
    let simulator = Simulator::start().await;
    let authorize = simulator.oidc().authorize(&options()).await.unwrap();
    let mut claims = simulator.oidc_claims();
    claims["nonce"] = authorize.nonce.expose().as_str().into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
    let own = simulator.origin.clone();
    let refused = |result: Result<SignedIn, SignInError>| matches!(result, Err(SignInError::Token(error)) if error.class == Class::Config);
    let provider = simulator.oidc();
    redeem(&provider, &authorize, None).await.unwrap();
    redeem(&provider, &authorize, Some(&own)).await.unwrap();
    assert!(refused(redeem(&provider, &authorize, Some("https://evil.test")).await));
    let mut metadata = simulator.metadata();
    metadata["authorization_response_iss_parameter_supported"] = true.into();
    simulator.publish(&metadata);
    let provider = simulator.oidc();
    redeem(&provider, &authorize, Some(&own)).await.unwrap();
    assert!(refused(redeem(&provider, &authorize, None).await));
    assert_eq!(simulator.asked("/token").len(), 3, "no code went out after a wrong issuer");
}

/// Entra does not promise to name itself; where it does, it is by the tenant's own issuer.
#[tokio::test]
async fn the_issuer_of_a_template() {
    let simulator = Simulator::start().await;
    let mut config = simulator.entra_config();
    let authority = simulator.origin.parse().unwrap();
    config.kind = ProviderKind::Entra { authority, tenant: "organizations".to_owned() };
    let provider = simulator.provider(&config);
    let authorize = provider.authorize(&options()).await.unwrap();
    let mut claims = simulator.entra_claims();
    claims["nonce"] = authorize.nonce.expose().as_str().into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
    for (issuer, expected) in [
        (None, true),
        (Some(format!("{}/{TENANT}/v2.0", simulator.origin)), true),
        (Some(format!("{}//v2.0", simulator.origin)), false),
        (Some(format!("{}/a/b/v2.0", simulator.origin)), false),
        (Some(format!("https://evil.test/{TENANT}/v2.0")), false),
        (Some(String::new()), false),
    ] {
        let outcome = redeem(&provider, &authorize, issuer.as_deref()).await;
        assert_eq!(outcome.is_ok(), expected, "{issuer:?}");
    }
    assert_eq!(simulator.asked("/organizations/oauth2/v2.0/token").len(), 2, "no code went out after a wrong issuer");
}

#[tokio::test]
async fn the_device_flow() {
    let simulator = Simulator::start().await;
    let started = json!({
        "device_code": "device-code-1", "user_code": "ABCD-EFGH", "verification_uri": "https://microsoft.com/devicelogin",
        "expires_in": "900", "interval": 7, "message": "To sign in\u{7}, go on.",
    });
    simulator.answer(&format!("/{TENANT}/oauth2/v2.0/devicecode"), [Answer::json(200, &started)]);
    let credentials = vec![AppCredential::Secret { secret: "s".into(), expires: None }];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    let device = provider.start_device(&options().scopes, None).await.unwrap();
    assert_eq!((device.interval.as_secs(), device.expires_in.as_secs()), (7, 900));
    assert_eq!(device.message.as_deref(), Some("To sign in, go on."));
    let asked = simulator.asked_once(&format!("/{TENANT}/oauth2/v2.0/devicecode"));
    assert!(!asked.form.contains_key("client_secret"), "the credential is the token endpoint's");
    assert_eq!(asked.form["scope"], "User.Read profile openid offline_access");

    let refusal = |error: &str| Answer::json(400, &json!({"error": error}));
    let token = tokens::rsa("a").token("a", &simulator.entra_claims());
    let path = ENTRA_TOKEN;
    let answers = [refusal("authorization_pending"), refusal("slow_down"), Answer::json(200, &success(&token))];
    simulator.answer(path, answers);
    let scopes = options().scopes;
    assert!(matches!(provider.poll_device(&device, &scopes, None).await, Ok(DevicePoll::Pending)));
    assert!(matches!(provider.poll_device(&device, &scopes, None).await, Ok(DevicePoll::SlowDown)));
    let Ok(DevicePoll::Done(signed_in)) = provider.poll_device(&device, &scopes, None).await else {
        panic!("the third poll brings the tokens");
    };
    assert_eq!(signed_in.identity.key, entra_account());
    let asked = simulator.asked(path);
    assert_eq!(asked[0].form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!(
        (asked[0].form["device_code"].as_str(), asked[0].form["client_secret"].as_str()),
        ("device-code-1", "s")
    );

    for (error, class) in [
        ("authorization_declined", Class::User),
        ("access_denied", Class::User),
        ("expired_token", Class::Interact),
        ("bad_verification_code", Class::Interact),
    ] {
        simulator.answer(path, [refusal(error)]);
        let Err(SignInError::Token(refused)) = provider.poll_device(&device, &scopes, None).await else {
            panic!("{error} ends the flow");
        };
        assert_eq!(refused.class, class, "{error}");
    }
}

#[tokio::test]
async fn a_generic_device_flow_shows_who_asks() {
    let simulator = Simulator::start().await;
    let started = json!({"device_code": "d", "user_code": "U", "verification_uri": "https://idp.test/device"});
    simulator.answer("/device", [Answer::json(200, &started)]);
    let credentials = vec![AppCredential::Secret { secret: "s".into(), expires: None }];
    let provider = simulator.with_credentials(simulator.oidc_config(), credentials);
    provider.start_device(&[], None).await.unwrap();
    assert_eq!(simulator.asked_once("/device").form["client_secret"], "s");

    let mut metadata = simulator.metadata();
    metadata.as_object_mut().unwrap().remove("device_authorization_endpoint");
    simulator.publish(&metadata);
    assert!(matches!(simulator.oidc().start_device(&[], None).await, Err(SignInError::Discovery(_))));
}
