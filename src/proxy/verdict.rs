//! What happens after an attempt: one pure function. It decides, others carry it out.
//!
//! A request is sent again only where that is safe: after a 401 (the upstream did nothing), when it never left, or when it may be repeated
//! by its nature (GET and HEAD). A token is renewed at most once for a request, or twice where a claims challenge follows a plain 401.
//! Every other repetition needs room in the upstream's budget of retries, and every wait has to fit into the request's patience.

use std::time::Duration;

/// Waits for one request.
const WAITS: u32 = 3;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `challenged`: with a claims challenge.
    Answer {
        status: u16,
        retry_after: Option<Duration>,
        challenged: bool,
    },
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No byte of the request left.
    NotSent,
    /// A connection that had been used before died, or brought nothing that is an answer: what came may be left over from before.
    ReusedDied,
    /// The connection died, or what came was no HTTP.
    Died,
    TimedOut,
    /// The client's own body ended early or is too long.
    Body,
}

/// All that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub outcome: Outcome,
    /// GET or HEAD.
    pub safe: bool,
    /// The whole body can be sent again.
    pub can_repeat: bool,
    /// The client has not said `Bearerd-Retry: off`.
    pub may_retry: bool,
    /// Whether the token was renewed for this request before, and why.
    pub renewed: Renewed,
    /// Waits before this attempt.
    pub waits: u32,
    /// The longest that the request may still wait. `None`: the client repeats throttled requests itself.
    pub left: Option<Duration>,
    /// Attempts that failed without an answer before this one.
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    No,
    /// After a plain 401. A claims challenge may still follow: an old token is refused before its claims are looked at.
    Plain,
    /// After a claims challenge.
    Challenged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Deliver,
    /// Renew the token and send again.
    NewToken,
    /// Renew the token for later requests; deliver the 401.
    NewTokenForLater,
    Wait(Duration),
    Again,
    GiveUp {
        maybe_executed: bool,
    },
}

pub fn decide(facts: &Facts) -> Verdict {
    match facts.outcome {
        Outcome::Answer { status: 100..=199, .. } => Verdict::GiveUp { maybe_executed: !facts.safe },
        Outcome::Answer { .. } if !facts.may_retry => Verdict::Deliver,
        Outcome::Answer { status: 401, challenged, .. }
        | Outcome::Answer { status: 403, challenged: challenged @ true, .. } => {
            let in_vain = match facts.renewed {
                Renewed::No => false,
                Renewed::Plain => !challenged,
                Renewed::Challenged => true,
            };
            match (in_vain, facts.can_repeat) {
                (true, _) => Verdict::Deliver,
                (false, true) => Verdict::NewToken,
                (false, false) => Verdict::NewTokenForLater,
            }
        }
        Outcome::Answer { status: status @ (429 | 503 | 504), retry_after, .. } => {
            let repeatable = facts.safe && facts.can_repeat && facts.waits < WAITS;
            let wait = match (status, retry_after) {
                (_, Some(wait)) => Some(wait),
                // Some server in between lost its patience, which says nothing of load: one more try, at once.
                (504, None) => (facts.waits == 0).then_some(Duration::ZERO),
                (_, None) => Some(unsaid(facts.waits)),
            };
            match wait.filter(|wait| repeatable && facts.left.is_some_and(|left| *wait <= left)) {
                Some(wait) => Verdict::Wait(wait),
                None => Verdict::Deliver,
            }
        }
        Outcome::Answer { .. } => Verdict::Deliver,
        Outcome::Failed(failure) => {
            let first = facts.failures == 0 && facts.can_repeat;
            match failure {
                Failure::NotSent if first => Verdict::Again,
                Failure::ReusedDied if first && facts.safe => Verdict::Again,
                Failure::NotSent => Verdict::GiveUp { maybe_executed: false },
                _ => Verdict::GiveUp { maybe_executed: !facts.safe },
            }
        }
    }
}

/// How long to wait where a 429 or 503 does not say it: 1, 2, 4 s.
pub fn unsaid(waits: u32) -> Duration {
    Duration::from_secs(1 << waits.min(WAITS))
}

impl Verdict {
    /// It is taken from the budget of retries. A new token is not: what was refused for its token has cost the upstream nothing.
    pub fn is_paid(self) -> bool {
        matches!(self, Self::Wait(_) | Self::Again)
    }

