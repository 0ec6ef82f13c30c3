//! Client credentials and on-behalf-of: who gets a token, whose it is, and what it opens.

use std::time::Duration;

use bearerd::sandbox::{APP, Assertion, ClientAuth, EntraOptions, Flaw};
use serde_json::{Value, json};

use crate::client::{self, Reply, graph, post, sandbox, token, verified};

const GRAPH: &str = "https://graph.microsoft.com/.default";
const OBO: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn codes(reply: &Reply) -> (u16, Value, u64) {
    let body = reply.json();
    (reply.status.as_u16(), body["error"].clone(), body["error_codes"][0].as_u64().unwrap_or(0))
}

async fn on_behalf_of(entra: &bearerd::sandbox::Entra, assertion: &str, more: &[(&str, &str)]) -> Reply {
    let mut fields = vec![("grant_type", OBO), ("assertion", assertion), ("requested_token_use", "on_behalf_of")];
    fields.extend(more);
    token(entra, &fields).await
}

#[tokio::test]
async fn the_application_gets_a_token_of_its_own() {
    let (sandbox, _) = sandbox();
    let reply = token(&sandbox.entra, &[("grant_type", "client_credentials"), ("scope", GRAPH)]).await;
    assert_eq!(reply.status, 200);
    let body = reply.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert!(["refresh_token", "id_token", "client_info"].iter().all(|name| body[name].is_null()), "{body}");
    let own = body["access_token"].as_str().unwrap();
    let ask = async |method: &str, target: &str, body: &str| graph(&sandbox.graph, own, method, target, body).await;
    assert_eq!(ask("GET", "/v1.0/users/alice@contoso.example/messages", "").await.status, 200);
    let bob = sandbox.entra.user("bob").unwrap();
    assert_eq!(ask("GET", &format!("/v1.0/users/{}/drive/root/children", bob.oid), "").await.status, 200);
    assert_eq!(ask("GET", "/v1.0/users", "").await.json()["value"].as_array().unwrap().len(), 2);
    assert_eq!(ask("GET", "/v1.0/users/nobody/messages", "").await.status, 404);
    let me = ask("GET", "/v1.0/me/messages", "").await;
    assert_eq!(me.status, 400);
    assert_eq!(me.json()["error"]["message"], "/me request is only valid with delegated authentication flow.");
    let batch = json!({ "requests": [
        { "id": "1", "method": "GET", "url": "/me" },
        { "id": "2", "method": "GET", "url": "/users/alice@contoso.example/messages" },
    ] });
    let answers = ask("POST", "/v1.0/$batch", &batch.to_string()).await.json();
    let status = |id: &str| {
        answers["responses"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap()["status"].clone()
    };
    assert_eq!((status("1"), status("2")), (json!(400), json!(200)));
    assert!(sandbox.graph.requests().iter().all(|seen| seen.user.as_deref() == Some(APP)));
    let asked = sandbox.entra.token_requests().pop().unwrap();
    assert_eq!((asked.grant_type.as_str(), asked.user.as_deref()), ("client_credentials", Some(APP)));
    assert_eq!((asked.scope.as_deref(), asked.client_auth), (Some(GRAPH), Some(ClientAuth::SecretPost)));
    assert!(sandbox.entra.revoke_access_tokens(APP));
    assert_eq!(ask("GET", "/v1.0/users", "").await.status, 401);
}

#[tokio::test]
async fn client_credentials_that_will_not_do() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let ask = async |scope: &str| codes(&token(entra, &[("grant_type", "client_credentials"), ("scope", scope)]).await);
    assert_eq!(ask("").await, (400, json!("invalid_request"), 900_144));
    for scope in ["https://graph.microsoft.com/User.Read", "User.Read", "openid", &format!("{GRAPH} api://x/.default")]
    {
        assert_eq!(ask(scope).await, (400, json!("invalid_scope"), 1_002_012), "{scope}");
    }
    let id = &entra.options().client_id;
    for tenant in ["common", "organizations", "consumers"] {
        let form =
            format!("grant_type=client_credentials&scope={GRAPH}&client_id={id}&client_secret=sandbox-client-secret");
        let reply = post(entra, &format!("/{tenant}/oauth2/v2.0/token"), &form).await.unwrap();
        assert_eq!(codes(&reply), (400, json!("invalid_request"), 9_001_023), "{tenant}");
    }
    let (public, _) = client::entra(EntraOptions { client_secret: None, ..EntraOptions::default() });
    let reply = token(&public, &[("grant_type", "client_credentials"), ("scope", GRAPH)]).await;
    assert_eq!(codes(&reply), (401, json!("invalid_client"), 7_000_218));
    let wrong = format!("grant_type=client_credentials&scope={GRAPH}&client_id={id}&client_secret=wrong");
    let target = format!("/{}/oauth2/v2.0/token", entra.options().tenant);
    assert_eq!(codes(&post(entra, &target, &wrong).await.unwrap()), (401, json!("invalid_client"), 7_000_215));
    let refused = entra.token_requests().pop().unwrap();
    assert_eq!(refused.client_auth, Some(ClientAuth::SecretPost), "what was presented is on record");
}

