//! The store's keys, its backups and the record of who did what, by the binary, beside a running proxy.

use std::os::unix::fs::PermissionsExt;

use bearerd::account::Alias;
use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::vault::LeaseError;
use serde_json::Value;

use super::beside::{Beside, is};
use super::house::{Done, House, bearerd, start};

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.assert(0).out).expect("JSON")
}

fn lines(done: &Done) -> Vec<Value> {
    done.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_key_is_changed_beside_a_running_proxy() {
    let beside = Beside::start().await;
    beside.until("alice", is(200, None)).await;
    let plan = beside.run(&["keys", "rotate", "--dry-run"]).await;
    assert!(plan.assert(0).out.contains("data key 2 would be made"), "{}", plan.out);
    let before = json(&beside.run(&["keys", "status", "--format", "json"]).await);
    assert_eq!((&before["keys"][0]["id"], &before["rotating"]), (&1.into(), &false.into()));
    assert!(before["keys"][0]["seals"].as_u64().unwrap() > 0, "{before}");

    let rotated = beside.run(&["keys", "rotate"]).await;
    assert!(rotated.assert(0).out.contains("data key 2"), "{}", rotated.out);
    assert!(rotated.err.is_empty(), "no bar where nobody looks: {}", rotated.err);
    let after = json(&beside.run(&["keys", "status", "--format", "json"]).await);
    assert_eq!(after["keys"][0]["id"], 2);
    assert_eq!((&after["keys"][0]["state"], &after["keys"].as_array().unwrap().len()), (&"active".into(), &1));
    assert_eq!(after["keys"][0]["seals"], before["keys"][0]["seals"]);
    assert_eq!(after["master"]["ids"], before["master"]["ids"]);
    beside.until("alice", is(200, None)).await;
    // What the proxy stores from now on, others can read.
    beside.accounts(&["refresh", "alice"]).await.assert(0);
    beside.until("alice", is(200, None)).await;

    let table = beside.run(&["keys", "status"]).await;
    assert!(table.assert(0).out.contains("data key    2"), "{}", table.out);
    for secret in std::fs::read_to_string(beside.rig.store.path().join("store.key")).unwrap().lines() {
        assert!(![&plan, &rotated, &table].iter().any(|done| done.out.contains(secret)));
    }
    let records = lines(&beside.accounts(&["export-audit"]).await);
    let told: Vec<_> =
        records.iter().filter(|record| record["event"] == "keys_rotated").map(|record| &record["outcome"]).collect();
    assert_eq!(told, ["intended", "done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_is_changed_in_two_runs() {
    let house = House::new();
    house.import(&[house.row("alice")]).await.assert(0);
    let run = async |arguments: &[&str]| bearerd(house.path("").as_path(), arguments).await;
    run(&["keys", "generate", "new.key"]).await.assert(0);
    let first = run(&["keys", "rotate", "--master", "new.key"]).await;
    assert!(first.assert(0).out.contains("run this again"), "{}", first.out);
    let status = run(&["keys", "status"]).await;
    assert!(status.out.contains("two master keys"), "{}", status.out);
    let second = run(&["keys", "rotate", "--master", "new.key"]).await;
    assert!(second.assert(0).out.contains("alone opens the store"), "{}", second.out);
    assert_eq!(house.show("alice").await["status"], "active");
    let missing = run(&["keys", "rotate", "--master", "nowhere.key"]).await;
    assert!(missing.assert(1).err.contains("nowhere.key"), "{}", missing.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_store_none_is_made() {
    let house = House::new();
    for arguments in [&["keys", "rotate"][..], &["store", "backup", "backup.db"]] {
        let done = bearerd(house.path("").as_path(), arguments).await;
        assert!(done.assert(1).err.contains("there is no store in"), "{}", done.err);
        assert!(!house.path("data").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_back_without_what_was_revoked_since() {
    let house = House::new();
    let run = async |arguments: &[&str]| bearerd(house.path("").as_path(), arguments).await;
    house.import(&[house.row("alice"), house.row("bob")]).await.assert(0);
    run(&["store", "backup", "backup.db"]).await.assert(0);
    house.accounts(&["revoke", "bob"]).await.assert(0);
    let exported = house.accounts(&["export-audit"]).await;
    std::fs::write(house.path("audit.jsonl"), &exported.assert(0).out).unwrap();
    let there = run(&["store", "restore", "backup.db"]).await;
    assert!(there.assert(1).err.contains("move it away"), "{}", there.err);

    std::fs::rename(house.path("data"), house.path("old")).unwrap();
    let key = std::fs::read(house.path("store.key")).unwrap();
    std::fs::remove_file(house.path("store.key")).unwrap();
    run(&["keys", "generate", "store.key"]).await.assert(0);
    let wrong = run(&["store", "restore", "backup.db"]).await;
    assert!(wrong.assert(1).err.contains("store.key_file") && wrong.err.contains("not the key"), "{}", wrong.err);
    assert!(!house.path("data").exists(), "nothing was changed");
    std::fs::write(house.path("store.key"), key).unwrap();
    let restored = run(&["store", "restore", "backup.db", "--audit", "audit.jsonl"]).await;
    assert!(restored.assert(0).out.contains("1 grants are restored, 1 that were ended"), "{}", restored.out);
    assert_eq!(house.show("alice").await["status"], "active");
    assert_eq!(house.show("bob").await["status"], "revoked");
    house.accounts(&["refresh", "alice"]).await.assert(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_is_exported() {
    let house = House::new();
    house.import(&[house.row("alice"), house.row("bob")]).await.assert(0);
    house.accounts(&["revoke", "alice"]).await.assert(0);
    house.accounts(&["remove", "bob", "--yes"]).await.assert(0);
    bearerd(house.path("").as_path(), &["login", "--account", "alice", "--link"]).await.assert(0);
    let records = lines(house.accounts(&["export-audit"]).await.assert(0));
    let told: Vec<_> = records
        .iter()
        .map(|record| ["event", "who", "account", "outcome"].map(|name| record[name].as_str().unwrap_or("")))
        .collect();
    let cli = "operator:cli";
    let mut expected = Vec::new();
    for (event, account) in
        [("import", "alice"), ("import", "bob"), ("revoke", "alice"), ("remove", "bob"), ("link_made", "alice")]
    {
        expected.extend([[event, cli, account, "intended"], [event, cli, account, "done"]]);
    }
    assert_eq!(told, expected);
    assert_eq!(records[1]["account_id"], records[4]["account_id"]);
    assert!(records[4]["peer"].as_str().unwrap().starts_with("uid="), "{}", records[4]);

    let sheet = house.accounts(&["export-audit", "--format", "csv", "--account", "alice"]).await;
    assert_eq!(
        sheet.assert(0).out.lines().count(),
        4,
        "the intents of an import and a link know no id yet: {}",
        sheet.out
    );
    assert_eq!(lines(house.accounts(&["export-audit", "--until", "2020-01-01"]).await.assert(0)), Vec::<Value>::new());
    house.accounts(&["export-audit", "--since", "yesterday"]).await.assert(2);

    let sql = rusqlite::Connection::open(house.path("data/store.db")).unwrap();
    sql.execute("UPDATE audit SET account = 'carol' WHERE sequence = 5", []).unwrap();
    let changed = house.accounts(&["export-audit"]).await;
    assert!(changed.assert(1).err.contains("record 5 was changed"), "{}", changed.err);
    assert_eq!(changed.out.lines().count(), 10, "what is there is printed all the same");
}

/// Without a place for its record, an act of an operator is not done; what the proxy does for itself goes on.
#[tokio::test(flavor = "multi_thread")]
async fn no_record_no_act() {
    let beside = Beside::start().await;
    beside.until("alice", is(200, None)).await;
    let sql = rusqlite::Connection::open(beside.rig.store.path().join("data/store.db")).unwrap();
    sql.execute_batch("DROP TABLE audit").unwrap();
    for verb in [&["revoke", "alice"][..], &["remove", "alice", "--yes"], &["refresh", "alice"]] {
        let done = beside.accounts(verb).await;
        assert!(done.assert(1).err.contains("audit"), "{}", done.err);
    }
    beside.until("alice", is(200, None)).await;
    // A refresh that fails can't be recorded, and is a failed refresh like any other.
    let vault = &beside.rig.app.core().vault;
    beside.rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50076))));
    let alice = Alias::new("alice").unwrap();
    assert!(matches!(vault.refresh(&alice).await, Err(LeaseError::SigninRequired(_))));
    assert_eq!(vault.refresh(&alice).await.unwrap().state(), "active");
}

/// Root may write anywhere: then the binary runs as somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_named_and_left_as_it_is() {
    let house = House::new();
    house.import(&[house.row("alice")]).await.assert(0);
    let (data, nobody) = (house.path("data"), rustix::process::geteuid().is_root().then_some(65_534));
    for path in [house.path(""), house.path("store.key"), data.clone(), data.join("holders"), data.join("store.db")] {
        std::os::unix::fs::chown(path, nobody, None).unwrap();
    }
    let mode = |mode| std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
    let before = std::fs::read(data.join("store.db")).unwrap();
    mode(0o500);
    for arguments in [&["accounts", "list"][..], &["accounts", "revoke", "alice"], &["keys", "rotate"]] {
        let mut command = start(house.path("").as_path(), arguments);
        nobody.map(|uid| command.uid(uid));
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("store.path") && said.contains("data"), "{said}");
    }
    mode(0o700);
    assert_eq!(std::fs::read(data.join("store.db")).unwrap(), before);
    std::os::unix::fs::chown(house.path("store.key"), nobody.map(|_| 0), None).unwrap();
    house.accounts(&["list"]).await.assert(0);
}
