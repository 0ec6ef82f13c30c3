//! What a refresh sends, which replies it takes, and what it knows of the provider when none came.

use std::time::Duration;

use bearerd::claims::Claims;
use bearerd::oauth::{Class, Delivery, Provider};
use serde_json::{Value, json};

use crate::provider::{
    Answer, CLIENT, ENTRA_TOKEN, LIMIT, OBJECT, Simulator, TENANT, entra_account, raw, refresh, success,
};
use crate::tokens;

fn entra_token(simulator: &Simulator) -> String {
    tokens::rsa("a").token("a", &simulator.entra_claims())
}

#[tokio::test]
async fn one_post_with_what_belongs_in_it() {
    let simulator = Simulator::start().await;
    simulator.token_answer(Answer::json(200, &success(&entra_token(&simulator))));
    let provider = simulator.entra();
    let scopes = ["User.Read".to_owned(), "openid".to_owned(), "Mail.Read".to_owned()];
    let claims = r#"{"access_token":{"nbf":{"essential":true}}}"#;
    let account = entra_account();
    let reply =
        provider.refresh(&"a b+&=ü".into(), &account, &scopes, Claims::parse(claims).as_ref(), LIMIT).await.unwrap();
    assert_eq!(reply.access_token.expose(), "access-token-1");
    assert_eq!(reply.refresh_token.unwrap().expose(), "refresh-token-2");
    assert_eq!(reply.expires_in, Duration::from_hours(1));
    assert_eq!(reply.scopes.unwrap(), ["User.Read", "openid"]);

    let asked = simulator.asked_once(ENTRA_TOKEN);
    let form: Vec<(&str, &str)> = asked.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        form,
        [
            ("claims", claims),
            ("client_id", CLIENT),
            ("grant_type", "refresh_token"),
            ("refresh_token", "a b+&=ü"),
            ("scope", "User.Read openid Mail.Read profile offline_access"),
        ]
    );
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(header("accept"), Some("application/json"));
    assert_eq!(header("user-agent"), Some(concat!("bearerd/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header("return-client-request-id"), Some("true"));
    assert_eq!(header("x-ms-lib-capability"), Some("retry-after, h429"));
    assert_eq!(header("client-request-id").map(str::len), Some(36));
    for absent in ["origin", "referer", "cookie", "accept-encoding", "authorization"] {
        assert_eq!(header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn microsoft_s_headers_are_microsoft_s() {
    let simulator = Simulator::start().await;
    let mut body = success("");
    body.as_object_mut().unwrap().remove("id_token");
    simulator.token_answer(Answer::json(200, &body));
    refresh(&simulator.oidc(), &simulator.oidc_account()).await.unwrap();
    let asked = simulator.asked_once("/token");
    for absent in ["client-request-id", "return-client-request-id", "x-ms-lib-capability"] {
        assert!(!asked.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn no_cookie_goes_back() {
    let simulator = Simulator::start().await;
    let answer = Answer::json(200, &success(&entra_token(&simulator))).with("set-cookie", "fpc=alice; Path=/");
    simulator.token_answer(answer);
    let provider = simulator.entra();
    for _ in 0..2 {
        refresh(&provider, &entra_account()).await.unwrap();
    }
    assert!(simulator.all_asked().iter().all(|asked| !asked.headers.contains_key("cookie")));
}

async fn with_changes(simulator: &Simulator, provider: &Provider, changes: &Value) -> Result<u64, (Class, Delivery)> {
    let mut body = success(&entra_token(simulator));
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    simulator.token_answer(Answer::json(200, &body));
    let reply = refresh(provider, &entra_account()).await;
    reply.map(|reply| reply.expires_in.as_secs()).map_err(|error| (error.class, error.delivery))
}

#[tokio::test]
async fn odd_replies() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    for (changes, expected) in [
        (json!({}), Ok(3600)),
        (json!({"expires_in": "3599"}), Ok(3599)),
        (json!({"expires_in": 1e12}), Ok(30 * 24 * 3600)),
        (json!({"expires_in": null}), Ok(600)),
        (json!({"expires_in": 0}), Err((Class::Retry, Delivery::Unknown))),
        (json!({"expires_in": -1}), Err((Class::Retry, Delivery::Unknown))),
        (json!({"access_token": null}), Err((Class::Retry, Delivery::Unknown))),
        (json!({"token_type": "MAC"}), Err((Class::Config, Delivery::Unknown))),
        (json!({"refresh_token": null}), Ok(3600)),
        (json!({"id_token": null}), Ok(3600)),
        (json!({"id_token": "a.b"}), Err((Class::Config, Delivery::Unknown))),
    ] {
        assert_eq!(with_changes(&simulator, &provider, &changes).await, expected, "{changes}");
    }
}

/// A clock that is wrong must not cost the only valid refresh token.
#[tokio::test]
async fn an_identity_token_from_another_time_costs_no_successor() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    for (name, time) in [("iat", 1_700_000_000 + 3600), ("exp", 1_700_000_000 - 3600)] {
        let mut claims = simulator.entra_claims();
        claims[name] = time.into();
        simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
        let reply = refresh(&provider, &entra_account()).await.unwrap();
        assert_eq!(reply.refresh_token.unwrap().expose(), "refresh-token-2", "{name}");
        claims["oid"] = "aaaaaaaa-bbbb-cccc-dddd-000000000000".into();
        simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
        assert!(refresh(&provider, &entra_account()).await.is_err(), "another account stays another account");
    }
}

/// Some providers' issuers end with a slash; the account is the same, whoever named it.
#[tokio::test]
async fn a_slash_at_the_end_of_the_issuer_names_no_other_account() {
    let simulator = Simulator::start().await;
    let slashed = format!("{}/", simulator.origin);
    let mut metadata = simulator.metadata();
    metadata["issuer"] = slashed.as_str().into();
    simulator.publish(&metadata);
    let mut claims = simulator.oidc_claims();
    claims["iss"] = slashed.as_str().into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &claims))));
    let account = simulator.oidc_account();
    assert!(!account.tenant.ends_with('/'));
    refresh(&simulator.oidc(), &account).await.unwrap();
    let (identity, _) = simulator.oidc().adopt(&"rt".into(), &[], LIMIT).await.unwrap();
    assert_eq!(identity.unwrap().key, account);
}

#[tokio::test]
async fn another_s_identity_token_is_refused() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let mut other = simulator.entra_claims();
    other["oid"] = "aaaaaaaa-bbbb-cccc-dddd-000000000000".into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &other))));
    let error = refresh(&provider, &entra_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Config, Delivery::Unknown));
    assert_eq!(error.text, "the identity token names another account");

    // The case of a GUID means nothing.
    let mut upper = simulator.entra_claims();
    upper["oid"] = OBJECT.to_ascii_uppercase().into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &upper))));
    refresh(&provider, &entra_account()).await.unwrap();
}