    /// What is left to do where the budget is used up.
    #[must_use]
    pub fn unpaid(self) -> Self {
        match self {
            Self::Wait(_) => Self::Deliver,
            // It would have done no harm to send it again.
            Self::Again => Self::GiveUp { maybe_executed: false },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        outcome: Outcome::Answer { status: 200, retry_after: None, challenged: false },
        safe: true,
        can_repeat: true,
        may_retry: true,
        renewed: Renewed::No,
        waits: 0,
        left: Some(Duration::from_secs(10)),
        failures: 0,
    };

    fn answer(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Answer { status, retry_after: retry_after.map(Duration::from_secs), challenged: false }
    }

    fn challenge(status: u16) -> Outcome {
        Outcome::Answer { status, retry_after: None, challenged: true }
    }

    #[test]
    fn answers_other_than_401_and_of_throttling_are_delivered() {
        for status in (200..600).filter(|status| ![401, 429, 503, 504].contains(status)) {
            assert_eq!(decide(&Facts { outcome: answer(status, Some(1)), ..FACTS }), Verdict::Deliver, "{status}");
        }
    }

    #[test]
    fn a_401_is_healed_once_with_the_whole_body_or_for_later() {
        let facts = Facts { outcome: answer(401, None), safe: false, ..FACTS };
        assert_eq!(decide(&facts), Verdict::NewToken);
        assert_eq!(decide(&Facts { renewed: Renewed::Plain, ..facts }), Verdict::Deliver);
        assert_eq!(decide(&Facts { can_repeat: false, ..facts }), Verdict::NewTokenForLater);
        assert_eq!(decide(&Facts { may_retry: false, ..facts }), Verdict::Deliver);
    }

    #[test]
    fn a_claims_challenge_is_answered_once_after_a_plain_401_too() {
        for status in [401, 403] {
            let facts = Facts { outcome: challenge(status), safe: false, ..FACTS };
            for (renewed, verdict) in [
                (Renewed::No, Verdict::NewToken),
                (Renewed::Plain, Verdict::NewToken),
                (Renewed::Challenged, Verdict::Deliver),
            ] {
                assert_eq!(decide(&Facts { renewed, ..facts }), verdict, "{status} {renewed:?}");
            }
            assert_eq!(decide(&Facts { can_repeat: false, ..facts }), Verdict::NewTokenForLater);
            assert_eq!(decide(&Facts { may_retry: false, ..facts }), Verdict::Deliver);
        }
        let plain = Facts { outcome: answer(401, None), renewed: Renewed::Challenged, ..FACTS };
        assert_eq!(decide(&plain), Verdict::Deliver, "two renewals at the most");
        for status in [200, 400, 404, 500] {
            assert_eq!(decide(&Facts { outcome: challenge(status), ..FACTS }), Verdict::Deliver, "{status}");
        }
    }

    #[test]
    fn only_get_and_head_wait_and_only_for_a_while() {
        for status in [429, 503, 504] {
            let facts = Facts { outcome: answer(status, Some(3)), ..FACTS };
            assert_eq!(decide(&facts), Verdict::Wait(Duration::from_secs(3)));
            for in_vain in [
                Facts { safe: false, ..facts },
                Facts { can_repeat: false, ..facts },
                Facts { may_retry: false, ..facts },
                Facts { left: None, ..facts },
                Facts { waits: WAITS, ..facts },
                Facts { left: Some(Duration::from_millis(2999)), ..facts },
                Facts { outcome: answer(status, Some(11)), ..facts },
            ] {
                assert_eq!(decide(&in_vain), Verdict::Deliver, "{in_vain:?}");
            }
            let at_once = Facts { outcome: answer(status, Some(0)), left: Some(Duration::ZERO), waits: 2, ..facts };
            assert_eq!(decide(&at_once), Verdict::Wait(Duration::ZERO));
        }
    }

    #[test]
    fn an_unsaid_wait_doubles_and_a_504_is_tried_once_more() {
        for (waits, seconds) in [(0, 1), (1, 2), (2, 4)] {
            for status in [429, 503] {
                let facts = Facts { outcome: answer(status, None), waits, ..FACTS };
                assert_eq!(decide(&facts), Verdict::Wait(Duration::from_secs(seconds)));
                let short = Duration::from_millis(seconds * 1000 - 1);
                assert_eq!(decide(&Facts { left: Some(short), ..facts }), Verdict::Deliver);
            }
        }
        let facts = Facts { outcome: answer(504, None), ..FACTS };
        assert_eq!(decide(&facts), Verdict::Wait(Duration::ZERO));
        assert_eq!(decide(&Facts { waits: 1, ..facts }), Verdict::Deliver);
        assert_eq!(unsaid(u32::MAX), Duration::from_secs(8));
    }

    #[test]
    fn the_budget_pays_for_repetitions_and_not_for_tokens() {
        assert!(Verdict::Wait(Duration::ZERO).is_paid() && Verdict::Again.is_paid());
        assert!(!Verdict::NewToken.is_paid() && !Verdict::Deliver.is_paid());
        assert_eq!(Verdict::Wait(Duration::ZERO).unpaid(), Verdict::Deliver);
        assert_eq!(Verdict::Again.unpaid(), Verdict::GiveUp { maybe_executed: false });
        assert_eq!(Verdict::NewToken.unpaid(), Verdict::NewToken);
    }

    #[test]
    fn a_post_is_sent_again_only_when_it_never_left() {
        let failed =
            |failure, safe, failures| decide(&Facts { outcome: Outcome::Failed(failure), safe, failures, ..FACTS });
        assert_eq!(failed(Failure::NotSent, false, 0), Verdict::Again);
        assert_eq!(failed(Failure::NotSent, false, 1), Verdict::GiveUp { maybe_executed: false });
        for failure in [Failure::ReusedDied, Failure::Died, Failure::TimedOut, Failure::Body] {
            assert_eq!(failed(failure, false, 0), Verdict::GiveUp { maybe_executed: true }, "{failure:?}");
        }
        assert_eq!(failed(Failure::ReusedDied, true, 0), Verdict::Again);
        assert_eq!(failed(Failure::ReusedDied, true, 1), Verdict::GiveUp { maybe_executed: false });
        assert_eq!(failed(Failure::Died, true, 0), Verdict::GiveUp { maybe_executed: false });
    }

    #[test]
    fn an_unasked_switch_of_protocols_is_no_answer() {
        assert_eq!(decide(&Facts { outcome: answer(101, None), ..FACTS }), Verdict::GiveUp { maybe_executed: false });
    }
}
