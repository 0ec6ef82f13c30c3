//! Keeping the audit log: what is about to be done is recorded first, and what can't be recorded isn't done.
//!
//! Records stay in the store until their time is over, linked by keyed digests: one that was changed or taken out from between is found.

use std::fmt::Display;
use std::time::Duration;

use super::{Sqlite, Store, StoreError};
use crate::audit::{Denials, Entry, Event, Outcome, Record};
use crate::clock::{Clock, Timestamp};

const DENIALS_EVERY: Duration = Duration::from_secs(1);

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Of the account with this id.
    pub account_id: Option<String>,
    pub event: Option<Event>,
    pub outcome: Option<Outcome>,
    /// The page goes on after the record with this sequence number.
    pub after: Option<u64>,
    /// The newest first.
    pub newest_first: bool,
    pub limit: usize,
}

/// A page of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    pub records: Vec<Record>,
    /// `after` of the next page; `None`: this is the last. A page may be short, even empty, and have a next one.
    pub next: Option<u64>,
}

/// What is wrong with the kept records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditFlaw {
    #[error("record {0} was changed, or records before it were taken out")]
    Changed(u64),
}

impl Store {
    /// Records something that happened. What can't be kept is in the log all the same.
    pub async fn audit(&self, entry: Entry) -> Result<u64, StoreError> {
        self.append(vec![entry], None).await
    }

    /// Records what happened, all of it or nothing.
    pub async fn audit_all(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.append(entries, None).await.map(drop)
    }

    /// Records what is about to be done, does it, and records what came of it; `describe` adds to that what only the result knows.
    /// What can't be recorded is not done.
    pub async fn audited<T, E>(
        &self,
        entry: Entry,
        describe: impl FnOnce(Entry, &T) -> Entry,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<StoreError> + Display,
    {
        let intent = self.append(vec![entry.clone().with(Outcome::Intended)], None).await?;
        let done = act.await;
        let entry = match &done {
            Ok(value) => describe(entry, value).with(Outcome::Done),
            Err(error) => entry.because(error).with(Outcome::Failed),
        };
        // The intent says that something was done; the log says what came of it.
        if let Err(error) = self.append(vec![entry], Some(intent)).await {
            tracing::error!(%error, intent, "what came of an act can't be recorded");
        }
        done
    }

    /// Records what clients were denied, a second later, until the process ends.
    pub async fn keep_denials(&self, denials: &Denials, clock: &Clock) {
        let mut beat = tokio::time::interval(DENIALS_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.keep(denials.take(clock.moment(), false)).await;
        }
    }

    /// Records whatever of them waits.
    pub async fn keep_last_denials(&self, denials: &Denials, clock: &Clock) {
        self.keep(denials.take(clock.moment(), true)).await;
    }

    async fn keep(&self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        if let Err(error) = self.audit_all(entries).await {
            tracing::warn!(%error, "what clients were denied can't be recorded; it is in the log");
        }
    }

    /// A page of records.
    pub async fn audit_page(&self, query: AuditQuery) -> Result<AuditPage, StoreError> {
        self.run("audit_page", move |backend| backend.audit_page(&query)).await
    }

    /// Looks through the records after `after`, some of them; the answer is where to go on, `None` at the end.
    pub async fn audit_check(&self, after: Option<u64>) -> Result<Result<Option<u64>, AuditFlaw>, StoreError> {
        self.run("audit_check", move |backend| backend.audit_check(after)).await
    }

    async fn append(&self, entries: Vec<Entry>, intent: Option<u64>) -> Result<u64, StoreError> {
        let lost = self.observer.clone();
        self.run("audit", move |backend| {
            let (records, kept) = backend.audit(entries, intent);
            for record in &records {
                record.log();
            }
            if let (Err(_), Some((metrics, _))) = (&kept, lost) {
                metrics.audit_lost(records.len());
            }
            kept
        })
        .await
    }
}

impl Sqlite {
    /// The records as they are logged, kept or not, and the sequence number of the last one that is kept.
    fn audit(&self, entries: Vec<Entry>, intent: Option<u64>) -> (Vec<Record>, Result<u64, StoreError>) {
        let now = self.now();
        let mut records: Vec<_> = entries.into_iter().map(|entry| Record::new(entry, intent, now)).collect();
        let kept = self.append_audit(&mut records);
        (records, kept)
    }
}
