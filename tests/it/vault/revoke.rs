//! The end of a grant by our own hand: here at once, at the provider as far as it can be told.

use bearerd::store::Status;
use bearerd::vault::LeaseError;

use super::rig::{Rig, alias, at_once};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_in_force_when_the_call_returns() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    process.lease_for("alice", "onedrive").await.expect("a lease");
    let key = process.grant("alice").await.key;
    assert!(process.core.vault.revoke(&key).await.expect("a store"));
    let left = at_once(process.lease("alice"));
    assert!(!matches!(left, Some(Ok(_))), "{left:?}");
    for upstream in ["graph", "onedrive"] {
        assert!(matches!(process.lease_for("alice", upstream).await, Err(LeaseError::Revoked)), "no beat in between");
    }
    assert_eq!(process.status("alice").await, Status::Revoked);
    assert_eq!(rig.asked().len(), 1, "the drive's");
    process.core.store.remove(&key).await.expect("a store");
    assert!(!process.core.vault.revoke(&key).await.expect("a store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_gone_keeps_nobody_from_it() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.sandbox.entra.down().await;
    let key = process.grant("alice").await.key;
    assert!(process.core.vault.revoke(&key).await.expect("a store"));
    assert!(matches!(process.lease("alice").await, Err(LeaseError::Revoked)));
}

/// A new life of the grant begins in the moment after a refresh was stored: nobody is told that the provider's token is worth nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_refresh_brought_may_be_gone_when_it_is_looked_for() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.sql()
        .execute_batch(
            "CREATE TABLE once (x); INSERT INTO once VALUES (1);
             CREATE TRIGGER comes_between AFTER UPDATE ON grants
             WHEN NEW.version > OLD.version AND (SELECT count(*) FROM once) = 1 BEGIN
                 DELETE FROM once;
                 UPDATE grants SET version = NEW.version + 1 WHERE id = NEW.id;
                 DELETE FROM access WHERE grant_id = NEW.id;
             END",
        )
        .expect("a trigger");
    let refreshed = process.core.vault.refresh(&alias("alice")).await.expect("another refresh");
    assert_eq!((refreshed.version, rig.asked().len()), (5, 3), "twice for Graph, once for the drive");
}
