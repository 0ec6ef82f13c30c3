//! Refreshes ahead of need: what is in use is renewed before anybody has to wait, what is idle is kept from lapsing, nobody else is
//! touched, and requests come first.

use std::collections::BTreeSet;
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::config::Rotation;
use bearerd::sandbox::{Effect, Fault, Gate};
use bearerd::store::{Claim, Failure, FailureKind, Status};

use crate::harness::{self, Setup};
use crate::vault::rig::{Mode, Process, Rig, at_once};

/// Past the ageing of every token of an hour, and before its last minute.
const AGEING: Duration = Duration::from_secs(2740);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Whose refresh tokens the token endpoint saw.
fn askers(rig: &Rig) -> Vec<String> {
    let mut users: Vec<String> = rig.asked().into_iter().map(|request| request.user.expect("a user")).collect();
    users.sort_unstable();
    users
}

fn version(process: &Process, name: &str) -> u64 {
    at_once(process.lease(name)).expect("no waiting").expect("a lease").version
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_in_use_gets_a_new_token_without_a_request_and_one_that_is_not_is_left_alone() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    process.core.vault.refresh_ahead().await;
    assert_eq!(askers(&rig), [""; 0], "it is fresh");
    rig.clock.advance(AGEING);
    process.core.vault.refresh_ahead().await;
    process.core.vault.refresh_ahead().await;
    assert_eq!(askers(&rig), ["alice"], "Bob was never here, and her new token is fresh");

    rig.clock.advance(AGEING);
    process.core.vault.refresh_ahead().await;
    assert_eq!(askers(&rig), ["alice"], "nobody has used the new token");
    assert_eq!(version(&process, "alice"), 2, "somebody has now");
    process.core.vault.refresh_ahead().await;
    assert_eq!(askers(&rig), ["alice", "alice"]);
    assert_eq!(version(&process, "alice"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beat_does_it_by_itself() {
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let rig = Setup { clock, ..Setup::default() }.start().await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let gate = Gate::shut();
    rig.sandbox.faults().push(Fault::token(Effect::Hold(gate.clone())));
    rig.clock.advance(AGEING);
    harness::within(gate.arrived(1)).await;
    gate.open();
    assert!(rig.app.core().tasks.drain(harness::LIMIT).await);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.token_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_word_decides_when_a_token_ages() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.fault(Fault::token(Effect::RefreshIn(600)));
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(process.renewed(&old).await.version, 2);
    rig.clock.advance(Duration::from_secs(599));
    process.core.vault.refresh_ahead().await;
    assert_eq!(rig.asked().len(), 1);
    rig.clock.advance(Duration::from_secs(600));
    process.core.vault.refresh_ahead().await;
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_person_is_asked_once_until_somebody_comes() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    rig.sandbox.entra.revoke_user("alice");
    rig.clock.advance(AGEING);
    for _ in 0..3 {
        process.core.vault.refresh_ahead().await;
        rig.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(rig.asked().len(), 1);
    assert_eq!(version(&process, "alice"), 1, "the old token lives");
    process.core.vault.refresh_ahead().await;
    assert_eq!(rig.asked().len(), 1, "a dead refresh token is not presented again");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_do_it_once() {
    let rig = Rig::strict();
    let (one, two) = (rig.signed_in().await, rig.process().await);
    for process in [&one, &two] {
        process.lease("alice").await.expect("a lease");
        process.lease("bob").await.expect("a lease");
    }
    rig.clock.advance(AGEING);
    tokio::join!(one.core.vault.refresh_ahead(), two.core.vault.refresh_ahead());
    assert_eq!(askers(&rig), ["alice", "bob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_half_of_the_places_and_requests_the_rest() {
    const USERS: usize = 40;
    let rig = Rig::with(Mode::Strict, USERS);
    let places = rig.config.providers["entra"].token_requests.concurrent;
    let process = rig.signed_in().await;
    let users: Vec<String> = rig.sandbox.entra.options().users.iter().map(|user| user.alias.clone()).collect();
    let mut old = Vec::new();
    for user in &users {
        old.push(process.lease(user).await.expect("a lease"));
    }
    rig.clock.advance(AGEING);
    let gate = rig.hold();
    let vault = process.core.vault.clone();
    let ahead = process.core.tasks.spawn(async move { vault.refresh_ahead().await });
    harness::within(gate.arrived(places / 2)).await;
    let in_flight = format!("bearerd_token_requests_in_flight {}", places / 2);
    assert!(process.core.metrics.render().contains(&in_flight), "{}", process.core.metrics.render());

    let requests: Vec<_> = old
        .into_iter()
        .map(|lease| {
            let process = process.clone();
            process.core.tasks.clone().spawn(async move { process.renewed(&lease).await })
        })
        .collect();
    harness::within(gate.arrived(places)).await;
    assert_eq!(gate.count(), places);
    gate.open();
    for request in requests {
        assert_eq!(request.await.expect("no panic").version, 2);
    }
    ahead.await.expect("no panic");
    assert_eq!(rig.asked().len(), USERS);
    assert_eq!(askers(&rig).into_iter().collect::<BTreeSet<_>>().len(), USERS, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_grants_are_kept_from_lapsing_each_once() {
    let rig = Rig::with(Mode::Strict, 6);
    let (one, two) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(29 * DAY);
    one.core.vault.keep_alive().await;
    assert_eq!(rig.asked().len(), 0, "not for a month");
    rig.clock.advance(12 * DAY);
    // Alice is in use.
    one.lease("alice").await.expect("a lease");
    one.revoke("bob").await;
    one.catch_up().await;
    assert_eq!(askers(&rig), ["alice"]);
    tokio::join!(one.core.vault.keep_alive(), two.core.vault.keep_alive());
    one.core.vault.keep_alive().await;
    assert_eq!(askers(&rig), ["alice", "carol", "user004", "user005", "user006"]);
    assert_eq!(one.status("carol").await, Status::Active);
    rig.clock.advance(29 * DAY);
    one.core.vault.keep_alive().await;
    assert_eq!(rig.asked().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_only_a_person_can_help_do_not_keep_the_others_from_being_used() {
    // More than are read from the store at a time.
    const PARKED: usize = 210;
    let rig = Rig::with(Mode::Tolerant, PARKED + 5);
    let process = rig.signed_in().await;
    let store = &process.core.store;
    let waiting = store.idle("entra", rig.clock.now().plus(DAY), 0, PARKED).await.expect("it reads");
    assert_eq!(waiting.len(), PARKED);
    // For each of the two upstreams of the provider.
    for (grant, scope_set) in waiting.iter().flat_map(|grant| [(grant, "Mail.Read User.Read"), (grant, "Files.Read")]) {
        let claim = store.claim(&grant.key, grant.epoch, grant.version, DAY, Rotation::Tolerant).await;
        let Ok(Claim::Claimed { fence, fingerprint, .. }) = claim else { panic!("{claim:?}") };
        let (scope_set, text) = (scope_set.to_owned(), "a person is needed".to_owned());
        let kind = FailureKind::Park { scope_set, asked: None, text, claims: None };
        let failure = Failure { key: grant.key.clone(), epoch: grant.epoch, presented: fingerprint, fence, kind };
        store.fail(failure, Rotation::Tolerant).await.expect("it is stored");
    }
    rig.clock.advance(41 * DAY);
    process.core.vault.keep_alive().await;
    assert_eq!(rig.asked().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gathered_is_spread_and_what_lapses_is_counted() {
    const USERS: usize = 30;
    let lapsing = |process: &Process, count: usize| {
        let line = format!("bearerd_grants_lapsing{{provider=\"entra\"}} {count}");
        let text = process.core.metrics.render();
        assert!(text.lines().any(|rendered| rendered == line), "{line}\nis not in\n{text}");
    };
    let rig = Rig::with(Mode::Tolerant, USERS);
    let process = rig.signed_in().await;
    rig.clock.advance(50 * DAY);
    process.core.vault.keep_alive().await;
    assert_eq!(rig.asked().len(), 10, "some in each sweep");
    lapsing(&process, 0);

    // The provider is away for a month.
    rig.sandbox.entra.down().await;
    rig.clock.advance(30 * DAY);
    process.core.vault.keep_alive().await;
    lapsing(&process, USERS - 10);
    rig.sandbox.entra.up().expect("the port is free");
    rig.clock.advance(DAY);
    process.core.vault.keep_alive().await;
    lapsing(&process, 0);
    let asked: BTreeSet<String> = askers(&rig).into_iter().collect();
    assert_eq!(asked.len(), USERS, "what is about to lapse is not put off");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_days_of_our_own_credential_are_counted() {
    // Two days after the hour at which the clock stands.
    let expires = "2023-11-16T22:13:20Z";
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let config =
        format!("[providers.entra]\ncredentials = [{{ secret = \"sandbox-client-secret\", expires = \"{expires}\" }}]");
    let rig = Setup { clock, config, ..Setup::default() }.start().await;
    let line = format!("bearerd_credential_expiry_seconds{{provider=\"entra\"}} {}", 2 * 24 * 3600);
    let metrics = &rig.app.core().metrics;
    harness::within(async {
        while !metrics.render().contains(&line) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
