//! A request body that is streamed once and kept while it is small, so that it can be sent again after a 401.
//!
//! The body goes out as it comes in: keeping it costs no time, only memory, up to a cap for each request and a budget for
//! all. Past either it streams on and can't be replayed. Only the newest attempt reads; an older one that is still being sent
//! fails, so that no two attempts share what the client sends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::{Kind, Refusal};
use crate::clock::{Clock, Moment};

/// What bodies may take of memory.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Kept of one body.
    pub each: usize,
    /// Left of what is kept of all bodies together.
    pub budget: Arc<AtomicUsize>,
    /// A body longer than this is refused.
    pub longest: Option<u64>,
}

/// What one request takes of the common budget besides its body; given back when dropped.
pub struct Reserved<'c> {
    caps: &'c Caps,
    bytes: usize,
}

/// The body of one request, for as many attempts as it takes.
pub struct Replay(Option<Arc<Shared>>);

struct Shared {
    exact: Option<u64>,
    clock: Clock,
    caps: Caps,
    state: Mutex<State>,
}

struct State {
    /// `None`: the whole is in `kept`.
    source: Option<Incoming>,
    ended: bool,
    /// Read before, and not kept: for the next attempt only.
    ahead: VecDeque<Bytes>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// All that came so far is in `kept`.
    complete: bool,
    seen: u64,
    attempt: u32,
    reader: Option<Waker>,
    progress: Moment,
    failure: Option<ReplayError>,
}

/// One attempt at sending the body.
pub struct ReplayBody {
    shared: Option<Arc<Shared>>,
    attempt: u32,
    next: usize,
    sent: u64,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the client's body ended early: {0}")]
    Client(String),
    #[error("the body is longer than allowed")]
    TooLong,
    #[error("a newer attempt sends this body")]
    Superseded,
}

impl From<ReplayError> for Refusal {
    fn from(error: ReplayError) -> Self {
        let kind = if matches!(error, ReplayError::TooLong) { Kind::BodyTooLarge } else { Kind::BadRequest };
        kind.because(error.to_string())
    }
}

impl Caps {
    pub fn reserved(&self) -> Reserved<'_> {
        Reserved { caps: self, bytes: 0 }
    }

    /// Takes `bytes` of the common budget, if they are there.
    fn reserve(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Reserved<'_> {
    /// `false`: there is no room.
    pub fn more(&mut self, bytes: usize) -> bool {
        let taken = self.caps.reserve(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.caps.budget.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

impl Replay {
    pub fn new(source: Incoming, caps: &Caps, clock: &Clock) -> Self {
        if source.is_end_stream() {
            return Self(None);
        }
        let exact = source.size_hint().exact();
        Self::begun(exact, Some(source), Vec::new(), caps, clock)
    }

    /// A body of ours, in place of the client's.
    pub fn of(body: Bytes, caps: &Caps, clock: &Clock) -> Self {
        Self::begun(Some(body.len() as u64), None, vec![body], caps, clock)
    }

    fn begun(exact: Option<u64>, source: Option<Incoming>, kept: Vec<Bytes>, caps: &Caps, clock: &Clock) -> Self {
        let state = State {
            ended: source.is_none(),
            ahead: VecDeque::new(),
            kept,
            kept_bytes: 0,
            complete: true,
            seen: 0,
            attempt: 0,
            reader: None,
            progress: clock.moment(),
            failure: None,
            source,
        };
        Self(Some(Arc::new(Shared { exact, clock: clock.clone(), caps: caps.clone(), state: Mutex::new(state) })))
    }

    /// The body for the next attempt; the one before it gets no more.
    pub fn attempt(&self) -> ReplayBody {
        let attempt = self.0.as_ref().map_or(0, |shared| {
            let mut state = shared.state();
            state.progress = shared.clock.moment();
            state.supersede();
            state.attempt
        });
        ReplayBody { shared: self.0.clone(), attempt, next: 0, sent: 0 }
    }

    /// Whether a further attempt can send all of the body.
    pub fn can_repeat(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let state = shared.state();
            state.complete && state.failure.is_none()
        })
    }

    /// Ends the attempt under way, so that nobody reads until the next one; unless the body could then not be sent again, which may change
    /// as long as somebody reads.
    pub fn recall(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let mut state = shared.state();
            let can_repeat = state.complete && state.failure.is_none();
            if can_repeat {
                state.supersede();
            }
            can_repeat
        })
    }

    /// When the body last moved; `None` where there is no body.
    pub fn progress(&self) -> Option<Moment> {
        self.0.as_ref().map(|shared| shared.state().progress)
    }

    /// Why the client's side of the body failed, if it did.
    pub fn failure(&self) -> Option<ReplayError> {
        self.0.as_ref().and_then(|shared| shared.state().failure.clone())
    }

    /// Reads the body to its end, at most `limit` bytes of it, and keeps it. `None`: it is longer, or can't be kept; the next attempt sends
    /// all of it, as ever. The client may be silent for `silence`.
    pub async fn read_all(&self, limit: usize, silence: Duration) -> Result<Option<Bytes>, ReplayError> {
        use http_body_util::BodyExt;
        let Some(shared) = &self.0 else { return Ok(Some(Bytes::new())) };
        if shared.exact.is_some_and(|exact| exact > limit.min(shared.caps.each) as u64) {
            return Ok(None);
        }
        let mut body = self.attempt();
        let mut read = VecDeque::new();
        let mut length = 0;
        let silent = || ReplayError::Client(format!("nothing came for {} s", silence.as_secs()));
        while let Some(frame) = tokio::time::timeout(silence, body.frame()).await.map_err(|_| silent())? {
            if let Ok(data) = frame?.into_data() {
                length += data.len();
                read.push_back(data);
                let mut state = shared.state();
                if !state.complete {
                    state.ahead = read;
                    return Ok(None);
                }
                if length > limit {
                    return Ok(None);
                }
            }
        }
        Ok(Some(
            read.into_iter()
                .fold(Vec::with_capacity(length), |mut all, data| {
                    all.extend_from_slice(&data);
                    all
                })
                .into(),
        ))
    }
}

