//! Answers that come too late: a loser's failure never undoes what a winner stored.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, Gate, TokenFault};
use bearerd::store::Status;
use bearerd::vault::{Lease, LeaseError};
use std::sync::Arc;
use tokio::task::JoinHandle;

use crate::vault::rig::{HOUR, Process, Rig, token_id};

type Waiting = JoinHandle<Result<Arc<Lease>, LeaseError>>;

/// A refresh whose answer, `invalid_grant`, is held back.
async fn doomed(rig: &Rig, process: &Process) -> (Gate, Waiting) {
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50173))));
    let gate = rig.hold_answer();
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    gate.arrived(1).await;
    (gate, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_losers_invalid_grant_leaves_the_winners_tokens_alone() {
    let rig = Rig::new();
    let (loser, winner) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let (gate, waiting) = doomed(&rig, &loser).await;
    rig.clock.advance(Duration::from_secs(25));
    let theirs = winner.lease("alice").await.expect("it has taken over");
    gate.open();
    let ours = waiting.await.expect("no panic").expect("the winner's token");
    assert_eq!(token_id(&ours), token_id(&theirs));
    let grant = loser.grant("alice").await;
    assert_eq!((grant.status, grant.version, grant.fail_count), (Status::Active, 2, 0));
    assert_eq!(rig.outcomes(), ["400 invalid_grant 50173", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_a_new_sign_in_leaves_it_alone() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let (gate, waiting) = doomed(&rig, &process).await;
    let grant = other.sign_in(&rig.sandbox, "alice").await;
    gate.open();
    assert_eq!(waiting.await.expect("no panic").expect("the new token").epoch, grant.epoch);
    assert_eq!(process.status("alice").await, Status::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_a_revocation_changes_nothing() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let (gate, waiting) = doomed(&rig, &process).await;
    other.revoke("alice").await;
    gate.open();
    assert!(matches!(waiting.await.expect("no panic"), Err(LeaseError::Revoked)));
    assert_eq!(process.status("alice").await, Status::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_a_removal_brings_nothing_back() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let (gate, waiting) = doomed(&rig, &process).await;
    other.remove("alice").await;
    gate.open();
    assert!(matches!(waiting.await.expect("no panic"), Err(LeaseError::NoAccount)));
    assert!(process.core.store.find("alice").await.expect("a store").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_nothing_about_a_sign_in_that_came_meanwhile() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50196))));
    assert!(process.lease("alice").await.is_err());
    process.sign_in(&rig.sandbox, "alice").await;
    assert_eq!(process.lease("alice").await.expect("the new token").epoch, 2);
    assert_eq!(process.lease_for("alice", "onedrive").await.expect("and its other scopes").epoch, 2);
}
