//! The tokens that the simulated Entra ID has issued, and what became of them. Graph asks here whether it may answer.
//!
//! A refresh token is judged, used up and replaced in one step under one lock: however many present it at once, the counts
//! and the rotation are those of a serial order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::fault::Denial;
use super::{locked, random, read, written};
use crate::clock::Timestamp;

/// What happens to a refresh token when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rotation {
    /// As Entra: a new one each time, the old one stays valid.
    #[default]
    Tolerant,
    /// A new one each time, the old one is dead; using it again revokes everything that descends from the same sign-in.
    Strict,
    /// As `Strict`, but the previous token may be used again for so long, as long as its successor was not used.
    Grace(Duration),
    /// No new one.
    NonRotating,
}

/// An access token that was issued.
#[derive(Debug)]
pub struct AccessToken {
    pub id: u64,
    /// The alias of its user.
    pub user: Arc<str>,
    pub scope: Arc<str>,
    pub audience: Arc<str>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// The client said that it understands claims challenges (`xms_cc` has `cp1`).
    pub challengeable: bool,
    pub(super) text: Arc<str>,
    /// When it was revoked, in milliseconds; 0: it was not.
    revoked_at: AtomicI64,
}

impl AccessToken {
    pub fn revoked(&self) -> bool {
        self.revoked_at().is_some()
    }

    pub fn revoked_at(&self) -> Option<Timestamp> {
        Some(self.revoked_at.load(Ordering::Acquire)).filter(|millis| *millis != 0).map(Timestamp::from_millis)
    }
}

/// What is known of a refresh token.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    pub id: u64,
    pub user: Arc<str>,
    pub scope: Arc<str>,
    /// The sign-in that it descends from.
    pub family: u64,
    pub issued_at: Timestamp,
    pub state: RefreshState,
    /// How often it was presented, and how often that brought tokens.
    pub presented: u32,
    pub redeemed: u32,
    text: Arc<str>,
    children: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshState {
    Active,
    /// Used, and replaced at that time.
    Replaced(Timestamp),
    Revoked,
}

/// Why a refresh token brings nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Revoked,
    /// Used twice under rotation: the family is revoked.
    Reused,
    /// Not used for too long.
    Expired,
}

/// What an access token is issued for.
#[derive(Clone, Debug)]
pub(super) struct AccessGrant {
    pub user: Arc<str>,
    pub scope: Arc<str>,
    pub audience: Arc<str>,
    pub life: Duration,
    pub challengeable: bool,
}

/// How refresh tokens behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub rotation: Rotation,
    pub life: Duration,
}

/// The registry; clones share it.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Registry>);

#[derive(Default)]
struct Registry {
    next: AtomicU64,
    access: RwLock<Issued>,
    refresh: Mutex<HashMap<u64, RefreshToken>>,
}

#[derive(Default)]
struct Issued {
    by_id: HashMap<u64, Arc<AccessToken>>,
    /// At so many tokens the long expired ones are swept out.
    sweep_at: usize,
}

/// As long as Graph's are in practice.
const ACCESS_TOKEN_LENGTH: usize = 2048;
const REFRESH_TOKEN_LENGTH: usize = 1200;
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

