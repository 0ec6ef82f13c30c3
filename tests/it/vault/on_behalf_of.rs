//! Tokens on behalf of the user whose own token a caller brings: kept under the user, in memory only.

use std::sync::Arc;
use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::vault::LeaseError;
use tokio::sync::Barrier;

use super::challenges::policy;
use super::rig::{HOUR, Rig, at_once, text};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SAID: &str = r#"{"access_token":{"polids":{"essential":true,"values":["x"]}}}"#;

fn says(code: u32) -> Fault {
    Fault::token(Effect::Error(TokenFault::aadsts(code)))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_exchange_for_all_the_tokens_of_a_user() {
    let rig = Rig::new();
    let process = rig.process().await;
    rig.next_token("one");
    let barrier = Arc::new(Barrier::new(100));
    let start = |number: usize| {
        let subject = rig.assertion("alice", &format!("assertion {}", number % 3));
        let (process, barrier) = (process.clone(), Arc::clone(&barrier));
        process.core.tasks.clone().spawn(async move {
            barrier.wait().await;
            process.lease_as(&subject).await
        })
    };
    for task in (0..100).map(start).collect::<Vec<_>>() {
        assert_eq!(text(&task.await.expect("no panic").expect("a lease")), "Bearer one");
    }
    let asked = rig.asked();
    assert_eq!((asked.len(), asked[0].grant_type.as_str()), (1, GRANT));
    assert!(asked[0].scope.as_deref().is_some_and(|scope| scope.contains("Mail.Read")), "{:?}", asked[0].scope);
    rig.next_token("two");
    let bob = rig.assertion("bob", "assertion 0");
    assert_eq!(text(&process.lease_as(&bob).await.expect("a lease")), "Bearer two", "the same text, another user");
    assert!(process.core.store.list(None, 10).await.expect("a store").is_empty(), "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_has_expired_gets_nothing_and_others_go_on() {
    let rig = Rig::new();
    let process = rig.process().await;
    rig.next_token("one");
    let early = rig.assertion("alice", "early");
    let old = process.lease_as(&early).await.expect("a lease");
    rig.clock.advance(Duration::from_secs(1800));
    let late = rig.assertion("alice", "late");
    assert_eq!(text(&at_once(process.lease_as(&late)).expect("in memory").expect("a lease")), "Bearer one");
    rig.clock.advance(Duration::from_secs(1799));
    rig.next_token("two");
    assert_eq!(text(&process.lease_as(&late).await.expect("with the newer one")), "Bearer two");
    rig.clock.advance(Duration::from_secs(1));
    assert!(matches!(process.lease_as(&early).await, Err(LeaseError::AssertionRefused(_))));
    let refused = process.core.vault.reject(&early, &old, process.upstream("graph"), Some(&policy("c1"))).await;
    assert!(matches!(refused, Err(LeaseError::AssertionRefused(_))), "{refused:?}");
    assert_eq!(text(&process.lease_as(&late).await.expect("a lease")), "Bearer two");
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_assertion_is_the_answer_of_those_only_who_bring_it() {
    let rig = Rig::new();
    let process = rig.process().await;
    let (bad, good) = (rig.assertion("alice", "bad"), rig.assertion("alice", "good"));
    rig.fault(says(50173));
    for _ in 0..5 {
        assert!(matches!(process.lease_as(&bad).await, Err(LeaseError::AssertionRefused(_))));
    }
    assert_eq!(rig.asked().len(), 1);
    rig.next_token("one");
    assert_eq!(text(&process.lease_as(&good).await.expect("a lease")), "Bearer one");

    rig.clock.advance(HOUR);
    let (bad, good) = (rig.assertion("alice", "bad 2"), rig.assertion("alice", "good 2"));
    rig.fault(says(50173));
    let gate = rig.hold();
    let first = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease_as(&bad).await }
    });
    gate.arrived(1).await;
    let second = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease_as(&good).await }
    });
    rig.next_token("two");
    gate.open();
    assert!(matches!(first.await.expect("no panic"), Err(LeaseError::AssertionRefused(_))));
    assert_eq!(text(&second.await.expect("no panic").expect("with its own")), "Bearer two");
    assert_eq!(rig.asked().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn interaction_is_handed_on_to_the_caller_until_it_brings_another_assertion() {
    let rig = Rig::new();
    let process = rig.process().await;
    let first = rig.assertion("alice", "first");
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50079).with_claims(SAID))));
    for _ in 0..5 {
        let Err(LeaseError::Challenge { text, claims }) = process.lease_as(&first).await else { panic!() };
        assert!(text.contains("AADSTS50079"), "{text}");
        assert_eq!(claims.expect("claims").as_str(), SAID);
    }
    assert_eq!(rig.asked().len(), 1);
    rig.next_token("one");
    let second = rig.assertion("alice", "second");
    let lease = process.lease_as(&second).await.expect("the person was asked");

    rig.fault(says(50076));
    let Err(LeaseError::Challenge { claims, .. }) = process.challenge_as(&second, &lease, &policy("c1")).await else {
        panic!()
    };
    assert_eq!(claims, Some(policy("c1")), "Graph's own challenge, where the provider says none");
    assert_eq!(text(&process.lease_as(&second).await.expect("what has no challenge goes on")), "Bearer one");
    rig.next_token("two");
    let third = rig.assertion("alice", "third");
    assert_eq!(text(&process.challenge_as(&third, &lease, &policy("c1")).await.expect("a lease")), "Bearer two");
    assert_eq!(rig.asked().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_leave_memory_when_nobody_would_miss_them() {
    let rig = Rig::new();
    let process = rig.process().await;
    rig.next_token("one");
    process.lease_as(&rig.assertion("alice", "first")).await.expect("a lease");
    rig.clock.advance(2 * HOUR);
    rig.next_token("two");
    assert_eq!(text(&process.lease_as(&rig.assertion("alice", "second")).await.expect("a lease")), "Bearer two");
    assert_eq!(rig.asked().len(), 2);
}
