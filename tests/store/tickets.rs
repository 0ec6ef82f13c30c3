//! What may be taken only once.

use std::time::Duration;

use bearerd::store::StoreError;
use bearerd::store::TicketKind::{Device, Invite, Pending};

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_takers_one_gets_it() {
    for rig in Rig::every() {
        let stores = [rig.open().await, rig.open().await];
        let expires = rig.clock.now().plus(Duration::from_mins(10));
        stores[0].put_ticket(Invite, "ticket", b"for alice".to_vec(), expires).await.unwrap();
        let takers: Vec<_> = (0..50)
            .map(|number| {
                let store = stores[number % 2].clone();
                rig.tasks.spawn(async move { store.take_ticket(Invite, "ticket").await.unwrap() })
            })
            .collect();
        let mut taken = Vec::new();
        for taker in takers {
            taken.extend(taker.await.unwrap());
        }
        assert_eq!(taken, [b"for alice"]);
        assert_eq!(stores[1].read_ticket(Invite, "ticket").await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_of_one_kind_and_ends() {
    for rig in Rig::every() {
        let store = rig.open().await;
        let expires = rig.clock.now().plus(Duration::from_mins(10));
        store.put_ticket(Pending, "ticket", b"first".to_vec(), expires).await.unwrap();
        store.put_ticket(Pending, "ticket", b"second".to_vec(), expires).await.unwrap();
        for _ in 0..2 {
            let read = store.read_ticket(Pending, "ticket").await.unwrap();
            assert_eq!(read.as_deref(), Some(b"second".as_slice()), "reading takes nothing");
        }
        assert_eq!(store.take_ticket(Device, "ticket").await.unwrap(), None);
        assert_eq!(store.take_ticket(Pending, "other").await.unwrap(), None);

        rig.clock.advance(Duration::from_mins(10));
        assert_eq!(store.read_ticket(Pending, "ticket").await.unwrap(), None);
        assert_eq!(store.take_ticket(Pending, "ticket").await.unwrap(), None);
        store.sweep().await.unwrap();
    }
}

/// Strangers begin sign-ins; the disk is for refresh tokens.
#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_under_way_are_counted_and_links_are_not() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    let expires = rig.clock.now().plus(Duration::from_mins(10));
    let mut sql = rig.sql();
    let strangers = sql.transaction().unwrap();
    for number in 0..10_000_i64 {
        let row = (number.to_be_bytes(), expires.millis());
        strangers.execute("INSERT INTO tickets VALUES (?1, ?2, x'00')", row).unwrap();
    }
    strangers.commit().unwrap();
    for kind in [Pending, Device] {
        let refused = store.put_ticket(kind, "one more", b"x".to_vec(), expires).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    let link = rig.clock.now().plus(Duration::from_hours(24));
    store.put_ticket(Invite, "link", b"x".to_vec(), link).await.unwrap();
    rig.clock.advance(Duration::from_mins(10));
    let expires = rig.clock.now().plus(Duration::from_mins(10));
    store.put_ticket(Pending, "one more", b"x".to_vec(), expires).await.unwrap();
}
