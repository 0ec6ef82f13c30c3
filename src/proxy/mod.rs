//! The data path: one request, top to bottom.
//!
//! `handle` opens the request's account, runs the story in `serve`, turns a refusal into an answer and lets go of the access event when the
//! answer has been sent. `serve` never turns back. Every decision in it is a function of its own, in a file of its own.
//!
//! Invariants: who asks is decided once, from authenticated evidence only; a token goes to the configured upstream and nowhere
//! else; nothing of the client's own credentials goes out; a request is sent again only where that can do no harm.

mod access;
mod batch;
mod bearers;
pub mod caller;
pub mod canonical;
mod error;
mod forwarded;
mod limits;
pub mod outbound;
mod passwords;
pub mod policy;
mod replay;
pub mod reply;
mod request_id;
pub mod route;
mod shared;
mod subject;
mod upstream;
pub mod verdict;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};

use self::access::Access;
use self::caller::{BEARERD_ACCOUNT, Presented, once};
pub use self::error::{Kind, Refusal};
use self::outbound::{CLIENT_REQUEST_ID, OutboundHead};
use self::replay::{Replay, ReplayError};
pub use self::reply::ReplyBody;
use self::route::Route;
pub use self::shared::{Setup, Shared, SigninLinks, framing};
pub use self::upstream::TemplateError;
use self::upstream::{SendError, Template, Upstream};
use self::verdict::{Facts, Failure, Outcome, Renewed, Verdict};
use crate::claims::Claims;
use crate::clock::Clock;
use crate::config;
use crate::graph::{challenge, retry_after};
use crate::metrics::Metrics;
use crate::store::Reason;
use crate::vault::{Lease, LeaseError, Rejected, Subject, UpstreamId};

const BEARERD_RETRY: HeaderName = HeaderName::from_static("bearerd-retry");
/// The body of a 401 is kept while the token is renewed, if it is not longer than this.
const LONGEST_KEPT_ANSWER: usize = 64 << 10;

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

/// One worker's proxy: its own connections, everything else shared.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
    upstreams: Arc<[Arc<Upstream>]>,
}

impl Proxy {
    /// The proxy of one worker. To be called on the worker.
    pub fn new(shared: Arc<Shared>) -> Self {
        let upstreams = shared.templates.iter().map(|(template, _)| Arc::new(Upstream::new(Arc::clone(template))));
        Self { upstreams: upstreams.collect(), shared }
    }

