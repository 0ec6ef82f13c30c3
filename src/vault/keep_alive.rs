//! Keeps grants from lapsing: a refresh token that nobody uses for `idle_limit` (90 days at Entra ID) is dead, so whatever lies idle
//! is refreshed long before.
//!
//! Invariants: one grant after the other, ahead of time; never all at once, neither after a start nor because many were signed in
//! together. Several processes may sweep: the claim keeps them from doing it twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::slot::{Ended, Want};
use super::timing::spread;
use super::{Inner, LeaseError, ProviderEntry, Subject, UpstreamId, Vault};
use crate::clock::{Moment, Timestamp};
use crate::store::{Grant, StoreError};

/// After a start nothing is done at first: requests come before.
const FIRST: Duration = Duration::from_secs(300);
const EVERY: Duration = Duration::from_secs(3600);
/// The clock is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// Grants read at a time.
const PAGE: usize = 200;
/// The most of one sweep and one provider; the longest idle come first.
const MOST: usize = 5_000;
/// A sweep takes this part of what is due, and no fewer than `FEWEST`: so what has gathered is spread over days.
const PART: usize = 24;
const FEWEST: usize = 10;
/// The most accounts in one line of the log.
const NAMED: usize = 20;
const A_DAY: Duration = Duration::from_secs(24 * 3600);

impl Vault {
    pub(super) async fn keep_alive_for_ever(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.0.memory.schedule.is_due(self.0.clock.moment()) {
                self.sweep_idle().await;
            }
        }
    }

    /// One sweep, as the beat does it every hour: refreshes some of the grants that have been idle for more than a third of the
    /// limit, and counts those that are about to lapse.
    pub async fn keep_alive(&self) {
        self.sweep_idle().await;
    }

    async fn sweep_idle(&self) {
        for (id, entry, limit) in self.0.with_limit() {
            if let Err(error) = self.0.refresh_idle(id, entry, limit).await {
                tracing::error!(provider = id, %error, "idle grants can't be looked up");
            }
        }
        self.count_lapsing().await;
    }

    /// The gauge, and once a day the log.
    async fn count_lapsing(&self) {
        let now = self.0.clock.moment();
        let silent = self.0.memory.schedule.warned().is_some_and(|at| now.since(at) < A_DAY);
        for (id, _, limit) in self.0.with_limit() {
            let before = ago(self.0.clock.now(), limit * 4 / 5);
            let Ok(lapsing) = self.0.store.idle(id, before, 0, MOST).await else { continue };
            self.0.metrics.grants_lapsing(id, lapsing.len());
            if !silent && !lapsing.is_empty() {
                *self.0.memory.schedule.warned() = Some(now);
                let accounts: Vec<&str> = lapsing.iter().take(NAMED).map(|grant| grant.alias.as_str()).collect();
                tracing::warn!(
                    provider = id,
                    count = lapsing.len(),
                    ?accounts,
                    "grants lapse soon: they have not been used for a long time and could not be refreshed"
                );
            }
        }
    }
}

/// When what is done seldom was done last: reloads may come more often.
#[derive(Default)]
pub(super) struct Schedule {
    next: Mutex<Option<Moment>>,
    /// When the log warned last.
    warned: Mutex<Option<Moment>>,
}

