//! Grants from elsewhere: a refresh token that the operator brings. It is proven at the provider before it replaces anything, so
//! that a bad row destroys no good grant.
//!
//! Invariants: a token from which a living grant came is not presented again: a strict provider would end that grant. Of rows with one
//! token, one is worked on at a time, so that the next finds what became of the one before. What the provider gave for it is stored, however
//! long the store is away.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};

use super::{Inner, ProviderEntry, PutError, SignInFor, UpstreamEntry, Vault};
use crate::account::{AccountKey, Alias};
use crate::audit::Entry;
use crate::clock::Timestamp;
use crate::oauth::{Identity, SignInError, SignedIn};
use crate::secret::Secret;
use crate::store::{self, AccessToken, Grant, Held, SignIn, Status, StoreError, TicketKind};

/// The provider's time to prove one row.
const LIMIT: Duration = Duration::from_secs(20);

/// How long an imported token is remembered: longer than any grant that came from it.
const REMEMBERED: Duration = Duration::from_hours(10 * 365 * 24);

/// The store is asked again after this time, and then ever less often.
const STORE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(5);

/// Who works on which tokens. A lock stands for many tokens: rows that share one wait for each other, and that is all.
#[derive(Default)]
pub(super) struct Imports([Mutex<()>; 32]);

/// The store is away, while the successor of a token that was redeemed is nowhere else: how long to wait for it.
struct Away(Duration);

/// A row of `accounts import`.
#[derive(Debug)]
pub struct Import {
    pub alias: Alias,
    pub provider: String,
    pub refresh_token: Secret<String>,
    pub access_token: Option<Secret<String>>,
    pub expires_at: Option<Timestamp>,
    /// Needed where the row is not verified; otherwise it has to agree with what the provider says.
    pub tenant: Option<String>,
    pub subject: Option<String>,
    pub scopes: Option<Vec<String>>,
}

/// What became of a row.
#[derive(Debug)]
pub enum Imported {
    New(Grant),
    /// The grant that lives here came from this very token: nothing was done.
    Already(Grant),
}

/// What is kept of an imported token: whose it was, and which life of the grant began with it.
#[derive(Serialize, Deserialize)]
struct Origin {
    key: AccountKey,
    epoch: u64,
}

/// Why a row was not imported. The texts name the field.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("provider: {0:?} is not configured")]
    Provider(String),
    #[error("provider: no upstream uses {0:?}")]
    NoUpstream(String),
    #[error("provider: {alias} was signed in at {provider}; remove it first to import it from elsewhere")]
    OtherProvider { alias: Alias, provider: String },
    #[error("{0}: needed, since the provider is not asked or does not say")]
    Missing(&'static str),
    #[error("{field}: the row says {said:?}, the provider says {proven:?}")]
    Differs { field: &'static str, said: String, proven: String },
    #[error("refresh_token: {0}")]
    Refused(SignInError),
    #[error("alias: {0}")]
    Put(PutError),
}

// Not by `#[from]`: the text says all of it, and a chain of causes would say it twice.
impl From<SignInError> for ImportError {
    fn from(error: SignInError) -> Self {
        Self::Refused(error)
    }
}

impl From<PutError> for ImportError {
    fn from(error: PutError) -> Self {
        Self::Put(error)
    }
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Put(error.into())
    }
}

impl Vault {
    /// Imports one row. `verify`: the refresh token is redeemed once, and what the provider answers is what is stored. `record`: who
    /// does it.
    pub async fn import(&self, row: Import, verify: bool, record: Entry) -> Result<Imported, ImportError> {
        let entry = self.0.providers.get(&row.provider);
        let entry = entry.ok_or_else(|| ImportError::Provider(row.provider.clone()))?;
        let upstreams = self.0.upstreams.iter().filter(|upstream| upstream.provider == row.provider);
        let upstreams: Vec<_> = upstreams.collect();
        let Some(upstream) = upstreams.first() else {
            return Err(ImportError::NoUpstream(row.provider));
        };
        let _alone = self.0.memory.imports.alone_with(&row.refresh_token).await;
        if let Some(grant) = self.0.known_already(entry, &row, verify).await? {
            return Ok(Imported::Already(grant));
        }
        let token = row.refresh_token.clone();
        // Before the token is presented: a strict provider gives a new one for it only once.
        let record = record.named(&row.alias);
        let describe = |record: Entry, grant: &Grant| record.of(&grant.alias, &grant.key);
        let import = async {
            if verify {
                self.import_verified(entry, row, upstream).await
            } else {
                self.import_unverified(entry, row, &upstreams).await
            }
        };
        let grant = self.0.store.audited(record, describe, import).await?;
        self.0.remember_import(&token, &grant).await;
        Ok(Imported::New(grant))
    }

