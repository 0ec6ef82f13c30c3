//! What we say to identity providers, and what their answers mean. The only user of reqwest.
//!
//! Knows no accounts' states and no store: it presents what it is given, once, and classifies the answer.

mod authority;
mod cached;
mod certificate;
mod classify;
mod client_auth;
mod cloud;
mod code;
mod device;
mod exchange;
mod grants;
mod http;
mod id_token;
mod json;
mod jwks;
pub mod jwt;
mod managed_identity;
mod refresh;
mod reply;
mod verifier;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use url::Url;

pub use self::verifier::{Verified, Verifier, VerifyError, issuer_of};
use crate::account::AccountKey;
use crate::claims::Claims;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::metrics::Metrics;
use crate::secret::Secret;

pub use self::classify::{Consequence, Example, JWT_BEARER, Row, classification};
pub use self::cloud::is_one_cloud;

/// One provider of the configuration; clones share its caches (discovery, JWKS) and its connections.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

/// A success of the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenReply {
    pub access_token: Secret<String>,
    pub expires_in: Duration,
    pub refresh_in: Option<Duration>,
    pub refresh_token: Option<Secret<String>>,
    /// As granted; `None` where the reply does not say.
    pub scopes: Option<Vec<String>>,
}

/// Who signed in: proven by an identity token that passed every rule.
#[derive(Clone, Debug)]
pub struct Identity {
    pub key: AccountKey,
    /// For display and as a login hint only.
    pub username: Option<String>,
    pub name: Option<String>,
}

/// No success. `class` decides what happens to the grant, `delivery` what the provider may have done.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct TokenError {
    pub class: Class,
    /// Whom a pause is for.
    pub whose: Whose,
    pub delivery: Delivery,
    /// Safe to show and to log: `AADSTS50173 invalid_grant (bad_token)`, `HTTP 503`, `connection refused`.
    pub text: String,
    pub retry_after: Option<Duration>,
    /// The `claims` of the error.
    pub claims: Option<Claims>,
}

/// What an answer of the token endpoint means; one table, in `classify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// This refresh token will never work again.
    Dead,
    /// A person has to sign in; the refresh token is kept.
    Interact,
    /// The user can't be helped by a sign-in now (disabled, blocked); shown, the refresh token is kept.
    User,
    /// The provider refuses our own credential. Touches no grant.
    AppCredential,
    /// The provider refuses the request for another reason of ours. Touches no grant.
    Config,
    /// On-behalf-of: the caller's own token was refused.
    Assertion,
    /// Throttled or a loop was detected: wait minutes.
    Backoff,
    /// Down or unreachable for the moment.
    Retry,
}

/// For whom the provider asks for a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// For what was presented, and nothing else.
    Grant,
    /// For everything that we ask of this provider: it throttles.
    Provider,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The request never left.
    NotSent,
    /// A definite answer came: what was presented was not used.
    Answered,
    /// Sent, or partly; no readable answer, or one that we refuse. What was presented may have been used.
    Unknown,
}

/// A sign-in that is about to leave for the provider.
#[derive(Debug)]
pub struct Authorize {
    pub url: Url,
    pub state: Secret<String>,
    pub nonce: Secret<String>,
    pub verifier: Secret<String>,
}

/// What a sign-in asks for.
#[derive(Clone, Debug, Default)]
pub struct AuthorizeOptions {
    pub redirect_uri: String,
    /// As configured; openid, profile and offline_access are added here.
    pub scopes: Vec<String>,
    pub login_hint: Option<String>,
    pub prompt: Option<String>,
    pub claims: Option<Claims>,
}

/// A device flow that waits for its user (RFC 8628).
#[derive(Debug)]
pub struct Device {
    pub device_code: Secret<String>,
    pub user_code: String,
    pub verification_uri: String,
    pub expires_in: Duration,
    pub interval: Duration,
    pub message: Option<String>,
}

#[derive(Debug)]
pub enum DevicePoll {
    Pending,
    /// Wait 5 s longer between polls from now on.
    SlowDown,
    Done(Box<SignedIn>),
}

