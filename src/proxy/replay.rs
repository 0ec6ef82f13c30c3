//! A request body that is streamed once and kept while it is small, so that it can be sent again after a 401.
//!
//! The body goes out as it comes in: keeping it costs no time, only memory, up to a cap for each request and a budget for
//! all. Past either it streams on and can't be replayed. Only the newest attempt reads; an older one that is still being sent
//! fails, so that no two attempts share what the client sends.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

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

/// The body of one request, for as many attempts as it takes.
pub struct Replay(Option<Arc<Shared>>);

struct Shared {
    exact: Option<u64>,
    clock: Clock,
    caps: Caps,
    state: Mutex<State>,
}

struct State {
    source: Incoming,
    ended: bool,
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

impl Replay {
    pub fn new(source: Incoming, caps: &Caps, clock: &Clock) -> Self {
        if source.is_end_stream() {
            return Self(None);
        }
        let state = State {
            ended: false,
            kept: Vec::new(),
            kept_bytes: 0,
            complete: true,
            seen: 0,
            attempt: 0,
            reader: None,
            progress: clock.moment(),
            failure: None,
            source,
        };
        let exact = state.source.size_hint().exact();
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

    /// Reads the body to its end, at most `limit` bytes of it, and keeps it. `None`: it is longer, or can't be kept. The client
    /// may be silent for `silence`.
    pub async fn read_all(&self, limit: usize, silence: Duration) -> Result<Option<Bytes>, ReplayError> {
        use http_body_util::BodyExt;
        let mut body = self.attempt();
        let mut all = Vec::new();
        let silent = || ReplayError::Client(format!("nothing came for {} s", silence.as_secs()));
        while let Some(frame) = tokio::time::timeout(silence, body.frame()).await.map_err(|_| silent())? {
            if let Ok(data) = frame?.into_data() {
                all.extend_from_slice(&data);
                if all.len() > limit {
                    return Ok(None);
                }
            }
        }
        Ok(self.can_repeat().then(|| all.into()))
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

    /// Takes `bytes` of the common budget, if they are there.
    fn reserve(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.caps.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn keep(&self, state: &mut State, data: &Bytes) {
        if !state.complete {
            return;
        }
        if state.kept_bytes + data.len() <= self.caps.each && self.reserve(data.len()) {
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
        loop {
            if state.ended {
                return Poll::Ready(None);
            }
            let failure = match Pin::new(&mut state.source).poll_frame(cx) {
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
