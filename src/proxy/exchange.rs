//! One request's dealings with the upstream: attempts, each followed by a verdict, until there is an answer or none to be had.
//!
//! A request is sent again only where that can do no harm (`verdict`). What a token is renewed for, and how long was waited, is kept over all
//! that one request sends (a `$batch` may send parts of itself again).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode, Version, header};

use super::Proxy;
use super::access::Access;
use super::error::{Kind, Refusal};
use super::gates::Place;
use super::outbound::OutboundHead;
use super::patience::Patience;
use super::replay::{Replay, ReplayError};
use super::reply::ReplyBody;
use super::upstream::{Incoming, SendError, Upstream};
use super::verdict::{self, Facts, Failure, Outcome, Renewed, Verdict};
use crate::claims::Claims;
use crate::clock::Clock;
use crate::graph::{challenge, retry_after};
use crate::store::Reason;
use crate::vault::{Lease, LeaseError, Rejected, Subject, UpstreamId};

/// The body of an answer that is not delivered at once is kept, if it is not longer than this.
const LONGEST_KEPT_ANSWER: usize = 64 << 10;

pub struct Exchange<'a> {
    proxy: &'a Proxy,
    /// The upstream's place among all.
    at: usize,
    upstream: &'a Arc<Upstream>,
    upstream_id: UpstreamId,
    subject: &'a Subject,
    /// The client's connection is TLS.
    secure: bool,
    lease: Arc<Lease>,
    facts: Facts,
    patience: Patience,
}

impl<'a> Exchange<'a> {
    /// Takes a token out.
    pub async fn begin(
        proxy: &'a Proxy,
        upstream: usize,
        subject: &'a Subject,
        secure: bool,
        patience: Patience,
        access: &mut Access,
    ) -> Result<Self, Refusal> {
        let at = upstream;
        let (upstream, upstream_id) = (&proxy.upstreams[at], proxy.shared.templates[at].1);
        proxy.shared.gates.budget(at).request(proxy.shared.clock.moment());
        let (step, span) = access.step_with_context();
        let lease = proxy.shared.vault.lease(subject, upstream_id.within(span.as_ref())).await;
        access.leased(step, None, lease.as_ref().err());
        let lease = match lease {
            Ok(lease) => lease,
            Err(error) => return Err(Box::pin(refusal(proxy, error, subject, None)).await),
        };
        let facts = Facts {
            outcome: Outcome::Failed(Failure::NotSent),
            safe: false,
            can_repeat: true,
            may_retry: patience.may_retry,
            renewed: Renewed::No,
            waits: 0,
            left: None,
            failures: 0,
        };
        Ok(Self { proxy, at, upstream, upstream_id, subject, secure, lease, facts, patience })
    }

    /// Sends a request until there is an answer for the client.
    pub async fn send(
        &mut self,
        head: &OutboundHead,
        body: &Replay,
        access: &mut Access,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let shared = &*self.proxy.shared;
        let may_retry = self.facts.may_retry;
        self.facts.safe = matches!(head.method, Method::GET | Method::HEAD);
        let renewed_before = self.facts.renewed;
        let mut fresh = false;
        loop {
            let started = shared.clock.moment();
            let (step, traceparent) = access.attempt();
            let attempt = head.attempt(&self.lease.authorization, started).traced(traceparent.as_ref());
            let sent = self.upstream.send(attempt, body, fresh).await;
            access.attempts += 1;
            access.upstream_took =
                Some(access.upstream_took.unwrap_or_default() + shared.clock.moment().since(started));
            self.facts.can_repeat = body.can_repeat();
            let claims = asked(&sent);
            self.facts.outcome = outcome(&sent, claims.is_some(), &shared.clock);
            access.attempted(step, &self.upstream.template, &head.method, self.facts.outcome);
            if let (Outcome::Answer { status: 429, retry_after, .. }, Some(place)) = (self.facts.outcome, &access.place)
            {
                place.throttled(retry_after.unwrap_or(verdict::unsaid(self.facts.waits)));
            }
            match (self.decide(self.facts), sent) {
                (Verdict::NewToken, Ok(answer)) => {
                    let mut answer = self.received(answer);
                    Box::pin(answer.body_mut().settle(LONGEST_KEPT_ANSWER)).await;
                    if !body.recall() {
                        self.renew_behind(claims.as_ref());
                        return Ok(shared.unhealed(answer, "body_not_kept"));
                    }
                    match Box::pin(self.renew(claims.as_ref(), access)).await {
                        Ok(true) => access.retries(if claims.is_some() { "claims" } else { "401" }),
                        Ok(false) => return Ok(shared.unhealed(answer, "too_young")),
                        Err(error) if claims.is_some() && nobody_can_help(self.subject, &error) => {
                            return Ok(shared.unhealed(answer, "claims_refused"));
                        }
                        Err(error) => return Err(Box::pin(refusal(self.proxy, error, self.subject, claims)).await),
                    }
                }
                (Verdict::NewTokenForLater, Ok(answer)) => {
                    self.renew_behind(claims.as_ref());
                    return Ok(shared.unhealed(self.received(answer), "body_not_kept"));
                }
                (Verdict::Wait(wait), Ok(mut answer)) if body.recall() => {
                    fresh = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
                    if fresh {
                        answer.body_mut().retire();
                    }
                    let mut answer = self.received(answer);
                    Box::pin(answer.body_mut().settle(LONGEST_KEPT_ANSWER)).await;
                    if !Box::pin(self.wait(wait, access.place.as_ref())).await {
                        return Ok(self.passed_on(answer));
                    }
                    access.retries("throttled");
                }
                (Verdict::Again, _) if body.recall() => {
                    access.retries("connection");
                    self.facts.failures += 1;
                }
                (Verdict::GiveUp { maybe_executed }, sent) => return Err(give_up(sent.err(), body, maybe_executed)),
                (_, Ok(answer)) => {
                    let answer = self.received(answer);
                    if may_retry && claims.is_some() && matches!(self.subject, Subject::OnBehalfOf(_)) {
                        let text = "the upstream still asks for it with the new token".to_owned();
                        return Err(LeaseError::Challenge { text, claims }.into());
                    }
                    if may_retry && (answer.status() == StatusCode::UNAUTHORIZED || claims.is_some()) {
                        return Ok(shared.unhealed(answer, "refused_again"));
                    }
                    if self.facts.renewed != renewed_before {
                        shared.metrics.upstream_401("healed");
                    }
                    return Ok(self.passed_on(answer));
                }
                (_, Err(error)) => return Err(give_up(Some(error), body, !self.facts.safe)),
            }
        }
    }

