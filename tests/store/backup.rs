//! A backup is taken while the store is used, and what comes back from it is never taken for what it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bearerd::audit::{Entry, Event, Who};
use bearerd::config::Rotation;
use bearerd::store::{AuditQuery, Claim, Gone, Restored, Status, Store, StoreError, TicketKind, generate_key};

use crate::rig::{LEASE, Rig, claim, claimed, dead, found, key, signed_in};

fn file(rig: &Rig) -> PathBuf {
    rig.path().parent().unwrap().join("backup.db")
}

async fn restored(rig: &Rig, from: &Path, rotation: Rotation, gone: Vec<Gone>) -> Result<Restored, StoreError> {
    let rotations = BTreeMap::from([("entra".to_owned(), rotation)]);
    let entry = Entry::new(Event::Restore, Who::Cli).because("backup.db");
    Store::restore(&rig.config(), from, rotations, gone, entry, rig.clock.clone(), &rig.tasks).await
}

/// The machine burned down; the key was kept elsewhere.
fn lose(rig: &Rig) {
    let key = fs::read(rig.config().key_file).unwrap();
    fs::remove_dir_all(rig.path()).unwrap();
    fs::create_dir_all(rig.path()).unwrap();
    put_key(rig, key);
}

fn put_key(rig: &Rig, key: impl AsRef<[u8]>) {
    fs::write(rig.config().key_file, key).unwrap();
    fs::set_permissions(rig.config().key_file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_while_others_write() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let held = claimed(&store, "alice", Rotation::Tolerant).await;
    let size = store.backup(&file(&rig)).await.unwrap();
    store.commit(held.commit("alice-1")).await.unwrap();
    let metadata = fs::metadata(file(&rig)).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (size, 0o600));
    let again = store.backup(&file(&rig)).await.unwrap_err().to_string();
    assert!(again.contains("is there already") && again.contains("backup.db"), "{again}");
    let nowhere = store.backup(&rig.path().join("nowhere/backup.db")).await.unwrap_err().to_string();
    assert!(nowhere.contains("nowhere/backup.db"), "{nowhere}");
    let beside: Vec<_> =
        fs::read_dir(rig.path().parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "no draft is left: {beside:?}");
    drop(store);

    lose(&rig);
    let done = restored(&rig, &file(&rig), Rotation::Tolerant, Vec::new()).await.unwrap();
    assert_eq!(done, Restored { grants: 1, ended: 0, unreadable: 0 });
    let store = rig.open().await;
    let alice = found(&store, "alice").await;
    assert_eq!((alice.epoch, &alice.status, alice.intent), (2, &Status::Active, false));
    assert_eq!(alice.access[0].token.expose(), "at-alice-0");
    assert_eq!(claimed(&store, "alice", Rotation::Tolerant).await.refresh_token, "rt-alice-0");
    let records = store.audit_page(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap().records;
    assert_eq!(records.last().unwrap().event, "restore");
    assert_eq!(store.audit_check(None).await.unwrap(), Ok(Some(1)));
}

/// T603: the provider may have taken the token since. It is tried once, as after a crash, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_strict_grant_comes_back_as_uncertain() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    signed_in(&store, "bob").await;
    let held = claimed(&store, "bob", Rotation::Strict).await;
    store.fail(held.failure(dead()), Rotation::Strict).await.unwrap();
    store.backup(&file(&rig)).await.unwrap();
    drop(store);
    lose(&rig);
    restored(&rig, &file(&rig), Rotation::Strict, Vec::new()).await.unwrap();

    let store = rig.open().await;
    let alice = found(&store, "alice").await;
    assert_eq!((&alice.status, alice.access.len()), (&Status::Uncertain, 1), "what lives is served");
    let held = claimed(&store, "alice", Rotation::Strict).await;
    assert!(held.last_resort && held.refresh_token == "rt-alice-0");
    assert!(matches!(claim(&store, "alice", Rotation::Strict).await, Claim::Busy { .. }), "once");
    assert!(matches!(found(&store, "bob").await.status, Status::Reauth(_)), "what was dead stays dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ended_since_is_ended_again_and_links_are_void() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    for name in ["alice", "bob", "carol", "dave"] {
        signed_in(&store, name).await;
    }
    let entry = |event, name| Entry::new(event, Who::Cli).of(name, &key(name));
    // Before the backup, and signed in again since.
    store.audit(entry(Event::Revoke, "carol")).await.unwrap();
    let expires = rig.clock.now().plus(Duration::from_hours(24));
    store.put_ticket(TicketKind::Invite, "link", b"for alice".to_vec(), expires).await.unwrap();
    store.put_ticket(TicketKind::Imported, "token", b"of alice".to_vec(), expires).await.unwrap();
    store.backup(&file(&rig)).await.unwrap();
    store.audit(entry(Event::Revoke, "alice")).await.unwrap();
    store.audit(entry(Event::Remove, "bob")).await.unwrap();
    let exported = store.audit_page(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap().records;
    let gone: Vec<_> = exported.iter().filter_map(Gone::of).collect();
    assert_eq!(gone.len(), 3);
    drop(store);
    lose(&rig);
    let done = restored(&rig, &file(&rig), Rotation::Tolerant, gone).await.unwrap();
    assert_eq!(done, Restored { grants: 2, ended: 2, unreadable: 0 });

    let store = rig.open().await;
    let alice = found(&store, "alice").await;
    assert_eq!((&alice.status, alice.access.len()), (&Status::Revoked, 0));
    assert!(store.find("bob").await.unwrap().is_none());
    for name in ["carol", "dave"] {
        let grant = found(&store, name).await;
        assert_eq!(grant.status, Status::Active);
        let claim = store.claim(&grant.key, grant.epoch, grant.version, LEASE, Rotation::Tolerant).await.unwrap();
        assert!(matches!(claim, Claim::Claimed { .. }), "{name}");
    }
    assert!(store.read_ticket(TicketKind::Invite, "link").await.unwrap().is_none());
    assert!(store.read_ticket(TicketKind::Imported, "token").await.unwrap().is_some());
    assert_eq!(store.counts().await.unwrap(), [("entra".into(), "active", 2), ("entra".into(), "revoked", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_can_not_be_changes_nothing() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    store.backup(&file(&rig)).await.unwrap();
    let refused = async |expected: &[&str], named: &str, from: &Path| {
        let before = rig.snapshot();
        let error = restored(&rig, from, Rotation::Tolerant, Vec::new()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Setup { key, .. } if *key == named), "{error:?}");
        for expected in expected {
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(rig.snapshot(), before, "{error}");
    };
    refused(&["store.db", "move it away"], "store.path", &file(&rig)).await;
    // Moved away, but for the log; and the server still runs.
    fs::rename(rig.path().join("store.db"), rig.path().join("old.db")).unwrap();
    if rig.path().join("store.db-wal").exists() {
        refused(&["store.db-wal"], "store.path", &file(&rig)).await;
        fs::remove_file(rig.path().join("store.db-wal")).unwrap();
        fs::remove_file(rig.path().join("store.db-shm")).unwrap();
    }
    refused(&["process", "still works"], "store.path", &file(&rig)).await;
    drop(store);

    lose(&rig);
    let right = fs::read(rig.config().key_file).unwrap();
    put_key(&rig, generate_key().unwrap().expose());
    refused(&["store.key", "not the key that", "backup.db"], "store.key_file", &file(&rig)).await;
    fs::remove_file(rig.config().key_file).unwrap();
    refused(&["store.key", "no such file"], "store.key_file", &file(&rig)).await;
    put_key(&rig, right);
    let foreign = file(&rig).with_file_name("foreign.db");
    fs::write(&foreign, "Dear diary, ".repeat(1_000)).unwrap();
    refused(&["foreign.db", "not a database"], "store.path", &foreign).await;
    refused(&["nowhere.db"], "store.path", &foreign.with_file_name("nowhere.db")).await;
    restored(&rig, &file(&rig), Rotation::Tolerant, Vec::new()).await.unwrap();
    found(&rig.open().await, "alice").await;
}