/// The refresh token may be used up by then: its successor must not be lost for want of a key.
#[tokio::test]
async fn without_keys_tls_vouches_for_the_identity_token() {
    let simulator = Simulator::start().await;
    simulator.publish_keys(&[]);
    let provider = simulator.entra();
    simulator.token_answer(Answer::json(200, &success(&entra_token(&simulator))));
    refresh(&provider, &entra_account()).await.unwrap();
    let mut other = simulator.entra_claims();
    other["tid"] = "99999999-2222-3333-4444-555555555555".into();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("a").token("a", &other))));
    let error = refresh(&provider, &entra_account()).await.unwrap_err();
    assert_eq!(error.text, "the identity token names another account");
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let simulator = Simulator::start().await;
    let mut config = simulator.entra_config();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    config.kind =
        bearerd::config::ProviderKind::Entra { authority: closed.parse().unwrap(), tenant: TENANT.to_owned() };
    let error = refresh(&simulator.provider(&config), &entra_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::NotSent));
    assert_eq!(error.text, "connection refused");
}

#[tokio::test]
async fn a_generic_provider_that_can_t_be_found_was_sent_nothing() {
    let simulator = Simulator::start().await;
    simulator.answer("/.well-known/openid-configuration", [Answer::text(503, "text/plain", "")]);
    let provider = simulator.oidc();
    let error = refresh(&provider, &simulator.oidc_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::NotSent));
    assert!(error.text.ends_with("/.well-known/openid-configuration: HTTP 503"), "{}", error.text);
    assert!(simulator.asked("/token").is_empty());
}

#[tokio::test]
async fn a_silent_provider_ends_within_the_limit() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    simulator.token_answer(Answer::Silence);
    let account = entra_account();
    let limit = Duration::from_secs(1);
    let error = provider.refresh(&"refresh-token-1".into(), &account, &[], None, limit).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::Unknown));
    assert_eq!(error.text, "no answer within 1 s");
    simulator.asked_once(ENTRA_TOKEN);
}

/// The reply is there; only the keys to check it with are slow.
#[tokio::test]
async fn slow_keys_don_t_lose_a_reply() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    simulator.answer("/keys", [Answer::Silence]);
    simulator.token_answer(Answer::json(200, &success(&entra_token(&simulator))));
    let account = entra_account();
    let limit = Duration::from_secs(1);
    provider.refresh(&"refresh-token-1".into(), &account, &[], None, limit).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off() {
    for (answer, delivery) in [
        (&b""[..], Delivery::Unknown),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Delivery::Unknown),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":", Delivery::Unknown),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n<", Delivery::Answered),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{", Delivery::Answered),
        (b"garbage\r\n\r\n", Delivery::Unknown),
    ] {
        let simulator = Simulator::start().await;
        let mut config = simulator.entra_config();
        let authority = raw(answer).await.parse().unwrap();
        config.kind = bearerd::config::ProviderKind::Entra { authority, tenant: TENANT.to_owned() };
        let error = refresh(&simulator.provider(&config), &entra_account()).await.unwrap_err();
        let shown = String::from_utf8_lossy(answer);
        assert_eq!((error.class, error.delivery), (Class::Retry, delivery), "{shown:?}: {}", error.text);
    }
}
