//! All gates of one upstream: who is at them, and which of them pause.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::{Clock, Moment};
use crate::config;
use crate::graph::workload::{Service, Workload};
use crate::metrics::{Metrics, Ongoing};
use crate::vault::Subject;

/// Requests at a time that OneNote takes from one user.
const ONENOTE_CONCURRENT: usize = 5;

/// Pauses that are noted: a client names the owners, and the upstream may throttle it for each.
const MOST_PAUSES: usize = 10_000;

pub struct House {
    upstream: Arc<str>,
    mailbox_concurrent: Option<usize>,
    queue: usize,
    hasher: RandomState,
    /// How many pauses are noted. While there are none, workloads without a limit need not look any further.
    pauses: AtomicUsize,
    state: Mutex<State>,
    clock: Clock,
    metrics: Metrics,
}

/// Which gate. Whose it is stands there as a keyed hash: names come from requests and may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub service: Service,
    whose: u64,
}

/// Whether one who arrives may go on.
pub enum Turn {
    Unlimited,
    Now(OwnedSemaphorePermit),
    Later(Arc<Semaphore>),
}

/// One request that waits at its gate.
pub struct Waiting<'a> {
    house: &'a House,
    key: Key,
    _counted: Ongoing,
}

#[derive(Default)]
struct State {
    gates: HashMap<Key, Gate>,
    /// When the pauses end.
    ends: BTreeSet<(Moment, Key)>,
}

#[derive(Default)]
struct Gate {
    seats: Option<Arc<Semaphore>>,
    /// With a place or waiting for one.
    present: usize,
    waiting: usize,
    paused_until: Option<Moment>,
}

impl House {
    pub fn new(config: &config::Upstream, clock: &Clock, metrics: &Metrics) -> Self {
        Self {
            upstream: config.name.as_str().into(),
            mailbox_concurrent: config.throttling.mailbox_concurrent,
            queue: config.throttling.queue,
            hasher: RandomState::new(),
            pauses: AtomicUsize::new(0),
            state: Mutex::default(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        }
    }

    pub fn key(&self, workload: Workload<'_>, subject: &Subject) -> Key {
        let Workload { service, owner } = workload;
        let whose = match subject {
            // `/users/alice@contoso.com` is `/me` to alice.
            Subject::User(alias) => {
                let other = owner.filter(|owner| !owner.eq_ignore_ascii_case(alias.as_str()));
                self.hasher.hash_one((0, alias.as_str(), "", other))
            }
            Subject::App => self.hasher.hash_one((1, "", "", owner)),
            Subject::OnBehalfOf(user) => self.hasher.hash_one((2, user.tenant.as_str(), user.subject.as_str(), owner)),
        };
        Key { service, whose }
    }

    /// There is nothing to wait for and nothing to count. Costs next to nothing.
    pub fn is_open(&self, key: Key) -> bool {
        self.limit(key.service).is_none() && self.pauses.load(Ordering::Relaxed) == 0
    }

    /// One more request at its gate.
    pub fn arrive(&self, key: Key) -> Turn {
        let gate = &mut *self.state();
        let gate = gate.gates.entry(key).or_insert_with(|| self.gate(key.service));
        gate.present += 1;
        match &gate.seats {
            None => Turn::Unlimited,
            // What is given back goes to those who wait: a free seat means that nobody does.
            Some(seats) => match Arc::clone(seats).try_acquire_owned() {
                Ok(seat) => Turn::Now(seat),
                Err(_) => Turn::Later(Arc::clone(seats)),
            },
        }
    }

    /// One of those at the gate waits; `None`: too many do.
    pub fn wait(&self, key: Key) -> Option<Waiting<'_>> {
        let mut state = self.state();
        let gate = state.gates.get_mut(&key)?;
        if gate.waiting >= self.queue {
            return None;
        }
        gate.waiting += 1;
        let counted = self.metrics.waits_at_gate(&self.upstream, key.service.name());
        Some(Waiting { house: self, key, _counted: counted })
    }

    pub fn leave(&self, key: Key) {
        if let Entry::Occupied(mut entry) = self.state().gates.entry(key) {
            entry.get_mut().present -= 1;
            if entry.get().is_forgotten() {
                entry.remove();
            }
        }
    }

    /// A longer pause wins over a shorter one.
    pub fn pause(&self, key: Key, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let now = self.clock.moment();
        let until = now.plus(wait);
        let state = &mut *self.state();
        self.wake(state, now);
        let gate = state.gates.entry(key).or_insert_with(|| self.gate(key.service));
        match gate.paused_until {
            Some(earlier) if earlier >= until => return,
            Some(earlier) => {
                state.ends.remove(&(earlier, key));
            }
            None => self.metrics.gate_paused(&self.upstream, key.service.name()),
        }
        gate.paused_until = Some(until);
        state.ends.insert((until, key));
        while state.ends.len() > MOST_PAUSES {
            end_first(state);
        }
        self.pauses.store(state.ends.len(), Ordering::Relaxed);
    }

    pub fn pause_left(&self, key: Key) -> Option<Duration> {
        if self.pauses.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now = self.clock.moment();
        let state = &mut *self.state();
        self.wake(state, now);
        state.gates.get(&key)?.paused_until.map(|until| until.since(now))
    }

    pub fn count_refused(&self, key: Key) {
        self.metrics.gate_refused(&self.upstream, key.service.name());
    }

    /// Ends the pauses that are over, and forgets the gates where nobody is.
    fn wake(&self, state: &mut State, now: Moment) {
        while state.ends.first().is_some_and(|(until, _)| *until <= now) {
            end_first(state);
        }
        self.pauses.store(state.ends.len(), Ordering::Relaxed);
    }

    fn gate(&self, service: Service) -> Gate {
        Gate { seats: self.limit(service).map(|limit| Arc::new(Semaphore::new(limit))), ..Gate::default() }
    }

    fn limit(&self, service: Service) -> Option<usize> {
        match service {
            Service::Outlook => self.mailbox_concurrent,
            Service::OneNote => Some(ONENOTE_CONCURRENT),
            _ => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gates, those among them that pause, and how many requests are at them.
    #[cfg(test)]
    pub fn census(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.gates.len(), state.ends.len(), state.gates.values().map(|gate| gate.present).sum())
    }
}

/// Ends the pause that would be the first to end.
fn end_first(state: &mut State) {
    let Some((_, key)) = state.ends.pop_first() else { return };
    if let Entry::Occupied(mut entry) = state.gates.entry(key) {
        entry.get_mut().paused_until = None;
        if entry.get().is_forgotten() {
            entry.remove();
        }
    }
}

impl Gate {
    fn is_forgotten(&self) -> bool {
        self.present == 0 && self.paused_until.is_none()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(gate) = self.house.state().gates.get_mut(&self.key) {
            gate.waiting -= 1;
        }
    }
}
