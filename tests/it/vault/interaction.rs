//! Challenges and refreshes that only a person can answer: they wait for the sign-in, and nothing else of the account does.

use std::sync::Arc;
use std::time::Duration;

use bearerd::claims::Claims;
use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::store::Reason;
use bearerd::vault::{Lease, LeaseError};

use super::challenges::{challenged, policy};
use super::rig::{HOUR, Rig, alias};

const SAID: &str = r#"{"access_token":{"polids":{"essential":true,"values":["x"]}}}"#;

fn needs_a_person(result: Result<Arc<Lease>, LeaseError>) -> Reason {
    match result {
        Err(LeaseError::SigninRequired(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn step_up() -> Fault {
    Fault::token(Effect::Error(TokenFault::aadsts(50076)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_needs_a_person_is_asked_once_and_blocks_nothing_else() {
    for rig in [Rig::new(), Rig::strict()] {
        let process = rig.signed_in().await;
        let old = process.lease("alice").await.expect("a lease");
        rig.fault(step_up());
        let said = needs_a_person(process.challenge(&old, &policy("c1")).await);
        assert_eq!((said.dead, said.claims.as_ref()), (false, Some(&policy("c1"))), "what to sign in with");
        for minutes in [0, 10, 10] {
            rig.clock.advance(Duration::from_secs(60 * minutes));
            assert_eq!(needs_a_person(process.challenge(&old, &policy("c1")).await), said);
        }
        let other = rig.process().await;
        assert_eq!(needs_a_person(other.challenge(&old, &policy("c1")).await), said, "after a restart");
        assert_eq!(rig.asked().len(), 1);
        assert_eq!(process.lease("alice").await.expect("it lives").version, 1);
        assert_eq!(process.grant("alice").await.challenge(), Some(policy("c1")));

        rig.clock.advance(HOUR);
        let plain = process.lease("alice").await.expect("what has no challenge goes on");
        assert_eq!((plain.version, rig.asked().len()), (2, 2));
        assert_eq!(needs_a_person(process.challenge(&plain, &policy("c1")).await), said);
        assert_eq!(rig.asked().len(), 2);
        let met = process.challenge(&plain, &policy("c2")).await.expect("another challenge is another matter");
        assert_eq!((met.version, rig.asked().len()), (3, 3));
        assert!(process.lease_for("alice", "onedrive").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_the_provider_does_not_understand_puts_off_nothing_else() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(900_144))));
    let refused = process.challenge(&old, &policy("nonsense")).await;
    assert!(matches!(refused, Err(LeaseError::Misconfigured(_))), "{refused:?}");
    assert_eq!(process.lease("alice").await.expect("without the challenge").version, 2);
    assert_eq!((rig.asked().len(), process.grant("alice").await.state()), (2, "active"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_claims_of_the_answer_are_what_the_sign_in_carries() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50076).with_claims(SAID))));
    let said = needs_a_person(process.challenge(&old, &policy("c1")).await);
    assert_eq!(said.claims.as_ref().map(Claims::as_str), Some(SAID));
    process.sign_in(&rig.sandbox, "alice").await;
    let new = process.lease("alice").await.expect("a lease");
    process.challenge(&new, &policy("c1")).await.expect("the sign-in has ended it");
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_a_challenge_is_no_answer_for_those_without_one() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.clock.advance(HOUR);
    rig.fault(step_up());
    let gate = rig.hold();
    let challenged = challenged(&process, &old, &policy("c1"));
    gate.arrived(1).await;
    let plain: Vec<_> = (0..20)
        .map(|_| {
            let process = process.clone();
            process.core.tasks.clone().spawn(async move { process.lease("alice").await })
        })
        .collect();
    gate.open();
    needs_a_person(challenged.await.expect("no panic"));
    for plain in plain {
        assert_eq!(plain.await.expect("no panic").expect("a token").version, 2);
    }
    assert_eq!(rig.outcomes(), ["400 invalid_grant 50076", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_upstream_can_t_have_is_no_answer_for_another() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(65001))));
    let said = needs_a_person(process.lease("alice").await);
    assert_eq!(said.claims, None);
    for _ in 0..3 {
        assert_eq!(process.lease_for("alice", "onedrive").await.expect("a lease").version, 2);
        assert_eq!(needs_a_person(process.lease("alice").await), said);
        rig.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(needs_a_person(process.lease("alice").await), said);
    assert_eq!(rig.asked().len(), 2);
    process.sign_in(&rig.sandbox, "alice").await;
    assert!(process.lease("alice").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_refresh_asks_with_the_challenge_again() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.fault(step_up());
    needs_a_person(process.challenge(&old, &policy("c1")).await);
    let grant = process.core.vault.refresh(&alias("alice")).await.expect("the person has done it elsewhere");
    assert!(grant.parked.is_empty(), "{:?}", grant.parked);
    assert!(rig.challenges()[1].as_ref().is_some_and(|claims| claims.covers(&policy("c1"))));
    process.challenge(&old, &policy("c1")).await.expect("it is answered");
    assert_eq!(rig.asked().len(), 3, "each upstream once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_is_dead_for_challenges_too() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50173))));
    for claims in [policy("c1"), policy("c2")] {
        assert!(needs_a_person(process.challenge(&old, &claims).await).dead);
    }
    assert_eq!(rig.asked().len(), 1);
}
