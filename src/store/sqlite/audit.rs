//! The audit log as rows: added at the end, read in pages, erased from the beginning.
//!
//! Invariant: each row is linked to the one before by a digest that only we can make.

use rusqlite::{Connection, OptionalExtension, Transaction, params, params_from_iter};

use super::Sqlite;
use super::columns::{Counter, unsigned};
use crate::audit::Record;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::audit::{AuditFlaw, AuditPage, AuditQuery};
use crate::store::seal::KeyRing;

const COLUMNS: &str =
    "sequence, at, event, who, account, account_id, outcome, why, request_id, peer, count, intent, link";
/// Records that are checked at a time.
const CHECKED: u32 = 1000;
/// Records that a page looks at where no index finds those that are wanted.
const LOOKED_AT: u64 = 20_000;
/// The beginning of the log: whole slices of what is too old.
const FORGET: &str = "DELETE FROM audit WHERE at <= ?1
    AND sequence IN (SELECT sequence FROM audit ORDER BY sequence LIMIT ?2)";

impl Sqlite {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Numbers the records and keeps them, all or none.
    pub fn append_audit(&self, records: &mut [Record]) -> Result<u64, StoreError> {
        self.step(|transaction| append(transaction, &*self.ring(transaction)?, records))
    }

    pub fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let mut conditions = vec!["1"];
        let mut values: Vec<Box<dyn rusqlite::ToSql>> = Vec::new();
        let mut narrow = |condition, value: Box<dyn rusqlite::ToSql>| {
            conditions.push(condition);
            values.push(value);
        };
        if let Some(since) = query.since {
            narrow("at >= ?", Box::new(since));
        }
        if let Some(until) = query.until {
            narrow("at < ?", Box::new(until));
        }
        if let Some(id) = &query.account_id {
            narrow("account_id = ?", Box::new(id.clone()));
        }
        if let Some(event) = query.event {
            narrow("event = ?", Box::new(event.name()));
        }
        if let Some(outcome) = query.outcome {
            narrow("outcome = ?", Box::new(outcome.name()));
        }
        self.read(|connection| {
            let slice = slice(connection, query)?;
            let conditions = format!("{} AND sequence BETWEEN ? AND ?", conditions.join(" AND "));
            let order = if query.newest_first { "DESC" } else { "ASC" };
            let limit = i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1);
            let select =
                format!("SELECT {COLUMNS} FROM audit WHERE {conditions} ORDER BY sequence {order} LIMIT {limit}");
            let bounds: [Box<dyn rusqlite::ToSql>; 2] = [Box::new(Counter(slice.from)), Box::new(Counter(slice.to))];
            let mut statement = connection.prepare_cached(&select)?;
            let found = statement.query_map(params_from_iter(values.iter().chain(&bounds)), |row| Ok(read(row)?.0))?;
            let mut records = found.collect::<rusqlite::Result<Vec<_>>>()?;
            let next = if records.len() > query.limit {
                records.truncate(query.limit);
                records.last().map(|last| last.sequence)
            } else {
                slice.next
            };
            Ok(AuditPage { records, next })
        })
    }

    /// The link of the first record of all is believed: what was before it has left.
    pub fn audit_check(&self, after: Option<u64>) -> Result<Result<Option<u64>, AuditFlaw>, StoreError> {
        self.read(|connection| {
            let keys = self.ring(connection)?;
            let select = format!("SELECT {COLUMNS} FROM audit WHERE sequence >= ?1 ORDER BY sequence LIMIT {CHECKED}");
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map([Counter(after.unwrap_or(0))], read)?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            for [(before, link), (record, own)] in rows.array_windows() {
                if record.sequence != before.sequence + 1 || linked(&keys, link, record) != *own {
                    return Ok(Err(AuditFlaw::Changed(record.sequence)));
                }
            }
            let last = rows.last().map(|(record, _)| record.sequence).filter(|last| Some(*last) != after);
            Ok(Ok(last))
        })
    }
}

