//! A provider as the vault goes by it: its rules, its gate, our own credential there, and what an exchange with it brought.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::LeaseError;
use super::gate::Gate;
use super::slot::Ended;
use crate::claims::Claims;
use crate::clock::{Moment, Timestamp};
use crate::config::{self, ProviderKind, Rotation, TokenRequests};
use crate::oauth::{Class, Provider, TokenError, TokenReply};
use crate::store::AccessToken;
use crate::traces::{self, Context, Ended as Step, Value};

/// A wrong credential of ours is tried again after this time, once for the provider and not once an account.
const CREDENTIAL_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct ProviderEntry {
    pub(super) provider: Provider,
    pub(super) rotation: Rotation,
    pub(super) allowed_tenants: Vec<String>,
    /// Stands in for the tenant in the keys of a generic provider's accounts.
    pub(super) issuer: Option<String>,
    pub(super) gate: Gate,
    pub(super) token_requests: TokenRequests,
    /// A refresh token that nobody uses for this long lapses.
    pub(super) idle_limit: Option<Duration>,
    /// Our own credential was refused: nothing is presented until then.
    refusal: Mutex<Option<(Moment, LeaseError)>>,
}

impl ProviderEntry {
    pub(super) fn new(provider: Provider, config: &config::Provider, gate: Gate) -> Self {
        Self {
            provider,
            rotation: config.rotation,
            allowed_tenants: config.allowed_tenants.clone(),
            issuer: match &config.kind {
                ProviderKind::Oidc { issuer } => Some(issuer.as_str().trim_end_matches('/').to_owned()),
                ProviderKind::Entra { .. } => None,
            },
            gate,
            token_requests: config.token_requests,
            idle_limit: config.idle_limit,
            refusal: Mutex::default(),
        }
    }

    pub(super) fn refused(&self, now: Moment) -> Result<(), Ended> {
        match &*self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((until, error)) if *until > now => Err(Ended::new(error.clone(), until.since(now))),
            _ => Ok(()),
        }
    }

    /// The provider refuses our own credential.
    pub(super) fn refuse(&self, text: String, now: Moment) -> Ended {
        let error = LeaseError::AppCredential(text);
        let refusal = Some((now.plus(CREDENTIAL_PAUSE), error.clone()));
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        Ended::new(error, CREDENTIAL_PAUSE)
    }
}

/// What a reply of the token endpoint brings for these scopes; `claims`: the challenge that it was asked with.
pub(super) fn access_token(
    reply: &TokenReply,
    scope_set: String,
    claims: Option<Claims>,
    now: Timestamp,
) -> AccessToken {
    AccessToken {
        scope_set,
        token: reply.access_token.clone(),
        expires: now.plus(reply.expires_in),
        obtained: now,
        refresh_after: reply.refresh_in.map(|wait| now.plus(wait)),
        claims,
    }
}

/// What a request to the token endpoint was, for whoever's trace it is.
pub(super) fn trace_exchange(
    span: Option<&Context>,
    provider: &str,
    grant: &'static str,
    began: Moment,
    outcome: &Result<TokenReply, TokenError>,
) {
    let Some(span) = span else { return };
    let attributes = vec![("bearerd.provider", Value::cut(provider)), ("bearerd.grant_type", Value::Word(grant))];
    let error = outcome.as_ref().err().map(|error| Value::Word(outcome_name(error.class)));
    span.ended("refresh", traces::Kind::Client, began, Step { attributes, error, message: None });
}

/// The value of `outcome` in the metric.
pub(super) fn outcome_name(class: Class) -> &'static str {
    match class {
        Class::Dead => "dead",
        Class::Interact => "interact",
        Class::User => "user",
        Class::Assertion => "assertion",
        Class::AppCredential => "app_credential",
        Class::Config => "config",
        Class::Backoff => "backoff",
        Class::Retry => "retry",
    }
}
