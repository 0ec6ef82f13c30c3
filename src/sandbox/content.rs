//! The bodies that the simulated servers send: whole, cut on purpose, streamed, or dribbled by a test's hand.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::UnboundedReceiver;

/// A body of an answer.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Option<Bytes>),
    /// Announces `announced` bytes, sends `head` and breaks the connection.
    Cut {
        announced: u64,
        head: Option<Bytes>,
        flushed: bool,
    },
    /// The same piece over and over, `left` bytes in all; `sized` says the length in the head.
    Repeated {
        left: u64,
        piece: Bytes,
        sized: bool,
    },
    /// What the other end of the channel says, until it is dropped.
    Dribble(UnboundedReceiver<Bytes>),
}

/// The answer ends here because a fault asked for it.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
pub(super) struct CutOnPurpose;

impl Content {
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// This body, broken off: in the middle if `half`, else before its first byte.
    pub fn cut(self, half: bool) -> Self {
        let whole = match self {
            Self::Whole(Some(bytes)) => bytes,
            Self::Whole(None) | Self::Cut { .. } | Self::Dribble(_) => Bytes::new(),
            Self::Repeated { left, piece, .. } => {
                let head = half.then(|| piece.clone());
                return Self::Cut { announced: left.max(piece.len() as u64 + 1), head, flushed: false };
            }
        };
        let head = (half && whole.len() > 1).then(|| whole.slice(..whole.len() / 2));
        Self::Cut { announced: (whole.len() as u64).max(1), head, flushed: false }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = CutOnPurpose;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Cut { head, flushed, .. } => {
                if let Some(head) = head.take() {
                    return Poll::Ready(Some(Ok(Frame::data(head))));
                }
                if *flushed {
                    return Poll::Ready(Some(Err(CutOnPurpose)));
                }
                // hyper flushes when a body has nothing to say: what was sent so far reaches the client before the end.
                *flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Repeated { left: 0, .. } => Poll::Ready(None),
            Self::Repeated { left, piece, .. } => {
                let length = usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len()));
                *left -= length as u64;
                Poll::Ready(Some(Ok(Frame::data(piece.slice(..length)))))
            }
            Self::Dribble(source) => source.poll_recv(cx).map(|said| said.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Repeated { left, sized, .. } => *sized && *left == 0,
            Self::Cut { .. } | Self::Dribble(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Cut { announced, .. } => SizeHint::with_exact(*announced),
            Self::Repeated { left, sized: true, .. } => SizeHint::with_exact(*left),
            Self::Repeated { .. } | Self::Dribble(_) => SizeHint::default(),
        }
    }
}
