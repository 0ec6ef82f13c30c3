//! One trip to the store, and to the provider where it must be: how a token that somebody wants is obtained.
//!
//! A flight is detached: whoever waits for it may hang up, the rotation goes on. It follows the refresh protocol: claim, send guard,
//! commit by lineage; the new refresh token is durable before the new access token is used. Nothing else in the
//! program presents a refresh token of the store.

use std::sync::Arc;
use std::time::Duration;

use super::lease::Lease;
use super::slot::{Slot, Source, Turn, Want};
use super::timing::{Timing, backoff, timing, worth_a_second_try};
use super::{Inner, LeaseError, ProviderEntry};
use crate::clock::Moment;
use crate::config::Rotation;
use crate::fault;
use crate::oauth::{Class, Delivery, TokenError, TokenReply};
use crate::secret::Secret;
use crate::store::{
    AccessToken, Claim, Commit, Committed, Failed, Failure, FailureKind, Fingerprint, Grant, Reason, Refusal, Status,
    StoreError,
};

/// How often a flight reads the store again because others were faster, or waits for their refresh to end.
const ROUNDS: usize = 40;
/// How long it waits for the refresh of another process before it looks again.
const POLL: Duration = Duration::from_millis(250);
/// A wrong credential of ours is tried again after this time, once for the provider and not once an account.
const CREDENTIAL_PAUSE: Duration = Duration::from_secs(10);
/// How long "needs sign-in" is answered without asking the store again; a change of the grant ends it at once.
const STATE_MEMORY: Duration = Duration::from_secs(5);
/// How long a failure that the store doesn't take is offered to it.
const FAIL_PATIENCE: Duration = Duration::from_secs(30);
/// After a refresh that brought nothing of use.
const POINTLESS: Duration = Duration::from_secs(5);

pub(super) struct Flight {
    pub(super) vault: Arc<Inner>,
    pub(super) slot: Arc<Slot>,
    pub(super) upstream: usize,
    pub(super) want: Want,
    /// Ask the provider even if the grant waits for interaction or backs off: the operator's word.
    pub(super) forced: bool,
}

/// How one round of a flight went on.
enum Round {
    /// The store has to be read again.
    Again,
    /// It has, and there is a new token in it.
    Stored,
}

/// How a flight ended without a token, and how long that is the answer for everybody who asks.
pub(super) struct Ended {
    pub(super) error: LeaseError,
    pub(super) memory: Duration,
}

/// The claim under which a refresh token is presented.
struct Presentation {
    epoch: u64,
    fence: u64,
    fingerprint: Fingerprint,
    refresh_token: Secret<String>,
    claimed_at: Moment,
}

impl Presentation {
    fn failed(&self, grant: &Grant, kind: FailureKind) -> Failure {
        Failure { key: grant.key.clone(), epoch: self.epoch, presented: self.fingerprint, fence: self.fence, kind }
    }
}

impl Flight {
    pub(super) async fn run(self) -> Result<Arc<Lease>, LeaseError> {
        let mut turn = self.slot.turn();
        let result = self.fetch(&mut turn).await;
        result.map_err(|Ended { error, memory }| {
            if !memory.is_zero() {
                self.slot.share_failure(turn, &error, self.vault.clock.moment().plus(memory));
            }
            error
        })
    }

    async fn fetch(&self, turn: &mut Turn) -> Result<Arc<Lease>, Ended> {
        let mut stored = false;
        for _ in 0..ROUNDS {
            *turn = self.slot.turn();
            let grant = self.vault.store.find(self.slot.alias.as_str()).await?;
            let Some(heard) = self.slot.follow(*turn, self.vault.leases(grant.as_ref()), Source::Flight) else {
                continue;
            };
            *turn = heard;
            let upstream = &self.vault.upstreams[self.upstream];
            let Some(grant) = grant.filter(|grant| grant.key.provider == upstream.provider) else {
                return Err(LeaseError::NoAccount.into());
            };
            let now = self.vault.clock.moment();
            if let Some(lease) = self.slot.lease(self.upstream).filter(|lease| self.want.accepts(lease, now)) {
                return Ok(lease);
            }
            match grant.status {
                Status::Revoked => return Err(LeaseError::Revoked.into()),
                Status::Reauth(reason) if reason.dead || !self.forced => {
                    return Err(LeaseError::SigninRequired(reason).into());
                }
                Status::Reauth(_) | Status::Active | Status::Uncertain => {}
            }
            if stored {
                let text = "the provider's tokens are dead on arrival".into();
                return Err(LeaseError::ProviderUnavailable { text, retry_after: POINTLESS }.into());
            }
            match self.claim_and_present(&grant).await? {
                Round::Stored => stored = true,
                Round::Again => {}
            }
        }
        let text = "another process holds the refresh of this account".into();
        Err(LeaseError::ProviderUnavailable { text, retry_after: Duration::from_secs(1) }.into())
    }

