//! Managed identities and federated credentials: both endpoints, and what their tokens are good for.

use std::time::Duration;

use bearerd::sandbox::entra::{CLUSTER_ISSUER, CLUSTER_SUBJECT, EXCHANGE_AUDIENCE, IDENTITY_HEADER, MANAGED_IDENTITY};
use bearerd::sandbox::{APP, ClientAuth, Entra, Fault, IdentitySource};
use serde_json::{Value, json};

use crate::client::{self, Reply, get, graph, post, sandbox, send, verified};

const GRAPH: &str = "resource=https%3A%2F%2Fgraph.microsoft.com";

async fn imds(entra: &Entra, query: &str) -> Reply {
    let target = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&{query}");
    send(entra.address(), "GET", &target, &[("metadata", "true")], "").await.unwrap()
}

async fn app_service(entra: &Entra, query: &str) -> Reply {
    let target = format!("/msi/token?api-version=2019-08-01&{query}");
    send(entra.address(), "GET", &target, &[("x-identity-header", IDENTITY_HEADER)], "").await.unwrap()
}

#[tokio::test]
async fn a_machine_gets_tokens_with_its_numbers_as_text() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let reply = imds(entra, GRAPH).await.json();
    let expires = (client::START.secs() + 3600).to_string();
    assert_eq!((&reply["expires_in"], &reply["expires_on"]), (&json!("3600"), &json!(expires)));
    assert_eq!((&reply["resource"], &reply["token_type"]), (&json!("https://graph.microsoft.com"), &json!("Bearer")));
    assert_eq!((&reply["refresh_token"], reply["not_before"].is_string()), (&json!(""), true));
    let service = app_service(entra, GRAPH).await.json();
    assert_eq!((&service["expires_on"], &service["expires_in"]), (&json!(expires), &json!(null)));
    for token in [&reply, &service] {
        let token = token["access_token"].as_str().unwrap();
        assert_eq!(graph(&sandbox.graph, token, "GET", "/v1.0/users/alice/messages", "").await.status, 200);
    }
    assert_eq!(sandbox.graph.requests()[0].user.as_deref(), Some(APP));
    let user_assigned = format!("{GRAPH}&client_id={MANAGED_IDENTITY}");
    assert_eq!(imds(entra, &user_assigned).await.status, 200);
    let asked = entra.identity_requests();
    assert_eq!((asked[0].source, asked[1].source), (IdentitySource::Imds, IdentitySource::AppService));
    assert_eq!((asked[2].selector.as_deref(), asked[2].outcome.as_str()), (Some(MANAGED_IDENTITY), "200"));
}

#[tokio::test]
async fn requests_of_machines_that_will_not_do() {
    let (sandbox, _) = sandbox();
    let entra = &sandbox.entra;
    let bare = |target: &'static str| get(entra.address(), target);
    let reply = bare("/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (400, &json!("bad_request_102")));
    let reply = bare("/msi/token?api-version=2019-08-01&resource=x").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["statusCode"]), (401, &json!(401)));
    for query in ["", "resource=https%3A%2F%2Fgraph.microsoft.com%2F.default", &format!("{GRAPH}&client_id=other")] {
        assert_eq!(imds(entra, query).await.status, 400, "{query}");
        assert!(app_service(entra, query).await.json()["message"].is_string(), "{query}");
    }
    for (fault, status) in [("imds:404", 404), ("imds:410", 410), ("imds:429=7", 429), ("imds:500", 500)] {
        entra.faults().push(Fault::parse(fault).unwrap());
        let reply = imds(entra, GRAPH).await;
        assert_eq!(reply.status.as_u16(), status);
        assert!(reply.json()["error_description"].is_string());
        assert_eq!(reply.header("retry-after"), if status == 429 { "7" } else { "" });
    }
    entra.faults().push(Fault::parse("imds:expires-in=60").unwrap());
    assert_eq!(imds(entra, GRAPH).await.json()["expires_in"], "60");
    let outcomes: Vec<_> = entra.identity_requests().into_iter().map(|asked| asked.outcome).collect();
    assert_eq!(outcomes[0], "400 bad_request_102");
    assert_eq!(outcomes[outcomes.len() - 3..], ["429 too_many_requests", "500 unknown", "200"]);
}

#[tokio::test]
async fn tokens_of_others_prove_the_application() {
    let (sandbox, clock) = sandbox();
    let entra = &sandbox.entra;
    let exchange = form_urlencoded::byte_serialize(EXCHANGE_AUDIENCE.as_bytes()).collect::<String>();
    let machine =
        imds(entra, &format!("resource={exchange}")).await.json()["access_token"].as_str().unwrap().to_owned();
    let cluster = entra.federated_token();
    let (_, claims) = verified(entra, &machine).await.unwrap();
    assert_eq!(claims["aud"], EXCHANGE_AUDIENCE);
    let ask = async |assertion: &str| -> (u16, Value) {
        let id = &entra.options().client_id;
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("client_id", id.as_str()),
                ("grant_type", "client_credentials"),
                ("scope", "https://graph.microsoft.com/.default"),
                ("client_assertion", assertion),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ])
            .finish();
        let reply = post(entra, &format!("/{}/oauth2/v2.0/token", entra.options().tenant), &form).await.unwrap();
        (reply.status.as_u16(), reply.json()["error_codes"][0].clone())
    };
    for assertion in [&machine, &cluster] {
        assert_eq!(ask(assertion).await, (200, json!(null)));
        assert_eq!(ask(assertion).await, (200, json!(null)), "until it expires, as often as one likes");
        let mut forged = assertion.clone();
        forged.replace_range(assertion.len() - 8.., "AAAAAAAA");
        assert_eq!(ask(&forged).await, (401, json!(700_027)));
    }
    let record = entra.token_requests()[3].clone();
    assert_eq!(record.client_auth, Some(ClientAuth::Federated));
    let shown = record.client_assertion.unwrap();
    assert_eq!((&shown["claims"]["iss"], &shown["claims"]["sub"]), (&json!(CLUSTER_ISSUER), &json!(CLUSTER_SUBJECT)));
    assert_eq!(ask(&sandbox.assertion("alice")).await, (401, json!(700_213)), "another subject");
    clock.advance(Duration::from_secs(3900));
    assert_eq!(ask(&cluster).await, (401, json!(700_024)));
}
