//! The bodies that the simulated servers send: whole, cut on purpose, streamed, or dribbled by a test's hand.

use std::pin::Pin;
use std::sync::LazyLock;
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
    /// These bytes, at most `size` of them at a time, each piece sent before the next one is made. Its length is not said.
    Pieces {
        rest: Bytes,
        size: usize,
        flushed: bool,
    },
    /// The bytes from `at` up to `end` of an endless pattern: the byte at N is N modulo 251. Its length is said.
    Pattern {
        at: u64,
        end: u64,
    },
    /// What the other end of the channel says, until it is dropped.
    Dribble(UnboundedReceiver<Bytes>),
}

const PERIOD: u8 = 251;
/// Periods of the pattern, long enough that a big download is not made of crumbs.
static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..PERIOD).cycle().take(usize::from(PERIOD) * 256).collect::<Vec<_>>().into());

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
            Self::Pieces { rest, .. } => rest,
            Self::Whole(None) | Self::Cut { .. } | Self::Dribble(_) => Bytes::new(),
            Self::Pattern { at, end } => {
                let head = half.then(|| pattern(at, (end - at) / 2));
                return Self::Cut { announced: (end - at).max(1), head, flushed: false };
            }
            Self::Repeated { left, piece, .. } => {
                let head = half.then(|| piece.clone());
                return Self::Cut { announced: left.max(piece.len() as u64 + 1), head, flushed: false };
            }
        };
        let head = (half && whole.len() > 1).then(|| whole.slice(..whole.len() / 2));
        Self::Cut { announced: (whole.len() as u64).max(1), head, flushed: false }
    }
}

/// The pattern from `at` on: as much as is at hand, at most `most` bytes.
pub(super) fn pattern(at: u64, most: u64) -> Bytes {
    let start = usize::try_from(at % u64::from(PERIOD)).unwrap_or_default();
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(PATTERN.len() - start);
    PATTERN.slice(start..start + length)
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
            Self::Pieces { rest, .. } if rest.is_empty() => Poll::Ready(None),
            Self::Pieces { flushed, .. } if !*flushed => {
                // As above: each piece leaves alone.
                *flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Pieces { rest, size, flushed } => {
                *flushed = false;
                let length = rest.len().min((*size).max(1));
                Poll::Ready(Some(Ok(Frame::data(rest.split_to(length)))))
            }
            Self::Pattern { at, end } if *at >= *end => Poll::Ready(None),
            Self::Pattern { at, end } => {
                let piece = pattern(*at, *end - *at);
                *at += piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Dribble(source) => source.poll_recv(cx).map(|said| said.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Repeated { left, sized, .. } => *sized && *left == 0,
            Self::Pattern { at, end } => at >= end,
            Self::Cut { .. } | Self::Pieces { .. } | Self::Dribble(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Cut { announced, .. } => SizeHint::with_exact(*announced),
            Self::Repeated { left, sized: true, .. } => SizeHint::with_exact(*left),
            Self::Pattern { at, end } => SizeHint::with_exact(end - at),
            Self::Repeated { .. } | Self::Pieces { .. } | Self::Dribble(_) => SizeHint::default(),
        }
    }
}
