//! The beat. Hears what others did to grants: this process's pages, another process's commands. A revocation is in force here within
//! a quarter of a second, whoever made it. Starts what is done ahead of need, and sets the gauges that nothing else sets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::slot::Source;
use super::{Inner, Vault};
use crate::account::Alias;
use crate::store::StoreError;

const EVERY: Duration = Duration::from_millis(250);
/// Slots that nobody would miss leave memory this often.
const TIDY_EVERY: u32 = 240;
/// The gauges of accounts and leases are set this often.
const COUNT_EVERY: u32 = 40;
/// How many days before the end of our own credential the log warns.
const WARN_DAYS: [i64; 4] = [30, 7, 1, 0];
const DAY: i64 = 24 * 3600;
/// The store erases what its time is over this often.
const SWEEP_EVERY: u32 = 2400;

impl Vault {
    /// Follows the store's changes, and refreshes ahead of need, until another configuration is in force or the process ends.
    pub async fn watch(&self) {
        self.0.retired.run_until_cancelled(self.watch_for_ever()).await;
    }

    async fn watch_for_ever(&self) {
        self.start_upkeep();
        let mut warned = BTreeMap::new();
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        for round in 1_u32.. {
            beat.tick().await;
            match self.catch_up().await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("the store is back");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the store can't be watched; leases are served to their expiry");
                    }
                }
            }
            if round % COUNT_EVERY == 1 {
                self.count().await;
                self.count_credentials(&mut warned);
            }
            if round.is_multiple_of(TIDY_EVERY) {
                self.tidy();
            }
            if round.is_multiple_of(SWEEP_EVERY)
                && let Err(error) = self.0.store.sweep().await
            {
                tracing::error!(%error, "the store can't be swept");
            }
        }
    }

    /// Follows every change since the last call: when this returns, everything that was stored before the call is in force.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        let mut seen = inner.memory.seen.lock().await;
        let Some(mut after) = *seen else {
            let newest = inner.store.sequence().await?;
            let known: Vec<_> = inner.memory.slots.iter().map(|slot| slot.key().clone()).collect();
            for alias in known {
                inner.follow(&alias).await?;
            }
            *seen = Some(newest);
            return Ok(());
        };
        loop {
            let changes = inner.store.changes(after).await?;
            if changes.is_empty() {
                return Ok(());
            }
            for change in changes {
                inner.follow(&change.alias).await?;
                after = change.sequence;
                *seen = Some(after);
            }
        }
    }

    async fn count(&self) {
        if let Ok(counts) = self.0.store.counts().await {
            for (provider, state, count) in counts {
                self.0.metrics.accounts(&provider, state, usize::try_from(count).unwrap_or(usize::MAX));
            }
        }
        let now = self.0.clock.moment();
        let (mut living, mut expired) = self.0.minted.count_leases(now);
        for slot in &self.0.memory.slots {
            let (lives, dead) = slot.count_leases(now);
            living += lives;
            expired += dead;
        }
        self.0.metrics.leases("living", living);
        self.0.metrics.leases("expired", expired);
    }

    /// How long our own credentials are still good for; `warned`: the warning that each provider had last.
    fn count_credentials(&self, warned: &mut BTreeMap<String, i64>) {
        let inner = &self.0;
        for (id, entry) in &inner.providers {
            let Some(expiry) = entry.provider.credential_expiry() else { continue };
            let left = expiry.secs().saturating_sub(inner.clock.now().secs());
            inner.metrics.credential_expires_in(id, left);
            let due = warning_due(left);
            if let Some(days) = due.filter(|days| warned.get(id).is_none_or(|last| days < last)) {
                if left > 0 {
                    tracing::warn!(provider = id, %expiry, days, "our credential at this provider expires within so many days");
                } else {
                    tracing::warn!(provider = id, %expiry, "our credential at this provider has expired");
                }
            }
            // A new credential starts over.
            match due {
                Some(days) => warned.insert(id.clone(), days),
                None => warned.remove(id),
            };
        }
    }

    fn tidy(&self) {
        let now = self.0.clock.moment();
        self.0.memory.slots.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_idle(now));
        self.0.minted.tidy(now);
    }
}

impl Inner {
    /// Memory, where it knows the account, becomes what the store says now.
    pub(super) async fn follow(&self, alias: &Alias) -> Result<(), StoreError> {
        let Some(slot) = self.memory.slots.get(alias).map(|slot| Arc::clone(&slot)) else { return Ok(()) };
        loop {
            let turn = slot.turn();
            let grant = match self.store.find(alias.as_str()).await {
                Err(StoreError::Corrupt { record, why }) => {
                    tracing::error!(record, why, "a record can't be opened; its leases are dropped");
                    None
                }
                found => found?,
            };
            if slot.follow(turn, self.leases(grant.as_ref(), None), Source::Change).is_some() {
                return Ok(());
            }
        }
    }
}

/// Which of the warnings is due with so many seconds left.
fn warning_due(left: i64) -> Option<i64> {
    WARN_DAYS.into_iter().filter(|days| left <= days * DAY).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_warning_counts() {
        let cases = [(31 * DAY, None), (30 * DAY, Some(30)), (8 * DAY, Some(30)), (7 * DAY, Some(7)), (DAY, Some(1))];
        for (left, expected) in cases.into_iter().chain([(1, Some(1)), (0, Some(0)), (-DAY, Some(0))]) {
            assert_eq!(warning_due(left), expected, "{left}");
        }
    }
}
