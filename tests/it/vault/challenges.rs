//! Claims challenges that a refresh answers: past every token that is there, once for everybody, and each with what it asks for.

use std::sync::Arc;
use std::time::Duration;

use bearerd::claims::Claims;
use bearerd::vault::{Lease, LeaseError, Rejected, Subject};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use super::rig::{HOUR, Process, Rig, alias, token_id};

type Waiting = JoinHandle<Result<Arc<Lease>, LeaseError>>;

/// What the provider grants without a sign-in.
pub fn policy(value: &str) -> Claims {
    Claims::parse(&format!(r#"{{"access_token":{{"polids":{{"essential":true,"values":["{value}"]}}}}}}"#))
        .expect("claims")
}

fn not_before(value: u64) -> Claims {
    Claims::parse(&format!(r#"{{"access_token":{{"nbf":{{"essential":true, "value":"{value}"}}}}}}"#)).expect("claims")
}

fn answers(lease: &Lease, claims: &Claims) -> bool {
    lease.claims.as_ref().is_some_and(|got| got.covers(claims))
}

pub fn challenged(process: &Process, lease: &Arc<Lease>, claims: &Claims) -> Waiting {
    let (process, lease, claims) = (process.clone(), Arc::clone(lease), claims.clone());
    process.core.tasks.clone().spawn(async move { process.challenge(&lease, &claims).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_with_one_challenge_are_one_redemption() {
    for rig in [Rig::new(), Rig::strict()] {
        let process = rig.signed_in().await;
        let old = process.lease("alice").await.expect("a lease");
        let barrier = Arc::new(Barrier::new(200));
        let start = |_| {
            let (process, old, barrier) = (process.clone(), Arc::clone(&old), Arc::clone(&barrier));
            process.core.tasks.clone().spawn(async move {
                barrier.wait().await;
                process.challenge(&old, &policy("c1")).await
            })
        };
        let tasks: Vec<_> = (0..200).map(start).collect();
        for task in tasks {
            let lease = task.await.expect("no panic").expect("however young the old token is");
            assert_eq!(lease.version, 2);
            assert!(answers(&lease, &policy("c1")));
        }
        assert_eq!(rig.outcomes(), ["200"]);
        assert!(rig.challenges()[0].as_ref().expect("claims").covers(&policy("c1")));
        let again = process.challenge(&old, &policy("c1")).await.expect("a late one");
        assert_eq!((again.version, rig.asked().len()), (2, 1));
        assert_eq!(process.lease("alice").await.expect("everybody's token").version, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_challenges_at_once_cost_two_redemptions_at_most_and_each_is_answered() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    let barrier = Arc::new(Barrier::new(200));
    let start = |number: usize| {
        let claims = policy(if number.is_multiple_of(2) { "c1" } else { "c2" });
        let (process, old, barrier) = (process.clone(), Arc::clone(&old), Arc::clone(&barrier));
        process.core.tasks.clone().spawn(async move {
            barrier.wait().await;
            (process.challenge(&old, &claims).await, claims)
        })
    };
    let tasks: Vec<_> = (0..200).map(start).collect();
    for task in tasks {
        let (lease, claims) = task.await.expect("no panic");
        assert!(answers(&lease.expect("a lease"), &claims));
    }
    assert!(rig.asked().len() <= 2, "{:?}", rig.outcomes());
    for claims in [policy("c1"), policy("c2")] {
        process.challenge(&old, &claims).await.expect("a late one");
    }
    assert!(rig.asked().len() <= 2, "the token answers both");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_before_the_request_is_made_are_in_it() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    let gate = rig.hold();
    let first = challenged(&process, &old, &policy("c1"));
    gate.arrived(1).await;
    let later: Vec<_> = ["c2", "c3", "c2"].iter().map(|value| challenged(&process, &old, &policy(value))).collect();
    gate.open();
    assert!(answers(&first.await.expect("no panic").expect("a lease"), &policy("c1")));
    for waiting in later {
        waiting.await.expect("no panic").expect("a lease");
    }
    let asked = rig.challenges();
    assert!((2..=3).contains(&asked.len()), "{asked:?}");
    assert!(asked[0].as_ref().is_none_or(|claims| !claims.covers(&policy("c2"))), "it was under way");
    let last = asked.last().cloned().flatten().expect("claims");
    assert!(["c1", "c2", "c3"].iter().all(|value| last.covers(&policy(value))), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_refresh_under_way_does_not_swallow_a_challenge() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.clock.advance(HOUR);
    let gate = rig.hold();
    let plain = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    gate.arrived(1).await;
    let challenged = challenged(&process, &old, &policy("c1"));
    gate.open();
    assert!(plain.await.expect("no panic").is_ok());
    assert!(answers(&challenged.await.expect("no panic").expect("a lease"), &policy("c1")));
    assert_eq!(rig.outcomes(), ["200", "200"]);
    let asked = rig.challenges();
    assert_eq!(asked[0], None);
    assert!(asked[1].as_ref().is_some_and(|claims| claims.covers(&policy("c1"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_that_take_turns_end_with_a_token_that_answers_all() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let mut lease = process.lease("alice").await.expect("a lease");
    for round in 0..6 {
        let claims = policy(if round % 2 == 0 { "c1" } else { "c2" });
        if !answers(&lease, &claims) {
            lease = process.challenge(&lease, &claims).await.expect("a lease");
        }
    }
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_time_answers_an_earlier_one() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    let new = process.challenge(&old, &not_before(200)).await.expect("a lease");
    for late in [100, 150, 200] {
        assert_eq!(token_id(&process.challenge(&old, &not_before(late)).await.expect("a lease")), token_id(&new));
    }
    assert_eq!(rig.asked().len(), 1);
    process.challenge(&old, &not_before(201)).await.expect("a lease");
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_challenge_against_the_token_that_answers_it_is_no_loop() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    let new = process.challenge(&old, &policy("c1")).await.expect("a lease");
    let (subject, upstream) = (Subject::User(alias("alice")), process.upstream("graph"));
    for _ in 0..10 {
        let again = process.core.vault.reject(&subject, &new, upstream, Some(&policy("c1"))).await;
        assert!(matches!(again, Ok(Rejected::TooYoung)), "{again:?}");
    }
    assert_eq!(rig.asked().len(), 1);
    rig.clock.advance(Duration::from_secs(10));
    assert_eq!(process.challenge(&new, &policy("c1")).await.expect("a lease").version, 3);
}

/// An upstream that asks for something else each time must not drive the account into the provider's loop detection.
#[tokio::test(flavor = "multi_thread")]
async fn challenges_without_an_end_are_answered_a_few_times_a_minute() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let mut lease = process.lease("alice").await.expect("a lease");
    let (subject, upstream) = (Subject::User(alias("alice")), process.upstream("graph"));
    for round in 0..100 {
        match process.core.vault.reject(&subject, &lease, upstream, Some(&policy(&format!("c{round}")))).await {
            Ok(Rejected::Renewed(renewed)) => lease = renewed,
            Ok(Rejected::TooYoung) => assert!(round >= 4, "{round}"),
            Err(error) => panic!("{error}"),
        }
        process.core.vault.reject_behind(&subject, &lease, upstream, Some(&policy(&format!("d{round}"))));
        process.settled().await;
    }
    assert_eq!(rig.asked().len(), 8);
    assert_eq!(process.lease("alice").await.expect("a lease").version, 9, "what there is goes on");
    rig.clock.advance(Duration::from_secs(60));
    lease = process.lease("alice").await.expect("a lease");
    assert!(process.challenge(&lease, &policy("later")).await.is_ok());
    assert_eq!(rig.asked().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_for_later_requests_waits_for_nobody() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    let (subject, upstream) = (Subject::User(alias("alice")), process.upstream("graph"));
    for _ in 0..20 {
        process.core.vault.reject_behind(&subject, &old, upstream, Some(&policy("c1")));
    }
    process.settled().await;
    assert!(answers(&process.lease("alice").await.expect("a lease"), &policy("c1")));
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_token_still_answers() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    process.challenge(&old, &policy("c1")).await.expect("a lease");
    let other = rig.process().await;
    let late = other.challenge(&old, &policy("c1")).await.expect("a lease");
    assert!(answers(&late, &policy("c1")));
    assert_eq!(rig.asked().len(), 1);
}
