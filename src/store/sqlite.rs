//! The embedded store on SQLite: each step of the refresh protocol is one immediate transaction that asks `refresh` what to do.
//!
//! Invariants: a step that returned is on disk (WAL, `synchronous = FULL`); a step that failed changed nothing; only sealed
//! bytes are written. One writer at a time, many readers; other processes may do the same on the same files.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rusqlite::{Connection, params};

use self::columns::Counter;
use self::record::Record;
use super::grant::{Change, Claim, Commit, Committed, Failed, Failure, Grant, SignIn, Status};
use super::holders::Holders;
use super::refresh::{self, Ask, Decision, Row, Successor};
use super::seal::KeyRing;
use super::{Held, Listed, Refusal, Revoked, StoreError, Wanted};
use crate::account::AccountKey;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Rotation};
use crate::fault;
use crate::secret::Secret;

mod audit;
mod backup;
mod columns;
mod listing;
mod open;
mod record;
mod reseal;
mod ring;
mod rotation;
mod tickets;
mod transaction;

pub use self::backup::restore;
pub use self::open::{exists, servers};
pub use self::reseal::Position;
pub use self::rotation::Phase;

/// The most changes in one answer; the next question gets the rest.
const CHANGES: u32 = 4096;
/// How long the refresh token that a provider called dead stays for the operator's eyes.
const DEAD_FOR: Duration = Duration::from_hours(24);
/// The most rows of a table that one transaction of a sweep erases something of.
const SLICE: i64 = 500;
const FORGET_PREVIOUS: &str = "UPDATE grants SET prev_rt = NULL, prev_until = NULL
    WHERE id IN (SELECT id FROM grants WHERE prev_until <= ?1 LIMIT ?2)";
const FORGET_DEAD: &str = "UPDATE grants SET rt = NULL, rt_fp = NULL, prev_rt = NULL, prev_until = NULL
    WHERE id IN (SELECT id FROM grants WHERE reason_dead = 1 AND rt IS NOT NULL AND reason_since <= ?1 LIMIT ?2)";
const FORGET_TICKETS: &str =
    "DELETE FROM tickets WHERE rowid IN (SELECT rowid FROM tickets WHERE expires <= ?1 LIMIT ?2)";

/// The database, open.
pub struct Sqlite {
    file: PathBuf,
    /// Where the master key is, for the day on which the ring changes.
    config: config::Store,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    keys: RwLock<Arc<KeyRing>>,
    /// The generation of a ring that could not be opened: that is said once.
    unreadable: AtomicU64,
    holders: Holders,
    clock: Clock,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// A read and the key check. A database that was deleted still answers, but nobody would ever find what it stores.
    pub fn ready(&self) -> Result<(), StoreError> {
        if let Err(error) = std::fs::metadata(&self.file) {
            return self.named(Err(StoreError::Unavailable(error.to_string())));
        }
        self.read(|connection| open::check_key(connection, &*self.ring(connection)?))
    }

    pub fn opened_by(&self) -> String {
        self.holders.own().to_string()
    }

    pub fn is_reached_at(&self, admin: Option<&config::Listen>) {
        self.holders.is_reached_at(admin);
    }

    pub fn find(&self, alias: &str) -> Result<Option<Grant>, StoreError> {
        self.read(|connection| {
            let record = Record::by_alias(connection, alias)?;
            record.map(|record| record.grant(connection, &*self.ring(connection)?)).transpose()
        })
    }

    pub fn load(&self, key: &AccountKey) -> Result<Option<Grant>, StoreError> {
        self.read(|connection| {
            let record = Record::living(connection, key)?;
            record.map(|record| record.grant(connection, &*self.ring(connection)?)).transpose()
        })
    }

    pub fn holds(&self, key: &AccountKey, refresh_token: &Secret<String>) -> Result<Held, StoreError> {
        let fingerprint = Some(self.fingerprint(refresh_token));
        Ok(match self.read(|connection| Record::living(connection, key))? {
            Some(record) if record.row.token == fingerprint => Held::Now,
            Some(record) if record.row.parent == fingerprint => Held::Before,
            _ => Held::Never,
        })
    }

    pub fn by_id(&self, id: &str) -> Result<Option<Grant>, StoreError> {
        self.read(|connection| {
            let record = Record::by_account_id(connection, id)?;
            record.map(|record| record.grant(connection, &*self.ring(connection)?)).transpose()
        })
    }

    pub fn page(&self, wanted: &Wanted) -> Result<Listed, StoreError> {
        self.read(|connection| listing::page(connection, wanted))
    }

    pub fn idle(&self, provider: &str, before: Timestamp, skip: usize, limit: usize) -> Result<Vec<Grant>, StoreError> {
        self.read(|connection| {
            let records = Record::idle(connection, provider, before, skip, limit)?;
            Ok(records.into_iter().filter_map(|record| record.into_grant(Vec::new())).collect())
        })
    }

