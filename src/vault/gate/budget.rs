//! How much of one provider's token endpoint is in use: places (exchanges under way) and a rate. Pure.
//!
//! Invariant: work ahead of time has at most half of the places, and only what requests leave of the rate.

use std::time::Duration;

use super::Urgency;
use crate::clock::Moment;
use crate::config::TokenRequests;

/// Slower than this is a mistake of the configuration.
const SLOWEST: f64 = 0.01;

#[derive(Debug)]
pub(super) struct Budget {
    places: usize,
    per_second: f64,
    taken: usize,
    taken_ahead: usize,
    /// What may leave at once; grows by `per_second` up to what a second brings.
    tokens: f64,
    counted_at: Moment,
    waiting_on_demand: usize,
    waiting_ahead: usize,
}

/// Not yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wait {
    /// Until somebody gives a place back.
    Place,
    /// Until the rate allows it.
    Rate(Duration),
}

impl Budget {
    pub(super) fn new(limits: TokenRequests, now: Moment) -> Self {
        let mut budget = Self {
            places: 0,
            per_second: 0.0,
            taken: 0,
            taken_ahead: 0,
            tokens: f64::INFINITY,
            counted_at: now,
            waiting_on_demand: 0,
            waiting_ahead: 0,
        };
        budget.limit(limits);
        budget
    }

    /// Other limits from now on. What is under way counts against them.
    pub(super) fn limit(&mut self, limits: TokenRequests) {
        self.places = limits.concurrent.max(1);
        self.per_second = limits.per_second.max(SLOWEST);
        self.tokens = self.tokens.min(self.burst());
    }

    /// How many exchanges may be under way ahead of time.
    pub(super) fn places_ahead(&self) -> usize {
        (self.places / 2).max(1)
    }

    pub(super) fn take(&mut self, urgency: Urgency, now: Moment) -> Result<(), Wait> {
        self.refill(now);
        let free = self.taken < self.places;
        let (free, reserve) = match urgency {
            Urgency::OnDemand => (free, 0.0),
            // Requests that wait come first, and half of a second's worth is kept for those that are still to come.
            Urgency::AheadOfTime => (
                free && self.waiting_on_demand == 0 && self.taken_ahead < self.places_ahead(),
                (self.burst() / 2.0).min(self.burst() - 1.0),
            ),
        };
        if !free {
            return Err(Wait::Place);
        }
        let missing = 1.0 + reserve - self.tokens;
        if missing > 0.0 {
            return Err(Wait::Rate(Duration::from_secs_f64(missing / self.per_second)));
        }
        self.tokens -= 1.0;
        self.taken += 1;
        self.taken_ahead += usize::from(urgency == Urgency::AheadOfTime);
        Ok(())
    }

    pub(super) fn give_back(&mut self, urgency: Urgency) {
        self.taken -= 1;
        self.taken_ahead -= usize::from(urgency == Urgency::AheadOfTime);
    }

    pub(super) fn waiting(&mut self, urgency: Urgency) -> &mut usize {
        match urgency {
            Urgency::OnDemand => &mut self.waiting_on_demand,
            Urgency::AheadOfTime => &mut self.waiting_ahead,
        }
    }

    fn burst(&self) -> f64 {
        self.per_second.max(1.0)
    }

    fn refill(&mut self, now: Moment) {
        let earned = now.since(self.counted_at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.burst());
        self.counted_at = self.counted_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::Urgency::{AheadOfTime, OnDemand};
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    fn budget(concurrent: usize, per_second: f64) -> Budget {
        Budget::new(TokenRequests { concurrent, per_second }, at(0))
    }

    #[test]
    fn work_ahead_of_time_has_half_of_the_places() {
        for (places, ahead) in [(1, 1), (2, 1), (3, 1), (8, 4)] {
            let mut budget = budget(places, 1000.0);
            for _ in 0..ahead {
                assert_eq!(budget.take(AheadOfTime, at(0)), Ok(()));
            }
            assert_eq!(budget.take(AheadOfTime, at(0)), Err(Wait::Place));
            for _ in ahead..places {
                assert_eq!(budget.take(OnDemand, at(0)), Ok(()));
            }
            assert_eq!(budget.take(OnDemand, at(0)), Err(Wait::Place));
            budget.give_back(AheadOfTime);
            *budget.waiting(OnDemand) += 1;
            assert_eq!(budget.take(AheadOfTime, at(0)), Err(Wait::Place), "somebody waits for it");
            assert_eq!(budget.take(OnDemand, at(0)), Ok(()));
        }
    }

    #[test]
    fn the_rate_is_kept_and_half_a_second_is_left_to_requests() {
        let mut budget = budget(1000, 10.0);
        for _ in 0..5 {
            assert_eq!(budget.take(AheadOfTime, at(0)), Ok(()));
        }
        assert!(matches!(budget.take(AheadOfTime, at(0)), Err(Wait::Rate(wait)) if wait <= Duration::from_millis(101)));
        for _ in 0..5 {
            assert_eq!(budget.take(OnDemand, at(0)), Ok(()));
        }
        assert!(matches!(budget.take(OnDemand, at(0)), Err(Wait::Rate(wait)) if wait <= Duration::from_millis(101)));
        let mut taken = 0;
        for millis in 0..10_000 {
            taken += u32::from(budget.take(OnDemand, at(millis)).is_ok());
        }
        assert!((99..=100).contains(&taken), "{taken} in ten seconds");
        assert!(matches!(budget.take(AheadOfTime, at(10_000)), Err(Wait::Rate(_))), "nothing was left");
        assert_eq!(budget.take(AheadOfTime, at(11_000)), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing() {
        let mut budget = budget(1000, 1.0);
        assert_eq!(budget.take(OnDemand, at(5_000)), Ok(()));
        assert!(budget.take(OnDemand, at(0)).is_err());
        assert!(budget.take(OnDemand, at(5_000)).is_err());
        assert_eq!(budget.take(AheadOfTime, at(6_001)), Ok(()));
    }
}
