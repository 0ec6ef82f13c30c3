//! The steps of the refresh protocol, as every store has to carry them out.

use std::time::Duration;

use bearerd::config::Rotation;
use bearerd::store::{Claim, Committed, Failed, FailureKind, Refusal, Status};

use crate::rig::{LEASE, Rig, claim, claimed, dead, found, key, park, sign_in, signed_in};

const STRICT: Rotation = Rotation::Strict;
const TOLERANT: Rotation = Rotation::Tolerant;

#[tokio::test(flavor = "multi_thread")]
async fn of_forty_claims_one_is_granted() {
    for rig in Rig::every() {
        let stores = [rig.open().await, rig.open().await];
        let grant = signed_in(&stores[0], "alice").await;
        let claims: Vec<_> = (0..40)
            .map(|number| {
                let (store, grant) = (stores[number % 2].clone(), grant.clone());
                rig.tasks.spawn(async move {
                    store.claim(&grant.key, grant.epoch, grant.version, LEASE, STRICT).await.unwrap()
                })
            })
            .collect();
        let (mut granted, mut busy) = (0, 0);
        for claim in claims {
            match claim.await.unwrap() {
                Claim::Claimed { refresh_token, fence, took_over, last_resort, .. } => {
                    assert_eq!((refresh_token.expose().as_str(), fence), ("rt-alice-0", 1));
                    assert!(!took_over && !last_resort);
                    granted += 1;
                }
                Claim::Busy { until } => {
                    assert_eq!(until, rig.clock.now().plus(LEASE));
                    busy += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((granted, busy), (1, 39));
        assert!(found(&stores[0], "alice").await.intent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_a_late_commit_ends_the_uncertainty() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", STRICT).await;
        rig.clock.advance(LEASE);
        assert!(matches!(claim(&store, "alice", STRICT).await, Claim::Uncertain));
        assert_eq!(found(&store, "alice").await.status, Status::Uncertain);

        assert_eq!(store.commit(held.commit("late")).await.unwrap(), Committed::Stored { version: 2 });
        let grant = found(&store, "alice").await;
        assert_eq!((grant.status, grant.intent, grant.version), (Status::Active, false, 2));
        assert_eq!(claimed(&store, "alice", STRICT).await.refresh_token, "rt-late");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_siblings_the_later_presentation_wins_in_both_orders() {
    for rig in Rig::every() {
        let store = rig.open().await;
        for (name, earlier_first) in [("alice", true), ("bob", false)] {
            signed_in(&store, name).await;
            let earlier = claimed(&store, name, TOLERANT).await;
            rig.clock.advance(LEASE);
            let later = claimed(&store, name, TOLERANT).await;
            assert!(later.took_over && later.refresh_token == earlier.refresh_token);
            if earlier_first {
                let stored = store.commit(earlier.commit("earlier")).await.unwrap();
                assert_eq!(stored, Committed::Stored { version: 2 });
                let stored = store.commit(later.commit("later")).await.unwrap();
                assert_eq!(stored, Committed::Stored { version: 3 });
            } else {
                let stored = store.commit(later.commit("later")).await.unwrap();
                assert_eq!(stored, Committed::Stored { version: 2 });
                let refused = store.commit(earlier.commit("earlier")).await.unwrap();
                assert_eq!(refused, Committed::Refused(Refusal::Lineage));
            }
            let grant = found(&store, name).await;
            assert_eq!(grant.access[0].token.expose(), "at-later");
            assert_eq!(claimed(&store, name, TOLERANT).await.refresh_token, "rt-later");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_during_a_refresh_stays() {
    for rig in Rig::every() {
        let (server, operator) = (rig.open().await, rig.open().await);
        signed_in(&server, "alice").await;
        let held = claimed(&server, "alice", TOLERANT).await;
        let revoked = operator.revoke(&held.grant.key).await.unwrap().unwrap();
        assert_eq!(revoked.refresh_token.as_ref().map(|token| token.expose().as_str()), Some("rt-alice-0"));
        assert_eq!(server.commit(held.commit("1")).await.unwrap(), Committed::Refused(Refusal::Revoked));
        assert_eq!(server.fail(held.failure(dead()), TOLERANT).await.unwrap(), Failed::Ignored);
        let grant = found(&server, "alice").await;
        assert_eq!((grant.status, grant.epoch, grant.version), (Status::Revoked, 2, 2));
        assert!(grant.access.is_empty() && !grant.intent);
        assert!(matches!(claim(&server, "alice", TOLERANT).await, Claim::Stale));
        let revoked = operator.revoke(&held.grant.key).await.unwrap().unwrap();
        assert!(revoked.refresh_token.is_none(), "nothing is left to revoke");

        let again = signed_in(&server, "alice").await;
        assert_eq!((again.status, again.epoch), (Status::Active, 4));
        assert_eq!(server.commit(held.commit("1")).await.unwrap(), Committed::Refused(Refusal::Epoch));
        assert_eq!(claimed(&server, "alice", TOLERANT).await.refresh_token, "rt-alice-0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_commit_is_no_second_version() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", STRICT).await;
        assert_eq!(store.commit(held.commit("1")).await.unwrap(), Committed::Stored { version: 2 });
        assert_eq!(store.commit(held.commit("1")).await.unwrap(), Committed::Already { version: 2 });
        assert_eq!(found(&store, "alice").await.version, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_invalid_grant_is_ignored() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let loser = claimed(&store, "alice", TOLERANT).await;
        rig.clock.advance(LEASE);
        let winner = claimed(&store, "alice", TOLERANT).await;
        store.commit(winner.commit("1")).await.unwrap();
        assert_eq!(store.fail(loser.failure(dead()), TOLERANT).await.unwrap(), Failed::Ignored);
        assert_eq!(found(&store, "alice").await.status, Status::Active);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_survives_the_end_of_the_process() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", STRICT).await;
        let mut commit = held.commit("1");
        commit.scopes = Some(vec!["User.Read".into()]);
        rig.clock.advance(Duration::from_secs(1));
        store.commit(commit).await.unwrap();
        drop(store);
        let store = rig.open().await;
        let grant = found(&store, "alice").await;
        assert_eq!((grant.version, grant.refreshed_at), (2, Some(rig.clock.now())));
        assert_eq!((grant.scopes, grant.access[0].token.expose().as_str()), (vec!["User.Read".to_owned()], "at-1"));
        assert_eq!(claimed(&store, "alice", STRICT).await.refresh_token, "rt-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", TOLERANT).await;
        let mut commit = held.commit("1");
        commit.refresh_token = None;
        assert_eq!(store.commit(commit).await.unwrap(), Committed::Stored { version: 2 });
        assert_eq!(found(&store, "alice").await.access[0].token.expose(), "at-1");
        assert_eq!(claimed(&store, "alice", TOLERANT).await.refresh_token, "rt-alice-0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_several_scope_sets_stand_side_by_side() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", TOLERANT).await;
        let mut commit = held.commit("files");
        commit.access.scope_set = "Files.Read".into();
        store.commit(commit).await.unwrap();
        let access = found(&store, "alice").await.access;
        let mut names: Vec<_> =
            access.iter().map(|one| (one.scope_set.as_str(), one.token.expose().as_str())).collect();
        names.sort_unstable();
        assert_eq!(names, [("Files.Read", "at-files"), ("Mail.Read User.Read", "at-alice-0")]);
        // A new life starts with its own tokens only.
        assert_eq!(store.sign_in(sign_in("alice")).await.unwrap().access.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_leaves_one_last_resort() {
    for rig in Rig::every() {
        let (first, second) = (rig.open().await, rig.open().await);
        signed_in(&first, "alice").await;
        let lost = claimed(&first, "alice", STRICT).await;
        assert!(matches!(claim(&second, "alice", STRICT).await, Claim::Busy { .. }), "it lives");
        drop(first);
        let retry = claimed(&second, "alice", STRICT).await;
        assert!(retry.last_resort && retry.took_over && retry.refresh_token == lost.refresh_token);
        drop(second);

        let third = rig.open().await;
        assert!(matches!(claim(&third, "alice", STRICT).await, Claim::Stale));
        let Status::Reauth(reason) = found(&third, "alice").await.status else { panic!() };
        assert!(reason.dead && reason.text.contains("cut off"), "{reason:?}");
        assert!(matches!(claim(&third, "alice", STRICT).await, Claim::Stale));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_delays_nobody_at_a_tolerant_provider() {
    for rig in Rig::every() {
        let (first, second) = (rig.open().await, rig.open().await);
        signed_in(&first, "alice").await;
        claimed(&first, "alice", TOLERANT).await;
        drop(first);
        let held = claimed(&second, "alice", TOLERANT).await;
        assert!(held.took_over && !held.last_resort && held.fence == 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uncertain_settles_when_the_access_token_is_gone() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", STRICT).await;
        let unknown = FailureKind::Unknown { backoff: Duration::from_secs(1) };
        assert_eq!(store.fail(held.failure(unknown), STRICT).await.unwrap(), Failed::Applied);
        let settle = || store.settle(&held.grant.key, held.grant.epoch);
        assert_eq!(settle().await.unwrap(), Some(Status::Uncertain));
        rig.clock.advance(Duration::from_hours(1));
        let Some(Status::Reauth(reason)) = settle().await.unwrap() else { panic!() };
        assert!(reason.dead && reason.since == rig.clock.now());
        assert_eq!(store.settle(&held.grant.key, 9).await.unwrap(), None);
        assert_eq!(store.settle(&key("nobody"), 1).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_try_what_waits() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let forced = async || {
            let grant = found(&store, "alice").await;
            store.claim_forced(&grant.key, grant.epoch, grant.version, LEASE, TOLERANT).await.unwrap()
        };
        let held = claimed(&store, "alice", TOLERANT).await;
        let backoff = Duration::from_mins(1);
        store.fail(held.failure(FailureKind::Transient { backoff }), TOLERANT).await.unwrap();
        let grant = found(&store, "alice").await;
        let until = rig.clock.now().plus(backoff);
        assert_eq!((grant.fail_count, grant.next_try), (1, Some(until)));
        assert!(matches!(claim(&store, "alice", TOLERANT).await, Claim::Backoff { until: told } if told == until));
        let Claim::Claimed { fence, fingerprint, .. } = forced().await else { panic!() };

        let mut failure = held.failure(park("Mail.Read User.Read", None, "AADSTS50076: more is needed"));
        (failure.fence, failure.presented) = (fence, fingerprint);
        assert_eq!(store.fail(failure.clone(), TOLERANT).await.unwrap(), Failed::Applied);
        let Claim::Claimed { fence, .. } = forced().await else { panic!() };

        (failure.fence, failure.kind) = (fence, dead());
        assert_eq!(store.fail(failure, TOLERANT).await.unwrap(), Failed::Applied);
        let Status::Reauth(reason) = found(&store, "alice").await.status else { panic!() };
        assert!(reason.dead);
        assert!(matches!(forced().await, Claim::Stale), "a dead one is never presented");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_missing() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", TOLERANT).await;
        store.remove(&held.grant.key).await.unwrap();
        let answer = store.claim(&held.grant.key, 1, 1, LEASE, TOLERANT).await.unwrap();
        assert!(matches!(answer, Claim::Missing));
        assert_eq!(store.commit(held.commit("1")).await.unwrap(), Committed::Refused(Refusal::Missing));
        assert_eq!(store.fail(held.failure(dead()), TOLERANT).await.unwrap(), Failed::Ignored);
    }
}
