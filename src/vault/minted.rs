//! Tokens that need no grant, in memory only: the app registration's own, and those got on behalf of a caller's user. `minting`
//! fetches them.
//!
//! Invariants: a user's token is kept under the user, never under the text of an assertion alone; memory is bounded, the longest
//! unused go first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;

use super::slot::Slot;
use super::{Assertion, UpstreamEntry, UpstreamId};
use crate::clock::Moment;

/// So many users' tokens are kept at most.
const MOST: usize = 10_000;
/// So many leave at once when there is one too many: the search for the oldest is not made for each newcomer.
const LEAVE: usize = 500;

pub(super) struct Minted {
    /// One for each upstream.
    apps: Box<[Arc<Cell>]>,
    /// For each upstream the place of the first one with the same provider and scopes: they share their tokens.
    shared: Box<[usize]>,
    callers: Arc<DashMap<Caller, Arc<Cell>>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// Grows with each token, so that a version says which of two is newer even when memory was lost in between.
    versions: AtomicU64,
    /// Grows with each use of a cell.
    uses: AtomicU64,
}

/// Whose token it is: the place stands for provider and scopes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Caller {
    place: usize,
    tenant: String,
    subject: String,
}

/// One token, and what is known of getting it.
pub(super) struct Cell {
    pub(super) slot: Arc<Slot>,
    /// Failures in a row.
    pub(super) failures: AtomicU32,
    used: AtomicU64,
}

