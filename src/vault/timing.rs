//! How long each part of a refresh may take, and how long to wait after one that failed. Pure.

use std::time::Duration;

use crate::config::Rotation;
use crate::oauth::{Class, Delivery, TokenError};

/// How long each part of a presentation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// Others leave our intent alone for this long.
    pub(super) lease: Duration,
    /// The whole exchange with the provider.
    pub(super) exchange: Duration,
    /// The request has to leave before this much time has passed since the claim.
    pub(super) send_before: Duration,
    /// What the provider really does, as far as it helps us.
    pub(super) rotation: Rotation,
}

/// Long enough for a slow provider; in grace mode so short that a second presentation still falls into the grace. A grace too short for
/// a realistic exchange is treated as strict.
pub(super) fn timing(rotation: Rotation) -> Timing {
    const LEASE: Duration = Duration::from_secs(25);
    const EXCHANGE: Duration = Duration::from_secs(8);
    const MARGIN: Duration = Duration::from_secs(5);
    const SHORTEST_EXCHANGE: Duration = Duration::from_secs(2);
    let full = |rotation| Timing {
        lease: LEASE,
        exchange: EXCHANGE,
        send_before: LEASE.saturating_sub(EXCHANGE + MARGIN),
        rotation,
    };
    let Rotation::Grace(grace) = rotation else {
        return full(rotation);
    };
    let lease = LEASE.min(grace / 2);
    let (exchange, margin) = (EXCHANGE.min(lease / 2), MARGIN.min(lease / 5));
    if exchange < SHORTEST_EXCHANGE {
        return full(Rotation::Strict);
    }
    Timing { lease, exchange, send_before: lease.saturating_sub(exchange + margin), rotation }
}

/// A request that never left may be sent again; one whose fate is unknown only where presenting a token twice does no harm.
pub(super) fn worth_a_second_try(error: &TokenError, rotation: Rotation) -> bool {
    error.class == Class::Retry
        && error.retry_after.is_none()
        && (error.delivery == Delivery::NotSent || rotation == Rotation::Tolerant)
}

/// 1 s, doubled with each failure up to 5 min, spread by 20 %, and never less than the provider asked for.
pub(super) fn backoff(failures: u32, retry_after: Option<Duration>, seed: u64) -> Duration {
    let base = Duration::from_secs(1 << failures.min(9)).min(Duration::from_secs(300));
    let spread = u32::try_from(seed % 41).unwrap_or(0);
    (base * (80 + spread) / 100).max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_guard_leaves_time_for_the_exchange() {
        for rotation in [
            Rotation::Strict,
            Rotation::Tolerant,
            Rotation::Grace(Duration::from_secs(10)),
            Rotation::Grace(Duration::from_secs(60)),
        ] {
            let timing = timing(rotation);
            assert!(timing.send_before + timing.exchange < timing.lease, "{timing:?}");
            assert!(timing.send_before > Duration::ZERO, "{timing:?}");
        }
        assert_eq!(timing(Rotation::Grace(Duration::from_secs(5))).rotation, Rotation::Strict);
    }

    #[test]
    fn backoff_grows_is_capped_and_obeys_the_provider() {
        assert!(backoff(0, None, 7) <= Duration::from_millis(1_200));
        assert!(backoff(3, None, 0) >= Duration::from_millis(6_400));
        assert!(backoff(60, None, 40) <= Duration::from_secs(360));
        assert_eq!(backoff(0, Some(Duration::from_secs(90)), 0), Duration::from_secs(90));
    }

    #[test]
    fn only_harmless_repetitions_are_worth_a_second_try() {
        let error =
            |class, delivery| TokenError { class, delivery, text: String::new(), retry_after: None, claims: None };
        assert!(worth_a_second_try(&error(Class::Retry, Delivery::NotSent), Rotation::Strict));
        assert!(!worth_a_second_try(&error(Class::Retry, Delivery::Unknown), Rotation::Strict));
        assert!(worth_a_second_try(&error(Class::Retry, Delivery::Unknown), Rotation::Tolerant));
        assert!(!worth_a_second_try(&error(Class::Dead, Delivery::Answered), Rotation::Tolerant));
    }
}
