//! The configuration as it is meant: checked, with every default filled in and every file that it names read.
//!
//! `raw` is the file as written, `resolve` turns it into what stands here, with all mistakes in one report. A component gets its own
//! section, never the whole. Secrets are `Secret`s: they can't be printed.

mod changes;
mod client;
mod files;
pub mod keys;
mod load;
mod mistakes;
mod network;
mod print;
mod raw;
mod read;
mod resolve;
mod schema;
mod tree;
mod values;
mod watched;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;
use url::Url;

pub use changes::Changes;
pub use client::{Client, ClientCredential, ClientLimits, Identity, JwtIssuer};
pub use load::{Loaded, Source};
pub use mistakes::{Mistake, Mistakes};
pub use network::Network;
pub use raw::{environment, temporary_directory};
pub use resolve::{client_id, client_name, tenant};
pub use schema::schema;
pub use tree::Origin;
pub use values::safe_origin;
pub use watched::Files;

use crate::clock::Timestamp;
use crate::secret::Secret;

#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub signin: Signin,
    pub store: Store,
    pub providers: BTreeMap<String, Provider>,
    pub upstreams: BTreeMap<String, Upstream>,
    pub clients: Vec<Client>,
    pub audit: Audit,
    pub log: Log,
    pub traces: Traces,
    pub masked: Masked,
}

/// The whole configuration as it may be shown: secrets and hashes of keys masked.
#[derive(Clone, Debug, Default)]
pub struct Masked {
    /// With a comment where a value is no default.
    pub toml: String,
    pub json: serde_json::Value,
}

/// `[audit]`: the record of who did what; older ones than `keep` are erased.
#[derive(Clone, Debug)]
pub struct Audit {
    pub keep: Duration,
}

/// `[server]`: the data listener.
#[derive(Clone, Debug)]
pub struct Server {
    pub listen: Vec<Listen>,
    /// How clients reach us; an origin, no path.
    pub public_url: Url,
    /// Further host names accepted in `Host`, lower case, without a port.
    pub allowed_hosts: Vec<String>,
    /// Networks whose `X-Forwarded-For` is believed, for logs and limits only, and `X-Forwarded-Proto`, for links.
    pub trusted_proxies: Vec<Network>,
    /// Never 0: the number of cores is filled in.
    pub workers: usize,
    /// The listeners' ports may be another bearerd's too: the next one's, or that of the one before.
    pub share_port: bool,
    pub tls: Option<Tls>,
    pub limits: ServerLimits,
}

/// `[server.limits]`. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Open client connections in all.
    pub connections: usize,
    /// Requests in flight in all; past it new ones wait, and are `overloaded`.
    pub requests: usize,
    /// How long a new one waits for one of those to end; zero: not at all.
    pub wait: Duration,
    /// How many wait at a time.
    pub waiting: usize,
    /// Resident memory past which nothing new is taken on; `None`: as the control group says; 0: never.
    pub memory_bytes: Option<u64>,
    /// From the first byte of a head (or the end of the last answer) to the end of the head.
    pub header_timeout: Duration,
    /// One request's head; past it `headers_too_large`.
    pub header_bytes: usize,
    /// The request target; past it `uri_too_long`.
    pub uri_bytes: usize,
    /// A request body; `None`: no limit. Past it `body_too_large`.
    pub body_bytes: Option<u64>,
    /// Kept of one request body for a replay.
    pub replay_bytes: usize,
    /// Kept of all request bodies together.
    pub replay_total_bytes: usize,
    /// Between the moment when a shutdown shows, and the one when nothing more is accepted.
    pub drain_delay: Duration,
    /// How long a drain waits for requests that are under way.
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Certificate chain, key and optional client CA, as PEM text that was read and parsed once by `resolve`.
#[derive(Clone, Debug)]
pub struct Tls {
    pub cert_file: PathBuf,
    pub cert_pem: String,
    pub key_file: PathBuf,
    pub key_pem: Secret<String>,
    pub client_ca_pem: Option<String>,
}

/// `[admin]`: health, metrics.
#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: Listen,
    pub token: Option<Secret<String>>,
}

