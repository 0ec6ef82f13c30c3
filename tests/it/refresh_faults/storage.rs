//! The store goes away: what lives is served, nothing is presented, and an answer that came is not given up.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault};
use bearerd::store::Status;
use bearerd::vault::LeaseError;

use crate::vault::rig::{HOUR, Rig, at_once};

/// Takes the table of grants away, or brings it back.
fn rename(rig: &Rig, from: &str, to: &str) {
    rig.sql().execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).expect("a table");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_leases_are_served_and_nothing_is_presented() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    rename(&rig, "grants", "away");
    assert_eq!(at_once(process.lease("alice")).expect("in memory").expect("a lease").version, 1);
    assert!(matches!(process.lease("bob").await, Err(LeaseError::StoreUnavailable(_))));
    for after in [2740, 805, 50] {
        rig.clock.advance(Duration::from_secs(after));
        assert_eq!(process.lease("alice").await.expect("the living token").version, 1);
    }
    rig.clock.advance(Duration::from_secs(5));
    assert!(matches!(process.lease("alice").await, Err(LeaseError::StoreUnavailable(_))));
    assert!(process.core.vault.catch_up().await.is_err());
    assert!(rig.asked().is_empty());

    rename(&rig, "away", "grants");
    assert_eq!(process.lease("alice").await.expect("the store is back").version, 2);
    assert_eq!(process.lease("bob").await.expect("the store is back").version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_stored_yet_is_stored_later() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    let gate = rig.hold_answer();
    let mut waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    gate.arrived(1).await;
    rename(&rig, "grants", "away");
    gate.open();
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "served before it was stored: {early:?}");
    rename(&rig, "away", "grants");
    assert_eq!(waiting.await.expect("no panic").expect("stored").version, 2);
    assert_eq!(rig.outcomes(), ["200"]);
    rig.clock.advance(HOUR);
    assert_eq!(process.lease("alice").await.expect("and lives on").version, 3);
}

/// The provider's word is kept until it can be stored: an intent that nobody ends would hold the account up.
#[tokio::test(flavor = "multi_thread")]
async fn a_definite_failure_that_cannot_be_stored_yet_is_stored_later() {
    for dead in [true, false] {
        let rig = Rig::strict();
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        let gate = rig.hold();
        if !dead {
            rig.fault(Fault::token(Effect::html(429, Some("60"))));
        }
        let mut waiting = process.core.tasks.spawn({
            let process = process.clone();
            async move { process.lease("alice").await }
        });
        gate.arrived(1).await;
        if dead {
            assert!(rig.sandbox.entra.revoke_user("alice"));
        }
        rename(&rig, "grants", "away");
        gate.open();
        let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
        assert!(early.is_err(), "given up before it was stored: {early:?}");
        rename(&rig, "away", "grants");
        let error = waiting.await.expect("no panic").expect_err("the provider said no");
        assert_eq!(rig.asked().len(), 1);
        let grant = process.grant("alice").await;
        assert!(!grant.intent, "{grant:?}");
        if dead {
            assert!(matches!(error, LeaseError::SigninRequired(_)), "{error:?}");
            assert!(matches!(grant.status, Status::Reauth(reason) if reason.dead));
        } else {
            assert!(matches!(error, LeaseError::ProviderUnavailable { .. }), "{error:?}");
            assert_eq!((grant.status, grant.fail_count), (Status::Active, 1));
            rig.sandbox.faults().clear();
            rig.clock.advance(Duration::from_secs(61));
            assert_eq!(process.lease("alice").await.expect("and lives on").version, 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_concerns_its_own_account_only() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.catch_up().await;
    process.lease("alice").await.expect("a lease");
    let damage = "UPDATE access SET token = zeroblob(length(token)) WHERE grant_id = (SELECT id FROM grants WHERE alias = 'alice')";
    rig.sql().execute_batch(damage).expect("a row");
    let fresh = rig.process().await;
    assert!(matches!(fresh.lease("alice").await, Err(LeaseError::Damaged(_))));
    assert_eq!(fresh.lease("bob").await.expect("a lease").version, 1);
    assert!(rig.asked().is_empty());
}
