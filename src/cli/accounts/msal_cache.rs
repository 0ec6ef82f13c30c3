//! The unified token cache of the Microsoft Authentication Libraries (`token_cache.json`), read as rows to import.
//!
//! Each refresh token is an entry of the answer: a row, or why it can't be one. Only tokens that were given to an application and
//! a cloud of our configuration become rows; an access token comes along only where it surely is for one of our upstreams.
//! Nobody is asked and nothing is stored here.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::account::Alias;
use crate::admin::desk::import::{When, timestamp, without_values};
use crate::clock::Timestamp;
use crate::config::{Config, Provider, ProviderKind, Upstream};
use crate::oauth::is_one_cloud;
use crate::secret::Secret;
use crate::vault::Import;

/// A refresh token of the cache.
#[derive(Debug)]
pub struct Entry {
    /// For messages.
    pub name: String,
    /// Whose token it is, and which application's: entries of one account come the newest first.
    pub account: (String, String),
    pub row: Result<Import, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Cache {
    refresh_token: Option<Section<RefreshToken>>,
    access_token: Option<Section<AccessToken>>,
    account: Option<Section<Account>>,
    id_token: Option<IgnoredAny>,
    app_metadata: Option<IgnoredAny>,
}

type Section<T> = BTreeMap<String, Readable<T>>;

/// One entry that doesn't read is no reason to lose the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Readable<T> {
    Yes(T),
    No(IgnoredAny),
}

#[derive(Deserialize)]
struct RefreshToken {
    home_account_id: String,
    environment: String,
    client_id: String,
    secret: Secret<String>,
    /// Of a token that all applications of a family may redeem ("FOCI").
    family_id: Option<String>,
    last_modification_time: Option<When>,
}

#[derive(Deserialize)]
struct AccessToken {
    home_account_id: String,
    environment: String,
    client_id: String,
    realm: String,
    /// The scopes.
    target: String,
    secret: Secret<String>,
    expires_on: When,
    token_type: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    home_account_id: String,
    environment: String,
    /// The tenant as the application named it.
    realm: String,
    local_account_id: Option<String>,
    username: Option<String>,
}

/// What the cache knows beside the refresh tokens.
struct Known {
    accounts: Vec<Account>,
    access: Vec<AccessToken>,
    now: Timestamp,
}

/// Every refresh token of the cache, the newest first.
pub fn entries(text: &[u8], config: &Config, now: Timestamp) -> anyhow::Result<Vec<Entry>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let cache: Cache = match serde_json::from_slice(text) {
        Ok(cache) => cache,
        Err(error) => bail!("{}; a plain token cache of MSAL is needed, not an encrypted one", without_values(&error)),
    };
    let Cache { refresh_token, access_token, account, id_token, app_metadata } = cache;
    if refresh_token.is_none() && access_token.is_none() && account.is_none() {
        if id_token.is_some() || app_metadata.is_some() || text.trim_ascii() == b"{}" {
            return Ok(Vec::new());
        }
        bail!("this is not a token cache of MSAL");
    }
    let known = Known { accounts: readable(account), access: readable(access_token), now };
    let mut entries: Vec<(Option<Timestamp>, Entry)> = Vec::new();
    for (key, token) in refresh_token.unwrap_or_default() {
        entries.push(match token {
            Readable::Yes(token) => known.entry(token, config),
            Readable::No(_) => {
                let account = (key.clone(), String::new());
                let row = Err("a field is missing or has the wrong type".to_owned());
                (None, Entry { name: format!("{key:?}"), account, row })
            }
        });
    }
    entries.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

impl Known {
    fn entry(&self, mut token: RefreshToken, config: &Config) -> (Option<Timestamp>, Entry) {
        let changed = token.last_modification_time.take().and_then(|when| timestamp(when).ok());
        let of_account = self.accounts.iter().filter(|account| account.home_account_id == token.home_account_id);
        let named = of_account.filter_map(|account| account.username.clone()).find(|name| !name.is_empty());
        let entry = Entry {
            name: named.unwrap_or_else(|| token.home_account_id.clone()),
            account: (token.home_account_id.clone(), token.client_id.to_ascii_lowercase()),
            row: self.row(token, config),
        };
        (changed, entry)
    }

    fn row(&self, token: RefreshToken, config: &Config) -> Result<Import, String> {
        let (provider, authority_tenant) = provider_of(&token, config)?;
        if token.secret.expose().is_empty() {
            return Err("secret: is empty".to_owned());
        }
        let username = self.account_in(&token, authority_tenant).and_then(|account| account.username.as_deref());
        let alias = username.and_then(|name| Alias::new(name).ok());
        let alias = alias.map_or_else(|| Alias::new(&token.home_account_id), Ok);
        let alias = alias.map_err(|error| format!("neither user name nor home_account_id will do: {error}"))?;
        let (tenant, subject) = self.identity(&token, authority_tenant).unzip();
        let access = self.access_token(&token, provider, authority_tenant, tenant.as_deref(), config);
        let (scopes, access_token, expires_at) = match access {
            Some((upstream, access, expires)) => (Some(upstream.scopes.clone()), Some(access), Some(expires)),
            None => (None, None, None),
        };
        let provider = provider.id.clone();
        Ok(Import { alias, provider, refresh_token: token.secret, access_token, expires_at, tenant, subject, scopes })
    }

    fn accounts_of(&self, token: &RefreshToken) -> impl Iterator<Item = &Account> {
        let same = |account: &&Account| is_of(token, &account.home_account_id, &account.environment);
        self.accounts.iter().filter(same)
    }

