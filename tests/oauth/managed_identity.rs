//! Managed identities: what their endpoint is asked, what its answers mean, and what becomes of its tokens.

use std::time::Duration;

use bearerd::config::{self, AppCredential, ManagedIdentity, ManagedIdentitySource};
use bearerd::oauth::{Class, Delivery, Provider, TokenError, TokenReply};
use hyper::Method;
use serde_json::{Value, json};

use crate::provider::{
    Answer, Asked, CLIENT, ENTRA_TOKEN, LIMIT, NOW, Simulator, bare_success, entra_account, invalid_client, refresh,
    secret,
};

const IMDS: &str = "/metadata/identity/oauth2/token";
const APP_SERVICE: &str = "/msi/token";
const HEADER: &str = "app-service-header-value";
const GRAPH: &str = "https://graph.microsoft.com";

fn imds(host: &Simulator, client_id: Option<&str>) -> AppCredential {
    let source = ManagedIdentitySource::Imds(host.origin.parse().unwrap());
    AppCredential::ManagedIdentity(ManagedIdentity { client_id: client_id.map(str::to_owned), source })
}

fn app_service(host: &Simulator) -> AppCredential {
    let endpoint = format!("{}{APP_SERVICE}", host.origin).parse().unwrap();
    let source = ManagedIdentitySource::AppService { endpoint, header: HEADER.into() };
    AppCredential::ManagedIdentity(ManagedIdentity { client_id: None, source })
}

/// As IMDS writes it: numbers as text.
fn token(text: &str) -> Answer {
    let until = NOW.secs() + 86400;
    let body = json!({
        "access_token": text, "client_id": "identity", "expires_in": "86400", "expires_on": until.to_string(),
        "ext_expires_in": "86399", "not_before": NOW.secs().to_string(), "refresh_token": "", "resource": "r",
        "token_type": "Bearer",
    });
    Answer::json(200, &body)
}

fn itself(simulator: &Simulator, credential: AppCredential) -> Provider {
    let config = config::Provider { client_id: String::new(), ..simulator.entra_config() };
    simulator.with_credentials(config, vec![credential])
}

async fn app(provider: &Provider, limit: Duration) -> Result<TokenReply, TokenError> {
    provider.client_credentials(&[format!("{GRAPH}/.default")], None, limit).await
}

fn query(asked: &Asked) -> Vec<(&str, &str)> {
    asked.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn the_identity_of_a_machine_is_the_application() {
    let host = Simulator::start().await;
    host.answer(IMDS, [token("machine-token")]);
    for (client_id, expected) in [
        (None, vec![("api-version", "2018-02-01"), ("resource", GRAPH)]),
        (Some("user-1"), vec![("api-version", "2018-02-01"), ("client_id", "user-1"), ("resource", GRAPH)]),
    ] {
        let simulator = Simulator::start().await;
        let reply = app(&itself(&simulator, imds(&host, client_id)), LIMIT).await.unwrap();
        assert_eq!(reply.access_token.expose(), "machine-token");
        assert_eq!(reply.expires_in, Duration::from_hours(24));
        assert!(reply.refresh_token.is_none());
        let asked = host.asked(IMDS).pop().unwrap();
        assert_eq!((&asked.method, query(&asked)), (&Method::GET, expected));
        assert_eq!(asked.headers["metadata"], "true");
        assert!(!asked.headers.contains_key("x-identity-header"));
        assert!(simulator.all_asked().is_empty(), "nobody else is asked");
    }
}

#[tokio::test]
async fn the_identity_of_an_app_service() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    for expires_on in [json!("1700003600"), json!(1_700_003_600), json!("2023-11-14T23:13:20+00:00")] {
        let body = json!({"access_token": "service-token", "expires_on": expires_on, "token_type": "Bearer"});
        host.answer(APP_SERVICE, [Answer::json(200, &body)]);
        let reply = app(&itself(&simulator, app_service(&host)), LIMIT).await.unwrap();
        assert_eq!(reply.access_token.expose(), "service-token");
        assert_eq!(reply.expires_in, Duration::from_hours(1), "{expires_on}");
    }
    let asked = host.asked(APP_SERVICE).pop().unwrap();
    assert_eq!(query(&asked), [("api-version", "2019-08-01"), ("resource", GRAPH)]);
    assert_eq!(asked.headers["x-identity-header"], HEADER);
    assert!(!asked.headers.contains_key("metadata"));
}

#[tokio::test]
async fn a_machine_asks_for_one_resource() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    let provider = itself(&simulator, imds(&host, None));
    for scopes in [vec![], vec!["a".to_owned(), "b".to_owned()]] {
        let error = provider.client_credentials(&scopes, None, LIMIT).await.unwrap_err();
        assert_eq!((error.class, error.delivery), (Class::Config, Delivery::NotSent));
    }
    assert!(host.all_asked().is_empty());
}

