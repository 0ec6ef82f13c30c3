//! Keys and discovery: how often the provider is asked, and what a change of keys means.

use std::sync::Arc;
use std::time::Duration;

use bearerd::oauth::{Provider, SignInError};
use bearerd::tasks::spawn_here;
use serde_json::json;
use tokio::sync::Barrier;

use crate::provider::{Answer, Simulator, success};
use crate::tokens::{self, Key};

/// A sign-in with a token by this key under this `kid`.
async fn sign_in(simulator: &Simulator, provider: &Provider, key: &Key, kid: &str) -> Result<(), SignInError> {
    let token = key.token(kid, &simulator.oidc_claims());
    simulator.token_answer(Answer::json(200, &success(&token)));
    let signed_in = provider.poll_device(&device(), &[], None).await;
    signed_in.map(drop)
}

fn device() -> bearerd::oauth::Device {
    bearerd::oauth::Device {
        device_code: "device-code-1".into(),
        user_code: "U".to_owned(),
        verification_uri: "https://login.test".to_owned(),
        expires_in: Duration::from_mins(15),
        interval: Duration::from_secs(5),
        message: None,
    }
}

#[tokio::test]
async fn a_thousand_invented_keys_cost_one_request() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    provider.ready().await.unwrap();
    let key = tokens::rsa("b");
    for number in 0..1000 {
        let kid = format!("../../{number}");
        assert!(sign_in(&simulator, &provider, &key, &kid).await.is_err());
    }
    assert_eq!(simulator.asked("/keys").len(), 2, "the first fetch and one more");
    sign_in(&simulator, &provider, &tokens::rsa("a"), "a").await.unwrap();

    // The rate holds when the provider fails or says nothing, and what was good stays.
    for answer in [Answer::text(500, "text/plain", ""), Answer::json(200, &json!({"keys": []}))] {
        simulator.answer("/keys", [answer]);
        simulator.clock.advance(Duration::from_mins(5));
        let before = simulator.asked("/keys").len();
        for number in 0..20 {
            assert!(sign_in(&simulator, &provider, &key, &format!("x{number}")).await.is_err());
        }
        assert_eq!(simulator.asked("/keys").len() - before, 1);
        sign_in(&simulator, &provider, &tokens::rsa("a"), "a").await.unwrap();
    }
}

/// All at once, as an attacker would: those who come during the fetch wait for it.
#[tokio::test]
async fn a_flood_of_invented_keys_costs_one_request() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    provider.ready().await.unwrap();
    simulator.token_answer(Answer::json(200, &success(&tokens::rsa("b").token("x", &simulator.oidc_claims()))));
    let (tries, waiting) = (200, Arc::new(Barrier::new(200)));
    let tasks: Vec<_> = (0..tries)
        .map(|_| {
            let (provider, waiting) = (provider.clone(), waiting.clone());
            spawn_here(async move {
                waiting.wait().await;
                provider.poll_device(&device(), &[], None).await.is_err()
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    assert_eq!((simulator.asked("/token").len(), simulator.asked("/keys").len()), (tries, 2));
}

#[tokio::test]
async fn keys_may_change_at_any_time() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    sign_in(&simulator, &provider, &tokens::rsa("a"), "a").await.unwrap();
    simulator.publish_keys(&[tokens::rsa("b").public("b"), tokens::p256().public("c")]);
    sign_in(&simulator, &provider, &tokens::rsa("b"), "b").await.unwrap();
    sign_in(&simulator, &provider, &tokens::p256(), "c").await.unwrap();
    assert!(sign_in(&simulator, &provider, &tokens::rsa("a"), "a").await.is_err(), "the old key is gone");
    assert!(sign_in(&simulator, &provider, &tokens::rsa("a"), "b").await.is_err(), "another key under this name");
    assert_eq!(simulator.asked("/keys").len(), 2);
}

#[tokio::test]
async fn documents_are_kept_for_a_day_and_beyond_a_failure() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    let discovery = "/.well-known/openid-configuration";
    for _ in 0..3 {
        provider.ready().await.unwrap();
    }
    simulator.clock.advance(Duration::from_hours(23));
    provider.ready().await.unwrap();
    assert_eq!((simulator.asked(discovery).len(), simulator.asked("/keys").len()), (1, 1));
    simulator.clock.advance(Duration::from_hours(1));
    simulator.answer(discovery, [Answer::text(503, "text/plain", "")]);
    simulator.answer("/keys", [Answer::text(200, "application/json", vec![b' '; 2 << 20])]);
    provider.ready().await.unwrap();
    sign_in(&simulator, &provider, &tokens::rsa("a"), "a").await.unwrap();
    assert_eq!((simulator.asked(discovery).len(), simulator.asked("/keys").len()), (2, 2));
}

#[tokio::test]
async fn documents_that_are_refused() {
    for (path, answer, why) in [
        ("/keys", Answer::text(200, "application/json", vec![b' '; 2 << 20]), "/keys: the answer is longer than 1 MiB"),
        ("/keys", Answer::json(200, &json!({"keys": []})), "/keys: no key in it can be used"),
        ("/keys", Answer::text(302, "text/plain", "").with("location", "/other"), "/keys: HTTP 302"),
        ("/.well-known/openid-configuration", Answer::text(200, "text/html", "<html>"), "the discovery document:"),
        ("/.well-known/openid-configuration", Answer::text(404, "text/html", ""), "HTTP 404"),
    ] {
        let simulator = Simulator::start().await;
        simulator.answer(path, [answer]);
        let error = simulator.oidc().ready().await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_another_one() {
    let simulator = Simulator::start().await;
    let mut metadata = simulator.metadata();
    metadata["issuer"] = "https://idp.test".into();
    simulator.publish(&metadata);
    let error = simulator.oidc().ready().await.unwrap_err();
    assert!(matches!(&error, SignInError::Discovery(why) if why.contains("idp.test")), "{error}");

    metadata["issuer"] = format!("{}/", simulator.origin).into();
    simulator.publish(&metadata);
    simulator.oidc().ready().await.unwrap();
}