/// `[signin]`: the pages under `/.bearerd/`.
#[derive(Clone, Debug)]
pub struct Signin {
    /// `None`: on the data listener.
    pub listen: Option<Listen>,
    /// Where browsers reach the pages; the redirect URI is built from it. An origin, no path.
    pub public_url: Url,
    pub mode: SigninMode,
    pub device_code: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigninMode {
    Invite,
    Open,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    /// The directory of the embedded store.
    pub path: PathBuf,
    pub key_file: PathBuf,
    /// `store.key` where the key came by environment instead of a file.
    pub key: Option<Secret<String>>,
}

/// `[providers.ID]`: an identity provider and our app registration there.
#[derive(Clone, Debug)]
pub struct Provider {
    pub id: String,
    pub kind: ProviderKind,
    pub client_id: String,
    /// Tried in order; empty: a public client.
    pub credentials: Vec<AppCredential>,
    pub allowed_tenants: Vec<String>,
    pub rotation: Rotation,
    /// PEM of further trust anchors for the provider's own TLS.
    pub ca_pem: Option<String>,
    /// What we tell the provider that we can handle; `cp1` asks for claims challenges. Empty: nothing.
    pub client_capabilities: Vec<String>,
    /// A refresh token that nobody uses for this long lapses; `None`: it does not, as far as we know.
    pub idle_limit: Option<Duration>,
    pub token_requests: TokenRequests,
}

/// How much we ask of a provider's token endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRequests {
    pub concurrent: usize,
    pub per_second: f64,
}

impl Default for TokenRequests {
    fn default() -> Self {
        Self { concurrent: 32, per_second: 200.0 }
    }
}

#[derive(Clone, Debug)]
pub enum ProviderKind {
    /// `authority` is an origin without the tenant; `tenant` a GUID, a domain, `organizations` or `common`.
    Entra {
        authority: Url,
        tenant: String,
    },
    Oidc {
        issuer: Url,
    },
}

/// Tenants of Entra ID that stand for several. A token without a signed-in user belongs to one.
pub fn is_several_tenants(tenant: &str) -> bool {
    ["common", "organizations", "consumers"].iter().any(|several| tenant.eq_ignore_ascii_case(several))
}

/// A credential of our own app registration.
#[derive(Clone, Debug)]
pub enum AppCredential {
    Secret {
        secret: Secret<String>,
        /// As the operator says: a secret does not tell.
        expires: Option<Timestamp>,
    },
    Certificate {
        cert_pem: String,
        key_pem: Secret<String>,
    },
    /// Read again at each use.
    FederatedTokenFile(PathBuf),
    /// Of the machine that we run on.
    ManagedIdentity(ManagedIdentity),
}

/// A managed identity of Azure, and where its tokens are to be had.
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    /// Of a user-assigned identity; `None`: the system-assigned one.
    pub client_id: Option<String>,
    pub source: ManagedIdentitySource,
}

#[derive(Clone, Debug)]
pub enum ManagedIdentitySource {
    /// The metadata service of a virtual machine; the origin.
    Imds(Url),
    /// App Service, Functions, Container Apps: `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    AppService { endpoint: Url, header: Secret<String> },
}

/// What a provider does with a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The old one stays valid (Entra ID).
    Tolerant,
    /// The old one is dead; using it again kills the whole family.
    Strict,
    /// The previous one stays valid for this long.
    Grace(Duration),
}

/// `[upstreams.NAME]`: an API that we proxy.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: String,
    pub kind: UpstreamKind,
    /// An origin, no path.
    pub url: Url,
    pub provider: String,
    /// As configured; `openid`, `profile` and `offline_access` are added by `oauth`.
    pub scopes: Vec<String>,
    /// What a client with `identity = "app"` gets, such as `https://graph.microsoft.com/.default`.
    pub app_scopes: Vec<String>,
    /// Links are turned between the upstream's origin and what the client used.
    pub rewrite_links: bool,
    pub ca_pem: Option<String>,
    pub http: HttpVersion,
    /// Until the upstream's first byte of an answer.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Without a byte in either direction.
    pub idle_timeout: Duration,
    pub throttling: Throttling,
}

/// What an upstream is, beyond an API that takes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Microsoft Graph: with `$batch`, and with workloads that are throttled each on its own.
    Graph,
    Rest,
}

/// `[upstreams.NAME.throttling]`: how requests fare when the upstream has enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttling {
    /// From a request's beginning: longer than this nobody is kept waiting.
    pub patience: Duration,
    /// Requests at a time for a mailbox; `None`: no limit.
    pub mailbox_concurrent: Option<usize>,
    /// Requests that wait at one gate.
    pub queue: usize,
    /// Retries as a part of all requests.
    pub retry_budget: f64,
}

impl Default for Throttling {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), mailbox_concurrent: Some(4), queue: 64, retry_budget: 0.2 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// By ALPN over TLS; HTTP/1.1 on plaintext.
    Auto,
    Http1,
    Http2,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
    pub access: LogAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What the access event says of the request's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAccess {
    /// The path without the query.
    Path,
    Off,
}

/// `[traces]`.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Where spans are sent; `None`: nothing is traced.
    pub endpoint: Option<Url>,
    /// For the collector; the values are marked as sensitive.
    pub headers: HeaderMap,
    /// PEM of further trust anchors for the collector's TLS.
    pub ca_pem: Option<String>,
    /// Of the requests that start a trace here, 0 to 1.
    pub sample: f64,
    pub service_name: String,
}