impl State {
    fn supersede(&mut self) {
        self.attempt += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, state: &mut State, data: &Bytes) {
        if !state.complete {
            return;
        }
        if state.kept_bytes + data.len() <= self.caps.each && self.caps.reserve(data.len()) {
            state.kept.push(data.clone());
            state.kept_bytes += data.len();
        } else {
            state.complete = false;
            state.kept = Vec::new();
            self.give_back(state);
        }
    }

    fn give_back(&self, state: &mut State) {
        self.caps.budget.fetch_add(std::mem::take(&mut state.kept_bytes), Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let kept = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).kept_bytes;
        self.caps.budget.fetch_add(kept, Ordering::Relaxed);
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let Some(shared) = self.shared.clone() else {
            return Poll::Ready(None);
        };
        let mut state = shared.state();
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err(ReplayError::Superseded)));
        }
        if let Some(failure) = &state.failure {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        if let Some(data) = state.kept.get(self.next).cloned() {
            state.progress = shared.clock.moment();
            self.next += 1;
            self.sent += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(data) = state.ahead.pop_front() {
            state.progress = shared.clock.moment();
            self.sent += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        loop {
            let ended = state.ended;
            let Some(source) = state.source.as_mut().filter(|_| !ended) else {
                return Poll::Ready(None);
            };
            let failure = match Pin::new(source).poll_frame(cx) {
                Poll::Pending => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    state.ended = true;
                    continue;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    state.seen += data.len() as u64;
                    state.progress = shared.clock.moment();
                    if shared.caps.longest.is_none_or(|longest| state.seen <= longest) {
                        shared.keep(&mut state, &data);
                        self.next = state.kept.len();
                        self.sent += data.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    ReplayError::TooLong
                }
                Poll::Ready(Some(Err(error))) => ReplayError::Client(error.to_string()),
            };
            state.failure = Some(failure.clone());
            return Poll::Ready(Some(Err(failure)));
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        shared.exact.is_some_and(|exact| self.sent >= exact)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.shared {
            None => SizeHint::with_exact(0),
            Some(shared) => match shared.exact {
                Some(exact) => SizeHint::with_exact(exact.saturating_sub(self.sent)),
                None => SizeHint::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back_and_never_more_than_there_is() {
        let caps = Caps { each: 1, budget: Arc::new(AtomicUsize::new(10)), longest: None };
        let mut first = caps.reserved();
        assert!(first.more(6) && !first.more(5) && first.more(4));
        assert!(!caps.reserved().more(1));
        drop(first);
        assert!(caps.reserved().more(10));
    }
}
