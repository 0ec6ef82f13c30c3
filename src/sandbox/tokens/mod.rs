//! The tokens that the simulated Entra ID has issued, and what became of them. Graph asks here whether it may answer.
//!
//! A refresh token is judged, used up and replaced in one step under one lock: however many present it at once, the counts
//! and the rotation are those of a serial order.

mod access;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::{locked, random};
use crate::clock::Timestamp;

pub(in crate::sandbox) use access::AccessGrant;
pub use access::AccessToken;

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
    /// The authentication contexts that its sign-in satisfied.
    pub contexts: Arc<[String]>,
    text: Arc<str>,
    children: Vec<u64>,
    /// When it was asked for what lately, for the detection of loops.
    recent: VecDeque<(Timestamp, u64)>,
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
pub(in crate::sandbox) enum Refusal {
    Unknown,
    Revoked,
    /// Used twice under rotation: the family is revoked.
    Reused,
    /// Not used for too long.
    Expired,
}

/// What a refresh token stands for.
struct SignIn<'a> {
    user: &'a Arc<str>,
    scope: &'a Arc<str>,
    family: u64,
    contexts: Arc<[String]>,
}

/// How refresh tokens behave.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct Policy {
    pub rotation: Rotation,
    pub life: Duration,
}

/// The registry; clones share it.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Registry>);

#[derive(Default)]
struct Registry {
    next: AtomicU64,
    access: RwLock<access::Issued>,
    refresh: Mutex<HashMap<u64, RefreshToken>>,
}

/// As long as Graph's are in practice.
const ACCESS_TOKEN_LENGTH: usize = 2048;
const REFRESH_TOKEN_LENGTH: usize = 1200;
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
/// Over this time the detection of loops counts.
const LOOP_WINDOW: Duration = Duration::from_mins(5);

impl Tokens {
    /// A refresh token of a new sign-in, which satisfied these authentication contexts.
    pub(in crate::sandbox) fn issue_refresh(
        &self,
        user: &Arc<str>,
        scope: &Arc<str>,
        contexts: Vec<String>,
        now: Timestamp,
    ) -> Arc<str> {
        let sign_in = SignIn { user, scope, family: self.next(), contexts: contexts.into() };
        self.add_refresh(&mut locked(&self.0.refresh), sign_in, now)
    }

    /// Whose refresh token this is, whatever its state.
    pub(in crate::sandbox) fn owner(&self, text: &str) -> Option<RefreshToken> {
        find(&mut locked(&self.0.refresh), text).map(|token| token.clone())
    }

    /// Counts a presentation; says how many there were.
    pub(in crate::sandbox) fn presented(&self, text: &str) -> u32 {
        find(&mut locked(&self.0.refresh), text).map_or(0, |token| {
            token.presented += 1;
            token.presented
        })
    }

    /// Whether this token was presented for this scope more than `limit` times within five minutes, now included.
    pub(in crate::sandbox) fn loops(&self, text: &str, scope: &str, limit: u32, now: Timestamp) -> bool {
        let mut all = locked(&self.0.refresh);
        let Some(token) = find(&mut all, text) else { return false };
        let mut hasher = DefaultHasher::new();
        scope.hash(&mut hasher);
        let scope = hasher.finish();
        token.recent.retain(|(at, _)| now.since(*at) < LOOP_WINDOW);
        token.recent.push_back((now, scope));
        token.recent.iter().filter(|(_, other)| *other == scope).count() > limit as usize
    }

    /// Judges, uses up and replaces a refresh token. `replace`: whether the answer has room for a new one, which
    /// is what comes back.
    pub(in crate::sandbox) fn redeem(
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
        let successor = replace.then(|| {
            let RefreshToken { user, scope, family, contexts, .. } = &token;
            let sign_in = SignIn { user, scope, family: *family, contexts: Arc::clone(contexts) };
            self.add_refresh(&mut all, sign_in, now)
        });
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

    pub(in crate::sandbox) fn revoke_refresh(&self, user: &str) {
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

    fn add_refresh(&self, all: &mut HashMap<u64, RefreshToken>, sign_in: SignIn<'_>, now: Timestamp) -> Arc<str> {
        let id = self.next();
        let text = name("rt_", id, REFRESH_TOKEN_LENGTH);
        let token = RefreshToken {
            id,
            user: Arc::clone(sign_in.user),
            scope: Arc::clone(sign_in.scope),
            family: sign_in.family,
            issued_at: now,
            state: RefreshState::Active,
            presented: 0,
            redeemed: 0,
            contexts: sign_in.contexts,
            text: Arc::clone(&text),
            children: Vec::new(),
            recent: VecDeque::new(),
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
        tokens.issue_refresh(&"alice".into(), &"Mail.Read".into(), Vec::new(), NOW)
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
