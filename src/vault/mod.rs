//! The only door to access tokens.
//!
//! `lease` gives a token that lives: a fresh one costs one map read. `reject` says that an upstream refused one. `put` takes what a
//! sign-in brought. Behind the door: `slot` is one account in memory, `flight` fetches what is missing, `watch` hears what other
//! processes did.
//!
//! Invariants: no map guard lives across an await; one refresh per account at a time, whoever asks; a token is in force only after
//! its refresh token is durable; a rejection acts only on the version that was sent; a revoked grant is never served again.

mod error;
mod flight;
mod import;
mod lease;
mod slot;
mod timing;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

pub use self::error::{LeaseError, PutError};
use self::flight::{Ended, Flight};
pub use self::import::{Import, ImportError, Imported};
pub use self::lease::{Freshness, Lease};
use self::slot::{Boarding, Landing, Slot, Want};
use crate::account::{AccountKey, Alias};
use crate::clock::{Clock, Moment};
use crate::config::{self, ProviderKind, Rotation};
use crate::metrics::Metrics;
use crate::oauth::{Provider, SignedIn};
use crate::store::{self, AccessToken, Grant, SignIn, Store, StoreError};
use crate::tasks::Tasks;

/// A request waits for a token no longer than this; the refresh itself goes on.
const PATIENCE: Duration = Duration::from_secs(10);
/// A plain 401 on a token younger than this is not the token's fault: no second refresh (Entra's loop detection, AADSTS50196).
const TOO_YOUNG: Duration = Duration::from_secs(10);

/// A handle on the vault; clones share it.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    tasks: Tasks,
    metrics: Metrics,
    providers: BTreeMap<String, ProviderEntry>,
    upstreams: Vec<UpstreamEntry>,
    slots: DashMap<Alias, Arc<Slot>>,
    /// The newest change of the store that memory follows. `None`: not asked yet.
    seen: tokio::sync::Mutex<Option<u64>>,
}

struct ProviderEntry {
    provider: Provider,
    rotation: Rotation,
    allowed_tenants: Vec<String>,
    /// Stands in for the tenant in the keys of a generic provider's accounts.
    issuer: Option<String>,
    /// Our own credential was refused: nothing is presented until then.
    refusal: Mutex<Option<(Moment, LeaseError)>>,
}

struct UpstreamEntry {
    name: String,
    provider: String,
    scopes: Vec<String>,
    scope_set: String,
}

/// An upstream in the vault's order: found once, at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamId(usize);

/// What became of a token that an upstream rejected.
#[derive(Debug)]
pub enum Rejected {
    /// Another token, newer than the one that was sent.
    Renewed(Arc<Lease>),
    /// The token is seconds old: a further one would be refused just the same.
    TooYoung,
}

