//! The data path: one request, top to bottom.
//!
//! `handle` opens the request's account, runs the story in `serve`, turns a refusal into an answer and lets go of the access event when the
//! answer has been sent. `serve` never turns back. Every decision in it is a function of its own, in a file of its own.
//!
//! Invariants: who asks is decided once, from authenticated evidence only; a token goes to the configured upstream and nowhere
//! else; nothing of the client's own credentials goes out; a request is sent again only where that can do no harm.

mod access;
mod admission;
mod batch;
mod bearers;
pub mod caller;
pub mod canonical;
mod error;
mod exchange;
pub mod explain;
mod forwarded;
mod gates;
mod limits;
mod media;
mod message;
mod naming;
pub mod outbound;
mod passwords;
mod patience;
pub mod policy;
mod presented;
mod remembered;
mod replay;
pub mod reply;
mod request_id;
pub mod route;
mod shared;
mod subject;
mod terms;
mod upstream;
pub mod verdict;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, Version};
use hyper::body::{Body as _, Incoming};

use self::access::Access;
pub use self::access::{AccessLog, Entry, Ledger};
use self::caller::{BEARERD_ACCOUNT, Presented, once};
pub use self::error::{Kind, Refusal};
use self::exchange::Exchange;
use self::message::Message;
use self::outbound::{CLIENT_REQUEST_ID, OutboundHead};
use self::patience::Patience;
use self::replay::Replay;
pub use self::reply::ReplyBody;
use self::request_id::RequestId;
pub use self::shared::{Before, Setup, Shared, SigninLinks, framing};
use self::terms::Terms;
pub use self::upstream::TemplateError;
use self::upstream::{Template, Upstream};
use crate::clock::Clock;
use crate::config;
use crate::metrics::Metrics;

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: PeerAddress,
    /// The connection is TLS.
    pub secure: bool,
    /// Subject alternative names (DNS, URI, e-mail, IP as text) of a client certificate that was verified.
    pub names: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum PeerAddress {
    Tcp(SocketAddr),
    Unix { uid: u32, gid: u32 },
}

/// One worker's proxy: its own connections and its own ledger, everything else shared.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
    upstreams: Arc<[Arc<Upstream>]>,
    ledger: Arc<Ledger>,
}

impl Proxy {
    /// The proxy of one worker.
    pub fn new(shared: Arc<Shared>, ledger: Arc<Ledger>) -> Self {
        let upstreams = shared.templates.iter().map(|(template, _)| Arc::new(Upstream::new(Arc::clone(template))));
        Self { upstreams: upstreams.collect(), shared, ledger }
    }

    /// The same worker's by the next configuration, with the connections to upstreams that did not change.
    #[must_use]
    pub fn next(&self, shared: Arc<Shared>) -> Self {
        let upstream = |template: &Arc<Template>| {
            let mut own = self.upstreams.iter();
            let known = own.find(|upstream| Arc::ptr_eq(&upstream.template, template));
            known.map_or_else(|| Arc::new(Upstream::new(Arc::clone(template))), Arc::clone)
        };
        let upstreams = shared.templates.iter().map(|(template, _)| upstream(template)).collect();
        Self { upstreams, shared, ledger: Arc::clone(&self.ledger) }
    }

    pub async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Response<ReplyBody> {
        let shared = &*self.shared;
        let (head, body) = request.into_parts();
        let request_id = RequestId::new();
        let client_request_id = head.headers.get(&CLIENT_REQUEST_ID).cloned();
        let origin = forwarded::origin(&peer.address, &head.headers, &shared.trusted_proxies);
        // Boxed: it travels with the answer, through every layer.
        let mut access =
            Box::new(Access::new(&head, origin, request_id, shared.traces.begin(peer.secure), &self.ledger));
        let request_id = request_id.as_str();
        // hyper closes a connection whose request was not read to its end; the client should know.
        let unread = head.version < Version::HTTP_2 && !body.is_end_stream();
        // Boxed too: every layer above would copy all that a request may ever need.
        let served = Box::pin(self.serve(head, body, peer, request_id, &mut access)).await;
        let mut response = match served {
            Ok(response) => response,
            Err(mut refusal) => {
                access.error = Some(refusal.kind);
                access.denied(&refusal, &shared.denials);
                refusal.closes |= unread;
                let client_request_id = client_request_id.as_ref().and_then(|id| id.to_str().ok());
                refusal.answer(request_id, client_request_id.unwrap_or(request_id), shared.clock.now())
            }
        };
        access.answered(response.status());
        response.body_mut().account_for(access);
        response
    }

    async fn serve(
        &self,
        head: Parts,
        body: Incoming,
        peer: &Peer,
        request_id: &str,
        access: &mut Access,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let shared = &*self.shared;
        let host = shared.admit(&head, peer)?;
        shared.admission.spare_memory()?;
        let presented = Presented::read(&head.headers)?;
        let caller = shared.clients.identify(&presented, peer).await?;
        access.is_from(&caller.client.name, &head.headers);

        let naming = shared.naming(&head, peer);
        let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let target = naming.meant(target.as_str(), host)?;
        let route = naming.lead(&target, host)?;
        let template = &self.upstreams[route.upstream].template;
        access.upstream = Some(Arc::clone(&template.name));

        let account = once(&head.headers, &BEARERD_ACCOUNT)?;
        let named = [route.alias.as_deref(), presented.user(), account];
        let subject = caller.subject(named);
        let subject = subject.inspect_err(|_| access.asked = named.into_iter().flatten().next().map(str::to_owned))?;
        access.subject = Some(subject.clone());
        access.passes = Some(shared.enter(&caller.client).await?);

        let (path, upstream) = (&route.canonical()?, &template.config);
        let terms = Terms { naming: &naming, route: &route, path, caller: &caller, subject: &subject, upstream };
        let body = Replay::new(body, &shared.caps, &shared.clock);
        let message = Message::judged(&terms, shared, &head, body).await?;

        let mut patience = Patience::new(&head.headers, access.started, upstream.throttling.patience, &shared.clock);
        access.place = shared.gates.enter(route.upstream, &subject, &path.text, &mut patience).await?;
        let mut outbound = OutboundHead::new(head, route.target, request_id, &template.destination)?;
        if upstream.rewrite_links {
            media::accept_what_we_read(&mut outbound.headers);
        }
        access.passes_on(&mut outbound.headers);
        let method = outbound.method.clone();
        let mut exchange = Exchange::begin(self, route.upstream, &subject, peer.secure, patience, access).await?;
        let answer = match message {
            Message::Plain(body) => exchange.send(&outbound, &body, access).await?,
            Message::Batch(batch) => Box::pin(batch.run(shared, &terms, &mut exchange, outbound, access)).await?,
        };
        Ok(reply::translate(answer, &terms, &method).await)
    }
}

/// Whether an upstream can be connected to: the name, the address, TLS. Says what was agreed.
pub async fn probe(config: &config::Upstream, clock: &Clock, metrics: &Metrics) -> Result<String, String> {
    let template = Template::new(config, clock, metrics).map_err(|error| error.to_string())?;
    let connected = tokio::time::timeout(config.connect_timeout, template.probe()).await;
    connected
        .map_err(|_| format!("no connection within {} s", config.connect_timeout.as_secs()))?
        .map_err(|error| error.to_string())
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid, .. } => write!(f, "unix:uid={uid}"),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("upstreams", &self.shared.routes.names).finish_non_exhaustive()
    }
}
