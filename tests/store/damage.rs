//! A database in other hands: what it shows, and that nothing in it can be passed off as something else.

use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bearerd::config::Rotation;
use bearerd::store::{Claim, Status, Store, StoreError, TicketKind};
use rusqlite::types::Value;

use crate::rig::{LEASE, Rig, claimed, dead, found, key, sign_in, signed_in};

/// Two accounts whose every column is in use.
async fn two_accounts(rig: &Rig) -> Store {
    let store = rig.open().await;
    for name in ["alice", "bob"] {
        signed_in(&store, name).await;
        let held = claimed(&store, name, Rotation::Tolerant).await;
        store.commit(held.commit(&format!("{name}-1"))).await.unwrap();
    }
    // Bob is in his second life.
    signed_in(&store, "bob").await;
    let held = claimed(&store, "bob", Rotation::Tolerant).await;
    store.commit(held.commit("bob-2")).await.unwrap();
    store
}

/// Neither reading nor claiming brings a token that belongs to someone or something else.
async fn gives_nothing_false(store: &Store, what: &str) {
    for (name, access, refresh) in [("alice", "at-alice-1", "rt-alice-1"), ("bob", "at-bob-2", "rt-bob-2")] {
        let found = match store.find(name).await {
            Ok(found) => found,
            Err(StoreError::Corrupt { .. }) => continue,
            Err(other) => panic!("{what}: {other:?}"),
        };
        let Some(grant) = found else { continue };
        for token in &grant.access {
            assert_eq!(token.token.expose(), access, "{what}");
        }
        match store.claim(&grant.key, grant.epoch, grant.version, LEASE, Rotation::Tolerant).await {
            Ok(Claim::Claimed { refresh_token, .. }) => assert_eq!(refresh_token.expose(), refresh, "{what}"),
            Ok(_) | Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
}

fn exchange(rig: &Rig, one: (&str, &str, &str), two: (&str, &str, &str)) {
    let sql = rig.sql();
    let read = |(table, column, account): (&str, &str, &str)| -> Value {
        sql.query_row(&format!("SELECT {column} FROM {table} WHERE {account}"), [], |row| row.get(0)).unwrap()
    };
    let write = |(table, column, account): (&str, &str, &str), value: Value| {
        sql.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {account}"), [value]).unwrap();
    };
    let (first, second) = (read(one), read(two));
    // Unique columns: never the same in both places.
    if ["alias", "subject"].contains(&one.1) {
        write(one, Value::Text("for-a-moment".into()));
    }
    write(two, first);
    write(one, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_exchange_of_fields_passes_a_token_to_another_account() {
    let alice = [("grants", "rt", "id = 1"), ("grants", "prev_rt", "id = 1"), ("access", "token", "grant_id = 1")];
    let bob = [("grants", "rt", "id = 2"), ("grants", "prev_rt", "id = 2"), ("access", "token", "grant_id = 2")];
    let mut pairs = vec![(alice[0], alice[1]), (alice[0], alice[2]), (bob[0], bob[1]), (bob[0], bob[2])];
    for one in alice {
        pairs.extend(bob.map(|two| (one, two)));
    }
    for column in ["alias", "subject", "epoch", "version", "fence", "status", "rt_fp", "parent_fp", "parent_fence"] {
        pairs.push((("grants", column, "id = 1"), ("grants", column, "id = 2")));
    }
    for (one, two) in pairs {
        let rig = Rig::embedded();
        let store = two_accounts(&rig).await;
        exchange(&rig, one, two);
        gives_nothing_false(&store, &format!("{one:?} and {two:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanged_tokens_are_an_error_of_their_records_only() {
    let rig = Rig::embedded();
    let store = two_accounts(&rig).await;
    signed_in(&store, "carol").await;
    exchange(&rig, ("access", "token", "grant_id = 1"), ("access", "token", "grant_id = 2"));
    exchange(&rig, ("grants", "rt", "id = 1"), ("grants", "rt", "id = 2"));
    for name in ["alice", "bob"] {
        let error = store.find(name).await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { record, .. } if record == name), "{error:?}");
        let listed =
            store.list(None, 10).await.unwrap().into_iter().find(|grant| grant.alias.as_str() == name).unwrap();
        let error =
            store.claim(&listed.key, listed.epoch, listed.version, LEASE, Rotation::Tolerant).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
    let listed = store.list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|grant| !grant.intent), "a claim that failed left nothing");
    assert_eq!(found(&store, "carol").await.access[0].token.expose(), "at-carol-0");

    // A new sign-in heals the one, a revocation and a removal end the other.
    assert_eq!(store.sign_in(sign_in("alice")).await.unwrap().access.len(), 1);
    assert_eq!(claimed(&store, "alice", Rotation::Tolerant).await.refresh_token, "rt-alice-0");
    let revoked = store.revoke(&key("bob")).await.unwrap().unwrap();
    assert!(revoked.refresh_token.is_none(), "another one's token is given to nobody");
    assert!(store.remove(&key("bob")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_an_older_life_does_not_open() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let old: Vec<u8> = rig.sql().query_row("SELECT rt FROM grants", [], |row| row.get(0)).unwrap();
    store.revoke(&key("alice")).await.unwrap();
    signed_in(&store, "alice").await;
    rig.sql().execute("UPDATE grants SET rt = ?1", [old]).unwrap();
    let grant = found(&store, "alice").await;
    let error = store.claim(&grant.key, grant.epoch, grant.version, LEASE, Rotation::Tolerant).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_an_error() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let sql = rig.sql();
    let good: Vec<u8> = sql.query_row("SELECT token FROM access", [], |row| row.get(0)).unwrap();
    let mut damaged: Vec<Vec<u8>> =
        [0, 1, 9, 81, 82, 97, good.len() - 1].map(|length| good[..length].to_vec()).to_vec();
    damaged.extend((0..good.len()).step_by(37).map(|index| {
        let mut changed = good.clone();
        changed[index] ^= 0x40;
        changed
    }));
    for blob in damaged {
        sql.execute("UPDATE access SET token = ?1", [&blob]).unwrap();
        let error = store.find("alice").await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
    sql.execute("UPDATE access SET token = ?1", [&good]).unwrap();
    found(&store, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_read_hides_no_other() {
    let rig = Rig::embedded();
    let store = two_accounts(&rig).await;
    for damage in [
        "parked = '[{}]'",
        r#"parked = '[{"scope_set":"a","asked":"no claims","text":"b","since":1}]'"#,
        "parked = NULL, status = 'reauth', reason_claims = '[]'",
        "fence = -1, rt_fp = x'00'",
    ] {
        rig.sql().execute(&format!("UPDATE grants SET {damage} WHERE id = 1"), []).unwrap();
        let error = store.find("alice").await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { record, .. } if record == "alice"), "{damage}: {error:?}");
        let listed = store.list(None, 10).await.unwrap();
        assert_eq!(listed.iter().map(|grant| grant.alias.as_str()).collect::<Vec<_>>(), ["bob"]);
        found(&store, "bob").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_can_neither_be_prolonged_nor_change_its_kind() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    let expires = rig.clock.now().plus(Duration::from_mins(10));
    store.put_ticket(TicketKind::Invite, "ticket", b"for alice".to_vec(), expires).await.unwrap();
    rig.sql().execute("UPDATE tickets SET expires = expires + 1", []).unwrap();
    let error = store.take_ticket(TicketKind::Invite, "ticket").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_show_no_secret() {
    let rig = Rig::embedded();
    let store = two_accounts(&rig).await;
    let expires = rig.clock.now().plus(Duration::from_mins(10));
    store
        .put_ticket(TicketKind::Pending, "ticket-id-secret", b"ticket payload: secret".to_vec(), expires)
        .await
        .unwrap();
    let master = std::fs::read_to_string(rig.config().key_file).unwrap();
    let master_bytes = BASE64_STANDARD.decode(master.trim_end()).unwrap();
    let mut secrets: Vec<Vec<u8>> = ["ticket-id-secret", "ticket payload: secret", master.trim_end()]
        .into_iter()
        .chain(["rt-alice-0", "rt-alice-1", "at-alice-0", "at-alice-1", "rt-bob-0", "rt-bob-2", "at-bob-2"])
        .map(|text| text.as_bytes().to_vec())
        .collect();
    secrets.push(master_bytes);
    let mut needles = Vec::new();
    for secret in secrets {
        needles.push(BASE64_STANDARD.encode(&secret).trim_end_matches('=').as_bytes()[..8].to_vec());
        needles.push(BASE64_URL_SAFE_NO_PAD.encode(&secret).into_bytes());
        needles.push(form_urlencoded::byte_serialize(&secret).collect::<String>().into_bytes());
        needles.push(secret[..secret.len().min(16)].to_vec());
        needles.push(secret);
    }
    let files = rig.snapshot();
    let contains = |content: &[u8], needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
    let known = files.iter().any(|(_, _, content)| contains(content, b"object-alice"));
    assert!(known, "the search would find what is there");
    for (path, _, content) in files.iter().filter(|(path, ..)| !path.ends_with("store.key")) {
        for needle in &needles {
            assert!(!contains(content, needle), "{}: {}", path.display(), String::from_utf8_lossy(needle));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_erases_what_has_had_its_time() {
    let rig = Rig::embedded();
    let store = two_accounts(&rig).await;
    let held = claimed(&store, "alice", Rotation::Tolerant).await;
    store.fail(held.failure(dead()), Rotation::Tolerant).await.unwrap();
    let died = rig.clock.now();
    let kept = || {
        let count = "SELECT count(prev_rt), count(rt), (SELECT count(*) FROM tickets) FROM grants";
        rig.sql().query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let expires = rig.clock.now().plus(Duration::from_mins(10));
    store.put_ticket(TicketKind::Invite, "ticket", b"for alice".to_vec(), expires).await.unwrap();
    store.sweep().await.unwrap();
    assert_eq!(kept(), (2, 2, 1));
    rig.clock.advance(Duration::from_mins(5));
    store.sweep().await.unwrap();
    assert_eq!(kept(), (0, 2, 1), "the grace time is over");
    rig.clock.advance(Duration::from_hours(24));
    store.sweep().await.unwrap();
    assert_eq!(kept(), (0, 1, 0), "the dead one goes, the living one stays");
    let alice = found(&store, "alice").await;
    let Status::Reauth(reason) = &alice.status else { panic!("{alice:?}") };
    assert_eq!((reason.text.as_str(), reason.since), ("AADSTS50173: the grant was revoked", died));
    assert_eq!(store.list(None, 10).await.unwrap().len(), 2, "the account stays, and says why");
    assert_eq!(store.counts().await.unwrap(), [("entra".into(), "active", 1), ("entra".into(), "reauth", 1)]);
    let answer = store.claim_forced(&alice.key, alice.epoch, alice.version, LEASE, Rotation::Tolerant).await.unwrap();
    assert!(matches!(answer, Claim::Stale));
    assert_eq!(store.sign_in(sign_in("alice")).await.unwrap().status, Status::Active);
    assert_eq!(claimed(&store, "bob", Rotation::Tolerant).await.refresh_token, "rt-bob-2");
}
