//! Every family of metrics: its name, its help, and its place in the registry. Names are public (`docs/operations.md`).

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Side;
use super::histogram::{Histogram, Histograms};
use super::labels::{
    Accounts, AtGate, CheckLabel, ErrorLabel, Op, Outcome, Provider, Reason, Refresh, SideLabel, State, UpstreamLabel,
    Waiting,
};
use super::process::Process;
use super::requests::Requests;

/// All of them, and the registry that renders them.
pub struct Families {
    pub registry: Registry,
    /// What every program has: without our prefix.
    pub process: Registry,
    pub requests: Requests,
    pub errors: Family<ErrorLabel, Counter>,
    pub retries: Family<Reason, Counter>,
    pub retry_budget_exhausted: Family<UpstreamLabel, Counter>,
    pub admission_waiting: Gauge,
    pub admission_waits: Family<Outcome, Counter>,
    pub admission_refused: Family<Reason, Counter>,
    pub gate_waiting: Family<AtGate, Gauge>,
    pub gate_pauses: Family<AtGate, Counter>,
    pub gate_refused: Family<AtGate, Counter>,
    pub upstream_401: Family<Outcome, Counter>,
    pub refreshes: Family<Refresh, Counter>,
    pub refresh_duration: Histogram,
    pub token_requests: Gauge,
    pub token_requests_waiting: Family<Waiting, Gauge>,
    pub provider_circuit: Family<Provider, Gauge>,
    pub grants_lapsing: Family<Provider, Gauge>,
    pub accounts: Family<Accounts, Gauge>,
    pub leases: Family<State, Gauge>,
    pub store_duration: Family<Op, Histogram, Histograms>,
    pub store_errors: Family<Op, Counter>,
    pub ready: Family<CheckLabel, Gauge>,
    pub client_connections: Gauge,
    pub upstream_connections: Gauge,
    pub reloads: Family<Outcome, Counter>,
    pub audit_lost: Counter,
    pub credential_expiry: Family<Provider, Gauge>,
    pub credential_fallbacks: Family<Provider, Counter>,
    pub trace_spans: Family<Outcome, Counter>,
}

impl Families {
    pub fn new() -> Self {
        let mut process = Registry::default();
        process.register_collector(Box::new(Process::default()));
        let mut registry = Registry::with_prefix("bearerd");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);

        let connections = Family::<SideLabel, Gauge>::default();
        registry.register("connections", "Open connections", connections.clone());
        let token_requests = Gauge::<i64, AtomicI64>::default();
        registry.register("token_requests_in_flight", "Calls of a token endpoint under way", token_requests.clone());
        let token_requests_waiting = Family::default();
        let help = "Refreshes that wait for their turn at a token endpoint";
        registry.register("token_requests_waiting", help, token_requests_waiting.clone());
        let provider_circuit = Family::default();
        let help = "Whether the token endpoint is asked: 0 closed (yes), 1 half open (one probe), 2 open (no)";
        registry.register("provider_circuit", help, provider_circuit.clone());
        let grants_lapsing = Family::default();
        let help = "Grants that nobody has used for more than 80 % of the time after which the provider ends them";
        registry.register("grants_lapsing", help, grants_lapsing.clone());

        let requests = Requests::default();
        registry.register("requests", "Requests answered", requests.clone());
        let errors = Family::default();
        registry.register("errors", "Answers that are errors of our own making, by Bearerd-Error", errors.clone());
        let retries = Family::default();
        registry.register("retries", "Requests sent to the upstream once more", retries.clone());
        let retry_budget_exhausted = Family::default();
        let help = "Requests that were not sent once more, because the upstream's budget of retries was used up";
        registry.register("retry_budget_exhausted", help, retry_budget_exhausted.clone());
        let admission_waiting = Gauge::<i64, AtomicI64>::default();
        registry.register("admission_waiting", "Requests that wait for a seat", admission_waiting.clone());
        let admission_waits = Family::default();
        let help = "Requests that have waited for a seat, by what became of them";
        registry.register("admission_waits", help, admission_waits.clone());
        let admission_refused = Family::default();
        let help = "Requests and connections that were refused because there is too much at a time";
        registry.register("admission_refused", help, admission_refused.clone());
        let gate_waiting = Family::default();
        let help = "Requests that wait for a place at an account's workload, or for the end of its pause";
        registry.register("gate_waiting", help, gate_waiting.clone());
        let gate_pauses = Family::default();
        registry.register("gate_pauses", "Pauses of an account's workload after a 429", gate_pauses.clone());
        let gate_refused = Family::default();
        let help = "Requests refused because of a pause, or because too many wait";
        registry.register("gate_refused", help, gate_refused.clone());
        let upstream_401 = Family::default();
        registry.register("upstream_401", "401 answers of an upstream, by what became of them", upstream_401.clone());
        let refreshes = Family::default();
        registry.register("refresh", "Refreshes of a grant", refreshes.clone());
        let accounts = Family::default();
        registry.register("accounts", "Accounts in the store", accounts.clone());
        let leases = Family::default();
        registry.register("leases", "Leases in memory", leases.clone());
        let store_errors = Family::default();
        registry.register("store_errors", "Operations that the store failed at", store_errors.clone());
        let ready = Family::default();
        registry.register(
            "ready",
            "Whether what a check of the readiness looks at answers: 1 yes, 0 no",
            ready.clone(),
        );
        let reloads = Family::default();
        registry.register("config_reloads", "Reloads of the configuration", reloads.clone());
        let audit_lost = Counter::default();
        let help = "Records of the audit log that the store could not keep; they are in the log";
        registry.register("audit_lost", help, audit_lost.clone());
        let credential_expiry = Family::default();
        registry.register_with_unit(
            "credential_expiry",
            "How long the app credential in use at the provider is still valid; negative: it has expired",
            Unit::Seconds,
            credential_expiry.clone(),
        );

        let credential_fallbacks = Family::default();
        let help = "Requests to the provider that an app credential other than the first of the list was needed for";
        registry.register("credential_fallbacks", help, credential_fallbacks.clone());

        let trace_spans = Family::default();
        registry.register("trace_spans", "Spans recorded, by what became of them", trace_spans.clone());

        let help = "From a request's head to the head of its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, requests.durations());
        let help = "Waiting for an upstream's head";
        registry.register_with_unit("upstream_duration", help, Unit::Seconds, requests.upstream_durations());
        let refresh_duration = Histogram::default();
        let help = "Calls of a token endpoint for a refresh";
        registry.register_with_unit("refresh_duration", help, Unit::Seconds, refresh_duration.clone());
        let store_duration = Family::new_with_constructor(Histograms);
        let help = "Operations on the store";
        registry.register_with_unit("store_duration", help, Unit::Seconds, store_duration.clone());

        Self {
            registry,
            process,
            requests,
            errors,
            retries,
            retry_budget_exhausted,
            admission_waiting,
            admission_waits,
            admission_refused,
            gate_waiting,
            gate_pauses,
            gate_refused,
            upstream_401,
            refreshes,
            refresh_duration,
            token_requests,
            token_requests_waiting,
            provider_circuit,
            grants_lapsing,
            accounts,
            leases,
            store_duration,
            store_errors,
            ready,
            client_connections: connections.get_or_create_owned(&SideLabel { side: Side::Client }),
            upstream_connections: connections.get_or_create_owned(&SideLabel { side: Side::Upstream }),
            reloads,
            audit_lost,
            credential_expiry,
            credential_fallbacks,
            trace_spans,
        }
    }
}
