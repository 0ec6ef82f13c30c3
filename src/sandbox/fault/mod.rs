//! Faults as data: what goes wrong, where, for whom, how many times. The servers ask here before they answer.
//!
//! Effects that end a request (an error, a cut) are used up one request at a time, in the order in which they were pushed;
//! effects that only colour it (a delay, a missing field) join whatever else happens to the same request.

mod flaw;
mod gate;
mod manner;
mod retry_after;
mod text;
mod waiting;

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;

use super::entra::KeyName;

pub use flaw::Flaw;
pub use gate::Gate;
pub use manner::{BatchOrder, Coding};
pub(super) use retry_after::spelled;
pub use text::{EFFECTS, FaultTextError};
pub(super) use waiting::Effects;
pub use waiting::Faults;

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
    /// Both endpoints of managed identities.
    Identity,
    /// Requests to Graph whose path (with its version) starts so; `/` is all of them. Items of a batch count too.
    Graph(String),
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Effect {
    /// An error of the token endpoint, in Entra's shape.
    Error(TokenFault),
    /// An error of Graph or of the endpoints of managed identities, in their shape.
    GraphError { status: u16, code: String, message: String, headers: Vec<(String, String)> },
    /// A 401 of Graph.
    Denied(Denial),
    /// Any answer, as given.
    Http { status: u16, headers: Vec<(String, String)>, body: String },
    /// Closed before anything is done.
    DropBefore,
    /// Closed before anything is done, and for so long, on the system's time, every connection to this server is refused.
    Down(Duration),
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
    /// The token answer has no `expires_in`. Colours.
    NoExpiresIn,
    /// The token answer says this life, and the token has it. Colours.
    ExpiresIn(u64),
    /// The token answer has `refresh_in`. Colours.
    RefreshIn(u64),
    /// The identity token breaks one rule. Colours.
    IdToken(Flaw),
    /// This key signs from now on. Colours.
    SignWith(KeyName),
    /// The key set has these keys only. Colours.
    OnlyKeys(Vec<KeyName>),
    /// How a claims challenge is written. Colours.
    Challenge(ChallengeShape),
    /// JSON is compressed, so or (`None`) as the client accepts it. Colours.
    Compress(Option<Coding>),
    /// The body of the answer is sent in pieces of so many bytes, its length unsaid. Colours.
    Pieces(usize),
    /// The order in which a batch is answered. Colours.
    BatchOrder(BatchOrder),
    /// 429 for a request to a mailbox that has so many under way. Colours.
    MailboxConcurrency(usize),
    /// Files cost units, so many a minute; from 80 % on answers say what is left. Colours.
    FileQuota(u64),
    /// Every nth request fails, with 429 and 503 in turn. Colours.
    Flaky(NonZeroU64),
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

/// How Graph writes a claims challenge, where it has one to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeShape {
    /// Two `WWW-Authenticate` headers without claims before the one that has them.
    SeveralHeaders,
    /// One header with three challenges; the claims are in the last.
    SeveralChallenges,
    /// base64 without its padding.
    Unpadded,
    /// base64url.
    UrlSafe,
    /// The JSON itself, as a quoted string.
    RawJson,
    /// 403 instead of 401.
    Forbidden,
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
    /// A 401, 403, 429, .. of Graph with the usual words. `retry_after` as it stands on the wire; `date+30` is that date.
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

    /// An error of the endpoints of managed identities.
    pub fn identity_error(status: u16, retry_after: Option<&str>) -> Self {
        let (code, message) = match status {
            400 => ("invalid_request", "Identity not found"),
            401 => ("unknown_source", "Unknown Source"),
            404 => ("not_found", "The identity endpoint is being updated"),
            410 => ("gone", "The identity endpoint is being updated and will be back within 70 seconds"),
            429 => ("too_many_requests", "Too many requests"),
            _ => ("unknown", "Failed to retrieve token from the Active directory. For details see logs"),
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
                | Self::NoExpiresIn
                | Self::ExpiresIn(_)
                | Self::RefreshIn(_)
                | Self::IdToken(_)
                | Self::SignWith(_)
                | Self::OnlyKeys(_)
                | Self::Challenge(_)
                | Self::Compress(_)
                | Self::Pieces(_)
                | Self::BatchOrder(_)
                | Self::MailboxConcurrency(_)
                | Self::FileQuota(_)
                | Self::Flaky(_)
        )
    }
}
