//! A simulated Entra ID v2.0: discovery, keys, the sign-in page, the token endpoint, the device flow, for one tenant.
//!
//! The shapes are Entra's where a client can see them. What it was asked is on record; what goes wrong is data (`faults`).

mod aadsts;
mod answers;
mod authorize;
mod client;
mod device;
mod discovery;
mod errors;
mod federation;
mod form;
mod grants;
mod identity;
mod jwt;
mod keys;
mod managed;
mod options;
mod pages;
mod scope;
mod token;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use hyper::body::Incoming;
use serde_json::json;
use url::Url;

use super::asked::AskedClaims;
use super::control;
use super::demand::Demands;
use super::fault::{Faults, TokenFault};
use super::random;
use super::record::Records;
use super::tokens::{Policy, RefreshToken, Tokens};
use super::user::{APP, User};
use super::wire::{self, Reply, Server};
use crate::clock::Clock;
use crate::tasks::Tasks;

pub use aadsts::markdown as aadsts_table;
pub use authorize::AuthorizeRequest;
pub use client::ClientAuth;
pub use federation::{CLUSTER_ISSUER, CLUSTER_SUBJECT, EXCHANGE_AUDIENCE};
pub use keys::KeyName;
pub use managed::{CLIENT_ID as MANAGED_IDENTITY, IDENTITY_HEADER, IdentityRequest, IdentitySource};
pub use options::{Assertion, EntraOptions, Grant};
pub use scope::DEFAULT as DEFAULT_SCOPE;
pub use token::TokenRequest;

/// The tenant of personal accounts, the same everywhere.
const CONSUMER_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const CLOUD_INSTANCE: &str = "microsoftonline.com";
const LARGEST_BODY: usize = 1 << 20;

/// The running server; clones are the same one.
#[derive(Clone)]
pub struct Entra {
    state: Arc<State>,
    server: Server,
}

pub(super) struct State {
    options: EntraOptions,
    /// Without the last `/`.
    origin: String,
    users: Vec<User>,
    by_alias: HashMap<String, usize>,
    /// The application as one that acts in its own name.
    app: User,
    pub tokens: Tokens,
    pub faults: Faults,
    pub demands: Demands,
    clock: Clock,
    keys: keys::Keyring,
    codes: Mutex<HashMap<String, authorize::Code>>,
    devices: Mutex<Vec<device::Device>>,
    /// The `jti` of the client assertions that were used.
    assertions: Mutex<HashSet<String>>,
    requests: Records<TokenRequest>,
    authorizations: Records<AuthorizeRequest>,
    identity_requests: Records<IdentityRequest>,
    discovery_fetches: AtomicU64,
    jwks_fetches: AtomicU64,
}

