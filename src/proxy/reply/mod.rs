//! Answers on their way out: what of the upstream's head may pass, and a body that streams, has idle time-outs and no total one, and
//! knows when it is over.

mod decode;
mod head;
mod links;
mod rewritten;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use self::decode::DecodeError;
pub use self::head::filter;
pub(super) use self::links::translate;
use self::rewritten::Rewritten;
use super::access::Access;
use super::replay::Reserved;
use super::upstream::{BodyError, Incoming};

/// A body of ours, or the upstream's as it comes.
#[derive(Default)]
pub struct ReplyBody {
    content: Content,
    /// How it ended early. Said one poll later, so that what came before it reaches the client: its end is that of the connection.
    broken: Option<ReplyError>,
    /// Whether an upstream's body came to its end.
    access: Option<Box<Access>>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Full(Bytes),
    Streaming(Streaming),
    Rewritten(Box<Rewritten>),
}

struct Streaming {
    incoming: Incoming,
    /// What was read before somebody asked for it.
    ahead: VecDeque<Result<Bytes, ReplyError>>,
    idle_timeout: Duration,
}

/// An answer that is not delivered at once is waited for no longer than this.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    #[error("the upstream broke off: {0}")]
    Upstream(#[from] BodyError),
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
}

impl ReplyBody {
    pub fn full(bytes: Bytes) -> Self {
        Self {
            content: if bytes.is_empty() { Content::Empty } else { Content::Full(bytes) },
            broken: None,
            access: None,
        }
    }

    pub(super) fn streaming(incoming: Incoming, idle_timeout: Duration) -> Self {
        let streaming = Streaming { incoming, ahead: VecDeque::new(), idle_timeout };
        Self { content: Content::Streaming(streaming), broken: None, access: None }
    }

    /// The access event is written when this body is done or given up.
    pub(super) fn account_for(&mut self, access: Box<Access>) {
        self.access = Some(access);
    }

    /// Reads ahead, up to `limit` bytes, so that a short answer is whole and its connection free while something else is done. A long or
    /// slow one streams on; one that breaks off does so for the client too. Says whether its end was reached, such as it is.
    pub(super) async fn settle(&mut self, limit: usize) -> bool {
        let Content::Streaming(streaming) = &mut self.content else {
            return true;
        };
        if streaming.incoming.left().is_some_and(|left| left > limit as u64) {
            return false;
        }
        let mut left = Some(limit);
        // Most answers are there already: no timer for them.
        let mut patience = None;
        poll_fn(|cx| {
            while left.is_some() {
                let Poll::Ready(next) = streaming.poll_incoming(cx) else {
                    let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(SETTLES_WITHIN)));
                    return patience.as_mut().poll(cx).map(|()| false);
                };
                let Some(next) = next else { return Poll::Ready(true) };
                let read = next.as_ref().map_or(usize::MAX, Bytes::len);
                left = left.and_then(|left| left.checked_sub(read));
                streaming.ahead.push_back(next);
            }
            Poll::Ready(matches!(streaming.ahead.back(), Some(Err(_))))
        })
        .await
    }

    /// The whole body, which is still to be had from `self`. `None`: it is longer than `limit` or than there is room for, or broke off; it streams
    /// on from `self`.
    pub(super) async fn read_ahead(&mut self, limit: usize, room: &mut Reserved<'_>) -> Option<Bytes> {
        let streaming = match &mut self.content {
            Content::Empty => return Some(Bytes::new()),
            Content::Full(bytes) => return Some(bytes.clone()),
            Content::Streaming(streaming) => streaming,
            Content::Rewritten(_) => return None,
        };
        if streaming.size_hint().lower() > limit as u64 {
            return None;
        }
        let mut whole = Vec::new();
        for read in &streaming.ahead {
            whole.extend_from_slice(read.as_ref().ok()?);
        }
        while let Some(next) = poll_fn(|cx| streaming.poll_incoming(cx)).await {
            let fits = next.as_ref().is_ok_and(|data| whole.len() + data.len() <= limit && room.more(data.len()));
            if let (Ok(data), true) = (&next, fits) {
                whole.extend_from_slice(data);
            }
            streaming.ahead.push_back(next);
            if !fits {
                return None;
            }
        }
        Some(whole.into())
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let this = &mut *self;
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                Poll::Ready(Some(Ok(bytes)))
            }
            Content::Streaming(streaming) => streaming.poll_data(cx),
            Content::Rewritten(rewritten) => rewritten.poll_data(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(data))) => {
                if let Some(access) = &mut this.access {
                    access.sent(data.len());
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(access) = &mut this.access {
                    access.broke_off(&error.to_string());
                }
                this.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) | Content::Rewritten(_) => false,
            Content::Streaming(streaming) => streaming.ahead.is_empty() && streaming.incoming.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streaming(streaming) => streaming.size_hint(),
            Content::Rewritten(_) => SizeHint::new(),
        }
    }
}

impl Streaming {
    fn size_hint(&self) -> SizeHint {
        let ahead: u64 = self.ahead.iter().flatten().map(|data| data.len() as u64).sum();
        if let Some(left) = self.incoming.left() {
            return SizeHint::with_exact(left + ahead);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(ahead);
        hint
    }

    /// All of it, if it is all there.
    fn whole(&mut self) -> Option<Bytes> {
        if !self.incoming.is_over() || self.ahead.iter().any(Result::is_err) {
            return None;
        }
        let pieces: Vec<Bytes> = self.ahead.drain(..).flatten().collect();
        Some(match pieces.as_slice() {
            [one] => one.clone(),
            several => several.concat().into(),
        })
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        match self.ahead.pop_front() {
            Some(read) => Poll::Ready(Some(read)),
            None => self.poll_incoming(cx),
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        self.incoming.poll_data(cx, self.idle_timeout).map(|next| next.map(|data| data.map_err(ReplyError::from)))
    }
}
