//! One trip to the store, and to the provider where it must be: how a token that somebody wants is obtained.
//!
//! A flight is detached: whoever waits for it may hang up, the rotation goes on. It follows the refresh protocol: claim, send guard,
//! commit by lineage; the new refresh token is durable before the new access token is used. Nothing else in the
//! program presents a refresh token of the store.

use std::sync::Arc;
use std::time::Duration;

use super::error::{backs_off, may_be_refreshed, outcome_unknown};
use super::lease::{Lease, Witness};
use super::provider::{ProviderEntry, access_token, outcome_name, trace_exchange};
use super::slot::{Ended, Pilot, Source, Turn, Want};
use super::timing::{Timing, backoff, timing, worth_a_second_try};
use super::{Inner, LeaseError};
use crate::account::Alias;
use crate::claims::Claims;
use crate::clock::Moment;
use crate::config::Rotation;
use crate::fault;
use crate::oauth::{Class, Delivery, TokenError, TokenReply};
use crate::secret::Secret;
use crate::store::{
    Claim, Commit, Committed, Failed, Failure, FailureKind, Fingerprint, Grant, Reason, Refusal, Status, StoreError,
};
use crate::traces::Context;

/// What the provider refuses for another reason of ours is asked again after this time.
const CONFIG_PAUSE: Duration = Duration::from_secs(10);
/// How often a flight reads the store again because others were faster, or waits for their refresh to end.
const ROUNDS: usize = 40;
/// How long it waits for the refresh of another process before it looks again.
const POLL: Duration = Duration::from_millis(250);
/// How long a failure that the store doesn't take is offered to it.
const FAIL_PATIENCE: Duration = Duration::from_secs(30);
/// After a refresh that brought nothing of use.
pub(super) const POINTLESS: Duration = Duration::from_secs(5);

pub(super) struct Flight {
    pub(super) vault: Arc<Inner>,
    pub(super) alias: Alias,
    pub(super) pilot: Pilot,
    pub(super) upstream: usize,
    /// Of whoever started it; the claims of those who came later are the pilot's to know.
    pub(super) want: Want,
    /// Ask the provider even if the account waits for interaction or backs off: the operator's word.
    pub(super) forced: bool,
    /// The step of whoever started it.
    pub(super) span: Option<Context>,
}

/// How one round of a flight went on.
enum Round {
    /// The store has to be read again.
    Again,
    /// It has, and there is this new token in it.
    Stored(Witness),
}

/// The claim under which a refresh token is presented.
struct Presentation {
    epoch: u64,
    fence: u64,
    fingerprint: Fingerprint,
    refresh_token: Secret<String>,
    claimed_at: Moment,
    /// The claims that go with it.
    asked: Option<Claims>,
    /// It may have been presented before, by a process that died.
    last_resort: bool,
}

impl Presentation {
    fn failed(&self, grant: &Grant, kind: FailureKind) -> Failure {
        Failure { key: grant.key.clone(), epoch: self.epoch, presented: self.fingerprint, fence: self.fence, kind }
    }
}

impl Flight {
    pub(super) async fn run(self) {
        let mut turn = self.pilot.slot.turn();
        let mut result = self.fetch(&mut turn).await;
        if let Err(ended) = &mut result {
            self.pilot.slot.share_failure(turn, self.pilot.place, ended, self.vault.clock.moment());
            self.vault.mark_outdated(ended, &self.pilot.slot);
        }
        let Self { vault, alias, pilot, .. } = self;
        let unknown = matches!(&result, Err(Ended { error: LeaseError::NoAccount, .. }));
        pilot.land(result);
        if unknown {
            vault.forget(&alias);
        }
    }