#[derive(Clone, Debug)]
pub struct SignedIn {
    pub identity: Identity,
    pub reply: TokenReply,
}

/// A sign-in that did not come to a grant.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity token breaks a rule; the text names it.
    #[error("the identity token was refused: {0}")]
    Identity(String),
    /// The provider sent no refresh token: `offline_access` is missing.
    #[error("the provider sent no refresh token; grant offline_access to the app registration")]
    NoRefreshToken,
    #[error("the tenant {0} is not allowed here")]
    Tenant(String),
    /// Discovery failed.
    #[error("{0}")]
    Discovery(String),
}

/// The file of a provider can't be used: the text names the key.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct BuildError {
    pub key: String,
    pub why: String,
}

/// What two kinds of providers say differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Entra,
    Oidc,
}

/// What the clones of a provider share. Its methods stand in the file of the grant that they belong to.
struct Inner {
    id: String,
    client_id: String,
    allowed_tenants: Vec<String>,
    clock: Clock,
    http: http::Http,
    authority: authority::Authority,
    client_auth: client_auth::ClientAuth,
    keys: jwks::Keys,
    /// What we say that we can handle, with every request that may bring a token.
    capabilities: Option<Claims>,
    metrics: OnceLock<Metrics>,
}

impl Provider {
    pub fn new(config: &config::Provider, clock: Clock) -> Result<Self, BuildError> {
        jwt::install();
        let in_file = |e: BuildError| BuildError { key: format!("providers.{}.{}", config.id, e.key), why: e.why };
        let authority = authority::Authority::new(&config.kind, clock.clone()).map_err(in_file)?;
        let dialect = authority.dialect;
        let http = http::Http::new(dialect, config.ca_pem.as_deref(), authority.is_plaintext()).map_err(in_file)?;
        let client_auth =
            client_auth::ClientAuth::new(&config.client_id, &authority, &config.credentials, clock.clone());
        let keys = jwks::Keys::new(clock.clone());
        Ok(Self(Arc::new(Inner {
            id: config.id.clone(),
            client_id: config.client_id.clone(),
            allowed_tenants: config.allowed_tenants.clone(),
            clock,
            http,
            authority,
            client_auth: client_auth.map_err(in_file)?,
            keys,
            capabilities: Claims::capabilities(&config.client_capabilities),
            metrics: OnceLock::new(),
        })))
    }

    /// From now on `metrics` counts what happens here.
    pub fn observed_by(&self, metrics: &Metrics) {
        self.0.metrics.get_or_init(|| metrics.clone());
    }

    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Discovery and the first JWKS: what `/readyz` and `check --online` ask.
    pub async fn ready(&self) -> Result<(), SignInError> {
        self.0.documents().await.map(drop).map_err(SignInError::Discovery)
    }

    /// Presents a refresh token, exactly once on the wire. The whole exchange ends within `limit`.
    /// An identity token in the answer must name `account`.
    pub async fn refresh(
        &self,
        refresh_token: &Secret<String>,
        account: &AccountKey,
        scopes: &[String],
        claims: Option<&Claims>,
        limit: Duration,
    ) -> Result<TokenReply, TokenError> {
        self.0.refresh(refresh_token, account, scopes, claims, limit).await
    }

    /// Presents a refresh token that comes from elsewhere. Says whose it is, where the answer does.
    pub async fn adopt(
        &self,
        refresh_token: &Secret<String>,
        scopes: &[String],
        limit: Duration,
    ) -> Result<(Option<Identity>, TokenReply), SignInError> {
        self.0.adopt(refresh_token, scopes, limit).await
    }

