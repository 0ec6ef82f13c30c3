//! The body of an upstream's answer, over either version of HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::Sleep;

use super::Upstream;
use super::http1::{self, FramingError};
use super::pool::Shared;

pub enum Incoming {
    Http1(http1::Incoming),
    Http2(Box<Http2>),
}

pub struct Http2 {
    body: hyper::body::Incoming,
    upstream: Arc<Upstream>,
    identity: Arc<()>,
    idle: Option<Pin<Box<Sleep>>>,
}

/// How a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection was closed before its end")]
    CutOff,
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
}

impl Incoming {
    pub(super) fn http2(body: hyper::body::Incoming, upstream: &Arc<Upstream>, shared: Shared) -> Self {
        Self::Http2(Box::new(Http2 { body, upstream: Arc::clone(upstream), identity: shared.identity, idle: None }))
    }

    /// The next data; trailers are dropped. The upstream may be silent for `limit`.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Http1(incoming) => incoming.poll_data(cx, limit),
            Self::Http2(incoming) => incoming.poll_data(cx, limit),
        }
    }

    /// Nothing more comes, and nothing was missing.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_over(),
            Self::Http2(incoming) => incoming.body.is_end_stream(),
        }
    }

    /// The length of what is still to come, where it is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Http1(incoming) => incoming.left(),
            Self::Http2(incoming) => incoming.body.size_hint().exact(),
        }
    }

    /// No further request goes over its connection: what is at its other end has too much to do.
    pub fn retire(&mut self) {
        match self {
            Self::Http1(incoming) => incoming.retire(),
            Self::Http2(incoming) => incoming.upstream.retire(&incoming.identity),
        }
    }
}

impl Http2 {
    fn poll_data(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle = None;
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                    return idle.as_mut().poll(cx).map(|()| Some(Err(BodyError::Idle(limit))));
                }
            }
        }
    }
}