#[tokio::test]
async fn an_identity_shows_who_we_are() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    host.answer(IMDS, [token("first"), token("second"), token("third")]);
    simulator.token_answer(bare_success());
    let provider = simulator.with_credentials(simulator.entra_config(), vec![imds(&host, None)]);
    let pass = |minutes| simulator.clock.advance(Duration::from_mins(minutes));
    for (minutes, expected) in [(0, "first"), (24 * 60 - 6, "first"), (1, "second"), (5, "second")] {
        pass(minutes);
        refresh(&provider, &entra_account()).await.unwrap();
        let asked = simulator.asked(ENTRA_TOKEN).pop().unwrap();
        assert_eq!(asked.form["client_assertion"], expected);
        assert_eq!(asked.form["client_id"], CLIENT);
        assert_eq!(asked.form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    }
    assert_eq!(host.asked(IMDS).len(), 2, "kept until shortly before it expires");
    assert_eq!(host.asked(IMDS)[0].query["resource"], "api://AzureADTokenExchange");

    // What the provider refused is not shown again.
    simulator.answer(ENTRA_TOKEN, [invalid_client(), bare_success()]);
    assert_eq!(refresh(&provider, &entra_account()).await.unwrap_err().class, Class::AppCredential);
    app(&provider, LIMIT).await.unwrap();
    let asked = simulator.asked(ENTRA_TOKEN).pop().unwrap();
    assert_eq!(
        (asked.form["client_assertion"].as_str(), asked.form["scope"].as_str()),
        ("third", "https://graph.microsoft.com/.default")
    );
}

#[tokio::test]
async fn many_requests_ask_for_one_assertion() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    host.answer(IMDS, [token("first")]);
    simulator.token_answer(bare_success());
    let provider = simulator.with_credentials(simulator.entra_config(), vec![imds(&host, None)]);
    let account = entra_account();
    let (a, b, c) = tokio::join!(refresh(&provider, &account), refresh(&provider, &account), app(&provider, LIMIT));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!((host.asked(IMDS).len(), simulator.asked(ENTRA_TOKEN).len()), (1, 3));
}

#[tokio::test]
async fn an_assertion_that_lives_bridges_an_outage() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    host.answer(IMDS, [token("first"), Answer::json(400, &json!({"error": "invalid_request"}))]);
    simulator.token_answer(bare_success());
    let provider = simulator.with_credentials(simulator.entra_config(), vec![imds(&host, None)]);
    refresh(&provider, &entra_account()).await.unwrap();
    simulator.clock.advance(Duration::from_mins(24 * 60 - 1));
    refresh(&provider, &entra_account()).await.unwrap();
    simulator.clock.advance(Duration::from_mins(1));
    assert_eq!(refresh(&provider, &entra_account()).await.unwrap_err().class, Class::AppCredential);
    assert_eq!((host.asked(IMDS).len(), simulator.asked(ENTRA_TOKEN).len()), (3, 2));
}

#[tokio::test]
async fn the_next_credential_where_the_identity_is_none() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    host.answer(
        IMDS,
        [Answer::json(400, &json!({"error": "invalid_request", "error_description": "Identity not found"}))],
    );
    simulator.token_answer(bare_success());
    let credentials = vec![imds(&host, None), secret("s")];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    for _ in 0..2 {
        refresh(&provider, &entra_account()).await.unwrap();
    }
    assert_eq!((host.asked(IMDS).len(), simulator.asked(ENTRA_TOKEN).len()), (1, 2), "what worked is remembered");
}

/// An outage of the identity's endpoint must not look like a credential that nobody accepts.
#[tokio::test]
async fn an_outage_weighs_more_than_a_refusal() {
    let simulator = Simulator::start().await;
    let credentials = vec![imds(&gone().await, None), secret("s")];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    simulator.token_answer(invalid_client());
    let error = refresh(&provider, &entra_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::NotSent));
    assert_eq!(error.text, "the managed identity: connection refused");
    assert_eq!(simulator.asked(ENTRA_TOKEN).len(), 1);
}

/// What is presented must not leave when there is no time to hear what became of it.
#[tokio::test]
async fn a_silent_identity_leaves_no_time_for_the_next_credential() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    host.answer(IMDS, [Answer::Silence]);
    let credentials = vec![imds(&host, None), secret("s")];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    let limit = Duration::from_millis(100);
    let account = entra_account();
    let error = provider.refresh(&"refresh-token-1".into(), &account, &[], None, limit).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::NotSent));
    assert!(simulator.all_asked().is_empty());
}

