//! Readiness: whether what the process stands on answers.
//!
//! However often it is asked, each check runs at most once a second and one at a time; a check that hangs counts as failed. Why one fails is
//! for operators: it names paths, and what a provider says.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::clock::{Clock, Moment};

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const GOOD_FOR: Duration = Duration::from_secs(1);

type Verdict = Result<(), String>;

/// One thing that has to answer.
pub struct Check {
    name: &'static str,
    probe: Box<dyn Fn() -> Pin<Box<dyn Future<Output = Verdict> + Send>> + Send + Sync>,
}

/// A handle on the checks; clones share it.
#[derive(Clone)]
pub struct Readiness(Arc<Inner>);

struct Inner {
    clock: Clock,
    checks: Vec<Check>,
    draining: AtomicBool,
    last: Mutex<Option<(Moment, Report)>>,
}

/// What `/readyz` shows.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    pub ready: bool,
    pub checks: BTreeMap<&'static str, CheckReport>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckReport {
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Check {
    /// `probe` says what is wrong in words that are safe for operators to read.
    pub fn new<F>(name: &'static str, probe: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        Self { name, probe: Box::new(move || Box::pin(probe())) }
    }
}

impl Readiness {
    pub fn new(clock: Clock, checks: Vec<Check>) -> Self {
        Self(Arc::new(Inner { clock, checks, draining: AtomicBool::new(false), last: Mutex::new(None) }))
    }

    /// From now on not ready: new work should go elsewhere.
    pub fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// The state of every check, at most a second old.
    pub async fn report(&self) -> Report {
        let mut report = self.checked().await;
        if self.0.draining.load(Ordering::Relaxed) {
            report.add("draining", Err("the process is shutting down".to_owned()));
        }
        report
    }

    async fn checked(&self) -> Report {
        // Held while the checks run: whoever asks meanwhile gets their result.
        let mut last = self.0.last.lock().await;
        if let Some((at, report)) = &*last
            && self.0.clock.moment().since(*at) < GOOD_FOR
        {
            return report.clone();
        }
        let mut report = Report { ready: true, checks: BTreeMap::new() };
        let running: Vec<_> = self
            .0
            .checks
            .iter()
            .map(|check| (check.name, crate::tasks::spawn_here(limited(CHECK_TIMEOUT, (check.probe)()))))
            .collect();
        for (name, task) in running {
            report.add(name, task.await.unwrap_or_else(|_| Err("the check failed".to_owned())));
        }
        report.log(last.as_ref().map(|(_, last)| last));
        *last = Some((self.0.clock.moment(), report.clone()));
        report
    }
}

impl Report {
    /// What everybody may read.
    pub fn without_reasons(mut self) -> Self {
        self.checks.values_mut().for_each(|check| check.error = None);
        self
    }

    /// Says what is otherwise than it was.
    fn log(&self, last: Option<&Self>) {
        for (name, check) in &self.checks {
            let before = last.and_then(|last| last.checks.get(name)).and_then(|check| check.error.as_ref());
            match (&check.error, before) {
                (Some(error), before) if before != Some(error) => tracing::warn!(check = name, error, "not ready"),
                (None, Some(_)) => tracing::info!(check = name, "ready again"),
                _ => {}
            }
        }
    }

    fn add(&mut self, name: &'static str, verdict: Verdict) {
        self.ready &= verdict.is_ok();
        self.checks.insert(name, CheckReport { ok: verdict.is_ok(), error: verdict.err() });
    }
}

async fn limited(limit: Duration, probe: impl Future<Output = Verdict>) -> Verdict {
    let verdict = tokio::time::timeout(limit, probe).await;
    verdict.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.0.checks).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::clock::Timestamp;

    #[tokio::test]
    async fn a_check_runs_once_a_second_however_often_it_is_asked() {
        let clock = Clock::manual(Timestamp::from_secs(0));
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let check = Check::new("store", move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { if run == 0 { Err("locked".to_owned()) } else { Ok(()) } }
        });
        let readiness = Readiness::new(clock.clone(), vec![check]);
        for _ in 0..5 {
            let report = readiness.report().await;
            assert!(!report.ready);
            assert_eq!(report.checks["store"].error.as_deref(), Some("locked"));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        clock.advance(GOOD_FOR);
        assert!(readiness.report().await.ready);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_check_that_hangs_has_failed() {
        let verdict = limited(Duration::ZERO, std::future::pending()).await;
        assert_eq!(verdict, Err("no answer within 0 s".to_owned()));
    }

    #[tokio::test]
    async fn a_check_that_panics_has_failed_and_the_others_are_told() {
        let readiness = Readiness::new(
            Clock::manual(Timestamp::from_secs(0)),
            vec![Check::new("panics", async || panic!("on purpose")), Check::new("keys", async || Ok(()))],
        );
        let report = readiness.report().await;
        assert!(!report.ready);
        assert!(!report.checks["panics"].ok);
        assert!(report.checks["keys"].ok);
    }

    #[tokio::test]
    async fn a_drain_ends_readiness_at_once() {
        let readiness = Readiness::new(Clock::manual(Timestamp::from_secs(0)), vec![]);
        assert!(readiness.report().await.ready);
        readiness.begin_drain();
        let report = readiness.report().await;
        assert!(!report.ready && !report.checks["draining"].ok);
    }
}