    async fn import_verified(
        &self,
        entry: &ProviderEntry,
        row: Import,
        upstream: &UpstreamEntry,
    ) -> Result<Grant, ImportError> {
        let (identity, mut reply) = entry.provider.adopt(&row.refresh_token, &upstream.scopes, LIMIT).await?;
        let identity = match identity {
            Some(identity) => {
                if entry.issuer.is_none() {
                    agrees("tid", row.tenant.as_deref(), &identity.key.tenant)?;
                }
                agrees("oid", row.subject.as_deref(), &identity.key.subject)?;
                identity
            }
            None => Identity { key: key_of(entry, row.provider, row.tenant, row.subject)?, username: None, name: None },
        };
        reply.refresh_token.get_or_insert(row.refresh_token);
        let signed_in = SignedIn { identity, reply };
        let who = SignInFor::Alias(row.alias);
        let mut store = Away::default();
        loop {
            match self.put_unrecorded(&who, signed_in.clone(), &upstream.scopes).await {
                Err(PutError::Store(StoreError::Unavailable(why))) => store.wait(&why).await,
                other => return Ok(other?),
            }
        }
    }

    async fn import_unverified(
        &self,
        entry: &ProviderEntry,
        row: Import,
        upstreams: &[&UpstreamEntry],
    ) -> Result<Grant, ImportError> {
        let key = key_of(entry, row.provider, row.tenant, row.subject)?;
        let meant = upstream_of_token(upstreams, row.scopes.as_deref());
        let access = row.access_token.zip(row.expires_at).zip(meant).map(|((token, expires), upstream)| AccessToken {
            scope_set: upstream.scope_set.clone(),
            token,
            expires,
            obtained: Timestamp::default(),
            refresh_after: None,
            claims: None,
        });
        let sign_in = SignIn {
            key,
            alias: row.alias,
            refresh_token: row.refresh_token,
            access,
            scopes: row.scopes.or_else(|| meant.map(|upstream| upstream.scopes.clone())).unwrap_or_default(),
            username: None,
        };
        let grant = self.0.store.sign_in(sign_in).await.map_err(|error| match error {
            StoreError::AliasTaken(alias) => PutError::AliasTaken(alias),
            other => PutError::Store(other),
        })?;
        self.0.follow_own(&grant.alias).await;
        Ok(grant)
    }
}

impl Inner {
    /// What the store can say of a row before anybody is asked: the living grant that came from its token, or why it can't be
    /// imported. A row that is not verified may bring the current token once more, perhaps with another access token.
    async fn known_already(
        &self,
        entry: &ProviderEntry,
        row: &Import,
        verify: bool,
    ) -> Result<Option<Grant>, ImportError> {
        let named = key_of(entry, row.provider.clone(), row.tenant.clone(), row.subject.clone()).ok();
        let came_from_it = self.origin(&row.refresh_token).await.map_err(PutError::from)?;
        let came_from_it = came_from_it.filter(|grant| verify || named.as_ref().is_none_or(|key| *key == grant.key));
        let owner = match (&came_from_it, &named) {
            (Some(grant), _) => Some(grant.clone()),
            (None, Some(key)) => self.store.load(key).await.map_err(PutError::from)?,
            (None, None) => None,
        };
        if let Some(owner) = owner.filter(|owner| owner.alias != row.alias) {
            let username = owner.username.unwrap_or(owner.key.subject);
            return Err(PutError::Known { alias: owner.alias, username }.into());
        }
        let Some(grant) = self.store.find(row.alias.as_str()).await.map_err(PutError::from)? else { return Ok(None) };
        if grant.key.provider != row.provider {
            return Err(ImportError::OtherProvider { alias: grant.alias, provider: grant.key.provider });
        }
        if named.is_some_and(|key| key != grant.key) {
            return Err(PutError::AliasTaken(grant.alias).into());
        }
        let known = match self.store.holds(&grant.key, &row.refresh_token).await.map_err(PutError::from)? {
            Held::Now => verify && may_live(&grant),
            Held::Before => may_live(&grant),
            Held::Never => came_from_it.is_some(),
        };
        Ok(known.then_some(grant))
    }

