//! The only door to access tokens.
//!
//! `lease` gives a token that lives: a fresh one costs one map read. `reject` says that an upstream refused one (`lend`). `put` takes
//! what a sign-in brought, `revoke` ends it (`grants`). Behind the door: `slot` is one subject in memory, `flight` fetches what is
//! missing of an account, `minted` keeps the tokens that need no grant and `minting` fetches them, `gate` says how much the
//! provider is asked, `foresee` says what a request would find, `watch` hears what other processes did, `ahead` and `keep_alive`
//! refresh before there is a need, `recent` remembers for people. What outlives a reload
//! is in `memory`; everything else belongs to one configuration.
//!
//! Invariants: no map guard lives across an await; one refresh per account at a time, whoever asks; a token is in force only after
//! its refresh token is durable; a rejection acts only on the version that was sent; a revoked grant is never served again.

mod ahead;
mod error;
mod flight;
mod foresee;
mod gate;
mod grants;
mod import;
mod keep_alive;
mod lease;
mod lend;
mod memory;
mod minted;
mod minting;
mod provider;
mod recent;
mod slot;
mod timing;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::error::{LeaseError, PutError};
pub use self::foresee::{Foreseen, Next};
use self::gate::Gate;
pub use self::grants::SignInFor;
pub use self::import::{Import, ImportError, Imported};
use self::lease::Witness;
pub use self::lease::{Freshness, Lease};
use self::memory::{Memory, Place};
use self::minted::Minted;
use self::provider::{ProviderEntry, outcome_name};
pub use self::recent::Refreshed;
use self::slot::{Ended, Slot};
use crate::account::Alias;
use crate::audit::{Entry, Event, Outcome, Who};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::metrics::Metrics;
use crate::oauth::{Provider, TokenError};
use crate::secret::Secret;
use crate::store::{self, Grant, Store};
use crate::tasks::Tasks;
use crate::traces::Context;

/// How long "somebody has to sign in" is answered without another look; a change ends it at once.
const STATE_MEMORY: Duration = Duration::from_secs(5);

/// A handle on the vault as one configuration has it; clones share it.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

/// What of a provider is as it was before a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// All of it.
    All,
    /// The application that we are there: what it was given is worth what it was.
    Application,
    Nothing,
}

struct Inner {
    store: Store,
    clock: Clock,
    tasks: Tasks,
    metrics: Metrics,
    providers: BTreeMap<String, Arc<ProviderEntry>>,
    upstreams: Vec<UpstreamEntry>,
    memory: Arc<Memory>,
    minted: Minted,
    /// Another configuration is in force.
    retired: CancellationToken,
}

#[derive(Clone, Debug)]
struct UpstreamEntry {
    name: String,
    provider: String,
    scopes: Vec<String>,
    scope_set: String,
    app_scopes: Vec<String>,
    /// Where its tokens stand in a slot.
    place: usize,
}

/// An upstream of one configuration: found once, for that one's vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamId {
    /// In the configuration's order.
    at: usize,
    place: usize,
}

/// What is asked for, and in which step of which trace.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    upstream: UpstreamId,
    span: Option<&'a Context>,
}

impl UpstreamId {
    /// Asked for within a step that is recorded: what is done at the provider for it is recorded too.
    pub fn within(self, span: Option<&Context>) -> Asked<'_> {
        Asked { upstream: self, span }
    }
}

impl From<UpstreamId> for Asked<'_> {
    fn from(upstream: UpstreamId) -> Self {
        Self { upstream, span: None }
    }
}

/// For whom a token is wanted.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A signed-in user.
    User(Alias),
    /// The app registration itself (client credentials).
    App,
    /// The user whose token the calling application presents (on-behalf-of).
    OnBehalfOf(Arc<Assertion>),
}

