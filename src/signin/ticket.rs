//! What the pages keep in the store between two requests: a sign-in under way, a device flow, a session of ten minutes.
//!
//! Invariant: a ticket's name is random and leaves us only in the one place that it is for (a link, `state`, a cookie). The
//! kinds are kept apart by a prefix of the name, so a name that was given for one purpose never opens another.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use crate::account::{AccountKey, Alias};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::store::{Store, StoreError, TicketKind};
use crate::vault::SignInFor;

/// How long a person may take at the provider, and how long a session lasts afterwards.
pub(super) const TEN_MINUTES: Duration = Duration::from_mins(10);

/// A sign-in that has left for the provider; its name is `state`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The cookie of the browser that started it.
    #[serde(serialize_with = "exposed")]
    pub browser: Secret<String>,
    pub provider: String,
    #[serde(flatten)]
    pub purpose: Purpose,
    pub redirect_uri: String,
    #[serde(serialize_with = "exposed")]
    pub nonce: Secret<String>,
    #[serde(serialize_with = "exposed")]
    pub verifier: Secret<String>,
    pub expires: Timestamp,
}

/// What a sign-in is for, whichever way it goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Purpose {
    /// `None`: whoever signs in.
    pub alias: Option<String>,
    /// The only account that may complete it, where it was known when the link was made.
    pub account: Option<AccountKey>,
    /// What the code is redeemed for: one resource.
    pub scopes: Vec<String>,
    #[serde(serialize_with = "exposed_option")]
    pub invite: Option<Secret<String>>,
    /// Who made the link.
    pub created_by: Option<String>,
    pub return_path: Option<String>,
}

/// A device flow that waits for its user; the name is in a cookie.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeviceFlow {
    pub provider: String,
    #[serde(flatten)]
    pub purpose: Purpose,
    /// A claims challenge that the sign-in carries.
    pub claims: Option<String>,
    pub user_code: String,
    pub verification_uri: String,
    pub expires: Timestamp,
    pub interval_secs: u64,
}

/// The right to ask the provider about a device flow: whoever has taken it asks, and puts it back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeviceTurn {
    #[serde(serialize_with = "exposed")]
    pub device_code: Secret<String>,
    pub interval_secs: u64,
    pub next_poll: Timestamp,
    pub expires: Timestamp,
}

/// Somebody who has just signed in; the name is in a cookie.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub key: AccountKey,
    pub alias: String,
    pub username: Option<String>,
    /// Asked for and not granted.
    pub missing: Vec<String>,
    pub return_path: Option<String>,
    /// The one-time token of the sign-out form.
    #[serde(serialize_with = "exposed")]
    pub form_token: Secret<String>,
    pub expires: Timestamp,
}

/// A kind of ticket: where it lies, and under which prefix.
pub(super) trait Ticket: Serialize + DeserializeOwned {
    const KIND: TicketKind;
    const PREFIX: &'static str;

    fn expires(&self) -> Timestamp;
}

impl Ticket for Pending {
    const KIND: TicketKind = TicketKind::Pending;
    const PREFIX: &'static str = "state";

    fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl Ticket for Session {
    const KIND: TicketKind = TicketKind::Pending;
    const PREFIX: &'static str = "session";

    fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl Ticket for DeviceFlow {
    const KIND: TicketKind = TicketKind::Device;
    const PREFIX: &'static str = "flow";

    fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl Ticket for DeviceTurn {
    const KIND: TicketKind = TicketKind::Device;
    const PREFIX: &'static str = "turn";

    fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl Purpose {
    /// Fails where the alias of a stored ticket is none; we stored it, so that is a bug.
    pub(super) fn who(&self) -> Result<SignInFor, StoreError> {
        let Some(alias) = &self.alias else { return Ok(SignInFor::Anyone) };
        let alias = Alias::new(alias).map_err(|error| corrupt("the purpose of a sign-in", &error))?;
        Ok(match self.account.clone() {
            Some(key) => SignInFor::Account { alias, key },
            None => SignInFor::Alias(alias),
        })
    }
}

pub(super) async fn put<T: Ticket>(store: &Store, id: &str, ticket: &T) -> Result<(), StoreError> {
    let payload = serde_json::to_vec(ticket).expect("tickets are plain data with text keys");
    store.put_ticket(T::KIND, &name::<T>(id), payload, ticket.expires()).await
}

/// `None`: there is none, or it has expired.
pub(super) async fn read<T: Ticket>(store: &Store, id: &str, now: Timestamp) -> Result<Option<T>, StoreError> {
    decode(store.read_ticket(T::KIND, &name::<T>(id)).await?, now)
}

/// At most one caller ever gets it.
pub(super) async fn take<T: Ticket>(store: &Store, id: &str, now: Timestamp) -> Result<Option<T>, StoreError> {
    decode(store.take_ticket(T::KIND, &name::<T>(id)).await?, now)
}

/// 32 random bytes as base64url: 43 characters.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers; nothing is safe without");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Has the form of `random_id`: whatever has not is not looked up at all.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn name<T: Ticket>(id: &str) -> String {
    format!("{}.{id}", T::PREFIX)
}

fn decode<T: Ticket>(payload: Option<Vec<u8>>, now: Timestamp) -> Result<Option<T>, StoreError> {
    let Some(payload) = payload else { return Ok(None) };
    let ticket: T = serde_json::from_slice(&payload).map_err(|error| corrupt("a ticket", &error))?;
    Ok((now < ticket.expires()).then_some(ticket))
}

pub(super) fn corrupt(record: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { record: record.to_owned(), why: why.to_string() }
}

/// The store seals what it is given, so here a secret may be written out.
fn exposed<S: Serializer>(secret: &Secret<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

#[expect(clippy::ref_option, reason = "the form that serde asks for")]
fn exposed_option<S: Serializer>(secret: &Option<Secret<String>>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(expires: Timestamp) -> Session {
        Session {
            key: AccountKey { provider: "entra".into(), tenant: "t".into(), subject: "s".into() },
            alias: "alice".into(),
            username: None,
            missing: vec![],
            return_path: None,
            form_token: "hidden-token".into(),
            expires,
        }
    }

    #[test]
    fn ids_are_random_and_recognised() {
        let (one, two) = (random_id(), random_id());
        assert_ne!(one, two);
        assert!(is_id(&one) && is_id(&two));
        for text in ["", "abc", "used.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &"%".repeat(43), &"A".repeat(44)] {
            assert!(!is_id(text), "{text}");
        }
    }

    #[test]
    fn a_ticket_lives_until_its_time_and_not_longer() {
        let expires = Timestamp::from_secs(100);
        let payload = serde_json::to_vec(&session(expires)).unwrap();
        assert!(decode::<Session>(Some(payload.clone()), Timestamp::from_secs(99)).unwrap().is_some());
        assert!(decode::<Session>(Some(payload), expires).unwrap().is_none());
        assert!(decode::<Session>(None, expires).unwrap().is_none());
        assert!(decode::<Session>(Some(b"{}".to_vec()), expires).is_err());
    }

    #[test]
    fn tickets_of_different_kinds_have_different_names() {
        let names = [name::<Pending>("x"), name::<Session>("x"), name::<DeviceFlow>("x"), name::<DeviceTurn>("x")];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn secrets_come_back_and_do_not_print() {
        let expires = Timestamp::from_secs(100);
        let pending = Pending {
            browser: "b".into(),
            provider: "entra".into(),
            purpose: Purpose {
                alias: Some("alice".into()),
                account: Some(session(expires).key),
                scopes: vec!["Mail.Read".into()],
                invite: Some("secret-invite".into()),
                created_by: None,
                return_path: None,
            },
            redirect_uri: "https://x/".into(),
            nonce: "n".into(),
            verifier: "secret-verifier".into(),
            expires,
        };
        assert!(!format!("{pending:?} {:?}", session(expires)).contains("secret-"));
        let payload = serde_json::to_vec(&pending).unwrap();
        let back = decode::<Pending>(Some(payload), Timestamp::from_secs(1)).unwrap().unwrap();
        assert_eq!(back.verifier.expose(), "secret-verifier");
        assert_eq!(back.purpose.account, Some(session(expires).key));
        assert_eq!(back.purpose.invite.unwrap().expose(), "secret-invite");
        let mut older = serde_json::to_value(&pending).unwrap();
        older.as_object_mut().unwrap().remove("account");
        let older = serde_json::to_vec(&older).unwrap();
        let back = decode::<Pending>(Some(older), Timestamp::from_secs(1)).unwrap().unwrap();
        assert_eq!(back.purpose.account, None, "of an older version");
    }
}