    async fn fetch(&self, turn: &mut Turn) -> Result<Arc<Lease>, Ended> {
        let mut witness: Option<Witness> = None;
        for _ in 0..ROUNDS {
            *turn = self.pilot.slot.turn();
            let grant = self.vault.store.find(self.alias.as_str()).await?;
            let Some(heard) =
                self.pilot.slot.follow(*turn, self.vault.leases(grant.as_ref(), witness.as_ref()), Source::Flight)
            else {
                continue;
            };
            *turn = heard;
            let upstream = &self.vault.upstreams[self.upstream];
            let Some(grant) = grant.filter(|grant| grant.key.provider == upstream.provider) else {
                return Err(LeaseError::NoAccount.into());
            };
            let now = self.vault.clock.moment();
            let want = Want { claims: self.pilot.claims(), ..self.want.clone() };
            if let Some(lease) = self.pilot.lease().filter(|lease| want.accepts(lease, now)) {
                return Ok(lease);
            }
            may_be_refreshed(&grant.status)?;
            if self.pilot.slot.turn() != *turn {
                // A revocation, perhaps, has come between reading the grant and looking for its lease.
                continue;
            }
            if witness.take().is_some_and(|own| own.grant == (grant.epoch, grant.version)) {
                let text = "the provider's tokens are dead on arrival".into();
                return Err(LeaseError::ProviderUnavailable { text, retry_after: POINTLESS }.into());
            }
            match self.claim_and_present(&grant).await? {
                Round::Stored(stored) => witness = Some(stored),
                Round::Again => {}
            }
        }
        let text = "another process holds the refresh of this account".into();
        Err(LeaseError::ProviderUnavailable { text, retry_after: Duration::from_secs(1) }.into())
    }

