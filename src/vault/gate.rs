//! How much one provider's token endpoint is asked at a time, and whether at all: everything that presents something there passes here.
//!
//! Invariants: whoever is refused has claimed nothing and sent nothing; requests go before work ahead of time; while the circuit
//! is open nobody waits. What to do is decided by `circuit` and `budget`, which are pure; here it is waited for.

mod budget;
mod circuit;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::budget::{Budget, Wait};
use self::circuit::{Change, Circuit, Probe, Sign};
use super::LeaseError;
use crate::clock::Clock;
use crate::config::TokenRequests;
use crate::metrics::{CircuitState, Metrics, Ongoing};
use crate::oauth::{Class, Delivery, TokenError, Whose};
use crate::tasks::Tasks;

/// A request waits no longer than this for its turn: it needs time for the exchange too.
const TURN: Duration = Duration::from_secs(5);
/// What it is told then.
const BUSY: Duration = Duration::from_secs(2);
/// The rate is measured by the clock, which tests move by hand: whoever is first in line looks at it at least so often.
const LOOK: Duration = Duration::from_millis(50);
/// A provider that asks for peace and doesn't say for how long.
const THROTTLED: Duration = Duration::from_secs(60);
const LONGEST_THROTTLE: Duration = Duration::from_secs(3600);

/// Why a token is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A request waits for it.
    OnDemand,
    /// Nobody waits: a token ages, or a grant is kept from lapsing.
    AheadOfTime,
}

/// The urgency of a flight, which a request that joins it raises. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SharedUrgency(Arc<watch::Sender<Urgency>>);

#[derive(Clone)]
pub(super) struct Gate(Arc<Shared>);

struct Shared {
    provider: String,
    clock: Clock,
    tasks: Tasks,
    metrics: Metrics,
    state: Mutex<State>,
    /// A place is free again, or the circuit has changed.
    changed: Notify,
    /// Whoever holds the lock is the first in line of the requests, or of the work ahead of time. The locks are fair.
    requests: tokio::sync::Mutex<()>,
    ahead: tokio::sync::Mutex<()>,
}

struct State {
    circuit: Circuit,
    budget: Budget,
}

/// The right to one exchange with the provider; given back when dropped.
pub(super) struct Pass {
    gate: Gate,
    urgency: Urgency,
    probe: Option<Probe>,
}

impl Gate {
    pub(super) fn new(provider: &str, limits: TokenRequests, clock: Clock, tasks: Tasks, metrics: Metrics) -> Self {
        let state = State { circuit: Circuit::default(), budget: Budget::new(limits, clock.moment()) };
        metrics.circuit(provider, CircuitState::Closed);
        Self(Arc::new(Shared {
            provider: provider.to_owned(),
            clock,
            tasks,
            metrics,
            state: Mutex::new(state),
            changed: Notify::new(),
            requests: tokio::sync::Mutex::default(),
            ahead: tokio::sync::Mutex::default(),
        }))
    }

    /// Other limits from now on, for those who wait too.
    pub(super) fn limit(&self, limits: TokenRequests) {
        self.state().budget.limit(limits);
        self.0.changed.notify_waiters();
    }

    /// To be asked before a refresh token is claimed: a claim runs against the time. A request waits for its turn a few seconds
    /// at most, work ahead of time as long as it takes.
    pub(super) async fn admit(&self, urgency: Urgency) -> Result<Pass, LeaseError> {
        match urgency {
            Urgency::AheadOfTime => self.turn(urgency).await,
            Urgency::OnDemand => self.admit_request(TURN).await,
        }
    }

    /// As `admit`, for a flight: once a request waits for it, it goes with the requests.
    pub(super) async fn admit_flight(&self, urgency: &SharedUrgency) -> Result<Pass, LeaseError> {
        if urgency.get() == Urgency::OnDemand {
            return self.admit(Urgency::OnDemand).await;
        }
        tokio::select! {
            biased;
            pass = self.admit(Urgency::AheadOfTime) => pass,
            () = urgency.raised() => self.admit(Urgency::OnDemand).await,
        }
    }

    /// What became of an exchange, and whose it was.
    pub(super) fn heard(&self, whose: &impl Hash, outcome: Result<(), &TokenError>) {
        let (now, spread) = (self.0.clock.moment(), self.0.clock.now().millis().unsigned_abs());
        let mut hasher = DefaultHasher::new();
        whose.hash(&mut hasher);
        let change = self.state().circuit.heard(sign(hasher.finish(), outcome), now, spread);
        if let Some(change) = change {
            self.report(change, outcome.err().map(|error| error.text.as_str()));
            self.0.changed.notify_waiters();
        }
    }

    /// How long nobody passes because the provider is ill or throttles; zero: somebody may.
    pub(super) fn shut_for(&self) -> Duration {
        self.state().circuit.open_for(self.0.clock.moment())
    }

    /// How many flights ahead of time are worth having in the air: enough to keep their places busy.
    pub(super) fn flights_ahead(&self) -> usize {
        2 * self.state().budget.places_ahead()
    }

    /// Whether one more flight ahead of time would get somewhere soon.
    pub(super) fn has_room_ahead(&self) -> bool {
        let now = self.0.clock.moment();
        let mut state = self.state();
        let waiting = *state.budget.waiting(Urgency::AheadOfTime);
        state.circuit.check(now).is_ok() && waiting < state.budget.places_ahead()
    }

