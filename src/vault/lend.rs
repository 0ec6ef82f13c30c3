//! The asking side: what a request gets, whether it waits, and for how long. Fetching goes on detached, in `flight` for accounts and
//! in `minting` for tokens that need no grant.
//!
//! Invariants: nobody waits while a token lives that will do; a failure is the answer of those only whom it concerns.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::flight::Flight;
use super::gate::Urgency;
use super::lease::{Freshness, Lease};
use super::minted::Cell;
use super::minting::Minting;
use super::slot::{Boarding, Landing, Slot, Want, answers};
use super::{Asked, Inner, LeaseError, Rejected, Subject, UpstreamId, Vault};
use crate::account::Alias;
use crate::claims::Claims;
use crate::clock::Clock;

/// A request waits for a token no longer than this; the refresh itself goes on.
const PATIENCE: Duration = Duration::from_secs(10);
/// A plain 401 on a token younger than this is not the token's fault: no second refresh (Entra's loop detection, AADSTS50196).
const TOO_YOUNG: Duration = Duration::from_secs(10);
/// When to ask again after waiting in vain.
const COME_BACK: Duration = Duration::from_secs(5);
/// So many flights may bring something that will not do before a request gives up: a plain one, and those of other challenges.
const FLIGHTS: usize = 5;

/// Where a subject's token for an upstream is in memory, and what it takes to fetch one.
struct Seat {
    slot: Arc<Slot>,
    place: usize,
    crew: Crew,
}

enum Crew {
    Account(Alias),
    Minted(Arc<Cell>),
}

impl Vault {
    /// A token for `upstream` that lives. A fresh one costs one map read.
    pub async fn lease(&self, subject: &Subject, asked: impl Into<Asked<'_>>) -> Result<Arc<Lease>, LeaseError> {
        let asked = asked.into();
        let upstream = asked.upstream;
        subject.may_ask(&self.0.clock)?;
        let Some(current) = self.0.current(subject, upstream) else {
            return self.obtain(subject, asked, Want::default(), false).await;
        };
        current.mark_used();
        let newer = Want::newer_than(current.version);
        match current.freshness(self.0.clock.moment()) {
            Freshness::Fresh => Ok(current),
            Freshness::Ageing => {
                if self.0.has_room_ahead(upstream) {
                    self.0.fly_ahead(subject, upstream, newer);
                }
                Ok(current)
            }
            Freshness::Expiring => match self.obtain(subject, asked, newer, false).await {
                Err(error) if current.lives(self.0.clock.moment()) && error.spares_old_token() => Ok(current),
                result => result,
            },
            Freshness::Expired => self.obtain(subject, asked, Want::default(), false).await,
        }
    }

    /// An upstream refused the token of `lease`, perhaps with a claims challenge. Acts on that version only: where a newer token is
    /// there that answers the challenge, that one is the answer.
    pub async fn reject(
        &self,
        subject: &Subject,
        lease: &Lease,
        asked: impl Into<Asked<'_>>,
        challenge: Option<&Claims>,
    ) -> Result<Rejected, LeaseError> {
        let asked = asked.into();
        let upstream = asked.upstream;
        subject.may_ask(&self.0.clock)?;
        let newest = self.0.current(subject, upstream);
        if newest.as_ref().is_none_or(|newest| newest.version <= lease.version) && self.is_too_young(lease, challenge) {
            return Ok(Rejected::TooYoung);
        }
        let want = Want::newer_than(lease.version).answering(challenge);
        let answered = newest.is_some_and(|newest| want.accepts(&newest, self.0.clock.moment()));
        if !answered && self.0.is_challenged_too_often(subject, upstream, challenge) {
            return Ok(Rejected::TooYoung);
        }
        self.obtain(subject, asked, want, false).await.map(Rejected::Renewed)
    }

    /// As `reject`, for the benefit of later requests: nobody waits.
    pub fn reject_behind(
        &self,
        subject: &Subject,
        lease: &Arc<Lease>,
        upstream: UpstreamId,
        challenge: Option<&Claims>,
    ) {
        if subject.may_ask(&self.0.clock).is_ok()
            && !self.is_too_young(lease, challenge)
            && !self.0.is_challenged_too_often(subject, upstream, challenge)
        {
            self.0.fly_ahead(subject, upstream, Want::newer_than(lease.version).answering(challenge));
        }
    }

    /// Another token would be refused just the same: this one is seconds old, and was got with all that the challenge asks for.
    fn is_too_young(&self, lease: &Lease, challenge: Option<&Claims>) -> bool {
        challenge.is_none_or(|challenge| answers(lease, challenge))
            && lease.younger_than(TOO_YOUNG, self.0.clock.moment())
    }

