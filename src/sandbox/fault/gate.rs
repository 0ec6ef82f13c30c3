//! A door in front of the servers, for tests that need to know that requests wait.

use std::sync::Arc;

use tokio::sync::watch;

/// A door that a test keeps shut: requests wait behind it, are counted, and go on together.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Door>);

#[derive(Debug)]
struct Door {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::shut()
    }
}

impl Gate {
    pub fn shut() -> Self {
        Self(Arc::new(Door { open: watch::Sender::new(false), waiting: watch::Sender::new(0) }))
    }

    /// Lets everybody through, from now on.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Returns when `count` requests have come to the door.
    pub async fn arrived(&self, count: usize) {
        // An error means that the sender is gone, and `self` holds it.
        let _ = self.0.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    }

    /// How many requests have come to the door so far.
    pub fn count(&self) -> usize {
        *self.0.waiting.borrow()
    }

    pub(super) async fn pass(&self) {
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.0.open.subscribe().wait_for(|open| *open).await;
    }
}
