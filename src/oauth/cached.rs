//! A document of the provider that is fetched seldom: one fetch at a time, at a bounded rate, and what was good once is
//! kept while nothing better comes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use super::classify::printable;
use crate::clock::{Clock, Moment};

/// How long a document counts as fresh.
const FRESH: Duration = Duration::from_hours(24);
/// Between two fetches that somebody forces because the document lacks something.
const BETWEEN_FORCED: Duration = Duration::from_mins(5);
/// For a fetch with nothing to fall back on, and with the last good document at hand.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_WITH_GOOD: Duration = Duration::from_secs(2);

pub(super) struct Cached<T> {
    clock: Clock,
    /// After a failure the next fetch waits this long.
    cool_down: Duration,
    good: ArcSwapOption<Good<T>>,
    /// Held during a fetch: whoever comes meanwhile waits for its outcome.
    flight: Mutex<Flight>,
}

struct Good<T> {
    document: Arc<T>,
    at: Moment,
}

#[derive(Default)]
struct Flight {
    failed: Option<(Moment, String)>,
    forced: Option<Moment>,
}

impl<T> Cached<T> {
    pub(super) fn new(clock: Clock, cool_down: Duration) -> Self {
        Self { clock, cool_down, good: ArcSwapOption::empty(), flight: Mutex::default() }
    }

    /// The document, fetched where it is missing or old. `fetch` is told how long it may take.
    pub(super) async fn get<F>(&self, fetch: F) -> Result<Arc<T>, String>
    where
        F: AsyncFnOnce(Duration) -> Result<T, String>,
    {
        if let Some(document) = self.fresh() {
            return Ok(document);
        }
        let mut flight = self.flight.lock().await;
        match self.fresh() {
            Some(document) => Ok(document),
            None => self.fly(&mut flight, fetch).await,
        }
    }

    /// A newer document, where `lacking` and the rate allows; else the one at hand.
    pub(super) async fn renew<F>(&self, lacking: impl Fn(&T) -> bool, fetch: F) -> Result<Arc<T>, String>
    where
        F: AsyncFnOnce(Duration) -> Result<T, String>,
    {
        let mut flight = self.flight.lock().await;
        let now = self.clock.moment();
        let too_soon = flight.forced.is_some_and(|at| now.since(at) < BETWEEN_FORCED);
        match self.last_good() {
            Some(document) if too_soon || !lacking(&document) => Ok(document),
            _ => {
                let document = self.fly(&mut flight, fetch).await;
                // A fetch that failed, or that was not made, has its own shorter pause: keys may have changed just then.
                if flight.failed.is_none() {
                    flight.forced = Some(now);
                }
                document
            }
        }
    }

    fn last_good(&self) -> Option<Arc<T>> {
        self.good.load().as_ref().map(|good| good.document.clone())
    }

    fn fresh(&self) -> Option<Arc<T>> {
        let good = self.good.load();
        let good = good.as_ref().filter(|good| self.clock.moment().since(good.at) < FRESH)?;
        Some(good.document.clone())
    }

    async fn fly<F>(&self, flight: &mut Flight, fetch: F) -> Result<Arc<T>, String>
    where
        F: AsyncFnOnce(Duration) -> Result<T, String>,
    {
        let now = self.clock.moment();
        let recent = flight.failed.as_ref().filter(|(at, _)| now.since(*at) < self.cool_down);
        if let Some((_, why)) = recent {
            return self.last_good().ok_or_else(|| why.clone());
        }
        // Written before the fetch, so that one whose caller went away counts as well.
        flight.failed = Some((now, "an attempt was given up a moment ago".to_owned()));
        let patience = if self.good.load().is_some() { PATIENCE_WITH_GOOD } else { PATIENCE };
        match fetch(patience).await {
            Ok(document) => {
                let document = Arc::new(document);
                self.good.store(Some(Arc::new(Good { document: document.clone(), at: self.clock.moment() })));
                flight.failed = None;
                Ok(document)
            }
            Err(why) => {
                // It may quote the document.
                let why = printable(&why, 300);
                tracing::warn!(%why, "a document of the identity provider can't be had");
                flight.failed = Some((self.clock.moment(), why.clone()));
                self.last_good().ok_or(why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::Timestamp;

    struct Rig {
        clock: Clock,
        cached: Cached<u32>,
        fetches: AtomicU32,
    }

    impl Rig {
        fn new() -> Self {
            let clock = Clock::manual(Timestamp::from_secs(0));
            let cached = Cached::new(clock.clone(), Duration::from_secs(30));
            Self { clock, cached, fetches: AtomicU32::new(0) }
        }

        async fn get(&self, answer: Result<u32, &str>) -> Result<u32, String> {
            let fetch = async |_| {
                self.fetches.fetch_add(1, Ordering::SeqCst);
                answer.map_err(str::to_owned)
            };
            self.cached.get(fetch).await.map(|document| *document)
        }

        async fn renew(&self, answer: Result<u32, &str>) -> Result<u32, String> {
            let fetch = async |_| {
                self.fetches.fetch_add(1, Ordering::SeqCst);
                answer.map_err(str::to_owned)
            };
            self.cached.renew(|_| true, fetch).await.map(|document| *document)
        }

        fn pass(&self, seconds: u64) {
            self.clock.advance(Duration::from_secs(seconds));
        }
    }

    #[tokio::test]
    async fn a_failure_keeps_what_was_good_and_is_not_repeated_at_once() {
        let rig = Rig::new();
        assert_eq!(rig.get(Err("down")).await, Err("down".into()));
        assert_eq!(rig.get(Ok(1)).await, Err("down".into()), "within the cool-down");
        rig.pass(30);
        assert_eq!(rig.get(Ok(2)).await, Ok(2));
        rig.pass(24 * 3600);
        assert_eq!(rig.get(Err("down")).await, Ok(2));
        assert_eq!(rig.get(Ok(3)).await, Ok(2));
        assert_eq!(rig.fetches.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn forced_fetches_are_rare() {
        let rig = Rig::new();
        assert_eq!(rig.get(Ok(1)).await, Ok(1));
        assert_eq!(rig.renew(Ok(2)).await, Ok(2));
        for _ in 0..1000 {
            assert_eq!(rig.renew(Ok(3)).await, Ok(2));
        }
        rig.pass(300);
        assert_eq!(rig.renew(Err("down")).await, Ok(2));
        assert_eq!(rig.fetches.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_forced_fetch_that_fails_is_repeated_after_the_cool_down() {
        let rig = Rig::new();
        assert_eq!(rig.get(Ok(1)).await, Ok(1));
        assert_eq!(rig.renew(Err("cut off")).await, Ok(1));
        assert_eq!(rig.renew(Ok(2)).await, Ok(1), "within the cool-down");
        assert_eq!(rig.fetches.load(Ordering::SeqCst), 2);
        rig.pass(30);
        assert_eq!(rig.renew(Ok(2)).await, Ok(2));
        assert_eq!(rig.renew(Ok(3)).await, Ok(2), "forced a moment ago");
        assert_eq!(rig.fetches.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn many_askers_cause_one_fetch() {
        let rig = Rig::new();
        let slow = async |_| {
            rig.fetches.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(7)
        };
        let (a, b, c) = tokio::join!(rig.cached.get(slow), rig.cached.get(slow), rig.cached.get(slow));
        assert!([a, b, c].into_iter().all(|answer| answer.is_ok_and(|document| *document == 7)));
        assert_eq!(rig.fetches.load(Ordering::SeqCst), 1);
    }
}