    async fn admit_request(&self, patience: Duration) -> Result<Pass, LeaseError> {
        let turn = tokio::time::timeout(patience, self.turn(Urgency::OnDemand)).await;
        turn.unwrap_or_else(|_| {
            let text = format!("too many token requests are waiting for {}", self.0.provider);
            Err(LeaseError::ProviderUnavailable { text, retry_after: BUSY })
        })
    }

    async fn turn(&self, urgency: Urgency) -> Result<Pass, LeaseError> {
        let nobody_waits = *self.state().budget.waiting(urgency) == 0;
        if nobody_waits && let Ok(pass) = self.try_pass(urgency)? {
            return Ok(pass);
        }
        let _waiting = Waiting::new(self, urgency);
        let line = match urgency {
            Urgency::OnDemand => &self.0.requests,
            Urgency::AheadOfTime => &self.0.ahead,
        };
        let _first = line.lock().await;
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let look = match self.try_pass(urgency)? {
                Ok(pass) => return Ok(pass),
                Err(Wait::Rate(wait)) => wait.min(LOOK),
                Err(Wait::Place) => LOOK,
            };
            if urgency == Urgency::AheadOfTime && self.0.tasks.is_draining() {
                let text = "everything ends, and nobody waits for this refresh".to_owned();
                return Err(LeaseError::ProviderUnavailable { text, retry_after: Duration::ZERO });
            }
            // Either way it is time to look again.
            let _ = tokio::time::timeout(look, changed).await;
        }
    }

    fn try_pass(&self, urgency: Urgency) -> Result<Result<Pass, Wait>, LeaseError> {
        let now = self.0.clock.moment();
        let mut state = self.state();
        state.circuit.check(now).map_err(|wait| LeaseError::ProviderUnavailable {
            text: format!("{} has failed or throttled; it is left alone for a while", self.0.provider),
            retry_after: wait,
        })?;
        if let Err(wait) = state.budget.take(urgency, now) {
            return Ok(Err(wait));
        }
        let probe = state.circuit.enter();
        drop(state);
        if probe.is_some() {
            self.report(Change::HalfOpened, None);
        }
        Ok(Ok(Pass { gate: self.clone(), urgency, probe }))
    }

    fn report(&self, change: Change, error: Option<&str>) {
        let provider = &self.0.provider;
        let state = match change {
            Change::Closed => {
                tracing::info!(%provider, "the token endpoint answers again");
                CircuitState::Closed
            }
            Change::HalfOpened => {
                tracing::info!(%provider, "one token request goes out to see whether the provider answers again");
                CircuitState::HalfOpen
            }
            Change::Opened { wait, throttled: true } => {
                tracing::warn!(%provider, error, seconds = wait.as_secs_f64(), "the token endpoint throttles us; it is left alone for so long");
                CircuitState::Open
            }
            Change::Opened { wait, throttled: false } => {
                tracing::warn!(%provider, error, seconds = wait.as_secs_f64(), "the token endpoint fails; it is left alone for so long");
                CircuitState::Open
            }
        };
        self.0.metrics.circuit(provider, state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.budget.give_back(self.urgency);
        if let Some(probe) = self.probe {
            state.circuit.leave(probe);
        }
        drop(state);
        self.gate.0.changed.notify_waiters();
    }
}

impl SharedUrgency {
    pub(super) fn new(urgency: Urgency) -> Self {
        Self(Arc::new(watch::Sender::new(urgency)))
    }

    /// Somebody joins who has this urgency.
    pub(super) fn join(&self, urgency: Urgency) {
        if urgency == Urgency::OnDemand {
            self.0.send_replace(urgency);
        }
    }

    fn get(&self) -> Urgency {
        *self.0.borrow()
    }

    async fn raised(&self) {
        // An error means that the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|urgency| *urgency == Urgency::OnDemand).await;
    }
}

/// Somebody in a line, counted for as long as this lives.
struct Waiting<'a> {
    gate: &'a Gate,
    urgency: Urgency,
    _counted: Ongoing,
}

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate, urgency: Urgency) -> Self {
        *gate.state().budget.waiting(urgency) += 1;
        let name = match urgency {
            Urgency::OnDemand => "on_demand",
            Urgency::AheadOfTime => "ahead_of_time",
        };
        let counted = gate.0.metrics.token_request_waits(&gate.0.provider, name);
        Self { gate, urgency, _counted: counted }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.gate.state().budget.waiting(self.urgency) -= 1;
        // The last request that waited may have been all that held up the work ahead of time.
        self.gate.0.changed.notify_waiters();
    }
}

/// What an outcome says of the provider.
fn sign(whose: u64, outcome: Result<(), &TokenError>) -> Sign {
    let Err(error) = outcome else { return Sign::Well };
    match error.class {
        // Whoever can't be reached can't be reached by anybody.
        Class::Retry => {
            let whose = (error.delivery != Delivery::NotSent).then_some(whose);
            Sign::Ill { retry_after: error.retry_after, whose }
        }
        // A loop that was detected is one account's.
        Class::Backoff if error.whose == Whose::Grant => Sign::Nothing,
        Class::Backoff => Sign::Throttles(error.retry_after.unwrap_or(THROTTLED).min(LONGEST_THROTTLE)),
        Class::AppCredential => Sign::Nothing,
        Class::Dead | Class::Interact | Class::User | Class::Assertion | Class::Config => match error.delivery {
            Delivery::Answered => Sign::Well,
            Delivery::NotSent | Delivery::Unknown => Sign::Nothing,
        },
    }
}

#[cfg(test)]
mod tests;
