//! Tokens of the app registration itself: in memory, one for each upstream, with the same rules of freshness as an account's.

use std::sync::Arc;
use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::vault::{LeaseError, Rejected, Subject};
use tokio::sync::Barrier;

use super::challenges::policy;
use super::rig::{HOUR, Process, Rig, at_once, text};

const SCOPE: &str = "https://graph.microsoft.com/.default";

async fn ready() -> (Rig, Process) {
    let mut rig = Rig::new();
    for (name, upstream) in &mut rig.config.upstreams {
        upstream.app_scopes = if name == "onedrive" { Vec::new() } else { vec![SCOPE.to_owned()] };
    }
    let process = rig.process().await;
    (rig, process)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_are_one_token_request() {
    let (rig, process) = ready().await;
    rig.next_token("one");
    let barrier = Arc::new(Barrier::new(200));
    let start = |_| {
        let (process, barrier) = (process.clone(), Arc::clone(&barrier));
        process.core.tasks.clone().spawn(async move {
            barrier.wait().await;
            process.lease_as(&Subject::App).await
        })
    };
    for task in (0..200).map(start).collect::<Vec<_>>() {
        assert_eq!(text(&task.await.expect("no panic").expect("a lease")), "Bearer one");
    }
    let asked = rig.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].grant_type.as_str(), asked[0].scope.as_deref()), ("client_credentials", Some(SCOPE)));
    assert!(at_once(process.lease_as(&Subject::App)).expect("in memory").is_ok());
    assert!(process.core.store.list(None, 10).await.expect("a store").is_empty(), "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ages_and_expires_as_any_other() {
    let (rig, process) = ready().await;
    for token in ["one", "two", "three"] {
        rig.next_token(token);
    }
    process.lease_as(&Subject::App).await.expect("a lease");
    rig.clock.advance(Duration::from_secs(2740));
    for _ in 0..5 {
        assert!(
            text(&at_once(process.lease_as(&Subject::App)).expect("no waiting").expect("a lease"))
                .starts_with("Bearer")
        );
    }
    process.settled().await;
    assert_eq!((text(&process.lease_as(&Subject::App).await.expect("a lease")), rig.asked().len()), ("Bearer two", 2));
    rig.clock.advance(HOUR);
    assert_eq!(text(&process.lease_as(&Subject::App).await.expect("a lease")), "Bearer three");
    assert_eq!(rig.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_has_its_own_and_one_without_scopes_none() {
    let (rig, process) = ready().await;
    for token in ["one", "two"] {
        rig.next_token(token);
    }
    let lease = |upstream: &'static str| {
        let process = process.clone();
        async move { process.core.vault.lease(&Subject::App, process.upstream(upstream)).await }
    };
    assert_eq!(text(&lease("graph").await.expect("a lease")), "Bearer one");
    assert_eq!(text(&lease("foreign").await.expect("a lease")), "Bearer two");
    assert!(matches!(lease("onedrive").await, Err(LeaseError::Misconfigured(why)) if why.contains("app_scopes")));
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_about_the_token_that_was_sent() {
    let (rig, process) = ready().await;
    for token in ["one", "two", "three"] {
        rig.next_token(token);
    }
    let (app, upstream) = (Subject::App, process.upstream("graph"));
    let old = process.lease_as(&app).await.expect("a lease");
    assert!(matches!(process.core.vault.reject(&app, &old, upstream, None).await, Ok(Rejected::TooYoung)));
    rig.clock.advance(Duration::from_secs(60));
    for _ in 0..5 {
        let Ok(Rejected::Renewed(new)) = process.core.vault.reject(&app, &old, upstream, None).await else { panic!() };
        assert_eq!(text(&new), "Bearer two");
    }
    let met = process.challenge_as(&app, &old, &policy("c1")).await.expect("a lease");
    assert_eq!(text(&met), "Bearer three");
    assert_eq!(text(&process.challenge_as(&app, &old, &policy("c1")).await.expect("a lease")), "Bearer three");
    let asked = rig.challenges();
    assert_eq!(asked.len(), 3);
    assert!(asked[2].as_ref().is_some_and(|claims| claims.covers(&policy("c1"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_sends_the_same_token_again_is_asked_once() {
    let (rig, process) = ready().await;
    for _ in 0..9 {
        rig.next_token("one");
    }
    let app = Subject::App;
    let old = process.lease_as(&app).await.expect("a lease");
    rig.clock.advance(Duration::from_secs(60));
    for _ in 0..5 {
        let again = process.core.vault.reject(&app, &old, process.upstream("graph"), None).await;
        assert!(matches!(again, Err(LeaseError::ProviderUnavailable { .. })), "{again:?}");
    }
    assert_eq!(rig.asked().len(), 2);
    assert_eq!(text(&process.lease_as(&app).await.expect("it lives")), "Bearer one");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_can_help_and_the_answer_says_so() {
    for code in [50076, 53003, 50173] {
        let (rig, process) = ready().await;
        rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(code))));
        for _ in 0..5 {
            let error = process.lease_as(&Subject::App).await.expect_err("no token");
            assert!(matches!(&error, LeaseError::Misconfigured(why) if why.contains("no person")), "{code}: {error:?}");
        }
        assert_eq!(rig.asked().len(), 1, "{code}");
        rig.clock.advance(Duration::from_secs(2));
        rig.next_token("healed");
        assert!(process.lease_as(&Subject::App).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_shared_and_spare_what_lives() {
    let (rig, process) = ready().await;
    rig.next_token("one");
    process.lease_as(&Subject::App).await.expect("a lease");
    rig.clock.advance(Duration::from_secs(3545));
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(7_000_222))).always());
    for _ in 0..5 {
        assert_eq!(text(&process.lease_as(&Subject::App).await.expect("its last minute")), "Bearer one");
    }
    rig.clock.advance(Duration::from_secs(56));
    for _ in 0..5 {
        assert!(matches!(process.lease_as(&Subject::App).await, Err(LeaseError::AppCredential(_))));
    }
    let asked = rig.asked().len();
    assert!(asked <= 3, "{asked}");
}