/// The records among which a page looks, by their sequence numbers.
struct Slice {
    from: u64,
    to: u64,
    /// `after` of whoever wants to look at the others.
    next: Option<u64>,
}

/// All of them, unless there is no index for what is wanted: nobody waits for a look at a million records.
fn slice(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Slice> {
    let first: Option<Counter> =
        connection.prepare_cached("SELECT min(sequence) FROM audit")?.query_row([], |row| row.get(0))?;
    let first = first.map_or(1, |first| first.0);
    let last = last_sequence(connection)?;
    let (from, to) = match query.after {
        Some(after) if query.newest_first => (first, after.saturating_sub(1)),
        Some(after) => (first.max(after.saturating_add(1)), last),
        None => (first, last),
    };
    let is_indexed = query.account_id.is_some() || (query.event.is_none() && query.outcome.is_none());
    if is_indexed || to < from || to - from < LOOKED_AT {
        return Ok(Slice { from, to, next: None });
    }
    Ok(if query.newest_first {
        let from = to - LOOKED_AT + 1;
        Slice { from, to, next: Some(from) }
    } else {
        let to = from + LOOKED_AT - 1;
        Slice { from, to, next: Some(to) }
    })
}

/// Numbers the records and adds them at the end.
pub fn append(transaction: &Transaction<'_>, keys: &KeyRing, records: &mut [Record]) -> Result<u64, StoreError> {
    let last = "SELECT sequence, link FROM audit ORDER BY sequence DESC LIMIT 1";
    let last = transaction.prepare_cached(last)?.query_row([], |row| Ok((unsigned(row, 0)?, row.get(1)?)));
    // Of an empty log the database still knows how far it went.
    let (mut sequence, mut link) = match last.optional()? {
        Some(last) => last,
        None => (last_sequence(transaction)?, Vec::new()),
    };
    for record in records.iter_mut() {
        sequence += 1;
        record.sequence = sequence;
        link = linked(keys, &link, record);
        insert(transaction, record, &link)?;
    }
    Ok(sequence)
}

/// Erases a slice of what is older than `before`.
pub fn forget(transaction: &Transaction<'_>, before: Timestamp, slice: i64) -> rusqlite::Result<usize> {
    transaction.prepare_cached(FORGET)?.execute(params![before, slice])
}

pub fn last_sequence(connection: &Connection) -> rusqlite::Result<u64> {
    let known = "SELECT seq FROM sqlite_sequence WHERE name = 'audit'";
    Ok(connection.query_row(known, [], |row| unsigned(row, 0)).optional()?.unwrap_or(0))
}

fn insert(transaction: &Transaction<'_>, record: &Record, link: &[u8]) -> rusqlite::Result<usize> {
    let Record { time, sequence, event, who, account, account_id, outcome, why, request_id, peer, count, intent } =
        record;
    transaction
        .prepare_cached(&format!(
            "INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
        ))?
        .execute(params![
            Counter(*sequence),
            time,
            event,
            who,
            account,
            account_id,
            outcome,
            why,
            request_id,
            peer,
            Counter(*count),
            intent.map(Counter),
            link
        ])
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Record, Vec<u8>)> {
    let record = Record {
        sequence: unsigned(row, 0)?,
        time: row.get(1)?,
        event: row.get(2)?,
        who: row.get(3)?,
        account: row.get(4)?,
        account_id: row.get(5)?,
        outcome: row.get(6)?,
        why: row.get(7)?,
        request_id: row.get(8)?,
        peer: row.get(9)?,
        count: unsigned(row, 10)?,
        intent: row.get::<_, Option<Counter>>(11)?.map(|intent| intent.0),
    };
    Ok((record, row.get(12)?))
}

/// By the very text that is exported, and the time to the millisecond.
fn linked(keys: &KeyRing, before: &[u8], record: &Record) -> Vec<u8> {
    let text = serde_json::to_string(record).expect("plain data with text keys");
    let record = format!("{} {text}", record.time.millis());
    keys.audit(before, record.as_bytes()).to_vec()
}
