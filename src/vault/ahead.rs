//! Refreshes ahead of need: a token that ages is renewed though no request comes in that window, if its account is in use. Whoever
//! has not used the token since it came is left alone.
//!
//! Invariant: never more flights in the air than the gate has use for; nothing is started while the provider is left alone or
//! everything ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::lease::Lease;
use super::slot::{Landing, Want};
use super::{Inner, LeaseError, ProviderEntry, Subject, UpstreamId, Vault};
use crate::clock::Moment;

/// Ageing takes minutes; a look through the slots takes microseconds.
const EVERY: Duration = Duration::from_secs(2);

/// A token that is to be renewed.
struct Due {
    subject: Subject,
    upstream: UpstreamId,
    lease: Arc<Lease>,
}

impl Vault {
    /// Starts what is done ahead of need for as long as the configuration is in force. A provider that is slow or ill holds up its own
    /// part only.
    pub(super) fn start_upkeep(&self) {
        for (id, entry) in &self.0.providers {
            // The gate may be that of the configuration before.
            entry.gate.limit(entry.token_requests);
            let (vault, id, entry) = (Arc::clone(&self.0), id.clone(), Arc::clone(entry));
            self.until_retired(async move {
                let mut beat = tokio::time::interval(EVERY);
                beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    beat.tick().await;
                    vault.refresh_due(&id, &entry).await;
                }
            });
        }
        let vault = self.clone();
        self.until_retired(async move { vault.keep_alive_for_ever().await });
    }

    /// What `work` has begun goes on: it is detached.
    fn until_retired(&self, work: impl Future<Output = ()> + Send + 'static) {
        let retired = self.0.retired.clone();
        self.0.tasks.spawn_forever(async move {
            retired.run_until_cancelled(work).await;
        });
    }

    /// Renews every token that ages and was used since it came, and returns when that has ended: what the beat does every few
    /// seconds.
    pub async fn refresh_ahead(&self) {
        for (id, entry) in &self.0.providers {
            self.0.refresh_due(id, entry).await;
        }
    }
}

impl Inner {
    /// Whether one more flight for this upstream would get somewhere soon. Otherwise the beat takes it up later.
    pub(super) fn has_room_ahead(&self, upstream: UpstreamId) -> bool {
        let entry = self.upstreams.get(upstream.at).and_then(|upstream| self.providers.get(&upstream.provider));
        entry.is_some_and(|entry| entry.gate.has_room_ahead())
    }

    async fn refresh_due(self: &Arc<Self>, provider: &str, entry: &ProviderEntry) {
        let mut due = self.due(provider, self.clock.moment());
        due.sort_unstable_by_key(|due| due.lease.expires);
        let mut air: VecDeque<(watch::Receiver<Landing>, Arc<Lease>)> = VecDeque::new();
        for Due { subject, upstream, lease } in due {
            if air.len() >= entry.gate.flights_ahead()
                && let Some((oldest, lease)) = air.pop_front()
                && !landed(oldest, &lease).await
            {
                break;
            }
            if self.leaves_alone(entry) {
                break;
            }
            if lease.is_due(self.clock.moment()) {
                let flight = self.fly_ahead(&subject, upstream, Want::newer_than(lease.version));
                air.extend(flight.map(|flight| (flight, lease)));
            }
        }
        for (flight, lease) in air {
            landed(flight, &lease).await;
        }
    }

    fn due(&self, provider: &str, now: Moment) -> Vec<Due> {
        let of_provider = self.ids().filter(|(_, upstream)| upstream.provider == provider);
        let upstreams: Vec<UpstreamId> = of_provider.map(|(id, _)| id).collect();
        let mut due = Vec::new();
        for slot in &self.memory.slots {
            for upstream in &upstreams {
                if let Some(lease) = slot.lease(upstream.place).filter(|lease| lease.is_due(now)) {
                    due.push(Due { subject: Subject::User(slot.key().clone()), upstream: *upstream, lease });
                }
            }
        }
        due
    }

    /// Nothing that can wait is presented at this provider now.
    pub(super) fn leaves_alone(&self, entry: &ProviderEntry) -> bool {
        let refused = entry.refused(self.clock.moment()).is_err();
        refused || !entry.gate.shut_for().is_zero() || self.tasks.is_draining()
    }
}

/// Waits for the end of a flight that was to replace `lease`. False: the next ones would fare no better.
async fn landed(mut flight: watch::Receiver<Landing>, lease: &Lease) -> bool {
    // An error means that the flight is gone.
    let Ok(landing) = flight.wait_for(Option::is_some).await else { return true };
    match landing.as_ref().and_then(|landing| landing.as_ref().err()).map(|ended| &ended.error) {
        None | Some(LeaseError::ProviderUnavailable { .. } | LeaseError::AppCredential(_)) => true,
        Some(LeaseError::StoreUnavailable(_)) => false,
        // A person is needed: that is not asked again and again, but when somebody comes.
        Some(_) => {
            lease.forget_use();
            true
        }
    }
}
