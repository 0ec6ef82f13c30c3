//! Sign-in links: made by the operator for one account, good for one completed sign-in.
//!
//! Invariant: a link is taken before the grant that it was for is stored, so of two people who finish at the same time one
//! wins; what takes it and then fails puts it back. A link that was used or has expired is remembered for a while, only so
//! that its page can say which.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::problem::Problem;
use super::ticket;
use crate::account::{AccountKey, Alias};
use crate::claims::Claims;
use crate::clock::{Clock, Timestamp};
use crate::store::{Store, StoreError, TicketKind};

/// How long a link lives where nobody says otherwise.
pub const LIFE: Duration = Duration::from_hours(24);

/// How long we can say of a link that it was used or has expired.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// What a sign-in link is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Who may complete it; `None`: anyone whom the provider lets in, named by the `preferred_username` (the operator's own
    /// `login` without `--account`).
    pub alias: Option<Alias>,
    /// Whose the alias was when the link was made: nobody else completes it, whoever has the alias by then. `None`: there was no
    /// such account.
    pub account: Option<AccountKey>,
    pub provider: String,
    /// `None`: what the upstreams of that provider are configured to need.
    pub scopes: Option<Vec<String>>,
    /// A claims challenge that the sign-in has to carry.
    pub claims: Option<Claims>,
    /// For the person to read: who asks.
    pub created_by: String,
    pub expires: Timestamp,
}

impl Invite {
    /// A link for `alias` with the usual life.
    pub fn new(alias: Option<Alias>, provider: &str, created_by: &str, clock: &Clock) -> Self {
        Self {
            alias,
            account: None,
            provider: provider.to_owned(),
            scopes: None,
            claims: None,
            created_by: created_by.to_owned(),
            expires: clock.now().plus(LIFE),
        }
    }
}

/// Stores a new link; the answer is its secret name, for `login_url`.
pub async fn create_invite(store: &Store, clock: &Clock, invite: &Invite) -> Result<String, StoreError> {
    let id = ticket::random_id();
    let kept_until = invite.expires.max(clock.now()).plus(REMEMBERED);
    store.put_ticket(TicketKind::Invite, &id, encode(invite), kept_until).await?;
    Ok(id)
}

/// The link that a person opens.
pub fn login_url(public_url: &Url, id: &str) -> Url {
    let mut url = public_url.clone();
    url.set_path("/.bearerd/login");
    url.set_query(None);
    url.query_pairs_mut().append_pair("invite", id);
    url
}

/// Looks at a link without using it up.
pub(super) async fn open(store: &Store, clock: &Clock, id: &str) -> Result<Invite, Problem> {
    if !ticket::is_id(id) {
        return Err(Problem::unknown_link());
    }
    let Some(payload) = store.read_ticket(TicketKind::Invite, id).await? else {
        let used = store.read_ticket(TicketKind::Invite, &tombstone(id)).await?.is_some();
        return Err(if used { Problem::used_link() } else { Problem::unknown_link() });
    };
    let invite = decode(&payload)?;
    if clock.now() >= invite.expires {
        return Err(Problem::expired_link(invite.expires));
    }
    Ok(invite)
}

/// Uses a link up. Whoever gets it completes the sign-in, or gives it back.
pub(super) async fn take(store: &Store, id: &str) -> Result<Option<Invite>, StoreError> {
    match store.take_ticket(TicketKind::Invite, id).await? {
        Some(payload) => decode(&payload).map(Some),
        None => Ok(None),
    }
}

/// After a sign-in that failed at its last step: the link works again.
pub(super) async fn give_back(store: &Store, id: &str, invite: &Invite) -> Result<(), StoreError> {
    store.put_ticket(TicketKind::Invite, id, encode(invite), invite.expires.plus(REMEMBERED)).await
}

/// After a sign-in that was completed: remembers that the link was used.
pub(super) async fn bury(store: &Store, clock: &Clock, id: &str) -> Result<(), StoreError> {
    store.put_ticket(TicketKind::Invite, &tombstone(id), b"used".to_vec(), clock.now().plus(REMEMBERED)).await
}

/// The dot keeps it from ever being the name of a link: `ticket::is_id` knows none.
fn tombstone(id: &str) -> String {
    format!("used.{id}")
}

#[derive(Serialize, Deserialize)]
struct Stored {
    alias: Option<String>,
    account: Option<AccountKey>,
    provider: String,
    scopes: Option<Vec<String>>,
    claims: Option<String>,
    created_by: String,
    expires: Timestamp,
}

fn encode(invite: &Invite) -> Vec<u8> {
    let stored = Stored {
        alias: invite.alias.as_ref().map(ToString::to_string),
        account: invite.account.clone(),
        provider: invite.provider.clone(),
        scopes: invite.scopes.clone(),
        claims: invite.claims.as_ref().map(ToString::to_string),
        created_by: invite.created_by.clone(),
        expires: invite.expires,
    };
    serde_json::to_vec(&stored).expect("a link is plain data with text keys")
}

fn decode(payload: &[u8]) -> Result<Invite, StoreError> {
    let stored: Stored = serde_json::from_slice(payload).map_err(|error| ticket::corrupt("a sign-in link", &error))?;
    let alias = match stored.alias {
        Some(text) => Some(Alias::new(&text).map_err(|error| ticket::corrupt("a sign-in link", &error))?),
        None => None,
    };
    Ok(Invite {
        alias,
        account: stored.account,
        provider: stored.provider,
        scopes: stored.scopes,
        claims: stored.claims.as_deref().and_then(Claims::parse),
        created_by: stored.created_by,
        expires: stored.expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_comes_back_as_it_was() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let mut invite = Invite::new(Some(Alias::new("alice").unwrap()), "entra", "the operator", &clock);
        invite.claims = Claims::parse(r#"{"access_token":{"nbf":{"essential":true}}}"#);
        invite.scopes = Some(vec!["Mail.Read".into()]);
        invite.account = Some(AccountKey { provider: "entra".into(), tenant: "t".into(), subject: "s".into() });
        assert_eq!(invite.expires, Timestamp::from_secs(1_000 + 86_400));
        assert_eq!(decode(&encode(&invite)).unwrap(), invite);
        assert!(decode(b"used").is_err());
    }

    #[test]
    fn a_link_of_an_older_version_is_bound_to_its_alias() {
        let payload =
            br#"{"alias":"alice","provider":"entra","scopes":null,"claims":null,"created_by":"x","expires":1}"#;
        let invite = decode(payload).unwrap();
        assert_eq!((invite.alias.unwrap().as_str(), invite.account), ("alice", None));
    }

    #[test]
    fn the_url_of_a_link() {
        let url = Url::parse("https://graph.example.com").unwrap();
        assert_eq!(login_url(&url, "abc").as_str(), "https://graph.example.com/.bearerd/login?invite=abc");
    }
}