    /// The account as it is seen from the provider's tenant, else as its home knows it.
    fn account_in(&self, token: &RefreshToken, tenant: &str) -> Option<&Account> {
        let home = home_of(token).map_or("", |(_, home)| home);
        let of = |realm: &str| self.accounts_of(token).find(|account| account.realm.eq_ignore_ascii_case(realm));
        of(tenant).or_else(|| of(home)).or_else(|| self.accounts_of(token).next())
    }

    /// `tid` and `oid` as the provider will say them; `None`: the cache doesn't tell.
    fn identity(&self, token: &RefreshToken, tenant: &str) -> Option<(String, String)> {
        let home = home_of(token);
        let local = || {
            let seen = self.accounts_of(token).find(|account| account.realm.eq_ignore_ascii_case(tenant))?;
            seen.local_account_id.as_deref()
        };
        let (tid, oid) = if is_guid(tenant) {
            // A guest has another object id than at home.
            match home {
                Some((oid, tid)) if tid.eq_ignore_ascii_case(tenant) => (tenant, oid),
                _ => (tenant, local()?),
            }
        } else {
            let (oid, tid) = home?;
            let several = ["organizations", "common"].iter().any(|name| name.eq_ignore_ascii_case(tenant));
            if !several && local().is_none_or(|local| !local.eq_ignore_ascii_case(oid)) {
                return None;
            }
            (tid, oid)
        };
        Some((tid.to_owned(), oid.to_owned()))
    }

    /// The access token that lives longest, with the upstream that it is for: the one of which it has every scope.
    fn access_token<'a>(
        &self,
        token: &RefreshToken,
        provider: &Provider,
        tenant: &str,
        tid: Option<&str>,
        config: &'a Config,
    ) -> Option<(&'a Upstream, Secret<String>, Timestamp)> {
        let ours = |access: &&AccessToken| {
            is_of(token, &access.home_account_id, &access.environment)
                && access.client_id.eq_ignore_ascii_case(&token.client_id)
                && [Some(tenant), tid].into_iter().flatten().any(|realm| access.realm.eq_ignore_ascii_case(realm))
                && access.token_type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"))
        };
        let living = self.access.iter().filter(ours).filter_map(|access| {
            let expires = timestamp(access.expires_on.clone()).ok().filter(|expires| *expires > self.now)?;
            let mut upstreams = config.upstreams.values().filter(|upstream| upstream.provider == provider.id);
            let upstream = upstreams.find(|upstream| has_all_scopes(&access.target, upstream))?;
            Some((upstream, access, expires))
        });
        let (upstream, access, expires) = living.max_by_key(|(.., expires)| *expires)?;
        Some((upstream, access.secret.clone(), expires))
    }
}

/// The provider whose application got this token, and its tenant.
fn provider_of<'a>(token: &RefreshToken, config: &'a Config) -> Result<(&'a Provider, &'a str), String> {
    let RefreshToken { client_id, environment, .. } = token;
    let of_client = config.providers.values().filter_map(|provider| match &provider.kind {
        ProviderKind::Entra { authority, tenant } if provider.client_id.eq_ignore_ascii_case(client_id) => {
            Some((provider, authority, tenant.as_str()))
        }
        _ => None,
    });
    let of_client: Vec<_> = of_client.collect();
    if of_client.is_empty() {
        let family = token.family_id.as_deref().filter(|family| !family.is_empty());
        let family = family.map(|id| format!(" (a token of the family {id:?})")).unwrap_or_default();
        return Err(format!("client_id: {client_id:?}{family} is the application of no provider of kind entra here"));
    }
    let in_cloud = of_client.iter().filter(|(_, authority, _)| {
        let host = authority.host_str().unwrap_or_default();
        let place = authority.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let environment = environment.to_ascii_lowercase();
        environment == host || environment == place || is_one_cloud(&environment, host)
    });
    let in_cloud: Vec<_> = in_cloud.map(|(provider, _, tenant)| (*provider, *tenant)).collect();
    match in_cloud.as_slice() {
        [] => {
            let (provider, authority, _) = of_client[0];
            Err(format!("environment: {environment:?} is not the cloud of providers.{} ({authority})", provider.id))
        }
        [only] => Ok(*only),
        several => {
            let home = |tenant: &str| home_of(token).is_some_and(|(_, home)| home.eq_ignore_ascii_case(tenant));
            let meant: Vec<_> = several.iter().filter(|(_, tenant)| home(tenant)).collect();
            let ids: Vec<_> = several.iter().map(|(provider, _)| provider.id.as_str()).collect();
            let unclear = || format!("client_id: several providers have it, and it is not clear which: {ids:?}");
            if let [only] = meant.as_slice() { Ok(**only) } else { Err(unclear()) }
        }
    }
}

fn readable<T>(section: Option<Section<T>>) -> Vec<T> {
    let entries = section.unwrap_or_default().into_values();
    entries.filter_map(|entry| if let Readable::Yes(entry) = entry { Some(entry) } else { None }).collect()
}

fn is_of(token: &RefreshToken, home_account_id: &str, environment: &str) -> bool {
    token.home_account_id == home_account_id
        && (token.environment == environment || is_one_cloud(&token.environment, environment))
}

/// Object id and tenant of the account at home: `uid.utid`.
fn home_of(token: &RefreshToken) -> Option<(&str, &str)> {
    token.home_account_id.split_once('.').filter(|(uid, utid)| is_guid(uid) && is_guid(utid))
}

/// A scope may be written with the resource in front or, where that is Graph, without.
fn has_all_scopes(target: &str, upstream: &Upstream) -> bool {
    let short = |scope: &str| scope.strip_prefix(upstream.url.as_str()).unwrap_or(scope).to_ascii_lowercase();
    let has: Vec<String> = target.split_whitespace().map(short).collect();
    !upstream.scopes.is_empty() && upstream.scopes.iter().all(|scope| has.contains(&short(scope)))
}

fn is_guid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
