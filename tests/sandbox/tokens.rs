//! Refresh tokens: each rotation mode, reuse, revocation, and what the records say of it.

use std::time::Duration;

use bearerd::sandbox::{EntraOptions, RefreshState, Rotation};
use serde_json::json;

use crate::client::{self, graph, refresh, sandbox, token};

fn successor(reply: &client::Reply) -> String {
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    reply.json()["refresh_token"].as_str().expect("a new refresh token").to_owned()
}

fn with(rotation: Rotation) -> (bearerd::sandbox::Entra, bearerd::clock::Clock, String) {
    let (entra, clock) = client::entra(EntraOptions { rotation, ..EntraOptions::default() });
    let first = entra.grant("alice", "openid profile offline_access User.Read").unwrap().refresh_token;
    (entra, clock, first)
}

#[tokio::test]
async fn entra_rotates_and_the_old_token_stays_valid() {
    let (entra, _, first) = with(Rotation::Tolerant);
    let second = successor(&refresh(&entra, &first).await);
    assert_ne!(first, second);
    successor(&refresh(&entra, &first).await);
    successor(&refresh(&entra, &second).await);
    assert_eq!(entra.refresh_token(&first).unwrap().redeemed, 2);
    let requests = entra.token_requests();
    assert_eq!(requests.iter().map(|request| request.presented_count).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(requests[0].refresh_token_id, Some(entra.refresh_token(&first).unwrap().id));

    let plain = [("grant_type", "refresh_token"), ("refresh_token", first.as_str()), ("scope", "User.Read")];
    assert!(token(&entra, &plain).await.json()["refresh_token"].is_null(), "not without offline_access");
}

#[tokio::test]
async fn strict_rotation_punishes_reuse() {
    let (entra, _, first) = with(Rotation::Strict);
    let second = successor(&refresh(&entra, &first).await);
    let third = successor(&refresh(&entra, &second).await);
    let reused = refresh(&entra, &first).await;
    assert_eq!((reused.status.as_u16(), &reused.json()["error"]), (400, &json!("invalid_grant")));
    assert_eq!(refresh(&entra, &third).await.json()["suberror"], "bad_token", "the whole family is revoked");
    let states: Vec<_> = entra.tokens().refresh_tokens("alice").iter().map(|token| token.state).collect();
    assert_eq!(states, [RefreshState::Revoked; 3]);
}

#[tokio::test]
async fn of_many_at_once_strict_rotation_grants_one() {
    let (entra, _, first) = with(Rotation::Strict);
    let mut racers = Vec::new();
    for _ in 0..16 {
        let (entra, first) = (entra.clone(), first.clone());
        racers.push(bearerd::tasks::spawn_here(async move { refresh(&entra, &first).await.status.as_u16() }));
    }
    let mut granted = 0;
    for racer in racers {
        granted += i32::from(racer.await.unwrap() == 200);
    }
    assert_eq!(granted, 1);
    let token = entra.refresh_token(&first).unwrap();
    assert_eq!((token.presented, token.redeemed), (16, 1));
}

#[tokio::test]
async fn grace_forgives_the_previous_token_for_a_while() {
    let (entra, clock, first) = with(Rotation::Grace(Duration::from_secs(30)));
    let second = successor(&refresh(&entra, &first).await);
    clock.advance(Duration::from_secs(30));
    successor(&refresh(&entra, &first).await);
    let third = successor(&refresh(&entra, &second).await);
    assert_eq!(refresh(&entra, &first).await.status, 400, "not once its successor was used");
    assert_eq!(refresh(&entra, &third).await.status, 400);
}

#[tokio::test]
async fn without_rotation_there_is_no_new_token() {
    let (entra, _, first) = with(Rotation::NonRotating);
    for _ in 0..3 {
        let reply = refresh(&entra, &first).await;
        assert_eq!(reply.status, 200);
        assert!(reply.json()["refresh_token"].is_null());
    }
    assert_eq!(entra.refresh_token(&first).unwrap().redeemed, 3);
}

#[tokio::test]
async fn tokens_end_by_age_and_by_revocation() {
    let (sandbox, clock) = sandbox();
    let entra = &sandbox.entra;
    let me = async |token: &str| graph(&sandbox.graph, token, "GET", "/v1.0/me", "").await.status.as_u16();
    let grant = sandbox.grant("alice").unwrap();
    assert_eq!(me(&grant.access_token).await, 200);
    clock.advance(Duration::from_secs(3599));
    assert_eq!(me(&grant.access_token).await, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(me(&grant.access_token).await, 401);

    let fresh = refresh(entra, &grant.refresh_token).await.json();
    let access_token = fresh["access_token"].as_str().unwrap();
    assert_eq!(me(access_token).await, 200);
    assert!(entra.revoke_access_tokens("alice"));
    assert_eq!(me(access_token).await, 401);
    let healed = refresh(entra, &grant.refresh_token).await.json();
    let bob = sandbox.grant("bob").unwrap();
    assert!(entra.revoke_user("alice"));
    assert_eq!(me(healed["access_token"].as_str().unwrap()).await, 401);
    let dead = refresh(entra, &grant.refresh_token).await.json();
    assert_eq!((&dead["error_codes"], &dead["suberror"]), (&json!([50173]), &json!("bad_token")));
    assert_eq!(me(&bob.access_token).await, 200, "nobody else is concerned");
    assert!(!entra.revoke_user("nobody"));

    clock.advance(Duration::from_hours(90 * 24));
    let idle = refresh(entra, &bob.refresh_token).await.json();
    assert_eq!(idle["error_codes"], json!([700_082]));
    assert_eq!(refresh(entra, "rt_made_up").await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn grant_types_that_are_not_offered() {
    let (sandbox, _) = sandbox();
    for grant_type in ["implicit", "password"] {
        let reply = token(&sandbox.entra, &[("grant_type", grant_type)]).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (400, &json!("unsupported_grant_type")));
    }
    assert_eq!(token(&sandbox.entra, &[]).await.json()["error_codes"], json!([900_144]));
}

#[tokio::test]
async fn a_client_that_hammers_is_told_of_a_loop() {
    let options = EntraOptions { rotation: Rotation::NonRotating, loop_limit: Some(3), ..EntraOptions::default() };
    let (entra, clock) = client::entra(options);
    let grant = entra.grant("alice", "openid profile offline_access User.Read").unwrap();
    let other = entra.grant("alice", "openid profile offline_access User.Read").unwrap();
    for _ in 0..3 {
        assert_eq!(refresh(&entra, &grant.refresh_token).await.status, 200);
    }
    for _ in 0..2 {
        let reply = refresh(&entra, &grant.refresh_token).await.json();
        assert_eq!((&reply["error"], &reply["error_codes"]), (&json!("invalid_grant"), &json!([50196])));
    }
    assert_eq!(refresh(&entra, &other.refresh_token).await.status, 200, "another token");
    let narrow =
        [("grant_type", "refresh_token"), ("refresh_token", grant.refresh_token.as_str()), ("scope", "User.Read")];
    assert_eq!(token(&entra, &narrow).await.status, 200, "another scope");
    clock.advance(Duration::from_mins(5));
    assert_eq!(refresh(&entra, &grant.refresh_token).await.status, 200, "five minutes later");
    assert_eq!(entra.refresh_token(&grant.refresh_token).unwrap().redeemed, 5);

    let options = EntraOptions { rotation: Rotation::NonRotating, loop_limit: None, ..EntraOptions::default() };
    let (entra, _) = client::entra(options);
    let grant = entra.grant("alice", "openid profile offline_access User.Read").unwrap();
    for _ in 0..70 {
        assert_eq!(refresh(&entra, &grant.refresh_token).await.status, 200);
    }
}
