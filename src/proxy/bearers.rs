//! The tokens (JWT) that callers prove themselves with: which client each one makes of its bearer, and for whom it speaks.
//!
//! A token that was found good is known by its digest until it expires: a request that presents it again costs no signature check. What
//! is known is bounded, and only good tokens are in it. A token that is checked is checked on the runtime of slow work, to the end.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::caller::Client;
use super::error::{Kind, Refusal};
use super::limits::Counter;
use crate::clock::{Clock, Timestamp};
use crate::config::Identity;
use crate::oauth::{Verified, Verifier, VerifyError, issuer_of};
use crate::secret::Secret;
use crate::tasks::Tasks;
use crate::vault::Assertion;

/// Tokens that are remembered: those of the last while, and those of the while before.
const REMEMBERED: usize = 2 * GENERATION;
const GENERATION: usize = 8 * 1024;
/// Tokens that are checked at a time; they wait for keys at worst.
const CHECKED: usize = 256;
const OVERLOADED: Duration = Duration::from_secs(1);
const UNAVAILABLE: Duration = Duration::from_secs(5);

/// A token that was found good.
pub struct Bearer {
    pub client: Arc<Client>,
    /// What its account claim says.
    pub account: Option<String>,
    /// What is exchanged, for a client that acts on behalf of the token's user.
    pub assertion: Option<Arc<Assertion>>,
    expires: Timestamp,
}

/// All clients that prove themselves by tokens.
pub struct Bearers {
    verifiers: Vec<(Arc<Verifier>, Arc<Client>)>,
    known: Mutex<Known>,
    checked: Arc<Counter>,
    clock: Clock,
    tasks: Tasks,
}

/// Two generations: when the young one is full, the old one is forgotten and the young one is old. Constant work, and what is in use
/// stays.
#[derive(Default)]
struct Known {
    young: HashMap<[u8; 32], Arc<Bearer>>,
    old: HashMap<[u8; 32], Arc<Bearer>>,
}

impl Bearers {
    pub fn new(verifiers: Vec<(Arc<Verifier>, Arc<Client>)>, clock: Clock, tasks: Tasks) -> Self {
        Self { verifiers, known: Mutex::default(), checked: Arc::new(Counter::new(CHECKED)), clock, tasks }
    }

    /// What checks the tokens of that client, with the keys that it has fetched.
    pub fn verifier(&self, client: &Arc<Client>) -> Option<Arc<Verifier>> {
        let mut verifiers = self.verifiers.iter();
        verifiers.find(|(_, own)| Arc::ptr_eq(own, client)).map(|(verifier, _)| Arc::clone(verifier))
    }

    pub fn are_expected(&self) -> bool {
        !self.verifiers.is_empty()
    }

    /// Whose token it is. `None`: it is none of an issuer that we know. `digest` is the token's SHA-256.
    pub async fn owner(
        self: &Arc<Self>,
        digest: [u8; 32],
        token: &Secret<String>,
    ) -> Result<Option<Arc<Bearer>>, Refusal> {
        if !self.are_expected() {
            return Ok(None);
        }
        if let Some(bearer) = self.known().find(&digest, self.clock.now()) {
            return Ok(Some(bearer));
        }
        let Some(issuer) = issuer_of(token.expose()) else { return Ok(None) };
        if self.verifiers.iter().all(|(verifier, _)| verifier.issuer() != issuer) {
            return Ok(None);
        }
        let overloaded = || Kind::Overloaded.because("too many tokens are being checked").after(OVERLOADED);
        let pass = self.checked.enter().ok_or_else(overloaded)?;
        let (bearers, token) = (Arc::clone(self), token.clone());
        let check = self.tasks.spawn(async move {
            let owner = bearers.check(&issuer, &token).await;
            if let Ok(bearer) = &owner {
                let forgotten = bearers.known().remember(digest, Arc::clone(bearer));
                drop(forgotten);
            }
            drop(pass);
            owner
        });
        match check.await {
            Ok(owner) => owner.map(Some),
            Err(_) => Err(Kind::InternalError.because("a token could not be checked")),
        }
    }

