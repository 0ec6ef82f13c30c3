//! Backup and restore. A backup is the database as it is, sealed; the master key is kept elsewhere.
//!
//! A backup is old when it is needed. So a restored grant begins a new life: at a strict provider it is uncertain, and its token is tried
//! once; what was revoked or removed since is ended again, as far as an export of the audit log tells; links that were out are void.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Sqlite, Store, StoreError, finished, sqlite};
use crate::audit::{Entry, Event, Record};
use crate::clock::Clock;
use crate::config::{self, Rotation};
use crate::tasks::Tasks;

/// The end of a grant, after the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub sequence: u64,
    /// `Revoke` or `Remove`.
    pub event: Event,
    pub account_id: String,
}

impl Gone {
    /// What an exported record says of the end of a grant. An act that was begun counts: nobody knows that it had no effect.
    pub fn of(record: &Record) -> Option<Self> {
        let event = [Event::Revoke, Event::Remove].into_iter().find(|event| event.name() == record.event)?;
        let account_id = record.account_id.clone()?;
        Some(Self { sequence: record.sequence, event, account_id })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Those that have begun a new life.
    pub grants: u64,
    /// Those that were revoked or removed after the backup.
    pub ended: u64,
    /// Those that don't open: they need a sign-in.
    pub unreadable: u64,
}

impl Store {
    /// A copy of the store as it is now, in a new file; its size in bytes.
    pub async fn backup(&self, file: &Path) -> Result<u64, StoreError> {
        let file = file.to_owned();
        self.run("backup", move |backend: &Sqlite| backend.backup(&file)).await
    }

    /// Makes the store of `config`, where there is none, from a backup. `rotations`: by provider; one that is not named is strict.
    pub async fn restore(
        config: &config::Store,
        backup: &Path,
        rotations: BTreeMap<String, Rotation>,
        gone: Vec<Gone>,
        entry: Entry,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Restored, StoreError> {
        let (config, backup) = (config.clone(), backup.to_owned());
        let work = move || sqlite::restore(&config, &backup, &rotations, &gone, entry, &clock);
        finished(tasks.spawn_blocking(work).await)
    }
}
