//! The steps of a change of keys. Each is one transaction; whatever comes between two of them, the store opens and serves.
//!
//! Invariants: a key seals only after it is durable in the ring; it leaves the ring only when nothing that it sealed is left; a master
//! key loses the store only after another one was proven to open it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, Transaction, params};

use super::columns::Counter;
use super::{Sqlite, open, ring};
use crate::clock::Timestamp;
use crate::fault;
use crate::store::StoreError;
use crate::store::holders::Process;
use crate::store::key_file::{self, MasterKey};
use crate::store::keys::{KeyReport, KeyState, KeyStatus, MasterRotated};
use crate::store::seal::{KeyRing, master_id};

/// How far a rotation has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// None is under way: one key, and it seals.
    Idle,
    /// A new key is in the ring; nothing is sealed by it yet.
    Prepared(u32),
    /// The new key seals; these still open what they sealed.
    Active(Vec<u32>),
}

impl Sqlite {
    pub fn key_report(&self) -> Result<KeyReport, StoreError> {
        self.read(|connection| {
            let active = self.ring(connection)?.active();
            let keys = keys(connection)?.into_iter().map(|(id, made_at)| {
                let state = match id.cmp(&active) {
                    std::cmp::Ordering::Less => KeyState::OpensOld,
                    std::cmp::Ordering::Equal => KeyState::Active,
                    std::cmp::Ordering::Greater => KeyState::Prepared,
                };
                KeyStatus { id, made_at, state }
            });
            Ok(KeyReport { keys: keys.collect(), masters: masters(connection)? })
        })
    }

    pub fn phase(&self) -> Result<Phase, StoreError> {
        self.read(|connection| phase(connection, &*self.ring(connection)?))
    }

    /// Nobody else rotates as long as the file is open.
    pub fn lock_rotation(&self) -> Result<File, StoreError> {
        let path = self.config.path.join("rotate.lock");
        let busy = |why: String| self.named(Err(StoreError::Unavailable(why)));
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        match lock.map(|lock| (lock.try_lock(), lock)) {
            Ok((Ok(()), lock)) => Ok(lock),
            Ok((Err(TryLockError::WouldBlock), _)) => busy("another process rotates its keys".to_owned()),
            Ok((Err(TryLockError::Error(error)), _)) | Err(error) => busy(error.to_string()),
        }
    }

    /// Phase one: a new key in the ring, that seals nothing.
    pub fn add_key(&self) -> Result<(), StoreError> {
        let master = key_file::load(&self.config, false)?;
        self.step(|transaction| {
            if phase(transaction, &*self.ring(transaction)?)? != Phase::Idle {
                return Ok(());
            }
            if masters(transaction)?.len() > 1 {
                let why = "the master key is being changed: finish that first, by keys rotate --master";
                return Err(StoreError::Setup { key: "store.key_file", why: why.to_owned() });
            }
            let newest: u32 = transaction.query_row("SELECT max(key_id) FROM keyring", [], |row| row.get(0))?;
            let key = KeyRing::further(&master, newest + 1)?;
            ring::put(transaction, &key, &master_id(&master), self.clock.now())?;
            let active = self.known_ring().active();
            change(transaction, active)
        })?;
        fault::point("fp14");
        Ok(())
    }

