//! How much at once: the limits of one client, and of all requests together. Every refusal is cheap and comes before the body is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::{Kind, Refusal};
use crate::clock::Moment;
use crate::config::ClientLimits;

/// The gate of one client: requests a second (a token bucket of one second's worth) and requests at the same time.
pub struct ClientGate {
    concurrent: Option<Arc<Counter>>,
    rate: Option<Mutex<Bucket>>,
}

/// Counts what is under way against a limit.
pub struct Counter {
    now: AtomicUsize,
    limit: usize,
}

/// One thing under way; gone when dropped.
pub struct Pass(Arc<Counter>);

struct Bucket {
    per_second: f64,
    filled: f64,
    at: Moment,
}

impl ClientGate {
    pub fn new(limits: ClientLimits) -> Self {
        Self {
            concurrent: limits.concurrent.map(|limit| Arc::new(Counter::new(limit))),
            rate: limits.requests_per_second.map(|per_second| {
                Mutex::new(Bucket { per_second, filled: per_second.max(1.0), at: Moment::default() })
            }),
        }
    }

    /// The pass has to be kept until the answer is done.
    pub fn enter(&self, now: Moment) -> Result<Option<Pass>, Refusal> {
        if let Some(rate) = &self.rate {
            let wait = rate.lock().unwrap_or_else(PoisonError::into_inner).take(now);
            if let Some(wait) = wait {
                return Err(Kind::Throttled
                    .because("this client sends more requests a second than it may")
                    .after(wait));
            }
        }
        let Some(counter) = &self.concurrent else {
            return Ok(None);
        };
        counter.enter().map(Some).ok_or_else(|| {
            Kind::Throttled
                .because("this client has as many requests under way as it may")
                .after(Duration::from_secs(1))
        })
    }
}

impl Counter {
    pub fn new(limit: usize) -> Self {
        Self { now: AtomicUsize::new(0), limit }
    }

    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        if self.now.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Some(Pass(Arc::clone(self)));
        }
        self.now.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bucket {
    /// Takes one; or says how long until there is one.
    fn take(&mut self, now: Moment) -> Option<Duration> {
        let gained = now.since(self.at).as_secs_f64() * self.per_second;
        self.filled = (self.filled + gained).min(self.per_second.max(1.0));
        self.at = self.at.max(now);
        if self.filled >= 1.0 {
            self.filled -= 1.0;
            return None;
        }
        Some(Duration::try_from_secs_f64((1.0 - self.filled) / self.per_second).unwrap_or(Duration::from_secs(3600)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};

    #[test]
    fn a_rate_refills_with_time() {
        let clock = Clock::manual(Timestamp::default());
        let gate = ClientGate::new(ClientLimits { requests_per_second: Some(2.0), concurrent: None });
        let enter = || gate.enter(clock.moment()).map(|_| ()).map_err(|refusal| refusal.retry_after.unwrap());
        assert_eq!([enter(), enter()], [Ok(()), Ok(())]);
        assert_eq!(enter(), Err(Duration::from_millis(500)));
        clock.advance(Duration::from_millis(500));
        assert_eq!(enter(), Ok(()));
        assert!(enter().is_err());
    }

    #[test]
    fn a_pass_is_given_back() {
        let gate = ClientGate::new(ClientLimits { requests_per_second: None, concurrent: Some(1) });
        let first = gate.enter(Moment::default()).unwrap();
        assert!(gate.enter(Moment::default()).is_err());
        drop(first);
        assert!(gate.enter(Moment::default()).is_ok());
    }
}
