//! The refreshes that went well lately, for people to read: those that failed are in the audit log.
//!
//! Invariants: bounded for all accounts together, so that a million of them cost no more than a few; never a token.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Vault;
use crate::account::AccountKey;
use crate::clock::Timestamp;

/// 2.6 megabytes: of ten thousand accounts that are refreshed each hour, the last six hours.
const MOST: usize = 65_536;

/// A refresh that brought a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    pub at: Timestamp,
    /// How long the provider took to answer.
    pub took: Duration,
}

#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<Entry>>);

struct Entry {
    account: [u8; 16],
    refreshed: Refreshed,
}

impl Vault {
    /// Of this account, by this process; the newest first.
    pub fn recent_refreshes(&self, key: &AccountKey, limit: usize) -> Vec<Refreshed> {
        self.0.memory.recent.of(key, limit)
    }
}

impl Recent {
    pub(super) fn note(&self, key: &AccountKey, at: Timestamp, took: Duration) {
        let entry = Entry { account: key.digest(), refreshed: Refreshed { at, took } };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == MOST {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn of(&self, key: &AccountKey, limit: usize) -> Vec<Refreshed> {
        let account = key.digest();
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = entries.iter().rev().filter(|entry| entry.account == account);
        own.take(limit).map(|entry| entry.refreshed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_an_account_are_known_and_the_oldest_of_all_go() {
        let recent = Recent::default();
        let key = |subject: &str| AccountKey { provider: "p".into(), tenant: "t".into(), subject: subject.into() };
        let took = Duration::from_millis(90);
        let at = |secs| Refreshed { at: Timestamp::from_secs(secs), took };
        let note = |subject, secs| recent.note(&key(subject), Timestamp::from_secs(secs), took);
        for secs in 0..3 {
            note("a", secs);
            note("b", 100 + secs);
        }
        assert_eq!(recent.of(&key("a"), 2), [at(2), at(1)]);
        assert_eq!(recent.of(&key("c"), 2), []);
        for _ in 0..MOST - 1 {
            note("c", 200);
        }
        assert_eq!((recent.of(&key("a"), 9), recent.of(&key("b"), 9)), (vec![], vec![at(102)]));
    }
}