impl Schedule {
    fn is_due(&self, now: Moment) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now >= *next.get_or_insert(now.plus(FIRST));
        if due {
            *next = Some(now.plus(EVERY));
        }
        due
    }

    fn warned(&self) -> MutexGuard<'_, Option<Moment>> {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn with_limit(&self) -> impl Iterator<Item = (&str, &ProviderEntry, Duration)> {
        self.providers.iter().filter_map(|(id, entry)| Some((id.as_str(), &**entry, entry.idle_limit?)))
    }

    async fn refresh_idle(
        self: &Arc<Self>,
        provider: &str,
        entry: &ProviderEntry,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let due = self.due_for_use(provider, limit, now).await?;
        let quota = due.len().div_ceil(PART).max(FEWEST);
        for (number, grant) in due.into_iter().enumerate() {
            let urgent = idle(&grant, now) > limit * 4 / 5;
            if (number >= quota && !urgent) || self.leaves_alone(entry) {
                break;
            }
            let Some(upstream) = self.upstream_for(&grant) else { continue };
            let subject = Subject::User(grant.alias.clone());
            let Some(mut flight) = self.fly_ahead(&subject, upstream, Want::newer_than(grant.version)) else {
                continue;
            };
            // An error means that the flight is gone.
            let ended = flight.wait_for(Option::is_some).await;
            if matches!(ended.as_deref(), Ok(Some(Err(Ended { error: LeaseError::StoreUnavailable(_), .. })))) {
                break;
            }
        }
        Ok(())
    }

    /// However many there are that only a person can help: they do not take the places of the others.
    async fn due_for_use(&self, provider: &str, limit: Duration, now: Timestamp) -> Result<Vec<Grant>, StoreError> {
        let (mut due, mut looked_at) = (Vec::new(), 0);
        loop {
            let page = self.store.idle(provider, ago(now, limit / 3), looked_at, PAGE).await?;
            looked_at += PAGE;
            let is_last = page.len() < PAGE;
            due.extend(
                page.into_iter().filter(|grant| is_due(grant, limit, now) && self.upstream_for(grant).is_some()),
            );
            if is_last || due.len() >= MOST {
                return Ok(due);
            }
        }
    }

    /// The first upstream of the grant's provider for which nothing waits for a sign-in.
    fn upstream_for(&self, grant: &Grant) -> Option<UpstreamId> {
        let fits = self.ids().find(|(_, upstream)| {
            upstream.provider == grant.key.provider && grant.parked_for(&upstream.scope_set, None).is_none()
        });
        fits.map(|(id, _)| id)
    }
}

/// A third of the limit, and up to a ninth more, by the account: those who signed in together do not come together.
fn is_due(grant: &Grant, limit: Duration, now: Timestamp) -> bool {
    let part = u32::try_from(spread(&grant.key.id(), 0) % 1000).unwrap_or(0);
    idle(grant, now) >= limit / 3 + limit / 9 * part / 1000
}

fn idle(grant: &Grant, now: Timestamp) -> Duration {
    now.since(grant.signed_in_at.max(grant.refreshed_at.unwrap_or_default()))
}

fn ago(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_millis(now.millis().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountKey, Alias};
    use crate::store::Status;

    const DAY: i64 = 24 * 3600;
    const LIMIT: Duration = Duration::from_secs(90 * 24 * 3600);

    fn grant(subject: &str, signed_in: i64, refreshed: Option<i64>) -> Grant {
        Grant {
            key: AccountKey { provider: "entra".into(), tenant: "t".into(), subject: subject.into() },
            alias: Alias::new("alice").unwrap(),
            epoch: 1,
            version: 1,
            status: Status::Active,
            scopes: Vec::new(),
            access: Vec::new(),
            username: None,
            created_at: Timestamp::default(),
            signed_in_at: Timestamp::from_secs(signed_in * DAY),
            refreshed_at: refreshed.map(|day| Timestamp::from_secs(day * DAY)),
            next_try: None,
            fail_count: 0,
            intent: false,
            parked: Vec::new(),
        }
    }

    #[test]
    fn those_who_signed_in_together_come_over_ten_days() {
        let grants: Vec<Grant> = (0..1000).map(|number| grant(&number.to_string(), 0, None)).collect();
        let due =
            |day: i64| grants.iter().filter(|grant| is_due(grant, LIMIT, Timestamp::from_secs(day * DAY))).count();
        assert_eq!((due(29), due(40)), (0, 1000));
        for day in 30..40 {
            let new = due(day + 1) - due(day);
            assert!((40..200).contains(&new), "{new} on day {day}");
        }
    }

    #[test]
    fn the_last_use_counts_whichever_it_was() {
        let at = |day: i64| Timestamp::from_secs(day * DAY);
        assert_eq!(idle(&grant("s", 10, Some(30)), at(31)).as_secs(), 24 * 3600);
        assert_eq!(idle(&grant("s", 30, Some(10)), at(31)).as_secs(), 24 * 3600);
        assert_eq!(idle(&grant("s", 30, None), at(20)), Duration::ZERO, "the clock was set back");
        assert_eq!(ago(at(31), Duration::from_secs(24 * 3600)), at(30));
    }
}
