//! The key ring as rows, and the ring by which one state of the database is read and written.
//!
//! Invariants: nothing is ever sealed by a key that is not the active one of the same transaction, so a key whose last record is gone can
//! be retired; a state of the database is read by the ring of that very state, whatever this process knew before.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rusqlite::{Connection, Transaction, params};

use super::Sqlite;
use super::columns::{Counter, unsigned};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::grant::Fingerprint;
use crate::store::key_file::{self, MasterKey};
use crate::store::seal::{Broken, KeyRing, NoRandom, Wrapped, master_id};

/// Why a stored ring can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `Commitment`: another master key wrapped it.
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

impl Sqlite {
    /// The ring of the state that `connection` sees; its newest one is what this process knows from now on.
    pub(super) fn ring(&self, connection: &Connection) -> Result<Arc<KeyRing>, StoreError> {
        let (generation, active) = head(connection)?;
        let known = self.known_ring();
        if known.generation() == generation {
            return Ok(known);
        }
        let read = key_file::load(&self.config, false).and_then(|master| Ok(Arc::new(read(connection, &master)?)));
        match read {
            Ok(ring) => {
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                if ring.generation() > keys.generation() {
                    *keys = Arc::clone(&ring);
                    self.holders.knows(ring.generation());
                }
                Ok(ring)
            }
            Err(error) => {
                if self.unreadable.swap(generation, Ordering::Relaxed) != generation {
                    tracing::error!(%error, "the store's keys were changed, and the new ones can't be opened: the master key of this process is an old one");
                }
                if known.has(active) { Ok(Arc::new(known.sealing_with(active))) } else { Err(error) }
            }
        }
    }

    /// As it was when this process last looked. Enough for digests, whose keys never change.
    pub(super) fn known_ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn fingerprint(&self, refresh_token: &Secret<String>) -> Fingerprint {
        self.known_ring().fingerprint(refresh_token.expose())
    }
}

/// The generation of the stored ring, and the key that seals.
fn head(connection: &Connection) -> rusqlite::Result<(u64, u32)> {
    let mut statement = connection.prepare_cached("SELECT generation, active FROM ring")?;
    statement.query_row([], |row| Ok((unsigned(row, 0)?, row.get(1)?)))
}

/// The stored ring, opened.
pub fn read(connection: &Connection, master: &MasterKey) -> Result<KeyRing, RingError> {
    let (generation, active) = head(connection)?;
    let stored = entries(connection, "WHERE master = ?1", [master_id(master)])?;
    if stored.is_empty() {
        return Err(Broken::Commitment.into());
    }
    Ok(KeyRing::unwrap(master, &stored, active, generation)?)
}

/// The ring of a store of format 2.
pub fn read_format_2(connection: &Connection, master: &MasterKey) -> Result<KeyRing, RingError> {
    Ok(KeyRing::unwrap_format_2(master, &entries(connection, "", [])?)?)
}

/// A ring that nobody has stored yet.
pub fn insert(
    transaction: &Transaction<'_>,
    keys: &KeyRing,
    master: &MasterKey,
    made: Timestamp,
) -> Result<(), StoreError> {
    for wrapped in keys.wrapped(master)? {
        put(transaction, &wrapped, &master_id(master), made)?;
    }
    let head = "INSERT INTO ring VALUES (1, ?1, ?2)";
    transaction.execute(head, params![Counter(keys.generation()), keys.active()])?;
    Ok(())
}

pub fn put(transaction: &Transaction<'_>, wrapped: &Wrapped, master: &str, made: Timestamp) -> rusqlite::Result<usize> {
    let (id, wrapped) = wrapped;
    transaction.execute("INSERT INTO keyring VALUES (?1, ?2, ?3, ?4)", params![id, master, wrapped, made])
}

fn entries(connection: &Connection, which: &str, values: impl rusqlite::Params) -> rusqlite::Result<Vec<Wrapped>> {
    let mut statement = connection.prepare(&format!("SELECT key_id, wrapped FROM keyring {which} ORDER BY key_id"))?;
    statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

impl From<RingError> for StoreError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Broken(broken) => Self::Unavailable(format!("the key ring: {broken}")),
            RingError::Database(error) => error.into(),
        }
    }
}

impl From<NoRandom> for StoreError {
    fn from(error: NoRandom) -> Self {
        Self::Unavailable(error.to_string())
    }
}
