//! One subject in memory: a lease per place (an account has one for each upstream, a minted token one alone), the flights under way,
//! and the failures that everybody whom they concern shares for a while.
//!
//! Reading a lease takes no lock. Nothing here waits and nothing here does I/O.

use std::collections::VecDeque;
use std::iter::successors;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::gate::{SharedUrgency, Urgency};
use super::lease::Lease;
use super::{Assertion, LeaseError};
use crate::claims::Claims;
use crate::clock::Moment;

/// What a flight brings to everybody who waits for it. `None` until it has landed.
pub(super) type Landing = Option<Result<Arc<Lease>, Ended>>;

/// What somebody needs: a token that lives, and more.
#[derive(Clone, Debug, Default)]
pub(super) struct Want {
    /// Newer than this version: that one was refused, or ages.
    pub(super) newer_than: Option<u64>,
    /// It answers this challenge.
    pub(super) claims: Option<Claims>,
    /// What is presented for it, where the asker brings that along.
    pub(super) assertion: Option<Arc<Assertion>>,
}

impl Want {
    pub(super) fn newer_than(version: u64) -> Self {
        Self { newer_than: Some(version), ..Self::default() }
    }

    pub(super) fn answering(self, challenge: Option<&Claims>) -> Self {
        Self { claims: challenge.cloned(), ..self }
    }

    pub(super) fn accepts(&self, lease: &Lease, now: Moment) -> bool {
        lease.lives(now)
            && self.newer_than.is_none_or(|version| lease.version > version)
            && self.claims.as_ref().is_none_or(|wanted| answers(lease, wanted))
    }
}

/// How a flight ended without a token, whom that concerns, and for how long it is their answer.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) error: LeaseError,
    pub(super) memory: Duration,
    /// Only those who want these claims too; `None`: everybody.
    pub(super) asked: Option<Claims>,
    /// Only those who present this one; `None`: everybody.
    pub(super) assertion: Option<Arc<Assertion>>,
    /// Only those who go by the configuration that the flight went by: there is another now.
    pub(super) outdated: bool,
}

impl Ended {
    pub(super) fn new(error: LeaseError, memory: Duration) -> Self {
        Self { error, memory, asked: None, assertion: None, outdated: false }
    }

    /// Another configuration may fare better.
    pub(super) fn is_about_the_configuration(&self) -> bool {
        matches!(self.error, LeaseError::AppCredential(_) | LeaseError::Misconfigured(_))
    }

    pub(super) fn concerns(&self, want: &Want) -> bool {
        let claims = match (&self.asked, &want.claims) {
            (None, _) => true,
            (Some(asked), Some(wanted)) => wanted.covers(asked),
            (Some(_), None) => false,
        };
        let presents = |refused: &Arc<Assertion>| want.assertion.as_ref().is_some_and(|own| own.is_same(refused));
        claims && self.assertion.as_ref().is_none_or(presents)
    }
}

/// The token was got with claims that say as much as `challenge`.
pub(super) fn answers(lease: &Lease, challenge: &Claims) -> bool {
    lease.claims.as_ref().is_some_and(|claims| claims.covers(challenge))
}

/// Of a merged challenge that is worth sending.
const LONGEST_CLAIMS: usize = 8 * 1024;

/// Both in one, if that is possible: a merge of challenges that contradict each other answers only one of them.
fn both(one: &Claims, other: &Claims) -> Option<Claims> {
    let merged = one.merge(other);
    (merged.as_str().len() <= LONGEST_CLAIMS && merged.covers(one) && merged.covers(other)).then_some(merged)
}

pub(super) struct Slot {
    leases: Leases,
    busy: Mutex<Busy>,
}

/// The places of a slot. More of them come when a reload brings an upstream that was not there before; none ever moves.
struct Leases {
    here: Box<[ArcSwapOption<Lease>]>,
    more: OnceLock<Box<Leases>>,
}

impl Leases {
    fn new(places: usize) -> Self {
        Self { here: (0..places).map(|_| ArcSwapOption::empty()).collect(), more: OnceLock::new() }
    }

