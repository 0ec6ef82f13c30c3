//! What waits for a sign-in while its grant lives, and grants that nobody uses.

use std::time::Duration;

use bearerd::claims::Claims;
use bearerd::config::Rotation;
use bearerd::store::{Committed, Failed, Grant, Status, Store};

use crate::rig::{Rig, claimed, dead, found, key, park, sign_in, signed_in};

const STRICT: Rotation = Rotation::Strict;
const MAIL: &str = "Mail.Read User.Read";
const FILES: &str = "Files.Read";
const WHY: &str = "AADSTS50076: more is needed";

fn claims(value: &str) -> Claims {
    Claims::parse(&format!(r#"{{"access_token":{{"acrs":{{"essential":true,"value":"{value}"}}}}}}"#)).unwrap()
}

async fn parks(store: &Store, name: &str, scope_set: &str, asked: Option<&Claims>) {
    let held = claimed(store, name, STRICT).await;
    let failure = held.failure(park(scope_set, asked, WHY));
    assert_eq!(store.fail(failure, STRICT).await.unwrap(), Failed::Applied);
}

async fn commits(store: &Store, scope_set: &str, claims: Option<Claims>) -> Grant {
    let held = claimed(store, "alice", STRICT).await;
    let mut commit = held.commit(&format!("v{}", held.grant.version));
    (commit.access.scope_set, commit.access.claims) = (scope_set.into(), claims);
    assert!(matches!(store.commit(commit).await.unwrap(), Committed::Stored { .. }));
    found(store, "alice").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_park_lasts_and_the_grant_goes_on() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        rig.clock.advance(Duration::from_secs(7));
        let at = rig.clock.now();
        parks(&store, "alice", MAIL, Some(&claims("c1"))).await;
        parks(&store, "alice", FILES, None).await;
        drop(store);

        let store = rig.open().await;
        let grant = found(&store, "alice").await;
        assert_eq!((&grant.status, grant.state(), grant.version), (&Status::Active, "reauth", 1));
        assert_eq!((grant.intent, grant.next_try, grant.fail_count), (false, None, 0));
        let [first, second] = [claims("c1"), claims("c2")];
        let waits = |scope_set, asked| grant.parked_for(scope_set, asked);
        let reason = waits(MAIL, Some(&first)).unwrap();
        assert_eq!((reason.text.as_str(), reason.since, reason.dead), (WHY, at, false));
        assert_eq!(reason.claims.as_ref(), Some(&first));
        assert!(waits(FILES, None).is_some() && waits(MAIL, None).is_none() && waits(MAIL, Some(&second)).is_none());

        let grant = commits(&store, MAIL, None).await;
        assert_eq!((grant.parked.len(), grant.state()), (2, "reauth"), "another scope set, and no claims");
        let grant = commits(&store, MAIL, Some(claims("c1"))).await;
        assert_eq!((grant.parked.len(), grant.parked[0].scope_set.as_str()), (1, FILES));
        let grant = commits(&store, FILES, None).await;
        assert_eq!((grant.parked.len(), grant.state(), grant.reason()), (0, "active", None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_a_revocation_and_a_removal_leave_no_park() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        parks(&store, "alice", MAIL, None).await;
        assert_eq!(signed_in(&store, "alice").await.state(), "active");
        parks(&store, "alice", MAIL, None).await;
        store.revoke(&key("alice")).await.unwrap();
        let grant = found(&store, "alice").await;
        assert_eq!((grant.state(), grant.parked.len()), ("revoked", 0));
        signed_in(&store, "alice").await;
        parks(&store, "alice", MAIL, None).await;
        store.remove(&key("alice")).await.unwrap();
        assert_eq!(signed_in(&store, "alice").await.parked, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parks_are_counted_listed_and_told() {
    for rig in Rig::every() {
        let (server, operator) = (rig.open().await, rig.open().await);
        for name in ["alice", "bob", "carol", "dave"] {
            signed_in(&server, name).await;
        }
        let mut seen = operator.sequence().await.unwrap();
        let mut heard = async || {
            let changes = operator.changes(seen).await.unwrap();
            seen = changes.last().map_or(seen, |change| change.sequence);
            changes.len()
        };
        parks(&server, "alice", MAIL, None).await;
        assert_eq!(heard().await, 1);
        commits(&server, MAIL, None).await;
        assert_eq!(heard().await, 1);

        parks(&server, "bob", MAIL, None).await;
        parks(&server, "carol", MAIL, None).await;
        let held = claimed(&server, "carol", STRICT).await;
        server.fail(held.failure(dead()), STRICT).await.unwrap();
        server.revoke(&key("dave")).await.unwrap();
        let listed = operator.list(None, 10).await.unwrap();
        assert_eq!(listed.iter().map(Grant::state).collect::<Vec<_>>(), ["active", "reauth", "reauth", "revoked"]);
        assert!(listed[2].reason().unwrap().dead, "the gravest reason first");
        let counts = operator.counts().await.unwrap();
        let expected = [("active", 1), ("reauth", 2), ("revoked", 1)];
        assert_eq!(counts, expected.map(|(state, number)| ("entra".to_owned(), state, number)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_access_token_is_kept() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", STRICT).await;
        let mut commit = held.commit("1");
        let half = rig.clock.now().plus(Duration::from_mins(30));
        (commit.access.refresh_after, commit.access.claims) = (Some(half), Some(claims("c1")));
        store.commit(commit).await.unwrap();
        drop(store);
        let access = &found(&rig.open().await, "alice").await.access[0];
        assert_eq!((access.refresh_after, &access.claims), (Some(half), &Some(claims("c1"))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_come_longest_idle_first() {
    for rig in Rig::every() {
        let store = rig.open().await;
        for name in ["alice", "bob", "carol", "dave", "erin", "fred"] {
            signed_in(&store, name).await;
            rig.clock.advance(Duration::from_hours(1));
        }
        let mut elsewhere = sign_in("gina");
        elsewhere.key.provider = "other".into();
        store.sign_in(elsewhere).await.unwrap();
        let now = rig.clock.now();
        // Alice's is refreshed, bob's is parked, carol's is dead, dave has signed in again after a refresh, erin's is revoked.
        commits(&store, MAIL, None).await;
        parks(&store, "bob", MAIL, None).await;
        let held = claimed(&store, "carol", STRICT).await;
        store.fail(held.failure(dead()), STRICT).await.unwrap();
        let held = claimed(&store, "dave", STRICT).await;
        store.commit(held.commit("dave")).await.unwrap();
        rig.clock.advance(Duration::from_hours(1));
        signed_in(&store, "dave").await;
        store.revoke(&key("erin")).await.unwrap();

        let idle = async |before, limit| {
            let grants = store.idle("entra", before, 0, limit).await.unwrap();
            assert!(grants.iter().all(|grant| grant.access.is_empty()));
            grants.iter().map(|grant| grant.alias.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(idle(now, 10).await, ["bob", "fred"]);
        assert_eq!(idle(now, 1).await, ["bob"]);
        assert_eq!(idle(now.plus(Duration::from_secs(1)), 10).await, ["bob", "fred", "alice"]);
        assert_eq!(idle(rig.clock.now().plus(Duration::from_secs(1)), 10).await, ["bob", "fred", "alice", "dave"]);
        let second = store.idle("entra", now, 1, 10).await.unwrap();
        assert_eq!(second.iter().map(|grant| grant.alias.as_str()).collect::<Vec<_>>(), ["fred"]);
        assert_eq!(idle(found(&store, "bob").await.signed_in_at, 10).await, Vec::<String>::new());
    }
}
