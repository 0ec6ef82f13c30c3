//! A token that an upstream refused: the refusal counts for the very token that was sent.

use std::sync::Arc;
use std::time::Duration;

use bearerd::audit::{Entry, Event, Who};
use bearerd::secret::Secret;
use bearerd::vault::{Import, Lease, LeaseError, Rejected, Subject};
use tokio::sync::Barrier;

use super::rig::{HOUR, Process, Rig, alias, token_id};

const A_MINUTE: Duration = Duration::from_secs(60);

/// Imports Alice without asking the provider; says her access token.
async fn import(process: &Process, rig: &Rig, scopes: Option<&str>) -> String {
    let grant = rig.sandbox.grant("alice").expect("a user");
    let row = Import {
        alias: alias("alice"),
        provider: "entra".into(),
        refresh_token: Secret::new(grant.refresh_token),
        access_token: Some(Secret::new(grant.access_token.clone())),
        expires_at: Some(grant.expires_at),
        tenant: Some(grant.tenant),
        subject: Some(grant.oid),
        scopes: scopes.map(|scopes| scopes.split(' ').map(str::to_owned).collect()),
    };
    process.core.vault.import(row, false, Entry::new(Event::Import, Who::Cli)).await.expect("an import");
    grant.access_token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_rejections_of_one_token_are_one_refresh() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.clock.advance(A_MINUTE);
    let barrier = Arc::new(Barrier::new(100));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (process, old, barrier) = (process.clone(), Arc::clone(&old), Arc::clone(&barrier));
            process.core.tasks.clone().spawn(async move {
                barrier.wait().await;
                process.renewed(&old).await.version
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), 2);
    }
    assert_eq!(rig.outcomes(), ["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_rejection_of_an_old_token_brings_the_newer_one_without_a_call() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let first = process.lease("alice").await.expect("a lease");
    rig.clock.advance(A_MINUTE);
    let second = process.renewed(&first).await;
    rig.clock.advance(A_MINUTE);
    let again = process.renewed(&first).await;
    assert_eq!(token_id(&again), token_id(&second));
    assert_eq!(rig.asked().len(), 1);
    assert_eq!(process.renewed(&second).await.version, 3, "its own rejection counts");
    assert_eq!(
        process.renewed(&first).await.version,
        3,
        "young as the newest one is, it is not the one that was refused"
    );
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_processs_newer_token_is_found_without_a_call() {
    let rig = Rig::strict();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    let first = process.lease("alice").await.expect("a lease");
    rig.clock.advance(A_MINUTE);
    let theirs = other.renewed(&first).await;
    let ours = process.renewed(&first).await;
    assert_eq!(token_id(&ours), token_id(&theirs));
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_seconds_old_is_not_refreshed_again() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let first = process.lease("alice").await.expect("a lease");
    assert!(matches!(process.reject(&first).await, Ok(Rejected::TooYoung)));
    rig.clock.advance(Duration::from_millis(9_999));
    assert!(matches!(process.reject(&first).await, Ok(Rejected::TooYoung)));
    rig.clock.advance(Duration::from_millis(1));
    let second = process.renewed(&first).await;
    assert!(matches!(process.reject(&second).await, Ok(Rejected::TooYoung)));
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_token_is_never_young() {
    let rig = Rig::new();
    let process = rig.process().await;
    import(&process, &rig, Some("User.Read Mail.Read")).await;
    let lease = process.lease("alice").await.expect("a lease");
    assert!(rig.asked().is_empty(), "nobody was asked");
    assert_eq!(process.renewed(&lease).await.version, 2);
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_token_is_sent_only_where_its_scopes_say() {
    for scopes in [None, Some("User.Read"), Some("Mail.Read User.Read")] {
        let rig = Rig::new();
        let process = rig.process().await;
        let imported = import(&process, &rig, scopes).await;
        let token = |lease: &Lease| format!("Bearer {imported}") == lease.authorization.to_str().expect("text");
        let known = scopes == Some("Mail.Read User.Read");
        assert_eq!(token(&process.lease("alice").await.expect("a lease")), known, "{scopes:?}");
        assert!(!token(&process.lease_for("alice", "onedrive").await.expect("a lease")), "{scopes:?}");
        assert_eq!(rig.asked().len(), 2 - usize::from(known));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refresh_of_other_scopes_brings_no_new_token_for_these() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let mail = process.lease("alice").await.expect("a lease");
    rig.clock.advance(A_MINUTE);
    process.lease_for("alice", "onedrive").await.expect("a lease");
    assert_eq!(rig.asked().len(), 1, "files had no token yet");
    process.catch_up().await;
    let renewed = process.renewed(&mail).await;
    assert_ne!(token_id(&renewed), token_id(&mail), "the token that was refused must not come back");
    assert_eq!(rig.asked().len(), 2);
    assert_eq!(token_id(&process.lease("alice").await.expect("a lease")), token_id(&renewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_for_later_requests_waits_for_nobody() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    let upstream = process.upstream("graph");
    process.core.vault.reject_behind(&Subject::User(alias("alice")), &old, upstream, None);
    assert!(process.core.tasks.drain(Duration::from_secs(10)).await);
    assert!(rig.asked().is_empty(), "too young");
    rig.clock.advance(A_MINUTE);
    for _ in 0..20 {
        process.core.vault.reject_behind(&Subject::User(alias("alice")), &old, upstream, None);
    }
    assert!(process.core.tasks.drain(Duration::from_secs(10)).await);
    assert_eq!(process.lease("alice").await.expect("a lease").version, 2);
    process.core.vault.reject_behind(&Subject::User(alias("alice")), &old, upstream, None);
    assert!(process.core.tasks.drain(Duration::from_secs(10)).await);
    assert_eq!(rig.asked().len(), 1, "a late one finds the newer token");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_never_used_at_an_upstream_of_another_provider() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    let error = process.lease_for("alice", "foreign").await.expect_err("no lease");
    assert!(matches!(error, LeaseError::NoAccount), "{error:?}");
    assert!(rig.asked().is_empty());
}