impl Tokens {
    /// The access token with this text, if Graph (known under `audiences`) may accept it now.
    pub(super) fn check(
        &self,
        text: &str,
        now: Timestamp,
        audiences: &[String],
    ) -> Result<Arc<AccessToken>, (Denial, Option<Arc<AccessToken>>)> {
        let token = number(text, "at_")
            .and_then(|id| read(&self.0.access).by_id.get(&id).cloned())
            .filter(|token| *token.text == *text)
            .ok_or((Denial::Malformed, None))?;
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

    pub(super) fn issue_access(&self, grant: AccessGrant, now: Timestamp) -> Arc<AccessToken> {
        let id = self.next();
        let token = Arc::new(AccessToken {
            id,
            user: grant.user,
            scope: grant.scope,
            audience: grant.audience,
            issued_at: now,
            expires_at: now.plus(grant.life),
            challengeable: grant.challengeable,
            text: name("at_", id, ACCESS_TOKEN_LENGTH),
            revoked_at: AtomicI64::new(0),
        });
        let mut issued = written(&self.0.access);
        if issued.by_id.len() >= issued.sweep_at {
            issued.by_id.retain(|_, token| token.expires_at.plus(FORGOTTEN_AFTER) > now);
            issued.sweep_at = (2 * issued.by_id.len()).max(8192);
        }
        issued.by_id.insert(id, Arc::clone(&token));
        token
    }

    /// A refresh token of a new sign-in.
    pub(super) fn issue_refresh(&self, user: &Arc<str>, scope: &Arc<str>, now: Timestamp) -> Arc<str> {
        let family = self.next();
        self.add_refresh(&mut locked(&self.0.refresh), user, scope, family, now)
    }

    /// Whose refresh token this is, whatever its state.
    pub(super) fn owner(&self, text: &str) -> Option<RefreshToken> {
        find(&mut locked(&self.0.refresh), text).map(|token| token.clone())
    }

    /// Counts a presentation; says how many there were.
    pub(super) fn presented(&self, text: &str) -> u32 {
        find(&mut locked(&self.0.refresh), text).map_or(0, |token| {
            token.presented += 1;
            token.presented
        })
    }

    /// Judges, uses up and replaces a refresh token. `replace`: whether the answer has room for a new one, which
    /// is what comes back.
    pub(super) fn redeem(
        &self,
        text: &str,
        replace: bool,
        policy: Policy,
        now: Timestamp,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let mut all = locked(&self.0.refresh);
        let token = find(&mut all, text).ok_or(Refusal::Unknown)?.clone();
        match (token.state, policy.rotation) {
            (RefreshState::Revoked, _) => return Err(Refusal::Revoked),
            (RefreshState::Replaced(at), Rotation::Grace(grace))
                if now.since(at) <= grace && token.children.iter().all(|child| unused(&all, *child)) => {}
            (RefreshState::Replaced(_), Rotation::Strict | Rotation::Grace(_)) => {
                all.values_mut()
                    .filter(|other| other.family == token.family)
                    .for_each(|other| other.state = RefreshState::Revoked);
                return Err(Refusal::Reused);
            }
            _ if now.since(token.issued_at) >= policy.life => return Err(Refusal::Expired),
            _ => {}
        }
        let replace = replace && policy.rotation != Rotation::NonRotating;
        let successor = replace.then(|| self.add_refresh(&mut all, &token.user, &token.scope, token.family, now));
        let child = successor.as_deref().and_then(|text| number(text, "rt_"));
        if let Some(token) = all.get_mut(&token.id) {
            token.redeemed += 1;
            token.children.extend(child);
            let uses_up = matches!(policy.rotation, Rotation::Strict | Rotation::Grace(_));
            if uses_up && replace && token.state == RefreshState::Active {
                token.state = RefreshState::Replaced(now);
            }
            if !replace {
                // Use prolongs the life of a token that stays.
                token.issued_at = now;
            }
        }
        Ok(successor)
    }

    pub(super) fn revoke_access(&self, user: &str, now: Timestamp) {
        for token in read(&self.0.access).by_id.values().filter(|token| *token.user == *user) {
            let _ = token.revoked_at.compare_exchange(0, now.millis().max(1), Ordering::AcqRel, Ordering::Acquire);
        }
    }

    pub(super) fn revoke_refresh(&self, user: &str) {
        let mut all = locked(&self.0.refresh);
        all.values_mut().filter(|token| *token.user == *user).for_each(|token| token.state = RefreshState::Revoked);
    }

    /// Everything known of this refresh token.
    pub fn refresh_token(&self, text: &str) -> Option<RefreshToken> {
        self.owner(text)
    }

    /// All refresh tokens of a user, oldest first.
    pub fn refresh_tokens(&self, user: &str) -> Vec<RefreshToken> {
        let mut tokens: Vec<_> =
            locked(&self.0.refresh).values().filter(|token| *token.user == *user).cloned().collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }

    /// All access tokens of a user that are not swept out, oldest first.
    pub fn access_tokens(&self, user: &str) -> Vec<Arc<AccessToken>> {
        let mut tokens: Vec<_> =
            read(&self.0.access).by_id.values().filter(|token| *token.user == *user).cloned().collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }

    fn add_refresh(
        &self,
        all: &mut HashMap<u64, RefreshToken>,
        user: &Arc<str>,
        scope: &Arc<str>,
        family: u64,
        now: Timestamp,
    ) -> Arc<str> {
        let id = self.next();
        let text = name("rt_", id, REFRESH_TOKEN_LENGTH);
        let token = RefreshToken {
            id,
            user: Arc::clone(user),
            scope: Arc::clone(scope),
            family,
            issued_at: now,
            state: RefreshState::Active,
            presented: 0,
            redeemed: 0,
            text: Arc::clone(&text),
            children: Vec::new(),
        };
        all.insert(id, token);
        text
    }

    fn next(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn find<'a>(all: &'a mut HashMap<u64, RefreshToken>, text: &str) -> Option<&'a mut RefreshToken> {
    let id = number(text, "rt_")?;
    all.get_mut(&id).filter(|token| *token.text == *text)
}

fn unused(all: &HashMap<u64, RefreshToken>, id: u64) -> bool {
    all.get(&id).is_none_or(|token| token.redeemed == 0)
}

/// A token's text begins with its number, which may be shown; the rest is the secret.
fn name(prefix: &str, id: u64, length: usize) -> Arc<str> {
    let head = format!("{prefix}{id:012}_");
    let secret = random::text(length - head.len());
    (head + &secret).into()
}

fn number(text: &str, prefix: &str) -> Option<u64> {
    text.strip_prefix(prefix)?.get(..12)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn policy(rotation: Rotation) -> Policy {
        Policy { rotation, life: Duration::from_hours(24) }
    }

    fn first(tokens: &Tokens) -> Arc<str> {
        tokens.issue_refresh(&"alice".into(), &"Mail.Read".into(), NOW)
    }

    #[test]
    fn strict_rotation_revokes_the_family_on_reuse() {
        let tokens = Tokens::default();
        let (one, other) = (first(&tokens), first(&tokens));
        let strict = policy(Rotation::Strict);
        let two = tokens.redeem(&one, true, strict, NOW).unwrap().unwrap();
        assert_eq!(tokens.redeem(&one, true, strict, NOW).unwrap_err(), Refusal::Reused);
        assert_eq!(tokens.redeem(&two, true, strict, NOW).unwrap_err(), Refusal::Revoked);
        assert!(tokens.redeem(&other, true, strict, NOW).is_ok(), "another sign-in lives on");
    }

    #[test]
    fn grace_accepts_the_previous_token_only() {
        let tokens = Tokens::default();
        let grace = policy(Rotation::Grace(Duration::from_secs(30)));
        let one = first(&tokens);
        let two = tokens.redeem(&one, true, grace, NOW).unwrap().unwrap();
        assert!(tokens.redeem(&one, true, grace, NOW.plus(Duration::from_secs(30))).is_ok());
        assert!(tokens.redeem(&two, true, grace, NOW).is_ok());
        assert_eq!(tokens.redeem(&one, true, grace, NOW).unwrap_err(), Refusal::Reused);
        let late = first(&tokens);
        tokens.redeem(&late, true, grace, NOW).unwrap();
        assert_eq!(tokens.redeem(&late, true, grace, NOW.plus(Duration::from_secs(31))).unwrap_err(), Refusal::Reused);
    }

    #[test]
    fn tolerant_and_non_rotating_tokens_stay() {
        let tokens = Tokens::default();
        let one = first(&tokens);
        assert!(tokens.redeem(&one, true, policy(Rotation::Tolerant), NOW).unwrap().is_some());
        assert!(tokens.redeem(&one, true, policy(Rotation::Tolerant), NOW).unwrap().is_some());
        assert!(tokens.redeem(&one, true, policy(Rotation::NonRotating), NOW).unwrap().is_none());
        assert_eq!(tokens.refresh_token(&one).unwrap().redeemed, 3);
    }
}
