//! What is counted, in methods named by what happened. The names and labels are public (`docs/operations.md`).
//!
//! Never labelled by account. Cheap on the hot path: a request costs a look-up and a few additions, and after the first of its
//! kind formats and allocates nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::gauge::Gauge;

use self::families::Families;
use self::labels::{
    Accounts, AtGate, CheckLabel, ErrorLabel, Name, Op, Outcome, Provider, Reason, Refresh, State, UpstreamLabel,
    Waiting,
};
use self::requests::Tally;

mod families;
mod histogram;
mod labels;
mod process;
mod requests;
#[cfg(test)]
mod tests;

/// The content type of `Metrics::render`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A handle on all metrics of the process; clones share them.
#[derive(Clone)]
pub struct Metrics {
    families: Arc<Families>,
    tally: Arc<Tally>,
    sums: Arc<Sums>,
}

/// What the dashboard draws of it: sums since the start, which only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests answered with a status below 400.
    pub answered: u64,
    /// With 4xx.
    pub refused: u64,
    /// With 5xx.
    pub failed: u64,
    pub refreshed: u64,
    pub refresh_failed: u64,
    pub reloads: u64,
    pub reloads_refused: u64,
}

/// Over all labels; the library's families can't be added up.
#[derive(Debug, Default)]
struct Sums {
    refreshed: AtomicU64,
    refresh_failed: AtomicU64,
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
}

/// A request that was answered.
#[derive(Debug)]
pub struct RequestSample<'a> {
    /// The client's name, where one was recognised.
    pub client: Option<&'a Arc<str>>,
    /// The upstream's name, where one was chosen.
    pub upstream: Option<&'a Arc<str>>,
    pub method: &'a Method,
    pub status: StatusCode,
    pub origin: Origin,
    /// From the head of the request to the head of the answer.
    pub took: Duration,
    /// The part of it spent waiting for the upstream; `None` where it was not asked.
    pub upstream_took: Option<Duration>,
}

/// Who made an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    Upstream,
    Proxy,
}

/// The two ends of a proxied request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Upstream,
}

/// The circuit breaker of a provider's token endpoint, by the value of its gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

/// Something that is counted for as long as this lives.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub struct Ongoing(Gauge);

impl Metrics {
    pub fn new() -> Self {
        let families = Families::new();
        let tally = families.requests.tally();
        Self { families: Arc::new(families), tally, sums: Arc::default() }
    }

    /// A handle on the same metrics for one worker: it counts requests out of the way of the others.
    #[must_use]
    pub fn of_worker(&self) -> Self {
        Self { tally: self.families.requests.tally(), ..self.clone() }
    }

    /// A request was answered.
    pub fn request(&self, sample: &RequestSample<'_>) {
        self.tally.count(sample);
    }

    /// An answer was an error of our own making.
    pub fn erred(&self, error: &'static str) {
        self.families.errors.get_or_create(&ErrorLabel { error }).inc();
    }

    /// A request is sent to the upstream once more.
    pub fn retried(&self, reason: &'static str) {
        self.families.retries.get_or_create(&Reason { reason }).inc();
    }

    /// A request is not sent once more: there were too many retries.
    pub fn retry_budget_exhausted(&self, upstream: &Arc<str>) {
        self.families.retry_budget_exhausted.get_or_create(&UpstreamLabel { upstream: Name(upstream.clone()) }).inc();
    }

    /// A request waits for a seat.
    pub fn waits_for_a_seat(&self) -> Ongoing {
        Ongoing::start(&self.families.admission_waiting)
    }

    /// A request has waited for a seat.
    pub fn waited(&self, outcome: &'static str) {
        self.families.admission_waits.get_or_create(&Outcome { outcome }).inc();
    }

    /// There is too much at a time: a request or a connection is refused.
    pub fn overloaded(&self, reason: &'static str) {
        self.families.admission_refused.get_or_create(&Reason { reason }).inc();
    }

    /// A request waits for its account's workload.
    pub fn waits_at_gate(&self, upstream: &Arc<str>, workload: &'static str) -> Ongoing {
        Ongoing::start(&self.families.gate_waiting.get_or_create_owned(&AtGate::new(upstream, workload)))
    }

    /// An account's workload pauses.
    pub fn gate_paused(&self, upstream: &Arc<str>, workload: &'static str) {
        self.families.gate_pauses.get_or_create(&AtGate::new(upstream, workload)).inc();
    }

    /// A request is refused at the gate of its account's workload.
    pub fn gate_refused(&self, upstream: &Arc<str>, workload: &'static str) {
        self.families.gate_refused.get_or_create(&AtGate::new(upstream, workload)).inc();
    }

