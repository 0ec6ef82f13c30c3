//! What a caller sees of the store: grants, and what the steps of the refresh protocol are asked and answer.
//!
//! Invariant: nothing here but `Claim`, `Commit` and `SignIn` carries a refresh token.

use std::time::Duration;

use crate::account::{AccountKey, Alias};
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::secret::Secret;

/// The keyed fingerprint (HMAC-SHA-256) of a refresh token: says which one, never what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub [u8; 32]);

/// What is known of an account's grant. Never holds a refresh token: that leaves by `claim`, or erased by `revoke`.
#[derive(Clone, Debug)]
pub struct Grant {
    pub key: AccountKey,
    pub alias: Alias,
    /// Grows with every sign-in, import, revoke and restore.
    pub epoch: u64,
    /// Grows with every stored change of tokens.
    pub version: u64,
    pub status: Status,
    /// The scopes that were granted, as far as the provider told.
    pub scopes: Vec<String>,
    /// Access tokens, one per scope set. Empty in listings.
    pub access: Vec<AccessToken>,
    /// `preferred_username` or e-mail at the last sign-in: for people to read and as a login hint, never for decisions.
    pub username: Option<String>,
    pub created_at: Timestamp,
    pub signed_in_at: Timestamp,
    pub refreshed_at: Option<Timestamp>,
    /// No refresh before this time.
    pub next_try: Option<Timestamp>,
    pub fail_count: u32,
    /// An intent is open: somebody presents the refresh token right now, or died while doing so.
    pub intent: bool,
    /// What can't be had without a sign-in, though the refresh token lives.
    pub parked: Vec<Parked>,
}

/// A scope set for which the provider wants to see the person, asked with these claims. Other scope sets of the grant go on, and
/// so does the same one without the claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parked {
    pub scope_set: String,
    /// The claims challenge that was presented along; `None`: a plain refresh was refused.
    pub asked: Option<Claims>,
    pub reason: Reason,
}

#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Which scopes it was asked for: `scope_set(&scopes)`.
    pub scope_set: String,
    pub token: Secret<String>,
    pub expires: Timestamp,
    /// When the provider issued it to us.
    pub obtained: Timestamp,
    /// When the provider wants it renewed (`refresh_in`).
    pub refresh_after: Option<Timestamp>,
    /// The claims challenge that it answers.
    pub claims: Option<Claims>,
}

impl Grant {
    /// `active`, `uncertain`, `reauth` (something of it waits for a sign-in) or `revoked`.
    pub fn state(&self) -> &'static str {
        match &self.status {
            Status::Active if !self.parked.is_empty() => "reauth",
            Status::Active => "active",
            Status::Uncertain => "uncertain",
            Status::Reauth(_) => "reauth",
            Status::Revoked => "revoked",
        }
    }

    /// Why a token for this scope set, asked with these claims, waits for a sign-in.
    pub fn parked_for(&self, scope_set: &str, asked: Option<&Claims>) -> Option<&Reason> {
        let same = |parked: &&Parked| {
            parked.scope_set == scope_set
                && match (&parked.asked, asked) {
                    (None, _) => true,
                    (Some(parked), Some(asked)) => asked.covers(parked),
                    (Some(_), None) => false,
                }
        };
        self.parked.iter().find(same).map(|parked| &parked.reason)
    }

    /// Why the grant needs a sign-in, the gravest reason first.
    pub fn reason(&self) -> Option<&Reason> {
        match &self.status {
            Status::Reauth(reason) => Some(reason),
            _ => self.parked.first().map(|parked| &parked.reason),
        }
    }

    /// The claims that the next sign-in has to carry: all that anything waits for.
    pub fn challenge(&self) -> Option<Claims> {
        let status = if let Status::Reauth(reason) = &self.status { reason.claims.as_ref() } else { None };
        let parked = self.parked.iter().filter_map(|parked| parked.reason.claims.as_ref().or(parked.asked.as_ref()));
        status
            .into_iter()
            .chain(parked)
            .fold(None, |all: Option<Claims>, claims| Some(all.map_or_else(|| claims.clone(), |all| all.merge(claims))))
    }
}