    /// What is to be done about members of a batch that were answered so. They can be sent again.
    pub fn about(&self, outcome: Outcome) -> Verdict {
        self.decide(Facts { outcome, safe: true, can_repeat: true, ..self.facts })
    }

    /// The client has not said `Bearerd-Retry: off`.
    pub fn may_retry(&self) -> bool {
        self.facts.may_retry
    }

    /// Waits, and on as long as others of the same workload were told to. `false`: that is too long.
    pub async fn wait(&mut self, mut wait: Duration, place: Option<&Place>) -> bool {
        self.facts.waits += 1;
        loop {
            tokio::time::sleep(wait).await;
            self.patience.waited(wait);
            match place.and_then(Place::pause_left) {
                None => return true,
                Some(more) if more > self.patience.left() => return false,
                Some(more) => wait = more,
            }
        }
    }

    /// A new token in place of the one that was refused. `false`: it is too young to be at fault.
    pub async fn renew(&mut self, claims: Option<&Claims>, access: &mut Access) -> Result<bool, LeaseError> {
        let vault = &self.proxy.shared.vault;
        let (step, span) = access.step_with_context();
        let asked = self.upstream_id.within(span.as_ref());
        let rejected = vault.reject(self.subject, &self.lease, asked, claims).await;
        access.leased(step, Some(if claims.is_some() { "claims" } else { "401" }), rejected.as_ref().err());
        match rejected? {
            Rejected::Renewed(renewed) => self.lease = renewed,
            Rejected::TooYoung => return Ok(false),
        }
        self.facts.renewed = if claims.is_some() { Renewed::Challenged } else { Renewed::Plain };
        Ok(true)
    }

    /// The verdict; one that sends something again is paid for, out of what all requests to the upstream share.
    fn decide(&self, facts: Facts) -> Verdict {
        let left = (!self.patience.retries_itself).then(|| self.patience.left());
        let verdict = verdict::decide(&Facts { left, ..facts });
        let shared = &*self.proxy.shared;
        if !verdict.is_paid() || shared.gates.budget(self.at).take(shared.clock.moment()) {
            return verdict;
        }
        shared.metrics.retry_budget_exhausted(&self.upstream.template.name);
        verdict.unpaid()
    }

    /// Not every client knows every way in which `Retry-After` is written.
    fn passed_on(&self, mut answer: Response<ReplyBody>) -> Response<ReplyBody> {
        if let Outcome::Answer { status: 429 | 503 | 504, retry_after, .. } = self.facts.outcome
            && self.facts.may_retry
        {
            match retry_after {
                Some(wait) => answer.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().into()),
                None => answer.headers_mut().remove(header::RETRY_AFTER),
            };
        }
        answer
    }

    fn renew_behind(&self, claims: Option<&Claims>) {
        self.proxy.shared.vault.reject_behind(self.subject, &self.lease, self.upstream_id, claims);
    }

    /// The upstream's answer, made fit for the client.
    fn received(&self, response: Response<Incoming>) -> Response<ReplyBody> {
        let (mut head, incoming) = response.into_parts();
        if !self.secure {
            head.headers.remove(header::STRICT_TRANSPORT_SECURITY);
        }
        head.version = Version::HTTP_11;
        Response::from_parts(head, ReplyBody::streaming(incoming, self.upstream.template.config.idle_timeout))
    }
}

/// The refusal for a missing token, with what mends it where a sign-in does: a link, or for a caller who acts on behalf of somebody the
/// challenge. `claims`: the upstream's own.
async fn refusal(proxy: &Proxy, error: LeaseError, subject: &Subject, claims: Option<Claims>) -> Refusal {
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
        refusal.signin_url = proxy.shared.links.link(account).await;
    }
    refusal
}

type Sent = Result<Response<Incoming>, SendError>;

/// What a refusal of the upstream asks a new token to be got with.
fn asked(sent: &Sent) -> Option<Claims> {
    let response = sent.as_ref().ok()?;
    let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if refused { challenge::challenge(response.headers()) } else { None }
}

/// Behind the application itself there is nobody who could sign in: that it can't have what the upstream asks for, the upstream says best.
fn nobody_can_help(subject: &Subject, error: &LeaseError) -> bool {
    matches!((subject, error), (Subject::App, LeaseError::Misconfigured(_)))
}

fn outcome(sent: &Sent, challenged: bool, clock: &Clock) -> Outcome {
    match sent {
        Err(error) => Outcome::Failed(error.failure),
        Ok(response) => {
            let status = response.status().as_u16();
            let values = response.headers().get_all(header::RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
            let throttles = matches!(status, 429 | 503 | 504);
            let retry_after = throttles.then(|| retry_after::parse(values, clock.now())).flatten();
            Outcome::Answer { status, retry_after, challenged }
        }
    }
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
