//! The provider may have done what it was asked, and its answer never came: harmless where a refresh token may be presented again,
//! a state of its own where that looks like theft.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault};
use bearerd::store::Status;
use bearerd::vault::LeaseError;
use bytes::Bytes;

use crate::vault::rig::{HOUR, Mode, Rig};

const TEN_SECONDS: Duration = Duration::from_secs(10);

fn http(body: &str) -> Effect {
    Effect::Http { status: 200, headers: Vec::new(), body: body.to_owned() }
}

/// Answers that can't be read, whatever the provider did.
fn unreadable() -> Vec<Effect> {
    vec![
        Effect::DropBefore,
        Effect::DropAfter,
        Effect::DropAfterHead,
        Effect::CutBody,
        Effect::Raw(Bytes::from_static(b"\x16\x03\x01 garbage")),
        Effect::Raw(Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}garbage")),
        Effect::html(200, None),
        http(""),
        http("{}"),
        http("[]"),
        http("{\"access_token\":"),
        http(r#"{"token_type":"Bearer","expires_in":3600}"#),
        http(r#"{"token_type":"Bearer","expires_in":3600,"access_token":7}"#),
        Effect::html(500, None),
        Effect::html(502, None),
        Effect::html(504, None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tolerant_it_heals_at_once_by_presenting_the_token_again() {
    for effect in unreadable() {
        let rig = Rig::new();
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        rig.fault(Fault::token(effect.clone()));
        assert_eq!(process.lease("alice").await.expect("healed").version, 2, "{effect:?}");
        let asked = rig.asked();
        assert_eq!(asked.len(), 2, "{effect:?}");
        assert_eq!(asked[0].refresh_token_id, asked[1].refresh_token_id, "{effect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tolerant_it_is_presented_twice_and_then_backs_off() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::DropAfter).times(2));
    for _ in 0..5 {
        assert!(matches!(process.lease("alice").await, Err(LeaseError::ProviderUnavailable { .. })));
    }
    assert_eq!((process.status("alice").await, rig.asked().len()), (Status::Active, 2));
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(process.lease("alice").await.expect("healed").version, 2);
    assert_eq!(rig.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_the_state_is_uncertain_what_lives_is_served_and_then_a_sign_in_is_needed() {
    for effect in unreadable() {
        let rig = Rig::strict();
        let process = rig.signed_in().await;
        process.lease("alice").await.expect("a lease");
        rig.clock.advance(Duration::from_secs(3545));
        rig.fault(Fault::token(effect.clone()));
        assert_eq!(process.lease("alice").await.expect("the living token").version, 1, "{effect:?}");
        assert_eq!(process.status("alice").await, Status::Uncertain, "{effect:?}");
        for _ in 0..5 {
            rig.clock.advance(TEN_SECONDS);
            assert_eq!(process.lease("alice").await.expect("the living token").version, 1, "{effect:?}");
        }
        rig.clock.advance(TEN_SECONDS);
        let error = process.lease("alice").await.expect_err("expired");
        let LeaseError::SigninRequired(reason) = error else { panic!("{effect:?}: {error:?}") };
        assert!(reason.dead && reason.text.contains("lost"), "{reason:?}");
        assert_eq!(process.status("alice").await, Status::Reauth(reason));
        assert_eq!(rig.asked().len(), 1, "never presented twice: {effect:?}");
        process.sign_in(&rig.sandbox, "alice").await;
        assert_eq!(process.lease("alice").await.expect("mended").epoch, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_without_a_living_token_the_answer_is_a_503_until_no_late_answer_can_come() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::DropAfter));
    for _ in 0..4 {
        let error = process.lease("alice").await.expect_err("no token");
        assert!(matches!(error, LeaseError::ProviderUnavailable { .. }), "{error:?}");
        rig.clock.advance(Duration::from_secs(8));
    }
    rig.clock.advance(Duration::from_secs(8));
    assert!(matches!(process.lease("alice").await, Err(LeaseError::SigninRequired(_))));
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_a_refusal_on_the_way_signs_nobody_out() {
    for effect in [Effect::html(503, None), Effect::html(503, Some("3")), Effect::html(429, Some("3"))] {
        let rig = Rig::strict();
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        rig.fault(Fault::token(effect.clone()).times(3));
        for _ in 0..3 {
            let error = process.lease("alice").await.expect_err("no token");
            assert!(matches!(error, LeaseError::ProviderUnavailable { .. }), "{effect:?}: {error:?}");
            assert_eq!(process.status("alice").await, Status::Active, "{effect:?}");
            rig.clock.advance(TEN_SECONDS);
        }
        assert_eq!(process.lease("alice").await.expect("healed").version, 2, "{effect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grace_the_token_is_presented_again_within_its_grace() {
    let rig = Rig::with(Mode::Grace(Duration::from_secs(60)), 2);
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::DropAfter));
    assert!(matches!(process.lease("alice").await, Err(LeaseError::ProviderUnavailable { .. })));
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(process.lease("alice").await.expect("healed").version, 2);
    rig.clock.advance(HOUR);
    assert_eq!(process.lease("alice").await.expect("and lives on").version, 3);
    assert_eq!(rig.outcomes(), ["dropped after", "200", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_once_the_claim_has_run_out() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::DropAfter));
    let gate = rig.hold_answer();
    let waiting = process.core.tasks.spawn({
        let process = process.clone();
        async move { process.lease("alice").await }
    });
    gate.arrived(1).await;
    rig.clock.advance(Duration::from_secs(13));
    gate.open();
    assert!(matches!(waiting.await.expect("no panic"), Err(LeaseError::ProviderUnavailable { .. })));
    assert_eq!(rig.asked().len(), 1, "the second try would have come too late");
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(process.lease("alice").await.expect("healed").version, 2);
}