    fn get(&self, place: usize) -> Option<&ArcSwapOption<Lease>> {
        match self.here.get(place) {
            None => self.more.get()?.get(place - self.here.len()),
            found => found,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &ArcSwapOption<Lease>> {
        successors(Some(self), |leases| leases.more.get().map(|more| &**more)).flat_map(|leases| &leases.here)
    }

    fn grow(&self, places: usize) {
        if let Some(missing) = places.checked_sub(self.here.len()).filter(|missing| *missing > 0) {
            self.more.get_or_init(|| Box::new(Self::new(missing))).grow(missing);
        }
    }
}

#[derive(Default)]
struct Busy {
    flights: Vec<UnderWay>,
    failures: Vec<SharedFailure>,
    /// When the last flights set out that answer a challenge.
    challenged: VecDeque<Moment>,
    turn: u64,
}

/// So many flights in such a time answer challenges: an upstream that asks for something else each time must not drive the account
/// into the provider's loop detection (Entra ID: some sixty redemptions in five minutes).
const CHALLENGES: usize = 8;
const CHALLENGES_WITHIN: Duration = Duration::from_secs(60);

/// A flight as those see it who come later.
struct UnderWay {
    place: usize,
    landing: watch::Receiver<Landing>,
    /// What everybody aboard is challenged for; `None`: a plain one.
    claims: Option<Claims>,
    /// The request is made: nobody's claims are added any more.
    sealed: bool,
    urgency: SharedUrgency,
}

impl UnderWay {
    /// A plain flight stays one: its passengers must not suffer from the failure of a challenge.
    fn take_aboard(&mut self, want: &Want, urgency: Urgency) {
        if !self.sealed
            && let (Some(carried), Some(wanted)) = (&self.claims, &want.claims)
            && let Some(merged) = both(carried, wanted)
        {
            self.claims = Some(merged);
        }
        self.urgency.join(urgency);
    }
}

/// A failure that is answered from memory until its time is over.
struct SharedFailure {
    place: usize,
    until: Moment,
    ended: Ended,
}

/// Different challenges and assertions fail on their own; so many of them are remembered at a time.
const FAILURES: usize = 8;

/// Counts what the slot was told. Whoever wants to tell it the state of the store asks for the turn, reads the store, and is heard
/// only if nobody else was heard meanwhile: so memory never goes back to an older state, whoever the alias belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(u64);

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A flight, which knows how things stand anyway.
    Flight,
    /// Something was done to the grant: a failure that everybody shared is of the past.
    Change,
}

impl Slot {
    pub(super) fn new(places: usize) -> Self {
        Self { leases: Leases::new(places), busy: Mutex::default() }
    }

    /// The lease as it is, dead or alive. The hot path.
    pub(super) fn lease(&self, place: usize) -> Option<Arc<Lease>> {
        self.leases.get(place)?.load_full()
    }

    pub(super) fn turn(&self) -> Turn {
        Turn(self.busy().turn)
    }

    /// Puts `leases`, one for each place, in force instead of everything that is here. `None`: the store has to be read
    /// again. A token that is here already stays the lease that it is: its version is that of the grant which brought it, and its
    /// time runs by the monotonic clock. Only who got the token itself knows better than somebody who read it in the store.
    pub(super) fn follow(&self, turn: Turn, leases: Vec<Option<Lease>>, source: Source) -> Option<Turn> {
        let mut busy = self.busy();
        if busy.turn != turn.0 {
            return None;
        }
        busy.turn += 1;
        self.leases.grow(leases.len());
        let mut renewed = Vec::new();
        for (number, (place, new)) in self.leases.iter().zip(leases).enumerate() {
            let old = place.load();
            if let (Some(old), Some(new)) = (&*old, &new)
                && old.is_same_token(new)
                && !new.knows_better(old)
            {
                continue;
            }
            if new.is_some() {
                renewed.push(number);
            }
            place.store(new.map(Arc::new));
        }
        busy.failures.retain(|failure| source == Source::Flight && !renewed.contains(&failure.place));
        Some(Turn(busy.turn))
    }

    /// Nobody would miss this slot.
    pub(super) fn is_idle(&self, now: Moment) -> bool {
        let busy = self.busy();
        busy.flights.is_empty()
            && busy.failures.iter().all(|failure| failure.until <= now)
            && self.leases.iter().all(|place| place.load().as_ref().is_none_or(|lease| !lease.lives(now)))
    }

    /// How many leases live, and how many are still here though they have expired.
    pub(super) fn count_leases(&self, now: Moment) -> (usize, usize) {
        let lives = |place: &ArcSwapOption<Lease>| place.load().as_ref().map(|lease| lease.lives(now));
        let states = self.leases.iter().filter_map(lives);
        states
            .fold((0, 0), |(living, expired), lives| if lives { (living + 1, expired) } else { (living, expired + 1) })
    }

