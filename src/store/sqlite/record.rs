//! A grant as rows of the database: reading it, writing it back, and opening what is sealed in it.
//!
//! Invariant: what doesn't read or doesn't open is an error of that one record, by name.

use rusqlite::{Connection, OptionalExtension, Params, Transaction, named_params, params};

use super::columns::{Counter, intent, key, parked, parked_text, status, status_name, unsigned};
use crate::account::{AccountKey, Alias};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::grant::{AccessToken, Fingerprint, Grant, Status};
use crate::store::refresh::{self, Bytes, Row};
use crate::store::seal::{KeyRing, Place};

/// What the database holds of a grant, but for the sealed bytes. Without an alias it is the memory of a removed one.
#[derive(Debug)]
pub struct Record {
    pub(super) id: i64,
    key: AccountKey,
    pub alias: Option<Alias>,
    pub row: Row,
    pub scopes: Vec<String>,
    pub username: Option<String>,
    pub created_at: Timestamp,
    pub signed_in_at: Timestamp,
    pub refreshed_at: Option<Timestamp>,
}

impl Record {
    /// The columns of a record, without its sealed bytes. `access_until` is when its last access token expires.
    pub const SELECT: &str = "SELECT id, provider, tenant, subject, alias, epoch, version, fence, status, reason_dead, reason_text,
        reason_claims, reason_since, rt_fp, parent_fp, parent_fence, committed_fence, intent_fence, intent_fp, intent_deadline,
        intent_holder, intent_last_resort, last_resort_epoch, fail_count, next_try, scopes, parked, username, created_at,
        signed_in_at, refreshed_at, (SELECT max(expires) FROM access WHERE grant_id = grants.id) AS access_until FROM grants";

    /// The record of this identity, removed or not.
    pub fn by_key(connection: &Connection, key: &AccountKey) -> Result<Option<Self>, StoreError> {
        let which = "WHERE provider = ?1 AND tenant = ?2 AND subject = ?3";
        Self::one(connection, which, params![key.provider, key.tenant, key.subject], || key.id())
    }

    pub fn living(connection: &Connection, key: &AccountKey) -> Result<Option<Self>, StoreError> {
        Ok(Self::by_key(connection, key)?.filter(|record| record.alias.is_some()))
    }

    pub fn by_alias(connection: &Connection, alias: &str) -> Result<Option<Self>, StoreError> {
        Self::one(connection, "WHERE alias = ?1", [alias], || alias.to_owned())
    }

    /// The record of this name, which `AccountKey::id` makes.
    pub fn by_account_id(connection: &Connection, id: &str) -> Result<Option<Self>, StoreError> {
        let record = Self::one(connection, "WHERE account_id = ?1", [id], || id.to_owned())?;
        Ok(record.filter(|record| record.alias.is_some()))
    }