/// A host that does not listen.
async fn gone() -> Simulator {
    let mut host = Simulator::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.origin = format!("http://{}", listener.local_addr().unwrap());
    host
}

#[tokio::test]
async fn refusals_of_both_endpoints() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    let app_service = itself(&simulator, app_service(&host));
    let imds = itself(&simulator, imds(&host, None));
    let json = |status, body: Value| Answer::json(status, &body);
    let cases = [
        (
            &imds,
            json(400, json!({"error": "invalid_request", "error_description": "Identity not found\r\nmore"})),
            Class::AppCredential,
            "the managed identity: HTTP 400 invalid_request: Identity not found",
        ),
        (
            &app_service,
            json(400, json!({"statusCode": 400, "message": "No managed identity"})),
            Class::AppCredential,
            "the managed identity: HTTP 400: No managed identity",
        ),
        (
            &app_service,
            json(401, json!({"message": format!("{HEADER} is wrong")})),
            Class::AppCredential,
            "the managed identity: HTTP 401 [withheld]",
        ),
        (&imds, Answer::text(403, "text/html", "<html>"), Class::AppCredential, "the managed identity: HTTP 403"),
        (
            &imds,
            Answer::text(302, "text/html", "").with("location", "/elsewhere"),
            Class::Retry,
            "the managed identity: HTTP 302",
        ),
        (&imds, Answer::text(200, "text/html", "<html>"), Class::Retry, "the managed identity: HTTP 200"),
        (
            &imds,
            json(200, json!({"token_type": "Bearer"})),
            Class::Retry,
            "the managed identity: the reply has no access token",
        ),
        (
            &app_service,
            json(200, json!({"access_token": "t", "token_type": "Bearer", "expires_on": "1600000000"})),
            Class::Retry,
            "the managed identity: the access token has expired already",
        ),
    ];
    for (at, (provider, answer, class, text)) in cases.into_iter().enumerate() {
        host.answer(IMDS, [answer.clone()]);
        host.answer(APP_SERVICE, [answer]);
        let error = app(provider, LIMIT).await.unwrap_err();
        assert_eq!((error.class, error.delivery, error.text.as_str()), (class, Delivery::NotSent, text));
        assert_eq!(host.all_asked().len(), at + 1, "none of these is worth another try");
    }
}

#[tokio::test]
async fn another_try_after_a_second() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    host.answer(IMDS, [Answer::text(404, "text/plain", ""), token("machine-token")]);
    app(&itself(&simulator, imds(&host, None)), LIMIT).await.unwrap();
    assert_eq!(host.asked(IMDS).len(), 2);
}

/// An answer now, where waiting can't help within the limit.
#[tokio::test]
async fn the_caller_s_limit_bounds_the_tries() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    let provider = itself(&simulator, imds(&host, None));
    let limit = Duration::from_millis(900);
    for (status, tries) in [(404, 1), (410, 2), (429, 3), (503, 4)] {
        host.answer(IMDS, [Answer::text(status, "text/plain", "")]);
        let error = app(&provider, limit).await.unwrap_err();
        assert_eq!((error.class, error.text), (Class::Retry, format!("the managed identity: HTTP {status}")));
        assert_eq!(host.asked(IMDS).len(), tries);
    }
    host.answer(IMDS, [Answer::Silence]);
    let error = app(&provider, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((error.class, error.text.as_str()), (Class::Retry, "the managed identity: no answer within 0.1 s"));
    let error = app(&itself(&simulator, imds(&gone().await, None)), LIMIT).await.unwrap_err();
    assert_eq!((error.class, error.text.as_str()), (Class::Retry, "the managed identity: connection refused"));
}

#[tokio::test]
async fn a_probe_asks_whether_the_identity_is_there() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    let provider = itself(&simulator, imds(&host, None));
    host.answer(IMDS, [token("t"), Answer::json(400, &json!({"error": "invalid_request"}))]);
    provider.probe_credential(&["User.Read".to_owned()]).await.unwrap();
    let error = provider.probe_credential(&[]).await.unwrap_err();
    assert_eq!(error.class, Class::AppCredential);
    assert!(simulator.all_asked().is_empty());
}

#[tokio::test]
async fn a_header_that_is_none_is_named_at_start() {
    let (host, simulator) = (Simulator::start().await, Simulator::start().await);
    let endpoint = host.origin.parse().unwrap();
    let source = ManagedIdentitySource::AppService { endpoint, header: "a\r\nb".into() };
    let mut config = simulator.entra_config();
    config.credentials = vec![AppCredential::ManagedIdentity(ManagedIdentity { client_id: None, source })];
    let error = Provider::new(&config, simulator.clock.clone()).unwrap_err();
    assert_eq!(error.key, "providers.idp.credentials");
    assert_eq!(error.why, "the managed identity's header can't stand in a request");
}
