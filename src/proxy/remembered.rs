//! Keys that were found right, so that a request with one of them costs no digest.
//!
//! What is remembered is the key itself, and what is presented is compared with the whole of it, in constant time: nobody passes here who
//! would not pass by the digest. Only a right key is ever put in, and one that is wrong is compared at most with one whose place a hash with a
//! seed of this process happens to give it; that tells nothing of either. Who may pass never changes while this lives: it belongs to the
//! clients of one configuration, is as bounded as they are, and is wiped with them. Passwords and tokens have memories of their own.

use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};

use foldhash::quality::RandomState;
use subtle::ConstantTimeEq as _;

use super::caller::Client;
use crate::secret::Secret;

/// Places for each key: few keys share one.
const ROOM: usize = 4;

pub struct Remembered {
    /// A power of two of them. The first that comes stays: a key that finds its place taken is right all the same, by its digest.
    places: Box<[OnceLock<Known>]>,
    hasher: RandomState,
}

struct Known {
    key: Secret<String>,
    client: Arc<Client>,
}

impl Remembered {
    /// `keys`: how many there are.
    pub fn new(keys: usize) -> Self {
        let places = (ROOM * keys).next_power_of_two();
        Self { places: (0..places).map(|_| OnceLock::new()).collect(), hasher: RandomState::default() }
    }

    pub fn find(&self, key: &str) -> Option<&Arc<Client>> {
        let known = self.place(key).get()?;
        let is_same = known.key.expose().as_bytes().ct_eq(key.as_bytes());
        bool::from(is_same).then_some(&known.client)
    }

    /// `key` is right, and the client's.
    pub fn remember(&self, key: &str, client: &Arc<Client>) {
        self.place(key).get_or_init(|| Known { key: key.into(), client: Arc::clone(client) });
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are all that is used")]
    fn place(&self, key: &str) -> &OnceLock<Known> {
        &self.places[self.hasher.hash_one(key) as usize & (self.places.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller::tests::client;
    use super::*;
    use crate::config::Identity;

    #[test]
    fn only_the_whole_key_is_found() {
        let (one, other) = (Arc::new(client(Identity::User, &[])), Arc::new(client(Identity::User, &[])));
        // A single place: everything meets there.
        let remembered = Remembered { places: Box::new([OnceLock::new()]), hasher: RandomState::default() };
        assert!(remembered.find("right").is_none() && remembered.find("").is_none());
        remembered.remember("right", &one);
        remembered.remember("another", &other);
        assert!(remembered.find("right").is_some_and(|found| Arc::ptr_eq(found, &one)));
        for key in ["", "r", "righ", "righu", "Right", "right ", "rightright", "another"] {
            assert!(remembered.find(key).is_none(), "{key}");
        }
    }

    #[test]
    fn there_is_room_for_every_number_of_keys() {
        for keys in [0, 1, 3, 1000] {
            let remembered = Remembered::new(keys);
            assert!(remembered.places.len() >= ROOM * keys && remembered.find("x").is_none());
            remembered.remember("x", &Arc::new(client(Identity::User, &[])));
            assert!(remembered.find("x").is_some());
        }
    }
}