    async fn claim_and_present(&self, grant: &Grant) -> Result<Round, Ended> {
        let entry = self.vault.provider_of(grant)?;
        entry.refused(self.vault.clock.moment())?;
        let timing = timing(entry.rotation);
        let claimed_at = self.vault.clock.moment();
        fault::point("fp01");
        let claim = if self.forced {
            self.vault.store.claim_forced(&grant.key, grant.epoch, grant.version, timing.lease, timing.rotation).await?
        } else {
            self.vault.store.claim(&grant.key, grant.epoch, grant.version, timing.lease, timing.rotation).await?
        };
        match claim {
            Claim::Claimed { fence, refresh_token, fingerprint, took_over, last_resort } => {
                if took_over || last_resort {
                    tracing::warn!(account = %grant.alias, took_over, last_resort, "presenting a refresh token again after an unfinished refresh");
                }
                let presentation = Presentation { epoch: grant.epoch, fence, fingerprint, refresh_token, claimed_at };
                self.present(grant, entry, timing, presentation).await
            }
            Claim::Uncertain => self.settle(grant).await,
            Claim::Busy { .. } => {
                tokio::time::sleep(POLL).await;
                Ok(Round::Again)
            }
            Claim::Backoff { until } => Err(LeaseError::ProviderUnavailable {
                text: "an earlier refresh failed; the next one is not due yet".into(),
                retry_after: until.since(self.vault.clock.now()),
            }
            .into()),
            Claim::Stale | Claim::Missing => Ok(Round::Again),
        }
    }

    async fn present(
        &self,
        grant: &Grant,
        entry: &ProviderEntry,
        timing: Timing,
        presentation: Presentation,
    ) -> Result<Round, Ended> {
        fault::point("fp03");
        let late = || self.vault.clock.moment().since(presentation.claimed_at) >= timing.send_before;
        if late() {
            // The process was held up. Others may take the claim over now, so this one is given back and nothing is sent.
            self.fail_with_patience(presentation.failed(grant, FailureKind::Untried), timing.rotation).await?;
            return Ok(Round::Again);
        }
        let scopes = &self.vault.upstreams[self.upstream].scopes;
        let mut attempt = 1;
        let started = self.vault.clock.moment();
        let outcome = loop {
            let _counted = self.vault.metrics.token_request();
            let outcome =
                entry.provider.refresh(&presentation.refresh_token, &grant.key, scopes, None, timing.exchange).await;
            match &outcome {
                Err(error) if attempt == 1 && worth_a_second_try(error, timing.rotation) && !late() => attempt += 1,
                _ => break outcome,
            }
        };
        fault::point("fp06");
        let took = self.vault.clock.moment().since(started);
        match outcome {
            Ok(reply) => {
                self.vault.note_refresh(grant, "ok", took);
                self.commit(grant, timing, &presentation, reply).await
            }
            Err(error) => {
                self.vault.note_refresh(grant, outcome_name(error.class), took);
                self.fail(grant, entry, timing, &presentation, error).await
            }
        }
    }

    async fn commit(
        &self,
        grant: &Grant,
        timing: Timing,
        presentation: &Presentation,
        reply: TokenReply,
    ) -> Result<Round, Ended> {
        fault::point("fp07");
        let now = self.vault.clock.now();
        let commit = Commit {
            key: grant.key.clone(),
            epoch: presentation.epoch,
            parent: presentation.fingerprint,
            fence: presentation.fence,
            refresh_token: reply.refresh_token,
            access: AccessToken {
                scope_set: self.vault.upstreams[self.upstream].scope_set.clone(),
                token: reply.access_token,
                expires: now.plus(reply.expires_in),
                obtained: now,
            },
            scopes: reply.scopes,
            grace: match timing.rotation {
                Rotation::Grace(grace) => grace,
                Rotation::Strict | Rotation::Tolerant => Duration::ZERO,
            },
        };
        let committed = self.commit_at_all_costs(commit).await?;
        fault::point("fp09");
        match committed {
            Committed::Stored { version } | Committed::Already { version } => {
                tracing::info!(account = %grant.alias, id = %grant.key.id(), version, "refreshed");
                fault::point("fp10");
                Ok(Round::Stored)
            }
            Committed::Refused(Refusal::Epoch | Refusal::Revoked | Refusal::Missing) => {
                tracing::info!(account = %grant.alias, "the grant was revoked or renewed during its refresh; the answer was dropped");
                Ok(Round::Again)
            }
            Committed::Refused(Refusal::Lineage) => {
                tracing::warn!(account = %grant.alias, "somebody else had refreshed; the answer was dropped");
                Ok(Round::Again)
            }
        }
    }

