//! Sign-in links for error answers: one for each account and life of its grant, made when first asked for.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Core;
use crate::account::{AccountKey, Alias};
use crate::admin::desk::Link;
use crate::audit::{Entry, Event, Who};
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::proxy::SigninLinks;
use crate::signin::{Invite, create_invite, login_url};
use crate::store::{Grant, Store, StoreError};

/// Links that were handed out in error answers and may be handed out again.
const LINKS: usize = 10_000;

pub(super) struct Links {
    store: Store,
    clock: Clock,
    public_url: url::Url,
    made: Mutex<HashMap<(AccountKey, u64), (Moment, String)>>,
}

impl Links {
    /// Shorter than a link's own life, so that nobody is handed one that is about to lapse.
    const LIFE: Duration = Duration::from_secs(3600);

    pub(super) fn new(core: &Core, config: &Config) -> Self {
        Self {
            store: core.store.clone(),
            clock: core.clock.clone(),
            public_url: config.signin.public_url.clone(),
            made: Mutex::default(),
        }
    }

    async fn make(&self, alias: &Alias) -> Option<String> {
        let grant = self.store.find(alias.as_str()).await.ok()??;
        let key = (grant.key.clone(), grant.epoch);
        let now = self.clock.moment();
        if let Some((at, link)) = self.made().get(&key)
            && now.since(*at) < Self::LIFE
        {
            return Some(link.clone());
        }
        let record = Entry::new(Event::LinkMade, Who::Bearerd).of(alias, &grant.key);
        let made = self.fresh(grant, "bearerd");
        let link = self.store.audited(record, |record, _| record, made).await.ok()?.url;
        let mut made = self.made();
        if made.len() >= LINKS {
            made.clear();
        }
        made.insert(key, (now, link.clone()));
        Some(link)
    }

    /// A new one, for the account's own user. Whoever asks for it records that.
    pub(super) async fn fresh(&self, grant: Grant, by: &str) -> Result<Link, StoreError> {
        let mut invite = Invite::new(Some(grant.alias.clone()), &grant.key.provider, by, &self.clock);
        invite.claims = grant.challenge();
        invite.account = Some(grant.key);
        let id = create_invite(&self.store, &self.clock, &invite).await?;
        Ok(Link { url: login_url(&self.public_url, &id).to_string(), expires: invite.expires })
    }

    fn made(&self) -> MutexGuard<'_, HashMap<(AccountKey, u64), (Moment, String)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SigninLinks for Links {
    fn link<'a>(&'a self, alias: &'a Alias) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>> {
        Box::pin(self.make(alias))
    }
}
