//! What a key sealed, in slices: sealing it anew by the active key, and counting it.
//!
//! Invariants: a record is read and written back in one transaction, so a refresh that comes in between is never undone; versions,
//! epochs, digests and plaintexts stay what they are; what doesn't open is left as it is and named.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};

use super::record::Record;
use super::{Sqlite, columns, tickets};
use crate::clock::Timestamp;
use crate::fault;
use crate::store::StoreError;
use crate::store::grant::TicketKind;
use crate::store::seal::{KeyRing, Place, sealed_with};

/// Records that are sealed anew in one transaction: whoever has a refresh to store waits for no more than that.
const SLICE: i64 = 64;
/// Records that are counted in one.
const COUNTED: i64 = 1000;
/// The part of a blob that says which key sealed it.
const BEGINNING: &str = "1, 10";

/// How far a walk through all records has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Grants(i64),
    Tickets(i64),
    End,
}

impl Sqlite {
    /// Seals the next slice anew. What doesn't open is added to `left`.
    pub fn reseal(&self, at: Position, left: &mut Vec<String>) -> Result<Position, StoreError> {
        let next = self.step(|transaction| {
            let keys = self.ring(transaction)?;
            let Some((from, to)) = slice(transaction, at, SLICE)? else { return Ok(after(at)) };
            let changed = match at {
                Position::Grants(_) => reseal_grants(transaction, &keys, (from, to), left)?,
                Position::Tickets(_) => reseal_tickets(transaction, &keys, (from, to), left)?,
                Position::End => false,
            };
            if changed {
                fault::point("fp12");
            }
            Ok(moved(at, to))
        })?;
        fault::point("fp13");
        Ok(next)
    }

    /// Adds to `counts` what each key sealed of the next slice.
    pub fn count_sealed(&self, at: Position, counts: &mut BTreeMap<u32, u64>) -> Result<Position, StoreError> {
        self.read(|connection| {
            let Some(range) = slice(connection, at, COUNTED)? else { return Ok(after(at)) };
            let columns: &[(&str, &str, &str)] = match at {
                Position::Grants(_) => {
                    &[("grants", "id", "rt"), ("grants", "id", "prev_rt"), ("access", "grant_id", "token")]
                }
                Position::Tickets(_) => &[("tickets", "rowid", "payload")],
                Position::End => &[],
            };
            for (table, id, column) in columns {
                let blobs = format!(
                    "SELECT substr({column}, {BEGINNING}) FROM {table} WHERE {id} > ?1 AND {id} <= ?2 AND {column} IS NOT NULL"
                );
                let mut statement = connection.prepare_cached(&blobs)?;
                let mut rows = statement.query([range.0, range.1])?;
                while let Some(row) = rows.next()? {
                    if let Some(key) = sealed_with(&row.get::<_, Vec<u8>>(0)?) {
                        *counts.entry(key).or_default() += 1;
                    }
                }
            }
            Ok(moved(at, range.1))
        })
    }

    /// About how many records there are, and how many of them come before `at`.
    pub fn progress(&self, at: Position) -> Result<(u64, u64), StoreError> {
        self.read(|connection| {
            let last = |table: &str| {
                connection.query_row(&format!("SELECT coalesce(max(rowid), 0) FROM {table}"), [], |row| {
                    columns::unsigned(row, 0)
                })
            };
            let (grants, tickets) = (last("grants")?, last("tickets")?);
            let done = match at {
                Position::Grants(id) => u64::try_from(id).unwrap_or(0),
                Position::Tickets(id) => grants + u64::try_from(id).unwrap_or(0),
                Position::End => grants + tickets,
            };
            Ok((done, grants + tickets))
        })
    }
}

/// The ids of the next slice: after the one, up to the other.
fn slice(connection: &Connection, at: Position, size: i64) -> Result<Option<(i64, i64)>, StoreError> {
    let (table, from) = match at {
        Position::Grants(from) => ("grants", from),
        Position::Tickets(from) => ("tickets", from),
        Position::End => return Ok(None),
    };
    let last = format!("SELECT max(rowid) FROM (SELECT rowid FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)");
    let last: Option<i64> = connection.prepare_cached(&last)?.query_row([from, size], |row| row.get(0))?;
    Ok(last.map(|last| (from, last)))
}

