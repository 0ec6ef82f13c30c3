//! The circuit breaker of one provider's token endpoint. Pure: it is told what happened and when.
//!
//! Closed until five accounts in a row have failed, or the provider could not be reached five times: one account that always fails
//! does not stand for the others. Then open for a second, which doubles up to half a minute as long as probes fail. Once the
//! time is over, one probe at a time goes out: a success closes the circuit. Throttling opens it for as long as the provider says.

use std::time::Duration;

use crate::clock::Moment;

/// So many failures in a row, without a success between, open the circuit.
const FAILURES: usize = 5;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Whoever comes while a probe is under way is told to come back then.
const PROBE_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Circuit {
    position: Position,
    /// Failures since the last success.
    failures: usize,
    /// Whose they were, where that was known: each counts once.
    failing: Vec<u64>,
    /// How often it was opened by failures since the last success.
    opened: u32,
    /// Of the last probe.
    probe: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Closed,
    /// From `until` on a probe may go out. `asked`: the provider itself has asked for this time.
    Open { until: Moment, asked: bool },
    /// This probe is under way.
    HalfOpen { probe: u64 },
}

/// What an exchange says of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answers as it should, whatever it says of a grant.
    Well,
    /// Down, unreachable or talking nonsense; it may have said for how long. `whose`: what it failed at, where it got so far.
    Ill { retry_after: Option<Duration>, whose: Option<u64> },
    /// It asks everybody to stay away for this long.
    Throttles(Duration),
    /// Nothing: it concerns one grant, or our own credential.
    Nothing,
}

/// What is new about the circuit, for the log and the gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened { wait: Duration, throttled: bool },
    HalfOpened,
    Closed,
}

/// The right to be the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe(u64);

impl Circuit {
    /// `Err`: nobody passes; come back after this time.
    pub(super) fn check(&self, now: Moment) -> Result<(), Duration> {
        match self.position {
            Position::Open { until, .. } if until > now => Err(until.since(now)),
            Position::HalfOpen { .. } => Err(PROBE_WAIT),
            Position::Closed | Position::Open { .. } => Ok(()),
        }
    }

    /// How long it stays open.
    pub(super) fn open_for(&self, now: Moment) -> Duration {
        match self.position {
            Position::Open { until, .. } => until.since(now),
            Position::Closed | Position::HalfOpen { .. } => Duration::ZERO,
        }
    }

    /// Somebody whom `check` let pass goes out now: as the probe, if it has to be one.
    pub(super) fn enter(&mut self) -> Option<Probe> {
        let Position::Open { .. } = self.position else { return None };
        self.probe += 1;
        self.position = Position::HalfOpen { probe: self.probe };
        Some(Probe(self.probe))
    }

    /// The probe came back. If it has heard nothing of the provider, the next one is the probe.
    pub(super) fn leave(&mut self, probe: Probe) {
        if self.position == (Position::HalfOpen { probe: probe.0 }) {
            self.position = Position::Open { until: Moment::default(), asked: false };
        }
    }

    /// `spread` spreads the time for which it is open by 20 %, so that replicas do not probe together.
    pub(super) fn heard(&mut self, sign: Sign, now: Moment, spread: u64) -> Option<Change> {
        match sign {
            Sign::Nothing => None,
            Sign::Well => {
                (self.failures, self.opened) = (0, 0);
                self.failing.clear();
                // A straggler from before does not end a pause that the provider asked for.
                if matches!(self.position, Position::Open { until, asked: true } if until > now) {
                    return None;
                }
                let was = std::mem::replace(&mut self.position, Position::Closed);
                (was != Position::Closed).then_some(Change::Closed)
            }
            Sign::Throttles(wait) => {
                let longer = wait > self.open_for(now);
                longer.then(|| self.open(now, wait, true)).flatten()
            }
            Sign::Ill { retry_after, whose } => {
                self.count(whose);
                let opens = match self.position {
                    Position::Closed => self.failures >= FAILURES,
                    Position::HalfOpen { .. } => true,
                    // A straggler from before says nothing new.
                    Position::Open { .. } => false,
                };
                let asked = retry_after.unwrap_or_default().min(LONGEST);
                opens
                    .then(|| {
                        let step = (SHORTEST * (1 << self.opened.min(5))).min(LONGEST);
                        self.opened += 1;
                        let percent = 80 + u32::try_from(spread % 41).unwrap_or(0);
                        self.open(now, (step * percent / 100).max(asked), false)
                    })
                    .flatten()
            }
        }
    }

