//! Imports at a provider that takes a refresh token once: a token that is known here already is never presented again.

use bearerd::audit::{Entry, Event, Who};
use bearerd::sandbox::Sandbox;
use bearerd::store::Status;
use bearerd::vault::{Import, ImportError, Imported, PutError};

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use super::rig::{HOUR, Mode, Process, Rig, alias};

/// A row as a file would hold it; a refresh token can be in two files.
#[derive(Clone)]
struct Row {
    alias: &'static str,
    provider: &'static str,
    refresh_token: String,
    owner: Option<(String, String)>,
}

fn row(sandbox: &Sandbox, user: &str) -> Row {
    let grant = sandbox.grant(user).expect("a user");
    let alias = ["alice", "bob", "carol"].into_iter().find(|alias| *alias == user).expect("one of the three");
    Row { alias, provider: "entra", refresh_token: grant.refresh_token, owner: Some((grant.tenant, grant.oid)) }
}

impl Row {
    fn without_owner(self) -> Self {
        Self { owner: None, ..self }
    }

    async fn import(&self, process: &Process, verify: bool) -> Result<Imported, ImportError> {
        let (tenant, subject) = self.owner.clone().unzip();
        let row = Import {
            alias: alias(self.alias),
            provider: self.provider.into(),
            refresh_token: self.refresh_token.as_str().into(),
            access_token: None,
            expires_at: None,
            tenant,
            subject,
            scopes: None,
        };
        process.core.vault.import(row, verify, Entry::new(Event::Import, Who::Cli)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_row_twice_leaves_the_living_grant_alone() {
    for first_verified in [true, false] {
        for verified in [true, false] {
            for refreshes in 0..3 {
                let rig = Rig::strict();
                let process = rig.process().await;
                let row = row(&rig.sandbox, "alice");
                let first = row.import(&process, first_verified).await;
                assert!(matches!(first, Ok(Imported::New(_))), "{first:?}");
                for _ in 0..refreshes {
                    rig.clock.advance(HOUR);
                    process.lease("alice").await.expect("a refresh");
                }
                let (before, asked) = (process.grant("alice").await, rig.asked().len());
                // Of another process, as the command line is.
                let second = row.import(&rig.process().await, verified).await;
                if !first_verified && !verified && refreshes == 0 {
                    // The row brings the very token that is there: it may bring another access token with it.
                    assert!(matches!(&second, Ok(Imported::New(grant)) if grant.key == before.key), "{second:?}");
                } else {
                    assert!(matches!(&second, Ok(Imported::Already(grant)) if grant.key == before.key), "{second:?}");
                    let after = process.grant("alice").await;
                    assert_eq!((after.epoch, after.version), (before.epoch, before.version));
                }
                assert_eq!(rig.asked().len(), asked, "not presented again");
                rig.clock.advance(HOUR);
                process.lease("alice").await.expect("the grant lives");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_say_whose_it_is_is_known_by_its_token() {
    let rig = Rig::strict();
    let process = rig.process().await;
    let row = row(&rig.sandbox, "alice").without_owner();
    row.import(&process, true).await.expect("an import");
    assert!(matches!(row.import(&process, true).await, Ok(Imported::Already(_))));
    let elsewhere = Row { alias: "second", ..row };
    let refused = elsewhere.import(&process, true).await;
    assert!(matches!(refused, Err(ImportError::Put(PutError::Known { .. }))), "{refused:?}");
    assert_eq!(rig.asked().len(), 1);
    rig.clock.advance(HOUR);
    process.lease("alice").await.expect("the grant lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_conflict_shows_without_the_provider_uses_up_no_token() {
    let rig = Rig::with(Mode::Strict, 3);
    let process = rig.process().await;
    process.sign_in(&rig.sandbox, "alice").await;
    process.sign_in(&rig.sandbox, "bob").await;
    rig.sandbox.entra.clear();
    let (alice, bob, carol) = (row(&rig.sandbox, "alice"), row(&rig.sandbox, "bob"), row(&rig.sandbox, "carol"));
    let taken = Row { alias: "alice", ..carol }.import(&process, true).await;
    assert!(matches!(taken, Err(ImportError::Put(PutError::AliasTaken(_)))), "{taken:?}");
    let known = Row { alias: "second", ..bob.clone() }.import(&process, true).await;
    assert!(matches!(known, Err(ImportError::Put(PutError::Known { .. }))), "{known:?}");
    let elsewhere = Row { provider: "other", ..alice.clone().without_owner() }.import(&process, true).await;
    assert!(matches!(elsewhere, Err(ImportError::OtherProvider { .. })), "{elsewhere:?}");
    assert!(rig.asked().is_empty(), "{:?}", rig.asked());

    alice.import(&process, true).await.expect("none of that has used the token up");
    bob.import(&process, true).await.expect("nor this one");
    assert_eq!(rig.outcomes(), ["200", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_life_that_has_ended_is_proven_anew() {
    let rig = Rig::new();
    let process = rig.process().await;
    let row = row(&rig.sandbox, "alice");
    row.import(&process, true).await.expect("an import");
    process.revoke("alice").await;
    assert!(matches!(row.import(&process, true).await, Ok(Imported::New(_))));
    assert_eq!((rig.asked().len(), process.status("alice").await), (2, Status::Active));
    process.remove("alice").await;
    assert!(matches!(row.import(&process, true).await, Ok(Imported::New(_))));
    assert_eq!((rig.asked().len(), process.status("alice").await), (3, Status::Active));
}

/// How many of `outcomes` brought a new grant; all others found it there.
fn new_ones(outcomes: &[Result<Imported, ImportError>]) -> usize {
    let is_new = |outcome: &&Result<Imported, ImportError>| match outcome {
        Ok(Imported::New(_)) => true,
        Ok(Imported::Already(_)) => false,
        Err(error) => panic!("{error}"),
    };
    outcomes.iter().filter(is_new).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_in_many_hands_at_once_is_redeemed_once() {
    let rig = Rig::strict();
    let process = rig.process().await;
    let row = row(&rig.sandbox, "alice").without_owner();
    let gate = rig.hold();
    let barrier = Arc::new(Barrier::new(20));
    let start = |_| {
        let (row, process, barrier) = (row.clone(), process.clone(), Arc::clone(&barrier));
        process.core.tasks.clone().spawn(async move {
            barrier.wait().await;
            row.import(&process, true).await
        })
    };
    let started: Vec<_> = (0..20).map(start).collect();
    gate.arrived(1).await;
    gate.open();
    let mut outcomes = Vec::new();
    for task in started {
        outcomes.push(task.await.expect("no panic"));
    }
    assert_eq!((new_ones(&outcomes), rig.outcomes()), (1, vec!["200".to_owned()]));
    rig.clock.advance(HOUR);
    process.lease("alice").await.expect("the grant lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_was_redeemed_for_is_stored_once_the_store_is_back() {
    let rig = Rig::strict();
    let process = rig.process().await;
    let row = row(&rig.sandbox, "alice").without_owner();
    let gate = rig.hold_answer();
    let mut waiting = process.core.tasks.spawn({
        let (process, row) = (process.clone(), row.clone());
        async move { row.import(&process, true).await }
    });
    gate.arrived(1).await;
    rig.sql().execute_batch("ALTER TABLE grants RENAME TO away").expect("a table");
    gate.open();
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "given up before it was stored: {early:?}");
    rig.sql().execute_batch("ALTER TABLE away RENAME TO grants").expect("a table");
    let imported = waiting.await.expect("no panic");
    assert!(matches!(imported, Ok(Imported::New(_))), "{imported:?}");
    assert!(matches!(row.import(&process, true).await, Ok(Imported::Already(_))));
    assert_eq!(rig.outcomes(), ["200"]);
    rig.clock.advance(HOUR);
    process.lease("alice").await.expect("the grant lives");
}
