//! A lease: the ready `Authorization` value of one account for one upstream, and how fresh it is.
//!
//! Freshness is a pure function of the lease and the time. All of it is monotonic time, so that a clock that is set does not
//! kill a token that lives. A token that lives is served; only one that has expired makes a request fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::timing::{left_when_ageing, share_left_when_ageing, spread};
use crate::account::AccountKey;
use crate::claims::Claims;
use crate::clock::{Moment, Reading, Timestamp};
use crate::store::{AccessToken, Grant};

/// A ready `Authorization` value with its expiry: what the hot path uses.
#[derive(Debug)]
pub struct Lease {
    /// `Bearer ...`, marked sensitive.
    pub authorization: HeaderValue,
    pub account: AccountKey,
    pub epoch: u64,
    /// Of the grant when it brought this token.
    pub version: u64,
    /// The claims challenge that it answers.
    pub claims: Option<Claims>,
    /// When the provider gave us the token; `None`: it was imported, and nobody knows.
    pub obtained: Option<Moment>,
    /// From here on a refresh in the background is due.
    pub ages: Moment,
    /// From here on a request waits for that refresh, though the token still lives.
    pub expiring: Moment,
    pub expires: Moment,
    /// This process got it from the provider itself: no wall clock that was set since has a part in its times.
    witnessed: bool,
    /// Some request was given it.
    used: AtomicBool,
}

/// A token that this process got from the provider itself, and when.
pub(super) struct Witness {
    pub(super) token: AccessToken,
    pub(super) at: Reading,
    /// The grant's epoch and version with it.
    pub(super) grant: (u64, u64),
}

