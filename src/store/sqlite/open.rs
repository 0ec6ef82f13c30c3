//! Opening the database: the directory, the file, the schema and the keys, each with a message that names what is wrong with it.
//!
//! Invariants: whatever is refused is left as it was; a database appears whole, with its keys, or not at all.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::ring::{self, RingError};
use super::{Sqlite, columns};
use crate::account::AccountKey;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::store::StoreError;
use crate::store::holders::{self, HolderId, Holders};
use crate::store::key_file::{self, MasterKey};
use crate::store::seal::{Broken, KeyRing, NoRandom, Place};

pub(super) const SCHEMA: &str = include_str!("schema.sql");
pub(super) const TALLIES: &str = include_str!("tallies.sql");
pub(super) const ACCOUNTS: &str = include_str!("accounts.sql");
pub(super) const AUDIT: &str = include_str!("audit.sql");
const KEYS: &str = include_str!("keys.sql");
const SCHEMA_VERSION: i64 = 3;
/// Before keys could be changed and who did what was kept.
const OLDER_VERSION: i64 = 2;
/// Marks the file as ours: "BRRD".
const APPLICATION_ID: i64 = 0x4252_5244;
/// How long a step waits for another process's step.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CACHE_KIBIBYTES: i64 = 2048;
/// The write-ahead log shrinks to this after a burst.
const LOG_BYTES: i64 = 4 * 1024 * 1024;
const STATEMENTS: usize = 32;

const CHECK: Place<'_> = Place { table: "key_check", role: "check", owner: None, epoch: 0, detail: &[] };
const CHECK_TEXT: &[u8] = b"bearerd";

impl Sqlite {
    pub fn open(config: &config::Store, clock: Clock) -> Result<Self, StoreError> {
        let directory = &config.path;
        make_directory(directory)?;
        let file = file_in(directory);
        // Asked before the key: who finds a database has to find its key too.
        let first_start = match fs::metadata(&file) {
            Ok(metadata) => metadata.len() == 0,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(unusable(&file, error)),
        };
        let master = key_file::load(config, first_start)?;
        if first_start {
            create(directory, &file, &master, clock.now())?;
        }
        let mut writer = writer(&file).map_err(|error| unusable(&file, error))?;
        let keys = keys(&mut writer, &file, &master, config)?;
        complete(&mut writer).map_err(|error| unusable(&file, error))?;
        let holders = holders_in(directory);
        let holders = Holders::register(holders.clone()).map_err(|error| unusable(&holders, error))?;
        holders.knows(keys.generation());
        Ok(Self {
            file,
            config: config.clone(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            keys: RwLock::new(Arc::new(keys)),
            unreadable: AtomicU64::new(0),
            holders,
            clock,
        })
    }
}

/// True: there was none.
pub(super) fn make_directory(directory: &Path) -> Result<bool, StoreError> {
    let is_new = !directory.exists();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map(|()| is_new).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => unusable(directory, "is a file; a directory is needed"),
        _ => unusable(directory, error),
    })
}

/// Whether a database is there.
pub fn exists(config: &config::Store) -> bool {
    fs::metadata(file_in(&config.path)).is_ok_and(|metadata| metadata.len() > 0)
}

/// The living processes that have opened the database at this place, and where their admin listeners are.
pub fn servers(config: &config::Store) -> Vec<(HolderId, config::Listen)> {
    holders::servers(&holders_in(&config.path))
}

fn holders_in(directory: &Path) -> PathBuf {
    directory.join("holders")
}

pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join("store.db")
}

/// A connection that reads.
pub fn reader(file: &Path) -> Result<Connection, StoreError> {
    let connection = connect(file)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// The keys that are in the database are the ones that we have.
pub fn check_key(connection: &Connection, keys: &KeyRing) -> Result<(), StoreError> {
    let sealed: Vec<u8> = connection.prepare_cached("SELECT sealed FROM key_check")?.query_row([], |row| row.get(0))?;
    let broken = |why: String| StoreError::Corrupt { record: "key check".to_owned(), why };
    let opened = keys.open(&CHECK, &sealed).map_err(|error| broken(error.to_string()))?;
    if opened.as_slice() == CHECK_TEXT { Ok(()) } else { Err(broken("it says something else".to_owned())) }
}

/// What `check_key` expects to find, sealed by the key that seals.
pub(super) fn check(keys: &KeyRing) -> Result<Vec<u8>, NoRandom> {
    keys.seal(&CHECK, CHECK_TEXT)
}

fn unusable(path: &Path, error: impl Display) -> StoreError {
    StoreError::Setup { key: "store.path", why: format!("{}: {error}", path.display()) }
}

/// Makes the database, unless another process is faster.
fn create(directory: &Path, file: &Path, master: &MasterKey, now: Timestamp) -> Result<(), StoreError> {
    let lock = directory.join("create.lock");
    let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).to_owned();
    let create = || -> Result<(), Box<dyn std::error::Error>> {
        // Turning on the write-ahead log is the one thing that two processes can't do at a time.
        let held = options.open(&lock)?;
        held.lock()?;
        options.open(file)?.sync_all()?;
        let mut connection = connect(file)?;
        let log: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if log != "wal" {
            return Err(format!("SQLite can't keep a write-ahead log here (journal_mode is {log})").into());
        }
        durable(&connection)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            let keys = KeyRing::generate()?;
            for part in [SCHEMA, KEYS, AUDIT, TALLIES, ACCOUNTS] {
                transaction.execute_batch(part)?;
            }
            ring::insert(&transaction, &keys, master, now)?;
            transaction.execute("INSERT INTO key_check VALUES (1, ?1)", [check(&keys)?])?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
        }
        File::open(directory)?.sync_all()?;
        Ok(())
    };
    create().map_err(|error| unusable(file, error))
}

