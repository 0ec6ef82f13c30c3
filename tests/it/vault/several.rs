//! Several resources from one grant: one refresh token, one lease for each upstream.

use std::time::Duration;

use super::challenges::policy;
use super::rig::{HOUR, Rig, alias, token_id};

const A_MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_for_one_upstream_leaves_the_lease_of_another_alone() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let graph = process.lease("alice").await.expect("a lease");
    let drive = process.lease_for("alice", "onedrive").await.expect("a lease");
    rig.sandbox.entra.clear();
    let mut newest = graph;
    for _ in 0..3 {
        rig.clock.advance(A_MINUTE);
        newest = process.renewed(&newest).await;
        newest = process.challenge(&newest, &policy(&format!("c{}", newest.version))).await.expect("a lease");
        process.catch_up().await;
        let still = process.lease_for("alice", "onedrive").await.expect("a lease");
        assert_eq!((token_id(&still), still.version), (token_id(&drive), drive.version));
    }
    assert_eq!(rig.outcomes(), ["200"; 6]);
    let mut presented: Vec<_> = rig.asked().into_iter().map(|request| request.refresh_token_id).collect();
    presented.dedup();
    assert_eq!(presented.len(), 6, "each refresh token once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commits_of_one_upstream_never_pass_for_the_renewal_of_another() {
    for restarted in [false, true] {
        let rig = Rig::strict();
        let first = rig.signed_in().await;
        first.lease_for("alice", "onedrive").await.expect("a lease");
        let process = if restarted { rig.process().await } else { first.clone() };
        let graph = process.lease("alice").await.expect("a lease");
        rig.clock.advance(A_MINUTE);
        // Another process renews what belongs to the other upstream.
        let drive = first.lease_for("alice", "onedrive").await.expect("a lease");
        let upstream = first.upstream("onedrive");
        let subject = bearerd::vault::Subject::User(alias("alice"));
        first.core.vault.reject(&subject, &drive, upstream, None).await.expect("a lease");
        process.catch_up().await;
        let asked = rig.asked().len();
        let renewed = process.renewed(&graph).await;
        assert_ne!(token_id(&renewed), token_id(&graph), "restarted: {restarted}");
        assert_eq!(rig.asked().len(), asked + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_upstreams_that_expire_together_share_nothing_but_the_refresh_token() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    process.lease_for("alice", "onedrive").await.expect("a lease");
    rig.clock.advance(HOUR);
    rig.sandbox.entra.clear();
    let (graph, drive) = tokio::join!(process.lease("alice"), process.lease_for("alice", "onedrive"));
    let (graph, drive) = (graph.expect("a lease"), drive.expect("a lease"));
    assert_ne!(token_id(&graph), token_id(&drive));
    let mut versions = [graph.version, drive.version];
    versions.sort_unstable();
    assert_eq!(versions, [3, 4], "one after the other");
    let mut presented: Vec<_> = rig.asked().into_iter().map(|request| request.refresh_token_id).collect();
    presented.dedup();
    assert_eq!((presented.len(), rig.outcomes()), (2, vec!["200".to_owned(), "200".to_owned()]));
}