/// Whose a token is, and which of several.
pub struct Whose {
    pub account: AccountKey,
    pub epoch: u64,
    pub version: u64,
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

impl From<&Grant> for Whose {
    fn from(grant: &Grant) -> Self {
        Self { account: grant.key.clone(), epoch: grant.epoch, version: grant.version }
    }
}

impl Lease {
    /// `at`: when the times of `token` are compared with the clock. `None`: the token can't be written into a header.
    pub fn new(whose: Whose, token: &AccessToken, at: Reading) -> Option<Self> {
        let Reading { wall, moment: now } = at;
        let left = token.expires.since(wall);
        // A token from the future tells that the clock was set back, not that it is young.
        let known = token.obtained > Timestamp::default() && token.obtained <= wall;
        let age = known.then(|| wall.since(token.obtained));
        let life = age.unwrap_or_default() + left;
        let expires = now.plus(left);
        let before_expiry = |part: Duration| now.plus(left.saturating_sub(part));
        let spread = spread(&whose.account.subject, whose.version);
        let usual = life * share_left_when_ageing(life, spread) / 100;
        let asked = token.refresh_after.map(|after| token.expires.since(after));
        let left_when_ageing = asked.map_or(usual, |asked| left_when_ageing(asked, usual, spread));
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.token.expose())).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            authorization,
            account: whose.account,
            epoch: whose.epoch,
            version: whose.version,
            claims: token.claims.clone(),
            obtained: age.map(|age| now.before(age)),
            ages: before_expiry(left_when_ageing),
            expiring: before_expiry(LAST_MINUTE.min(life / 10)),
            expires,
            witnessed: false,
            used: AtomicBool::new(false),
        })
    }

    /// As `witness` knows it, where `token` is the one that it got.
    pub(super) fn witnessed_by(witness: &Witness, whose: Whose, token: &AccessToken) -> Option<Self> {
        let own = (&witness.token.scope_set, witness.token.token.expose()) == (&token.scope_set, token.token.expose());
        let lease = || Self::new(whose, &witness.token, witness.at);
        own.then(lease).flatten().map(|lease| Self { witnessed: true, ..lease })
    }

    /// Of the same token's times.
    pub(super) fn knows_better(&self, other: &Self) -> bool {
        self.witnessed && !other.witnessed
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

    /// A request gets it. Read first: a mark that stands already costs the other workers nothing.
    pub(super) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// As if nobody had used it yet.
    pub(super) fn forget_use(&self) {
        self.used.store(false, Ordering::Relaxed);
    }

    /// It ages, and since it came somebody has used it: the next request is likely to want a new one.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.used.load(Ordering::Relaxed) && matches!(self.freshness(now), Freshness::Ageing | Freshness::Expiring)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::vault::slot::{Slot, Source};

    fn alice(version: u64) -> Whose {
        let account = AccountKey { provider: "entra".into(), tenant: "t".into(), subject: "s".into() };
        Whose { account, epoch: 1, version }
    }

    fn token(clock: &Clock, life: u64) -> AccessToken {
        AccessToken {
            scope_set: "User.Read".into(),
            token: "t".into(),
            expires: clock.now().plus(Duration::from_secs(life)),
            obtained: clock.now(),
            refresh_after: None,
            claims: None,
        }
    }

    #[test]
    fn a_token_of_an_hour_passes_through_every_state() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        for version in 0..32 {
            let lease = Lease::new(alice(version), &token(&clock, 3600), clock.read()).unwrap();
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
        let lease = Lease::new(alice(1), &token(&clock, 5), clock.read()).unwrap();
        let at = |millis| lease.freshness(clock.moment().plus(Duration::from_millis(millis)));
        assert_eq!(at(2_900), Freshness::Fresh);
        assert_eq!(at(4_400), Freshness::Ageing);
        assert_eq!(at(4_600), Freshness::Expiring);
        assert_eq!(at(5_000), Freshness::Expired);
    }

    #[test]
    fn a_long_token_ages_at_half_of_its_life_and_where_the_provider_says() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let day = token(&clock, 24 * 3600);
        let at = |lease: &Lease, hours: u64| lease.freshness(clock.moment().plus(Duration::from_secs(hours * 3600)));
        for version in 0..32 {
            let lease = Lease::new(alice(version), &day, clock.read()).unwrap();
            assert_eq!((at(&lease, 10), at(&lease, 14)), (Freshness::Fresh, Freshness::Ageing));
            let asked =
                AccessToken { refresh_after: Some(clock.now().plus(Duration::from_secs(4 * 3600))), ..day.clone() };
            let lease = Lease::new(alice(version), &asked, clock.read()).unwrap();
            assert_eq!((at(&lease, 3), at(&lease, 8)), (Freshness::Fresh, Freshness::Ageing));
            let late =
                AccessToken { refresh_after: Some(clock.now().plus(Duration::from_secs(23 * 3600))), ..day.clone() };
            let lease = Lease::new(alice(version), &late, clock.read()).unwrap();
            assert_eq!(at(&lease, 14), Freshness::Ageing, "no later than without a word");
        }
    }

    #[test]
    fn only_what_was_used_is_due() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let lease = Lease::new(alice(1), &token(&clock, 3600), clock.read()).unwrap();
        let at = |secs| lease.is_due(clock.moment().plus(Duration::from_secs(secs)));
        assert!(!at(3000));
        lease.mark_used();
        assert_eq!([2000, 2800, 3590, 3600].map(at), [false, true, true, false]);
    }

    #[test]
    fn an_imported_token_is_never_young() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let imported = AccessToken { obtained: Timestamp::default(), ..token(&clock, 3600) };
        let lease = Lease::new(alice(1), &imported, clock.read()).unwrap();
        assert!(!lease.younger_than(Duration::from_secs(10), clock.moment()));
        assert_eq!(lease.freshness(clock.moment()), Freshness::Fresh);
    }

    #[test]
    fn a_token_from_the_future_is_not_young() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let ahead = AccessToken { obtained: clock.now().plus(Duration::from_secs(7200)), ..token(&clock, 10_800) };
        let lease = Lease::new(alice(1), &ahead, clock.read()).unwrap();
        assert!(!lease.younger_than(Duration::from_secs(10), clock.moment()));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_matter() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let lease = Lease::new(alice(1), &token(&clock, 3600), clock.read()).unwrap();
        clock.step_wall(-7_200_000);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(lease.freshness(clock.moment()), Freshness::Expired);
    }

    #[test]
    fn who_got_a_token_knows_better_than_who_read_it_after_the_clock_was_set() {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let witness = Witness { token: token(&clock, 3600), at: clock.read(), grant: (1, 2) };
        let slot = Slot::new(1);
        let tell = |lease: Option<Lease>, source| slot.follow(slot.turn(), vec![lease], source).expect("its turn");
        let left = || slot.lease(0).expect("a lease").expires.since(clock.moment()).as_secs();
        clock.step_wall(-7_200_000);
        tell(Lease::new(alice(2), &witness.token, clock.read()), Source::Change);
        assert_eq!(left(), 3600 + 7200);
        tell(Lease::witnessed_by(&witness, alice(2), &witness.token), Source::Flight);
        assert_eq!(left(), 3600);
        tell(Lease::new(alice(2), &witness.token, clock.read()), Source::Change);
        assert_eq!(left(), 3600);
        let another = AccessToken { token: "another".into(), ..witness.token.clone() };
        assert!(Lease::witnessed_by(&witness, alice(3), &another).is_none());
    }
}
