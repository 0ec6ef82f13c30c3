//! A client as operators see it: who it is, how it proves that, and what it may. Never a key or the hash of one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::config::ClientCredential;

/// A calling application, and its rules.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Client {
    pub name: String,
    pub identity: Identity,
    pub credential: Credential,
    /// Globs over aliases; none: no account.
    pub accounts: Vec<String>,
    /// None: everything that `deny` and `read_only` leave.
    pub allow: Vec<String>,
    /// Looked at first.
    pub deny: Vec<String>,
    /// GET and HEAD only.
    pub read_only: bool,
    pub limits: Limits,
}

/// Whose tokens its requests get.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    User,
    App,
    OnBehalfOf,
}

/// How it proves who it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Credential {
    pub kind: CredentialKind,
    /// The name in the certificate, the user id of the socket's peer, or the issuer of its tokens.
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    Key,
    Password,
    MtlsSan,
    PeerUid,
    Jwt,
}

/// Null: no limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    pub requests_per_second: Option<f64>,
    pub concurrent: Option<usize>,
}

/// All that there are, in the order of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Clients {
    pub clients: Vec<Client>,
}

impl From<&config::Client> for Client {
    fn from(client: &config::Client) -> Self {
        Self {
            name: client.name.clone(),
            identity: match client.identity {
                config::Identity::User => Identity::User,
                config::Identity::App => Identity::App,
                config::Identity::OnBehalfOf => Identity::OnBehalfOf,
            },
            credential: (&client.credential).into(),
            accounts: client.accounts.clone(),
            allow: client.allow.clone(),
            deny: client.deny.clone(),
            read_only: client.read_only,
            limits: Limits {
                requests_per_second: client.limits.requests_per_second,
                concurrent: client.limits.concurrent,
            },
        }
    }
}

impl From<&ClientCredential> for Credential {
    fn from(credential: &ClientCredential) -> Self {
        let (kind, name) = match credential {
            ClientCredential::KeyDigest(_) => (CredentialKind::Key, None),
            ClientCredential::PasswordHash(_) => (CredentialKind::Password, None),
            ClientCredential::MtlsSan(name) => (CredentialKind::MtlsSan, Some(name.clone())),
            ClientCredential::PeerUid(uid) => (CredentialKind::PeerUid, Some(uid.to_string())),
            ClientCredential::Jwt(issuer) => (CredentialKind::Jwt, Some(issuer.issuer.clone())),
        };
        Self { kind, name }
    }
}
