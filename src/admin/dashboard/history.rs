//! The last hour in memory: one sample of the metrics a minute, sixty of them. A restart forgets it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::metrics::{Metrics, Totals};

/// Bars of a plot.
pub const MINUTES: usize = 60;
const EVERY: Duration = Duration::from_mins(1);

/// Handle on the samples; clones share them.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<VecDeque<Sample>>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    totals: Totals,
}

/// What happened from one sample to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    pub from: Timestamp,
    pub answered: u64,
    pub refused: u64,
    pub failed: u64,
    pub refreshed: u64,
    pub refresh_failed: u64,
}

impl History {
    /// Takes samples as long as the process lives.
    pub async fn watch(self, metrics: Metrics, clock: Clock) {
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.take(clock.now(), metrics.totals());
        }
    }

    fn take(&self, at: Timestamp, totals: Totals) {
        let mut samples = self.samples();
        if samples.len() == MINUTES {
            samples.pop_front();
        }
        samples.push_back(Sample { at, totals });
    }

    /// The minutes since the oldest sample, the one that is under way last.
    pub fn minutes(&self, now: Totals) -> Vec<Minute> {
        let samples = self.samples();
        let ends = samples.iter().skip(1).map(|sample| sample.totals).chain([now]);
        samples.iter().zip(ends).map(|(from, to)| between(from, &to)).collect()
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn between(from: &Sample, to: &Totals) -> Minute {
    let grown = |sum: fn(&Totals) -> u64| sum(to).saturating_sub(sum(&from.totals));
    Minute {
        from: from.at,
        answered: grown(|totals| totals.answered),
        refused: grown(|totals| totals.refused),
        failed: grown(|totals| totals.failed),
        refreshed: grown(|totals| totals.refreshed),
        refresh_failed: grown(|totals| totals.refresh_failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        assert!(history.minutes(Totals::default()).is_empty());
        for minute in 0..200_u32 {
            let at = Timestamp::from_secs(60 * i64::from(minute));
            history.take(at, Totals { answered: u64::from(minute * minute), ..Totals::default() });
        }
        let minutes = history.minutes(Totals { answered: 199 * 199 + 5, failed: 2, ..Totals::default() });
        assert_eq!(minutes.len(), MINUTES);
        assert_eq!((minutes[0].from.secs(), minutes[0].answered), (140 * 60, 2 * 140 + 1));
        let last = minutes[MINUTES - 1];
        assert_eq!((last.from.secs(), last.answered, last.failed, last.refused), (199 * 60, 5, 2, 0));
    }
}
