//! Where work runs that is nobody's request: token calls, the store, sign-in. One multi-thread runtime for all of it, so
//! that the workers of the data path never do slow work, and one tracker, so that a drain can wait for it.
//!
//! A task started here is detached: dropping what waits for it never cancels it.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A handle on the runtime of slow work.
#[derive(Clone, Debug)]
pub struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
}

impl Tasks {
    /// Work is done on the runtime behind `runtime`.
    pub fn on(runtime: Handle) -> Self {
        Self { runtime, tracker: TaskTracker::new() }
    }

    /// Starts `work`, detached and tracked.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn_on(work, &self.runtime)
    }

    /// Runs `work` on a thread that may block (files, SQLite, password hashing).
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking_on(work, &self.runtime)
    }

    /// Starts `work` that lives as long as the process and that a drain does not wait for.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn_forever<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(work);
    }

    /// Everything ends soon: nothing should be started that can wait for the next process.
    pub fn is_draining(&self) -> bool {
        self.tracker.is_closed()
    }

    /// Waits until every tracked task has ended, at most `limit`. False: some were still running.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Starts `work` on the runtime of the calling thread: the connections of a worker stay on that worker.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub fn spawn_here<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(work)
}