impl Entra {
    pub fn start(listen: SocketAddr, options: EntraOptions, clock: Clock, tasks: Tasks) -> io::Result<Self> {
        let listener = wire::bind(listen)?;
        let origin = match &options.origin {
            Some(origin) => origin.origin().ascii_serialization(),
            None => format!("http://{}", listener.local_addr()?),
        };
        let state = Arc::new(State {
            origin,
            users: options.users.clone(),
            by_alias: options.users.iter().enumerate().map(|(index, user)| (user.alias.clone(), index)).collect(),
            options,
            app: User {
                alias: APP.to_owned(),
                oid: managed::OBJECT_ID.to_owned(),
                name: "Sandbox application".to_owned(),
                mail: String::new(),
            },
            tokens: Tokens::default(),
            faults: Faults::default(),
            demands: Demands::default(),
            clock,
            keys: keys::Keyring::default(),
            codes: Mutex::default(),
            devices: Mutex::default(),
            assertions: Mutex::default(),
            requests: Records::default(),
            authorizations: Records::default(),
            identity_requests: Records::default(),
            discovery_fetches: AtomicU64::new(0),
            jwks_fetches: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        let service: wire::Service = Arc::new(move |request| {
            let state = Arc::clone(&shared);
            Box::pin(async move { state.respond(request).await })
        });
        Ok(Self { state, server: Server::run(listener, service, tasks)? })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn origin(&self) -> Url {
        Url::parse(&self.state.origin).expect("an origin is a URL")
    }

    pub fn options(&self) -> &EntraOptions {
        &self.state.options
    }

    /// The issuer of its identity tokens.
    pub fn issuer(&self) -> String {
        self.state.issuer(&self.state.options.tenant)
    }

    pub fn user(&self, alias: &str) -> Option<&User> {
        self.state.user(alias)
    }

    /// Shared with the Graph that was started with this Entra.
    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    pub fn tokens(&self) -> &Tokens {
        &self.state.tokens
    }

    /// Signs a user in without a browser, for these scopes. `None`: no such user.
    pub fn grant(&self, user: &str, scope: &str) -> Option<Grant> {
        token::grant(&self.state, user, scope)
    }

    /// A signed access token of this user whose audience is the application: what a caller hands over to act on behalf of.
    /// Somebody whom the tenant does not know gets one too; nobody can act on their behalf.
    pub fn assertion(&self, user: &str) -> String {
        self.assertion_with(user, &Assertion::default())
    }

    /// The same, otherwise made.
    pub fn assertion_with(&self, user: &str, assertion: &Assertion) -> String {
        self.state.assertion(user, assertion)
    }

    /// A token of a cluster's service account, as it is projected into a file: a client assertion (federated credential).
    pub fn federated_token(&self) -> String {
        self.state.federated_token()
    }

    /// From now on Graph wants, of this user or of everybody, tokens that were minted with these claims (a JSON text) for paths
    /// (with their version) that start with `prefix`. False: the claims are no JSON object.
    pub fn demand(&self, user: Option<&str>, prefix: &str, claims: &str) -> bool {
        self.state.demands.push(user, prefix, claims)
    }

    /// Ends all demands.
    pub fn clear_demands(&self) {
        self.state.demands.clear();
    }

    /// What a user does on the device page. False: no such user or code.
    pub fn approve_device(&self, user_code: &str, user: &str) -> bool {
        device::decide(&self.state, user_code, Some(user))
    }

    pub fn decline_device(&self, user_code: &str) -> bool {
        device::decide(&self.state, user_code, None)
    }

    /// Every token of the user is dead: refreshes answer AADSTS50173, Graph 401. False: no such user.
    pub fn revoke_user(&self, user: &str) -> bool {
        self.state.revoke(user, true)
    }

    /// Graph refuses the user's access tokens; refresh tokens live on. False: no such user.
    pub fn revoke_access_tokens(&self, user: &str) -> bool {
        self.state.revoke(user, false)
    }

    pub fn sign_with(&self, key: KeyName) {
        self.state.keys.sign_with(key);
    }

    pub fn publish_keys(&self, keys: &[KeyName]) {
        self.state.keys.publish(keys);
    }

    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.state.requests.all()
    }

    pub fn authorize_requests(&self) -> Vec<AuthorizeRequest> {
        self.state.authorizations.all()
    }

    /// What the endpoints of managed identities were asked.
    pub fn identity_requests(&self) -> Vec<IdentityRequest> {
        self.state.identity_requests.all()
    }

    /// What is known of a refresh token: how often it was presented and redeemed, what became of it.
    pub fn refresh_token(&self, text: &str) -> Option<RefreshToken> {
        self.state.tokens.refresh_token(text)
    }

    pub fn jwks_fetches(&self) -> u64 {
        self.state.jwks_fetches.load(Ordering::Relaxed)
    }

    pub fn discovery_fetches(&self) -> u64 {
        self.state.discovery_fetches.load(Ordering::Relaxed)
    }

    /// Forgets the records, not the tokens.
    pub fn clear(&self) {
        self.state.clear();
    }

    /// Closes the listener and all connections: from now on connections are refused.
    pub async fn down(&self) {
        self.server.down().await;
    }

    /// Listens on the same port again, with everything that it knew.
    pub fn up(&self) -> io::Result<()> {
        self.server.up()
    }

    pub fn close_connections(&self) {
        self.server.close_connections();
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

impl State {
    async fn respond(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let Some(body) = wire::whole(body, LARGEST_BODY).await else {
            return Reply::Answer(answers::any(413, &[], "too large"));
        };
        if let Some(verb) = head.uri.path().strip_prefix(control::PREFIX) {
            let records = |name: &str| (name == "requests").then(|| json!(self.requests.all()));
            return Reply::Answer(control::answer(self, verb, &head, &body, records, || self.clear()));
        }
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default();
        if let Some(source) = managed::source(&path).filter(|_| head.method == Method::GET) {
            return managed::answer(self, source, &head.headers, query).await;
        }
        let Some((tenant, rest)) = path.trim_start_matches('/').split_once('/') else {
            return Reply::Answer(answers::any(404, &[], ""));
        };
        if !self.knows(tenant) && (tenant, rest) != ("consumers", "oauth2/v2.0/token") {
            return Reply::Answer(errors::answer(self, &TokenFault::aadsts(90002)));
        }
        match (&head.method, rest) {
            (&Method::GET, "v2.0/.well-known/openid-configuration") => discovery::document(self, tenant).await,
            (&Method::GET, "discovery/v2.0/keys") => discovery::keys(self, tenant).await,
            (&Method::GET | &Method::POST, "oauth2/v2.0/authorize") => {
                authorize::answer(self, tenant, query, &body, head.method == Method::POST).await
            }
            (&Method::POST, "oauth2/v2.0/token") => token::answer(self, tenant, &head.headers, &body).await,
            (&Method::POST, "oauth2/v2.0/devicecode") => device::start(self, tenant, &head.headers, &body).await,
            (&Method::GET | &Method::POST, "oauth2/deviceauth") => {
                Reply::Answer(device::page(self, query, &body, head.method == Method::POST))
            }
            (&Method::GET | &Method::POST, "oauth2/v2.0/logout") => Reply::Answer(authorize::logout(query)),
            _ => Reply::Answer(answers::any(404, &[], "")),
        }
    }

    fn knows(&self, tenant: &str) -> bool {
        let known = [self.options.tenant.as_str(), self.options.domain.as_str(), "common", "organizations"];
        known.iter().any(|name| name.eq_ignore_ascii_case(tenant))
    }

    fn issuer(&self, tenant: &str) -> String {
        format!("{}/{tenant}/v2.0", self.origin)
    }

    fn user(&self, alias: &str) -> Option<&User> {
        self.by_alias.get(alias).map(|index| &self.users[*index])
    }

    /// A user, or the application.
    pub(super) fn principal(&self, alias: &str) -> Option<&User> {
        if alias == APP { Some(&self.app) } else { self.user(alias) }
    }

    /// Whether a resource is the application itself.
    fn is_own(&self, resource: &str) -> bool {
        resource.strip_prefix("api://").unwrap_or(resource) == self.options.client_id
    }

    pub(super) fn assertion(&self, user: &str, assertion: &Assertion) -> String {
        let stranger = || User {
            alias: user.to_owned(),
            oid: random::guid(),
            name: user.to_owned(),
            mail: format!("{user}@elsewhere.example"),
        };
        let user = self.principal(user).cloned().unwrap_or_else(stranger);
        let scope = scope::Scope {
            granted: assertion.scope.as_str().into(),
            audience: self.options.client_id.as_str().into(),
            openid: false,
            offline: false,
        };
        let claims = assertion.claims.as_deref().and_then(AskedClaims::parse).unwrap_or_default();
        let minting = token::Minting { claims, interactive: true, life: assertion.life, flaw: assertion.flaw };
        token::issue_access(self, &user, &scope, minting).text.to_string()
    }

    /// Signs users in without a browser: of those of the tenant, `count` after the first `skip`.
    pub(super) fn grants(&self, skip: usize, count: usize) -> impl Iterator<Item = Grant> {
        let users = self.users.iter().skip(skip).take(count);
        users.filter_map(|user| token::grant(self, &user.alias, DEFAULT_SCOPE))
    }

    pub(super) fn federated_token(&self) -> String {
        federation::cluster_token(self, 3600)
    }

    pub(super) fn identity_requests(&self) -> Vec<IdentityRequest> {
        self.identity_requests.all()
    }

    /// The user that a hint means: an alias, an address, an object id.
    fn meant(&self, hint: &str) -> Option<&User> {
        self.user(hint).or_else(|| self.users.iter().find(|user| user.is(hint)))
    }

    fn policy(&self) -> Policy {
        Policy { rotation: self.options.rotation, life: self.options.refresh_token_life }
    }

    pub(super) fn revoke(&self, user: &str, all: bool) -> bool {
        let Some(user) = self.principal(user) else { return false };
        self.tokens.revoke_access(&user.alias, self.clock.now());
        if all {
            self.tokens.revoke_refresh(&user.alias);
        }
        true
    }

    fn clear(&self) {
        self.requests.clear();
        self.authorizations.clear();
        self.identity_requests.clear();
        self.discovery_fetches.store(0, Ordering::Relaxed);
        self.jwks_fetches.store(0, Ordering::Relaxed);
    }
}