    pub async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Response<ReplyBody> {
        let shared = &*self.shared;
        let (head, body) = request.into_parts();
        let request_id = request_id::new();
        let client_request_id = head.headers.get(&CLIENT_REQUEST_ID).cloned();
        let origin = forwarded::origin(&peer.address, &head.headers, &shared.trusted_proxies);
        // Boxed: it travels with the answer, through every layer.
        let mut access = Box::new(Access::new(&head, origin, &request_id, shared.log, &shared.clock, &shared.metrics));
        // hyper closes a connection whose request was not read to its end; the client should know.
        let unread = head.version < Version::HTTP_2 && !body.is_end_stream();
        let mut response = match self.serve(head, body, peer, &request_id, &mut access).await {
            Ok(response) => response,
            Err(mut refusal) => {
                access.error = Some(refusal.kind);
                refusal.closes |= unread;
                let client_request_id = client_request_id.as_ref().and_then(|id| id.to_str().ok());
                refusal.answer(&request_id, client_request_id.unwrap_or(&request_id), shared.clock.now())
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
        let presented = Presented::read(&head.headers)?;
        let caller = shared.clients.identify(&presented, peer).await?;
        let client = &caller.client;
        access.client = Arc::clone(&client.name);
        let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let Route { upstream: index, alias, target, .. } =
            shared.routes.find(target.as_str(), host).ok_or_else(|| {
                Kind::NotFound
                    .because("neither an upstream's path nor one of ours; Graph's begin with /v1.0/ or /beta/")
            })?;
        let (upstream, upstream_id) = (&self.upstreams[index], shared.templates[index].1);
        access.upstream = Arc::clone(&upstream.template.name);
        let subject =
            caller.subject([alias.as_deref(), presented.user.as_deref(), once(&head.headers, &BEARERD_ACCOUNT)?])?;
        access.subject = Some(subject.clone());
        access.passes = shared.enter(&client.gate)?;
        let path = canonical::canonical(target.split('?').next().unwrap_or_default())
            .ok_or_else(|| Kind::BadRequest.because("the path can be read in two ways"))?;
        let body = Replay::new(body, &shared.caps, &shared.clock);
        match client.policy.permit(&head.method, &path, &head.headers) {
            Ok(policy::Verdict::Permitted) => {}
            Ok(policy::Verdict::JudgeMembers) => {
                let silence = upstream.template.config.timeout;
                shared.judge_members(&client.policy, &body, &path, addressed(&head, peer), silence).await?;
            }
            Err(denied) => {
                tracing::info!(target: "bearerd::audit", event = "policy_denied", client = &*client.name, account = &*access::account(&subject), method = %head.method, path = &*path);
                return Err(denied);
            }
        }
        let may_retry = head.headers.get(&BEARERD_RETRY).is_none_or(|value| value != "off");
        let safe = matches!(head.method, Method::GET | Method::HEAD);
        let outbound = OutboundHead::new(head, target, request_id, &upstream.template.destination)?;
        let mut lease = self.lease(&subject, upstream_id).await?;
        let mut facts = Facts {
            outcome: Outcome::Failed(Failure::NotSent),
            safe,
            can_repeat: true,
            may_retry,
            renewed: Renewed::No,
            waits: 0,
            waited: Duration::ZERO,
            failures: 0,
        };
        loop {
            let started = shared.clock.moment();
            let sent = upstream.send(outbound.attempt(&lease.authorization), &body).await;
            access.attempts += 1;
            access.upstream_took =
                Some(access.upstream_took.unwrap_or_default() + shared.clock.moment().since(started));
            facts.can_repeat = body.can_repeat();
            let claims = asked(&sent);
            facts.outcome = outcome(&sent, claims.is_some(), shared.clock.now());
            match (verdict::decide(&facts), sent) {
                (Verdict::NewToken, Ok(answer)) => {
                    let mut answer = deliver(answer, upstream, peer.secure);
                    answer.body_mut().settle(LONGEST_KEPT_ANSWER).await;
                    if !body.recall() {
                        shared.vault.reject_behind(&subject, &lease, upstream_id, claims.as_ref());
                        return Ok(shared.unhealed(answer, "body_not_kept"));
                    }
                    match shared.vault.reject(&subject, &lease, upstream_id, claims.as_ref()).await {
                        Ok(Rejected::Renewed(renewed)) => lease = renewed,
                        Ok(Rejected::TooYoung) => return Ok(shared.unhealed(answer, "too_young")),
                        Err(error) if claims.is_some() && nobody_can_help(&subject, &error) => {
                            return Ok(shared.unhealed(answer, "claims_refused"));
                        }
                        Err(error) => return Err(self.refuse(error, &subject, claims).await),
                    }
                    shared.metrics.retried(if claims.is_some() { "claims" } else { "401" });
                    facts.renewed = if claims.is_some() { Renewed::Challenged } else { Renewed::Plain };
                }
                (Verdict::NewTokenForLater, Ok(answer)) => {
                    shared.vault.reject_behind(&subject, &lease, upstream_id, claims.as_ref());
                    return Ok(shared.unhealed(deliver(answer, upstream, peer.secure), "body_not_kept"));
                }
                (Verdict::Wait(wait), Ok(answer)) if body.recall() => {
                    deliver(answer, upstream, peer.secure).body_mut().settle(LONGEST_KEPT_ANSWER).await;
                    tokio::time::sleep(wait).await;
                    shared.metrics.retried("throttled");
                    (facts.waits, facts.waited) = (facts.waits + 1, facts.waited + wait);
                }
                (Verdict::Again, _) if body.recall() => {
                    shared.metrics.retried("connection");
                    facts.failures += 1;
                }
                (Verdict::GiveUp { maybe_executed }, sent) => return Err(give_up(sent.err(), &body, maybe_executed)),
                (_, Ok(answer)) => {
                    let answer = deliver(answer, upstream, peer.secure);
                    if may_retry && claims.is_some() && matches!(subject, Subject::OnBehalfOf(_)) {
                        let text = "the upstream still asks for it with the new token".to_owned();
                        return Err(LeaseError::Challenge { text, claims }.into());
                    }
                    if may_retry && (answer.status() == StatusCode::UNAUTHORIZED || claims.is_some()) {
                        return Ok(shared.unhealed(answer, "refused_again"));
                    }
                    if facts.renewed != Renewed::No {
                        shared.metrics.upstream_401("healed");
                    }
                    return Ok(answer);
                }
                (_, Err(error)) => return Err(give_up(Some(error), &body, !safe)),
            }
        }
    }

    async fn lease(&self, subject: &Subject, upstream: UpstreamId) -> Result<Arc<Lease>, Refusal> {
        match self.shared.vault.lease(subject, upstream).await {
            Ok(lease) => Ok(lease),
            Err(error) => Err(self.refuse(error, subject, None).await),
        }
    }

    /// The refusal for a missing token, with what mends it where a sign-in does: a link, or for a caller who acts on behalf of somebody the
    /// challenge. `claims`: the upstream's own.
    async fn refuse(&self, error: LeaseError, subject: &Subject, claims: Option<Claims>) -> Refusal {
        let error = match error {
            LeaseError::Challenge { text, claims: said } => LeaseError::Challenge { text, claims: said.or(claims) },
            LeaseError::SigninRequired(reason) if !reason.dead => {
                LeaseError::SigninRequired(Reason { claims: reason.claims.or(claims), ..reason })
            }
            error => error,
        };
        let mut refusal = Refusal::from(error);
        if let Subject::User(account) = subject
            && refusal.kind == Kind::SigninRequired
        {
            refusal.signin_url = self.shared.links.link(account).await;
        }
        refusal
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

/// The origin that the client used for us; `Host` was checked before.
fn addressed(head: &Parts, peer: &Peer) -> Option<String> {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str).or(host)?;
    Some(format!("{}://{authority}", if peer.secure { "https" } else { "http" }))
}

type Sent = Result<(Response<Incoming>, upstream::Hold), SendError>;

/// What a refusal of the upstream asks a new token to be got with.
fn asked(sent: &Sent) -> Option<Claims> {
    let (response, _) = sent.as_ref().ok()?;
    let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if refused { challenge::challenge(response.headers()) } else { None }
}

/// Behind the application itself there is nobody who could sign in: that it can't have what the upstream asks for, the upstream says best.
fn nobody_can_help(subject: &Subject, error: &LeaseError) -> bool {
    matches!((subject, error), (Subject::App, LeaseError::Misconfigured(_)))
}

fn outcome(sent: &Sent, challenged: bool, now: crate::clock::Timestamp) -> Outcome {
    match sent {
        Err(error) => Outcome::Failed(error.failure),
        Ok((response, _)) => {
            let values = response.headers().get_all(header::RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
            let retry_after = retry_after::parse(values, now);
            Outcome::Answer { status: response.status().as_u16(), retry_after, challenged }
        }
    }
}

/// The upstream's answer, made fit for the client.
fn deliver(
    (response, hold): (Response<Incoming>, upstream::Hold),
    upstream: &Upstream,
    secure: bool,
) -> Response<ReplyBody> {
    let (mut head, incoming) = response.into_parts();
    reply::filter(&mut head.headers, secure);
    head.version = Version::HTTP_11;
    Response::from_parts(head, ReplyBody::streaming(incoming, hold, upstream.template.config.idle_timeout))
}

fn give_up(error: Option<SendError>, body: &Replay, maybe_executed: bool) -> Refusal {
    if matches!(body.failure(), Some(ReplayError::TooLong)) {
        return Kind::BodyTooLarge.because("the body is longer than allowed").maybe_executed(maybe_executed);
    }
    let (kind, text) = match error {
        Some(SendError { failure: Failure::TimedOut, text }) => (Kind::UpstreamTimeout, text),
        Some(SendError { failure: Failure::Body, text }) => (Kind::BadRequest, text),
        Some(SendError { text, .. }) => (Kind::UpstreamUnreachable, text),
        None => (Kind::UpstreamUnreachable, "the upstream's answer is not one".to_owned()),
    };
    kind.because(text).maybe_executed(maybe_executed)
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