impl Minted {
    pub(super) fn new(upstreams: &[UpstreamEntry]) -> Self {
        Self {
            apps: upstreams.iter().map(|_| Arc::new(Cell::new())).collect(),
            shared: shared(upstreams),
            callers: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// The memory of the next configuration. `is_same`: this provider gives what it gave, to the same application.
    pub(super) fn next(&self, own: &[UpstreamEntry], next: &[UpstreamEntry], is_same: impl Fn(&str) -> bool) -> Self {
        let apps = next.iter().map(|upstream| {
            let known = own.iter().position(|known| {
                is_same(&upstream.provider)
                    && (known.place, &known.app_scopes) == (upstream.place, &upstream.app_scopes)
            });
            known.map_or_else(|| Arc::new(Cell::new()), |at| Arc::clone(&self.apps[at]))
        });
        let stays = |place: usize| next.iter().any(|upstream| upstream.place == place && is_same(&upstream.provider));
        let callers = if own.iter().all(|upstream| stays(upstream.place)) {
            Arc::clone(&self.callers)
        } else {
            // Requests that go by the configuration before may still put tokens into their memory: that is theirs alone.
            let staying = self.callers.iter().filter(|entry| stays(entry.key().place));
            Arc::new(staying.map(|entry| (entry.key().clone(), Arc::clone(entry.value()))).collect())
        };
        Self { apps: apps.collect(), shared: shared(next), callers, counters: Arc::clone(&self.counters) }
    }

    /// See `Slot`.
    pub(super) fn forget_failures_of_the_configuration(&self) {
        for cell in &self.apps {
            cell.slot.forget_failures_of_the_configuration();
        }
        for cell in &*self.callers {
            cell.slot.forget_failures_of_the_configuration();
        }
    }

    pub(super) fn app(&self, upstream: UpstreamId) -> &Arc<Cell> {
        &self.apps[upstream.at]
    }

    pub(super) fn known(&self, upstream: UpstreamId, assertion: &Assertion) -> Option<Arc<Cell>> {
        let cell = self.callers.get(&self.key(upstream, assertion))?;
        cell.used.store(self.next_use(), Ordering::Relaxed);
        Some(Arc::clone(&cell))
    }

    pub(super) fn caller(&self, upstream: UpstreamId, assertion: &Assertion, now: Moment) -> Arc<Cell> {
        if let Some(known) = self.known(upstream, assertion) {
            return known;
        }
        if self.callers.len() >= MOST {
            self.make_room(now);
        }
        let cell = self.callers.entry(self.key(upstream, assertion)).or_insert_with(|| Arc::new(Cell::new()));
        cell.used.store(self.next_use(), Ordering::Relaxed);
        Arc::clone(&cell)
    }

    pub(super) fn next_version(&self) -> u64 {
        self.counters.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Forgets what nobody would miss.
    pub(super) fn tidy(&self, now: Moment) {
        self.callers.retain(|_, cell| Arc::strong_count(cell) > 1 || !cell.slot.is_idle(now));
    }

    /// How many tokens live, and how many are still here though they have expired.
    pub(super) fn count_leases(&self, now: Moment) -> (usize, usize) {
        let apps = self.apps.iter().map(|cell| cell.slot.count_leases(now));
        let callers = self.callers.iter().map(|cell| cell.slot.count_leases(now));
        apps.chain(callers).fold((0, 0), |(living, expired), (lives, dead)| (living + lives, expired + dead))
    }

    fn make_room(&self, now: Moment) {
        self.tidy(now);
        let excess = (self.callers.len() + LEAVE).saturating_sub(MOST);
        let mut ages: Vec<u64> = self.callers.iter().map(|cell| cell.used.load(Ordering::Relaxed)).collect();
        if excess == 0 || excess >= ages.len() {
            return;
        }
        let (_, youngest_to_leave, _) = ages.select_nth_unstable(excess - 1);
        let youngest_to_leave = *youngest_to_leave;
        self.callers.retain(|_, cell| cell.used.load(Ordering::Relaxed) > youngest_to_leave);
    }

    fn key(&self, upstream: UpstreamId, assertion: &Assertion) -> Caller {
        let place = self.shared[upstream.at];
        Caller { place, tenant: assertion.tenant.clone(), subject: assertion.subject.clone() }
    }

    fn next_use(&self) -> u64 {
        self.counters.uses.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// For each upstream the place of the first one that asks the same provider for the same.
fn shared(upstreams: &[UpstreamEntry]) -> Box<[usize]> {
    let key = |upstream: &UpstreamEntry| (upstream.provider.clone(), upstream.scope_set.clone());
    let first = |upstream: &UpstreamEntry| {
        upstreams.iter().find(|other| key(other) == key(upstream)).map_or(upstream.place, |first| first.place)
    };
    upstreams.iter().map(first).collect()
}

impl Cell {
    fn new() -> Self {
        Self { slot: Arc::new(Slot::new(1)), failures: AtomicU32::new(0), used: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};

    fn upstream(provider: &str, scope_set: &str) -> UpstreamEntry {
        UpstreamEntry {
            name: String::new(),
            provider: provider.to_owned(),
            scopes: Vec::new(),
            scope_set: scope_set.to_owned(),
            app_scopes: Vec::new(),
            place: 0,
        }
    }

    /// Each in a place of its own.
    fn upstreams<const N: usize>(of: [(&str, &str); N]) -> Vec<UpstreamEntry> {
        let at = |(place, (provider, scope_set))| UpstreamEntry { place, ..upstream(provider, scope_set) };
        of.into_iter().enumerate().map(at).collect()
    }

    fn id(at: usize) -> UpstreamId {
        UpstreamId { at, place: at }
    }

    fn assertion(subject: usize, text: &str) -> Assertion {
        Assertion {
            token: text.into(),
            tenant: "t".to_owned(),
            subject: subject.to_string(),
            name: None,
            expires: Timestamp::default(),
        }
    }

    #[test]
    fn a_users_token_is_shared_by_what_asks_for_the_same() {
        let now = Clock::manual(Timestamp::default()).moment();
        let minted = Minted::new(&upstreams([("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")]));
        let first = minted.caller(id(0), &assertion(1, "one"), now);
        let same = |upstream, subject, text: &str| {
            Arc::ptr_eq(&first, &minted.caller(id(upstream), &assertion(subject, text), now))
        };
        assert!(same(0, 1, "another text"));
        assert!(same(3, 1, "one"), "same provider, same scopes");
        assert!(!same(1, 1, "one") && !same(2, 1, "one") && !same(0, 2, "one"));
        assert!(!Arc::ptr_eq(minted.app(id(0)), minted.app(id(3))));
    }

    #[test]
    fn the_longest_unused_make_room() {
        let now = Clock::manual(Timestamp::default()).moment();
        let minted = Minted::new(&upstreams([("a", "x")]));
        // Somebody has a hand on each: none is idle.
        let held: Vec<_> = (0..MOST).map(|subject| minted.caller(id(0), &assertion(subject, ""), now)).collect();
        assert!(minted.known(id(0), &assertion(0, "")).is_some(), "used again");
        minted.caller(id(0), &assertion(MOST, ""), now);
        assert_eq!(minted.callers.len(), MOST - LEAVE + 1);
        let kept = |subject| minted.known(id(0), &assertion(subject, "")).is_some();
        assert!(kept(0) && kept(MOST) && kept(LEAVE + 1));
        assert!(!kept(1) && !kept(LEAVE));
        drop(held);
        minted.tidy(now);
        assert!(minted.callers.is_empty(), "idle ones leave");
    }

    #[test]
    fn the_next_configuration_keeps_what_is_worth_the_same() {
        let now = Clock::manual(Timestamp::default()).moment();
        let own = upstreams([("a", "x"), ("b", "x")]);
        let minted = Minted::new(&own);
        let cells = [0, 1].map(|at| minted.caller(id(at), &assertion(1, "one"), now));
        let known = |minted: &Minted, at: usize, cell: &Arc<Cell>| {
            minted.known(id(at), &assertion(1, "one")).is_some_and(|known| Arc::ptr_eq(&known, cell))
        };
        let same = minted.next(&own, &own, |_| true);
        assert!(known(&same, 0, &cells[0]) && known(&same, 1, &cells[1]));
        assert!(Arc::ptr_eq(same.app(id(0)), minted.app(id(0))));

        let other = minted.next(&own, &own, |provider| provider != "a");
        assert!(!known(&other, 0, &cells[0]) && known(&other, 1, &cells[1]));
        assert!(!Arc::ptr_eq(other.app(id(0)), minted.app(id(0))) && Arc::ptr_eq(other.app(id(1)), minted.app(id(1))));
        minted.caller(id(0), &assertion(2, "late"), now);
        assert!(other.known(id(0), &assertion(2, "late")).is_none(), "of a request that goes by the old one");
        assert!(other.next_version() > minted.next_version() || minted.next_version() > 1, "one count for both");

        let scopes = vec![UpstreamEntry { app_scopes: vec!["more".into()], ..own[0].clone() }, own[1].clone()];
        let asks_for_more = minted.next(&own, &scopes, |_| true);
        assert!(!Arc::ptr_eq(asks_for_more.app(id(0)), minted.app(id(0))));
    }
}
