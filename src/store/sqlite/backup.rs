//! A copy of the database while it is in use, and a database made from a copy.
//!
//! Invariants: a copy appears whole and proven to open, or not at all; a restored database appears under its name only after every grant
//! in it has begun a new life, so that nothing of the time after the backup can be taken for its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::record::Record;
use super::{Sqlite, audit, open, tickets};
use crate::audit::{Entry, Event, Record as AuditRecord};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Rotation};
use crate::store::backup::{Gone, Restored};
use crate::store::grant::TicketKind;
use crate::store::holders::{HolderId, Holders};
use crate::store::refresh;
use crate::store::seal::{KeyRing, NoRandom, Place};
use crate::store::{StoreError, key_file};

/// Nobody ever held this lock: whoever it names is dead.
const NOBODY: HolderId = HolderId(0);
/// Grants that are read at a time.
const SLICE: i64 = 1000;

impl Sqlite {
    pub fn backup(&self, file: &Path) -> Result<u64, StoreError> {
        let failed = |why: String| StoreError::Unavailable(format!("the backup {}: {why}", file.display()));
        if fs::symlink_metadata(file).is_ok() {
            return Err(failed("is there already, and is left as it is".to_owned()));
        }
        let draft = Draft::beside(file).map_err(|error| failed(error.to_string()))?;
        let copy = || -> Result<u64, StoreError> {
            let source = open::connect(&self.file)?;
            source.execute("VACUUM INTO ?1", [draft.0.to_string_lossy()])?;
            let copied = open::connect(&draft.0)?;
            open::check_key(&copied, &*self.ring(&copied)?)?;
            let sound: String = copied.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if sound != "ok" {
                return Err(StoreError::Unavailable(sound));
            }
            drop(copied);
            draft.become_file(file).map_err(|error| StoreError::Unavailable(error.to_string()))
        };
        copy().map_err(|error| failed(error.to_string()))
    }
}

/// Makes the store of `config` out of a backup. `gone`: what was ended since, as far as an export of the audit log tells.
pub fn restore(
    config: &config::Store,
    backup: &Path,
    rotations: &BTreeMap<String, Rotation>,
    gone: &[Gone],
    entry: Entry,
    clock: &Clock,
) -> Result<Restored, StoreError> {
    let unusable =
        |path: &Path, why: &str| StoreError::Setup { key: "store.path", why: format!("{}: {why}", path.display()) };
    let target = open::file_in(&config.path);
    for left in [target.clone(), target.with_extension("db-wal"), target.with_extension("db-shm")] {
        if left.exists() {
            return Err(unusable(&left, "a store is there; move it away first, so that nothing is lost"));
        }
    }
    // Before anything is made.
    let master = key_file::load(config, false)?;
    let made = open::make_directory(&config.path)?;
    let restored = (|| {
        let draft = Draft::beside(&target).map_err(|error| unusable(&target, &error.to_string()))?;
        fs::copy(backup, &draft.0).map_err(|error| unusable(backup, &error.to_string()))?;
        // Not the backup's own, whoever could read that.
        let private = fs::set_permissions(&draft.0, fs::Permissions::from_mode(0o600));
        private.map_err(|error| unusable(&target, &error.to_string()))?;
        let holders = config.path.join("holders");
        let held = Holders::register(holders.clone()).map_err(|error| unusable(&holders, &error.to_string()))?;
        if let Some(process) = held.others().map_err(|error| unusable(&holders, &error.to_string()))?.first() {
            return Err(unusable(
                &config.path,
                &format!("process {} still works on the store that was here", process.pid),
            ));
        }
        let mut connection = open::writer(&draft.0).map_err(|error| unusable(backup, &error.to_string()))?;
        let keys = open::keys(&mut connection, backup, &master, config)?;
        open::complete(&mut connection)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let restored =
            Restoring { transaction: &transaction, keys: &keys, rotations, now: clock.now() }.run(gone, entry)?;
        transaction.commit()?;
        let log: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if log != "wal" {
            return Err(unusable(&target, "SQLite can't keep a write-ahead log here"));
        }
        connection.close().map_err(|(_, error)| error)?;
        draft.become_file(&target).map_err(|error| unusable(&target, &error.to_string()))?;
        Ok(restored)
    })();
    if restored.is_err() && made {
        // As it was: only what is empty goes.
        let _ = fs::remove_dir(config.path.join("holders"));
        let _ = fs::remove_dir(&config.path);
    }
    restored
}

/// One restoration, inside its transaction.
struct Restoring<'a> {
    transaction: &'a Transaction<'a>,
    keys: &'a KeyRing,
    rotations: &'a BTreeMap<String, Rotation>,
    now: Timestamp,
}