    /// An upstream answered 401.
    pub fn upstream_401(&self, outcome: &'static str) {
        self.families.upstream_401.get_or_create(&Outcome { outcome }).inc();
    }

    /// A refresh ended.
    pub fn refreshed(&self, provider: &str, outcome: &'static str, took: Duration) {
        self.families.refreshes.get_or_create(&Refresh { provider: provider.into(), outcome }).inc();
        self.families.refresh_duration.observe(took);
        let sum = if outcome == "ok" { &self.sums.refreshed } else { &self.sums.refresh_failed };
        sum.fetch_add(1, Ordering::Relaxed);
    }

    /// A token endpoint is called.
    pub fn token_request(&self) -> Ongoing {
        Ongoing::start(&self.families.token_requests)
    }

    /// A refresh waits for its turn at the token endpoint.
    pub fn token_request_waits(&self, provider: &str, urgency: &'static str) -> Ongoing {
        let labels = Waiting { provider: provider.into(), urgency };
        Ongoing::start(&self.families.token_requests_waiting.get_or_create_owned(&labels))
    }

    /// The circuit breaker of `provider` changed.
    pub fn circuit(&self, provider: &str, state: CircuitState) {
        self.families.provider_circuit.get_or_create(&Provider { provider: provider.into() }).set(state as i64);
    }

    /// So many grants of `provider` lapse soon, unless somebody uses them.
    pub fn grants_lapsing(&self, provider: &str, count: usize) {
        self.families.grants_lapsing.get_or_create(&Provider { provider: provider.into() }).set(gauge_value(count));
    }

    /// So many accounts of `provider` are in `state` now.
    pub fn accounts(&self, provider: &str, state: &'static str, count: usize) {
        let labels = Accounts { provider: provider.into(), state };
        self.families.accounts.get_or_create(&labels).set(gauge_value(count));
    }

    /// So many leases are in `state` now.
    pub fn leases(&self, state: &'static str, count: usize) {
        self.families.leases.get_or_create(&State { state }).set(gauge_value(count));
    }

    /// The store could not keep so many records of the audit log.
    pub fn audit_lost(&self, records: usize) {
        self.families.audit_lost.inc_by(records as u64);
    }

    /// The store did `op`.
    pub fn stored(&self, op: &'static str, took: Duration) {
        self.families.store_duration.get_or_create(&Op { op }).observe(took);
    }

    /// The store failed at `op`.
    pub fn store_failed(&self, op: &'static str) {
        self.families.store_errors.get_or_create(&Op { op }).inc();
    }

    /// Whether what `check` of the readiness looks at answers.
    pub fn ready(&self, check: &'static str, ok: bool) {
        self.families.ready.get_or_create(&CheckLabel { check }).set(ok.into());
    }

    /// A connection was opened.
    pub fn connection(&self, side: Side) -> Ongoing {
        Ongoing::start(match side {
            Side::Client => &self.families.client_connections,
            Side::Upstream => &self.families.upstream_connections,
        })
    }

    /// A reload was tried; `refused`: the new configuration has mistakes.
    pub fn reloaded(&self, outcome: &'static str) {
        self.sums.reloads.fetch_add(1, Ordering::Relaxed);
        if outcome == "refused" {
            self.sums.reloads_refused.fetch_add(1, Ordering::Relaxed);
        }
        self.families.reloads.get_or_create(&Outcome { outcome }).inc();
    }

    /// The app credential in use at `provider` ends in `seconds`; negative: it has ended.
    pub fn credential_expires_in(&self, provider: &str, seconds: i64) {
        self.families.credential_expiry.get_or_create(&Provider { provider: provider.into() }).set(seconds);
    }

    /// A request to `provider` needed another app credential than the first of the list.
    pub fn credential_fallback(&self, provider: &str) {
        self.families.credential_fallbacks.get_or_create(&Provider { provider: provider.into() }).inc();
    }

    /// So many spans were sent, or not.
    pub fn traced(&self, outcome: &'static str, spans: usize) {
        self.families.trace_spans.get_or_create(&Outcome { outcome }).inc_by(spans as u64);
    }

    /// Everything so far, added up.
    pub fn totals(&self) -> Totals {
        let [answered, refused, failed] = self.families.requests.by_status();
        let sum = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Totals {
            answered,
            refused,
            failed,
            refreshed: sum(&self.sums.refreshed),
            refresh_failed: sum(&self.sums.refresh_failed),
            reloads: sum(&self.sums.reloads),
            reloads_refused: sum(&self.sums.reloads_refused),
        }
    }

    /// Everything as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registries = [&self.families.registry, &self.families.process];
        let written = registries.into_iter().try_for_each(|registry| encode_registry(&mut text, registry));
        written.and_then(|()| encode_eof(&mut text)).expect("writing to a string can't fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Ongoing {
    fn start(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
