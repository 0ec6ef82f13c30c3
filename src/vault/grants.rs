//! What begins and ends the life of a grant: a sign-in, a revocation; and the operator's refresh.
//!
//! Invariant: what the store has taken is in force in this process when the call returns, even if the caller gives up waiting for
//! the provider.

use std::sync::Arc;
use std::time::Duration;

use super::provider::access_token;
use super::slot::Want;
use super::{Inner, LeaseError, PutError, Subject, Vault};
use crate::account::{AccountKey, Alias};
use crate::audit::{Entry, Event, Who};
use crate::oauth::SignedIn;
use crate::secret::Secret;
use crate::store::{self, Grant, SignIn, StoreError};

/// The provider's time to hear of a revocation.
const TELL_REVOKED: Duration = Duration::from_secs(5);

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
    /// Stores what a sign-in brought. The new grant is in force when this returns.
    pub async fn put(&self, who: &SignInFor, signed_in: SignedIn, scopes: &[String]) -> Result<Grant, PutError> {
        let entry = Entry::new(Event::SignIn, Who::User);
        let entry = Entry { account_id: Some(signed_in.identity.key.id()), ..entry };
        let entry = match who {
            SignInFor::Alias(alias) | SignInFor::Account { alias, .. } => entry.named(alias),
            SignInFor::Anyone => entry,
        };
        let describe = |entry: Entry, grant: &Grant| entry.named(&grant.alias);
        self.0.store.audited(entry, describe, self.put_unrecorded(who, signed_in, scopes)).await
    }

    /// For callers who have recorded what is done.
    pub(super) async fn put_unrecorded(
        &self,
        who: &SignInFor,
        signed_in: SignedIn,
        scopes: &[String],
    ) -> Result<Grant, PutError> {
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
                access: Some(access_token(&reply, store::scope_set(scopes), None, now)),
                refresh_token: reply.refresh_token.ok_or(PutError::NoRefreshToken)?,
                scopes: reply.scopes.unwrap_or_else(|| scopes.to_vec()),
                username: identity.username,
            })
            .await
            .map_err(|error| match error {
                StoreError::AliasTaken(alias) => PutError::AliasTaken(alias),
                other => PutError::Store(other),
            })?;
        inner.follow_own(&grant.alias).await;
        Ok(grant)
    }

    /// Ends the life of a grant, here at once and then at the provider, if that has a way to be told (RFC 7009).
    /// False: there is no such account.
    pub async fn revoke(&self, key: &AccountKey) -> Result<bool, StoreError> {
        let inner = &self.0;
        let Some(revoked) = inner.store.revoke(key).await? else { return Ok(false) };
        // Detached: whoever asked may hang up, the provider is told all the same.
        let told = revoked.refresh_token.map(|refresh_token| {
            let (vault, key) = (Arc::clone(inner), key.clone());
            inner.tasks.spawn(async move { vault.tell_revoked(&key, &refresh_token).await })
        });
        match inner.store.load(key).await {
            Ok(Some(grant)) => inner.follow_own(&grant.alias).await,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the store can't be read back; the change is in force within a second");
            }
        }
        if let Some(told) = told
            && let Err(error) = told.await
        {
            tracing::error!(%error, "the provider was not told of a revocation");
        }
        Ok(true)
    }

    /// Removes the account. False: there is no such account.
    pub async fn remove(&self, key: &AccountKey, alias: &Alias) -> Result<bool, StoreError> {
        let removed = self.0.store.remove(key).await?;
        if removed {
            self.0.follow_own(alias).await;
        }
        Ok(removed)
    }

    /// The operator's `accounts refresh`: renews the tokens of every upstream of the account's provider, one after the other,
    /// whatever the leases say; may revive an account that waits for interaction, and what waits for it with a challenge.
    pub async fn refresh(&self, alias: &Alias) -> Result<Grant, LeaseError> {
        let grant = self.0.store.find(alias.as_str()).await?.ok_or(LeaseError::NoAccount)?;
        let provider = &grant.key.provider;
        if !self.0.upstreams.iter().any(|upstream| upstream.provider == *provider) {
            return Err(LeaseError::Misconfigured(format!("no upstream uses the provider {provider}")));
        }
        let subject = Subject::User(alias.clone());
        for (id, upstream) in self.0.ids().filter(|(_, upstream)| upstream.provider == *provider) {
            let parked = grant.parked.iter().filter(|parked| parked.scope_set == upstream.scope_set);
            let claims = parked.filter_map(|parked| parked.asked.clone()).reduce(|all, more| all.merge(&more));
            let want = Want { claims, ..Want::newer_than(grant.version) };
            self.obtain(&subject, id.into(), want, true).await?;
        }
        self.0.store.find(alias.as_str()).await?.ok_or(LeaseError::NoAccount)
    }
}

impl Inner {
    /// Only tenants that the operator named may bring their own names.
    fn alias_of_newcomer(&self, key: &AccountKey, username: &str) -> Result<Alias, PutError> {
        let allowed = self.providers.get(&key.provider).map(|entry| &entry.allowed_tenants);
        if !allowed.is_some_and(|allowed| allowed.contains(&key.tenant)) {
            return Err(PutError::Tenant(key.tenant.clone()));
        }
        Alias::new(username).map_err(|_| PutError::NoAlias(username.to_owned()))
    }

    /// The grant is gone here already: all that is left is to say so, once.
    async fn tell_revoked(&self, key: &AccountKey, refresh_token: &Secret<String>) {
        let Ok(entry) = self.provider(&key.provider) else { return };
        match entry.provider.revoke(refresh_token, TELL_REVOKED).await {
            Ok(true) => tracing::info!(id = %key.id(), "the provider has revoked the refresh token"),
            Ok(false) => tracing::debug!(id = %key.id(), "the provider has no way to be told of a revocation"),
            Err(error) => tracing::warn!(id = %key.id(), %error, "the provider was not told of a revocation"),
        }
    }
}
