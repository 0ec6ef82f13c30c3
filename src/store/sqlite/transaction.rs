//! One transaction at a time for those who write, one of its own for each who reads.
//!
//! Invariant: what fails or panics has changed nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Sqlite, open};
use crate::store::StoreError;

/// Readers that are kept for the next read.
const IDLE_READERS: usize = 4;

impl Sqlite {
    /// One transaction that writes. An error takes everything back.
    pub(super) fn step<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let done = (|| {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        self.named(done)
    }

    /// What was erased leaves the write-ahead log too, unless somebody still reads it.
    pub(super) fn empty_log(&self) {
        let emptied = lock(&self.writer).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        if let Err(error) = emptied {
            tracing::warn!(%error, "the store's write-ahead log can't be emptied now");
        }
    }

    /// One transaction that sees one state of the database.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let done = (|| {
            let mut reader = match idle {
                Some(reader) => reader,
                None => open::reader(&self.file)?,
            };
            let transaction = reader.transaction()?;
            let value = work(&transaction)?;
            transaction.finish()?;
            let mut readers = lock(&self.readers);
            if readers.len() < IDLE_READERS {
                readers.push(reader);
            }
            Ok(value)
        })();
        self.named(done)
    }

    pub(super) fn named<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.map_err(|error| match error {
            StoreError::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", self.file.display())),
            other => other,
        })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
        let why = error.to_string();
        match error {
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..) => {
                Self::Corrupt { record: "without a name".to_owned(), why }
            }
            _ => Self::Unavailable(why),
        }
    }
}

/// A transaction that panicked was rolled back: what the lock protects is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
