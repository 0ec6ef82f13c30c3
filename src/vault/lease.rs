//! A lease: the ready `Authorization` value of one account for one upstream, and how fresh it is.
//!
//! Freshness is a pure function of the lease and the time. All of it is monotonic time, so that a clock that is set does not
//! kill a token that lives. A token that lives is served; only one that has expired makes a request fail.

use std::time::Duration;

use http::HeaderValue;

use crate::account::{AccountKey, Alias};
use crate::clock::{Clock, Moment, Timestamp};
use crate::store::{AccessToken, Grant};

/// A ready `Authorization` value with its expiry: what the hot path uses.
#[derive(Debug)]
pub struct Lease {
    /// `Bearer ...`, marked sensitive.
    pub authorization: HeaderValue,
    pub account: AccountKey,
    pub alias: Alias,
    pub epoch: u64,
    /// Of the grant when it brought this token.
    pub version: u64,
    /// When the provider gave us the token; `None`: it was imported, and nobody knows.
    pub obtained: Option<Moment>,
    /// From here on a refresh in the background is due.
    pub ages: Moment,
    /// From here on a request waits for that refresh, though the token still lives.
    pub expiring: Moment,
    pub expires: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Freshness {
    Fresh,
    Ageing,
    Expiring,
    Expired,
}

/// A request waits for a refresh only in the last minute of a long token's life.
const LAST_MINUTE: Duration = Duration::from_secs(60);

impl Lease {
    /// `None`: the token can't be written into a header.
    pub fn new(grant: &Grant, token: &AccessToken, clock: &Clock) -> Option<Self> {
        let (wall, now) = (clock.now(), clock.moment());
        let left = token.expires.since(wall);
        let age = (token.obtained > Timestamp::default()).then(|| wall.since(token.obtained));
        let life = age.unwrap_or_default() + left;
        let expires = now.plus(left);
        let before_expiry = |part: Duration| now.plus(left.saturating_sub(part));
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.token.expose())).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            authorization,
            account: grant.key.clone(),
            alias: grant.alias.clone(),
            epoch: grant.epoch,
            version: grant.version,
            obtained: age.map(|age| now.before(age)),
            ages: before_expiry(life.mul_f64(remaining_share_when_ageing(grant))),
            expiring: before_expiry(LAST_MINUTE.min(life / 10)),
            expires,
        })
    }

    pub fn freshness(&self, now: Moment) -> Freshness {
        if now < self.ages {
            Freshness::Fresh
        } else if now < self.expiring {
            Freshness::Ageing
        } else if now < self.expires {
            Freshness::Expiring
        } else {
            Freshness::Expired
        }
    }

    pub(super) fn is_same_token(&self, other: &Self) -> bool {
        (self.epoch, &self.account, &self.authorization) == (other.epoch, &other.account, &other.authorization)
    }

    pub fn lives(&self, now: Moment) -> bool {
        now < self.expires
    }

    /// The provider gave it to us less than `span` ago.
    pub fn younger_than(&self, span: Duration, now: Moment) -> bool {
        self.obtained.is_some_and(|obtained| now.since(obtained) < span)
    }
}

/// A token ages when 25 to 40 % of its life is left. The spread is drawn from the account and the version, so that accounts that
/// signed in together do not refresh together, and every replica agrees.
fn remaining_share_when_ageing(grant: &Grant) -> f64 {
    let spread =
        grant.key.subject.bytes().fold(grant.version, |mix, byte| mix.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let percent = u32::try_from(spread % 16).unwrap_or(0);
    f64::from(25 + percent) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Status;

    fn grant(version: u64) -> Grant {
        Grant {
            key: AccountKey { provider: "entra".into(), tenant: "t".into(), subject: "s".into() },
            alias: Alias::new("alice").unwrap(),
            epoch: 1,
            version,
            status: Status::Active,
            scopes: Vec::new(),
            access: Vec::new(),
            username: None,
            created_at: Timestamp::default(),
            signed_in_at: Timestamp::default(),
            refreshed_at: None,
            next_try: None,
            fail_count: 0,
            intent: false,
        }
    }

    fn token(clock: &Clock, life: u64) -> AccessToken {
        AccessToken {
            scope_set: "User.Read".into(),
            token: "t".into(),
            expires: clock.now().plus(Duration::from_secs(life)),
            obtained: clock.now(),
        }
    }

    #[test]
    fn a_token_of_an_hour_passes_through_every_state() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        for version in 0..32 {
            let lease = Lease::new(&grant(version), &token(&clock, 3600), &clock).unwrap();
            let at = |secs| lease.freshness(clock.moment().plus(Duration::from_secs(secs)));
            assert_eq!(at(3600 * 59 / 100), Freshness::Fresh);
            assert_eq!(at(3600 * 76 / 100), Freshness::Ageing);
            assert_eq!(at(3539), Freshness::Ageing);
            assert_eq!(at(3541), Freshness::Expiring);
            assert_eq!(at(3600), Freshness::Expired);
        }
    }

    #[test]
    fn a_token_of_five_seconds_is_served_for_most_of_them() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let lease = Lease::new(&grant(1), &token(&clock, 5), &clock).unwrap();
        let at = |millis| lease.freshness(clock.moment().plus(Duration::from_millis(millis)));
        assert_eq!(at(2_900), Freshness::Fresh);
        assert_eq!(at(4_400), Freshness::Ageing);
        assert_eq!(at(4_600), Freshness::Expiring);
        assert_eq!(at(5_000), Freshness::Expired);
    }

    #[test]
    fn an_imported_token_is_never_young() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let imported = AccessToken { obtained: Timestamp::default(), ..token(&clock, 3600) };
        let lease = Lease::new(&grant(1), &imported, &clock).unwrap();
        assert!(!lease.younger_than(Duration::from_secs(10), clock.moment()));
        assert_eq!(lease.freshness(clock.moment()), Freshness::Fresh);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_matter() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let lease = Lease::new(&grant(1), &token(&clock, 3600), &clock).unwrap();
        clock.step_wall(-7_200_000);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(lease.freshness(clock.moment()), Freshness::Expired);
    }
}
