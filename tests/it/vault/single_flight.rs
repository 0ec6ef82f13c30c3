//! However many ask, the provider is asked once.

use std::sync::Arc;
use std::time::Duration;

use bearerd::vault::{Lease, LeaseError};
use tokio::sync::Barrier;

use super::rig::{HOUR, Mode, Process, Rig, given_up_after};

/// `tasks` at the same moment for each of `names`.
async fn crowd(
    process: &Process,
    names: &[String],
    upstream: &str,
    tasks: usize,
) -> Vec<Result<Arc<Lease>, LeaseError>> {
    let barrier = Arc::new(Barrier::new(names.len() * tasks));
    let start = |name: &String| {
        let (process, barrier, name, upstream) =
            (process.clone(), Arc::clone(&barrier), name.clone(), upstream.to_owned());
        process.core.tasks.clone().spawn(async move {
            barrier.wait().await;
            process.lease_for(&name, &upstream).await
        })
    };
    let started: Vec<_> = names.iter().flat_map(|name| (0..tasks).map(|_| start(name)).collect::<Vec<_>>()).collect();
    let mut results = Vec::new();
    for task in started {
        results.push(task.await.expect("no panic"));
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tasks_and_an_expired_token_are_one_refresh() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    let leases = crowd(&process, &["alice".to_owned()], "graph", 200).await;
    for lease in leases {
        let lease = lease.expect("a lease");
        assert_eq!((lease.version, rig.owner(&lease)), (2, "alice".to_owned()));
    }
    assert_eq!(rig.outcomes(), ["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_accounts_and_twenty_tasks_each_are_fifty_refreshes() {
    let rig = Rig::with(Mode::Strict, 50);
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    let names: Vec<_> = rig.sandbox.entra.options().users.iter().map(|user| user.alias.clone()).collect();
    let leases = crowd(&process, &names, "graph", 20).await;
    for (lease, name) in leases.iter().zip(names.iter().flat_map(|name| [name; 20])) {
        let lease = lease.as_ref().expect("a lease");
        assert_eq!((lease.version, rig.owner(lease)), (2, name.clone()));
    }
    let mut asked: Vec<_> = rig.asked().into_iter().map(|request| request.user.expect("a user")).collect();
    asked.sort();
    let mut names = names;
    names.sort();
    assert_eq!(asked, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scopes_of_one_account_take_turns_with_its_refresh_token() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    for round in 1..=4 {
        rig.clock.advance(HOUR);
        let alice = ["alice".to_owned()];
        let (mail, files) = tokio::join!(crowd(&process, &alice, "graph", 20), crowd(&process, &alice, "onedrive", 20));
        for lease in mail.iter().chain(&files) {
            assert_eq!(rig.owner(lease.as_ref().expect("a lease")), "alice");
        }
        assert_eq!(rig.asked().len(), 2 * round, "one refresh for each set of scopes");
    }
    let mut presented: Vec<_> = rig.asked().into_iter().map(|request| request.refresh_token_id).collect();
    presented.sort_unstable();
    presented.dedup();
    assert_eq!(presented.len(), 8, "each refresh token once");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_up_waiting_cancels_nothing() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    let gate = rig.hold();
    for _ in 0..5 {
        assert!(given_up_after(3, process.lease("alice")).await.is_none());
    }
    gate.arrived(1).await;
    gate.open();
    assert!(process.core.tasks.drain(Duration::from_secs(10)).await, "the refresh ends without anybody waiting for it");
    let grant = process.grant("alice").await;
    assert_eq!((grant.version, grant.intent), (2, false));
    assert_eq!(process.lease("alice").await.expect("a lease").version, 2);
    assert_eq!(rig.outcomes(), ["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_the_same_moment_are_one_refresh() {
    let rig = Rig::strict();
    let (one, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    let alice = ["alice".to_owned()];
    let (here, there) = tokio::join!(crowd(&one, &alice, "graph", 50), crowd(&other, &alice, "graph", 50));
    for lease in here.into_iter().chain(there) {
        assert_eq!(lease.expect("a lease").version, 2);
    }
    assert_eq!(rig.outcomes(), ["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_stored_token_is_served_without_a_call() {
    let rig = Rig::strict();
    let first = rig.signed_in().await.lease("alice").await.expect("a lease");
    let lease = rig.process().await.lease("alice").await.expect("a lease");
    assert_eq!((&lease.authorization, lease.version), (&first.authorization, first.version));
    assert!(rig.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_joins_a_refresh_ahead_of_time_takes_it_out_of_the_slow_line() {
    let mut rig = Rig::strict();
    for provider in rig.config.providers.values_mut() {
        provider.token_requests.concurrent = 2;
    }
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    process.lease("bob").await.expect("a lease");
    rig.clock.advance(Duration::from_secs(2740));
    let gate = rig.hold();
    // Bob's has the only place for work ahead of time, Alice's is in line for it.
    assert_eq!(process.lease("bob").await.expect("a lease").version, 1);
    gate.arrived(1).await;
    assert_eq!(process.lease("alice").await.expect("a lease").version, 1);
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.renewed(&old).await.version }
    });
    gate.arrived(2).await;
    gate.open();
    assert_eq!(waiting.await.expect("no panic"), 2);
    process.settled().await;
    assert_eq!(rig.outcomes(), ["200", "200"]);
}
