//! How the words of the store are written in columns, and read back.
//!
//! Invariant: what can't be read is an error, never a default.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{Row, RowIndex};
use serde::{Deserialize, Serialize};

use crate::account::{AccountKey, Alias};
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::store::grant::{Fingerprint, Parked, Reason, Status};
use crate::store::holders::HolderId;
use crate::store::refresh::Intent;

/// By the states of `Grant::state`.
pub const COUNTS: &str = "SELECT provider, state, accounts FROM tallies";

pub const STATUSES: [&str; 4] = ["active", "uncertain", "reauth", "revoked"];

pub fn status_name(status: &Status) -> &'static str {
    let [active, uncertain, reauth, revoked] = STATUSES;
    match status {
        Status::Active => active,
        Status::Uncertain => uncertain,
        Status::Reauth(_) => reauth,
        Status::Revoked => revoked,
    }
}

pub fn status(row: &Row<'_>) -> rusqlite::Result<Status> {
    let name: String = row.get("status")?;
    match name.as_str() {
        "active" => Ok(Status::Active),
        "uncertain" => Ok(Status::Uncertain),
        "revoked" => Ok(Status::Revoked),
        "reauth" => Ok(Status::Reauth(Reason {
            dead: row.get("reason_dead")?,
            text: row.get("reason_text")?,
            claims: row.get("reason_claims")?,
            since: row.get("reason_since")?,
        })),
        _ => {
            let column = row.as_ref().column_index("status")?;
            Err(rusqlite::Error::FromSqlConversionFailure(
                column,
                Type::Text,
                format!("unknown status {name:?}").into(),
            ))
        }
    }
}

/// A park as it is written. A reason of a park is never a dead one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    scope_set: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<String>,
    since: i64,
}

pub fn parked_text(parked: &[Parked]) -> Option<String> {
    let entry = |parked: &Parked| Entry {
        scope_set: parked.scope_set.clone(),
        asked: parked.asked.as_ref().map(ToString::to_string),
        text: parked.reason.text.clone(),
        claims: parked.reason.claims.as_ref().map(ToString::to_string),
        since: parked.reason.since.millis(),
    };
    let entries: Vec<Entry> = parked.iter().map(entry).collect();
    (!entries.is_empty()).then(|| serde_json::to_string(&entries).expect("plain data with text keys"))
}

pub fn parked(row: &Row<'_>) -> rusqlite::Result<Vec<Parked>> {
    let Some(text) = row.get::<_, Option<String>>("parked")? else { return Ok(Vec::new()) };
    let column = row.as_ref().column_index("parked")?;
    let unreadable = |why: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why)
    };
    let claims = |text: Option<String>| match text {
        Some(text) => Claims::parse(&text).map(Some).ok_or_else(|| unreadable("claims that are no claims".into())),
        None => Ok(None),
    };
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| unreadable(error.into()))?;
    let park = |entry: Entry| {
        let reason = Reason {
            dead: false,
            text: entry.text,
            claims: claims(entry.claims)?,
            since: Timestamp::from_millis(entry.since),
        };
        Ok(Parked { scope_set: entry.scope_set, asked: claims(entry.asked)?, reason })
    };
    entries.into_iter().map(park).collect()
}

pub fn intent(row: &Row<'_>) -> rusqlite::Result<Option<Intent>> {
    let Some(fence) = row.get::<_, Option<Counter>>("intent_fence")? else { return Ok(None) };
    Ok(Some(Intent {
        fence: fence.0,
        token: row.get("intent_fp")?,
        deadline: row.get("intent_deadline")?,
        holder: row.get("intent_holder")?,
        last_resort: row.get("intent_last_resort")?,
    }))
}

pub fn key(row: &Row<'_>) -> rusqlite::Result<AccountKey> {
    Ok(AccountKey { provider: row.get("provider")?, tenant: row.get("tenant")?, subject: row.get("subject")? })
}

pub fn unsigned(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<u64> {
    Ok(row.get::<_, Counter>(column)?.0)
}

/// A counter that starts at 0 and grows by one: SQLite's integers are signed.
pub struct Counter(pub u64);

impl FromSql for Counter {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

impl ToSql for Counter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::from_millis)
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.millis().into())
    }
}

impl FromSql for Claims {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Claims {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Fingerprint {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self)
    }
}

impl ToSql for Fingerprint {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_slice().into())
    }
}

impl FromSql for Alias {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::new(value.as_str()?).map_err(FromSqlError::other)
    }
}

impl ToSql for Alias {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for HolderId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for HolderId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}
