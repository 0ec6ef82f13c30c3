//! Access tokens: opaque for other resources, JWTs for the application itself; alive until their time is over or they are revoked.
//!
//! A revocation of a user's tokens stays in force for clients that understand claims challenges until a token
//! was minted with the challenge's `nbf`, or by a sign-in: what is minted later without it is born revoked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{ACCESS_TOKEN_LENGTH, FORGOTTEN_AFTER, Tokens, name, number};
use crate::clock::Timestamp;
use crate::sandbox::asked::AskedClaims;
use crate::sandbox::fault::Denial;
use crate::sandbox::{read, written};

/// An access token that was issued.
#[derive(Debug)]
pub struct AccessToken {
    pub id: u64,
    /// The alias of its user; `app` for the application itself.
    pub user: Arc<str>,
    pub scope: Arc<str>,
    pub audience: Arc<str>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// The client said that it understands claims challenges (`xms_cc` has `cp1`).
    pub challengeable: bool,
    /// What it was minted with.
    pub claims: AskedClaims,
    pub(in crate::sandbox) text: Arc<str>,
    /// When it was revoked, in milliseconds; 0: it was not.
    revoked_at: AtomicI64,
}

/// What an access token is issued for.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct AccessGrant {
    pub user: Arc<str>,
    pub scope: Arc<str>,
    pub audience: Arc<str>,
    pub life: Duration,
    pub claims: AskedClaims,
    /// The token itself, where it says something.
    pub jwt: Option<String>,
    /// Somebody signed in for it.
    pub interactive: bool,
    /// Whether a revocation wants its `nbf` in the claims.
    pub demand_claims: bool,
}

#[derive(Default)]
pub(super) struct Issued {
    by_id: HashMap<u64, Arc<AccessToken>>,
    jwts: HashMap<Arc<str>, u64>,
    /// At so many tokens the long expired ones are swept out.
    sweep_at: usize,
    /// When each user's tokens were revoked last, as long as no client has answered to it.
    unanswered: HashMap<Arc<str>, Timestamp>,
}

impl AccessToken {
    pub fn revoked(&self) -> bool {
        self.revoked_at().is_some()
    }

    pub fn revoked_at(&self) -> Option<Timestamp> {
        Some(self.revoked_at.load(Ordering::Acquire)).filter(|millis| *millis != 0).map(Timestamp::from_millis)
    }
}

impl Tokens {
    /// The access token with this text, if Graph (known under `audiences`) may accept it now.
    pub(in crate::sandbox) fn check(
        &self,
        text: &str,
        now: Timestamp,
        audiences: &[String],
    ) -> Result<Arc<AccessToken>, (Denial, Option<Arc<AccessToken>>)> {
        let token = self.access_token(text).ok_or((Denial::Malformed, None))?;
        let denial = if !audiences.iter().any(|audience| **audience == *token.audience) {
            Denial::Audience
        } else if token.expires_at <= now {
            Denial::Expired
        } else if token.revoked() {
            Denial::Revoked
        } else {
            return Ok(token);
        };
        Err((denial, Some(token)))
    }

    /// Everything known of this access token.
    pub fn access_token(&self, text: &str) -> Option<Arc<AccessToken>> {
        let issued = read(&self.0.access);
        let id = number(text, "at_").or_else(|| issued.jwts.get(text).copied())?;
        issued.by_id.get(&id).filter(|token| *token.text == *text).cloned()
    }

    pub(in crate::sandbox) fn issue_access(&self, grant: AccessGrant, now: Timestamp) -> Arc<AccessToken> {
        let id = self.next();
        let mut issued = written(&self.0.access);
        let revocation = issued.unanswered.get(&grant.user).copied();
        let answered = revocation.is_some_and(|at| grant.interactive || grant.claims.not_before() >= Some(at.secs()));
        if answered {
            issued.unanswered.remove(&grant.user);
        }
        let challengeable = grant.claims.cp1();
        let born_revoked = revocation.filter(|_| !answered && challengeable && grant.demand_claims);
        let is_jwt = grant.jwt.is_some();
        let token = Arc::new(AccessToken {
            id,
            user: grant.user,
            scope: grant.scope,
            audience: grant.audience,
            issued_at: now,
            expires_at: now.plus(grant.life),
            challengeable,
            claims: grant.claims,
            text: grant.jwt.map_or_else(|| name("at_", id, ACCESS_TOKEN_LENGTH), Into::into),
            revoked_at: AtomicI64::new(born_revoked.map_or(0, instant)),
        });
        issued.sweep(now);
        if is_jwt {
            issued.jwts.insert(Arc::clone(&token.text), id);
        }
        issued.by_id.insert(id, Arc::clone(&token));
        token
    }

    pub(in crate::sandbox) fn revoke_access(&self, user: &str, now: Timestamp) {
        let mut issued = written(&self.0.access);
        let mut challengeable = false;
        for token in issued.by_id.values().filter(|token| *token.user == *user) {
            token.revoked_at.fetch_max(instant(now), Ordering::AcqRel);
            challengeable |= token.challengeable;
        }
        // Nobody else is told of it by a challenge.
        if challengeable {
            issued.unanswered.insert(user.into(), now);
        }
    }

    /// All access tokens of a user that are not swept out, oldest first.
    pub fn access_tokens(&self, user: &str) -> Vec<Arc<AccessToken>> {
        let mut tokens: Vec<_> =
            read(&self.0.access).by_id.values().filter(|token| *token.user == *user).cloned().collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }
}

impl Issued {
    fn sweep(&mut self, now: Timestamp) {
        if self.by_id.len() < self.sweep_at {
            return;
        }
        self.by_id.retain(|_, token| token.expires_at.plus(FORGOTTEN_AFTER) > now);
        let alive = &self.by_id;
        self.jwts.retain(|_, id| alive.contains_key(id));
        self.sweep_at = (2 * self.by_id.len()).max(8192);
    }
}

fn instant(at: Timestamp) -> i64 {
    at.millis().max(1)
}
