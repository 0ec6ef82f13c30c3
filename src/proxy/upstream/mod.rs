//! One upstream as one worker sees it: a request goes over one of its own connections (`pool`), dialled as the configuration says (`dial`).
//!
//! Nothing is sent again that may have been read: only a request that the connection gave back unsent goes to another one.

mod dial;
mod pool;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

pub use self::dial::{Template, TemplateError};
pub use self::pool::Hold;
use self::pool::{Connection, Idle, MOST_IDLE, Shared};
use super::outbound::for_version;
use super::replay::{Replay, ReplayBody};
use super::verdict::Failure;
use crate::config::HttpVersion;

/// One worker's connections.
pub struct Upstream {
    pub template: Arc<Template>,
    idle: Mutex<Vec<Idle>>,
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

    /// Sends one request and waits for the head of its answer. `body` is watched: as long as it moves, the upstream has time. `fresh`: over
    /// none of the idle connections.
    pub async fn send(
        self: &Arc<Self>,
        head: Parts,
        body: &Replay,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Hold), SendError> {
        let mut request = Request::from_parts(head, body.attempt());
        // A connection that turns out to be closed has sent nothing: the request comes back and goes to another one.
        for _ in 0..MOST_IDLE {
            let connection = self.connection(fresh).await?;
            let reused = connection.reused();
            let version = connection.version();
            let (mut head, body_attempt) = request.into_parts();
            for_version(&mut head, &body_attempt, &self.template.destination, version);
            let sent = self.exchange(connection, Request::from_parts(head, body_attempt), body).await;
            match sent {
                Ok(answer) => return Ok(answer),
                Err(Unsent::Returned(returned)) if reused => request = *returned,
                Err(Unsent::Returned(_)) => {
                    return Err(SendError {
                        failure: Failure::NotSent,
                        text: "the new connection was closed at once".into(),
                    });
                }
                Err(Unsent::Failed(mut error)) => {
                    if reused && error.failure == Failure::Died {
                        error.failure = Failure::ReusedDied;
                    }
                    return Err(error);
                }
            }
        }
        Err(SendError { failure: Failure::NotSent, text: "every pooled connection was closed".into() })
    }

    async fn exchange(
        self: &Arc<Self>,
        connection: Connection,
        request: Request<ReplayBody>,
        body: &Replay,
    ) -> Result<(Response<Incoming>, Hold), Unsent> {
        match connection {
            Connection::Http1 { mut sender, born, .. } => {
                let response = self.patiently(sender.try_send_request(request), body).await?;
                Ok((response, Hold::http1(self, sender, born)))
            }
            Connection::Http2 { mut shared, .. } => {
                let response = self.patiently(shared.sender.try_send_request(request), body).await?;
                Ok((response, Hold::http2(self, shared)))
            }
        }
    }

    /// Waits for the head of the answer, as long as the upstream may take, counted from the last move of the request's body.
    async fn patiently(
        &self,
        answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ReplayBody>>>>,
        body: &Replay,
    ) -> Result<Response<Incoming>, Unsent> {
        let limit = self.template.config.timeout;
        let started = self.template.clock.moment();
        let mut answer = std::pin::pin!(answer);
        loop {
            let quiet = self.template.clock.moment().since(body.progress().unwrap_or(started).max(started));
            match tokio::time::timeout(limit.saturating_sub(quiet), &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut error)) => {
                    return Err(match error.take_message() {
                        Some(request) => Unsent::Returned(Box::new(request)),
                        None => Unsent::Failed(died(&error.into_error(), body)),
                    });
                }
                Err(_) if quiet >= limit => {
                    return Err(Unsent::Failed(SendError {
                        failure: Failure::TimedOut,
                        text: format!("no answer within {} s", limit.as_secs()),
                    }));
                }
                Err(_) => {}
            }
        }
    }
}

enum Unsent {
    /// Not a byte left; here it is again.
    Returned(Box<Request<ReplayBody>>),
    Failed(SendError),
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
