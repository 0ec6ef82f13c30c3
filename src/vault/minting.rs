//! How a token that needs no grant is got: one flight for everybody who waits, past the same gate as the refreshes. Presenting an
//! assertion or our own credential twice does no harm, so there is no claim and nothing is stored.
//!
//! Invariant: an assertion that has expired, or that the provider refused, is an answer for those only who present it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::flight::POINTLESS;
use super::lease::{Lease, Whose};
use super::minted::Cell;
use super::provider::{ProviderEntry, access_token, outcome_name, trace_exchange};
use super::slot::{Ended, Pilot, Source, Want};
use super::timing::{backoff, worth_a_second_try};
use super::{Assertion, Inner, LeaseError, STATE_MEMORY, UpstreamEntry};
use crate::account::AccountKey;
use crate::claims::Claims;
use crate::config::Rotation;
use crate::oauth::{Class, TokenError, TokenReply};
use crate::traces::Context;

/// The whole exchange with the provider.
const EXCHANGE: Duration = Duration::from_secs(8);

pub(super) struct Minting {
    pub(super) vault: Arc<Inner>,
    pub(super) cell: Arc<Cell>,
    pub(super) pilot: Pilot,
    pub(super) upstream: usize,
    /// With an assertion on behalf of its user, without one for the app itself.
    pub(super) want: Want,
    /// The step of whoever started it.
    pub(super) span: Option<Context>,
}

impl Minting {
    pub(super) async fn run(self) {
        let mut result = self.fetch().await;
        let slot = &self.pilot.slot;
        match &mut result {
            Ok(_) => self.cell.failures.store(0, Ordering::Relaxed),
            Err(ended) => {
                slot.share_failure(slot.turn(), self.pilot.place, ended, self.vault.clock.moment());
                self.vault.mark_outdated(ended, slot);
            }
        }
        self.pilot.land(result);
    }

    async fn fetch(&self) -> Result<Arc<Lease>, Ended> {
        let inner = &*self.vault;
        let want = Want { claims: self.pilot.claims(), ..self.want.clone() };
        if let Some(lease) = self.pilot.lease().filter(|lease| want.accepts(lease, inner.clock.moment())) {
            return Ok(lease);
        }
        let upstream = &inner.upstreams[self.upstream];
        let entry = inner.provider(&upstream.provider)?;
        if self.want.assertion.is_none() && upstream.app_scopes.is_empty() {
            let text =
                format!("upstreams.{}.app_scopes is empty: there is nothing to ask for as the app", upstream.name);
            return Err(LeaseError::Misconfigured(text).into());
        }
        entry.refused(inner.clock.moment())?;
        let _pass = entry.gate.admit_flight(&self.pilot.urgency).await?;
        let wanted = self.pilot.seal();
        let now = inner.clock.moment();
        let asked = wanted.clone().map(|wanted| self.pilot.with_what_is_answered(&wanted, now).unwrap_or(wanted));
        if let Some(assertion) = self.expired_assertion() {
            return Err(refused_assertion(assertion, "it has expired".to_owned()));
        }
        match self.exchange(entry, upstream, asked.as_ref()).await {
            Ok(reply) => self.keep(upstream, &reply, asked),
            // It concerns who wanted this: what the token answers already was added by us.
            Err(error) => Err(self.failed(entry, upstream, error, wanted)),
        }
    }

    fn expired_assertion(&self) -> Option<&Arc<Assertion>> {
        let now = self.vault.clock.now();
        self.want.assertion.as_ref().filter(|assertion| assertion.expires <= now)
    }

    async fn exchange(
        &self,
        entry: &ProviderEntry,
        upstream: &UpstreamEntry,
        asked: Option<&Claims>,
    ) -> Result<TokenReply, TokenError> {
        let (provider, started) = (&entry.provider, self.vault.clock.moment());
        let mut attempt = 1;
        let outcome = loop {
            let _counted = self.vault.metrics.token_request();
            let outcome = match &self.want.assertion {
                Some(assertion) => provider.on_behalf_of(&assertion.token, &upstream.scopes, asked, EXCHANGE).await,
                None => provider.client_credentials(&upstream.app_scopes, asked, EXCHANGE).await,
            };
            match &outcome {
                Err(error) if attempt == 1 && worth_a_second_try(error, Rotation::Tolerant) => attempt += 1,
                _ => break outcome,
            }
        };
        let user = self.want.assertion.as_ref().map(|assertion| (&assertion.tenant, &assertion.subject));
        entry.gate.heard(&(self.upstream, user), outcome.as_ref().map(|_| ()));
        let grant = if user.is_some() { "on_behalf_of" } else { "client_credentials" };
        trace_exchange(self.span.as_ref(), &upstream.provider, grant, started, &outcome);
        let name = outcome.as_ref().map_or_else(|error| outcome_name(error.class), |_| "ok");
        self.vault.metrics.refreshed(&upstream.provider, name, self.vault.clock.moment().since(started));
        outcome
    }

