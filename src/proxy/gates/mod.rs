//! A gate for each account and workload of Graph, so that applications behind one app registration don't throttle each other: so many at a
//! time, first come first served, and a pause for all after a 429. And the budget of retries of each upstream.
//!
//! A request keeps its place until its answer is done, through all of its attempts and waits: one request has one place, so that none
//! ever waits for its own. Nobody waits longer than the request's patience. Gates are shared by all workers, known by a keyed hash, and
//! gone when nobody is at them and no pause is in force. Accounts never share a gate, even where they name the same mailbox: nobody can
//! hold up another's.

mod budget;
mod house;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

pub use self::budget::Budget;
use self::house::{House, Key, Turn};
use super::error::{Kind, Refusal};
use super::patience::Patience;
use crate::clock::Clock;
use crate::config::{self, UpstreamKind};
use crate::graph::workload::workload;
use crate::metrics::Metrics;
use crate::vault::Subject;

/// Where all places are taken, nobody knows until when.
const ALL_TAKEN: Duration = Duration::from_secs(1);

/// The gates and budgets of all upstreams.
pub struct Gates(Vec<Arc<AtUpstream>>);

struct AtUpstream {
    budget: Budget,
    /// Graph's only.
    house: Option<Arc<House>>,
}

/// One request at its gate; leaves when dropped.
pub struct Place {
    house: Arc<House>,
    key: Key,
    /// Whether the gate counts it. Where there is neither a limit nor a pause, nothing has to be counted.
    counted: bool,
    seat: Option<OwnedSemaphorePermit>,
}

impl Gates {
    /// `upstreams` in the order in which they are asked for. One that comes with its place among the gates `before` keeps what it had there.
    pub fn new<'c>(
        upstreams: impl Iterator<Item = (&'c config::Upstream, Option<usize>)>,
        before: Option<&Self>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Self {
        let at = |(config, known): (&config::Upstream, Option<usize>)| {
            if let (Some(known), Some(before)) = (known, before) {
                return Arc::clone(&before.0[known]);
            }
            let graph = config.kind == UpstreamKind::Graph;
            Arc::new(AtUpstream {
                budget: Budget::new(config.throttling.retry_budget, clock.moment()),
                house: graph.then(|| Arc::new(House::new(config, clock, metrics))),
            })
        };
        Self(upstreams.map(at).collect())
    }

    pub fn budget(&self, upstream: usize) -> &Budget {
        &self.0[upstream].budget
    }

    /// Waits for a place. `path` is canonical. A client that wants no retries is told of pauses by the upstream itself.
    pub async fn enter(
        &self,
        upstream: usize,
        subject: &Subject,
        path: &str,
        patience: &mut Patience,
    ) -> Result<Option<Place>, Refusal> {
        match &self.0[upstream].house {
            Some(house) => Place::take(house, house.key(workload(path), subject), patience).await.map(Some),
            None => Ok(None),
        }
    }

    /// The upstream throttles what `path` leads to, though no request of its own went there. `path` is canonical.
    pub fn pause(&self, upstream: usize, subject: &Subject, path: &str, wait: Duration) {
        if let Some(house) = &self.0[upstream].house {
            house.pause(house.key(workload(path), subject), wait);
        }
    }
}

impl Place {
    async fn take(house: &Arc<House>, key: Key, patience: &mut Patience) -> Result<Self, Refusal> {
        let mut place = Self { house: Arc::clone(house), key, counted: false, seat: None };
        if house.is_open(key) {
            return Ok(place);
        }
        let turn = house.arrive(key);
        place.counted = true;
        if patience.may_retry {
            place.check_pause(patience)?;
        }
        place.seat = match turn {
            Turn::Unlimited => None,
            Turn::Now(seat) => Some(seat),
            Turn::Later(seats) => {
                let _waiting = place.house.wait(key).ok_or_else(|| place.crowded())?;
                let seat = tokio::time::timeout(patience.left(), seats.acquire_owned()).await;
                Some(seat.ok().and_then(Result::ok).ok_or_else(|| place.crowded())?)
            }
        };
        if patience.may_retry && place.pause_left().is_some() {
            let _waiting = place.house.wait(key).ok_or_else(|| place.crowded())?;
            while let Some(wait) = place.check_pause(patience)? {
                tokio::time::sleep(wait).await;
                patience.waited(wait);
            }
        }
        Ok(place)
    }

    /// The upstream throttles this workload: nobody else goes there for so long.
    pub fn throttled(&self, wait: Duration) {
        self.house.pause(self.key, wait);
    }

    /// How long the workload still pauses.
    pub fn pause_left(&self) -> Option<Duration> {
        self.house.pause_left(self.key)
    }

    fn check_pause(&self, patience: &Patience) -> Result<Option<Duration>, Refusal> {
        let left = self.pause_left();
        match left {
            Some(wait) if wait > patience.left() => {
                let why = format!("Graph throttles this account's {}: a pause is in force", self.key.service.name());
                Err(self.refused(why).after(wait))
            }
            _ => Ok(left),
        }
    }

    fn crowded(&self) -> Refusal {
        let service = self.key.service.name();
        let why = format!("too many requests for this account's {service} are under way or wait");
        self.refused(why).after(ALL_TAKEN)
    }

    fn refused(&self, why: String) -> Refusal {
        self.house.count_refused(self.key);
        Kind::Throttled.because(why)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.counted {
            self.seat = None;
            self.house.leave(self.key);
        }
    }
}

#[cfg(test)]
mod tests;