impl Restoring<'_> {
    fn run(&self, gone: &[Gone], entry: Entry) -> Result<Restored, StoreError> {
        let known = audit::last_sequence(self.transaction)?;
        // What the backup knows has its effect in it.
        let since = |event| move |gone: &&Gone| gone.sequence > known && gone.event == event;
        let ids = |event| -> BTreeSet<&str> {
            gone.iter().filter(since(event)).map(|gone| gone.account_id.as_str()).collect()
        };
        let (revoked, removed) = (ids(Event::Revoke), ids(Event::Remove));
        let mut restored = Restored::default();
        let mut after = 0;
        while let Some(last) = self.last_of_slice(after)? {
            for mut record in Record::within(self.transaction, (after, last))? {
                if record.alias.is_none() {
                    continue;
                }
                let id = record.key().id();
                if removed.contains(id.as_str()) || revoked.contains(id.as_str()) {
                    record.end(self.transaction)?;
                    restored.ended += 1;
                    if removed.contains(id.as_str()) {
                        record.bury(self.transaction)?;
                    }
                } else if self.begin_life(&mut record)? {
                    restored.grants += 1;
                } else {
                    restored.unreadable += 1;
                }
            }
            after = last;
        }
        self.drop_tickets()?;
        let why = format!(
            "{}; {} grants, {} ended again",
            entry.why.clone().unwrap_or_default(),
            restored.grants,
            restored.ended
        );
        let mut records = [AuditRecord::new(entry.because(why), None, self.now)];
        audit::append(self.transaction, self.keys, &mut records)?;
        Ok(restored)
    }

    fn last_of_slice(&self, after: i64) -> rusqlite::Result<Option<i64>> {
        let last = "SELECT max(id) FROM (SELECT id FROM grants WHERE id > ?1 ORDER BY id LIMIT ?2)";
        self.transaction.prepare_cached(last)?.query_row([after, SLICE], |row| row.get(0))
    }

    /// False: it doesn't open, and stays as it is.
    fn begin_life(&self, record: &mut Record) -> Result<bool, StoreError> {
        let Ok(tokens) = record.sealed_tokens(self.transaction, self.keys) else { return Ok(false) };
        let before = record.row.clone();
        let rotation = self.rotations.get(&record.key().provider).copied().unwrap_or(Rotation::Strict);
        refresh::restore(&mut record.row, rotation, NOBODY, self.now);
        record.save(self.transaction, &before)?;
        record.put_tokens(self.transaction, self.keys, &tokens)?;
        Ok(true)
    }

    /// A link that was used since would work again. What was imported stays known.
    fn drop_tickets(&self) -> Result<(), StoreError> {
        let mut statement = self.transaction.prepare("SELECT rowid, digest, expires, payload FROM tickets")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (rowid, digest, expires): (i64, [u8; 32], Timestamp) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let detail = tickets::detail(&digest, expires);
            let place: Place<'_> = tickets::place(TicketKind::Imported, &detail);
            if self.keys.open(&place, &row.get::<_, Vec<u8>>(3)?).is_err() {
                self.transaction.execute("DELETE FROM tickets WHERE rowid = ?1", params![rowid])?;
            }
        }
        Ok(())
    }
}

/// A file that is being made. Whatever is left of it goes with this.
struct Draft(PathBuf);

impl Draft {
    fn beside(file: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(NoRandom::from(error)))?;
        let name = file.file_name().ok_or_else(|| io::Error::other("is no name of a file"))?;
        let draft = format!(".{}.{:016x}", name.to_string_lossy(), u64::from_be_bytes(random));
        let draft = file.with_file_name(draft);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        Ok(Self(draft))
    }

    /// Durable, under its name, unless something has that name. Its size.
    fn become_file(&self, file: &Path) -> io::Result<u64> {
        let draft = File::open(&self.0)?;
        draft.sync_all()?;
        fs::hard_link(&self.0, file)?;
        fs::remove_file(&self.0)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(draft.metadata()?.len())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for end in ["", "-journal", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(end);
            let _ = fs::remove_file(path);
        }
    }
}

/// The tokens of a record, opened.
pub(super) struct Tokens {
    refresh: Vec<(&'static str, zeroize::Zeroizing<Vec<u8>>)>,
    access: Vec<(String, zeroize::Zeroizing<Vec<u8>>)>,
}

impl Record {
    fn sealed_tokens(&self, connection: &Connection, keys: &KeyRing) -> Result<Tokens, StoreError> {
        let open = |place: &Place<'_>, blob: &[u8]| {
            keys.open(place, blob).map_err(|broken| self.corrupt(&format!("{}: {broken}", place.role)))
        };
        let mut refresh = Vec::new();
        for column in ["rt", "prev_rt"] {
            let read = format!("SELECT {column} FROM grants WHERE id = ?1");
            let blob: Option<Vec<u8>> = connection.prepare_cached(&read)?.query_row([self.id], |row| row.get(0))?;
            if let Some(blob) = blob {
                refresh.push((column, open(&self.refresh_place(), &blob)?));
            }
        }
        let mut statement = connection.prepare_cached("SELECT scope_set, token FROM access WHERE grant_id = ?1")?;
        let mut rows = statement.query([self.id])?;
        let mut access = Vec::new();
        while let Some(row) = rows.next()? {
            let scope_set: String = row.get(0)?;
            let token = open(&self.access_place(&scope_set), &row.get::<_, Vec<u8>>(1)?)?;
            access.push((scope_set, token));
        }
        Ok(Tokens { refresh, access })
    }

    fn put_tokens(&self, transaction: &Transaction<'_>, keys: &KeyRing, tokens: &Tokens) -> Result<(), StoreError> {
        for (column, token) in &tokens.refresh {
            let write = format!("UPDATE grants SET {column} = ?2 WHERE id = ?1");
            let blob = keys.seal(&self.refresh_place(), token)?;
            transaction.prepare_cached(&write)?.execute(params![self.id, blob])?;
        }
        for (scope_set, token) in &tokens.access {
            let write = "UPDATE access SET token = ?3 WHERE grant_id = ?1 AND scope_set = ?2";
            let blob = keys.seal(&self.access_place(scope_set), token)?;
            transaction.prepare_cached(write)?.execute(params![self.id, scope_set, blob])?;
        }
        Ok(())
    }
}