    /// Waits for a token that will do: from a flight under way, or from one that is started here.
    pub(super) async fn obtain(
        &self,
        subject: &Subject,
        asked: Asked<'_>,
        want: Want,
        forced: bool,
    ) -> Result<Arc<Lease>, LeaseError> {
        let want = subject.complete(want);
        let waiting = self.wait_in(self.0.seat(subject, asked.upstream), asked, &want, forced);
        let result = tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| {
            let text = format!("the refresh takes longer than {} s", PATIENCE.as_secs());
            Err(LeaseError::ProviderUnavailable { text, retry_after: COME_BACK })
        });
        match (&result, subject) {
            (Ok(lease), _) => lease.mark_used(),
            (Err(LeaseError::NoAccount), Subject::User(alias)) => self.0.forget(alias),
            (Err(_), _) => {}
        }
        result
    }

    async fn wait_in(&self, seat: Seat, asked: Asked<'_>, want: &Want, forced: bool) -> Result<Arc<Lease>, LeaseError> {
        let inner = &self.0;
        for _ in 0..FLIGHTS {
            let now = inner.clock.moment();
            if let Some(lease) = seat.slot.lease(seat.place).filter(|lease| want.accepts(lease, now)) {
                return Ok(lease);
            }
            if let Some(failure) = seat.slot.shared_failure(seat.place, want, now).filter(|_| !forced) {
                return Err(failure);
            }
            let mut landing = inner.fly(&seat, asked, want, forced, Urgency::OnDemand);
            let landed = landing.wait_for(Option::is_some).await;
            match landed.as_deref() {
                Ok(Some(Ok(lease))) if want.accepts(lease, inner.clock.moment()) => return Ok(Arc::clone(lease)),
                Ok(Some(Err(ended))) if ended.concerns(want) && (!ended.outdated || inner.is_retired()) => {
                    return Err(ended.error.clone());
                }
                Ok(_) => {}
                Err(_) => return Err(LeaseError::Damaged("a refresh ended without a result".into())),
            }
        }
        let text = "every token that came was outdated again".to_owned();
        Err(LeaseError::ProviderUnavailable { text, retry_after: COME_BACK })
    }
}

impl Subject {
    fn may_ask(&self, clock: &Clock) -> Result<(), LeaseError> {
        match self {
            Self::OnBehalfOf(assertion) if assertion.expires <= clock.now() => {
                Err(LeaseError::AssertionRefused("it has expired".to_owned()))
            }
            Self::User(_) | Self::App | Self::OnBehalfOf(_) => Ok(()),
        }
    }

    /// What this subject brings along to get it.
    fn complete(&self, want: Want) -> Want {
        match self {
            Self::OnBehalfOf(assertion) => Want { assertion: Some(Arc::clone(assertion)), ..want },
            Self::User(_) | Self::App => want,
        }
    }
}

impl Inner {
    /// The lease in memory, dead or alive.
    fn current(&self, subject: &Subject, upstream: UpstreamId) -> Option<Arc<Lease>> {
        match subject {
            Subject::User(alias) => self.memory.slots.get(alias)?.lease(upstream.place),
            Subject::App => self.minted.app(upstream).slot.lease(0),
            Subject::OnBehalfOf(assertion) => self.minted.known(upstream, assertion)?.slot.lease(0),
        }
    }

    fn is_challenged_too_often(&self, subject: &Subject, upstream: UpstreamId, challenge: Option<&Claims>) -> bool {
        challenge.is_some() && {
            let seat = self.seat(subject, upstream);
            seat.slot.is_challenged_too_often(seat.place, self.clock.moment())
        }
    }

    fn seat(&self, subject: &Subject, upstream: UpstreamId) -> Seat {
        let cell = match subject {
            Subject::User(alias) => {
                let crew = Crew::Account(alias.clone());
                return Seat { slot: self.memory.slot(alias), place: upstream.place, crew };
            }
            Subject::App => Arc::clone(self.minted.app(upstream)),
            Subject::OnBehalfOf(assertion) => self.minted.caller(upstream, assertion, self.clock.moment()),
        };
        Seat { slot: Arc::clone(&cell.slot), place: 0, crew: Crew::Minted(cell) }
    }

    /// Starts a refresh that nobody waits for, unless the last one failed a moment ago.
    pub(super) fn fly_ahead(
        self: &Arc<Self>,
        subject: &Subject,
        upstream: UpstreamId,
        want: Want,
    ) -> Option<watch::Receiver<Landing>> {
        let want = subject.complete(want);
        let seat = self.seat(subject, upstream);
        let failed = seat.slot.shared_failure(seat.place, &want, self.clock.moment()).is_some();
        (!failed).then(|| self.fly(&seat, upstream.into(), &want, false, Urgency::AheadOfTime))
    }

    /// The flight under way for this seat, or a new one, started detached from whoever asks. It is in the trace of who started it.
    fn fly(
        self: &Arc<Self>,
        seat: &Seat,
        asked: Asked<'_>,
        want: &Want,
        forced: bool,
        urgency: Urgency,
    ) -> watch::Receiver<Landing> {
        let (pilot, landing) = match seat.slot.board(seat.place, want, urgency, self.clock.moment()) {
            Boarding::UnderWay(landing) => return landing,
            Boarding::New(pilot, landing) => (pilot, landing),
        };
        let (vault, want, upstream, span) = (Arc::clone(self), want.clone(), asked.upstream.at, asked.span.cloned());
        match &seat.crew {
            Crew::Account(alias) => {
                let flight = Flight { vault, alias: alias.clone(), pilot, upstream, want, forced, span };
                self.tasks.spawn(flight.run());
            }
            Crew::Minted(cell) => {
                let minting = Minting { vault, cell: Arc::clone(cell), pilot, upstream, want, span };
                self.tasks.spawn(minting.run());
            }
        }
        landing
    }
}
