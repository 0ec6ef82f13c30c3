//! The end of a listener: flags that its tasks look at, and a count of those that still run.
//!
//! First it leaves: everything is served as before, and answers ask their clients to come back over another connection. Then it drains.
//!
//! A connection is polled for every packet, so looking must cost one load: the waker is left with `Notify` once, not at each poll.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::tasks::spawn_here;

#[derive(Debug, Default)]
pub struct Drain {
    leaving: AtomicBool,
    begun: AtomicBool,
    notify: Notify,
    tracker: TaskTracker,
}

impl Drain {
    /// A drain will begin soon.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whoever comes should not come back.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Tells every task to come to an end.
    pub fn begin(&self) {
        self.leave();
        self.begun.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Until `begin`.
    pub async fn begun(&self) {
        let mut notified = pin!(self.notify.notified());
        notified.as_mut().enable();
        if !self.has_begun() {
            notified.await;
        }
    }

    /// Starts `work` on this thread's runtime; `ended` waits for it.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(spawn_here(self.tracker.track_future(work)));
    }

    /// Waits until every task has ended, at most `limit`. How many have not?
    pub async fn ended(&self, limit: Duration) -> usize {
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        }
    }

    /// Runs `work`, which is a task of its own; calls `finish` on it once when the drain begins.
    pub async fn watch<W: Future>(&self, mut work: Pin<&mut W>, finish: fn(Pin<&mut W>)) -> W::Output {
        let mut notified = pin!(self.notify.notified());
        let mut registered = false;
        let mut told = false;
        std::future::poll_fn(|context| {
            if !registered {
                // A task's waker stays the same, so once is enough. What it is woken for, the flag tells.
                registered = true;
                let _: Poll<()> = notified.as_mut().poll(context);
            }
            if !told && self.has_begun() {
                told = true;
                finish(work.as_mut());
            }
            work.as_mut().poll(context)
        })
        .await
    }
}
