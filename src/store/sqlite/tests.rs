//! What the embedded store costs with many rows: by which index it reads, and how much it holds up.

use super::*;
use crate::account::Alias;
use crate::config;

fn plan(query: &str) -> Vec<String> {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(open::SCHEMA).unwrap();
    database.execute_batch(open::TALLIES).unwrap();
    database.execute_batch(open::ACCOUNTS).unwrap();
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
    let by_alias = "SEARCH grants USING INDEX sqlite_autoindex_grants_1 (alias>? AND alias<?)";
    for (state, by_index, last) in [
        (None, by_alias, "SEARCH grants USING COVERING INDEX sqlite_autoindex_grants_1 (alias>?)"),
        (
            Some("reauth"),
            "SEARCH grants USING INDEX grants_not_active (state=? AND alias>? AND alias<?)",
            "SEARCH grants USING INDEX grants_not_active (state=? AND alias>?)",
        ),
    ] {
        let wanted = Wanted { state, ..Wanted::default() };
        let page = plan(&listing::page_query(&wanted));
        assert_eq!((page[0].as_str(), plan(&listing::last_query(&wanted))), (by_index, vec![last.to_owned()]));
        assert!(!page.iter().any(|line| line.contains("TEMP B-TREE")), "{page:#?}");
    }
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
    let swept: Vec<_> = (0..3).map(|_| (store.sweep().unwrap(), left())).collect();
    assert_eq!(swept, [(true, 700), (true, 200), (false, 0)]);
}

fn sign_in(store: &Sqlite, name: &str) -> AccountKey {
    sign_in_at(store, "entra", name)
}

fn sign_in_at(store: &Sqlite, provider: &str, name: &str) -> AccountKey {
    let key = AccountKey { provider: provider.into(), tenant: "t".into(), subject: name.into() };
    let sign_in = SignIn {
        key: key.clone(),
        alias: Alias::new(name).unwrap(),
        refresh_token: "r".into(),
        access: None,
        scopes: Vec::new(),
        username: Some(format!("{name} Example")),
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
        DROP INDEX grants_by_account_id; DROP INDEX grants_not_active; ALTER TABLE grants DROP COLUMN account_id;
        CREATE INDEX grants_by_state ON grants (provider, state) WHERE alias IS NOT NULL";
    store.step(|transaction| Ok(transaction.execute_batch(older)?)).unwrap();
    drop(store);

    let store = opened(directory.path(), &clock);
    assert_eq!(counts(&store), [("active", 2)]);
    assert_eq!(store.by_id(&keys[0].id()).unwrap().unwrap().key, keys[0]);
    assert!(store.by_id(&keys[1].id()).unwrap().is_none(), "it was removed");
    store.revoke(&keys[2]).unwrap();
    assert_eq!(counts(&store), [("active", 1), ("revoked", 1)]);
}

/// The aliases of every page until the last, and how many pages that took.
fn pages(store: &Sqlite, wanted: &Wanted) -> (Vec<String>, usize) {
    let (mut wanted, mut aliases) = (wanted.clone(), Vec::new());
    for count in 1.. {
        let Listed { grants, next } = store.page(&wanted).unwrap();
        aliases.extend(grants.into_iter().map(|grant| grant.alias.to_string()));
        let Some(next) = next else { return (aliases, count) };
        wanted.after = Some(next);
    }
    unreachable!("there is a last page")
}

#[test]
fn pages_hold_what_is_wanted_and_end() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Timestamp::from_secs(1_700_000_000)));
    let store = opened(directory.path(), &clock);
    let names = ["Alice", "bob", "carol", "dave", "erin@example.com"];
    let keys: Vec<_> = names.iter().map(|name| sign_in(&store, name)).collect();
    sign_in_at(&store, "other", "frank");
    store.revoke(&keys[1]).unwrap();
    store.revoke(&keys[3]).unwrap();
    sign_in(&store, "gone");
    store.remove(&AccountKey { subject: "gone".into(), ..keys[0].clone() }).unwrap();
    let all = Wanted { limit: 2, ..Wanted::default() };
    let searched = |text: &str| Wanted { search: Some(text.into()), ..all.clone() };
    for (wanted, aliases, count) in [
        (all.clone(), &["Alice", "bob", "carol", "dave", "erin@example.com", "frank"][..], 4),
        (Wanted { limit: 7, ..all.clone() }, &["Alice", "bob", "carol", "dave", "erin@example.com", "frank"], 1),
        (Wanted { state: Some("revoked"), ..all.clone() }, &["bob", "dave"], 2),
        (Wanted { state: Some("active"), ..all.clone() }, &["Alice", "carol", "erin@example.com", "frank"], 3),
        (Wanted { state: Some("reauth"), ..all.clone() }, &[], 1),
        (Wanted { provider: Some("other".into()), ..all.clone() }, &["frank"], 1),
        (Wanted { state: Some("revoked"), ..searched("AV") }, &["dave"], 1),
        (searched("ALICE"), &["Alice"], 1),
        (searched("x"), &["Alice", "bob", "carol", "dave", "erin@example.com", "frank"], 4),
        (searched("l e"), &["carol"], 1),
        (searched("%"), &[], 1),
    ] {
        assert_eq!(pages(&store, &wanted), (aliases.iter().map(ToString::to_string).collect(), count), "{wanted:?}");
    }
}

#[test]
fn a_page_looks_at_so_many_accounts_and_goes_on_later() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Timestamp::from_secs(1_700_000_000)));
    let store = opened(directory.path(), &clock);
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 45000)
        INSERT INTO grants (provider, tenant, subject, alias, status, created_at, signed_in_at)
        SELECT 'entra', 't', i, printf('user%05d', i), iif(i % 2, 'active', 'revoked'), 0, 0 FROM n";
    store.step(|transaction| Ok(transaction.execute(fill, [])?)).unwrap();
    let all = Wanted { limit: 100, ..Wanted::default() };
    let none = Wanted { search: Some("nobody".into()), ..all.clone() };
    let first = store.page(&none).unwrap();
    assert_eq!((first.grants.len(), first.next.as_deref()), (0, Some("user20000")));
    assert_eq!(pages(&store, &none), (Vec::new(), 3));
    assert_eq!(pages(&store, &Wanted { state: Some("revoked"), ..none }), (Vec::new(), 2));
    let last = Wanted { search: Some("45000".into()), ..all };
    assert_eq!(pages(&store, &last), (vec!["user45000".to_owned()], 3));
}

#[test]
fn what_does_not_read_is_left_out_and_ends_no_list() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Timestamp::from_secs(1_700_000_000)));
    let store = opened(directory.path(), &clock);
    for name in ["alice", "bob", "carol", "dave"] {
        sign_in(&store, name);
    }
    let damage = "UPDATE grants SET parked = 'no JSON' WHERE alias = 'bob'";
    store.step(|transaction| Ok(transaction.execute(damage, [])?)).unwrap();
    let (aliases, _) = pages(&store, &Wanted { limit: 2, ..Wanted::default() });
    assert_eq!(aliases, ["alice", "carol", "dave"]);
}