#[tokio::test]
async fn a_middle_tier_acts_on_behalf_of_its_caller() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let assertion = sandbox.assertion("alice");
    let (header, claims) = verified(entra, &assertion).await.unwrap();
    let alice = entra.user("alice").unwrap();
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(entra.issuer()), &json!(entra.options().client_id)));
    assert_eq!((&claims["tid"], &claims["oid"]), (&json!(entra.options().tenant), &json!(alice.oid)));
    assert_eq!((&claims["scp"], &claims["preferred_username"]), (&json!("access_as_user"), &json!(alice.mail)));
    assert!(claims["sub"].is_string() && claims["exp"].as_i64() > claims["nbf"].as_i64());
    assert_ne!(assertion, sandbox.assertion("alice"), "each is another token");

    let plain = on_behalf_of(entra, &assertion, &[("scope", GRAPH)]).await.json();
    assert!(plain["refresh_token"].is_null() && plain["id_token"].is_null());
    let me = graph(&sandbox.graph, plain["access_token"].as_str().unwrap(), "GET", "/v1.0/me", "").await;
    assert_eq!(me.json()["mail"], json!(alice.mail));
    let more = [("scope", "https://graph.microsoft.com/.default openid offline_access")];
    let full = on_behalf_of(entra, &assertion, &more).await.json();
    assert!(full["id_token"].is_string());
    let refreshed = client::refresh(entra, full["refresh_token"].as_str().unwrap()).await;
    assert_eq!(refreshed.status, 200);
    let asked = &entra.token_requests()[0];
    assert_eq!((asked.grant_type.as_str(), asked.user.as_deref()), (OBO, Some("alice")));
    let reply = graph(&sandbox.graph, &assertion, "GET", "/v1.0/me", "").await;
    assert_eq!(reply.json()["error"]["message"], "Access token validation failure. Invalid audience.");
}

#[tokio::test]
async fn assertions_that_will_not_do() {
    let (sandbox, clock) = sandbox();
    let entra = &sandbox.entra;
    let ask = async |assertion: &str| codes(&on_behalf_of(entra, assertion, &[("scope", GRAPH)]).await);
    let invalid = (400, json!("invalid_grant"), 50013);
    let assertion = sandbox.assertion("alice");
    assert_eq!(ask(&format!("{assertion}A")).await, invalid);
    assert_eq!(ask(&sandbox.grant("alice").unwrap().access_token).await, invalid, "a token for Graph");
    let stranger = sandbox.assertion("nobody");
    assert!(verified(entra, &stranger).await.is_ok());
    assert_eq!(ask(&stranger).await, (400, json!("invalid_grant"), 50034));
    let app = entra.assertion(APP);
    let (_, claims) = verified(entra, &app).await.unwrap();
    assert_eq!((&claims["idtyp"], &claims["scp"]), (&json!("app"), &json!(null)));
    assert_eq!(ask(&app).await, (400, json!("unauthorized_client"), 7_000_114));
    let wanted = [("grant_type", OBO), ("assertion", assertion.as_str()), ("scope", GRAPH)];
    assert_eq!(codes(&token(entra, &wanted).await).2, 900_144, "requested_token_use is missing");
    assert_eq!(codes(&on_behalf_of(entra, &assertion, &[]).await).2, 900_144, "scope is missing");
    let brief = entra.assertion_with("alice", &Assertion { life: Duration::from_secs(60), ..Assertion::default() });
    assert_eq!(ask(&brief).await.0, 200);
    clock.advance(Duration::from_secs(60));
    assert_eq!(ask(&brief).await, (400, json!("invalid_grant"), 500_133));
    assert!(entra.revoke_access_tokens("alice"));
    assert_eq!(ask(&assertion).await, invalid);
    for (flaw, breach) in
        [(Flaw::Signature, Some("signature")), (Flaw::UnknownKey, Some("kid")), (Flaw::Audience, None)]
    {
        let flawed = entra.assertion_with("alice", &Assertion { flaw: Some(flaw), ..Assertion::default() });
        assert_eq!(verified(entra, &flawed).await.err(), breach, "{flaw:?}");
    }
}

#[tokio::test]
async fn the_application_itself_is_a_resource() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let id = entra.options().client_id.clone();
    let grant = sandbox.grant("alice").unwrap();
    for scope in [format!("api://{id}/.default"), format!("{id}/.default"), format!("api://{id}/access_as_user")] {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", grant.refresh_token.as_str()),
            ("scope", scope.as_str()),
        ];
        let body = token(entra, &fields).await.json();
        let own = body["access_token"].as_str().unwrap();
        let (_, claims) = verified(entra, own).await.unwrap();
        assert_eq!((&claims["aud"], &claims["scp"]), (&json!(id), &json!("access_as_user")), "{scope}");
        assert!(body["scope"].as_str().unwrap().ends_with("/access_as_user"));
        assert_eq!(on_behalf_of(entra, own, &[("scope", GRAPH)]).await.status, 200);
    }
    let own = [("grant_type", "client_credentials"), ("scope", &format!("api://{id}/.default"))];
    let body = token(entra, &own).await.json();
    let (_, claims) = verified(entra, body["access_token"].as_str().unwrap()).await.unwrap();
    assert_eq!((&claims["aud"], &claims["idtyp"], &claims["sub"]), (&json!(id), &json!("app"), &claims["oid"]));
}