/// Who a sign-in is for: decides the alias of a new account, and who may complete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInFor {
    /// The account with this alias if there is one (then no other identity may complete it), else a new one of that name.
    Alias(Alias),
    /// As `Alias`, and only this identity, whoever has the alias by now.
    Account { alias: Alias, key: AccountKey },
    /// Whoever it is, of an allowed tenant; a new account is named by its `preferred_username`.
    Anyone,
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
        let providers = providers.iter().map(|(id, (provider, config))| {
            let entry = ProviderEntry {
                provider: provider.clone(),
                rotation: config.rotation,
                allowed_tenants: config.allowed_tenants.clone(),
                issuer: match &config.kind {
                    ProviderKind::Oidc { issuer } => Some(issuer.as_str().trim_end_matches('/').to_owned()),
                    ProviderKind::Entra { .. } => None,
                },
                refusal: Mutex::default(),
            };
            (id.clone(), entry)
        });
        let upstreams = upstreams.values().map(|upstream| UpstreamEntry {
            name: upstream.name.clone(),
            provider: upstream.provider.clone(),
            scope_set: store::scope_set(&upstream.scopes),
            scopes: upstream.scopes.clone(),
        });
        Self(Arc::new(Inner {
            store,
            clock,
            tasks,
            metrics,
            providers: providers.collect(),
            upstreams: upstreams.collect(),
            slots: DashMap::new(),
            seen: tokio::sync::Mutex::default(),
        }))
    }

    pub fn upstream(&self, name: &str) -> Option<UpstreamId> {
        self.0.upstreams.iter().position(|upstream| upstream.name == name).map(UpstreamId)
    }

    /// A token for `upstream` that lives. A fresh one costs one map read.
    pub async fn lease(&self, alias: &Alias, upstream: UpstreamId) -> Result<Arc<Lease>, LeaseError> {
        let now = self.0.clock.moment();
        let current = self.0.slots.get(alias).and_then(|slot| slot.lease(upstream.0));
        match current.as_ref().map(|lease| lease.freshness(now)) {
            Some(Freshness::Fresh) => current.ok_or(LeaseError::NoAccount),
            Some(Freshness::Ageing) => {
                self.renew_behind(alias, upstream, current.as_ref());
                current.ok_or(LeaseError::NoAccount)
            }
            Some(Freshness::Expiring) => {
                let version = current.as_ref().map_or(0, |lease| lease.version);
                match (self.obtain(alias, upstream, Want::Newer(version), false).await, current) {
                    (Err(error), Some(old)) if old.lives(self.0.clock.moment()) && error.spares_old_token() => Ok(old),
                    (result, _) => result,
                }
            }
            Some(Freshness::Expired) | None => self.obtain(alias, upstream, Want::Live, false).await,
        }
    }

    /// An upstream refused the token of `lease`. Acts on that version only: where a newer token is there, that one is the answer.
    pub async fn reject(&self, lease: &Lease, upstream: UpstreamId) -> Result<Rejected, LeaseError> {
        let now = self.0.clock.moment();
        let newest = self.0.slots.get(&lease.alias).and_then(|slot| slot.lease(upstream.0));
        if newest.is_none_or(|newest| newest.version <= lease.version) && lease.younger_than(TOO_YOUNG, now) {
            return Ok(Rejected::TooYoung);
        }
        self.obtain(&lease.alias, upstream, Want::Newer(lease.version), false).await.map(Rejected::Renewed)
    }

    /// As `reject`, for the benefit of later requests: nobody waits.
    pub fn reject_behind(&self, lease: &Arc<Lease>, upstream: UpstreamId) {
        if !lease.younger_than(TOO_YOUNG, self.0.clock.moment()) {
            self.renew_behind(&lease.alias, upstream, Some(lease));
        }
    }

    /// Stores what a sign-in brought. The new grant is in force when this returns.
    pub async fn put(&self, who: &SignInFor, signed_in: SignedIn, scopes: &[String]) -> Result<Grant, PutError> {
        let inner = &self.0;
        let SignedIn { identity, reply } = signed_in;
        let username = identity.username.clone().unwrap_or_default();
        let known = inner.store.load(&identity.key).await?;
        let alias = match who {
            SignInFor::Account { alias, key } if *key != identity.key => {
                return Err(PutError::SomebodyElse { alias: alias.clone(), username });
            }
            SignInFor::Alias(alias) | SignInFor::Account { alias, .. } => {
                match (inner.store.find(alias.as_str()).await?, known) {
                    (Some(owner), _) if owner.key != identity.key => {
                        return Err(PutError::SomebodyElse { alias: alias.clone(), username });
                    }
                    (None, Some(known)) => return Err(PutError::Known { alias: known.alias, username }),
                    _ => alias.clone(),
                }
            }
            SignInFor::Anyone => {
                let alias = known.map(|known| Ok(known.alias));
                alias.unwrap_or_else(|| inner.alias_of_newcomer(&identity.key, &username))?
            }
        };
        let now = inner.clock.now();
        let grant = inner
            .store
            .sign_in(SignIn {
                key: identity.key,
                alias,
                refresh_token: reply.refresh_token.ok_or(PutError::NoRefreshToken)?,
                access: Some(AccessToken {
                    scope_set: store::scope_set(scopes),
                    token: reply.access_token,
                    expires: now.plus(reply.expires_in),
                    obtained: now,
                }),
                scopes: reply.scopes.unwrap_or_else(|| scopes.to_vec()),
                username: identity.username,
            })
            .await
            .map_err(|error| match error {
                StoreError::AliasTaken(alias) => PutError::AliasTaken(alias),
                other => PutError::Store(other),
            })?;
        tracing::info!(target: "bearerd::audit", event = "sign_in", account = %grant.alias, id = %grant.key.id(), epoch = grant.epoch);
        inner.follow_own(&grant.alias).await;
        Ok(grant)
    }

    /// The operator's `accounts refresh`: renews the tokens of every upstream of the account's provider, one after the other,
    /// whatever the leases say; may revive an account that waits for interaction.
    pub async fn refresh(&self, alias: &Alias) -> Result<Grant, LeaseError> {
        let grant = self.0.store.find(alias.as_str()).await?.ok_or(LeaseError::NoAccount)?;
        let provider = &grant.key.provider;
        if !self.0.upstreams.iter().any(|upstream| upstream.provider == *provider) {
            return Err(LeaseError::Misconfigured(format!("no upstream uses the provider {provider}")));
        }
        for (at, _) in self.0.upstreams.iter().enumerate().filter(|(_, upstream)| upstream.provider == *provider) {
            self.obtain(alias, UpstreamId(at), Want::Newer(grant.version), true).await?;
        }
        self.0.store.find(alias.as_str()).await?.ok_or(LeaseError::NoAccount)
    }

    /// Waits for a token that will do: from a flight under way, or from one that is started here.
    async fn obtain(
        &self,
        alias: &Alias,
        upstream: UpstreamId,
        want: Want,
        forced: bool,
    ) -> Result<Arc<Lease>, LeaseError> {
        let slot = self.0.slot(alias);
        let result = self.wait_in(slot, upstream, want, forced).await;
        if matches!(result, Err(LeaseError::NoAccount)) {
            self.0.forget(alias);
        }
        result
    }

    async fn wait_in(
        &self,
        slot: Arc<Slot>,
        upstream: UpstreamId,
        want: Want,
        forced: bool,
    ) -> Result<Arc<Lease>, LeaseError> {
        let inner = &self.0;
        for _ in 0..4 {
            let now = inner.clock.moment();
            if let Some(lease) = slot.lease(upstream.0).filter(|lease| want.accepts(lease, now)) {
                return Ok(lease);
            }
            if let Some(failure) = slot.shared_failure(now).filter(|_| !forced) {
                return Err(failure);
            }
            let mut landing = inner.fly(&slot, upstream, want, forced);
            let landed = tokio::time::timeout(PATIENCE, landing.wait_for(Option::is_some)).await;
            match landed {
                Ok(Ok(result)) => match &*result {
                    Some(Ok(lease)) if want.accepts(lease, inner.clock.moment()) => return Ok(Arc::clone(lease)),
                    Some(Err(error)) => return Err(error.clone()),
                    _ => {}
                },
                Ok(Err(_)) => return Err(LeaseError::Damaged("a refresh ended without a result".into())),
                Err(_) => break,
            }
        }
        Err(LeaseError::ProviderUnavailable {
            text: format!("the refresh takes longer than {} s", PATIENCE.as_secs()),
            retry_after: Duration::from_secs(5),
        })
    }

    /// Starts a refresh that nobody waits for, unless one is under way or the last one failed a moment ago.
    fn renew_behind(&self, alias: &Alias, upstream: UpstreamId, old: Option<&Arc<Lease>>) {
        let slot = self.0.slot(alias);
        if slot.shared_failure(self.0.clock.moment()).is_none() {
            self.0.fly(&slot, upstream, Want::Newer(old.map_or(0, |lease| lease.version)), false);
        }
    }
}

