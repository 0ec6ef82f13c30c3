//! What all workers share, made once for a configuration: the clients, the routes, the limits; and what holds for every request, whoever
//! sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use memchr::memchr;
use url::Url;

use super::admission::{Admission, Seat};
use super::caller::{Client, Clients};
use super::error::{self, Kind, Refusal};
use super::gates::Gates;
use super::limits::Pass;
use super::naming::Origins;
use super::replay::{Caps, Replay};
use super::reply::ReplyBody;
use super::route::Routes;
use super::upstream::{Template, TemplateError};
use super::{Peer, outbound};
use crate::account::Alias;
use crate::audit::Denials;
use crate::clock::Clock;
use crate::config::{self, Changes, ServerLimits};
use crate::hosts::{HostRefusal, Hosts};
use crate::metrics::Metrics;
use crate::process::memory::Pressure;
use crate::traces::Traces;
use crate::vault::{UpstreamId, Vault};

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
    pub(super) origins: Origins,
    pub(super) gates: Gates,
    pub(super) vault: Vault,
    pub(super) links: Arc<dyn SigninLinks>,
    pub(super) limits: ServerLimits,
    pub(super) trusted_proxies: Vec<config::Network>,
    pub(super) admission: Arc<Admission>,
    pub(super) caps: Caps,
    pub(super) denials: Denials,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
}

/// What `Shared` is made of.
pub struct Setup<'a> {
    pub server: &'a config::Server,
    pub upstreams: &'a BTreeMap<String, config::Upstream>,
    pub clients: Arc<Clients>,
    pub hosts: Arc<Hosts>,
    pub vault: Vault,
    pub links: Arc<dyn SigninLinks>,
    pub denials: Denials,
    pub pressure: Pressure,
    pub clock: Clock,
    pub metrics: Metrics,
    pub traces: Traces,
    /// A reload: what did not change stays as it is, with all that it has counted and connected.
    pub before: Option<Before<'a>>,
}

/// What a request keeps until its answer is done.
pub struct Passes {
    /// Among all.
    _seat: Seat,
    /// Among its client's.
    _own: Option<Pass>,
}

/// What was in force, and what is different now.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    pub shared: &'a Shared,
    pub changes: &'a Changes,
}

impl<'a> Before<'a> {
    /// `part` of what was in force, unless the section or key `name` is different.
    fn unchanged<T: Clone + 'a>(self, name: &str, part: impl FnOnce(&'a Shared) -> &'a T) -> Option<T> {
        (!self.changes.touch(name)).then(|| part(self.shared).clone())
    }

    /// The place of the upstream, unless it is different.
    fn place(self, upstream: &str) -> Option<usize> {
        let place = self.shared.templates.iter().position(|(template, _)| *template.name == *upstream);
        place.filter(|_| !self.changes.touch(&format!("upstreams.{upstream}")))
    }
}

impl Shared {
    /// Who may call, for the next configuration.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    pub fn new(setup: Setup<'_>) -> Result<Self, TemplateError> {
        let Setup {
            server,
            upstreams,
            clients,
            hosts,
            vault,
            links,
            denials,
            pressure,
            clock,
            metrics,
            traces,
            before,
        } = setup;
        let (mut templates, mut known) = (Vec::new(), Vec::new());
        for config in upstreams.values() {
            let Some(id) = vault.upstream(&config.name) else { continue };
            let place = before.and_then(|before| before.place(&config.name));
            let template = match (place, before) {
                (Some(place), Some(before)) => Arc::clone(&before.shared.templates[place].0),
                _ => Arc::new(Template::new(config, &clock, &metrics)?),
            };
            templates.push((template, id));
            known.push(place);
        }
        let with_places = templates.iter().map(|(template, _)| &template.config).zip(known);
        let gates = Gates::new(with_places, before.map(|before| &before.shared.gates), &clock, &metrics);
        let admission = before.map(|before| Arc::clone(&before.shared.admission));
        let budget = before
            .and_then(|before| before.unchanged("server.limits.replay_total_bytes", |shared| &shared.caps.budget));
        let origin = |url: &Url| url.origin().ascii_serialization();
        let names: Vec<String> = upstreams.keys().cloned().collect();
        Ok(Self {
            clients,
            routes: Routes {
                root: names.iter().position(|name| name == "graph").or((names.len() == 1).then_some(0)),
                hosts: upstreams.values().map(|upstream| selecting(&upstream.url, &server.public_url)).collect(),
                names,
            },
            templates,
            hosts,
            origins: Origins::new(
                &origin(&server.public_url),
                upstreams.values().map(|upstream| origin(&upstream.url)),
            ),
            gates,
            vault,
            links,
            admission: admission.unwrap_or_else(|| Admission::new(pressure, metrics.clone())),
            caps: Caps {
                each: server.limits.replay_bytes,
                budget: budget.unwrap_or_else(|| Arc::new(AtomicUsize::new(server.limits.replay_total_bytes))),
                longest: server.limits.body_bytes,
            },
            limits: server.limits.clone(),
            trusted_proxies: server.trusted_proxies.clone(),
            denials,
            clock,
            metrics,
            traces,
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
        let (mut size, mut has_underscore) = (0, false);
        for (name, value) in &head.headers {
            size += name.as_str().len() + value.len() + 4;
            has_underscore |= memchr(b'_', name.as_str().as_bytes()).is_some();
        }
        if size > self.limits.header_bytes {
            return Err(Kind::HeadersTooLarge
                .because(format!("the headers are larger than {} bytes", self.limits.header_bytes)));
        }
        if has_underscore {
            outbound::refuse_folding_names(&head.headers)?;
        }
        if let (Some(longest), Some(length)) = (self.limits.body_bytes, content_length(&head.headers))
            && length > longest
        {
            return Err(Kind::BodyTooLarge.because(format!("the body is longer than {longest} bytes")));
        }
        Ok(host)
    }

    /// A request body of ours, in place of the client's.
    pub(super) fn body(&self, body: Bytes) -> Replay {
        Replay::of(body, &self.caps, &self.clock)
    }

    /// The passes of one request. Its client's own limits come first: past them nobody stands in anybody's way.
    pub(super) async fn enter(&self, client: &Client) -> Result<Passes, Refusal> {
        let own = client.gate.enter(self.clock.moment())?;
        let seat = match self.admission.take(&self.limits) {
            Some(seat) => seat,
            None => Box::pin(self.admission.wait(&client.name, &self.limits)).await?,
        };
        Ok(Passes { _seat: seat, _own: own })
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

/// The host name that selects an upstream. Not ours, where both are on one machine: what nobody serves must not end at a neighbour.
fn selecting(upstream: &Url, own: &Url) -> String {
    upstream.host_str().filter(|host| Some(*host) != own.host_str()).unwrap_or_default().to_owned()
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
