//! One account in memory: a lease per upstream, the refreshes under way, and the failures that everybody shares for a while.
//!
//! Reading a lease takes no lock. Nothing here waits and nothing here does I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::LeaseError;
use super::lease::Lease;
use crate::account::Alias;
use crate::clock::Moment;

/// What a flight brings to everybody who waits for it. `None` until it has landed.
pub(super) type Landing = Option<Result<Arc<Lease>, LeaseError>>;

/// What somebody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Any token that lives.
    Live,
    /// A token that lives and is newer than this version.
    Newer(u64),
}

impl Want {
    pub(super) fn accepts(self, lease: &Lease, now: Moment) -> bool {
        lease.lives(now)
            && match self {
                Self::Live => true,
                Self::Newer(version) => lease.version > version,
            }
    }
}

pub(super) struct Slot {
    pub(super) alias: Alias,
    leases: Box<[ArcSwapOption<Lease>]>,
    busy: Mutex<Busy>,
}

#[derive(Default)]
struct Busy {
    flights: Vec<(usize, watch::Receiver<Landing>)>,
    failure: Option<SharedFailure>,
    turn: u64,
}

/// A failure that is answered from memory until its time is over.
struct SharedFailure {
    until: Moment,
    error: LeaseError,
}

/// Counts what the slot was told. Whoever wants to tell it the state of the store asks for the turn, reads the store, and is heard
/// only if nobody else was heard meanwhile: so memory never goes back to an older state, whoever the alias belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(u64);

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A flight, which reads the store anyway.
    Flight,
    /// Something was done to the grant: a failure that everybody shared is of the past.
    Change,
}

impl Slot {
    pub(super) fn new(alias: Alias, upstreams: usize) -> Self {
        let leases = (0..upstreams).map(|_| ArcSwapOption::empty()).collect();
        Self { alias, leases, busy: Mutex::default() }
    }

    /// The lease as it is, dead or alive. The hot path.
    pub(super) fn lease(&self, upstream: usize) -> Option<Arc<Lease>> {
        self.leases.get(upstream)?.load_full()
    }

    pub(super) fn turn(&self) -> Turn {
        Turn(self.busy().turn)
    }

    /// Puts `leases`, one place for each upstream, in force instead of everything that is here. `None`: the store has to be read
    /// again. A token that is here already stays the lease that it is: its version is that of the grant which brought it, and its
    /// time runs by the monotonic clock.
    pub(super) fn follow(&self, turn: Turn, leases: Vec<Option<Lease>>, source: Source) -> Option<Turn> {
        let mut busy = self.busy();
        if busy.turn != turn.0 {
            return None;
        }
        busy.turn += 1;
        let mut changed = source == Source::Change;
        for (place, new) in self.leases.iter().zip(leases) {
            let old = place.load();
            if let (Some(old), Some(new)) = (&*old, &new)
                && old.is_same_token(new)
            {
                continue;
            }
            changed |= new.is_some();
            place.store(new.map(Arc::new));
        }
        if changed {
            busy.failure = None;
        }
        Some(Turn(busy.turn))
    }

    /// Nobody would miss this slot.
    pub(super) fn is_idle(&self, now: Moment) -> bool {
        let busy = self.busy();
        busy.flights.is_empty()
            && busy.failure.as_ref().is_none_or(|failure| failure.until <= now)
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
    pub(super) fn share_failure(&self, turn: Turn, error: &LeaseError, until: Moment) {
        let mut busy = self.busy();
        if busy.turn == turn.0 {
            busy.failure = Some(SharedFailure { until, error: error.clone() });
        }
    }

    pub(super) fn shared_failure(&self, now: Moment) -> Option<LeaseError> {
        let busy = self.busy();
        let failure = busy.failure.as_ref().filter(|failure| failure.until > now)?;
        Some(failure.error.clone().with_retry_after(failure.until.since(now).max(Duration::from_secs(1))))
    }

    /// The flight for this upstream: the one under way, or a new one that the caller has to start.
    pub(super) fn board(self: &Arc<Self>, upstream: usize) -> Boarding {
        let mut busy = self.busy();
        if let Some((_, landing)) = busy.flights.iter().find(|(of, _)| *of == upstream) {
            return Boarding::UnderWay(landing.clone());
        }
        let (sender, receiver) = watch::channel(None);
        busy.flights.push((upstream, receiver.clone()));
        Boarding::New(Pilot { slot: Arc::clone(self), upstream, sender }, receiver)
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
    slot: Arc<Slot>,
    upstream: usize,
    sender: watch::Sender<Landing>,
}

impl Pilot {
    pub(super) fn land(self, result: Result<Arc<Lease>, LeaseError>) {
        self.leave();
        self.sender.send_replace(Some(result));
    }

    fn leave(&self) {
        self.slot.busy().flights.retain(|(of, _)| *of != self.upstream);
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.leave();
        }
    }
}