pub(super) fn writer(file: &Path) -> Result<Connection, Box<dyn std::error::Error>> {
    let connection = connect(file)?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID {
        return Err("this is not a store of bearerd".into());
    }
    if ![OLDER_VERSION, SCHEMA_VERSION].contains(&version) {
        return Err(format!("it has format {version}; this program knows format {SCHEMA_VERSION} only").into());
    }
    durable(&connection)?;
    Ok(connection)
}

/// Gives a store what it was made without.
pub(super) fn complete(connection: &mut Connection) -> rusqlite::Result<()> {
    tally(connection)?;
    name_accounts(connection)
}

fn tally(connection: &mut Connection) -> rusqlite::Result<()> {
    if connection.table_exists(None, "tallies")? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    if !transaction.table_exists(None, "tallies")? {
        transaction.execute_batch(TALLIES)?;
    }
    transaction.commit()
}

/// Also after an older program, which names nobody.
fn name_accounts(connection: &mut Connection) -> rusqlite::Result<()> {
    if !connection.table_exists(None, "grants")? {
        // Whoever needs it says so.
        return Ok(());
    }
    let all_named = "SELECT NOT EXISTS (SELECT 1 FROM grants WHERE account_id IS NULL)";
    if connection.column_exists(None, "grants", "account_id")?
        && connection.query_row(all_named, [], |row| row.get(0))?
    {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !transaction.column_exists(None, "grants", "account_id")? {
        transaction.execute_batch(ACCOUNTS)?;
    }
    let nameless = "SELECT id, provider, tenant, subject FROM grants WHERE account_id IS NULL";
    let nameless: Vec<(i64, AccountKey)> = transaction
        .prepare(nameless)?
        .query_map([], |row| Ok((row.get("id")?, columns::key(row)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut name = transaction.prepare("UPDATE grants SET account_id = ?2 WHERE id = ?1")?;
    for (id, key) in nameless {
        name.execute(params![id, key.id()])?;
    }
    drop(name);
    transaction.commit()
}

pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// A commit that returned is on disk, and what was erased is overwritten.
fn durable(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)
}

/// The ring, opened. Only who has its key may bring a store of an older format up to date.
pub(super) fn keys(
    connection: &mut Connection,
    file: &Path,
    master: &MasterKey,
    config: &config::Store,
) -> Result<KeyRing, StoreError> {
    let failed = |error: RingError| match error {
        RingError::Broken(Broken::Commitment) => wrong_key(config, file),
        other => unusable(file, format!("its key ring: {other}")),
    };
    if is_older(connection).map_err(|error| unusable(file, error))? {
        let keys = ring::read_format_2(connection, master).map_err(failed)?;
        check_key(connection, &keys).map_err(|error| unusable(file, error))?;
        upgrade(connection, &keys, master).map_err(|error| unusable(file, error))?;
    }
    let keys = ring::read(connection, master).map_err(failed)?;
    check_key(connection, &keys).map_err(|error| unusable(file, error))?;
    Ok(keys)
}

fn is_older(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? == OLDER_VERSION)
}

fn upgrade(connection: &mut Connection, keys: &KeyRing, master: &MasterKey) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    if is_older(&transaction)? {
        transaction.execute_batch("ALTER TABLE keyring RENAME TO keyring_2")?;
        transaction.execute_batch(KEYS)?;
        transaction.execute_batch(AUDIT)?;
        let made = transaction.query_row("SELECT min(created_at) FROM keyring_2", [], |row| row.get(0))?;
        ring::insert(&transaction, keys, master, made)?;
        let dates = "UPDATE keyring SET created_at = (SELECT created_at FROM keyring_2 WHERE key_id = keyring.key_id) WHERE key_id > 0";
        transaction.execute(dates, [])?;
        transaction.execute_batch("DROP TABLE keyring_2")?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    Ok(transaction.commit()?)
}

fn wrong_key(config: &config::Store, file: &Path) -> StoreError {
    let (key, source) = match config.key {
        Some(_) => ("store.key", "this key".to_owned()),
        None => ("store.key_file", config.key_file.display().to_string()),
    };
    StoreError::Setup { key, why: format!("{source}: not the key that {} was made with", file.display()) }
}
