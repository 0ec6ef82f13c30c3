//! Lives of a grant: what ends one, or begins another, is in force at the next beat of the watcher, whoever did it and whatever
//! was under way.

use std::time::Duration;

use bearerd::store::Status;
use bearerd::vault::LeaseError;

use super::rig::{HOUR, Process, Rig, at_once, token_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_another_process_is_in_force_at_the_next_beat() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    process.catch_up().await;
    process.lease("alice").await.expect("a lease");
    let bob = process.lease("bob").await.expect("a lease");
    other.revoke("alice").await;
    process.catch_up().await;
    for _ in 0..5 {
        assert!(matches!(process.lease("alice").await, Err(LeaseError::Revoked)));
    }
    assert_eq!(token_id(&process.lease("bob").await.expect("a lease")), token_id(&bob));
    assert!(rig.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_before_the_first_beat_is_not_missed() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    process.lease("alice").await.expect("a lease");
    other.revoke("alice").await;
    process.catch_up().await;
    assert!(matches!(process.lease("alice").await, Err(LeaseError::Revoked)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_during_a_refresh_stays() {
    for provider_is_done in [false, true] {
        let rig = Rig::strict();
        let (process, other) = (rig.signed_in().await, rig.process().await);
        process.catch_up().await;
        rig.clock.advance(HOUR);
        let gate = if provider_is_done { rig.hold_answer() } else { rig.hold() };
        let waiting = process.core.tasks.spawn({
            let process = process.clone();
            async move { process.lease("alice").await }
        });
        gate.arrived(1).await;
        other.revoke("alice").await;
        process.catch_up().await;
        gate.open();
        assert!(matches!(waiting.await.expect("no panic"), Err(LeaseError::Revoked)));
        let grant = process.grant("alice").await;
        assert_eq!((grant.status, grant.access.len(), grant.intent), (Status::Revoked, 0, false));
        assert!(matches!(process.lease("alice").await, Err(LeaseError::Revoked)));
        let kept: Option<Vec<u8>> =
            rig.sql().query_row("SELECT rt FROM grants WHERE alias = 'alice'", [], |row| row.get(0)).expect("a row");
        assert_eq!((kept, rig.asked().len()), (None, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sign_in_during_a_refresh_wins() {
    for provider_is_done in [false, true] {
        for beat in [false, true] {
            let rig = Rig::strict();
            let (process, other) = (rig.signed_in().await, rig.process().await);
            process.catch_up().await;
            rig.clock.advance(HOUR);
            let gate = if provider_is_done { rig.hold_answer() } else { rig.hold() };
            let waiting = process.core.tasks.spawn({
                let process = process.clone();
                async move { process.lease("alice").await }
            });
            gate.arrived(1).await;
            let grant = other.sign_in(&rig.sandbox, "alice").await;
            if beat {
                process.catch_up().await;
            }
            gate.open();
            let lease = waiting.await.expect("no panic").expect("the new token");
            assert_eq!((lease.epoch, lease.version), (grant.epoch, grant.version));
            let lease = process.lease("alice").await.expect("the new token");
            assert_eq!((lease.epoch, lease.version), (grant.epoch, grant.version));
            assert_eq!(rig.asked().len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_and_signed_in_again_during_a_refresh() {
    let rig = Rig::strict();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    process.catch_up().await;
    rig.clock.advance(HOUR);
    let gate = rig.hold();
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    gate.arrived(1).await;
    other.revoke("alice").await;
    process.catch_up().await;
    let grant = other.sign_in(&rig.sandbox, "alice").await;
    gate.open();
    let lease = waiting.await.expect("no panic").expect("the new token");
    assert_eq!((lease.epoch, lease.version), (grant.epoch, grant.version));
    assert_eq!(rig.asked().len(), 1, "the new token is used, not renewed");
    process.catch_up().await;
    assert_eq!(process.lease("alice").await.expect("the new token").epoch, grant.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_mends_a_revoked_account_at_once() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.revoke("alice").await;
    process.catch_up().await;
    assert!(matches!(process.lease("alice").await, Err(LeaseError::Revoked)));
    process.sign_in(&rig.sandbox, "alice").await;
    assert_eq!(process.lease("alice").await.expect("a lease").epoch, 3, "no beat in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_account_is_gone_at_the_next_beat() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    process.catch_up().await;
    process.lease("alice").await.expect("a lease");
    other.remove("alice").await;
    process.catch_up().await;
    assert!(matches!(process.lease("alice").await, Err(LeaseError::NoAccount)));
    other.sign_in(&rig.sandbox, "alice").await;
    process.catch_up().await;
    assert_eq!(rig.owner(&process.lease("alice").await.expect("a lease")), "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_changes_hands_takes_no_token_along() {
    for beat_in_between in [false, true] {
        let rig = Rig::new();
        let (process, other) = (rig.process().await, rig.process().await);
        process.catch_up().await;
        // Several lives make the first owner's counters the higher ones.
        for _ in 0..3 {
            process.sign_in_as(&rig.sandbox, "mailbox", "alice").await;
        }
        assert_eq!(rig.owner(&process.lease("mailbox").await.expect("a lease")), "alice");
        other.remove("mailbox").await;
        if beat_in_between {
            process.catch_up().await;
        }
        other.sign_in_as(&rig.sandbox, "mailbox", "bob").await;
        process.catch_up().await;
        let lease = process.lease("mailbox").await.expect("a lease");
        assert_eq!(rig.owner(&lease), "bob");
        rig.clock.advance(HOUR);
        assert_eq!(rig.owner(&process.lease("mailbox").await.expect("a lease")), "bob");
        assert_eq!(rig.asked().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_changes_hands_during_a_refresh_takes_no_token_along() {
    let rig = Rig::new();
    let (process, other) = (rig.process().await, rig.process().await);
    process.catch_up().await;
    process.sign_in_as(&rig.sandbox, "mailbox", "alice").await;
    rig.clock.advance(HOUR);
    let gate = rig.hold_answer();
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("mailbox").await }
    });
    gate.arrived(1).await;
    other.remove("mailbox").await;
    other.sign_in_as(&rig.sandbox, "mailbox", "bob").await;
    gate.open();
    assert_eq!(rig.owner(&waiting.await.expect("no panic").expect("a lease")), "bob");
    assert_eq!(rig.owner(&process.lease("mailbox").await.expect("a lease")), "bob");
}

/// How many accounts are in memory.
fn slots(process: &Process) -> String {
    let shown = format!("{:?}", process.core.vault);
    shown.split_once("slots: ").expect("said").1.split([',', ' ']).next().expect("a number").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_has_leave_nothing_in_memory() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    let asking: Vec<_> = (0..400)
        .map(|number| {
            let process = process.clone();
            // Several ask for the same name at a time, for several upstreams.
            let (name, upstream) = (format!("invented{}", number / 4), ["graph", "onedrive"][number % 2]);
            process.core.tasks.clone().spawn(async move { process.lease_for(&name, upstream).await })
        })
        .collect();
    for answer in asking {
        assert!(matches!(answer.await.expect("no panic"), Err(LeaseError::NoAccount)));
    }
    assert!(process.core.tasks.drain(Duration::from_secs(10)).await);
    assert_eq!(slots(&process), "1", "Alice's");
    assert!(rig.asked().is_empty());
    process.lease("alice").await.expect("a lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_given_while_it_is_asked_for_is_served_and_followed() {
    let rig = Rig::new();
    let (process, other) = (rig.process().await, rig.process().await);
    process.catch_up().await;
    for round in 0..30 {
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let process = process.clone();
                process.core.tasks.clone().spawn(async move { process.lease("alice").await.map(|lease| lease.epoch) })
            })
            .collect();
        let grant = process.sign_in(&rig.sandbox, "alice").await;
        for answer in asking {
            let answer = answer.await.expect("no panic");
            match answer {
                Ok(epoch) => assert_eq!(epoch, grant.epoch, "{round}"),
                Err(error) => assert!(matches!(error, LeaseError::NoAccount), "{round}: {error:?}"),
            }
        }
        assert_eq!(process.lease("alice").await.expect("signed in").epoch, grant.epoch, "{round}");
        other.remove("alice").await;
        process.catch_up().await;
        assert!(matches!(process.lease("alice").await, Err(LeaseError::NoAccount)), "{round}");
    }
    assert!(rig.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_processs_refresh_is_taken_over_at_the_next_beat() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    process.catch_up().await;
    process.lease("alice").await.expect("a lease");
    rig.clock.advance(HOUR);
    let theirs = other.lease("alice").await.expect("a lease");
    process.catch_up().await;
    let ours = at_once(process.lease("alice")).expect("in memory").expect("a lease");
    assert_eq!(token_id(&ours), token_id(&theirs));
    assert_eq!(rig.asked().len(), 1);
}
