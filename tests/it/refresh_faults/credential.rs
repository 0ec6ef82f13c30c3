//! The provider refuses our own credential: nobody's grant is to blame.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::store::Status;
use bearerd::vault::LeaseError;

use crate::vault::rig::{HOUR, Rig};

fn refused() -> Fault {
    Fault::token(Effect::Error(TokenFault::aadsts(7_000_222))).always()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_tried_once_for_everybody_and_touches_no_grant() {
    for rig in [Rig::new(), Rig::strict()] {
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        rig.fault(refused());
        for _ in 0..10 {
            for name in ["alice", "bob"] {
                let error = process.lease(name).await.expect_err("no token");
                assert!(
                    matches!(&error, LeaseError::AppCredential(text) if text.contains("AADSTS7000222")),
                    "{error:?}"
                );
            }
        }
        assert_eq!(rig.asked().len(), 1);
        for name in ["alice", "bob"] {
            let grant = process.grant(name).await;
            assert_eq!((grant.status, grant.version, grant.intent, grant.next_try), (Status::Active, 1, false, None));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_heals_soon_after_the_credential_works_again() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(refused());
    for _ in 0..20 {
        assert!(matches!(process.lease("alice").await, Err(LeaseError::AppCredential(_))));
        rig.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(rig.asked().len(), 20, "tried again each ten seconds");
    rig.sandbox.faults().clear();
    assert_eq!(process.lease("alice").await.expect("healed").version, 2);
    assert_eq!(process.lease("bob").await.expect("healed").version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_makes_no_later_failure_of_the_account_worse() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(refused());
    for _ in 0..12 {
        assert!(process.lease("alice").await.is_err());
        rig.clock.advance(Duration::from_secs(10));
    }
    rig.sandbox.faults().clear();
    rig.fault(Fault::token(Effect::html(503, None)).times(2));
    let error = process.lease("alice").await.expect_err("down");
    let LeaseError::ProviderUnavailable { retry_after, .. } = error else { panic!("{error:?}") };
    assert!(retry_after < Duration::from_secs(2), "{retry_after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn living_tokens_are_served_meanwhile() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    process.lease("alice").await.expect("a lease");
    rig.fault(refused());
    for after in [2740, 805, 50] {
        rig.clock.advance(Duration::from_secs(after));
        assert_eq!(process.lease("alice").await.expect("the living token").version, 1);
    }
    rig.clock.advance(Duration::from_secs(5));
    assert!(matches!(process.lease("alice").await, Err(LeaseError::AppCredential(_))));
}
