//! A batch is sent, and what of it was refused or throttled is sent again; the client gets one answer, in the first one's order.
//!
//! An item is replaced only by an answer to its own member. Whatever goes wrong on the way, the answer so far is the answer: other members
//! were executed. Longer answers than we keep, or such as we don't understand, stream through.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http::{Response, StatusCode};

use super::{Batch, members};
use crate::graph::batch::{self, Again, Answers, finish, merge};
use crate::proxy::access::Access;
use crate::proxy::canonical::canonical;
use crate::proxy::error::{BEARERD_MAYBE_EXECUTED, Refusal};
use crate::proxy::exchange::Exchange;
use crate::proxy::media::is_plain;
use crate::proxy::outbound::OutboundHead;
use crate::proxy::replay::Reserved;
use crate::proxy::reply::ReplyBody;
use crate::proxy::shared::Shared;
use crate::proxy::terms::Terms;
use crate::proxy::verdict::{Outcome, Verdict, unsaid};

/// What is kept of an answer.
const LONGEST_ANSWER: usize = 16 << 20;
/// However little time they take.
const ROUNDS: usize = 5;

/// An answer in the making.
struct Healing<'h, 'e> {
    shared: &'h Shared,
    terms: &'h Terms<'h>,
    exchange: &'h mut Exchange<'e>,
    access: &'h mut Access,
    head: &'h OutboundHead,
    answer: Bytes,
    /// For what is kept of answers.
    room: Reserved<'h>,
    /// No token would help any more.
    refused_for_good: bool,
    /// A new token was got for a member.
    renewed: bool,
    maybe_executed: bool,
}

impl Batch {
    pub async fn run(
        &self,
        shared: &Shared,
        terms: &Terms<'_>,
        exchange: &mut Exchange<'_>,
        mut head: OutboundHead,
        access: &mut Access,
    ) -> Result<Response<ReplyBody>, Refusal> {
        head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut answer = exchange.send(&head, &self.body, access).await?;
        if answer.status() != StatusCode::OK || !is_plain(answer.headers()) {
            return Ok(answer);
        }
        let mut room = shared.caps.reserved();
        let Some(first) = answer.body_mut().read_ahead(LONGEST_ANSWER, &mut room).await else {
            return Ok(answer);
        };
        let may_retry = exchange.may_retry();
        let mut healing = Healing {
            shared,
            terms,
            exchange,
            access,
            head: &head,
            answer: first.clone(),
            room,
            refused_for_good: false,
            renewed: false,
            maybe_executed: false,
        };
        if self.has_parts {
            healing.heal(&self.text).await;
        }
        let Healing { answer: healed, maybe_executed, .. } = healing;
        let links = terms.links();
        let link = |url: &str| links.as_ref()?.url(url);
        let finished = finish(&healed, &link, may_retry, shared.clock.now()).map_or(healed, Bytes::from);
        if finished != first {
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(finished.len()));
            *answer.body_mut() = ReplyBody::full(finished);
        }
        if maybe_executed {
            answer.headers_mut().insert(BEARERD_MAYBE_EXECUTED, HeaderValue::from_static("1"));
        }
        Ok(answer)
    }
}

impl Healing<'_, '_> {
    async fn heal(&mut self, text: &[u8]) {
        let Some(batch) = batch::Batch::read(text) else { return };
        let mut answered: Vec<usize> = (0..batch.members().len()).collect();
        for _ in 0..ROUNDS {
            let answer = self.answer.clone();
            let Some(answers) = Answers::read(&answer) else { return };
            self.pause(&batch, &answers, &answered);
            if !self.exchange.may_retry() {
                return;
            }
            let refused = batch.refused(&answers);
            let throttled = batch.throttled(&answers, self.shared.clock.now());
            let again = match (refused, throttled) {
                (Some(refused), _) if self.renew(&refused).await => refused,
                (_, Some(throttled)) if self.wait(&throttled).await => throttled,
                _ => break,
            };
            let part = batch.part(&again.members);
            let Some(merged) = self.send(part).await else { break };
            self.answer = merged;
            answered = again.members;
        }
        if self.renewed && !self.refused_for_good {
            let answered = Answers::read(&self.answer);
            let healed = answered.is_some_and(|answers| batch.refused(&answers).is_none());
            self.shared.metrics.upstream_401(if healed { "healed" } else { "refused_again" });
        }
    }

    /// Who is throttled within a batch is throttled outside it too: the workloads of the members pause that were just answered so.
    fn pause(&self, batch: &batch::Batch<'_>, answers: &Answers<'_>, answered: &[usize]) {
        let Terms { route, subject, .. } = *self.terms;
        for (member, wait) in batch.too_many(answers, self.shared.clock.now()) {
            let path = members::path(self.terms, &batch.members()[member].url);
            if let (true, Ok(path)) = (answered.contains(&member), canonical(&path)) {
                self.shared.gates.pause(route.upstream, subject, &path.text, wait.unwrap_or(unsaid(0)));
            }
        }
    }

    /// Whether there is a new token for the members that were refused.
    async fn renew(&mut self, refused: &Again) -> bool {
        let challenged = refused.claims.is_some();
        let outcome = Outcome::Answer { status: 401, retry_after: None, challenged };
        if self.refused_for_good || self.exchange.about(outcome) != Verdict::NewToken {
            return false;
        }
        let why = match self.exchange.renew(refused.claims.as_ref(), self.access).await {
            Ok(true) => {
                self.access.retries("batch_401");
                self.renewed = true;
                return true;
            }
            Ok(false) => "too_young",
            Err(_) => "no_new_token",
        };
        self.refused_for_good = true;
        self.shared.metrics.upstream_401(why);
        false
    }

    /// Waits as long as the members were told, if there is time for it.
    async fn wait(&mut self, throttled: &Again) -> bool {
        let outcome = Outcome::Answer { status: 429, retry_after: throttled.wait, challenged: false };
        let Verdict::Wait(wait) = self.exchange.about(outcome) else {
            return false;
        };
        if let Some(place) = &self.access.place {
            place.throttled(wait);
        }
        if !self.exchange.wait(wait, self.access.place.as_ref()).await {
            return false;
        }
        self.access.retries("batch_throttled");
        true
    }

    /// The answer with what the members of `part` are answered now. `None`: that can't be told.
    async fn send(&mut self, part: String) -> Option<Bytes> {
        let body = self.shared.body(Bytes::from(part.clone()));
        let sent = batch::Batch::read(part.as_bytes())?;
        let may_do_harm = sent.members().iter().any(|member| !member.is_safe());
        let second = match self.exchange.send(self.head, &body, self.access).await {
            Ok(second) => second,
            Err(refusal) => {
                self.maybe_executed |= may_do_harm && refusal.maybe_executed;
                return None;
            }
        };
        let merged = self.merged(second, &sent).await;
        self.maybe_executed |= may_do_harm && merged.as_ref().is_err_and(|status| !status.is_client_error());
        merged.ok()
    }

    async fn merged(&mut self, mut second: Response<ReplyBody>, sent: &batch::Batch<'_>) -> Result<Bytes, StatusCode> {
        let status = second.status();
        if status != StatusCode::OK || !is_plain(second.headers()) {
            return Err(status);
        }
        let read = second.body_mut().read_ahead(LONGEST_ANSWER, &mut self.room).await;
        read.and_then(|second| merge(&self.answer, &second, sent)).map(Bytes::from).ok_or(status)
    }
}
