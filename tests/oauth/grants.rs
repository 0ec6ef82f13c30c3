//! Client credentials, on-behalf-of, and refresh tokens that are given back.

use std::time::Duration;

use bearerd::config::{self, ProviderKind};
use bearerd::oauth::{Class, Delivery, Provider, TokenError, TokenReply};
use serde_json::{Value, json};

use crate::provider::{
    Answer, Asked, CLIENT, ENTRA_TOKEN, LIMIT, OIDC_TOKEN, Simulator, bare_success, invalid_client, secret, success,
};

const DEFAULT: &str = "https://graph.microsoft.com/.default";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A provider with a credential.
fn known(simulator: &Simulator, config: config::Provider) -> Provider {
    simulator.with_credentials(config, vec![secret("s")])
}

fn of_tenant(simulator: &Simulator, tenant: &str) -> config::Provider {
    let mut config = simulator.entra_config();
    config.kind = ProviderKind::Entra { authority: simulator.origin.parse().unwrap(), tenant: tenant.to_owned() };
    config
}

async fn app(provider: &Provider) -> Result<TokenReply, TokenError> {
    provider.client_credentials(&[DEFAULT.to_owned()], None, LIMIT).await
}

async fn on_behalf_of(provider: &Provider) -> Result<TokenReply, TokenError> {
    let scopes = ["User.Read".to_owned(), "Mail.Read".to_owned()];
    provider.on_behalf_of(&"their.access.token".into(), &scopes, None, LIMIT).await
}

#[track_caller]
fn assert_form(asked: &Asked, expected: &[(&str, &str)]) {
    let form: Vec<(&str, &str)> = asked.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form, expected);
}

fn grant_types(simulator: &Simulator, grants: &Value) {
    let mut metadata = simulator.metadata();
    metadata["grant_types_supported"] = grants.clone();
    simulator.publish(&metadata);
}

#[tokio::test]
async fn the_application_s_own_token() {
    for entra in [true, false] {
        let simulator = Simulator::start().await;
        // A refresh token that nobody asked for.
        simulator.token_answer(Answer::json(200, &success("")));
        let config = if entra { simulator.entra_config() } else { simulator.oidc_config() };
        let reply = app(&known(&simulator, config)).await.unwrap();
        assert_eq!(reply.access_token.expose(), "access-token-1");
        assert_eq!(reply.expires_in, Duration::from_hours(1));
        assert!(reply.refresh_token.is_none());
        let asked = simulator.asked_once(if entra { ENTRA_TOKEN } else { OIDC_TOKEN });
        assert_form(
            &asked,
            &[("client_id", CLIENT), ("client_secret", "s"), ("grant_type", "client_credentials"), ("scope", DEFAULT)],
        );
        assert!(!asked.headers.contains_key("origin"));
    }
}

#[tokio::test]
async fn several_tenants_have_no_application() {
    let simulator = Simulator::start().await;
    for tenant in ["common", "organizations", "consumers"] {
        let provider = known(&simulator, of_tenant(&simulator, tenant));
        for outcome in [app(&provider).await, on_behalf_of(&provider).await] {
            let error = outcome.unwrap_err();
            assert_eq!((error.class, error.delivery), (Class::Config, Delivery::NotSent), "{tenant}");
            assert!(error.text.contains("providers.idp.tenant"), "{}", error.text);
        }
    }
    assert!(simulator.all_asked().is_empty());
}

#[tokio::test]
async fn a_public_client_speaks_for_nobody() {
    let simulator = Simulator::start().await;
    for provider in [simulator.entra(), simulator.oidc()] {
        for outcome in [app(&provider).await, on_behalf_of(&provider).await] {
            let error = outcome.unwrap_err();
            assert_eq!((error.class, error.delivery), (Class::Config, Delivery::NotSent));
            assert!(error.text.contains("providers.idp.credentials"), "{}", error.text);
        }
    }
    assert!(simulator.all_asked().is_empty());
}

