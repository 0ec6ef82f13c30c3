//! How long one request may be kept waiting, and what its client says of that. Counted from the request's beginning, waits of every kind
//! included: who gives up waiting for us must have had an answer before.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

use crate::clock::{Clock, Moment};

const BEARERD_RETRY: HeaderName = HeaderName::from_static("bearerd-retry");
/// Microsoft's SDKs count their own retries here.
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

#[derive(Clone, Debug)]
pub struct Patience {
    /// The client has not said `Bearerd-Retry: off`.
    pub may_retry: bool,
    /// This is the client's own retry: ours on top would multiply.
    pub retries_itself: bool,
    since: Moment,
    limit: Duration,
    clock: Clock,
    /// Waits as they were meant. A clock that is moved by hand does not show them.
    waited: Duration,
}

impl Patience {
    pub fn new(headers: &HeaderMap, since: Moment, limit: Duration, clock: &Clock) -> Self {
        let attempt = headers.get(&RETRY_ATTEMPT).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
        Self {
            may_retry: headers.get(&BEARERD_RETRY).is_none_or(|value| value != "off"),
            retries_itself: attempt.is_some_and(|attempt| attempt > 0),
            since,
            limit,
            clock: clock.clone(),
            waited: Duration::ZERO,
        }
    }

    pub fn left(&self) -> Duration {
        let spent = self.clock.moment().since(self.since).max(self.waited);
        self.limit.saturating_sub(spent)
    }

    pub fn waited(&mut self, wait: Duration) {
        self.waited += wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn patience(headers: &[(&'static str, &'static str)], clock: &Clock) -> Patience {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        let headers = headers.iter().map(pair).collect();
        Patience::new(&headers, clock.moment(), Duration::from_secs(10), clock)
    }

    #[test]
    fn time_and_waits_use_it_up_whichever_is_more() {
        let clock = Clock::manual(Timestamp::default());
        let mut patience = patience(&[], &clock);
        clock.advance(Duration::from_secs(3));
        assert_eq!(patience.left(), Duration::from_secs(7));
        patience.waited(Duration::from_secs(2));
        assert_eq!(patience.left(), Duration::from_secs(7), "the clock has seen it");
        patience.waited(Duration::from_secs(4));
        assert_eq!(patience.left(), Duration::from_secs(4), "a clock that stands");
        clock.advance(Duration::from_secs(3600));
        assert_eq!(patience.left(), Duration::ZERO);
    }

    #[test]
    fn what_the_client_says() {
        let clock = Clock::manual(Timestamp::default());
        for (headers, expected) in [
            (vec![], (true, false)),
            (vec![("bearerd-retry", "off")], (false, false)),
            (vec![("bearerd-retry", "on")], (true, false)),
            (vec![("retry-attempt", "1")], (true, true)),
            (vec![("retry-attempt", " 10 ")], (true, true)),
            (vec![("retry-attempt", "0")], (true, false)),
            (vec![("retry-attempt", "soon")], (true, false)),
        ] {
            let patience = patience(&headers, &clock);
            assert_eq!((patience.may_retry, patience.retries_itself), expected, "{headers:?}");
        }
    }
}
