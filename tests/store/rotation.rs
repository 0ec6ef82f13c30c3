//! The keys are changed while others read and write: nothing is lost, whatever is cut off, and wherever.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bearerd::config::Rotation;
use bearerd::store::{
    Claim, KeyState, MasterRotated, Progress, RotateError, Store, StoreError, TicketKind, generate_key,
};

use crate::rig::{LEASE, Rig, claimed, found, key, signed_in};

const PATIENCE: Duration = Duration::from_secs(20);
const KILLED: &str = "BEARERD_TEST_ROTATION";

async fn rotated(store: &Store) {
    store.rotate(PATIENCE, |_| ()).await.unwrap();
}

/// The ids of the ring, and how much each of them seals.
async fn seals(store: &Store) -> Vec<(u32, KeyState, u64)> {
    let counts = store.sealed_by().await.unwrap();
    let keys = store.keys().await.unwrap().keys.into_iter();
    keys.map(|key| (key.id, key.state, counts.get(&key.id).copied().unwrap_or(0))).collect()
}

async fn filled(store: &Store, accounts: usize) {
    for number in 0..accounts {
        signed_in(store, &format!("user{number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_sealed_anew_and_opens_as_before() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let held = claimed(&store, "alice", Rotation::Tolerant).await;
    store.commit(held.commit("alice-1")).await.unwrap();
    let expires = rig.clock.now().plus(Duration::from_mins(10));
    for kind in [TicketKind::Invite, TicketKind::Pending, TicketKind::Device, TicketKind::Imported] {
        store.put_ticket(kind, "ticket", b"for alice".to_vec(), expires).await.unwrap();
    }
    assert_eq!(seals(&store).await, [(1, KeyState::Active, 7)]);
    let before = found(&store, "alice").await;
    rotated(&store).await;
    assert_eq!(seals(&store).await, [(2, KeyState::Active, 7)]);
    for store in [&store, &rig.open().await] {
        store.ready().await.unwrap();
        let alice = found(store, "alice").await;
        assert_eq!((alice.epoch, alice.version), (before.epoch, before.version));
        assert_eq!(alice.access[0].token.expose(), "at-alice-1");
        let ticket = store.read_ticket(TicketKind::Device, "ticket").await.unwrap();
        assert_eq!(ticket.as_deref(), Some(b"for alice".as_slice()), "digests are what they were");
    }
    assert_eq!(claimed(&store, "alice", Rotation::Tolerant).await.refresh_token, "rt-alice-1");
    rotated(&store).await;
    assert_eq!(seals(&store).await, [(3, KeyState::Active, 7)]);
}

/// A claim is open all the while: its commit comes after the record was sealed anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_stored_all_the_same() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let held = claimed(&store, "alice", Rotation::Strict).await;
    rotated(&store).await;
    store.commit(held.commit("alice-1")).await.unwrap();
    assert_eq!(claimed(&store, "alice", Rotation::Strict).await.refresh_token, "rt-alice-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_go_on_and_none_is_lost() {
    let rig = Rig::embedded();
    let (store, server) = (rig.open().await, rig.open().await);
    filled(&store, 200).await;
    let refreshing = rig.tasks.spawn(async move {
        for round in 1..=3 {
            for number in (0..200).step_by(7) {
                let name = format!("user{number}");
                let held = claimed(&server, &name, Rotation::Strict).await;
                let last = if round == 1 { "0".to_owned() } else { format!("{}", round - 1) };
                assert_eq!(held.refresh_token, format!("rt-{name}-{last}"));
                server.commit(held.commit(&format!("{name}-{round}"))).await.unwrap();
            }
        }
    });
    rotated(&store).await;
    refreshing.await.unwrap();
    for number in 0..200 {
        let name = format!("user{number}");
        let last = if number % 7 == 0 { 3 } else { 0 };
        assert_eq!(claimed(&store, &name, Rotation::Strict).await.refresh_token, format!("rt-{name}-{last}"));
    }
    assert!(seals(&store).await.iter().all(|(id, _, _)| *id == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sealed_before_every_process_has_the_key() {
    let rig = Rig::embedded();
    let (store, idle) = (rig.open().await, rig.open().await);
    signed_in(&store, "alice").await;
    let mut waited = 0;
    let count = |progress: Progress<'_>| waited += usize::from(matches!(progress, Progress::Waiting(_)));
    let error = store.rotate(Duration::from_millis(200), count).await.unwrap_err();
    assert!(matches!(&error, RotateError::Behind(behind) if behind.len() == 1), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert_eq!(waited, 2);
    assert_eq!(seals(&store).await, [(1, KeyState::Active, 2), (2, KeyState::Prepared, 0)]);
    signed_in(&store, "bob").await;
    assert_eq!(seals(&store).await[1].2, 0, "it only waits");
    // A server looks for changes all the time.
    idle.changes(0).await.unwrap();
    rotated(&store).await;
    assert_eq!(seals(&store).await, [(2, KeyState::Active, 4)]);
    assert_eq!(found(&idle, "bob").await.access[0].token.expose(), "at-bob-0");
    // It knew the ring of the first phase only, and writes with the right key.
    signed_in(&idle, "carol").await;
    assert_eq!(seals(&store).await, [(2, KeyState::Active, 6)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_does_not_open_keeps_its_key() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    filled(&store, 3).await;
    rig.sql().execute("UPDATE grants SET rt = (SELECT rt FROM grants WHERE id = 1) WHERE id = 2", []).unwrap();
    let error = store.rotate(PATIENCE, |_| ()).await.unwrap_err();
    assert!(matches!(&error, RotateError::Left { count: 1, .. }), "{error}");
    assert!(error.to_string().contains("user1"), "{error}");
    assert_eq!(seals(&store).await, [(1, KeyState::OpensOld, 1), (2, KeyState::Active, 5)]);
    store.remove(&key("user1")).await.unwrap();
    rotated(&store).await;
    assert_eq!(seals(&store).await, [(2, KeyState::Active, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_at_a_time_are_one_too_many() {
    let rig = Rig::embedded();
    let (one, other) = (rig.open().await, rig.open().await);
    let lock = fs::File::create(rig.path().join("rotate.lock")).unwrap();
    lock.lock().unwrap();
    let error = one.rotate(PATIENCE, |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("another process rotates"), "{error}");
    drop(lock);
    other.changes(0).await.unwrap();
    assert_eq!(seals(&one).await.len(), 1);
}

fn new_master(rig: &Rig) -> std::path::PathBuf {
    let path = rig.path().parent().unwrap().join("new.key");
    fs::write(&path, generate_key().unwrap().expose()).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_is_changed_in_two_steps() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    let (old, new) = (fs::read_to_string(rig.config().key_file).unwrap(), new_master(&rig));
    let with = |text: &str| bearerd::config::Store { key: Some(text.trim_end().into()), ..rig.config() };
    let new_text = fs::read_to_string(&new).unwrap();

    let first = store.rotate_master(&new).await.unwrap();
    assert!(matches!(&first, MasterRotated::Both { placed: Ok(()), .. }), "{first:?}");
    assert_eq!(fs::read_to_string(rig.config().key_file).unwrap().trim_end(), new_text.trim_end());
    for text in [&old, &new_text] {
        found(&rig.open_as(&with(text)).await.unwrap(), "alice").await;
    }
    let error = store.rotate(PATIENCE, |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("--master"), "one after the other: {error}");

    let second = store.rotate_master(&new).await.unwrap();
    assert!(matches!(second, MasterRotated::Done { .. }), "{second:?}");
    let (refused, why) = rig.refused(&with(&old)).await;
    assert!(refused == "store.key" && why.contains("not the key"), "{why}");
    found(&rig.open().await, "alice").await;
    assert_eq!(store.keys().await.unwrap().masters.len(), 1);
    // The running process goes on, and can change the data key by the new master key.
    rotated(&store).await;
    found(&rig.open().await, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_can_not_be_placed_is_told() {
    let rig = Rig::embedded();
    let text = BASE64_STANDARD.encode([7; 32]);
    let config = bearerd::config::Store { key: Some(text.as_str().into()), ..rig.config() };
    let store = rig.open_as(&config).await.unwrap();
    let new = new_master(&rig);
    let first = store.rotate_master(&new).await.unwrap();
    assert!(matches!(&first, MasterRotated::Both { placed: Err(why), .. } if why.contains("store.key")), "{first:?}");
    let error = store.rotate_master(&rig.path().join("nowhere")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Setup { key: "--master", why } if why.contains("nowhere")), "{error}");
    let again = store.rotate_master(&new).await.unwrap();
    assert_eq!(first, again);
    // Restarted with the new one.
    let config =
        bearerd::config::Store { key: Some(fs::read_to_string(&new).unwrap().as_str().into()), ..rig.config() };
    let store = rig.open_as(&config).await.unwrap();
    assert!(matches!(store.rotate_master(&new).await.unwrap(), MasterRotated::Done { .. }));
}

/// Who can't open the new ring goes on with the old one, and holds the rotation up instead of losing something.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_an_old_master_key_goes_on() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    let old = fs::read_to_string(rig.config().key_file).unwrap();
    let stale = bearerd::config::Store { key: Some(old.trim_end().into()), ..rig.config() };
    let stale = rig.open_as(&stale).await.unwrap();
    signed_in(&store, "alice").await;
    let new = new_master(&rig);
    for _ in 0..2 {
        store.rotate_master(&new).await.unwrap();
    }
    let error = store.rotate(Duration::from_millis(100), |_| ()).await.unwrap_err();
    assert!(matches!(error, RotateError::Behind(_)), "{error}");
    stale.changes(0).await.unwrap();
    let held = claimed(&stale, "alice", Rotation::Strict).await;
    stale.commit(held.commit("alice-1")).await.unwrap();
    let error = store.rotate(Duration::from_millis(100), |_| ()).await.unwrap_err();
    assert!(matches!(error, RotateError::Behind(_)), "{error}");
    drop(stale);
    rotated(&store).await;
    assert_eq!(claimed(&store, "alice", Rotation::Strict).await.refresh_token, "rt-alice-1");
}

/// The part of a child that is killed while it rotates.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_child_that_rotates() {
    let Ok(directory) = std::env::var(KILLED) else { return };
    let rig = Rig::at(directory.into());
    let store = rig.open().await;
    let new = rig.path().parent().unwrap().join("new.key");
    if new.exists() {
        store.rotate_master(&new).await.unwrap();
    } else {
        rotated(&store).await;
    }
}

fn child(rig: &Rig, point: &str) -> Option<i32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "rotation::in_the_child_that_rotates", "--nocapture"]).env(KILLED, rig.path());
    let done = command.env("BEARERD_FAULT_POINT", point).stdout(Stdio::null()).status().unwrap();
    std::os::unix::process::ExitStatusExt::signal(&done)
}

/// Killed at each point, also again and again after each slice: everything opens all the while, and the next run ends it.
#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_goes_on() {
    for (point, kills) in [("fp14", 1), ("fp15", 1), ("fp12", 2), ("fp13", 3)] {
        let rig = Rig::embedded();
        let store = rig.open().await;
        filled(&store, 150).await;
        drop(store);
        for _ in 0..kills {
            assert_eq!(child(&rig, point), Some(9), "{point}");
            let server = rig.open().await;
            for number in [0, 70, 149] {
                let name = format!("user{number}");
                assert_eq!(found(&server, &name).await.access[0].token.expose(), &format!("at-{name}-0"), "{point}");
            }
            assert!(server.keys().await.unwrap().is_rotating(), "{point}");
        }
        if point == "fp13" {
            // A sweep begins anew each time, and finds the slices before done: killed after the first it never gets further.
            let counts = rig.open().await.sealed_by().await.unwrap();
            assert_eq!((counts[&1], counts[&2]), (172, 128));
        }
        let server = rig.open().await;
        let held = claimed(&server, "user149", Rotation::Strict).await;
        server.changes(0).await.unwrap();
        drop(server);
        assert_eq!(child(&rig, "none"), None, "{point}");
        let server = rig.open().await;
        server.commit(held.commit("user149-1")).await.unwrap();
        assert_eq!(seals(&server).await.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [2], "{point}");
        let grant = found(&server, "user0").await;
        let claim = server.claim(&grant.key, grant.epoch, grant.version, LEASE, Rotation::Strict).await.unwrap();
        assert!(matches!(claim, Claim::Claimed { .. }), "{point}");
    }
}

#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_master_key_that_is_killed_leaves_a_key_that_opens() {
    for point in ["fp16", "fp17"] {
        let rig = Rig::embedded();
        signed_in(&rig.open().await, "alice").await;
        let old = fs::read_to_string(rig.config().key_file).unwrap();
        let new = fs::read_to_string(new_master(&rig)).unwrap();
        assert_eq!(child(&rig, point), Some(9), "{point}");
        let placed = fs::read_to_string(rig.config().key_file).unwrap();
        assert_eq!(placed.trim_end() == new.trim_end(), point == "fp17");
        for text in [&old, &new] {
            let config = bearerd::config::Store { key: Some(text.trim_end().into()), ..rig.config() };
            found(&rig.open_as(&config).await.unwrap(), "alice").await;
        }
        for _ in 0..2 {
            assert_eq!(child(&rig, "none"), None);
        }
        assert_eq!(rig.open().await.keys().await.unwrap().masters.len(), 1, "{point}");
    }
}

/// A store as it was made before keys could be changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_format_2_is_brought_up_to_date() {
    let rig = Rig::embedded();
    fs::create_dir_all(rig.path()).unwrap();
    for (name, text) in [
        ("store.db", include_bytes!("format2/store.db").as_slice()),
        ("store.key", include_bytes!("format2/store.key")),
    ] {
        fs::write(rig.path().join(name), text).unwrap();
        fs::set_permissions(rig.path().join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let wrong = bearerd::config::Store { key: Some(BASE64_STANDARD.encode([7; 32]).as_str().into()), ..rig.config() };
    let (refused, why) = rig.refused(&wrong).await;
    assert!(refused == "store.key" && why.contains("not the key"), "{why}");

    let store = rig.open().await;
    assert_eq!(found(&store, "alice").await.access[0].token.expose(), "at-alice-1");
    let ticket = store.read_ticket(TicketKind::Imported, "ticket").await.unwrap();
    assert_eq!(ticket.as_deref(), Some(b"for alice".as_slice()), "digests are what they were");
    rotated(&store).await;
    assert_eq!(claimed(&rig.open().await, "alice", Rotation::Strict).await.refresh_token, "rt-alice-1");
    assert_eq!(seals(&store).await, [(2, KeyState::Active, 4)]);
}
