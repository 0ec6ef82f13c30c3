//! Calling applications: how they prove who they are, whose tokens they get, and what they may do.

use std::collections::BTreeMap;

use url::Url;

/// `[[clients]]`: a calling application.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: String,
    pub credential: ClientCredential,
    pub identity: Identity,
    /// Globs over aliases; empty: no account.
    pub accounts: Vec<String>,
    /// `METHOD /path/glob`; empty: everything.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub read_only: bool,
    pub limits: ClientLimits,
}

/// Whose tokens a client's requests get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A signed-in user's.
    User,
    /// Those of the app registration itself (client credentials).
    App,
    /// Those of the user whose token the client presents (on-behalf-of).
    OnBehalfOf,
}

/// Which JSON Web Tokens make a client of their bearer.
#[derive(Clone, Debug)]
pub struct JwtIssuer {
    /// Compared with `iss`, byte for byte.
    pub issuer: String,
    /// One of them has to be in `aud`.
    pub audience: Vec<String>,
    /// `None`: discovered from the issuer.
    pub jwks_url: Option<Url>,
    /// The claim whose value selects the account.
    pub account_claim: Option<String>,
    /// Claims that have to have these values.
    pub required: BTreeMap<String, String>,
    /// PEM of further trust anchors for the issuer's TLS.
    pub ca_pem: Option<String>,
}

#[derive(Clone, Debug)]
pub enum ClientCredential {
    /// SHA-256 of a random key.
    KeyDigest([u8; 32]),
    /// An argon2id PHC string of a password that the application already has.
    PasswordHash(String),
    /// A subject alternative name of a client certificate.
    MtlsSan(String),
    /// The user id of a Unix socket's peer.
    PeerUid(u32),
    /// A token of an issuer that we trust.
    Jwt(JwtIssuer),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ClientLimits {
    pub requests_per_second: Option<f64>,
    pub concurrent: Option<usize>,
}
