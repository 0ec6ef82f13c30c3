//! A process died between "presented" and "stored", or only stopped: what the next one does with the intent that it finds.

use std::time::Duration;

use bearerd::config::Rotation;
use bearerd::secret::Secret;
use bearerd::store::{AccessToken, Claim, Commit, Committed, Fingerprint, Status};
use bearerd::vault::LeaseError;

use crate::vault::rig::{HOUR, Mode, Process, Rig};

const LEASE: Duration = Duration::from_secs(25);

struct Claimed {
    fence: u64,
    refresh_token: Secret<String>,
    fingerprint: Fingerprint,
}

/// The process is about to present Alice's refresh token.
async fn claimed(process: &Process, rotation: Rotation) -> Claimed {
    let grant = process.grant("alice").await;
    match process.core.store.claim(&grant.key, grant.epoch, grant.version, LEASE, rotation).await.expect("a store") {
        Claim::Claimed { fence, refresh_token, fingerprint, .. } => Claimed { fence, refresh_token, fingerprint },
        other => panic!("{other:?}"),
    }
}

/// Presents it, as the vault would.
async fn presented(process: &Process, claimed: &Claimed) -> bearerd::oauth::TokenReply {
    let scopes = ["User.Read".to_owned(), "Mail.Read".to_owned()];
    let key = process.grant("alice").await.key;
    let provider = &process.core.providers["entra"];
    let limit = Duration::from_secs(8);
    provider.refresh(&claimed.refresh_token, &key, &scopes, None, limit).await.expect("tokens")
}

/// The process is gone, and its lock on the store with it.
async fn dies(process: Process) {
    assert!(process.core.tasks.drain(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_the_last_resort_saves_a_grant_that_was_never_presented() {
    let rig = Rig::strict();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    claimed(&other, Rotation::Strict).await;
    dies(other).await;
    assert_eq!(process.lease("alice").await.expect("saved").version, 2);
    rig.clock.advance(HOUR);
    assert_eq!(process.lease("alice").await.expect("and lives on").version, 3);
    assert_eq!(rig.outcomes(), ["200", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_the_last_resort_is_tried_once_where_the_token_was_used() {
    let rig = Rig::strict();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let held = claimed(&other, Rotation::Strict).await;
    presented(&other, &held).await;
    dies(other).await;
    for _ in 0..5 {
        let error = process.lease("alice").await.expect_err("dead");
        assert!(matches!(&error, LeaseError::SigninRequired(reason) if reason.dead), "{error:?}");
        rig.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(rig.outcomes(), ["200", "400 invalid_grant 70008"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_after_two_deaths_a_sign_in_is_needed() {
    let rig = Rig::strict();
    let (process, first, second) = (rig.signed_in().await, rig.process().await, rig.process().await);
    process.lease("alice").await.expect("a lease");
    rig.clock.advance(Duration::from_secs(3000));
    claimed(&first, Rotation::Strict).await;
    dies(first).await;
    claimed(&second, Rotation::Strict).await;
    dies(second).await;
    assert_eq!(process.lease("alice").await.expect("what lives is served").version, 1);
    rig.clock.advance(Duration::from_secs(600));
    let error = process.lease("alice").await.expect_err("no token");
    assert!(matches!(&error, LeaseError::SigninRequired(reason) if reason.dead), "{error:?}");
    assert!(rig.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tolerant_and_grace_the_intent_of_the_dead_is_taken_over_at_once() {
    for (mode, rotation) in [
        (Mode::Tolerant, Rotation::Tolerant),
        (Mode::Grace(Duration::from_secs(60)), Rotation::Grace(Duration::from_secs(60))),
    ] {
        let rig = Rig::with(mode, 2);
        let (process, other) = (rig.signed_in().await, rig.process().await);
        rig.clock.advance(HOUR);
        let held = claimed(&other, rotation).await;
        presented(&other, &held).await;
        dies(other).await;
        assert_eq!(process.lease("alice").await.expect("healed").version, 2);
        assert_eq!(rig.outcomes(), ["200", "200"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tolerant_a_holder_that_only_stopped_is_waited_for_and_then_overtaken() {
    let rig = Rig::new();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let held = claimed(&other, Rotation::Tolerant).await;
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    rig.clock.advance(LEASE);
    let lease = waiting.await.expect("no panic").expect("overtaken");
    assert_eq!(lease.version, 2);

    // The late one wakes up, presents the same token and stores a sibling, which is older than the other.
    let reply = presented(&other, &held).await;
    let committed = other.core.store.commit(commit(&rig, &other, &held, reply).await).await.expect("a store");
    assert!(matches!(committed, Committed::Refused(_)), "{committed:?}");
    process.catch_up().await;
    assert_eq!(process.lease("alice").await.expect("a lease").authorization, lease.authorization);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_a_holder_that_only_stopped_may_still_bring_the_token() {
    let rig = Rig::strict();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    process.catch_up().await;
    rig.clock.advance(HOUR);
    let held = claimed(&other, Rotation::Strict).await;
    rig.clock.advance(LEASE);
    let error = process.lease("alice").await.expect_err("nobody knows");
    assert!(matches!(error, LeaseError::ProviderUnavailable { .. }), "{error:?}");
    assert_eq!(process.status("alice").await, Status::Uncertain);
    assert!(rig.asked().is_empty(), "not presented again");

    let reply = presented(&other, &held).await;
    let committed = other.core.store.commit(commit(&rig, &other, &held, reply).await).await.expect("a store");
    assert_eq!(committed, Committed::Stored { version: 2 });
    process.catch_up().await;
    assert_eq!(process.lease("alice").await.expect("the late token").version, 2);
    assert_eq!((process.status("alice").await, rig.asked().len()), (Status::Active, 1));
}

async fn commit(rig: &Rig, process: &Process, held: &Claimed, reply: bearerd::oauth::TokenReply) -> Commit {
    let grant = process.grant("alice").await;
    Commit {
        key: grant.key,
        epoch: grant.epoch,
        parent: held.fingerprint,
        fence: held.fence,
        refresh_token: reply.refresh_token,
        access: AccessToken {
            scope_set: "Mail.Read User.Read".into(),
            token: reply.access_token,
            expires: rig.clock.now().plus(reply.expires_in),
            obtained: rig.clock.now(),
            refresh_after: None,
            claims: None,
        },
        scopes: None,
        grace: Duration::ZERO,
    }
}
