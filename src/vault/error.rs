//! Why there is no token, and why a sign-in was not stored. The texts hold no secret.

use std::time::Duration;

use super::STATE_MEMORY;
use super::slot::Ended;
use crate::account::Alias;
use crate::claims::Claims;
use crate::store::{Reason, Status, StoreError};

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("there is no such account")]
    NoAccount,
    #[error("the account has to be signed in again: {}", .0.text)]
    SigninRequired(Reason),
    #[error("the grant of this account was revoked")]
    Revoked,
    /// On-behalf-of: the token that the caller brought has expired, or the provider refuses it.
    #[error("the caller's token was refused: {0}")]
    AssertionRefused(String),
    /// On-behalf-of: the provider wants to see the user, and the caller can bring that about; with these claims, if any.
    #[error("the user has to sign in at the calling application again: {text}")]
    Challenge { text: String, claims: Option<Claims> },
    #[error("the provider refuses our own credential: {0}")]
    AppCredential(String),
    #[error("the provider refuses our request: {0}")]
    Misconfigured(String),
    #[error("the provider is unavailable: {text}")]
    ProviderUnavailable { text: String, retry_after: Duration },
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(String),
    #[error("a record of the store is damaged: {0}")]
    Damaged(String),
}

/// Why a sign-in was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("{alias} is the account of somebody else; this sign-in was made by {username}")]
    SomebodyElse { alias: Alias, username: String },
    #[error("{username} is known here as {alias} already")]
    Known { alias: Alias, username: String },
    #[error("the alias {0} is taken")]
    AliasTaken(Alias),
    #[error("{0:?} can't serve as an alias: ask the operator for a sign-in link")]
    NoAlias(String),
    #[error("the tenant {0} is not named in allowed_tenants")]
    Tenant(String),
    #[error("the provider sent no refresh token")]
    NoRefreshToken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LeaseError {
    /// A failed early refresh never hurts a token that still lives; a revocation does.
    pub(super) fn spares_old_token(&self) -> bool {
        !matches!(self, Self::Revoked | Self::NoAccount)
    }

    pub(super) fn with_retry_after(self, left: Duration) -> Self {
        match self {
            Self::ProviderUnavailable { text, .. } => Self::ProviderUnavailable { text, retry_after: left },
            other => other,
        }
    }
}

impl From<StoreError> for LeaseError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::Damaged(error.to_string()),
            StoreError::Unavailable(why) => Self::StoreUnavailable(why),
            StoreError::AliasTaken(_) | StoreError::Setup { .. } => Self::StoreUnavailable(error.to_string()),
        }
    }
}

impl From<LeaseError> for Ended {
    fn from(error: LeaseError) -> Self {
        let memory = match &error {
            LeaseError::SigninRequired(_) | LeaseError::Revoked => STATE_MEMORY,
            LeaseError::ProviderUnavailable { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        };
        Self::new(error, memory)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        LeaseError::from(error).into()
    }
}

/// Whether a grant of this status has a refresh token to present.
pub(super) fn may_be_refreshed(status: &Status) -> Result<(), LeaseError> {
    match status {
        Status::Revoked => Err(LeaseError::Revoked),
        Status::Reauth(reason) => Err(LeaseError::SigninRequired(reason.clone())),
        Status::Active | Status::Uncertain => Ok(()),
    }
}

pub(super) fn backs_off(retry_after: Duration) -> LeaseError {
    let text = "an earlier refresh failed; the next one is not due yet".into();
    LeaseError::ProviderUnavailable { text, retry_after }
}

pub(super) fn outcome_unknown() -> LeaseError {
    let text = "the outcome of the last refresh is unknown; it is not repeated at a provider that punishes that".into();
    LeaseError::ProviderUnavailable { text, retry_after: Duration::from_secs(5) }
}
