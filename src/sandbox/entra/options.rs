//! How the simulated Entra ID is set up, and what it hands out without a browser.

use std::time::Duration;

use url::Url;

use crate::clock::Timestamp;
use crate::sandbox::fault::Flaw;
use crate::sandbox::tokens::Rotation;
use crate::sandbox::user::User;

/// The tenant, its application and its people.
#[derive(Clone, Debug)]
pub struct EntraOptions {
    /// A GUID.
    pub tenant: String,
    pub domain: String,
    pub client_id: String,
    /// `None` and no certificate: a public client, which must not present a credential.
    pub client_secret: Option<String>,
    /// The certificate (PEM) that client assertions are checked with. `None`: any well-formed assertion of the client will do.
    pub client_certificate: Option<String>,
    pub users: Vec<User>,
    pub rotation: Rotation,
    pub token_life: Duration,
    pub refresh_token_life: Duration,
    /// How often a device may ask.
    pub device_interval: Duration,
    /// Every token answer takes so long, on the system's time.
    pub delay: Duration,
    /// How clients reach it, when that is not its address.
    pub origin: Option<Url>,
    /// A client assertion whose `jti` was seen before is refused. Entra takes them again, and MSAL for Python relies on it.
    pub single_use_assertions: bool,
    /// After a revocation, tokens of clients that understand challenges have to be minted with the `nbf` of the challenge.
    pub demand_claims: bool,
    /// More redemptions than that of one refresh token for one scope within five minutes are a loop: AADSTS50196.
    pub loop_limit: Option<u32>,
}

impl Default for EntraOptions {
    fn default() -> Self {
        let domain = "contoso.example".to_owned();
        Self {
            tenant: "72f988bf-5a4d-4c5e-9d3b-7a1f6c2e8b90".to_owned(),
            users: User::numbered(2, &domain),
            domain,
            client_id: "4ea7c8e1-0f5b-4d6e-8a35-6d1f0c9b7a42".to_owned(),
            client_secret: Some("sandbox-client-secret".to_owned()),
            client_certificate: None,
            rotation: Rotation::Tolerant,
            token_life: Duration::from_hours(1),
            refresh_token_life: Duration::from_hours(90 * 24),
            device_interval: Duration::from_secs(5),
            delay: Duration::ZERO,
            origin: None,
            single_use_assertions: false,
            demand_claims: true,
            loop_limit: Some(60),
        }
    }
}

/// The tokens of a sign-in that needed no browser.
#[derive(Clone)]
pub struct Grant {
    /// The alias.
    pub user: String,
    pub tenant: String,
    pub oid: String,
    pub refresh_token: String,
    pub access_token: String,
    pub scope: String,
    pub expires_in: Duration,
    pub expires_at: Timestamp,
}

/// An access token for the application itself, as a caller of a middle tier brings one along.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// Permissions, or whole scopes.
    pub scope: String,
    pub life: Duration,
    /// What it is minted with: a JSON text.
    pub claims: Option<String>,
    /// The one rule that it breaks.
    pub flaw: Option<Flaw>,
}

impl Default for Assertion {
    fn default() -> Self {
        Self { scope: "access_as_user".to_owned(), life: Duration::from_hours(1), claims: None, flaw: None }
    }
}
