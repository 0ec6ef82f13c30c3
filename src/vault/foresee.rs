//! What a request would find: read from the store, by the rules that a flight goes by.
//!
//! Invariant: nothing is asked of a provider, nothing is written, nothing is started, and no lease is marked as used.

use super::error::{backs_off, may_be_refreshed, outcome_unknown};
use super::{Freshness, Inner, LeaseError, UpstreamId, Vault};
use crate::account::Alias;
use crate::clock::Timestamp;
use crate::store::{Decision, Grant};

/// What is there for a request of one account to one upstream, and what that comes to.
#[derive(Debug)]
pub struct Foreseen {
    /// `None`: no account of the upstream's provider has this alias.
    pub grant: Option<Grant>,
    /// The stored token for the upstream, dead or alive: how fresh it is, and when it expires.
    pub token: Option<(Freshness, Timestamp)>,
    pub outcome: Result<Next, LeaseError>,
}

/// What a request would do for its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Take the one that lives.
    Take,
    /// Ask the provider for one first, whose answer nobody knows.
    Ask,
}

impl Vault {
    /// `Err`: the store can't tell.
    pub async fn foresee(&self, alias: &Alias, upstream: UpstreamId) -> Result<Foreseen, LeaseError> {
        let inner = &self.0;
        let provider = &inner.upstreams[upstream.at].provider;
        let found = inner.store.find(alias.as_str()).await?;
        let Some(grant) = found.filter(|grant| grant.key.provider == *provider) else {
            return Ok(Foreseen { grant: None, token: None, outcome: Err(LeaseError::NoAccount) });
        };
        let token = inner.stored_token(&grant, upstream);
        let outcome = match token {
            Some((freshness, _)) if freshness < Freshness::Expired => Ok(Next::Take),
            _ => inner.could_refresh(&grant, upstream).await,
        };
        Ok(Foreseen { grant: Some(grant), token, outcome })
    }
}

impl Inner {
    fn stored_token(&self, grant: &Grant, upstream: UpstreamId) -> Option<(Freshness, Timestamp)> {
        let lease = self.leases(Some(grant), None).into_iter().nth(upstream.place)??;
        let scope_set = &self.upstreams[upstream.at].scope_set;
        let token = grant.access.iter().find(|token| token.scope_set == *scope_set)?;
        Some((lease.freshness(self.clock.moment()), token.expires))
    }

    async fn could_refresh(&self, grant: &Grant, upstream: UpstreamId) -> Result<Next, LeaseError> {
        may_be_refreshed(&grant.status)?;
        let entry = self.provider(&grant.key.provider)?;
        if let Some(reason) = grant.parked_for(&self.upstreams[upstream.at].scope_set, None) {
            return Err(LeaseError::SigninRequired(reason.clone()));
        }
        let (decision, status) = self.store.would_claim(&grant.key, grant.epoch, grant.version, entry.rotation).await?;
        may_be_refreshed(&status)?;
        match decision {
            Decision::Claimed { .. } | Decision::Busy { .. } | Decision::Stale => Ok(Next::Ask),
            Decision::Backoff { until } => Err(backs_off(until.since(self.clock.now()))),
            Decision::Uncertain => Err(outcome_unknown()),
        }
    }
}