impl Inner {
    fn slot(&self, alias: &Alias) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(alias) {
            return Arc::clone(&slot);
        }
        let new = || Arc::new(Slot::new(alias.clone(), self.upstreams.len()));
        Arc::clone(&self.slots.entry(alias.clone()).or_insert_with(new))
    }

    /// Names that nobody has must not fill the memory. Whoever had a hand on the slot lets go of it first and then calls this, so
    /// the last of them finds it unused; whoever takes a new hand on it, or has put a lease into it, keeps it.
    fn forget(&self, alias: &Alias) {
        let now = self.clock.moment();
        self.slots.remove_if(alias, |_, slot| Arc::strong_count(slot) == 1 && slot.is_idle(now));
    }

    /// The flight under way for this account and upstream, or a new one, started detached from whoever asks.
    fn fly(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        upstream: UpstreamId,
        want: Want,
        forced: bool,
    ) -> tokio::sync::watch::Receiver<Landing> {
        match slot.board(upstream.0) {
            Boarding::UnderWay(landing) => landing,
            Boarding::New(pilot, landing) => {
                let flight =
                    Flight { vault: Arc::clone(self), slot: Arc::clone(slot), upstream: upstream.0, want, forced };
                let (vault, alias) = (Arc::clone(self), slot.alias.clone());
                self.tasks.spawn(async move {
                    let result = flight.run().await;
                    let unknown = matches!(result, Err(LeaseError::NoAccount));
                    pilot.land(result);
                    unknown.then(|| vault.forget(&alias));
                });
                landing
            }
        }
    }

    /// What `grant` holds for each upstream, dead or alive.
    fn leases(&self, grant: Option<&Grant>) -> Vec<Option<Lease>> {
        let lease = |upstream: &UpstreamEntry| {
            let grant = grant.filter(|grant| grant.key.provider == upstream.provider)?;
            let token = grant.access.iter().find(|token| token.scope_set == upstream.scope_set)?;
            Lease::new(grant, token, &self.clock)
        };
        self.upstreams.iter().map(lease).collect()
    }

    /// After a change that this process made itself: the store has it, whatever happens here.
    async fn follow_own(&self, alias: &Alias) {
        if let Err(error) = self.follow(alias).await {
            tracing::error!(%error, "the store can't be read back; the change is in force within a second");
        }
    }

    /// Only tenants that the operator named may bring their own names.
    fn alias_of_newcomer(&self, key: &AccountKey, username: &str) -> Result<Alias, PutError> {
        let allowed = self.providers.get(&key.provider).map(|entry| &entry.allowed_tenants);
        if !allowed.is_some_and(|allowed| allowed.contains(&key.tenant)) {
            return Err(PutError::Tenant(key.tenant.clone()));
        }
        Alias::new(username).map_err(|_| PutError::NoAlias(username.to_owned()))
    }

    fn provider_of(&self, grant: &Grant) -> Result<&ProviderEntry, LeaseError> {
        self.providers.get(&grant.key.provider).ok_or_else(|| {
            LeaseError::Misconfigured(format!("the provider {} is not configured any more", grant.key.provider))
        })
    }

    fn note_refresh(&self, grant: &Grant, outcome: &'static str, took: Duration) {
        self.metrics.refreshed(&grant.key.provider, outcome, took);
    }
}

impl ProviderEntry {
    fn refused(&self, now: Moment) -> Result<(), Ended> {
        match &*self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((until, error)) if *until > now => Err(Ended { error: error.clone(), memory: until.since(now) }),
            _ => Ok(()),
        }
    }

    fn refuse(&self, error: &LeaseError, until: Moment) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some((until, error.clone()));
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("slots", &self.0.slots.len()).finish_non_exhaustive()
    }
}
