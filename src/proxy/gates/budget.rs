//! How many retries an upstream has to bear: a part of the requests of the last ten seconds, and a floor for quiet times.
//!
//! Every worker draws on the same budget. A request costs one atomic update and takes no lock; a retry, which is rare, takes one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::Moment;

/// Seconds that count; the one that has begun is a part of the window.
const WINDOW: u64 = 10;
/// Retries in a second that are always allowed.
const FLOOR: u32 = 10;
/// More than the window has, so that a second never meets its predecessor in it.
const SLOTS: usize = 11;

pub struct Budget {
    fraction: f64,
    start: Moment,
    /// For each second of the window: the second in the upper half, how many requests began in it in the lower one.
    requests: [AtomicU64; SLOTS],
    retries: Mutex<[Second; SLOTS]>,
}

#[derive(Clone, Copy, Default)]
struct Second {
    at: u64,
    count: u32,
}

impl Budget {
    pub fn new(fraction: f64, start: Moment) -> Self {
        Self { fraction, start, requests: Default::default(), retries: Mutex::default() }
    }

    /// A request begins.
    pub fn request(&self, now: Moment) {
        let at = self.second(now);
        let count = |counted: u64| Some(if counted >> 32 >= at { counted + 1 } else { at << 32 | 1 });
        // The closure never declines.
        let _ = self.requests[slot(at)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Takes one retry, if there is one.
    pub fn take(&self, now: Moment) -> bool {
        let at = self.second(now);
        let in_window = |second: u64| second <= at && at - second < WINDOW;
        let requests: u32 = self
            .requests
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|counted| in_window(counted >> 32))
            .fold(0, |sum, counted| {
                sum.saturating_add(u32::try_from(counted & u64::from(u32::MAX)).unwrap_or(u32::MAX))
            });
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: u32 = retries.iter().filter(|second| in_window(second.at)).map(|second| second.count).sum();
        let allowed = f64::from(requests) * self.fraction + f64::from(FLOOR) * 10.0;
        if f64::from(taken) + 1.0 > allowed {
            return false;
        }
        let second = &mut retries[slot(at)];
        if second.at != at {
            *second = Second { at, count: 0 };
        }
        second.count += 1;
        true
    }

    fn second(&self, now: Moment) -> u64 {
        // Not 0: that is what empty slots say.
        now.since(self.start).as_secs() + WINDOW
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SLOTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, Timestamp};

    fn drain(budget: &Budget, now: Moment) -> u32 {
        (0..100_000).take_while(|_| budget.take(now)).count().try_into().unwrap()
    }

    #[test]
    fn a_fifth_of_the_requests_and_a_floor() {
        let clock = Clock::manual(Timestamp::default());
        let budget = Budget::new(0.2, clock.moment());
        assert_eq!(drain(&budget, clock.moment()), 100, "ten a second for ten seconds");
        for _ in 0..1000 {
            budget.request(clock.moment());
        }
        assert_eq!(drain(&budget, clock.moment()), 200);
        clock.advance(Duration::from_secs(9));
        assert_eq!(drain(&budget, clock.moment()), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(drain(&budget, clock.moment()), 100, "the window has passed, requests and retries alike");
    }

    /// Against a plain list of what happened.
    #[test]
    fn any_course_of_events_as_a_list_would_have_it() {
        let clock = Clock::manual(Timestamp::default());
        let start = clock.moment();
        let budget = Budget::new(0.5, start);
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        let mut dice = 1_u64;
        for _ in 0..20_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = clock.moment().since(start).as_secs();
            let recent = |list: &[u64]| list.iter().filter(|then| at - **then < WINDOW).count();
            match dice >> 60 {
                0 => clock.advance(Duration::from_millis((dice >> 40) % 3000)),
                1 if (dice >> 32).is_multiple_of(50) => clock.advance(Duration::from_secs((dice >> 40) % 30)),
                2..=8 => {
                    budget.request(clock.moment());
                    requests.push(at);
                }
                _ => {
                    let expected = recent(&retries) < recent(&requests) / 2 + 100;
                    assert_eq!(budget.take(clock.moment()), expected);
                    if expected {
                        retries.push(at);
                    }
                }
            }
        }
        assert!(retries.len() > 1000);
    }

    #[test]
    fn workers_together_never_take_more_than_there_is() {
        let budget = Budget::new(0.0, Moment::default());
        let taken: u32 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(|| drain(&budget, Moment::default()))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
    }
}