    /// Those with an id after the one and up to the other, removed or not.
    pub fn within(connection: &Connection, (from, to): (i64, i64)) -> Result<Vec<Self>, StoreError> {
        let query = format!("{} WHERE id > ?1 AND id <= ?2 ORDER BY id", Self::SELECT);
        let mut statement = connection.prepare_cached(&query)?;
        let mut rows = statement.query(params![from, to])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.extend(Self::readable(row));
        }
        Ok(records)
    }

    /// Active ones of `provider` whose refresh token nobody has used since `before`, the longest idle first.
    pub fn idle(
        connection: &Connection,
        provider: &str,
        before: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        let [skip, limit] = [skip, limit].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let mut statement = connection.prepare_cached(&Self::idle_query())?;
        let mut rows = statement.query(params![provider, before, limit, skip])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.extend(Self::readable(row));
        }
        Ok(records)
    }

    /// In the very words of the index `grants_by_use`.
    pub fn idle_query() -> String {
        let used = "max(signed_in_at, coalesce(refreshed_at, signed_in_at))";
        format!(
            "{} WHERE provider = ?1 AND {used} < ?2 AND alias IS NOT NULL AND status = 'active' AND rt_fp IS NOT NULL
             ORDER BY {used} LIMIT ?3 OFFSET ?4",
            Self::SELECT
        )
    }

    /// `None`: it does not read, which is reported in the log.
    pub fn readable(row: &rusqlite::Row<'_>) -> Option<Self> {
        match Self::read(row) {
            Ok(record) => Some(record),
            Err(error) => {
                let record: String = row.get("alias").unwrap_or_default();
                tracing::error!(record, %error, "a record of the store can't be read");
                None
            }
        }
    }

    pub fn key(&self) -> &AccountKey {
        &self.key
    }

    pub fn insert(transaction: &Transaction<'_>, key: &AccountKey, now: Timestamp) -> Result<Self, StoreError> {
        transaction.execute(
            "INSERT INTO grants (provider, tenant, subject, created_at, signed_in_at, account_id)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
            params![key.provider, key.tenant, key.subject, now, key.id()],
        )?;
        Ok(Self {
            id: transaction.last_insert_rowid(),
            key: key.clone(),
            alias: None,
            row: Row::new(),
            scopes: Vec::new(),
            username: None,
            created_at: now,
            signed_in_at: now,
            refreshed_at: None,
        })
    }

    /// Writes everything but the bytes, and tells the others if tokens, status or parks are not what they were `before`.
    pub fn save(&self, transaction: &Transaction<'_>, before: &Row) -> Result<(), StoreError> {
        let row = &self.row;
        let reason = if let Status::Reauth(reason) = &row.status { Some(reason) } else { None };
        transaction
            .prepare_cached(
                "UPDATE grants SET alias = :alias, epoch = :epoch, version = :version, fence = :fence, status = :status,
                 reason_dead = :reason_dead, reason_text = :reason_text, reason_claims = :reason_claims,
                 reason_since = :reason_since, rt_fp = :rt_fp, parent_fp = :parent_fp, parent_fence = :parent_fence,
                 committed_fence = :committed_fence, intent_fence = :intent_fence, intent_fp = :intent_fp,
                 intent_deadline = :intent_deadline, intent_holder = :intent_holder,
                 intent_last_resort = :intent_last_resort, last_resort_epoch = :last_resort_epoch,
                 fail_count = :fail_count, next_try = :next_try, scopes = :scopes, parked = :parked, username = :username,
                 created_at = :created_at, signed_in_at = :signed_in_at, refreshed_at = :refreshed_at WHERE id = :id",
            )?
            .execute(named_params! {
                ":id": self.id,
                ":alias": self.alias,
                ":epoch": Counter(row.epoch),
                ":version": Counter(row.version),
                ":fence": Counter(row.fence),
                ":status": status_name(&row.status),
                ":reason_dead": reason.map(|reason| reason.dead),
                ":reason_text": reason.map(|reason| &reason.text),
                ":reason_claims": reason.and_then(|reason| reason.claims.as_ref()),
                ":reason_since": reason.map(|reason| reason.since),
                ":rt_fp": row.token,
                ":parent_fp": row.parent,
                ":parent_fence": Counter(row.parent_fence),
                ":committed_fence": Counter(row.committed_fence),
                ":intent_fence": row.intent.map(|intent| Counter(intent.fence)),
                ":intent_fp": row.intent.map(|intent| intent.token),
                ":intent_deadline": row.intent.map(|intent| intent.deadline),
                ":intent_holder": row.intent.map(|intent| intent.holder),
                ":intent_last_resort": row.intent.map(|intent| intent.last_resort),
                ":last_resort_epoch": Counter(row.last_resort_epoch),
                ":fail_count": row.fail_count,
                ":next_try": row.next_try,
                ":scopes": self.scopes.join(" "),
                ":parked": parked_text(&row.parked),
                ":username": self.username,
                ":created_at": self.created_at,
                ":signed_in_at": self.signed_in_at,
                ":refreshed_at": self.refreshed_at,
            })?;
        if (before.epoch, before.version, &before.status, &before.parked)
            != (row.epoch, row.version, &row.status, &row.parked)
        {
            self.tell(transaction)?;
        }
        Ok(())
    }

    /// One row per grant and alias: the newest change takes the place of the one before, so nothing has to be trimmed.
    fn tell(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let change = "INSERT OR REPLACE INTO changes (grant_id, alias) VALUES (?1, ?2)";
        transaction.prepare_cached(change)?.execute(params![self.id, self.alias])?;
        Ok(())
    }

    /// Ends the life of the grant; its tokens are gone.
    pub fn end(&mut self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let before = self.row.clone();
        let bytes = refresh::revoke(&mut self.row);
        self.move_bytes(transaction, bytes, None)?;
        self.erase_access(transaction)?;
        self.save(transaction, &before)
    }

    /// Leaves the identity and its counters, so that they never go back.
    pub fn bury(&mut self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        self.alias = None;
        self.username = None;
        self.scopes.clear();
        self.save(transaction, &self.row)
    }

    pub fn move_bytes(
        &self,
        transaction: &Transaction<'_>,
        bytes: Bytes,
        new: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let id = self.id;
        match bytes {
            Bytes::Keep => 0,
            Bytes::KeepPrevious { until } => transaction
                .prepare_cached("UPDATE grants SET prev_rt = rt, prev_until = ?3, rt = ?2 WHERE id = ?1")?
                .execute(params![id, new, until])?,
            Bytes::ReplaceSibling => {
                transaction.prepare_cached("UPDATE grants SET rt = ?2 WHERE id = ?1")?.execute(params![id, new])?
            }
            Bytes::Replace | Bytes::Erase => transaction
                .prepare_cached("UPDATE grants SET prev_rt = NULL, prev_until = NULL, rt = ?2 WHERE id = ?1")?
                .execute(params![id, new])?,
        };
        Ok(())
    }

    pub fn sealed(&self, keys: &KeyRing, token: &Secret<String>) -> Result<Vec<u8>, StoreError> {
        Ok(keys.seal(&self.refresh_place(), token.expose().as_bytes())?)
    }

    /// The stored refresh token, if it is the one that the row speaks of.
    pub fn refresh_token(
        &self,
        connection: &Connection,
        keys: &KeyRing,
    ) -> Result<(Secret<String>, Fingerprint), StoreError> {
        let mut statement = connection.prepare_cached("SELECT rt FROM grants WHERE id = ?1")?;
        let blob: Option<Vec<u8>> = statement.query_row([self.id], |row| row.get(0))?;
        let blob = blob.ok_or_else(|| self.corrupt("it has no refresh token"))?;
        let token = self.open(keys, &self.refresh_place(), &blob)?;
        let fingerprint = keys.fingerprint(token.expose());
        if self.row.token == Some(fingerprint) {
            Ok((token, fingerprint))
        } else {
            Err(self.corrupt("its refresh token is another one"))
        }
    }

    pub fn put_access(
        &self,
        transaction: &Transaction<'_>,
        keys: &KeyRing,
        access: &AccessToken,
    ) -> Result<(), StoreError> {
        let token = keys.seal(&self.access_place(&access.scope_set), access.token.expose().as_bytes())?;
        let AccessToken { scope_set, expires, obtained, refresh_after, claims, .. } = access;
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO access (grant_id, scope_set, expires, obtained, refresh_after, claims, token)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![self.id, scope_set, expires, obtained, refresh_after, claims, token])?;
        Ok(())
    }

    pub fn erase_access(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        transaction.prepare_cached("DELETE FROM access WHERE grant_id = ?1")?.execute([self.id])?;
        Ok(())
    }

    /// With its access tokens, opened.
    pub fn grant(self, connection: &Connection, keys: &KeyRing) -> Result<Grant, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT scope_set, expires, obtained, refresh_after, claims, token FROM access WHERE grant_id = ?1",
        )?;
        let mut rows = statement.query([self.id])?;
        let mut access = Vec::new();
        while let Some(row) = rows.next()? {
            let scope_set: String = row.get(0)?;
            let blob: Vec<u8> = row.get(5)?;
            let token = self.open(keys, &self.access_place(&scope_set), &blob)?;
            access.push(AccessToken {
                scope_set,
                token,
                expires: row.get(1)?,
                obtained: row.get(2)?,
                refresh_after: row.get(3)?,
                claims: row.get(4)?,
            });
        }
        let nameless = self.corrupt("it has no alias");
        self.into_grant(access).ok_or(nameless)
    }

    /// `None`: the memory of a removed one.
    pub fn into_grant(self, access: Vec<AccessToken>) -> Option<Grant> {
        Some(Grant {
            key: self.key,
            alias: self.alias?,
            epoch: self.row.epoch,
            version: self.row.version,
            status: self.row.status,
            scopes: self.scopes,
            access,
            username: self.username,
            created_at: self.created_at,
            signed_in_at: self.signed_in_at,
            refreshed_at: self.refreshed_at,
            next_try: self.row.next_try,
            fail_count: self.row.fail_count,
            intent: self.row.intent.is_some(),
            parked: self.row.parked,
        })
    }

    /// Current and previous refresh token share a place: a blob moves from one to the other.
    pub(super) fn refresh_place(&self) -> Place<'_> {
        self.place("refresh_token", &[])
    }

    pub(super) fn access_place<'a>(&'a self, scope_set: &'a str) -> Place<'a> {
        self.place("access_token", scope_set.as_bytes())
    }

    fn place<'a>(&'a self, role: &'static str, detail: &'a [u8]) -> Place<'a> {
        let alias = self.alias.as_ref().map_or("", Alias::as_str);
        Place { table: "grants", role, owner: Some((&self.key, alias)), epoch: self.row.epoch, detail }
    }

    fn open(&self, keys: &KeyRing, place: &Place<'_>, blob: &[u8]) -> Result<Secret<String>, StoreError> {
        let bytes = keys.open(place, blob).map_err(|broken| self.corrupt(&format!("{}: {broken}", place.role)))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| self.corrupt("a token is no text"))?;
        Ok(Secret::from(text))
    }

    pub(super) fn corrupt(&self, why: &str) -> StoreError {
        let record = self.alias.as_ref().map_or_else(|| self.key.id(), ToString::to_string);
        StoreError::Corrupt { record, why: why.to_owned() }
    }

    fn one(
        connection: &Connection,
        which: &str,
        values: impl Params,
        name: impl FnOnce() -> String,
    ) -> Result<Option<Self>, StoreError> {
        let mut statement = connection.prepare_cached(&format!("{} {which}", Self::SELECT))?;
        statement.query_row(values, Self::read).optional().map_err(|error| match error.into() {
            StoreError::Corrupt { why, .. } => StoreError::Corrupt { record: name(), why },
            other => other,
        })
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let scopes: String = row.get("scopes")?;
        Ok(Self {
            id: row.get("id")?,
            key: key(row)?,
            alias: row.get("alias")?,
            row: Row {
                epoch: unsigned(row, "epoch")?,
                version: unsigned(row, "version")?,
                fence: unsigned(row, "fence")?,
                status: status(row)?,
                token: row.get("rt_fp")?,
                parent: row.get("parent_fp")?,
                parent_fence: unsigned(row, "parent_fence")?,
                committed_fence: unsigned(row, "committed_fence")?,
                intent: intent(row)?,
                last_resort_epoch: unsigned(row, "last_resort_epoch")?,
                fail_count: row.get("fail_count")?,
                next_try: row.get("next_try")?,
                access_until: row.get("access_until")?,
                parked: parked(row)?,
            },
            scopes: scopes.split_ascii_whitespace().map(str::to_owned).collect(),
            username: row.get("username")?,
            created_at: row.get("created_at")?,
            signed_in_at: row.get("signed_in_at")?,
            refreshed_at: row.get("refreshed_at")?,
        })
    }
}
