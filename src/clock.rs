//! Time, in two kinds that don't mix: `Timestamp` is the wall clock (what is stored and shown), `Moment` is monotonic
//! (what durations and deadlines inside one process are measured with). Nothing else asks the system for the time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to here; zero where `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339, in UTC, to the second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.secs()) {
            Ok(at) => write!(f, "{at}"),
            Err(_) => write!(f, "@{}", self.secs()),
        }
    }
}

/// A point of monotonic time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(Duration);

/// Monotonic time starts here and not at zero, so that things older than the process have a moment too.
const ORIGIN: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Moment {
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// The time from `earlier` to here; zero where `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both kinds of time, read together: what the one says is the other's, however the wall clock is set afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub wall: Timestamp,
    pub moment: Moment,
}

/// Where the time comes from: the system, or a test's hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Manual(Arc<Hand>),
}

/// The two hands of a manual clock.
#[derive(Debug, Default)]
struct Hand {
    wall_millis: AtomicI64,
    monotonic_millis: AtomicU64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// A clock that stands still until `advance` or `step_wall`.
    pub fn manual(start: Timestamp) -> Self {
        let hand = Hand::default();
        hand.wall_millis.store(start.0, Ordering::SeqCst);
        Self(Source::Manual(Arc::new(hand)))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)),
            Source::Manual(hand) => Timestamp(hand.wall_millis.load(Ordering::SeqCst)),
        }
    }

    /// The wall clock in microseconds since the Unix epoch, for logs.
    pub fn now_micros(&self) -> i64 {
        match &self.0 {
            Source::System { .. } => i64::try_from(since_epoch().as_micros()).unwrap_or(i64::MAX),
            Source::Manual(_) => self.now().millis().saturating_mul(1000),
        }
    }

    pub fn moment(&self) -> Moment {
        match &self.0 {
            Source::System { origin } => Moment(ORIGIN + origin.elapsed()),
            Source::Manual(hand) => {
                Moment(ORIGIN + Duration::from_millis(hand.monotonic_millis.load(Ordering::SeqCst)))
            }
        }
    }

    pub fn read(&self) -> Reading {
        Reading { wall: self.now(), moment: self.moment() }
    }

    /// Moves both hands of a manual clock forward. A system clock takes no orders.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hand) = &self.0 {
            let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hand.monotonic_millis.fetch_add(millis, Ordering::SeqCst);
            hand.wall_millis.fetch_add(i64::try_from(millis).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Steps the wall clock only, as an operator or NTP does.
    pub fn step_wall(&self, by_millis: i64) {
        if let Source::Manual(hand) = &self.0 {
            hand.wall_millis.fetch_add(by_millis, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let before = clock.moment();
        clock.advance(Duration::from_secs(5));
        clock.step_wall(-60_000);
        assert_eq!(clock.now(), Timestamp::from_secs(945));
        assert_eq!(clock.moment().since(before), Duration::from_secs(5));
    }

    #[test]
    fn shows_rfc_3339() {
        assert_eq!(Timestamp::from_secs(1_635_527_790).to_string(), "2021-10-29T17:16:30Z");
    }
}
