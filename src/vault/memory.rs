//! What the vault remembers from one configuration to the next: the slots of accounts, where each upstream's tokens stand in them, and how
//! far the store was followed, and the refreshes of late.
//!
//! A reload makes another vault on the same memory. So single flight holds across it: whoever asks by the old configuration and
//! whoever asks by the new one find the same slot, and the flight that is under way in it. A place means one upstream with one provider and
//! one set of scopes for as long as the process lives: a token can't be taken for another upstream's, whatever the configuration calls first.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;

use super::UpstreamEntry;
use super::import::Imports;
use super::keep_alive::Schedule;
use super::recent::Recent;
use super::slot::Slot;
use crate::account::Alias;

/// Parts of the memory of accounts, each with a lock: whoever looks through a million of them holds up a request for a thousand at most.
const SHARDS: usize = 1024;

pub(super) struct Memory {
    pub(super) slots: DashMap<Alias, Arc<Slot>, foldhash::quality::RandomState>,
    pub(super) places: Places,
    /// The newest change of the store that memory follows. `None`: not asked yet.
    pub(super) seen: tokio::sync::Mutex<Option<u64>>,
    pub(super) schedule: Schedule,
    pub(super) recent: Recent,
    pub(super) imports: Imports,
}

/// The places of a slot, in their order. They only become more: by the scopes that the configuration had since the start.
#[derive(Default)]
pub(super) struct Places(ArcSwap<Vec<Place>>);

/// Whose tokens stand in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) upstream: String,
    pub(super) provider: String,
    pub(super) scope_set: String,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            slots: DashMap::with_hasher_and_shard_amount(foldhash::quality::RandomState::default(), SHARDS),
            places: Places::default(),
            seen: tokio::sync::Mutex::default(),
            schedule: Schedule::default(),
            recent: Recent::default(),
            imports: Imports::default(),
        }
    }

    pub(super) fn slot(&self, alias: &Alias) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(alias) {
            return Arc::clone(&slot);
        }
        let new = || Arc::new(Slot::new(self.places.all().len()));
        Arc::clone(&self.slots.entry(alias.clone()).or_insert_with(new))
    }
}

impl Places {
    pub(super) fn all(&self) -> Arc<Vec<Place>> {
        self.0.load_full()
    }

    /// The place of that upstream's tokens, now and for ever.
    pub(super) fn of(&self, wanted: &Place) -> usize {
        let find = |known: &[Place]| known.iter().position(|place| place == wanted);
        self.0.rcu(|known| {
            let mut known = Vec::clone(known);
            if find(&known).is_none() {
                known.push(wanted.clone());
            }
            known
        });
        find(&self.0.load()).expect("it was put there, and nothing is ever taken away")
    }
}

impl UpstreamEntry {
    pub(super) fn place(&self) -> Place {
        Place { upstream: self.name.clone(), provider: self.provider.clone(), scope_set: self.scope_set.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_means_one_thing_for_ever() {
        let places = Places::default();
        let place = |upstream: &str, provider: &str, scope_set: &str| Place {
            upstream: upstream.to_owned(),
            provider: provider.to_owned(),
            scope_set: scope_set.to_owned(),
        };
        let graph = places.of(&place("graph", "entra", "Mail.Read"));
        let others = [("billing", "entra", "x"), ("graph", "entra", "User.Read"), ("graph", "other", "Mail.Read")]
            .map(|(upstream, provider, scopes)| places.of(&place(upstream, provider, scopes)));
        assert_eq!((graph, others), (0, [1, 2, 3]));
        assert_eq!(places.of(&place("graph", "entra", "Mail.Read")), graph, "back again");
        assert_eq!(places.all().len(), 4);
    }
}
