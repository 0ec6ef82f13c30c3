//! The audit log as it is kept: in order, in pages, and so that a change of it is found.

use std::time::Duration;

use bearerd::audit::{Denials, Entry, Event, Outcome, Record, Who};
use bearerd::store::{AuditFlaw, AuditQuery, Store, StoreError};

use crate::rig::{Rig, alias, key, signed_in};

fn all() -> AuditQuery {
    AuditQuery { limit: 10_000, ..AuditQuery::default() }
}

async fn records(store: &Store) -> Vec<Record> {
    store.audit_page(all()).await.unwrap().records
}

fn revoke(name: &str) -> Entry {
    Entry::new(Event::Revoke, Who::Cli).of(alias(name), &key(name))
}

/// Looks through all of them, as an export does.
async fn checked(store: &Store) -> Result<(), AuditFlaw> {
    let mut after = None;
    while let Some(more) = store.audit_check(after).await.unwrap()? {
        after = Some(more);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_to_be_done_is_recorded_before_it() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let before = async {
        let records = records(&store).await;
        assert_eq!((records.len(), records[0].outcome.as_str()), (1, "intended"));
        Ok::<_, StoreError>(true)
    };
    assert!(store.audited(revoke("alice"), |entry, _| entry.because("asked for"), before).await.unwrap());
    let failing = async { Err::<(), _>(StoreError::Unavailable("no".to_owned())) };
    store.audited(revoke("alice"), |entry, ()| entry, failing).await.unwrap_err();
    let records = records(&store).await;
    let told: Vec<_> =
        records.iter().map(|record| (record.outcome.as_str(), record.intent, record.why.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("intended", None, None),
            ("done", Some(1), Some("asked for")),
            ("intended", None, None),
            ("failed", Some(3), Some("the store is unavailable: no")),
        ]
    );
    let record = &records[1];
    assert_eq!(
        (record.event.as_str(), record.who.as_str(), record.account.as_deref()),
        ("revoke", "operator:cli", Some("alice"))
    );
    assert_eq!(record.account_id.as_deref(), Some(key("alice").id().as_str()));
    checked(&store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_recorded_is_not_done() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    rig.sql().execute_batch("DROP TABLE audit").unwrap();
    let error = store.audited(revoke("alice"), |entry, ()| entry, async { panic!("it was done") }).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_times_and_accounts() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    let start = rig.clock.now();
    for name in ["alice", "bob", "alice", "carol"] {
        store.audit(revoke(name)).await.unwrap();
        rig.clock.advance(Duration::from_mins(1));
    }
    let sequences = async |query: AuditQuery| -> Vec<u64> {
        store.audit_page(query).await.unwrap().records.iter().map(|record| record.sequence).collect()
    };
    assert_eq!(sequences(AuditQuery { limit: 3, ..all() }).await, [1, 2, 3]);
    assert_eq!(sequences(AuditQuery { limit: 3, after: Some(3), ..all() }).await, [4]);
    assert_eq!(sequences(AuditQuery { newest_first: true, limit: 2, ..all() }).await, [4, 3]);
    assert_eq!(sequences(AuditQuery { newest_first: true, after: Some(3), ..all() }).await, [2, 1]);
    assert_eq!(sequences(AuditQuery { account_id: Some(key("alice").id()), ..all() }).await, [1, 3]);
    let (since, until) = (start.plus(Duration::from_mins(1)), start.plus(Duration::from_mins(3)));
    assert_eq!(sequences(AuditQuery { since: Some(since), until: Some(until), ..all() }).await, [2, 3]);
    assert_eq!(sequences(AuditQuery { event: Some(Event::Revoke), limit: 2, ..all() }).await, [1, 2]);
    assert_eq!(sequences(AuditQuery { event: Some(Event::Remove), ..all() }).await, [] as [u64; 0]);
    assert_eq!(sequences(AuditQuery { outcome: Some(Outcome::Done), newest_first: true, ..all() }).await, [4, 3, 2, 1]);
    let next = async |limit| store.audit_page(AuditQuery { limit, ..all() }).await.unwrap().next;
    assert_eq!((next(3).await, next(4).await), (Some(3), None), "the last page says that it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rare_record_is_found_slice_by_slice() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    store.audit(Entry::new(Event::Backup, Who::Cli)).await.unwrap();
    store.audit_all(vec![revoke("alice"); 45_000]).await.unwrap();
    for newest_first in [true, false] {
        let mut query = AuditQuery { event: Some(Event::Backup), newest_first, limit: 5, ..all() };
        let mut found = Vec::new();
        loop {
            let page = store.audit_page(query.clone()).await.unwrap();
            found.push(page.records.len());
            query.after = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(found, if newest_first { [0, 0, 1] } else { [1, 0, 0] });
    }
    let own = AuditQuery { account_id: Some(key("bob").id()), event: Some(Event::Backup), ..all() };
    assert_eq!(store.audit_page(own).await.unwrap().next, None, "an account has an index");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_changed_or_taken_out_is_found() {
    for (damage, flaw) in [
        ("UPDATE audit SET who = 'operator:admin' WHERE sequence = 3", 3),
        ("UPDATE audit SET at = at + 1 WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 3", 4),
        ("UPDATE audit SET link = (SELECT link FROM audit WHERE sequence = 2) WHERE sequence = 4", 4),
        ("UPDATE audit SET sequence = 10 - sequence WHERE sequence > 3", 6),
    ] {
        let rig = Rig::embedded();
        let store = rig.open().await;
        for name in ["alice", "bob", "carol", "dave", "erin"] {
            store.audit(revoke(name)).await.unwrap();
        }
        checked(&store).await.unwrap();
        rig.sql().execute(damage, []).unwrap();
        let found = checked(&store).await.unwrap_err();
        assert!(matches!(found, AuditFlaw::Changed(at) if at == flaw || damage.contains("10 -")), "{damage}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_leave_when_their_time_is_over() {
    let rig = Rig::embedded();
    let store = rig.open().await.keeping_audit(Duration::from_hours(24));
    for _ in 0..1200 {
        store.audit(revoke("alice")).await.unwrap();
    }
    rig.clock.advance(Duration::from_hours(23));
    store.audit(revoke("bob")).await.unwrap();
    store.sweep().await.unwrap();
    assert_eq!(records(&store).await.len(), 1201);
    rig.clock.advance(Duration::from_hours(1));
    store.sweep().await.unwrap();
    let left = records(&store).await;
    assert_eq!(left.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1201]);
    checked(&store).await.unwrap();
    rig.clock.advance(Duration::from_hours(48));
    store.sweep().await.unwrap();
    assert!(records(&store).await.is_empty());
    assert_eq!(store.audit(revoke("carol")).await.unwrap(), 1202, "numbers are never used again");
    checked(&store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_denials_are_a_few_records() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    let denials = Denials::default();
    for _ in 0..1000 {
        let entry = Entry::new(Event::PolicyDenied, Who::Client("payroll".into())).with(Outcome::Denied);
        denials.note(entry, Some("deny[0]"));
    }
    store.keep_last_denials(&denials, &rig.clock).await;
    store.keep_last_denials(&denials, &rig.clock).await;
    let records = records(&store).await;
    assert_eq!(
        records.iter().map(|record| (record.who.as_str(), record.count)).collect::<Vec<_>>(),
        [("client:payroll", 1000)]
    );
}