    /// Unless the slot was told something newer than what led to the failure.
    pub(super) fn share_failure(&self, turn: Turn, place: usize, ended: &Ended, now: Moment) {
        let mut busy = self.busy();
        if busy.turn != turn.0 || ended.memory.is_zero() {
            return;
        }
        busy.failures.retain(|failure| failure.until > now);
        if busy.failures.len() == FAILURES {
            busy.failures.remove(0);
        }
        busy.failures.push(SharedFailure { place, until: now.plus(ended.memory), ended: ended.clone() });
    }

    /// Another configuration is in force: what failed for the one before says nothing any more.
    pub(super) fn forget_failures_of_the_configuration(&self) {
        self.busy().failures.retain(|failure| !failure.ended.is_about_the_configuration());
    }

    pub(super) fn shared_failure(&self, place: usize, want: &Want, now: Moment) -> Option<LeaseError> {
        let busy = self.busy();
        let mut failures = busy.failures.iter().rev();
        let failure =
            failures.find(|shared| shared.place == place && shared.until > now && shared.ended.concerns(want))?;
        Some(failure.ended.error.clone().with_retry_after(failure.until.since(now).max(Duration::from_secs(1))))
    }

    /// Challenges don't end, and no flight is under way that may answer this one.
    pub(super) fn is_challenged_too_often(&self, place: usize, now: Moment) -> bool {
        let busy = self.busy();
        busy.flights.iter().all(|flight| flight.place != place)
            && busy.challenged.get(CHALLENGES - 1).is_some_and(|first| now.since(*first) < CHALLENGES_WITHIN)
    }

    /// The flight for this place: the one under way, or a new one that the caller has to start.
    pub(super) fn board(self: &Arc<Self>, place: usize, want: &Want, urgency: Urgency, now: Moment) -> Boarding {
        let mut busy = self.busy();
        if let Some(flight) = busy.flights.iter_mut().find(|flight| flight.place == place) {
            flight.take_aboard(want, urgency);
            return Boarding::UnderWay(flight.landing.clone());
        }
        if want.claims.is_some() {
            busy.challenged.truncate(CHALLENGES - 1);
            busy.challenged.push_front(now);
        }
        let (sender, landing) = watch::channel(None);
        let (urgency, claims) = (SharedUrgency::new(urgency), want.claims.clone());
        let flight = UnderWay { place, landing: landing.clone(), claims, sealed: false, urgency: urgency.clone() };
        busy.flights.push(flight);
        Boarding::New(Pilot { slot: Arc::clone(self), place, sender, urgency }, landing)
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum Boarding {
    UnderWay(watch::Receiver<Landing>),
    New(Pilot, watch::Receiver<Landing>),
}

/// The duty to land. Dropped without landing (a panic), it still frees the slot, and the waiters see the channel close.
pub(super) struct Pilot {
    pub(super) slot: Arc<Slot>,
    pub(super) place: usize,
    sender: watch::Sender<Landing>,
    /// Rises when somebody comes aboard who waits.
    pub(super) urgency: SharedUrgency,
}

impl Pilot {
    /// The lease that is there already.
    pub(super) fn lease(&self) -> Option<Arc<Lease>> {
        self.slot.lease(self.place)
    }

    /// `wanted`, and what the token that is there answers already, if one token can answer both. Two challenges that take turns would
    /// be redeemed for ever if each token answered one of them alone.
    pub(super) fn with_what_is_answered(&self, wanted: &Claims, now: Moment) -> Option<Claims> {
        let current = self.lease().filter(|lease| lease.lives(now))?;
        both(current.claims.as_ref()?, wanted)
    }

    /// What everybody aboard is challenged for, up to now.
    pub(super) fn claims(&self) -> Option<Claims> {
        self.own(&mut self.slot.busy()).and_then(|flight| flight.claims.clone())
    }

    /// The same, for good: whoever comes with another challenge after this waits for the next flight.
    pub(super) fn seal(&self) -> Option<Claims> {
        let mut busy = self.slot.busy();
        let flight = self.own(&mut busy)?;
        flight.sealed = true;
        flight.claims.clone()
    }

    pub(super) fn land(self, result: Result<Arc<Lease>, Ended>) {
        self.leave();
        self.sender.send_replace(Some(result));
    }

    fn own<'a>(&self, busy: &'a mut Busy) -> Option<&'a mut UnderWay> {
        busy.flights.iter_mut().find(|flight| flight.place == self.place)
    }

    fn leave(&self) {
        self.slot.busy().flights.retain(|flight| flight.place != self.place);
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.leave();
        }
    }
}
