//! Pages of accounts: the next few in the order of their aliases, of those that are wanted.
//!
//! Invariant: one page looks at `LOOKED_AT` accounts at most, however many there are and however few of them are wanted. It may end
//! before it is full, and then says where the next one begins.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::record::Record;
use crate::store::{Listed, StoreError, Wanted};

/// Some tens of milliseconds of work.
const LOOKED_AT: u32 = 20_000;
/// Comes after every alias: those are of visible ASCII characters.
const END: &str = "\u{7f}";

pub fn page(connection: &Connection, wanted: &Wanted) -> Result<Listed, StoreError> {
    let after = wanted.after.as_deref().unwrap_or_default();
    let end = if wanted.is_narrow() { last_looked_at(connection, wanted, after)? } else { None };
    let limit = wanted.limit.max(1);
    let mut statement = connection.prepare_cached(&page_query(wanted))?;
    let mut rows = statement.query(named_params! {
        ":after": after,
        ":end": end.as_deref().unwrap_or(END),
        ":state": wanted.state,
        ":provider": wanted.provider,
        ":search": wanted.search.as_ref().map(|search| search.to_ascii_lowercase()),
        ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
    })?;
    let (mut listed, mut seen) = (Listed { grants: Vec::new(), next: end }, 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        if seen == limit {
            listed.next = Some(row.get("alias")?);
        }
        listed.grants.extend(Record::readable(row).and_then(|record| record.into_grant(Vec::new())));
    }
    Ok(listed)
}

/// `None`: all that are left are looked at.
fn last_looked_at(connection: &Connection, wanted: &Wanted, after: &str) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached(&last_query(wanted))?;
    let last = if wanted.by_state() {
        statement.query_row(named_params! { ":state": wanted.state, ":after": after }, |row| row.get(0))
    } else {
        statement.query_row(named_params! { ":after": after }, |row| row.get(0))
    };
    Ok(last.optional()?)
}

pub(super) fn last_query(wanted: &Wanted) -> String {
    format!("SELECT alias FROM grants WHERE {} ORDER BY alias LIMIT 1 OFFSET {}", wanted.candidates(), LOOKED_AT - 1)
}

pub(super) fn page_query(wanted: &Wanted) -> String {
    format!(
        "{} WHERE {} AND alias <= :end AND (:state IS NULL OR state = :state) AND (:provider IS NULL OR provider = :provider)
         AND (:search IS NULL OR instr(lower(alias), :search) OR instr(lower(username), :search)) ORDER BY alias LIMIT :limit",
        Record::SELECT,
        wanted.candidates()
    )
}

impl Wanted {
    /// Accounts of the index may be left out of the page.
    fn is_narrow(&self) -> bool {
        self.state == Some("active") || self.provider.is_some() || self.search.is_some()
    }

    /// Active accounts are nearly all there are, so that no index is kept for them.
    fn by_state(&self) -> bool {
        self.state.is_some_and(|state| state != "active")
    }

    fn candidates(&self) -> &'static str {
        // In the very words of the index `grants_not_active`.
        if self.by_state() {
            "state = :state AND state <> 'active' AND alias IS NOT NULL AND alias > :after"
        } else {
            "alias > :after"
        }
    }
}