/// The canonical name of a set of scopes: sorted, deduplicated, joined by one space.
pub fn scope_set(scopes: &[String]) -> String {
    let mut sorted: Vec<&str> = scopes.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.join(" ")
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Active,
    /// Strict providers only: a presentation whose outcome is unknown.
    Uncertain,
    /// The refresh token is dead: nothing but a sign-in helps.
    Reauth(Reason),
    Revoked,
}

/// Why a grant needs a sign-in, since when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// True: the provider called the refresh token dead; it is never presented again. False: interaction is needed.
    pub dead: bool,
    /// For people: what the provider said, already free of secrets, e.g. `AADSTS50173: the grant was revoked`.
    pub text: String,
    /// The claims challenge that the next sign-in has to carry, if there is one.
    pub claims: Option<Claims>,
    pub since: Timestamp,
}

/// The answer to `claim`.
#[derive(Debug)]
pub enum Claim {
    Claimed {
        fence: u64,
        refresh_token: Secret<String>,
        fingerprint: Fingerprint,
        took_over: bool,
        last_resort: bool,
    },
    /// Strict: the outcome of an earlier presentation is unknown, and this one may not be tried.
    Uncertain,
    Busy {
        until: Timestamp,
    },
    Backoff {
        until: Timestamp,
    },
    /// Epoch or version are not the current ones, or the status allows no claim: read again.
    Stale,
    Missing,
}

/// A successful answer of the provider, to be stored.
#[derive(Clone, Debug)]
pub struct Commit {
    pub key: AccountKey,
    pub epoch: u64,
    /// The refresh token that was presented, and the claim under which that happened.
    pub parent: Fingerprint,
    pub fence: u64,
    /// `None`: the provider sent no new one; the old one stays.
    pub refresh_token: Option<Secret<String>>,
    pub access: AccessToken,
    pub scopes: Option<Vec<String>>,
    /// How long the previous refresh token stays usable at the provider; zero for strict.
    pub grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    Stored {
        version: u64,
    },
    /// The very same commit was stored before.
    Already {
        version: u64,
    },
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Epoch,
    Revoked,
    Lineage,
    Missing,
}

/// A presentation that brought no token.
#[derive(Clone, Debug)]
pub struct Failure {
    pub key: AccountKey,
    pub epoch: u64,
    pub presented: Fingerprint,
    pub fence: u64,
    pub kind: FailureKind,
}

#[derive(Clone, Debug)]
pub enum FailureKind {
    /// A definite, final answer: the refresh token is dead.
    Final { text: String, claims: Option<Claims> },
    /// A definite answer: this scope set, asked with these claims, can't be had without a sign-in. The refresh token lives.
    Park { scope_set: String, asked: Option<Claims>, text: String, claims: Option<Claims> },
    /// A definite answer that did not use the refresh token, or the request never left: try again after `backoff`.
    Transient { backoff: Duration },
    /// The provider looked at our own credential and refused that: the grant is as it was before the claim.
    Untried,
    /// Nobody knows whether the provider used the refresh token.
    Unknown { backoff: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    Applied,
    /// Stale: somebody else has advanced since.
    Ignored,
}

/// A new grant: from a sign-in or an import.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub key: AccountKey,
    /// Given when the account is made. For an account that exists its own alias stays and this one is not looked at.
    pub alias: Alias,
    pub refresh_token: Secret<String>,
    pub access: Option<AccessToken>,
    pub scopes: Vec<String>,
    pub username: Option<String>,
}

/// Something that another part or another process did to a grant.
#[derive(Clone, Debug)]
pub struct Change {
    pub sequence: u64,
    pub key: AccountKey,
    pub alias: Alias,
}

/// What may be taken only once: a sign-in link, a sign-in under way. `id` is random and secret; only its digest is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketKind {
    Invite,
    Pending,
    Device,
    /// Kept, not taken: that a refresh token was imported, under the token itself.
    Imported,
}
