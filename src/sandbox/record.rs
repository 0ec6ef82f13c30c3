//! What a server was asked, the newest ten thousand.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::locked;

const KEPT: usize = 10_000;

pub(super) struct Records<T>(Mutex<VecDeque<T>>);

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Records<T> {
    pub fn push(&self, record: T) {
        let mut records = locked(&self.0);
        if records.len() == KEPT {
            records.pop_front();
        }
        records.push_back(record);
    }

    pub fn all(&self) -> Vec<T> {
        locked(&self.0).iter().cloned().collect()
    }

    pub fn clear(&self) {
        locked(&self.0).clear();
    }
}