fn moved(at: Position, to: i64) -> Position {
    match at {
        Position::Grants(_) => Position::Grants(to),
        Position::Tickets(_) => Position::Tickets(to),
        Position::End => Position::End,
    }
}

/// What comes after the last slice of a table.
fn after(at: Position) -> Position {
    if let Position::Grants(_) = at { Position::Tickets(0) } else { Position::End }
}

fn reseal_grants(
    transaction: &Transaction<'_>,
    keys: &KeyRing,
    range: (i64, i64),
    left: &mut Vec<String>,
) -> Result<bool, StoreError> {
    let mut changed = false;
    for record in Record::within(transaction, range)? {
        changed |= record.reseal(transaction, keys, left)?;
    }
    Ok(changed)
}

impl Record {
    fn reseal(
        &self,
        transaction: &Transaction<'_>,
        keys: &KeyRing,
        left: &mut Vec<String>,
    ) -> Result<bool, StoreError> {
        let mut changed = false;
        for column in ["rt", "prev_rt"] {
            let read = format!("SELECT {column} FROM grants WHERE id = ?1");
            let blob: Option<Vec<u8>> = transaction.prepare_cached(&read)?.query_row([self.id], |row| row.get(0))?;
            let Some(blob) = blob else { continue };
            if let Some(blob) = self.resealed(keys, &self.refresh_place(), &blob, left)? {
                let write = format!("UPDATE grants SET {column} = ?2 WHERE id = ?1");
                transaction.prepare_cached(&write)?.execute(params![self.id, blob])?;
                changed = true;
            }
        }
        let mut statement = transaction.prepare_cached("SELECT scope_set, token FROM access WHERE grant_id = ?1")?;
        let tokens = statement.query_map([self.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let tokens: Vec<(String, Vec<u8>)> = tokens.collect::<rusqlite::Result<_>>()?;
        for (scope_set, blob) in tokens {
            if let Some(blob) = self.resealed(keys, &self.access_place(&scope_set), &blob, left)? {
                let write = "UPDATE access SET token = ?3 WHERE grant_id = ?1 AND scope_set = ?2";
                transaction.prepare_cached(write)?.execute(params![self.id, scope_set, blob])?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// `None`: it stays as it is.
    fn resealed(
        &self,
        keys: &KeyRing,
        place: &Place<'_>,
        blob: &[u8],
        left: &mut Vec<String>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if sealed_with(blob) == Some(keys.active()) {
            return Ok(None);
        }
        match keys.open(place, blob) {
            Ok(opened) => Ok(Some(keys.seal(place, &opened)?)),
            Err(broken) => {
                left.push(self.corrupt(&format!("{}: {broken}", place.role)).to_string());
                Ok(None)
            }
        }
    }
}

fn reseal_tickets(
    transaction: &Transaction<'_>,
    keys: &KeyRing,
    (from, to): (i64, i64),
    left: &mut Vec<String>,
) -> Result<bool, StoreError> {
    let read = "SELECT rowid, digest, expires, payload FROM tickets WHERE rowid > ?1 AND rowid <= ?2";
    let mut statement = transaction.prepare_cached(read)?;
    let rows = statement.query_map([from, to], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let rows: Vec<(i64, [u8; 32], Timestamp, Vec<u8>)> = rows.collect::<rusqlite::Result<_>>()?;
    let mut changed = false;
    for (rowid, digest, expires, blob) in rows {
        if sealed_with(&blob) == Some(keys.active()) {
            continue;
        }
        let detail = tickets::detail(&digest, expires);
        // Which kind it is only the ticket itself knows.
        let places = TicketKind::ALL.map(|kind| tickets::place(kind, &detail));
        let opened = places.iter().find_map(|place| Some((place, keys.open(place, &blob).ok()?)));
        let Some((place, opened)) = opened else {
            left.push(format!("ticket {rowid} can't be opened"));
            continue;
        };
        let write = "UPDATE tickets SET payload = ?2 WHERE rowid = ?1";
        transaction.prepare_cached(write)?.execute(params![rowid, keys.seal(place, &opened)?])?;
        changed = true;
    }
    Ok(changed)
}