#[tokio::test]
async fn microsoft_s_on_behalf_of() {
    let simulator = Simulator::start().await;
    simulator.token_answer(Answer::json(200, &success("")));
    let reply = on_behalf_of(&known(&simulator, simulator.entra_config())).await.unwrap();
    assert!(reply.refresh_token.is_none(), "it would be one that nobody keeps");
    assert_eq!(reply.scopes.unwrap(), ["User.Read", "openid"]);
    assert_form(
        &simulator.asked_once(ENTRA_TOKEN),
        &[
            ("assertion", "their.access.token"),
            ("client_id", CLIENT),
            ("client_secret", "s"),
            ("grant_type", JWT_BEARER),
            ("requested_token_use", "on_behalf_of"),
            ("scope", "User.Read Mail.Read"),
        ],
    );
}

#[tokio::test]
async fn on_behalf_of_elsewhere() {
    for (grants, exchanged) in [
        (Value::Null, false),
        (json!(["authorization_code"]), false),
        (json!([JWT_BEARER, TOKEN_EXCHANGE]), false),
        (json!(["refresh_token", TOKEN_EXCHANGE]), true),
    ] {
        let simulator = Simulator::start().await;
        grant_types(&simulator, &grants);
        simulator.token_answer(bare_success());
        on_behalf_of(&known(&simulator, simulator.oidc_config())).await.unwrap();
        let common = [("client_id", CLIENT), ("client_secret", "s")];
        let access_token = "urn:ietf:params:oauth:token-type:access_token";
        let rest = if exchanged {
            vec![
                ("grant_type", TOKEN_EXCHANGE),
                ("requested_token_type", access_token),
                ("scope", "User.Read Mail.Read"),
                ("subject_token", "their.access.token"),
                ("subject_token_type", access_token),
            ]
        } else {
            vec![("grant_type", JWT_BEARER), ("scope", "User.Read Mail.Read")]
        };
        let first = if exchanged { None } else { Some(("assertion", "their.access.token")) };
        let expected: Vec<_> = first.into_iter().chain(common).chain(rest).collect();
        assert_form(&simulator.asked_once(OIDC_TOKEN), &expected);
    }
}

/// There is no grant that could die: what is refused is what the caller brought.
#[tokio::test]
async fn a_refused_assertion() {
    let refusal = |error: &str, code: u64| Answer::json(400, &json!({"error": error, "error_codes": [code]}));
    let simulator = Simulator::start().await;
    let provider = known(&simulator, simulator.entra_config());
    for (answer, class) in [
        (refusal("invalid_grant", 50173), Class::Assertion),
        (refusal("interaction_required", 50079), Class::Interact),
        (refusal("invalid_request", 90002), Class::Config),
        (invalid_client(), Class::AppCredential),
        (Answer::json(503, &json!({})), Class::Retry),
    ] {
        simulator.token_answer(answer);
        assert_eq!(on_behalf_of(&provider).await.unwrap_err().class, class);
    }
    for (grants, error, class) in [
        (Value::Null, "invalid_grant", Class::Assertion),
        (Value::Null, "invalid_request", Class::Config),
        (json!([TOKEN_EXCHANGE]), "invalid_grant", Class::Assertion),
        (json!([TOKEN_EXCHANGE]), "invalid_request", Class::Assertion),
        (json!([TOKEN_EXCHANGE]), "invalid_scope", Class::Config),
    ] {
        let simulator = Simulator::start().await;
        grant_types(&simulator, &grants);
        simulator.token_answer(refusal(error, 0));
        let refused = on_behalf_of(&known(&simulator, simulator.oidc_config())).await.unwrap_err();
        assert_eq!((refused.class, refused.delivery), (class, Delivery::Answered), "{grants} {error}");
    }
}

#[tokio::test]
async fn a_challenge_for_the_caller_comes_verbatim() {
    let simulator = Simulator::start().await;
    let claims = r#"{"access_token":{"polids":{"essential":true,  "Values":["1"]}}}"#;
    simulator.token_answer(Answer::json(400, &json!({"error": "interaction_required", "claims": claims})));
    let error = on_behalf_of(&known(&simulator, simulator.entra_config())).await.unwrap_err();
    assert_eq!((error.class, error.claims.unwrap().as_str()), (Class::Interact, claims));
}

