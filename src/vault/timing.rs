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

/// 1 s, doubled with each failure up to 5 min, spread by 20 %, and never less than the provider asked for. A provider that is ill is
/// spared by its circuit breaker, so an account that met with that is not held back for longer than the breaker would.
pub(super) fn backoff(failures: u32, error: &TokenError, seed: u64) -> Duration {
    let longest = Duration::from_secs(if error.class == Class::Retry { 30 } else { 300 });
    let base = Duration::from_secs(1 << failures.min(9)).min(longest);
    let spread = u32::try_from(seed % 41).unwrap_or(0);
    (base * (80 + spread) / 100).max(error.retry_after.unwrap_or_default())
}

/// The share of a token's life, in percent, that is left when it ages: 25 to 40 % of a short one, about half of one of two hours
/// and more. `spread` is any number of the account's, so that accounts that signed in together do not refresh together.
pub(super) fn share_left_when_ageing(life: Duration, spread: u64) -> u32 {
    const LONG: Duration = Duration::from_secs(2 * 3600);
    let percent = u32::try_from(spread % 16).unwrap_or(0);
    if life < LONG { 25 + percent } else { 43 + percent }
}

/// How much of a token's life is left when it ages, if the provider said that it wants it renewed with `asked` left: not before
/// that, a little spread after it, and never later than `usual`, what we would do unasked.
pub(super) fn left_when_ageing(asked: Duration, usual: Duration, spread: u64) -> Duration {
    let percent = u32::try_from(spread % 16).unwrap_or(0);
    (asked * (100 - percent) / 100).max(usual)
}

/// A number of the account's own, the same in every replica.
pub(super) fn spread(subject: &str, start: u64) -> u64 {
    subject.bytes().fold(start, |mix, byte| mix.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::Whose;

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
        let error = |class, retry_after: Option<u64>| TokenError {
            class,
            whose: Whose::Grant,
            delivery: Delivery::Answered,
            text: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
            claims: None,
        };
        for class in [Class::Retry, Class::Config] {
            assert!(backoff(0, &error(class, None), 7) <= Duration::from_millis(1_200));
            assert!(backoff(3, &error(class, None), 0) >= Duration::from_millis(6_400));
            assert_eq!(backoff(0, &error(class, Some(90)), 0), Duration::from_secs(90));
        }
        assert_eq!(backoff(60, &error(Class::Config, None), 40), Duration::from_secs(360));
        assert_eq!(backoff(60, &error(Class::Retry, None), 40), Duration::from_secs(36));
    }

    #[test]
    fn half_of_a_long_life_and_the_providers_word() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for spread in 0..64 {
            let (short, long) = (share_left_when_ageing(hours(1), spread), share_left_when_ageing(hours(24), spread));
            assert!((25..=40).contains(&short) && (43..=58).contains(&long), "{short} {long}");
            assert!(long > short, "never later than the rule for short ones");
            let left = left_when_ageing(hours(12), hours(6), spread);
            assert!(left <= hours(12) && left >= hours(10), "{left:?}");
            assert_eq!(left_when_ageing(hours(1), hours(6), spread), hours(6));
        }
    }

    #[test]
    fn only_harmless_repetitions_are_worth_a_second_try() {
        let error = |class, delivery| TokenError {
            class,
            whose: Whose::Grant,
            delivery,
            text: String::new(),
            retry_after: None,
            claims: None,
        };
        assert!(worth_a_second_try(&error(Class::Retry, Delivery::NotSent), Rotation::Strict));
        assert!(!worth_a_second_try(&error(Class::Retry, Delivery::Unknown), Rotation::Strict));
        assert!(worth_a_second_try(&error(Class::Retry, Delivery::Unknown), Rotation::Tolerant));
        assert!(!worth_a_second_try(&error(Class::Dead, Delivery::Answered), Rotation::Tolerant));
    }
}
