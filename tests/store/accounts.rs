//! Accounts and their names, and how one process hears of what another one did.

use std::time::Duration;

use bearerd::config::Rotation;
use bearerd::store::{Status, StoreError};

use crate::rig::{LEASE, Rig, alias, claimed, found, key, sign_in, signed_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_account_is_as_it_was_given() {
    for rig in Rig::every() {
        let store = rig.open().await;
        let grant = signed_in(&store, "alice").await;
        assert_eq!((grant.epoch, grant.version, grant.status), (1, 1, Status::Active));
        assert_eq!((grant.created_at, grant.signed_in_at), (rig.clock.now(), rig.clock.now()));
        for same in [found(&store, "alice").await, store.load(&key("alice")).await.unwrap().unwrap()] {
            assert_eq!((same.key, same.alias.as_str()), (key("alice"), "alice"));
            assert_eq!(same.username.as_deref(), Some("alice@contoso.com"));
            assert_eq!(same.scopes, ["User.Read", "Mail.Read"]);
            let [access] = same.access.as_slice() else { panic!("{:?}", same.access) };
            assert_eq!(
                (access.token.expose().as_str(), access.scope_set.as_str()),
                ("at-alice-0", "Mail.Read User.Read")
            );
            assert_eq!(access.expires.since(access.obtained), Duration::from_hours(1));
        }
        assert!(store.find("Alice").await.unwrap().is_none(), "upper and lower case differ");
        assert!(store.load(&key("bob")).await.unwrap().is_none());
        store.ready().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_belongs_to_one_account() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let mut thief = sign_in("mallory");
        thief.alias = alias("alice");
        let refused = store.sign_in(thief.clone()).await.unwrap_err();
        assert!(matches!(refused, StoreError::AliasTaken(taken) if taken.as_str() == "alice"));
        assert!(store.load(&key("mallory")).await.unwrap().is_none());

        let mut renamed = sign_in("alice");
        renamed.alias = alias("somebody");
        rig.clock.advance(Duration::from_secs(5));
        let grant = store.sign_in(renamed).await.unwrap();
        assert_eq!((grant.alias.as_str(), grant.epoch), ("alice", 2), "an account keeps its own alias");
        assert_eq!(grant.signed_in_at.since(grant.created_at), Duration::from_secs(5));

        store.remove(&key("alice")).await.unwrap();
        assert_eq!(store.sign_in(thief).await.unwrap().alias.as_str(), "alice", "now it is free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_accounts_that_want_an_alias_one_gets_it() {
    for rig in Rig::every() {
        let stores = [rig.open().await, rig.open().await];
        let attempts: Vec<_> = (0..20)
            .map(|number| {
                let store = stores[number % 2].clone();
                let mut wanted = sign_in(&format!("user{number}"));
                wanted.alias = alias("shared");
                rig.tasks.spawn(async move { store.sign_in(wanted).await })
            })
            .collect();
        let mut won = 0;
        for attempt in attempts {
            match attempt.await.unwrap() {
                Ok(_) => won += 1,
                Err(StoreError::AliasTaken(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(stores[0].list(None, 100).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_account_leaves_its_counters() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", Rotation::Tolerant).await;
        store.commit(held.commit("1")).await.unwrap();
        assert!(store.remove(&key("alice")).await.unwrap());
        assert!(!store.remove(&key("alice")).await.unwrap());
        assert!(store.revoke(&key("alice")).await.unwrap().is_none());
        assert!(store.find("alice").await.unwrap().is_none() && store.load(&key("alice")).await.unwrap().is_none());
        assert!(store.list(None, 10).await.unwrap().is_empty());
        assert!(store.counts().await.unwrap().iter().all(|(.., count)| *count == 0));

        let mut again = sign_in("alice");
        again.alias = alias("alice2");
        let grant = store.sign_in(again).await.unwrap();
        assert!(grant.epoch > held.grant.epoch && grant.version > 2, "{grant:?}");
        assert_eq!((grant.alias.as_str(), grant.refreshed_at), ("alice2", None));
        assert!(claimed(&store, "alice2", Rotation::Tolerant).await.fence > held.fence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_come_in_pages_without_tokens() {
    for rig in Rig::every() {
        let store = rig.open().await;
        for name in ["carol", "alice", "dave", "bob"] {
            signed_in(&store, name).await;
        }
        store.revoke(&key("dave")).await.unwrap();
        let page = async |after, limit| {
            let grants = store.list(after, limit).await.unwrap();
            assert!(grants.iter().all(|grant| grant.access.is_empty()));
            grants.iter().map(|grant| grant.alias.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 3).await, ["alice", "bob", "carol"]);
        assert_eq!(page(Some("carol"), 3).await, ["dave"]);
        assert_eq!(page(Some("dave"), 3).await, Vec::<String>::new());
        assert_eq!(store.counts().await.unwrap(), [("entra".into(), "active", 3), ("entra".into(), "revoked", 1)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_does_the_other_hears() {
    for rig in Rig::every() {
        let (server, operator) = (rig.open().await, rig.open().await);
        assert_eq!(server.sequence().await.unwrap(), 0);
        for name in ["alice", "bob"] {
            signed_in(&operator, name).await;
        }
        let mut seen = server.sequence().await.unwrap();
        assert!(server.changes(seen).await.unwrap().is_empty());
        let mut heard = async || {
            let changes = server.changes(seen).await.unwrap();
            seen = changes.last().map_or(seen, |change| change.sequence);
            changes.into_iter().map(|change| (change.key, change.alias.to_string())).collect::<Vec<_>>()
        };

        operator.revoke(&key("alice")).await.unwrap();
        assert_eq!(heard().await, [(key("alice"), "alice".to_owned())]);

        let held = claimed(&operator, "bob", Rotation::Tolerant).await;
        assert!(heard().await.is_empty(), "a claim is no change");
        operator.commit(held.commit("1")).await.unwrap();
        operator.commit(held.commit("1")).await.unwrap();
        assert_eq!(heard().await, [(key("bob"), "bob".to_owned())]);

        // Removed and back under another name: both names are told.
        operator.remove(&key("bob")).await.unwrap();
        let mut back = sign_in("bob");
        back.alias = alias("robert");
        operator.sign_in(back).await.unwrap();
        assert_eq!(heard().await, [(key("bob"), "bob".to_owned()), (key("bob"), "robert".to_owned())]);
        assert!(heard().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_changes_is_told() {
    for rig in Rig::every() {
        let store = rig.open().await;
        signed_in(&store, "alice").await;
        let held = claimed(&store, "alice", Rotation::Strict).await;
        let before = store.sequence().await.unwrap();
        rig.clock.advance(LEASE);
        let grant = &held.grant;
        store.claim(&grant.key, grant.epoch, grant.version, LEASE, Rotation::Strict).await.unwrap();
        assert_eq!(store.changes(before).await.unwrap().len(), 1, "uncertain");
        store.fail(held.failure(crate::rig::dead()), Rotation::Strict).await.unwrap();
        let changes = store.changes(before).await.unwrap();
        assert_eq!((changes.len(), changes[0].sequence), (1, before + 2), "the newest of several");
    }
}