    /// The first client of that issuer whose rules the token keeps. Where its keys can't be had the token is nobody's for now: whose it
    /// is must not depend on what can be reached at the moment.
    async fn check(&self, issuer: &str, token: &Secret<String>) -> Result<Arc<Bearer>, Refusal> {
        let mut refused = String::new();
        for (verifier, client) in self.verifiers.iter().filter(|(verifier, _)| verifier.issuer() == issuer) {
            let why = match verifier.verify(token.expose()).await {
                Ok(verified) if client.identity == Identity::OnBehalfOf && !verified.is_of_a_user() => {
                    "the token was refused: no user stands behind it whom we could act for".to_owned()
                }
                Ok(verified) => return Ok(Arc::new(Bearer::new(client, verified, token))),
                Err(VerifyError::Unavailable(_)) => {
                    return Err(Kind::ProviderUnavailable
                        .because("the keys of the token's issuer can't be had, so the token can't be checked")
                        .after(UNAVAILABLE));
                }
                Err(error @ VerifyError::Refused(_)) => error.to_string(),
            };
            let _ = write!(refused, "{}{why}", if refused.is_empty() { "" } else { "; " });
        }
        Err(Kind::ClientUnauthenticated.because(refused).for_its_token())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bearer {
    fn new(client: &Arc<Client>, verified: Verified, token: &Secret<String>) -> Self {
        let Verified { tenant, subject, name, account, expires, .. } = verified;
        let assertion = (client.identity == Identity::OnBehalfOf).then(|| {
            let token = token.clone();
            Arc::new(Assertion { token, tenant, subject, name, expires })
        });
        Self { client: Arc::clone(client), account, assertion, expires }
    }
}

impl Known {
    fn find(&mut self, digest: &[u8; 32], now: Timestamp) -> Option<Arc<Bearer>> {
        if let Some(bearer) = self.young.get(digest) {
            return (now < bearer.expires).then(|| Arc::clone(bearer));
        }
        let bearer = self.old.get(digest).filter(|bearer| now < bearer.expires).cloned()?;
        // Only one generation's worth of the old ones can be found again before the young one is full.
        if self.young.len() < GENERATION {
            self.young.insert(*digest, Arc::clone(&bearer));
        }
        Some(bearer)
    }

    /// What is forgotten for it is the caller's to drop, without the lock.
    fn remember(&mut self, digest: [u8; 32], bearer: Arc<Bearer>) -> HashMap<[u8; 32], Arc<Bearer>> {
        let mut forgotten = HashMap::new();
        if self.young.len() >= GENERATION {
            forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        }
        self.young.insert(digest, bearer);
        debug_assert!(self.young.len() + self.old.len() <= REMEMBERED, "two generations");
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller::tests::client;
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_what_is_in_use_stays() {
        let client = Arc::new(client(Identity::User, &["alice"]));
        let bearer = |expires| {
            Arc::new(Bearer {
                client: Arc::clone(&client),
                account: None,
                assertion: None,
                expires: Timestamp::from_secs(expires),
            })
        };
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            digest
        };
        let mut known = Known::default();
        known.remember(digest(0), bearer(10));
        known.remember(digest(1), bearer(10));
        let now = Timestamp::from_secs(9);
        for n in 2..5 * GENERATION {
            known.remember(digest(n), bearer(10));
            assert!(known.find(&digest(0), now).is_some(), "asked for all the time, after {n}");
        }
        assert!(known.find(&digest(1), now).is_none(), "never asked for");
        assert!(known.young.len() + known.old.len() <= REMEMBERED);
        assert!(known.find(&digest(0), Timestamp::from_secs(10)).is_none(), "expired");
    }
}