    /// The grant that came from this token, if it may still live.
    async fn origin(&self, refresh_token: &Secret<String>) -> Result<Option<Grant>, StoreError> {
        let Some(payload) = self.store.read_ticket(TicketKind::Imported, refresh_token.expose()).await? else {
            return Ok(None);
        };
        let corrupt = |error: serde_json::Error| StoreError::Corrupt {
            record: "the memory of an import".to_owned(),
            why: error.to_string(),
        };
        let Origin { key, epoch } = serde_json::from_slice(&payload).map_err(corrupt)?;
        Ok(self.store.load(&key).await?.filter(|grant| grant.epoch == epoch && may_live(grant)))
    }

    /// The grant is stored; that its origin can't be noted is no reason to fail, but whoever has the token could end the grant with it.
    async fn remember_import(&self, refresh_token: &Secret<String>, grant: &Grant) {
        let origin = Origin { key: grant.key.clone(), epoch: grant.epoch };
        let payload = serde_json::to_vec(&origin).expect("plain data with text keys");
        let until = self.clock.now().plus(REMEMBERED);
        let (kind, token) = (TicketKind::Imported, refresh_token.expose());
        let mut store = Away::default();
        loop {
            match self.store.put_ticket(kind, token, payload.clone(), until).await {
                Ok(()) => return,
                Err(StoreError::Unavailable(why)) => store.wait(&why).await,
                Err(error) => {
                    tracing::warn!(account = %grant.alias, %error, "a later import of the same token won't be recognised");
                    return;
                }
            }
        }
    }
}

impl Imports {
    /// Nobody else imports this token while the answer lives.
    async fn alone_with(&self, refresh_token: &Secret<String>) -> MutexGuard<'_, ()> {
        let digest = Sha256::digest(refresh_token.expose());
        self.0[usize::from(digest[0]) % self.0.len()].lock().await
    }
}

impl Default for Away {
    fn default() -> Self {
        Self(STORE_PAUSE)
    }
}

impl Away {
    async fn wait(&mut self, why: &str) {
        tracing::error!(why, "an imported token can't be stored yet; trying again");
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_STORE_PAUSE);
    }
}

/// There is something to lose.
fn may_live(grant: &Grant) -> bool {
    matches!(grant.status, Status::Active | Status::Uncertain)
}

/// The only upstream that an access token from elsewhere may be sent to: the provider's only one, or the one with the very scopes
/// of the row. Where it is not clear, the token is left out, and the first use of the account brings another.
fn upstream_of_token<'a>(upstreams: &[&'a UpstreamEntry], scopes: Option<&[String]>) -> Option<&'a UpstreamEntry> {
    match upstreams {
        [only] => Some(only),
        several => {
            let wanted = store::scope_set(scopes?);
            several.iter().find(|upstream| upstream.scope_set == wanted).copied()
        }
    }
}

/// The identity that the row itself names; a generic provider's issuer is known.
fn key_of(
    entry: &ProviderEntry,
    provider: String,
    tenant: Option<String>,
    subject: Option<String>,
) -> Result<AccountKey, ImportError> {
    let subject = subject.ok_or(ImportError::Missing("oid"))?;
    Ok(match &entry.issuer {
        Some(issuer) => {
            let tenant = tenant.map(|tenant| tenant.trim_end_matches('/').to_owned());
            AccountKey { provider, tenant: tenant.unwrap_or_else(|| issuer.clone()), subject }
        }
        None => AccountKey {
            provider,
            tenant: tenant.ok_or(ImportError::Missing("tid"))?.to_ascii_lowercase(),
            subject: subject.to_ascii_lowercase(),
        },
    })
}

fn agrees(field: &'static str, said: Option<&str>, proven: &str) -> Result<(), ImportError> {
    match said {
        Some(said) if !said.eq_ignore_ascii_case(proven) => {
            Err(ImportError::Differs { field, said: said.to_owned(), proven: proven.to_owned() })
        }
        _ => Ok(()),
    }
}