    /// Whether the provider accepts our own credential: it is asked to redeem a refresh token that nobody ever issued, and has to
    /// refuse that and not us. A managed identity that is the application has to exist.
    pub async fn probe_credential(&self, scopes: &[String]) -> Result<(), TokenError> {
        let limit = Duration::from_secs(10);
        if let Some(identity) = self.0.client_auth.itself() {
            return identity.probe(&mut http::Deadline::new(limit)).await;
        }
        let nobodys = Secret::from("bearerd-check");
        match self.adopt(&nobodys, scopes, limit).await {
            Err(SignInError::Token(error)) if !matches!(error.class, Class::Dead | Class::Interact | Class::User) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// A token for the app registration itself (RFC 6749, section 4.4).
    pub async fn client_credentials(
        &self,
        scopes: &[String],
        claims: Option<&Claims>,
        limit: Duration,
    ) -> Result<TokenReply, TokenError> {
        self.0.client_credentials(scopes, claims, limit).await
    }

    /// A token for the user who is the subject of `assertion`, an access token for us.
    pub async fn on_behalf_of(
        &self,
        assertion: &Secret<String>,
        scopes: &[String],
        claims: Option<&Claims>,
        limit: Duration,
    ) -> Result<TokenReply, TokenError> {
        self.0.on_behalf_of(assertion, scopes, claims, limit).await
    }

    /// Tells the provider that a refresh token is no longer wanted (RFC 7009). False: it has no way to be told.
    pub async fn revoke(&self, refresh_token: &Secret<String>, limit: Duration) -> Result<bool, TokenError> {
        self.0.revoke(refresh_token, limit).await
    }

    /// When the credential that the provider accepted last expires, as far as that can be known.
    pub fn credential_expiry(&self) -> Option<Timestamp> {
        self.0.client_auth.expiry()
    }

    pub async fn authorize(&self, options: &AuthorizeOptions) -> Result<Authorize, SignInError> {
        self.0.authorize(options).await
    }

    /// `issuer` is the callback's `iss` parameter (RFC 9207) where there is one.
    pub async fn redeem_code(
        &self,
        code: &Secret<String>,
        redirect_uri: &str,
        verifier: &Secret<String>,
        nonce: &Secret<String>,
        scopes: &[String],
        issuer: Option<&str>,
    ) -> Result<SignedIn, SignInError> {
        self.0.redeem_code(code, redirect_uri, verifier, nonce, scopes, issuer).await
    }

    /// `claims` go along here and with every poll.
    pub async fn start_device(&self, scopes: &[String], claims: Option<&Claims>) -> Result<Device, SignInError> {
        self.0.start_device(scopes, claims).await
    }

    pub async fn poll_device(
        &self,
        device: &Device,
        scopes: &[String],
        claims: Option<&Claims>,
    ) -> Result<DevicePoll, SignInError> {
        self.0.poll_device(device, scopes, claims).await
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.0.id).finish()
    }
}

impl Inner {
    /// The `claims` to send: those that a challenge or a person's sign-in asks for, verbatim where nothing has to be added.
    fn claims(&self, asked: Option<&Claims>) -> Option<Claims> {
        match (asked, &self.capabilities) {
            (Some(asked), Some(capabilities)) => Some(asked.merge(capabilities)),
            (Some(claims), None) | (None, Some(claims)) => Some(claims.clone()),
            (None, None) => None,
        }
    }

    /// Discovery, and keys to check identity tokens with.
    async fn documents(&self) -> Result<Arc<authority::Metadata>, String> {
        let metadata = self.authority.metadata(&self.http).await?;
        self.keys.load(&self.http, &metadata.jwks_uri).await?;
        Ok(metadata)
    }

    /// The token endpoint, discovered where it has to be.
    async fn target(&self, deadline: &mut http::Deadline) -> Result<authority::Target, TokenError> {
        let found = deadline.race(self.authority.target(&self.http)).await;
        found.and_then(|found| found).map_err(|why| exchange::not_sent(Class::Retry, why))
    }
}

/// The `scope` parameter: as configured, and what sign-ins always need; each once.
fn scope(configured: &[String]) -> String {
    let always = ["openid", "profile", "offline_access"];
    let mut scopes: Vec<&str> = Vec::new();
    for scope in configured.iter().map(String::as_str).chain(always) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes.join(" ")
}