/// A user's token for us, validated: what is exchanged on the user's behalf.
#[derive(Debug)]
pub struct Assertion {
    pub token: Secret<String>,
    /// `tid` and `oid`; of a generic issuer, the issuer and `sub`.
    pub tenant: String,
    pub subject: String,
    /// For people to read in logs.
    pub name: Option<String>,
    pub expires: Timestamp,
}

/// What became of a token that an upstream rejected.
#[derive(Debug)]
pub enum Rejected {
    /// Another token, newer than the one that was sent.
    Renewed(Arc<Lease>),
    /// The token is seconds old, or one challenge follows the other without an end: a further one would be refused just the same.
    TooYoung,
}

impl Vault {
    pub fn new(
        store: Store,
        providers: &BTreeMap<String, (Provider, config::Provider)>,
        upstreams: &BTreeMap<String, config::Upstream>,
        clock: Clock,
        tasks: Tasks,
        metrics: Metrics,
    ) -> Self {
        let entry = |(id, (provider, config)): (&String, &(Provider, config::Provider))| {
            let gate = Gate::new(id, config.token_requests, clock.clone(), tasks.clone(), metrics.clone());
            (id.clone(), Arc::new(ProviderEntry::new(provider.clone(), config, gate)))
        };
        let providers = providers.iter().map(entry).collect();
        let memory = Arc::new(Memory::new());
        let upstreams = entries(upstreams, &memory);
        let minted = Minted::new(&upstreams);
        let retired = CancellationToken::new();
        Self(Arc::new(Inner { store, clock, tasks, metrics, providers, upstreams, memory, minted, retired }))
    }

    /// The vault of the next configuration, on the same memory. This one serves those who have it, until `retire` and after.
    #[must_use]
    pub fn next(
        &self,
        providers: &BTreeMap<String, (Provider, config::Provider, Unchanged)>,
        upstreams: &BTreeMap<String, config::Upstream>,
    ) -> Self {
        let Inner { store, clock, tasks, metrics, memory, .. } = &*self.0;
        let entry = |(id, (provider, config, unchanged)): (&String, &(Provider, config::Provider, Unchanged))| {
            let known = self.0.providers.get(id).map(|known| (*unchanged, known));
            let entry = match known {
                Some((Unchanged::All, known)) => Arc::clone(known),
                // It has not forgotten what was asked of it, nor that it wants to be left alone.
                Some((Unchanged::Application, known)) => {
                    Arc::new(ProviderEntry::new(provider.clone(), config, known.gate.clone()))
                }
                Some((Unchanged::Nothing, _)) | None => {
                    let gate = Gate::new(id, config.token_requests, clock.clone(), tasks.clone(), metrics.clone());
                    Arc::new(ProviderEntry::new(provider.clone(), config, gate))
                }
            };
            (id.clone(), entry)
        };
        let entries_by_id = providers.iter().map(entry).collect();
        let upstreams = entries(upstreams, memory);
        let is_same = |id: &str| providers.get(id).is_some_and(|(_, _, unchanged)| *unchanged != Unchanged::Nothing);
        let minted = self.0.minted.next(&self.0.upstreams, &upstreams, is_same);
        Self(Arc::new(Inner {
            store: store.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            providers: entries_by_id,
            upstreams,
            memory: Arc::clone(memory),
            minted,
            retired: CancellationToken::new(),
        }))
    }

    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Another configuration is in force: what is done ahead of need is done by that one, and what failed for this one alone is nobody
    /// else's answer. Requests that have this vault end with it.
    pub fn retire(&self) {
        self.0.retired.cancel();
        for slot in &self.0.memory.slots {
            slot.forget_failures_of_the_configuration();
        }
        self.0.minted.forget_failures_of_the_configuration();
    }

    pub fn upstream(&self, name: &str) -> Option<UpstreamId> {
        self.0.ids().find(|(_, upstream)| upstream.name == name).map(|(id, _)| id)
    }
}

