//! Two thresholds: an ageing token is served while it is renewed, an expiring one is waited for. No failure hurts a token that
//! lives.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::vault::LeaseError;

use super::rig::{HOUR, Rig, at_once};

/// Past the ageing of every token of an hour, and before its last minute.
const AGEING: Duration = Duration::from_secs(2740);
/// In its last minute.
const EXPIRING: Duration = Duration::from_secs(3545);

fn retry_after(error: &LeaseError) -> Duration {
    match error {
        LeaseError::ProviderUnavailable { retry_after, .. } => *retry_after,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ageing_token_is_served_at_once_while_one_refresh_runs_behind() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.clock.advance(AGEING);
    let gate = rig.hold();
    for _ in 0..50 {
        let lease = at_once(process.lease("alice")).expect("no waiting").expect("a lease");
        assert_eq!(lease.version, 1);
    }
    gate.arrived(1).await;
    for _ in 0..50 {
        assert_eq!(at_once(process.lease("alice")).expect("no waiting").expect("a lease").version, 1);
    }
    assert_eq!(gate.count(), 1);
    gate.open();
    assert_eq!(process.renewed(&old).await.version, 2, "the refresh under way is joined");
    assert_eq!(at_once(process.lease("alice")).expect("no waiting").expect("a lease").version, 2);
    assert_eq!(rig.outcomes(), ["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_early_refresh_leaves_the_living_token_in_service() {
    let failures = [
        Effect::html(503, None),
        Effect::html(503, Some("20")),
        Effect::html(429, Some("20")),
        Effect::html(500, None),
        Effect::DropBefore,
        Effect::DropAfter,
        Effect::CutBody,
    ];
    for failure in failures {
        let rig = Rig::new();
        let process = rig.signed_in().await;
        let old = process.lease("alice").await.expect("a lease");
        rig.clock.advance(AGEING);
        rig.fault(Fault::token(failure.clone()).always());
        assert_eq!(process.lease("alice").await.expect("a lease").version, 1);
        let wait = retry_after(&process.reject(&old).await.expect_err("the refresh behind has failed"));
        let asked = rig.asked().len();
        for _ in 0..20 {
            assert_eq!(
                at_once(process.lease("alice")).expect("no waiting").expect("a lease").version,
                1,
                "{failure:?}"
            );
        }
        assert!(process.core.tasks.drain(Duration::from_secs(10)).await);
        assert_eq!(rig.asked().len(), asked, "no further call before its time: {failure:?}");

        rig.sandbox.faults().clear();
        rig.clock.advance(wait);
        assert_eq!(process.lease("alice").await.expect("a lease").version, 1);
        assert_eq!(process.renewed(&old).await.version, 2, "{failure:?}");
        assert_eq!(rig.asked().len(), asked + 1, "{failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiring_token_is_waited_for_and_serves_if_the_refresh_fails() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    rig.clock.advance(EXPIRING);
    rig.fault(Fault::token(Effect::html(429, Some("5"))));
    assert_eq!(process.lease("alice").await.expect("the old one").version, 1);
    assert_eq!(at_once(process.lease("alice")).expect("no waiting").expect("the old one").version, 1);
    assert_eq!(rig.asked().len(), 1);

    rig.clock.advance(Duration::from_secs(6));
    let gate = rig.hold();
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    gate.arrived(1).await;
    assert!(!waiting.is_finished());
    gate.open();
    assert_eq!(waiting.await.expect("no panic").expect("a lease").version, 2);
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_living_token_the_answer_says_when_to_come_back_and_nobody_calls_before() {
    let rig = Rig::strict();
    let (process, other) = (rig.signed_in().await, rig.process().await);
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::html(503, None)).always());
    let mut before = Duration::ZERO;
    for failure in 1..=12 {
        let wait = retry_after(&process.lease("alice").await.expect_err("no token"));
        assert_eq!(rig.asked().len(), failure, "one call");
        assert!(wait > before || wait >= Duration::from_secs(24), "grows: {before:?} {wait:?}");
        assert!(wait <= Duration::from_secs(36), "within limits: {wait:?}");
        rig.clock.advance(wait.saturating_sub(Duration::from_secs(1)));
        for process in [&process, &other] {
            let left = retry_after(&process.lease("alice").await.expect_err("no token"));
            assert!(left <= Duration::from_secs(1), "{left:?}");
        }
        assert_eq!(rig.asked().len(), failure, "no call before its time, by any process");
        rig.clock.advance(Duration::from_secs(1));
        before = wait;
    }
    rig.sandbox.faults().clear();
    assert_eq!(process.lease("alice").await.expect("a lease").version, 2);
    assert_eq!(other.lease("alice").await.expect("the same one").version, 2);
    assert_eq!(rig.asked().len(), 13);
    assert_eq!(process.grant("alice").await.fail_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_gone_signs_nobody_out() {
    for rig in [Rig::new(), Rig::strict()] {
        let process = rig.signed_in().await;
        rig.sandbox.entra.down().await;
        rig.clock.advance(HOUR);
        for _ in 0..10 {
            let wait = retry_after(&process.lease("alice").await.expect_err("no token"));
            rig.clock.advance(wait);
        }
        rig.sandbox.entra.up().expect("the port is free");
        assert_eq!(process.lease("alice").await.expect("a lease").version, 2);
        assert_eq!(rig.outcomes(), ["200"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_caught_in_a_loop_holds_up_nobody_else() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50196))).always().for_user("alice"));
    assert!(process.lease("alice").await.is_err());
    assert_eq!(process.lease("bob").await.expect("a lease").version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_kills_no_token_and_keeps_none_alive() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    rig.clock.step_wall(7_200_000);
    assert_eq!(at_once(process.lease("alice")).expect("in memory").expect("a lease").version, 1);
    rig.clock.step_wall(-14_400_000);
    process.revoke("bob").await;
    process.catch_up().await;
    rig.clock.advance(HOUR);
    assert_eq!(process.lease("alice").await.expect("a lease").version, 2, "an hour is over, whatever the wall says");
}

#[tokio::test]
async fn a_clock_that_is_set_while_a_token_is_stored_makes_it_neither_older_nor_younger() {
    for jump in [7_200_000, -7_200_000] {
        let rig = Rig::strict();
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        let sql = rig.sql();
        let answer = rig.hold_answer();
        let asking = process.clone();
        let lease = process.core.tasks.spawn(async move { asking.lease("alice").await });
        answer.arrived(1).await;
        sql.execute_batch("BEGIN IMMEDIATE").expect("the store is ours");
        answer.open();
        // From this count on the answer waits for the store: on one thread nothing comes between the two.
        while !process.core.metrics.render().contains(r#"bearerd_refresh_total{provider="entra",outcome="ok"} 1"#) {
            tokio::task::yield_now().await;
        }
        rig.clock.step_wall(jump);
        sql.execute_batch("ROLLBACK").expect("it is everybody's");
        let lease = lease.await.expect("no panic").expect("a lease");
        assert_eq!((lease.version, rig.asked().len()), (2, 1), "{jump}");
        assert_eq!(lease.expires.since(rig.clock.moment()), HOUR, "{jump}");
    }
}