    fn count(&mut self, whose: Option<u64>) {
        if self.failures < FAILURES && whose.is_none_or(|whose| !self.failing.contains(&whose)) {
            self.failures += 1;
            self.failing.extend(whose);
        }
    }

    /// Opening once more what is open already is nothing new.
    fn open(&mut self, now: Moment, wait: Duration, throttled: bool) -> Option<Change> {
        let was = std::mem::replace(&mut self.position, Position::Open { until: now.plus(wait), asked: throttled });
        (!matches!(was, Position::Open { until, .. } if until > now)).then_some(Change::Opened { wait, throttled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ILL: Sign = Sign::Ill { retry_after: None, whose: None };
    /// Spreads by nothing.
    const EVEN: u64 = 20;

    fn at(secs: u64) -> Moment {
        Moment::default().plus(Duration::from_secs(1_000 + secs))
    }

    fn opened(secs: u64) -> Change {
        Change::Opened { wait: Duration::from_secs(secs), throttled: false }
    }

    fn open() -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..4 {
            assert_eq!(circuit.heard(ILL, at(0), EVEN), None);
        }
        assert_eq!(circuit.heard(ILL, at(0), EVEN), Some(opened(1)));
        circuit
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_one_success_between_does_not_count_them() {
        open();
        let mut circuit = Circuit::default();
        for _ in 0..20 {
            for _ in 0..4 {
                assert_eq!(circuit.heard(ILL, at(0), EVEN), None);
                assert_eq!(circuit.heard(Sign::Nothing, at(0), EVEN), None);
            }
            assert_eq!(circuit.heard(Sign::Well, at(0), EVEN), None);
        }
        assert_eq!(circuit.check(at(0)), Ok(()));
    }

    #[test]
    fn one_account_that_always_fails_does_not_open_it_for_the_others() {
        let ill = |whose| Sign::Ill { retry_after: None, whose: Some(whose) };
        let mut circuit = Circuit::default();
        for secs in 0..100 {
            assert_eq!(circuit.heard(ill(secs % 2), at(secs), EVEN), None);
        }
        assert_eq!(circuit.heard(ill(2), at(100), EVEN), None);
        assert_eq!(circuit.heard(ill(3), at(100), EVEN), None);
        assert_eq!(circuit.heard(ill(4), at(100), EVEN), Some(opened(1)), "the fifth of them");
        assert!(circuit.enter().is_some());
        assert_eq!(circuit.heard(Sign::Well, at(101), EVEN), Some(Change::Closed));
        assert_eq!(circuit.heard(ill(0), at(101), EVEN), None);
    }

    #[test]
    fn one_probe_at_a_time_and_its_failures_double_the_time_up_to_half_a_minute() {
        let mut circuit = open();
        let mut now = 0;
        for (wait, next) in [(1, 2), (2, 4), (4, 8), (8, 16), (16, 30), (30, 30), (30, 30)] {
            assert_eq!(circuit.check(at(now)), Err(Duration::from_secs(wait)));
            now += wait;
            assert_eq!(circuit.check(at(now)), Ok(()));
            assert!(circuit.enter().is_some());
            assert_eq!(circuit.check(at(now)), Err(PROBE_WAIT), "the probe is under way");
            assert_eq!(circuit.heard(ILL, at(now), EVEN), Some(opened(next)));
            assert_eq!(circuit.heard(ILL, at(now), EVEN), None, "a straggler");
        }
        now += 30;
        assert!(circuit.enter().is_some());
        assert_eq!(circuit.heard(Sign::Well, at(now), EVEN), Some(Change::Closed));
        assert_eq!((circuit.check(at(now)), circuit.enter()), (Ok(()), None));
        for _ in 0..4 {
            assert_eq!(circuit.heard(ILL, at(now), EVEN), None);
        }
        assert_eq!(circuit.heard(ILL, at(now), EVEN), Some(opened(1)), "from the start again");
    }

    #[test]
    fn a_probe_that_hears_nothing_leaves_its_place_to_the_next() {
        let mut circuit = open();
        let probe = circuit.enter().unwrap();
        assert_eq!(circuit.heard(Sign::Nothing, at(1), EVEN), None);
        circuit.leave(probe);
        assert_eq!(circuit.check(at(1)), Ok(()));
        let next = circuit.enter().unwrap();
        circuit.leave(probe);
        assert_eq!(circuit.check(at(1)), Err(PROBE_WAIT), "only its own place");
        assert_eq!(circuit.heard(ILL, at(1), EVEN), Some(opened(2)));
        circuit.leave(next);
        assert_eq!(circuit.check(at(1)), Err(Duration::from_secs(2)));
    }

    #[test]
    fn throttling_keeps_everybody_away_for_as_long_as_it_says() {
        let mut circuit = Circuit::default();
        let said = |secs| Sign::Throttles(Duration::from_secs(secs));
        let paused = Change::Opened { wait: Duration::from_secs(60), throttled: true };
        assert_eq!(circuit.heard(said(60), at(0), EVEN), Some(paused));
        assert_eq!(circuit.heard(said(30), at(10), EVEN), None);
        assert_eq!(circuit.check(at(10)), Err(Duration::from_secs(50)), "never shorter");
        assert_eq!(circuit.heard(said(90), at(10), EVEN), None);
        assert_eq!(circuit.check(at(10)), Err(Duration::from_secs(90)));
        assert!(circuit.check(at(100)).is_ok() && circuit.enter().is_some());
        assert_eq!(circuit.heard(Sign::Well, at(100), EVEN), Some(Change::Closed));
    }

    #[test]
    fn what_was_under_way_already_does_not_end_a_pause_that_was_asked_for() {
        let mut circuit = Circuit::default();
        assert!(circuit.heard(Sign::Throttles(Duration::from_secs(60)), at(0), EVEN).is_some());
        for sign in [Sign::Well, ILL, Sign::Nothing] {
            assert_eq!(circuit.heard(sign, at(1), EVEN), None, "{sign:?}");
            assert_eq!(circuit.check(at(1)), Err(Duration::from_secs(59)), "{sign:?}");
        }
        assert_eq!(circuit.heard(Sign::Well, at(60), EVEN), Some(Change::Closed), "the time is over");
        let mut circuit = open();
        assert_eq!(circuit.heard(Sign::Well, at(0), EVEN), Some(Change::Closed), "it was thought ill, and answers");
    }

    #[test]
    fn the_time_is_spread_and_the_provider_may_ask_for_more() {
        for (spread, millis) in [(0, 800), (40, 1200), (41, 800)] {
            let mut circuit = Circuit { failures: 4, ..Circuit::default() };
            circuit.heard(ILL, at(0), spread);
            assert_eq!(circuit.open_for(at(0)), Duration::from_millis(millis));
        }
        for (asked, secs) in [(7, 7), (3600, 30)] {
            let mut circuit = Circuit { failures: 4, ..Circuit::default() };
            circuit.heard(Sign::Ill { retry_after: Some(Duration::from_secs(asked)), whose: None }, at(0), EVEN);
            assert_eq!(circuit.open_for(at(0)), Duration::from_secs(secs));
        }
    }
}
