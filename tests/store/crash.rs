//! What happens to processes: a child of this test opens the same store and is killed, or finds the disk full.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bearerd::audit::{Entry, Event, Who};
use bearerd::config::Rotation;
use bearerd::store::{Claim, StoreError};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::rig::{Rig, claim, claimed, found, key, sign_in, signed_in};

const DIRECTORY: &str = "BEARERD_TEST_STORE";
const FULL_DISK: &str = "BEARERD_TEST_FULL_DISK";

/// The child's part; without its parent there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let rig = Rig::at(directory.into());
    let store = rig.open().await;
    let held = claimed(&store, "bob", Rotation::Strict).await;
    store.commit(held.commit("bob-1")).await.unwrap();
    claimed(&store, "alice", Rotation::Strict).await;
    println!("\nchild: ready");
    std::io::stdin().lines().next();
}

/// The part of a child whose files can't grow any more at times.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_child_with_a_full_disk() {
    let Ok(directory) = std::env::var(FULL_DISK) else { return };
    let full = |full: bool| {
        let current = if full { Some(200) } else { None };
        setrlimit(Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    let rig = Rig::at(directory.into());
    full(true);
    let Err(StoreError::Setup { key: setting, why }) = rig.open_as(&rig.config()).await else { panic!() };
    assert!(setting == "store.path" && why.contains("store.db"), "{why}");
    full(false);
    let store = rig.open().await;
    signed_in(&store, "alice").await;
    full(true);
    let error = store.sign_in(sign_in("bob")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("store.db")), "{error:?}");
    found(&store, "alice").await;
    let backup = store.backup(&rig.path().join("backup.db")).await.unwrap_err().to_string();
    assert!(backup.contains("backup.db"), "{backup}");
    let entry = Entry::new(Event::Revoke, Who::Cli).of("alice", &key("alice"));
    let act = store.audited(entry, |entry, _| entry, store.revoke(&key("alice"))).await.unwrap_err();
    assert!(matches!(act, StoreError::Unavailable(_)), "what can't be recorded is not done: {act:?}");
    let rotation = store.rotate(Duration::from_secs(1), |_| ()).await.unwrap_err().to_string();
    assert!(rotation.contains("store.db"), "{rotation}");
    assert_eq!(found(&store, "alice").await.epoch, 1, "what is there can be read all the while");
    full(false);
    assert!(!rig.path().join("backup.db").exists(), "a part of a backup is none");
    store.rotate(Duration::from_secs(1), |_| ()).await.unwrap();
    assert!(store.find("bob").await.unwrap().is_none());
    signed_in(&store, "bob").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_breaks_nothing() {
    let rig = Rig::embedded();
    // Ignored signals are inherited: a write past the limit fails instead of ending the process.
    let script = r#"trap "" XFSZ; exec "$0" --exact crash::in_the_child_with_a_full_disk --nocapture 2>&1"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(FULL_DISK, rig.path());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(rig.open().await.list(None, 10).await.unwrap().len(), 2);
}

fn child(rig: &Rig) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::in_the_child", "--nocapture"]).env(DIRECTORY, rig.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn wait_until_ready(child: &mut Child) {
    let output = BufReader::new(child.stdout.as_mut().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "child: ready"), "the child ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_keeps_what_it_committed_and_leaves_a_last_resort() {
    let rig = Rig::embedded();
    let store = rig.open().await;
    for name in ["alice", "bob"] {
        signed_in(&store, name).await;
    }
    let mut child = child(&rig).spawn().unwrap();
    wait_until_ready(&mut child);
    assert!(matches!(claim(&store, "alice", Rotation::Strict).await, Claim::Busy { .. }), "it lives");
    child.kill().unwrap();
    child.wait().unwrap();

    let held = claimed(&store, "alice", Rotation::Strict).await;
    assert!(held.last_resort && held.fence == 2 && held.refresh_token == "rt-alice-0");
    assert_eq!(found(&store, "bob").await.access[0].token.expose(), "at-bob-1");
    assert_eq!(claimed(&store, "bob", Rotation::Strict).await.refresh_token, "rt-bob-1");
}

#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_point_kills_where_it_stands() {
    for (point, committed) in [("fp01", false), ("fp02", false), ("fp08", true)] {
        let rig = Rig::embedded();
        let store = rig.open().await;
        for name in ["alice", "bob"] {
            signed_in(&store, name).await;
        }
        let marker = rig.path().join("marker");
        let wanted = format!("{point}:once:{}", marker.display());
        let killed = child(&rig).env("BEARERD_FAULT_POINT", &wanted).output().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{point}");
        let grant = found(&store, "bob").await;
        assert_eq!((grant.version == 2, grant.intent), (committed, point == "fp02"), "{point}");

        let mut survivor = child(&rig).env("BEARERD_FAULT_POINT", &wanted).spawn().unwrap();
        wait_until_ready(&mut survivor);
        survivor.kill().unwrap();
        survivor.wait().unwrap();
    }
}