/// The upstreams of a configuration, each with its place in `memory`.
fn entries(upstreams: &BTreeMap<String, config::Upstream>, memory: &Memory) -> Vec<UpstreamEntry> {
    let entry = |upstream: &config::Upstream| {
        let entry = UpstreamEntry {
            name: upstream.name.clone(),
            provider: upstream.provider.clone(),
            scope_set: store::scope_set(&upstream.scopes),
            scopes: upstream.scopes.clone(),
            app_scopes: upstream.app_scopes.clone(),
            place: 0,
        };
        UpstreamEntry { place: memory.places.of(&entry.place()), ..entry }
    };
    upstreams.values().map(entry).collect()
}

impl Assertion {
    fn is_same(&self, other: &Self) -> bool {
        self.token.expose() == other.token.expose()
    }
}

impl Inner {
    /// Every upstream with its name for the vault.
    fn ids(&self) -> impl Iterator<Item = (UpstreamId, &UpstreamEntry)> {
        let id = |(at, upstream): (usize, &UpstreamEntry)| UpstreamId { at, place: upstream.place };
        self.upstreams.iter().enumerate().map(move |(at, upstream)| (id((at, upstream)), upstream))
    }

    fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// To be called after a failure was shared: what failed by a configuration that is in force no more is no answer for those who go
    /// by the new one. They try again.
    fn mark_outdated(&self, ended: &mut Ended, slot: &Slot) {
        if self.is_retired() && ended.is_about_the_configuration() {
            ended.outdated = true;
            slot.forget_failures_of_the_configuration();
        }
    }

    /// Names that nobody has must not fill the memory. Whoever had a hand on the slot lets go of it first and then calls this, so
    /// the last of them finds it unused; whoever takes a new hand on it, or has put a lease into it, keeps it.
    fn forget(&self, alias: &Alias) {
        let now = self.clock.moment();
        self.memory.slots.remove_if(alias, |_, slot| Arc::strong_count(slot) == 1 && slot.is_idle(now));
    }

    /// What `grant` holds for each place of a slot, dead or alive: also for those that only another configuration knows.
    fn leases(&self, grant: Option<&Grant>, witness: Option<&Witness>) -> Vec<Option<Lease>> {
        self.memory.places.all().iter().map(|place| self.lease_in(grant?, place, witness)).collect()
    }

    fn lease_in(&self, grant: &Grant, place: &Place, witness: Option<&Witness>) -> Option<Lease> {
        if grant.key.provider != place.provider {
            return None;
        }
        let token = grant.access.iter().find(|token| token.scope_set == place.scope_set)?;
        let witnessed = witness.and_then(|witness| Lease::witnessed_by(witness, grant.into(), token));
        witnessed.or_else(|| Lease::new(grant.into(), token, self.clock.read()))
    }

    /// Beside the refresh, never before it: a record that can't be kept must not cost a grant.
    fn record_failure(&self, grant: &Grant, error: &TokenError) {
        let why = format!("{}: {}", outcome_name(error.class), error.text);
        let entry = Entry::new(Event::RefreshFailed, Who::Bearerd).of(&grant.alias, &grant.key).because(why);
        let (store, entry) = (self.store.clone(), entry.with(Outcome::Failed));
        self.tasks.spawn(async move {
            if let Err(error) = store.audit(entry).await {
                tracing::warn!(%error, "a failed refresh can't be recorded");
            }
        });
    }

    /// After a change that this process made itself: the store has it, whatever happens here.
    async fn follow_own(&self, alias: &Alias) {
        if let Err(error) = self.follow(alias).await {
            tracing::error!(%error, "the store can't be read back; the change is in force within a second");
        }
    }

    fn provider(&self, id: &str) -> Result<&ProviderEntry, LeaseError> {
        self.providers
            .get(id)
            .map(|entry| &**entry)
            .ok_or_else(|| LeaseError::Misconfigured(format!("the provider {id} is not configured any more")))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("slots", &self.0.memory.slots.len()).finish_non_exhaustive()
    }
}
