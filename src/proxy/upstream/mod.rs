//! One upstream as one worker sees it: a request goes over one of its own connections (`pool`), dialled as the configuration says (`dial`).
//!
//! Nothing is sent again that may have been read: only a request that the connection gave back unsent goes to another one.

mod dial;
mod http1;
mod incoming;
mod pool;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use http::Response;
use hyper::client::conn::TrySendError;

pub use self::dial::{Template, TemplateError};
pub use self::incoming::{BodyError, Incoming};
use self::pool::{Connection, MOST_IDLE, Shared};
use super::outbound::Attempt;
use super::replay::{Replay, ReplayBody};
use super::reply;
use super::verdict::Failure;
use crate::config::HttpVersion;

/// One worker's connections.
pub struct Upstream {
    pub template: Arc<Template>,
    idle: Mutex<pool::Idle>,
    shared: Mutex<Option<Shared>>,
    /// The upstream has agreed to HTTP/2 before: callers wait for one connection instead of dialling one each.
    speaks_http2: AtomicBool,
    dialling: tokio::sync::Mutex<()>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct SendError {
    pub failure: Failure,
    /// For the log and for the client: no secret can be in it.
    pub text: String,
}

impl Upstream {
    pub fn new(template: Arc<Template>) -> Self {
        let speaks_http2 = AtomicBool::new(template.config.http == HttpVersion::Http2);
        Self {
            template,
            idle: Mutex::default(),
            shared: Mutex::default(),
            speaks_http2,
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// Sends one request and waits for the head of its answer, without the headers that are not for a client. `body` is watched: as long as it moves, the upstream has time. `fresh`: over
    /// none of the idle connections.
    pub async fn send(
        self: &Arc<Self>,
        attempt: Attempt<'_>,
        body: &Replay,
        fresh: bool,
    ) -> Result<Response<Incoming>, SendError> {
        // A connection that turns out to be closed has sent nothing: the request goes to another one.
        for _ in 0..MOST_IDLE {
            let connection = match self.pooled(fresh, attempt.at) {
                Some(connection) => connection,
                None => Box::pin(self.connection(fresh)).await?,
            };
            let reused = connection.reused();
            let sent = match connection {
                Connection::Http1(link) => {
                    let answer = http1::send(self, link, attempt, body, self.template.config.timeout).await;
                    answer.map(|answer| answer.map(Incoming::Http1))
                }
                Connection::Http2 { shared, .. } => {
                    Box::pin(self.http2_exchange(shared, attempt, body)).await.map_err(|error| error.over(reused))
                }
            };
            match sent {
                Err(SendError { failure: Failure::NotSent, .. }) if reused && body.can_repeat() => {}
                sent => return sent,
            }
        }
        Err(SendError { failure: Failure::NotSent, text: "every pooled connection was closed".into() })
    }

    async fn http2_exchange(
        self: &Arc<Self>,
        mut shared: Shared,
        attempt: Attempt<'_>,
        body: &Replay,
    ) -> Result<Response<Incoming>, SendError> {
        let request = attempt.http2(body.attempt(), &self.template.destination);
        let mut response = self.patiently(shared.sender.try_send_request(request), body).await?;
        reply::filter(response.headers_mut());
        Ok(response.map(|body| Incoming::http2(body, self, shared)))
    }

    /// Waits for the head of the answer, as long as the upstream may take, counted from the last move of the request's body.
    async fn patiently<B>(
        &self,
        answer: impl Future<Output = Result<Response<B>, TrySendError<http::Request<ReplayBody>>>>,
        body: &Replay,
    ) -> Result<Response<B>, SendError> {
        let limit = self.template.config.timeout;
        let started = self.template.clock.moment();
        let mut answer = std::pin::pin!(answer);
        loop {
            let quiet = self.template.clock.moment().since(body.progress().unwrap_or(started).max(started));
            match tokio::time::timeout(limit.saturating_sub(quiet), &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) if error.message().is_some() => {
                    let text = "the connection was closed before the request".into();
                    return Err(SendError { failure: Failure::NotSent, text });
                }
                Ok(Err(error)) => return Err(died(&error.into_error(), body)),
                Err(_) if quiet >= limit => return Err(SendError::timed_out(limit)),
                Err(_) => {}
            }
        }
    }
}

impl SendError {
    fn timed_out(limit: std::time::Duration) -> Self {
        Self { failure: Failure::TimedOut, text: format!("no answer within {} s", limit.as_secs()) }
    }

    /// A connection that had served before may have been at its end already.
    fn over(self, reused: bool) -> Self {
        let failure = if reused && self.failure == Failure::Died { Failure::ReusedDied } else { self.failure };
        Self { failure, ..self }
    }
}

fn died(error: &hyper::Error, body: &Replay) -> SendError {
    match body.failure() {
        Some(failure) => SendError { failure: Failure::Body, text: failure.to_string() },
        None if unprocessed(error) => {
            SendError { failure: Failure::NotSent, text: format!("the upstream refused the request unread: {error}") }
        }
        None => SendError { failure: Failure::Died, text: format!("the connection failed: {error}") },
    }
}

/// Whether HTTP/2 says that nothing of the request was processed (RFC 9113, 8.7): its stream was refused, or opened after the last
/// one that a departing server serves.
fn unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return false;
    };
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_remote() && error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_remote() && error.is_go_away(),
        _ => false,
    }
}