    pub fn processes(&self) -> Result<Vec<Process>, StoreError> {
        self.holders.others().map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// The processes that have not opened the ring as it is now.
    pub fn behind(&self) -> Result<Vec<Process>, StoreError> {
        let generation = self.read(|connection| Ok(self.ring(connection)?.generation()))?;
        Ok(self.processes()?.into_iter().filter(|process| process.generation < generation).collect())
    }

    /// Phase two: the new key seals.
    pub fn activate(&self, id: u32) -> Result<(), StoreError> {
        self.step(|transaction| {
            let keys = self.ring(transaction)?;
            if phase(transaction, &keys)? != Phase::Prepared(id) {
                return Ok(());
            }
            // Proven once more, in the transaction that relies on it.
            if !keys.has(id) {
                return Err(StoreError::Unavailable(format!("key {id} of the ring can't be opened")));
            }
            let check = open::check(&keys.sealing_with(id))?;
            transaction.execute("UPDATE key_check SET sealed = ?1", [check])?;
            change(transaction, id)
        })?;
        fault::point("fp15");
        Ok(())
    }

    /// Phase three, after all that they sealed is sealed anew: the old keys are erased.
    pub fn retire(&self) -> Result<(), StoreError> {
        self.step(|transaction| {
            let active = self.ring(transaction)?.active();
            transaction.execute("DELETE FROM keyring WHERE key_id > 0 AND key_id < ?1", [active])?;
            change(transaction, active)
        })?;
        self.empty_log();
        Ok(())
    }

    /// From the master key of the configuration to the one in `file`: called once, both open the store, and the new one is in its place
    /// where that is a file; called again, when the configuration has the new one, it alone opens the store.
    pub fn rotate_master(&self, file: &Path) -> Result<MasterRotated, StoreError> {
        let new = key_file::read_named(file, "--master")?;
        let id = master_id(&new);
        if id == master_id(&key_file::load(&self.config, false)?) {
            self.keep_master(&new)?;
            return Ok(MasterRotated::Done { id });
        }
        self.add_master(&new)?;
        fault::point("fp16");
        let placed = match &self.config.key {
            Some(_) => Err("store.key is not in a file".to_owned()),
            None => key_file::replace(&self.config.key_file, &new)
                .map_err(|error| format!("{}: {error}", self.config.key_file.display())),
        };
        fault::point("fp17");
        Ok(MasterRotated::Both { id, placed })
    }

    fn add_master(&self, new: &MasterKey) -> Result<(), StoreError> {
        self.step(|transaction| {
            let master = master_id(new);
            transaction.execute("DELETE FROM keyring WHERE master = ?1", [&master])?;
            let made = keys(transaction)?;
            for wrapped in self.ring(transaction)?.wrapped(new)? {
                let made = made.iter().find(|(id, _)| *id == wrapped.0).or(made.first()).map(|(_, made)| *made);
                ring::put(transaction, &wrapped, &master, made.unwrap_or_default())?;
            }
            Ok(())
        })
    }

    /// This master key alone opens the store from now on.
    fn keep_master(&self, master: &MasterKey) -> Result<(), StoreError> {
        self.step(|transaction| {
            open::check_key(transaction, &ring::read(transaction, master)?)?;
            transaction.execute("DELETE FROM keyring WHERE master <> ?1", [master_id(master)])?;
            Ok(())
        })?;
        self.empty_log();
        Ok(())
    }
}

/// The data keys of the ring and when they were made, the oldest first.
fn keys(connection: &Connection) -> rusqlite::Result<Vec<(u32, Timestamp)>> {
    let all = "SELECT key_id, min(created_at) FROM keyring WHERE key_id > 0 GROUP BY key_id ORDER BY key_id";
    connection.prepare_cached(all)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn masters(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    connection.prepare_cached("SELECT DISTINCT master FROM keyring")?.query_map([], |row| row.get(0))?.collect()
}

fn phase(connection: &Connection, ring: &KeyRing) -> Result<Phase, StoreError> {
    let ids = keys(connection)?.into_iter().map(|(id, _)| id);
    let (old, rest): (Vec<_>, Vec<_>) = ids.partition(|id| *id < ring.active());
    // A sweep that is not over goes first.
    match rest.last() {
        _ if !old.is_empty() => Ok(Phase::Active(old)),
        Some(newest) if *newest > ring.active() => Ok(Phase::Prepared(*newest)),
        _ => Ok(Phase::Idle),
    }
}

fn change(transaction: &Transaction<'_>, active: u32) -> Result<(), StoreError> {
    let change = "UPDATE ring SET generation = generation + ?1, active = ?2";
    transaction.execute(change, params![Counter(1), active])?;
    Ok(())
}