    pub fn counts(&self) -> Result<Vec<(String, &'static str, u64)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(columns::COUNTS)?;
            let mut rows = statement.query([])?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                let state: String = row.get(1)?;
                if let Some(name) = columns::STATUSES.into_iter().find(|name| *name == state) {
                    counts.push((row.get(0)?, name, columns::unsigned(row, 2)?));
                }
            }
            Ok(counts)
        })
    }

    /// The step of `claim` on a copy of the record.
    pub fn would_claim(
        &self,
        key: &AccountKey,
        (epoch, version): (u64, u64),
        rotation: Rotation,
    ) -> Result<(Decision, Status), StoreError> {
        let Some(record) = self.read(|connection| Record::living(connection, key))? else {
            return Ok((Decision::Stale, Status::Revoked));
        };
        let mut row = record.row;
        let holder_dead = self.holder_is_dead(&row);
        let ask = Ask { epoch, version, lease: Duration::ZERO, rotation, holder: self.holders.own(), forced: false };
        let decision = refresh::claim(&mut row, &ask, self.clock.now(), holder_dead);
        Ok((decision, row.status))
    }

    pub fn claim(
        &self,
        key: &AccountKey,
        seen: (u64, u64),
        lease: Duration,
        rotation: Rotation,
        forced: bool,
    ) -> Result<Claim, StoreError> {
        fault::point("fp01");
        let answer = self.step(|transaction| {
            let Some(mut record) = Record::living(transaction, key)? else { return Ok(Claim::Missing) };
            let before = record.row.clone();
            let holder_dead = self.holder_is_dead(&record.row);
            let (epoch, version) = seen;
            let ask = Ask { epoch, version, lease, rotation, holder: self.holders.own(), forced };
            let answer = match refresh::claim(&mut record.row, &ask, self.clock.now(), holder_dead) {
                Decision::Claimed { fence, took_over, last_resort } => {
                    let (refresh_token, fingerprint) = record.refresh_token(transaction, &*self.ring(transaction)?)?;
                    Claim::Claimed { fence, refresh_token, fingerprint, took_over, last_resort }
                }
                Decision::Uncertain => Claim::Uncertain,
                Decision::Busy { until } => Claim::Busy { until },
                Decision::Backoff { until } => Claim::Backoff { until },
                Decision::Stale => Claim::Stale,
            };
            // Whoever waits asks again and again: that costs no write.
            if record.row != before {
                record.save(transaction, &before)?;
            }
            Ok(answer)
        })?;
        if matches!(answer, Claim::Claimed { .. }) {
            fault::point("fp02");
        }
        Ok(answer)
    }

    pub fn commit(&self, commit: &Commit) -> Result<Committed, StoreError> {
        let token = commit.refresh_token.as_ref().map(|token| (self.fingerprint(token), token));
        let successor = Successor {
            epoch: commit.epoch,
            parent: commit.parent,
            fence: commit.fence,
            token: token.map(|(fingerprint, _)| fingerprint),
            grace: commit.grace,
            scope_set: &commit.access.scope_set,
            claims: commit.access.claims.as_ref(),
        };
        let committed = self.step(|transaction| {
            let Some(mut record) = Record::living(transaction, &commit.key)? else {
                return Ok(Committed::Refused(Refusal::Missing));
            };
            let before = record.row.clone();
            let now = self.clock.now();
            let (committed, bytes) = refresh::commit(&mut record.row, &successor, now);
            if let Committed::Stored { .. } = committed {
                let keys = &*self.ring(transaction)?;
                let sealed = token.map(|(_, token)| record.sealed(keys, token)).transpose()?;
                record.move_bytes(transaction, bytes, sealed.as_deref())?;
                record.put_access(transaction, keys, &commit.access)?;
                record.refreshed_at = Some(now);
                record.scopes = commit.scopes.clone().unwrap_or(record.scopes);
                record.save(transaction, &before)?;
            }
            Ok(committed)
        })?;
        fault::point("fp08");
        Ok(committed)
    }

    pub fn fail(&self, failure: &Failure, rotation: Rotation) -> Result<Failed, StoreError> {
        self.step(|transaction| {
            let Some(mut record) = Record::living(transaction, &failure.key)? else { return Ok(Failed::Ignored) };
            let before = record.row.clone();
            let Failure { epoch, presented, fence, ref kind, .. } = *failure;
            let failed = refresh::fail(&mut record.row, epoch, presented, fence, kind, rotation, self.clock.now());
            record.save(transaction, &before)?;
            Ok(failed)
        })
    }

    pub fn settle(&self, key: &AccountKey, epoch: u64) -> Result<Option<Status>, StoreError> {
        self.step(|transaction| {
            let Some(mut record) = Record::living(transaction, key)?.filter(|record| record.row.epoch == epoch) else {
                return Ok(None);
            };
            let before = record.row.clone();
            let holder_dead = self.holder_is_dead(&record.row);
            refresh::settle(&mut record.row, self.clock.now(), holder_dead);
            record.save(transaction, &before)?;
            Ok(Some(record.row.status))
        })
    }

    pub fn sign_in(&self, sign_in: &SignIn) -> Result<Grant, StoreError> {
        let fingerprint = self.fingerprint(&sign_in.refresh_token);
        self.step(|transaction| {
            let keys = &*self.ring(transaction)?;
            let now = self.clock.now();
            let mut record = match Record::by_key(transaction, &sign_in.key)? {
                Some(record) => record,
                None => Record::insert(transaction, &sign_in.key, now)?,
            };
            let before = record.row.clone();
            if record.alias.is_none() {
                if Record::by_alias(transaction, sign_in.alias.as_str())?.is_some() {
                    return Err(StoreError::AliasTaken(sign_in.alias.clone()));
                }
                record.alias = Some(sign_in.alias.clone());
                record.created_at = now;
                record.refreshed_at = None;
            }
            let bytes = refresh::sign_in(&mut record.row, fingerprint);
            record.signed_in_at = now;
            record.scopes.clone_from(&sign_in.scopes);
            record.username.clone_from(&sign_in.username);
            let sealed = record.sealed(keys, &sign_in.refresh_token)?;
            record.move_bytes(transaction, bytes, Some(&sealed))?;
            record.erase_access(transaction)?;
            if let Some(access) = &sign_in.access {
                record.put_access(transaction, keys, access)?;
            }
            record.save(transaction, &before)?;
            record.grant(transaction, keys)
        })
    }

    pub fn revoke(&self, key: &AccountKey) -> Result<Option<Revoked>, StoreError> {
        let revoked = self.step(|transaction| {
            let Some(mut record) = Record::living(transaction, key)? else { return Ok(None) };
            let refresh_token = match record.refresh_token(transaction, &*self.ring(transaction)?) {
                Ok((refresh_token, _)) => Some(refresh_token),
                // Nothing that opens is left: the account is to be revoked all the same.
                Err(StoreError::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            record.end(transaction)?;
            Ok(Some(Revoked { refresh_token }))
        })?;
        fault::point("fp11");
        Ok(revoked)
    }

    pub fn remove(&self, key: &AccountKey) -> Result<bool, StoreError> {
        self.step(|transaction| {
            let Some(mut record) = Record::living(transaction, key)? else { return Ok(false) };
            record.end(transaction)?;
            record.bury(transaction)?;
            Ok(true)
        })
    }

    /// One slice of a sweep: whoever has a refresh to store waits for no more than that. True: there is more to erase.
    /// `audit_kept`: how long the audit log goes back.
    pub fn sweep(&self, audit_kept: Duration) -> Result<bool, StoreError> {
        self.step(|transaction| {
            let now = self.clock.now().millis();
            let dead_since = now - i64::try_from(DEAD_FOR.as_millis()).unwrap_or(i64::MAX);
            let mut erased = Vec::new();
            for (erase, until) in [(FORGET_PREVIOUS, now), (FORGET_DEAD, dead_since), (FORGET_TICKETS, now)] {
                erased.push(transaction.prepare_cached(erase)?.execute([until, SLICE])?);
            }
            let kept = i64::try_from(audit_kept.as_millis()).unwrap_or(i64::MAX);
            erased.push(audit::forget(transaction, Timestamp::from_millis(now.saturating_sub(kept)), SLICE)?);
            Ok(erased.into_iter().any(|rows| i64::try_from(rows) == Ok(SLICE)))
        })
    }

    /// Who follows changes follows those of the key ring too.
    pub fn changes(&self, after: u64) -> Result<Vec<Change>, StoreError> {
        self.read(|connection| {
            self.ring(connection)?;
            let mut statement = connection.prepare_cached(
                "SELECT sequence, provider, tenant, subject, changes.alias AS alias
                 FROM changes JOIN grants ON grants.id = changes.grant_id WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
            )?;
            let mut rows = statement.query(params![Counter(after), CHANGES])?;
            let mut changes = Vec::new();
            while let Some(row) = rows.next()? {
                let sequence = columns::unsigned(row, 0)?;
                changes.push(Change { sequence, key: columns::key(row)?, alias: row.get("alias")? });
            }
            Ok(changes)
        })
    }

    pub fn sequence(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let newest = "SELECT coalesce(max(sequence), 0) FROM changes";
            Ok(connection.prepare_cached(newest)?.query_row([], |row| columns::unsigned(row, 0))?)
        })
    }

    fn holder_is_dead(&self, row: &Row) -> bool {
        row.intent.is_some_and(|intent| self.holders.is_dead(intent.holder))
    }
}

#[cfg(test)]
mod tests;