    fn keep(&self, upstream: &UpstreamEntry, reply: &TokenReply, asked: Option<Claims>) -> Result<Arc<Lease>, Ended> {
        let (clock, slot) = (&self.vault.clock, &self.pilot.slot);
        let at = clock.read();
        let token = access_token(reply, upstream.scope_set.clone(), asked, at.wall);
        let lease = Lease::new(self.whose(upstream), &token, at).ok_or_else(|| {
            LeaseError::Misconfigured("the provider's access token can't stand in a header".to_owned())
        })?;
        slot.follow(slot.turn(), vec![Some(lease)], Source::Flight);
        let newer = Want { claims: None, ..self.want.clone() };
        self.pilot.lease().filter(|lease| newer.accepts(lease, clock.moment())).ok_or_else(|| {
            // A managed identity keeps its token for hours and hands out the same one: nobody has failed.
            let text =
                "the provider sends the very token that there is already, or one that is dead on arrival".to_owned();
            LeaseError::ProviderUnavailable { text, retry_after: POINTLESS }.into()
        })
    }

    fn whose(&self, upstream: &UpstreamEntry) -> Whose {
        let (tenant, subject) = match &self.want.assertion {
            Some(assertion) => (assertion.tenant.clone(), assertion.subject.clone()),
            None => (String::new(), "app".to_owned()),
        };
        let account = AccountKey { provider: upstream.provider.clone(), tenant, subject };
        Whose { account, epoch: 0, version: self.vault.minted.next_version() }
    }

    fn failed(
        &self,
        entry: &ProviderEntry,
        upstream: &UpstreamEntry,
        error: TokenError,
        asked: Option<Claims>,
    ) -> Ended {
        let whose = if self.want.assertion.is_some() { "on behalf of a user" } else { "for the app" };
        tracing::warn!(upstream = upstream.name, provider = upstream.provider, class = ?error.class, text = error.text, "no token {whose}");
        let pause = || {
            let failures = self.cell.failures.fetch_add(1, Ordering::Relaxed);
            let seed = self.vault.clock.now().millis().unsigned_abs();
            backoff(failures, &error, seed).max(entry.gate.shut_for())
        };
        match (error.class, &self.want.assertion) {
            (Class::AppCredential, _) => entry.refuse(error.text, self.vault.clock.moment()),
            (Class::Backoff | Class::Retry, _) => {
                let retry_after = pause();
                LeaseError::ProviderUnavailable { text: error.text, retry_after }.into()
            }
            (Class::Dead | Class::Assertion, Some(assertion)) => refused_assertion(assertion, error.text),
            (Class::Interact | Class::User, Some(assertion)) => {
                let claims = error.claims.or_else(|| asked.clone());
                let ended = Ended::new(LeaseError::Challenge { text: error.text, claims }, STATE_MEMORY);
                Ended { asked, assertion: Some(Arc::clone(assertion)), ..ended }
            }
            (Class::Dead | Class::Assertion | Class::Interact | Class::User, None) => {
                let memory = pause();
                let text = format!(
                    "{}. This is about the app itself, so no person can help by signing in: Conditional Access for \
                     workload identities forbids it, or an administrator has to consent",
                    error.text
                );
                Ended { asked, ..Ended::new(LeaseError::Misconfigured(text), memory) }
            }
            (Class::Config, _) => {
                let memory = pause();
                Ended { asked, ..Ended::new(LeaseError::Misconfigured(error.text), memory) }
            }
        }
    }
}

fn refused_assertion(assertion: &Arc<Assertion>, text: String) -> Ended {
    let ended = Ended::new(LeaseError::AssertionRefused(text), STATE_MEMORY);
    Ended { assertion: Some(Arc::clone(assertion)), ..ended }
}
