//! What all workers share, made once: the clients, the routes, the limits; and what holds for every request, whoever sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::caller::Clients;
use super::error::{self, Kind, Refusal};
use super::limits::{self, Counter, Pass};
use super::replay::{Caps, Replay};
use super::reply::ReplyBody;
use super::route::Routes;
use super::upstream::{Template, TemplateError};
use super::{Peer, outbound, policy};
use crate::account::Alias;
use crate::clock::Clock;
use crate::config::{self, AccessLog, ServerLimits};
use crate::hosts::{HostRefusal, Hosts};
use crate::metrics::Metrics;
use crate::vault::{UpstreamId, Vault};

/// A `$batch` is at most 20 requests; what is longer than this is not looked into.
const LONGEST_BATCH: usize = 4 << 20;

/// Makes a sign-in link for an account that needs one.
pub trait SigninLinks: Send + Sync {
    fn link<'a>(&'a self, alias: &'a Alias) -> std::pin::Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;
}

/// What all workers share.
pub struct Shared {
    pub(super) clients: Arc<Clients>,
    pub(super) routes: Routes,
    pub(super) templates: Vec<(Arc<Template>, UpstreamId)>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) own_origins: Vec<String>,
    pub(super) vault: Vault,
    pub(super) links: Arc<dyn SigninLinks>,
    pub(super) limits: ServerLimits,
    pub(super) trusted_proxies: Vec<config::Network>,
    pub(super) in_flight: Arc<Counter>,
    pub(super) caps: Caps,
    pub(super) log: AccessLog,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// What `Shared` is made of.
pub struct Setup<'a> {
    pub server: &'a config::Server,
    pub upstreams: &'a BTreeMap<String, config::Upstream>,
    pub clients: Arc<Clients>,
    pub log: AccessLog,
    pub hosts: Arc<Hosts>,
    pub vault: Vault,
    pub links: Arc<dyn SigninLinks>,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl Shared {
    pub fn new(setup: Setup<'_>) -> Result<Self, TemplateError> {
        let Setup { server, upstreams, clients, log, hosts, vault, links, clock, metrics } = setup;
        let mut templates = Vec::new();
        for config in upstreams.values() {
            if let Some(id) = vault.upstream(&config.name) {
                templates.push((Arc::new(Template::new(config, &clock, &metrics)?), id));
            }
        }
        let names: Vec<String> = upstreams.keys().cloned().collect();
        let own_origins = std::iter::once(&server.public_url).chain(upstreams.values().map(|upstream| &upstream.url));
        Ok(Self {
            clients,
            routes: Routes {
                root: names.iter().position(|name| name == "graph").or((names.len() == 1).then_some(0)),
                hosts: upstreams.values().filter_map(|upstream| upstream.url.host_str().map(str::to_owned)).collect(),
                names,
            },
            templates,
            hosts,
            own_origins: own_origins.map(|url| url.origin().ascii_serialization()).collect(),
            vault,
            links,
            in_flight: Arc::new(Counter::new(server.limits.requests)),
            caps: Caps {
                each: server.limits.replay_bytes,
                budget: Arc::new(AtomicUsize::new(server.limits.replay_total_bytes)),
                longest: server.limits.body_bytes,
            },
            limits: server.limits.clone(),
            trusted_proxies: server.trusted_proxies.clone(),
            log,
            clock,
            metrics,
        })
    }

    /// What holds for every request, whoever sends it. Returns the host name that the client used.
    pub(super) fn admit<'h>(&self, head: &'h Parts, peer: &Peer) -> Result<Option<&'h str>, Refusal> {
        // First: every other refusal leaves the connection open.
        framing(head)?;
        let host = self.hosts.check(head).map_err(|refusal| match refusal {
            HostRefusal::NotAllowed => Kind::HostNotAllowed
                .because("this host name is not one of ours; the operator can add it to server.allowed_hosts"),
            other => Kind::BadRequest.because(other.to_string()),
        })?;
        if self.hosts.cross_site(head, peer.secure) {
            return Err(Kind::CrossSiteRefused.because("a page of another origin may not use this proxy"));
        }
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Err(Kind::BadRequest.because(format!("the method {} is not served", head.method)));
        }
        if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > self.limits.uri_bytes) {
            return Err(Kind::UriTooLong.because(format!("the target is longer than {} bytes", self.limits.uri_bytes)));
        }
        let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > self.limits.header_bytes {
            return Err(Kind::HeadersTooLarge
                .because(format!("the headers are larger than {} bytes", self.limits.header_bytes)));
        }
        outbound::refuse_folding_names(&head.headers)?;
        if let (Some(longest), Some(length)) = (self.limits.body_bytes, content_length(&head.headers))
            && length > longest
        {
            return Err(Kind::BodyTooLarge.because(format!("the body is longer than {longest} bytes")));
        }
        Ok(host)
    }

    /// The passes of one request: among all, and among its client's.
    pub(super) fn enter(&self, gate: &limits::ClientGate) -> Result<[Option<Pass>; 2], Refusal> {
        let overloaded = || Kind::Overloaded.because("too many requests are under way").after(Duration::from_secs(1));
        let own = gate.enter(self.clock.moment())?;
        Ok([Some(self.in_flight.enter().ok_or_else(overloaded)?), own])
    }

    /// The body of the batch is read, judged and kept for sending.
    pub(super) async fn judge_members(
        &self,
        policy: &policy::Policy,
        body: &Replay,
        path: &str,
        addressed: Option<String>,
        silence: Duration,
    ) -> Result<(), Refusal> {
        let read =
            body.read_all(LONGEST_BATCH, silence).await.map_err(|error| Kind::BadRequest.because(error.to_string()))?;
        let read = read.ok_or_else(|| Kind::BodyTooLarge.because("the $batch is too long to be judged"))?;
        let version = path.strip_suffix("/$batch").unwrap_or(path);
        let own: Vec<String> = self.own_origins.iter().cloned().chain(addressed).collect();
        policy.permit_batch(&read, version, &own)
    }

    /// A refusal of the upstream's own that goes through. A 403 is left as it is: nothing tells it apart from any other.
    pub(super) fn unhealed(&self, mut answer: Response<ReplyBody>, why: &'static str) -> Response<ReplyBody> {
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.metrics.upstream_401(why);
            answer.headers_mut().insert(error::BEARERD_ERROR, HeaderValue::from_static("upstream_401"));
        }
        answer
    }
}

/// Framing that could be read in two ways. hyper has refused most of it; the list of codings is ours to check.
pub fn framing(head: &Parts) -> Result<(), Refusal> {
    let bad = |why: &str| Err(Kind::BadRequest.because(why).closing());
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(_), _) if head.version < Version::HTTP_11 => return bad("HTTP/1.0 has no Transfer-Encoding"),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            if head.headers.contains_key(header::CONTENT_LENGTH) {
                return bad("Content-Length and Transfer-Encoding exclude each other");
            }
        }
        _ => return Err(Kind::BadRequest.because("the only Transfer-Encoding served is chunked").closing()),
    }
    let mut expectations = head.headers.get_all(header::EXPECT).iter();
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => bad("the only Expect served is 100-continue"),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
