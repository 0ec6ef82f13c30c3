//! Faults as data: what goes wrong, where, for whom, how many times. The servers ask here before they answer.
//!
//! Effects that end a request (an error, a cut) are used up one request at a time, in the order in which they were pushed;
//! effects that only colour it (a delay, a missing field) join whatever else happens to the same request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::sync::watch;

use super::content::Content;
use super::locked;
use super::wire::Reply;

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    pub place: Place,
    /// The alias of the only user that it happens to.
    pub user: Option<String>,
    /// `None`: until cleared.
    pub times: Option<u32>,
    pub effect: Effect,
}

/// Where it goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Token,
    DeviceCode,
    Authorize,
    Discovery,
    Keys,
    /// Requests to Graph whose path (with its version) starts so; `/` is all of them. Items of a batch count too.
    Graph(String),
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Effect {
    /// An error of the token endpoint, in Entra's shape.
    Error(TokenFault),
    /// An error of Graph, in Graph's shape.
    GraphError { status: u16, code: String, message: String, headers: Vec<(String, String)> },
    /// A 401 of Graph.
    Denied(Denial),
    /// Any answer, as given.
    Http { status: u16, headers: Vec<(String, String)>, body: String },
    /// Closed before anything is done.
    DropBefore,
    /// Everything is done (tokens rotated, mail sent), then closed without an answer.
    DropAfter,
    /// Everything is done, the head of the answer is sent, then closed.
    DropAfterHead,
    /// Everything is done, the head and half of the body are sent, then closed.
    CutBody,
    /// Everything is done, then these bytes are sent instead of an answer, and closed.
    Raw(Bytes),
    /// Wait, on the system's time. Colours.
    Delay(Duration),
    /// Wait until the gate opens. Colours.
    Hold(Gate),
    /// Everything is done, then the answer waits until the gate opens. Colours.
    HoldAnswer(Gate),
    /// Graph answers without reading the request's body. Colours.
    Unread,
    /// The token answer has no `refresh_token`; nothing is rotated. Colours.
    NoRefreshToken,
    /// `expires_in` is a string. Colours.
    ExpiresInString,
    /// The token answer says this life, and the token has it. Colours.
    ExpiresIn(u64),
    /// The token answer has `refresh_in`. Colours.
    RefreshIn(u64),
    /// The identity token breaks one rule. Colours.
    IdToken(Flaw),
}

/// One row of the table of errors of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFault {
    pub status: u16,
    pub error: String,
    pub suberror: Option<String>,
    /// The number after AADSTS.
    pub code: u32,
    /// A JSON text, sent as a string.
    pub claims: Option<String>,
    pub retry_after: Option<String>,
}

/// Why Graph says 401; each has its own shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    Missing,
    Malformed,
    Expired,
    Revoked,
    Audience,
    /// A claims challenge (CAE, step-up): the JSON of the claims.
    Claims(String),
}

/// How an identity token can be wrong, each the breach of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    Issuer,
    Audience,
    Expired,
    NotYetValid,
    NoNonce,
    WrongNonce,
    Tenant,
    NoSubject,
    NoObjectId,
    UnknownKey,
    NoKeyId,
    Signature,
    AlgorithmNone,
    /// HS256 with the public key as the secret.
    AlgorithmHmac,
    /// Signed by the key of personal accounts.
    ConsumerKey,
    /// Signed in full for somebody else: another user of the tenant.
    OtherUser,
    NotAToken,
}

impl Fault {
    pub fn token(effect: Effect) -> Self {
        Self::at(Place::Token, effect)
    }

    pub fn graph(prefix: &str, effect: Effect) -> Self {
        Self::at(Place::Graph(prefix.to_owned()), effect)
    }

    /// Happens once, to anybody.
    pub fn at(place: Place, effect: Effect) -> Self {
        Self { place, user: None, times: Some(1), effect }
    }

    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Until cleared.
    #[must_use]
    pub fn always(self) -> Self {
        Self { times: None, ..self }
    }

    #[must_use]
    pub fn for_user(self, alias: &str) -> Self {
        Self { user: Some(alias.to_owned()), ..self }
    }
}

impl Effect {
    /// A 401, 403, 429, .. of Graph with the usual words; `retry_after` as it stands on the wire.
    pub fn graph_error(status: u16, retry_after: Option<&str>) -> Self {
        let (code, message) = match status {
            400 => ("BadRequest", "Invalid request."),
            403 => ("Authorization_RequestDenied", "Insufficient privileges to complete the operation."),
            404 => ("itemNotFound", "The resource could not be found."),
            429 => ("TooManyRequests", "The request has been throttled."),
            503 => ("ServiceNotAvailable", "The service is temporarily unavailable."),
            504 => ("UnknownError", ""),
            _ => ("generalException", "General exception while processing."),
        };
        let headers = retry_after.map(|value| ("Retry-After".to_owned(), value.to_owned())).into_iter().collect();
        Self::GraphError { status, code: code.to_owned(), message: message.to_owned(), headers }
    }

    /// An error page that is no JSON, as load balancers send it.
    pub fn html(status: u16, retry_after: Option<&str>) -> Self {
        let mut headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
        headers.extend(retry_after.map(|value| ("Retry-After".to_owned(), value.to_owned())));
        Self::Http {
            status,
            headers,
            body: format!("<html><body><h2>Our services aren't available ({status})</h2></body></html>"),
        }
    }

    fn colours(&self) -> bool {
        matches!(
            self,
            Self::Delay(_)
                | Self::Hold(_)
                | Self::HoldAnswer(_)
                | Self::Unread
                | Self::NoRefreshToken
                | Self::ExpiresInString
                | Self::ExpiresIn(_)
                | Self::RefreshIn(_)
                | Self::IdToken(_)
        )
    }
}

