//! What the embedded store costs with many rows: by which index it reads, and how much it holds up.

use super::*;
use crate::account::Alias;
use crate::config;

fn plan(query: &str) -> Vec<String> {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(open::SCHEMA).unwrap();
    database.execute_batch(open::TALLIES).unwrap();
    let mut statement = database.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    let numbered = (1..=statement.parameter_count()).map(|_| 1);
    let lines = statement.query_map(rusqlite::params_from_iter(numbered), |row| row.get(3)).unwrap();
    lines.map(Result::unwrap).collect()
}

/// A hundred thousand rows are gigabytes: who looks for a few of them may not read them all.
#[test]
fn what_is_looked_for_is_found_by_an_index() {
    let idle = plan(&Record::idle_query());
    assert_eq!(idle[0], "SEARCH grants USING INDEX grants_by_use (provider=? AND <expr><?)");
    assert!(!idle.iter().any(|line| line.contains("TEMP B-TREE")), "{idle:#?}");
    for (erase, index) in [
        (FORGET_PREVIOUS, "grants_to_forget_previous"),
        (FORGET_DEAD, "grants_to_forget_dead"),
        (FORGET_TICKETS, "tickets_to_forget"),
    ] {
        let plan = plan(erase);
        assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
        assert!(!plan.iter().any(|line| line.starts_with("SCAN")), "{plan:#?}");
    }
    assert_eq!(plan(columns::COUNTS), ["SCAN tallies"]);
}

fn opened(directory: &std::path::Path, clock: &Clock) -> Sqlite {
    let (path, key_file) = (directory.join("store"), directory.join("store.key"));
    let config = config::Store { path, key_file, key: None };
    Sqlite::open(&config, clock.clone()).unwrap()
}

#[test]
fn a_sweep_holds_the_writer_for_a_slice_at_a_time() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Timestamp::from_secs(1_700_000_000)));
    let store = opened(directory.path(), &clock);
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
        INSERT INTO tickets SELECT randomblob(32), 0, x'' FROM n";
    store.step(|transaction| Ok(transaction.execute(fill, [])?)).unwrap();
    let left = || {
        let count = "SELECT count(*) FROM tickets";
        store.read(|connection| Ok(connection.query_row(count, [], |row| row.get::<_, i64>(0))?)).unwrap()
    };
    let swept: Vec<_> = (0..3).map(|_| (store.sweep(Duration::MAX).unwrap(), left())).collect();
    assert_eq!(swept, [(true, 700), (true, 200), (false, 0)]);
}

fn sign_in(store: &Sqlite, name: &str) -> AccountKey {
    let key = AccountKey { provider: "entra".into(), tenant: "t".into(), subject: name.into() };
    let sign_in = SignIn {
        key: key.clone(),
        alias: Alias::new(name).unwrap(),
        refresh_token: "r".into(),
        access: None,
        scopes: Vec::new(),
        username: None,
    };
    store.sign_in(&sign_in).unwrap();
    key
}

#[test]
fn tallies_follow_and_an_older_store_is_given_them() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Timestamp::from_secs(1_700_000_000)));
    let store = opened(directory.path(), &clock);
    let keys: Vec<_> = ["alice", "bob", "carol"].iter().map(|name| sign_in(&store, name)).collect();
    let counts = |store: &Sqlite| {
        let counts = store.counts().unwrap();
        counts.into_iter().map(|(_, state, count)| (state, count)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&store), [("active", 3)]);
    store.revoke(&keys[0]).unwrap();
    store.remove(&keys[1]).unwrap();
    assert_eq!(counts(&store), [("active", 1), ("revoked", 1)]);
    sign_in(&store, "alice");
    assert_eq!(counts(&store), [("active", 2), ("revoked", 0)], "a state that nobody is in any more says so");
    let older = "DROP TRIGGER grants_tallied; DROP TABLE tallies;
        CREATE INDEX grants_by_state ON grants (provider, state) WHERE alias IS NOT NULL";
    store.step(|transaction| Ok(transaction.execute_batch(older)?)).unwrap();
    drop(store);

    let store = opened(directory.path(), &clock);
    assert_eq!(counts(&store), [("active", 2)]);
    store.revoke(&keys[2]).unwrap();
    assert_eq!(counts(&store), [("active", 1), ("revoked", 1)]);
}
