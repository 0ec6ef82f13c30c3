//! Opening the embedded store: its files, its key, and each way in which they can be wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bearerd::store::generate_key;

use crate::rig::{Rig, found, signed_in};

/// A name, how to break the file, and what the message says.
type Case<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);

const GOOD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_everything_for_its_owner_only() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    assert_eq!((mode(rig.path()), mode(&rig.path().join("holders"))), (0o700, 0o700));
    for (path, mode, _) in rig.snapshot() {
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    let key = fs::read_to_string(rig.config().key_file).unwrap();
    assert_eq!(BASE64_STANDARD.decode(key.trim_end()).unwrap().len(), 32);
    assert_ne!(key.trim_end(), generate_key().unwrap().expose());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_first_starts_at_once_make_one_store() {
    let rig = Rig::embedded();
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let (config, clock, tasks) = (rig.config(), rig.clock.clone(), rig.tasks.clone());
            rig.tasks.spawn(async move { bearerd::store::Store::open(&config, clock, tasks).await })
        })
        .collect();
    let mut stores = Vec::new();
    for store in opening {
        stores.push(store.await.unwrap().unwrap());
    }
    signed_in(&stores[0], "alice").await;
    for store in &stores {
        assert_eq!(found(store, "alice").await.access[0].token.expose(), "at-alice-0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_will_not_do_is_named() {
    let cases: [Case<'_>; 9] = [
        ("world", &|path| write(path, GOOD, 0o644), "0644"),
        ("group", &|path| write(path, GOOD, 0o640), "0640"),
        ("short", &|path| write(path, "AAECAwQF", 0o600), "32 bytes"),
        ("long", &|path| write(path, BASE64_STANDARD.encode([1; 33]), 0o600), "32 bytes"),
        ("huge", &|path| write(path, "A".repeat(100_000), 0o600), "32 bytes"),
        ("garbage", &|path| write(path, [0xff, 0xfe, 0, 1], 0o600), "base64"),
        ("empty", &|path| write(path, "", 0o600), "32 bytes"),
        ("directory", &|path| fs::create_dir_all(path).unwrap(), "not a regular file"),
        (
            "dangling",
            &|path| {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(path.with_file_name("nowhere.key"), path).unwrap();
            },
            "No such file",
        ),
    ];
    for (name, prepare, expected) in cases {
        let rig = Rig::embedded();
        let config = rig.config();
        prepare(&config.key_file);
        let (key, why) = rig.refused(&config).await;
        assert_eq!(key, "store.key_file", "{name}");
        assert!(why.contains(expected) && why.contains(config.key_file.to_str().unwrap()), "{name}: {why}");
        assert!(!rig.path().join("store.db").exists(), "{name}");
    }
}

/// Kubernetes mounts secrets as `store.key -> ..data/store.key`, `..data -> ..2026_11_23`.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_may_be_a_link_of_ours_to_one_that_will_do() {
    for (mode, fits) in [(0o400, true), (0o644, false)] {
        let rig = Rig::embedded();
        let key_file = rig.config().key_file;
        let directory = key_file.parent().unwrap();
        write(&directory.join("..2026_11_23/store.key"), GOOD, mode);
        symlink("..2026_11_23", directory.join("..data")).unwrap();
        symlink("..data/store.key", &key_file).unwrap();
        if fits {
            signed_in(&rig.open().await, "alice").await;
        } else {
            assert!(rig.refused(&rig.config()).await.1.contains("0644"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_key_opens_nothing_and_changes_nothing() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    drop(store);
    let right = fs::read(rig.config().key_file).unwrap();

    write(&rig.config().key_file, GOOD, 0o600);
    let (key, why) = rig.refused(&rig.config()).await;
    assert!(key == "store.key_file" && why.contains("not the key") && why.contains("store.db"), "{why}");

    let by_environment = bearerd::config::Store { key: Some(GOOD.into()), ..rig.config() };
    assert_eq!(rig.refused(&by_environment).await.0, "store.key");

    fs::remove_file(rig.config().key_file).unwrap();
    let (key, why) = rig.refused(&rig.config()).await;
    assert!(key == "store.key_file" && why.contains("no such file"), "{why}");

    write(&rig.config().key_file, right, 0o400);
    assert_eq!(found(&rig.open().await, "alice").await.access[0].token.expose(), "at-alice-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_by_environment_needs_no_file() {
    let rig = Rig::embedded();
    let bad = bearerd::config::Store { key: Some("secret-but-short".into()), ..rig.config() };
    fs::create_dir_all(rig.path()).unwrap();
    let (key, why) = rig.refused(&bad).await;
    assert!(key == "store.key" && !why.contains("secret-but-short"), "{why}");

    let good = bearerd::config::Store { key: Some(GOOD.into()), ..rig.config() };
    signed_in(&rig.open_as(&good).await.unwrap(), "alice").await;
    assert!(!rig.config().key_file.exists());
    found(&rig.open_as(&good).await.unwrap(), "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_store_stays_as_it_is() {
    let cases: [Case<'_>; 3] = [
        ("text", &|path| write(path, "Dear diary, ".repeat(1_000), 0o600), "not a database"),
        (
            "foreign",
            &|path| {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE photos (id)").unwrap();
            },
            "not a store of bearerd",
        ),
        ("directory", &|path| fs::create_dir_all(path).unwrap(), "store.db"),
    ];
    for (name, prepare, expected) in cases {
        let rig = Rig::embedded();
        write(&rig.config().key_file, GOOD, 0o600);
        prepare(&rig.path().join("store.db"));
        let (key, why) = rig.refused(&rig.config()).await;
        assert_eq!(key, "store.path", "{name}");
        assert!(why.contains(expected) && why.contains("store.db"), "{name}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_named() {
    let rig = Rig::embedded();
    signed_in(&rig.open().await, "alice").await;
    let file = rig.path().join("store.db");
    let mut content = fs::read(&file).unwrap();
    content[100..4096].fill(0xaa);
    fs::write(&file, content).unwrap();
    let (key, why) = rig.refused(&rig.config()).await;
    assert!(key == "store.path" && why.contains("malformed") && why.contains("store.db"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_deleted_is_not_ready() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    store.ready().await.unwrap();
    fs::remove_dir_all(rig.path()).unwrap();
    let error = store.ready().await.unwrap_err().to_string();
    assert!(error.contains("store.db"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_left_alone() {
    let rig = Rig::embedded();
    drop(rig.open().await);
    rig.sql().pragma_update(None, "user_version", 99).unwrap();
    let (key, why) = rig.refused(&rig.config()).await;
    assert!(key == "store.path" && why.contains("format 99"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_can_be_no_directory_is_named() {
    let rig = Rig::embedded();
    fs::write(rig.path(), "a file").unwrap();
    let (key, why) = rig.refused(&rig.config()).await;
    assert!(key == "store.path" && why.contains(rig.path().to_str().unwrap()), "{why}");

    let nowhere = bearerd::config::Store { key_file: "/nonexistent/store.key".into(), ..Rig::embedded().config() };
    let (key, why) = Rig::embedded().refused(&nowhere).await;
    assert!(key == "store.key_file" && why.contains("/nonexistent/store.key"), "{why}");
}
