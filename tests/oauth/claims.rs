//! The `claims` parameter: what we can handle and what a challenge asked for, with every request that may bring a token.

use bearerd::claims::Claims;
use bearerd::oauth::{AuthorizeOptions, Provider};
use serde_json::{Value, json};

use crate::provider::{
    Answer, ENTRA_TOKEN, LIMIT, OIDC_TOKEN, Simulator, TENANT, entra_account, invalid_client, secret, success,
};
use crate::tokens;

const CAPABILITIES: &str = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
/// With a blank that no serializer writes.
const CHALLENGE: &str = r#"{"access_token":{"nbf":{"essential":true, "value":"1635527790"}}}"#;

fn provider(simulator: &Simulator, capable: bool) -> Provider {
    let mut config = simulator.entra_config();
    config.client_capabilities = capable.then(|| "cp1".to_owned()).into_iter().collect();
    simulator.with_credentials(config, vec![secret("s")])
}

/// The `claims` of every kind of request, made with `asked` where the caller can say so.
async fn sent(
    provider: &Provider,
    simulator: &Simulator,
    asked: Option<&Claims>,
) -> Vec<(&'static str, Option<String>)> {
    let mut sent = Vec::new();
    let scopes = ["User.Read".to_owned()];
    let options = AuthorizeOptions {
        redirect_uri: "http://localhost/".to_owned(),
        claims: asked.cloned(),
        ..AuthorizeOptions::default()
    };
    let authorize = provider.authorize(&options).await.unwrap();
    let query = authorize.url.query_pairs().find(|(name, _)| name == "claims");
    sent.push(("authorize", query.map(|(_, value)| value.into_owned())));

    let mut claims = simulator.entra_claims();
    claims["nonce"] = authorize.nonce.expose().as_str().into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
    let started = json!({"device_code": "d", "user_code": "U", "verification_uri": "https://login.test/device"});
    let device_path = format!("/{TENANT}/oauth2/v2.0/devicecode");
    simulator.answer(&device_path, [Answer::json(200, &started)]);
    let last = |path: &str| simulator.asked(path).last().unwrap().form.get("claims").cloned();

    let (verifier, nonce) = (&authorize.verifier, &authorize.nonce);
    provider.redeem_code(&"c".into(), &options.redirect_uri, verifier, nonce, &scopes, None).await.unwrap();
    sent.push(("code", last(ENTRA_TOKEN)));
    let device = provider.start_device(&scopes, None).await.unwrap();
    sent.push(("device start", last(&device_path)));
    provider.poll_device(&device, &scopes, None).await.unwrap();
    sent.push(("device poll", last(ENTRA_TOKEN)));
    provider.refresh(&"r".into(), &entra_account(), &scopes, asked, LIMIT).await.unwrap();
    sent.push(("refresh", last(ENTRA_TOKEN)));
    provider.adopt(&"r".into(), &scopes, LIMIT).await.unwrap();
    sent.push(("adopt", last(ENTRA_TOKEN)));
    provider.client_credentials(&scopes, asked, LIMIT).await.unwrap();
    sent.push(("client credentials", last(ENTRA_TOKEN)));
    provider.on_behalf_of(&"a".into(), &scopes, asked, LIMIT).await.unwrap();
    sent.push(("on behalf of", last(ENTRA_TOKEN)));
    sent
}

/// Those whose caller can say what a challenge asked for.
const CHALLENGED: &[&str] = &["authorize", "refresh", "client credentials", "on behalf of"];

#[tokio::test]
async fn nothing_to_say_means_no_parameter() {
    let simulator = Simulator::start().await;
    for (name, claims) in sent(&provider(&simulator, false), &simulator, None).await {
        assert_eq!(claims, None, "{name}");
    }
}

#[tokio::test]
async fn capabilities_go_with_every_request() {
    let simulator = Simulator::start().await;
    for (name, claims) in sent(&provider(&simulator, true), &simulator, None).await {
        assert_eq!(claims.as_deref(), Some(CAPABILITIES), "{name}");
    }
}

#[tokio::test]
async fn a_challenge_goes_verbatim() {
    let simulator = Simulator::start().await;
    let challenge = Claims::parse(CHALLENGE);
    for (name, claims) in sent(&provider(&simulator, false), &simulator, challenge.as_ref()).await {
        let expected = CHALLENGED.contains(&name).then_some(CHALLENGE);
        assert_eq!(claims.as_deref(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_challenge_is_merged_with_the_capabilities() {
    let simulator = Simulator::start().await;
    let challenge = Claims::parse(CHALLENGE);
    let both: Value = json!({"access_token": {
        "nbf": {"essential": true, "value": "1635527790"}, "xms_cc": {"values": ["cp1"]},
    }});
    for (name, claims) in sent(&provider(&simulator, true), &simulator, challenge.as_ref()).await {
        let claims: Value = serde_json::from_str(&claims.unwrap()).unwrap();
        let expected =
            if CHALLENGED.contains(&name) { both.clone() } else { serde_json::from_str(CAPABILITIES).unwrap() };
        assert_eq!(claims, expected, "{name}");
    }
}

/// A second credential presents what the first one did.
#[tokio::test]
async fn every_credential_carries_the_claims() {
    let simulator = Simulator::start().await;
    let mut config = simulator.oidc_config();
    config.client_capabilities = vec!["cp1".to_owned()];
    let provider = simulator.with_credentials(config, vec![secret("a"), secret("b")]);
    simulator.token_answer(invalid_client());
    provider.client_credentials(&[], None, LIMIT).await.unwrap_err();
    let asked = simulator.asked(OIDC_TOKEN);
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.form["claims"] == CAPABILITIES));
}
