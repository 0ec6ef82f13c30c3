//! What happens after an attempt: one pure function. It decides, others carry it out.
//!
//! A request is sent again only where that is safe: after a 401 (the upstream did nothing), when it never left, or when it may be repeated
//! by its nature (GET and HEAD). A token is renewed at most once for a request, or twice where a claims challenge follows a plain 401.

use std::time::Duration;

/// The longest that a request waits for an upstream that throttles, in all; past it the client is told to wait itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a 429 or 503 says nothing.
const UNSAID: Duration = Duration::from_secs(1);
/// Waits for one request.
const WAITS: u32 = 2;

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
    /// A connection that had been used before died before the first byte of an answer.
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
    pub waits: u32,
    pub waited: Duration,
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
        Outcome::Answer { status: 429 | 503, retry_after, .. } => {
            let wait = retry_after.unwrap_or(UNSAID);
            let patient = facts.waits < WAITS && facts.waited + wait <= PATIENCE;
            if facts.safe && facts.can_repeat && patient { Verdict::Wait(wait) } else { Verdict::Deliver }
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
        waited: Duration::ZERO,
        failures: 0,
    };

    fn answer(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Answer { status, retry_after: retry_after.map(Duration::from_secs), challenged: false }
    }

    fn challenge(status: u16) -> Outcome {
        Outcome::Answer { status, retry_after: None, challenged: true }
    }

    #[test]
    fn answers_other_than_401_429_and_503_are_delivered() {
        for status in (200..600).filter(|status| ![401, 429, 503].contains(status)) {
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
        for status in [429, 503] {
            let facts = Facts { outcome: answer(status, Some(3)), ..FACTS };
            assert_eq!(decide(&facts), Verdict::Wait(Duration::from_secs(3)));
            assert_eq!(decide(&Facts { safe: false, ..facts }), Verdict::Deliver);
            assert_eq!(decide(&Facts { waits: 2, ..facts }), Verdict::Deliver);
            assert_eq!(decide(&Facts { waited: Duration::from_secs(8), ..facts }), Verdict::Deliver);
            assert_eq!(decide(&Facts { outcome: answer(status, Some(11)), ..facts }), Verdict::Deliver);
            assert_eq!(decide(&Facts { outcome: answer(status, None), ..facts }), Verdict::Wait(UNSAID));
        }
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