    async fn claim_and_present(&self, grant: &Grant) -> Result<Round, Ended> {
        let entry = self.vault.provider(&grant.key.provider)?;
        self.parked(grant, self.pilot.claims())?;
        entry.refused(self.vault.clock.moment())?;
        let _pass = entry.gate.admit_flight(&self.pilot.urgency).await?;
        let asked = self.parked(grant, self.pilot.seal())?;
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
                let presentation = Presentation {
                    epoch: grant.epoch,
                    fence,
                    fingerprint,
                    refresh_token,
                    claimed_at,
                    asked,
                    last_resort,
                };
                self.present(grant, entry, timing, presentation).await
            }
            Claim::Uncertain => self.settle(grant).await,
            Claim::Busy { .. } => {
                tokio::time::sleep(POLL).await;
                Ok(Round::Again)
            }
            Claim::Backoff { until } => Err(backs_off(until.since(self.vault.clock.now())).into()),
            Claim::Stale | Claim::Missing => Ok(Round::Again),
        }
    }

    /// The claims to ask with, unless the grant waits for a sign-in with just these.
    fn parked(&self, grant: &Grant, wanted: Option<Claims>) -> Result<Option<Claims>, Ended> {
        let scope_set = &self.vault.upstreams[self.upstream].scope_set;
        let parked = |asked: Option<&Claims>| grant.parked_for(scope_set, asked).filter(|_| !self.forced);
        let now = self.vault.clock.moment();
        let together = wanted.as_ref().and_then(|wanted| self.pilot.with_what_is_answered(wanted, now));
        if let Some(together) = together.filter(|together| parked(Some(together)).is_none()) {
            return Ok(Some(together));
        }
        match parked(wanted.as_ref()) {
            Some(reason) => {
                let ended = Ended::from(LeaseError::SigninRequired(reason.clone()));
                Err(Ended { asked: wanted, ..ended })
            }
            None => Ok(wanted),
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
            let (token, claims) = (&presentation.refresh_token, presentation.asked.as_ref());
            let outcome = entry.provider.refresh(token, &grant.key, scopes, claims, timing.exchange).await;
            match &outcome {
                Err(error) if attempt == 1 && worth_a_second_try(error, timing.rotation) && !late() => attempt += 1,
                _ => break outcome,
            }
        };
        fault::point("fp06");
        entry.gate.heard(&grant.key, outcome.as_ref().map(|_| ()));
        let took = self.vault.clock.moment().since(started);
        trace_exchange(self.span.as_ref(), &grant.key.provider, "refresh_token", started, &outcome);
        match outcome {
            Ok(reply) => {
                self.vault.metrics.refreshed(&grant.key.provider, "ok", took);
                self.commit(grant, timing, &presentation, reply, took).await
            }
            Err(error) => {
                self.vault.metrics.refreshed(&grant.key.provider, outcome_name(error.class), took);
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
        took: Duration,
    ) -> Result<Round, Ended> {
        fault::point("fp07");
        let at = self.vault.clock.read();
        let scope_set = self.vault.upstreams[self.upstream].scope_set.clone();
        let access = access_token(&reply, scope_set, presentation.asked.clone(), at.wall);
        let commit = Commit {
            key: grant.key.clone(),
            epoch: presentation.epoch,
            parent: presentation.fingerprint,
            fence: presentation.fence,
            access: access.clone(),
            refresh_token: reply.refresh_token,
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
                self.vault.memory.recent.note(&grant.key, at.wall, took);
                fault::point("fp10");
                Ok(Round::Stored(Witness { token: access, at, grant: (presentation.epoch, version) }))
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
        mut error: TokenError,
    ) -> Result<Round, Ended> {
        if presentation.last_resort && error.class == Class::Dead {
            error.text = format!("a refresh was cut off, and afterwards the provider refused: {}", error.text);
        }
        let (asked, seed) = (&presentation.asked, self.vault.clock.now().millis().unsigned_abs());
        // Before the gate opens again there is no use in trying.
        let backoff = backoff(grant.fail_count, &error, seed).max(entry.gate.shut_for());
        let kind = match (error.class, error.delivery) {
            (Class::Dead, _) => FailureKind::Final { text: error.text.clone(), claims: error.claims.clone() },
            (Class::Interact | Class::User | Class::Assertion, _) => FailureKind::Park {
                scope_set: self.vault.upstreams[self.upstream].scope_set.clone(),
                asked: asked.clone(),
                text: error.text.clone(),
                claims: error.claims.clone().or_else(|| asked.clone()),
            },
            // Our own credential, or one upstream's scopes or challenge: that puts off nothing else of the grant.
            (Class::AppCredential, _) | (Class::Config, Delivery::NotSent | Delivery::Answered) => FailureKind::Untried,
            (_, Delivery::Unknown) => FailureKind::Unknown { backoff },
            (_, Delivery::NotSent | Delivery::Answered) => FailureKind::Transient { backoff },
        };
        let failure = presentation.failed(grant, kind);
        tracing::warn!(account = %grant.alias, id = %grant.key.id(), class = ?error.class, text = error.text, "refresh failed");
        self.vault.record_failure(grant, &error);
        if self.fail_with_patience(failure, timing.rotation).await? == Failed::Ignored {
            tracing::info!(account = %grant.alias, "the failure came too late to count: the grant has changed since");
            return Ok(Round::Again);
        }
        Err(self.ended(entry, error, asked.clone(), backoff))
    }

    /// What a failure means to those who wait, and whom of them it concerns.
    fn ended(&self, entry: &ProviderEntry, error: TokenError, asked: Option<Claims>, backoff: Duration) -> Ended {
        let since = self.vault.clock.now();
        match error.class {
            Class::Dead => {
                let reason = Reason { dead: true, text: error.text, claims: error.claims, since };
                LeaseError::SigninRequired(reason).into()
            }
            Class::Interact | Class::User | Class::Assertion => {
                let claims = error.claims.or_else(|| asked.clone());
                let reason = Reason { dead: false, text: error.text, claims, since };
                Ended { asked, ..LeaseError::SigninRequired(reason).into() }
            }
            Class::AppCredential => entry.refuse(error.text, self.vault.clock.moment()),
            Class::Config => {
                let pause = backoff.max(CONFIG_PAUSE);
                Ended { asked, ..Ended::new(LeaseError::Misconfigured(error.text), pause) }
            }
            Class::Backoff | Class::Retry => {
                LeaseError::ProviderUnavailable { text: error.text, retry_after: backoff }.into()
            }
        }
    }

    /// A failure that isn't stored leaves an intent behind, and at a strict provider an account in doubt: worth some patience.
    async fn fail_with_patience(&self, failure: Failure, rotation: Rotation) -> Result<Failed, StoreError> {
        let (mut pause, mut waited) = (Duration::from_millis(100), Duration::ZERO);
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
            Some(Status::Uncertain) => Err(outcome_unknown().into()),
        }
    }
}