    /// The answer holds the only valid successor: as long as this process lives, it is not given up.
    async fn commit_at_all_costs(&self, commit: Commit) -> Result<Committed, StoreError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.vault.store.commit(commit.clone()).await {
                Err(StoreError::Unavailable(why)) => {
                    tracing::error!(id = %commit.key.id(), why, "a refreshed token can't be stored yet; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                other => return other,
            }
        }
    }

    async fn fail(
        &self,
        grant: &Grant,
        entry: &ProviderEntry,
        timing: Timing,
        presentation: &Presentation,
        error: TokenError,
    ) -> Result<Round, Ended> {
        let backoff = backoff(grant.fail_count, error.retry_after, self.vault.clock.now().millis().unsigned_abs());
        let kind = match (error.class, error.delivery) {
            (Class::Dead, _) => {
                FailureKind::Final { dead: true, text: error.text.clone(), claims: error.claims.clone() }
            }
            (Class::Interact | Class::User, _) => {
                FailureKind::Final { dead: false, text: error.text.clone(), claims: error.claims.clone() }
            }
            (Class::AppCredential, _) => FailureKind::Untried,
            (_, Delivery::Unknown) => FailureKind::Unknown { backoff },
            (_, Delivery::NotSent | Delivery::Answered) => FailureKind::Transient { backoff },
        };
        let failure = presentation.failed(grant, kind);
        tracing::warn!(account = %grant.alias, id = %grant.key.id(), class = ?error.class, text = error.text, "refresh failed");
        tracing::info!(target: "bearerd::audit", event = "refresh_failed", account = %grant.alias, id = %grant.key.id(), class = ?error.class, reason = error.text);
        if self.fail_with_patience(failure, timing.rotation).await? == Failed::Ignored {
            tracing::info!(account = %grant.alias, "the failure came too late to count: the grant has changed since");
            return Ok(Round::Again);
        }
        let now = self.vault.clock.now();
        let ended = match error.class {
            Class::Dead | Class::Interact | Class::User => LeaseError::SigninRequired(Reason {
                dead: error.class == Class::Dead,
                text: error.text,
                claims: error.claims,
                since: now,
            })
            .into(),
            Class::AppCredential => {
                let refused = LeaseError::AppCredential(error.text);
                entry.refuse(&refused, self.vault.clock.moment().plus(CREDENTIAL_PAUSE));
                Ended { error: refused, memory: CREDENTIAL_PAUSE }
            }
            Class::Config => Ended { error: LeaseError::Misconfigured(error.text), memory: backoff },
            Class::Backoff | Class::Retry => {
                LeaseError::ProviderUnavailable { text: error.text, retry_after: backoff }.into()
            }
        };
        Err(ended)
    }

    /// A failure that isn't stored leaves an intent behind, and at a strict provider an account in doubt: worth some patience.
    async fn fail_with_patience(&self, failure: Failure, rotation: Rotation) -> Result<Failed, StoreError> {
        let mut pause = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        loop {
            match self.vault.store.fail(failure.clone(), rotation).await {
                Err(StoreError::Unavailable(why)) if waited < FAIL_PATIENCE => {
                    tracing::error!(id = %failure.key.id(), why, "a failed refresh can't be stored yet; trying again");
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                other => return other,
            }
        }
    }

    /// Strict: an earlier presentation is in doubt. A late commit may still mend it; otherwise the state says so.
    async fn settle(&self, grant: &Grant) -> Result<Round, Ended> {
        match self.vault.store.settle(&grant.key, grant.epoch).await? {
            Some(Status::Active | Status::Revoked | Status::Reauth(_)) | None => Ok(Round::Again),
            Some(Status::Uncertain) => Err(LeaseError::ProviderUnavailable {
                text: "the outcome of the last refresh is unknown; it is not repeated at a provider that punishes that"
                    .into(),
                retry_after: Duration::from_secs(5),
            }
            .into()),
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
        Self { error, memory }
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        LeaseError::from(error).into()
    }
}

fn outcome_name(class: Class) -> &'static str {
    match class {
        Class::Dead => "dead",
        Class::Interact => "interact",
        Class::User => "user",
        Class::AppCredential => "app_credential",
        Class::Config => "config",
        Class::Backoff => "backoff",
        Class::Retry => "retry",
    }
}