/// The faults that wait for their request; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// How many there are: the usual answer, none, costs no lock.
    count: AtomicUsize,
    list: Mutex<Vec<Fault>>,
}

impl Faults {
    pub fn push(&self, fault: Fault) {
        let mut list = locked(&self.0.list);
        list.push(fault);
        self.0.count.store(list.len(), Ordering::Release);
    }

    pub fn clear(&self) {
        let mut list = locked(&self.0.list);
        list.clear();
        self.0.count.store(0, Ordering::Release);
    }

    /// How many were pushed and are not used up.
    pub fn waiting(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Uses up what happens to one request: any number of colours, and, if `ends`, at most one end.
    pub(super) fn take(&self, user: Option<&str>, ends: bool, here: impl Fn(&Place) -> bool) -> Effects {
        if self.waiting() == 0 {
            return Effects::default();
        }
        let mut taken = Effects::default();
        let mut list = locked(&self.0.list);
        for fault in list.iter_mut() {
            let concerned = fault.user.as_deref().is_none_or(|alias| Some(alias) == user);
            if !concerned || !here(&fault.place) || ((taken.end.is_some() || !ends) && !fault.effect.colours()) {
                continue;
            }
            if let Some(times) = &mut fault.times {
                let Some(left) = times.checked_sub(1) else { continue };
                *times = left;
            }
            if fault.effect.colours() {
                taken.colours.push(fault.effect.clone());
            } else {
                taken.end = Some(fault.effect.clone());
            }
        }
        list.retain(|fault| fault.times != Some(0));
        self.0.count.store(list.len(), Ordering::Release);
        taken
    }
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub end: Option<Effect>,
    pub colours: Vec<Effect>,
}

impl Effects {
    /// Sits out delays and closed gates.
    pub async fn wait(&self) {
        for effect in &self.colours {
            match effect {
                Effect::Delay(time) => tokio::time::sleep(*time).await,
                Effect::Hold(gate) => gate.pass().await,
                _ => {}
            }
        }
    }

    /// The answer as it leaves, after everything was done.
    pub async fn finish(&self, response: Response<Content>) -> Reply {
        for effect in &self.colours {
            if let Effect::HoldAnswer(gate) = effect {
                gate.pass().await;
            }
        }
        match &self.end {
            Some(Effect::DropBefore | Effect::DropAfter) => Reply::Close,
            Some(Effect::DropAfterHead) => Reply::Answer(response.map(|content| content.cut(false))),
            Some(Effect::CutBody) => Reply::Answer(response.map(|content| content.cut(true))),
            Some(Effect::Raw(bytes)) => Reply::Raw(bytes.clone()),
            _ => Reply::Answer(response),
        }
    }

    /// What the record says of an end that the client does not read as an answer.
    pub fn broken(&self) -> Option<&'static str> {
        match &self.end {
            Some(Effect::DropBefore) => Some("dropped before"),
            Some(Effect::DropAfter) => Some("dropped after"),
            Some(Effect::DropAfterHead) => Some("dropped after the head"),
            Some(Effect::CutBody) => Some("cut in the body"),
            Some(Effect::Raw(_)) => Some("raw bytes"),
            _ => None,
        }
    }
}

/// A door that a test keeps shut: requests wait behind it, are counted, and go on together.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Door>);

#[derive(Debug)]
struct Door {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::shut()
    }
}

impl Gate {
    pub fn shut() -> Self {
        Self(Arc::new(Door { open: watch::Sender::new(false), waiting: watch::Sender::new(0) }))
    }

    /// Lets everybody through, from now on.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Returns when `count` requests have come to the door.
    pub async fn arrived(&self, count: usize) {
        // An error means that the sender is gone, and `self` holds it.
        let _ = self.0.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    }

    /// How many requests have come to the door so far.
    pub fn count(&self) -> usize {
        *self.0.waiting.borrow()
    }

    async fn pass(&self) {
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.0.open.subscribe().wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_one_by_one_and_colours_join_them() {
        let faults = Faults::default();
        faults.push(Fault::token(Effect::DropAfter));
        faults.push(Fault::token(Effect::html(503, None)).times(2));
        faults.push(Fault::token(Effect::NoRefreshToken).always());
        let ends: Vec<_> = (0..4).map(|_| faults.take(None, true, |place| *place == Place::Token)).collect();
        assert!(matches!(ends[0].end, Some(Effect::DropAfter)));
        assert!(matches!(ends[1].end, Some(Effect::Http { status: 503, .. })));
        assert!(matches!(ends[2].end, Some(Effect::Http { status: 503, .. })));
        assert!(ends[3].end.is_none());
        assert!(ends.iter().all(|effects| effects.colours.len() == 1));
        assert_eq!(faults.waiting(), 1);
    }

    #[test]
    fn a_fault_waits_for_its_user_and_its_place() {
        let faults = Faults::default();
        faults.push(Fault::graph("/v1.0/me", Effect::Denied(Denial::Expired)).for_user("alice"));
        let graph = |path: &'static str| move |place: &Place| matches!(place, Place::Graph(prefix) if path.starts_with(prefix.as_str()));
        assert!(faults.take(Some("bob"), true, graph("/v1.0/me")).end.is_none());
        assert!(faults.take(None, true, graph("/v1.0/me")).end.is_none());
        assert!(faults.take(Some("alice"), true, graph("/v1.0/users")).end.is_none());
        assert!(faults.take(Some("alice"), true, |place| *place == Place::Token).end.is_none());
        assert!(faults.take(Some("alice"), true, graph("/v1.0/me/messages")).end.is_some());
        assert_eq!(faults.waiting(), 0);
    }
}