#[tokio::test]
async fn an_assertion_is_not_quoted() {
    let simulator = Simulator::start().await;
    let body = json!({"error": "invalid_grant", "error_description": "bad token: their.access.token"});
    simulator.token_answer(Answer::json(400, &body));
    let error = on_behalf_of(&known(&simulator, simulator.entra_config())).await.unwrap_err();
    assert_eq!(error.text, "invalid_grant: [withheld]");
}

#[tokio::test]
async fn the_next_credential_serves_these_grants_too() {
    let simulator = Simulator::start().await;
    let credentials = vec![secret("old"), secret("new")];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    simulator.answer(ENTRA_TOKEN, [invalid_client(), bare_success()]);
    app(&provider).await.unwrap();
    on_behalf_of(&provider).await.unwrap();
    let asked = simulator.asked(ENTRA_TOKEN);
    let sent: Vec<&str> = asked.iter().map(|asked| asked.form["client_secret"].as_str()).collect();
    assert_eq!(sent, ["old", "new", "new"]);
}

fn offer_revocation(simulator: &Simulator, methods: Option<Value>) {
    let mut metadata = simulator.metadata();
    metadata["revocation_endpoint"] = format!("{}/revoke", simulator.origin).into();
    if let Some(methods) = methods {
        metadata["revocation_endpoint_auth_methods_supported"] = methods;
    }
    simulator.publish(&metadata);
}

async fn revoke(provider: &Provider) -> Result<bool, TokenError> {
    provider.revoke(&"refresh-token-1".into(), LIMIT).await
}

#[tokio::test]
async fn a_refresh_token_is_given_back() {
    for body in ["", "OK", "{}"] {
        let simulator = Simulator::start().await;
        offer_revocation(&simulator, None);
        simulator.answer("/revoke", [Answer::text(200, "text/plain", body)]);
        assert!(revoke(&known(&simulator, simulator.oidc_config())).await.unwrap(), "{body:?}");
        assert_form(
            &simulator.asked_once("/revoke"),
            &[
                ("client_id", CLIENT),
                ("client_secret", "s"),
                ("token", "refresh-token-1"),
                ("token_type_hint", "refresh_token"),
            ],
        );
    }
}

#[tokio::test]
async fn the_revocation_endpoint_has_its_own_methods() {
    let simulator = Simulator::start().await;
    offer_revocation(&simulator, Some(json!(["client_secret_basic"])));
    simulator.answer("/revoke", [Answer::text(200, "text/plain", "")]);
    assert!(revoke(&known(&simulator, simulator.oidc_config())).await.unwrap());
    let asked = simulator.asked_once("/revoke");
    assert!(asked.headers.contains_key("authorization") && !asked.form.contains_key("client_secret"));
}

#[tokio::test]
async fn where_nothing_can_be_given_back() {
    let simulator = Simulator::start().await;
    offer_revocation(&simulator, None);
    assert!(!revoke(&known(&simulator, simulator.entra_config())).await.unwrap(), "Entra has no such endpoint");
    assert!(simulator.all_asked().is_empty(), "and is not asked for it");
    let simulator = Simulator::start().await;
    assert!(!revoke(&known(&simulator, simulator.oidc_config())).await.unwrap());
}

#[tokio::test]
async fn a_revocation_that_fails() {
    let simulator = Simulator::start().await;
    offer_revocation(&simulator, None);
    let provider = known(&simulator, simulator.oidc_config());
    for (answer, class) in [
        (invalid_client(), Class::AppCredential),
        (Answer::json(400, &json!({"error": "unsupported_token_type"})), Class::Config),
        (Answer::json(200, &json!({"error": "invalid_request"})), Class::Config),
        (Answer::text(302, "text/plain", "").with("location", "/elsewhere"), Class::Retry),
    ] {
        simulator.answer("/revoke", [answer]);
        assert_eq!(revoke(&provider).await.unwrap_err().class, class);
    }
    simulator.answer("/revoke", [Answer::text(503, "text/plain", "").with("retry-after", "7")]);
    let error = revoke(&provider).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (Class::Retry, Some(Duration::from_secs(7))));
    simulator.answer("/revoke", [Answer::Silence]);
    let limit = Duration::from_millis(100);
    let error = provider.revoke(&"refresh-token-1".into(), limit).await.unwrap_err();
    assert_eq!((error.class, error.text.as_str()), (Class::Retry, "no answer within 0.1 s"));
}
