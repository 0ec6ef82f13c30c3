//! Clear answers of the token endpoint, one for each class.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, Flaw, TokenFault};
use bearerd::store::{Reason, Status};
use bearerd::vault::LeaseError;

use crate::vault::rig::{HOUR, Process, Rig, alias, token_id};

const CLAIMS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["x"]}}}"#;

fn says(code: u32) -> Fault {
    Fault::token(Effect::Error(TokenFault::aadsts(code)))
}

async fn reason(process: &Process) -> Reason {
    match process.lease("alice").await {
        Err(LeaseError::SigninRequired(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_need_a_person_are_a_stored_state_and_asked_once() {
    let answers = [
        // Dead for good.
        (50173, true),
        (70008, true),
        (700_082, true),
        (700_084, true),
        (70043, true),
        (50132, true),
        // Interaction.
        (50076, false),
        (50079, false),
        (65001, false),
        (53000, false),
        (999_999, false),
        // The user.
        (50034, false),
        (50057, false),
        (50105, false),
        (53003, false),
    ];
    for (code, dead) in answers {
        for rig in [Rig::new(), Rig::strict()] {
            let (process, other) = (rig.signed_in().await, rig.process().await);
            process.catch_up().await;
            rig.clock.advance(HOUR);
            rig.fault(says(code));
            let said = reason(&process).await;
            assert_eq!(said.dead, dead, "{code}");
            assert!(said.text.starts_with(&format!("AADSTS{code} ")), "{code}: {}", said.text);
            assert!(!said.text.contains("Trace ID"), "{}", said.text);
            for _ in 0..5 {
                rig.clock.advance(Duration::from_secs(600));
                assert_eq!(reason(&process).await, said);
                assert_eq!(reason(&other).await, said, "stored");
            }
            assert_eq!(reason(&rig.process().await).await, said, "after a restart");
            process.catch_up().await;
            assert_eq!(reason(&process).await, said);
            let grant = process.grant("alice").await;
            assert_eq!((grant.state(), grant.version, grant.intent), ("reauth", 1, false));
            assert_eq!((grant.reason(), matches!(grant.status, Status::Reauth(_))), (Some(&said), dead));
            assert_eq!(rig.asked().len(), 1, "{code}");
            assert_eq!(process.lease("bob").await.expect("nobody else is concerned").version, 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_serves_its_last_token_to_the_end() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    let old = process.lease("alice").await.expect("a lease");
    rig.fault(says(50173).always());
    rig.clock.advance(Duration::from_secs(2800));
    assert_eq!(process.lease("alice").await.expect("the living token").version, 1);
    assert!(matches!(process.reject(&old).await, Err(LeaseError::SigninRequired(_))));
    for _ in 0..79 {
        rig.clock.advance(Duration::from_secs(10));
        assert_eq!(process.lease("alice").await.expect("the living token").version, 1);
    }
    rig.clock.advance(Duration::from_secs(10));
    assert!(reason(&process).await.dead);
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_mends_it_at_once_and_carries_the_challenge() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::Error(TokenFault::aadsts(50076).with_claims(CLAIMS))));
    assert_eq!(reason(&process).await.claims.as_ref().map(bearerd::claims::Claims::as_str), Some(CLAIMS));
    process.sign_in(&rig.sandbox, "alice").await;
    let lease = process.lease("alice").await.expect("no beat in between");
    assert_eq!((lease.epoch, process.status("alice").await), (2, Status::Active));
    rig.clock.advance(HOUR);
    assert_eq!(process.lease("alice").await.expect("a refresh").epoch, 2);
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_refresh_revives_what_waits_for_interaction_and_nothing_that_is_dead() {
    for (code, revived) in [(50076, true), (50057, true), (50173, false)] {
        let rig = Rig::new();
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        rig.fault(says(code));
        reason(&process).await;
        let refreshed = rig.process().await.core.vault.refresh(&alias("alice")).await;
        assert_eq!(refreshed.is_ok(), revived, "{code}: {refreshed:?}");
        let asked = if revived { 3 } else { 1 };
        assert_eq!(rig.asked().len(), asked, "{code}");
        process.catch_up().await;
        assert_eq!(process.lease("alice").await.is_ok(), revived, "{code}");
        assert_eq!(rig.asked().len(), asked, "{code}");
    }
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.fault(says(50076).always());
    let refused = process.core.vault.refresh(&alias("alice")).await;
    assert!(matches!(refused, Err(LeaseError::SigninRequired(_))), "{refused:?}");
    assert_eq!(rig.asked().len(), 1, "a word of the operator is one call");
    assert_eq!(process.lease("alice").await.expect("the living token").version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_refresh_renews_every_upstream_of_the_provider_one_after_the_other() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    let old = [process.lease("alice").await, process.lease_for("alice", "onedrive").await];
    let old = old.map(|lease| token_id(&lease.expect("a lease")));
    rig.sandbox.entra.clear();
    for process in [process.clone(), rig.process().await] {
        let version = process.grant("alice").await.version;
        assert_eq!(process.core.vault.refresh(&alias("alice")).await.expect("a grant").version, version + 2);
    }
    assert_eq!(rig.outcomes(), ["200"; 4], "each refresh token once");
    process.catch_up().await;
    let new = [process.lease("alice").await, process.lease_for("alice", "onedrive").await];
    let new = new.map(|lease| token_id(&lease.expect("a lease")));
    assert!(new.iter().all(|id| !old.contains(id)), "{old:?} {new:?}");
    assert_eq!(rig.asked().len(), 4);

    rig.fault(says(50076));
    let refused = process.core.vault.refresh(&alias("alice")).await;
    assert!(matches!(refused, Err(LeaseError::SigninRequired(_))), "{refused:?}");
    assert_eq!(rig.asked().len(), 5, "the first no ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_refresh_waits_for_no_backoff_and_renews_a_fresh_token() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    // Of the two upstreams of her provider, each has a token of its own.
    let refreshed = process.core.vault.refresh(&alias("alice")).await.expect("a grant");
    assert_eq!((refreshed.version, rig.outcomes().len()), (3, 2));
    rig.clock.advance(HOUR);
    rig.fault(says(50196));
    assert!(process.lease("alice").await.is_err());
    assert_eq!(process.core.vault.refresh(&alias("alice")).await.expect("a grant").version, 5);
    assert_eq!(process.lease("alice").await.expect("a lease").version, 4);
    assert_eq!(process.lease_for("alice", "onedrive").await.expect("a lease").version, 5);
    assert_eq!(rig.asked().len(), 5);
    assert!(matches!(process.core.vault.refresh(&alias("nobody")).await, Err(LeaseError::NoAccount)));
    process.revoke("alice").await;
    assert!(matches!(process.core.vault.refresh(&alias("alice")).await, Err(LeaseError::Revoked)));
    assert_eq!(rig.asked().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_mistakes_touch_no_grant() {
    for code in [700_016, 70011, 500_011, 90002] {
        for rig in [Rig::new(), Rig::strict()] {
            let process = rig.signed_in().await;
            rig.clock.advance(HOUR);
            rig.fault(says(code));
            for _ in 0..5 {
                let error = process.lease("alice").await.expect_err("no token");
                assert!(
                    matches!(&error, LeaseError::Misconfigured(text) if text.contains(&code.to_string())),
                    "{error:?}"
                );
            }
            let grant = process.grant("alice").await;
            assert_eq!(
                (grant.state(), grant.fail_count, grant.next_try),
                ("active", 0, None),
                "nothing else is put off"
            );
            assert_eq!(rig.asked().len(), 1, "one call, and then a pause");
            rig.clock.advance(Duration::from_secs(10));
            assert_eq!(process.lease("alice").await.expect("healed").version, 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_the_provider_detects_is_a_pause_of_minutes_and_no_death() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(says(50196));
    let error = process.lease("alice").await.expect_err("no token");
    let LeaseError::ProviderUnavailable { retry_after, .. } = error else { panic!("{error:?}") };
    assert!(retry_after >= Duration::from_secs(120), "{retry_after:?}");
    rig.clock.advance(Duration::from_secs(119));
    assert!(process.lease("alice").await.is_err());
    assert_eq!((process.status("alice").await, rig.asked().len()), (Status::Active, 1));
    rig.clock.advance(retry_after);
    assert_eq!(process.lease("alice").await.expect("healed").version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_somebody_else_is_never_stored_or_served() {
    for flaw in [Flaw::OtherUser, Flaw::Tenant, Flaw::Issuer, Flaw::Audience, Flaw::Signature, Flaw::AlgorithmNone] {
        let rig = Rig::new();
        let process = rig.signed_in().await;
        rig.clock.advance(HOUR);
        rig.fault(Fault::token(Effect::IdToken(flaw)));
        let error = process.lease("alice").await.expect_err("no token");
        assert!(matches!(error, LeaseError::Misconfigured(_)), "{flaw:?}: {error:?}");
        let grant = process.grant("alice").await;
        assert_eq!((grant.status, grant.version), (Status::Active, 1), "{flaw:?}");
        rig.clock.advance(Duration::from_secs(10));
        let lease = process.lease("alice").await.expect("healed");
        assert_eq!(rig.owner(&lease), "alice");
        assert_eq!(rig.outcomes(), ["200", "200"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_an_answer_for_somebody_else_has_used_up_the_refresh_token() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::IdToken(Flaw::OtherUser)));
    assert!(matches!(process.lease("alice").await, Err(LeaseError::Misconfigured(_))));
    for _ in 0..30 {
        rig.clock.advance(Duration::from_secs(10));
        assert!(process.lease("alice").await.is_err());
    }
    assert!(matches!(process.status("alice").await, Status::Reauth(_)), "a state that says what to do");
    assert_eq!(rig.asked().len(), 1, "presenting it again would look like theft");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let rig = Rig::strict();
    let process = rig.signed_in().await;
    rig.fault(Fault::token(Effect::NoRefreshToken).times(2));
    for version in 2..=4 {
        rig.clock.advance(HOUR);
        assert_eq!(process.lease("alice").await.expect("a lease").version, version);
    }
    let presented: Vec<_> = rig.asked().iter().map(|request| request.refresh_token_id).collect();
    assert!(presented.iter().all(|id| *id == presented[0]), "{presented:?}");
    rig.clock.advance(HOUR);
    assert_eq!(process.lease("alice").await.expect("a lease").version, 5);
    assert_ne!(rig.asked()[3].refresh_token_id, presented[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lives_are_taken_as_they_come() {
    let rig = Rig::new();
    let process = rig.signed_in().await;
    rig.clock.advance(HOUR);
    rig.fault(Fault::token(Effect::ExpiresIn(5)));
    assert_eq!(process.lease("alice").await.expect("a lease").version, 2);
    rig.clock.advance(Duration::from_secs(4));
    rig.fault(Fault::token(Effect::ExpiresInString));
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(process.lease("alice").await.expect("a lease").version, 3);
    rig.clock.advance(Duration::from_secs(2000));
    assert_eq!(process.lease("alice").await.expect("a lease").version, 3);
    assert_eq!(rig.asked().len(), 2);
}
