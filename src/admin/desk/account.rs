//! An account as operators see it: states, times and scopes, and nothing that is secret.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::Timestamp;
use crate::store;
use crate::store::Grant;

/// RFC 3339, in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub Timestamp);

/// A signed-in user, and the state of the grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    pub alias: String,
    /// In URLs and logs: 32 hexadecimal digits, for ever the same.
    pub id: String,
    pub provider: String,
    /// `tid`; of a generic provider the issuer.
    pub tenant: String,
    /// `oid`; of a generic provider `sub`.
    pub subject: String,
    /// What the provider called the user at the last sign-in. For people; it may change.
    pub username: Option<String>,
    pub status: State,
    /// Why a sign-in is needed.
    pub reason: Option<Reason>,
    /// What can't be had without a sign-in, though the refresh token lives.
    pub parked: Vec<Parked>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// Grows with every sign-in, import and revocation.
    pub epoch: u64,
    /// Grows with every stored change of tokens.
    pub version: u64,
    pub created_at: At,
    pub signed_in_at: At,
    pub refreshed_at: Option<At>,
    /// No refresh before this time.
    pub next_try: Option<At>,
    /// Never the tokens themselves; none in a list.
    pub access_tokens: Vec<AccessToken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Active,
    /// Nobody knows what became of the last refresh.
    Uncertain,
    /// Something waits for a sign-in.
    Reauth,
    Revoked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// What the provider said.
    pub text: String,
    /// The provider called the refresh token dead.
    pub dead: bool,
    pub since: At,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parked {
    pub scopes: String,
    /// The claims challenge that was to be answered; null: a plain refresh was refused.
    pub claims: Option<String>,
    pub text: String,
    pub since: At,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessToken {
    pub scopes: String,
    pub expires_at: At,
}

/// A page of accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    pub accounts: Vec<Account>,
    /// The `cursor` of the next page; null: this is the last. A page may be short, even empty, and have a next one.
    pub next: Option<String>,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Active, Self::Uncertain, Self::Reauth, Self::Revoked];

    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Uncertain => "uncertain",
            Self::Reauth => "reauth",
            Self::Revoked => "revoked",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl From<&Grant> for Account {
    fn from(grant: &Grant) -> Self {
        let reason =
            |reason: &store::Reason| Reason { text: reason.text.clone(), dead: reason.dead, since: At(reason.since) };
        let parked = |parked: &store::Parked| Parked {
            scopes: parked.scope_set.clone(),
            claims: parked.asked.as_ref().map(ToString::to_string),
            text: parked.reason.text.clone(),
            since: At(parked.reason.since),
        };
        let token =
            |token: &store::AccessToken| AccessToken { scopes: token.scope_set.clone(), expires_at: At(token.expires) };
        Self {
            alias: grant.alias.to_string(),
            id: grant.key.id(),
            provider: grant.key.provider.clone(),
            tenant: grant.key.tenant.clone(),
            subject: grant.key.subject.clone(),
            username: grant.username.clone(),
            status: State::named(grant.state()).expect("a grant is in one of these states"),
            reason: grant.reason().map(reason),
            parked: grant.parked.iter().map(parked).collect(),
            scopes: grant.scopes.clone(),
            epoch: grant.epoch,
            version: grant.version,
            created_at: At(grant.created_at),
            signed_in_at: At(grant.signed_in_at),
            refreshed_at: grant.refreshed_at.map(At),
            next_try: grant.next_try.map(At),
            access_tokens: grant.access.iter().map(token).collect(),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Self(Timestamp::from_millis(at.as_millisecond())))
    }
}

impl JsonSchema for At {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "At".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountKey, Alias};
    use crate::store::Status;

    #[test]
    fn each_state_of_a_grant_has_a_word_and_a_document_reads_back() {
        let at = Timestamp::from_secs(1_700_000_000);
        let reason = store::Reason { dead: true, text: "AADSTS50173".into(), claims: None, since: at };
        for (status, state) in [
            (Status::Active, State::Active),
            (Status::Uncertain, State::Uncertain),
            (Status::Reauth(reason), State::Reauth),
            (Status::Revoked, State::Revoked),
        ] {
            let grant = Grant {
                key: AccountKey { provider: "entra".into(), tenant: "t".into(), subject: "s".into() },
                alias: Alias::new("alice").unwrap(),
                epoch: 1,
                version: 2,
                status,
                scopes: vec!["User.Read".into()],
                access: Vec::new(),
                username: None,
                created_at: at,
                signed_in_at: at,
                refreshed_at: Some(at),
                next_try: None,
                fail_count: 0,
                intent: false,
                parked: Vec::new(),
            };
            let account = Account::from(&grant);
            assert_eq!(account.status, state);
            let text = serde_json::to_string(&account).unwrap();
            assert!(text.contains("\"created_at\":\"2023-11-14T22:13:20Z\""), "{text}");
            assert_eq!(serde_json::from_str::<Account>(&text).unwrap(), account);
        }
    }
}
