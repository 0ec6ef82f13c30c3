//! What may be taken only once: kept under a digest of its secret name, sealed, and gone with the first who takes it.
//!
//! Strangers can begin sign-ins where the pages are open, so what is short-lived is counted: they must not fill the disk that the
//! next refresh token needs. Links, which only operators and clients make, are not.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use super::columns::unsigned;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::grant::TicketKind;
use crate::store::seal::Place;

/// What ends sooner belongs to somebody's sign-in under way.
const SHORT_LIVED: Duration = Duration::from_hours(1);
const MOST_SHORT_LIVED: u64 = 10_000;

impl Sqlite {
    pub fn put_ticket(&self, kind: TicketKind, id: &str, payload: &[u8], expires: Timestamp) -> Result<(), StoreError> {
        let digest = self.known_ring().ticket(kind, id);
        self.step(|transaction| {
            let now = self.clock.now();
            let soon = now.plus(SHORT_LIVED);
            if expires <= soon {
                let count = "SELECT count(*) FROM tickets WHERE expires > ?1 AND expires <= ?2";
                let count = transaction.prepare_cached(count)?.query_row(params![now, soon], |row| unsigned(row, 0))?;
                if count >= MOST_SHORT_LIVED {
                    return Err(StoreError::Unavailable("too many sign-ins are under way".to_owned()));
                }
            }
            let sealed = self.ring(transaction)?.seal(&place(kind, &detail(&digest, expires)), payload)?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO tickets (digest, expires, payload) VALUES (?1, ?2, ?3)")?
                .execute(params![digest, expires, sealed])?;
            Ok(())
        })
    }

    pub fn read_ticket(&self, kind: TicketKind, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let digest = self.known_ring().ticket(kind, id);
        self.read(|connection| self.ticket(connection, kind, &digest))
    }

    pub fn take_ticket(&self, kind: TicketKind, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let digest = self.known_ring().ticket(kind, id);
        self.step(|transaction| {
            let payload = self.ticket(transaction, kind, &digest)?;
            transaction.prepare_cached("DELETE FROM tickets WHERE digest = ?1")?.execute([digest])?;
            Ok(payload)
        })
    }

    fn ticket(
        &self,
        connection: &Connection,
        kind: TicketKind,
        digest: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found: Option<(Timestamp, Vec<u8>)> = connection
            .prepare_cached("SELECT expires, payload FROM tickets WHERE digest = ?1 AND expires > ?2")?
            .query_row(params![digest, self.clock.now()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((expires, sealed)) = found else { return Ok(None) };
        let opened = self.ring(connection)?.open(&place(kind, &detail(digest, expires)), &sealed);
        let payload = opened.map_err(|broken| StoreError::Corrupt {
            record: format!("{} ticket", kind.name()),
            why: broken.to_string(),
        })?;
        Ok(Some(payload.to_vec()))
    }
}

pub(super) fn place(kind: TicketKind, detail: &[u8]) -> Place<'_> {
    Place { table: "tickets", role: kind.name(), owner: None, epoch: 0, detail }
}

/// Which ticket, until when: neither can be changed without us.
pub(super) fn detail(digest: &[u8; 32], expires: Timestamp) -> Vec<u8> {
    [digest.as_slice(), &expires.millis().to_be_bytes()].concat()
}
