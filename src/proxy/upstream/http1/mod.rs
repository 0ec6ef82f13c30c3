//! HTTP/1.1 to the upstream: one connection, one exchange at a time, driven by whoever waits for the answer.
//!
//! There is no task and no channel for a connection: the request's own task writes, reads and hands the answer's body on. httparse reads heads and
//! chunks. A connection is used again only after an answer that left no doubt where it ended, to a request that was sent to its end.

mod framing;
mod head;
mod link;

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use self::framing::Framing;
pub use self::framing::FramingError;
use self::head::{Head, HeadError, MOST_INTERIM, Sent};
pub use self::link::{Link, Stream};
use super::{BodyError, SendError, Upstream};
use crate::proxy::outbound::Attempt;
use crate::proxy::replay::{Replay, ReplayBody, ReplayError};
use crate::proxy::verdict::Failure;

/// Data that is ready is collected up to here before it is handed on: each piece has its price.
const PIECE: usize = 64 << 10;

/// The body of an answer, with the connection over which it comes.
pub struct Incoming {
    upstream: Arc<Upstream>,
    link: Option<Box<Link>>,
    upload: Upload,
    framing: Framing,
    /// How the connection ended. It says so once: the next look at one that broke finds an orderly end.
    ended: Option<io::Result<()>>,
    keeps: bool,
}

/// The body of a request on its way.
struct Upload {
    body: ReplayBody,
    chunked: bool,
    piece: Bytes,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Sending,
    Done,
    /// The upstream takes no more. It may have said why.
    Broken,
}

/// Sends a request over `link` and waits for the head of the answer, `limit` at most, counted from the last move of the request's body.
pub async fn send(
    upstream: &Arc<Upstream>,
    mut link: Box<Link>,
    attempt: Attempt<'_>,
    body: &Replay,
    limit: Duration,
) -> Result<Response<Incoming>, SendError> {
    let mut upload = Upload::new(body.attempt());
    head::write(&mut link.output, &attempt, upload.sent(&attempt.head.method));
    let clock = &upstream.template.clock;
    link.silence.as_mut().reset(tokio::time::Instant::now() + limit);
    let method = &attempt.head.method;
    let mut interim = 0;
    let head = poll_fn(|cx| {
        if let Err(error) = upload.poll(&mut link, cx) {
            return Poll::Ready(Err(SendError { failure: Failure::Body, text: error.to_string() }));
        }
        loop {
            match final_head(&mut link, method, &mut interim) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(link.died(&format!("the answer is none: {error}")))),
            }
            match link.poll_read(cx, 0) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(link.died("the connection was closed before an answer"))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(link.died(&format!("the connection failed: {error}"))));
                }
                Poll::Pending => break,
            }
        }
        while link.silence.as_mut().poll(cx).is_ready() {
            let quiet = clock.moment().since(body.progress().unwrap_or(attempt.at).max(attempt.at));
            if quiet >= limit {
                return Poll::Ready(Err(SendError::timed_out(limit)));
            }
            link.silence.as_mut().reset(tokio::time::Instant::now() + limit.saturating_sub(quiet));
        }
        Poll::Pending
    })
    .await?;
    let Head { response, framing, mut keeps } = head;
    // Without a body it is over before anybody could retire its connection: one that is too busy is not asked again.
    keeps &= !(response.status() == StatusCode::SERVICE_UNAVAILABLE && framing.is_over());
    let incoming = Incoming { upstream: Arc::clone(upstream), link: Some(link), upload, framing, ended: None, keeps };
    Ok(response.map(|()| incoming.begun()))
}

/// Interim answers are not for us, but for one: to a switch of protocols that nobody asked for there is no sequel.
fn final_head(link: &mut Link, method: &Method, interim: &mut u32) -> Result<Option<Head>, HeadError> {
    loop {
        let head = if link.input.is_empty() { None } else { link.last.read(&mut link.input, method)? };
        match head {
            Some(head) if head.response.status().is_informational() => {
                if head.response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return Ok(Some(Head { keeps: false, ..head }));
                }
                *interim += 1;
                if *interim > MOST_INTERIM {
                    return Err(HeadError::Interim);
                }
            }
            head => return Ok(head),
        }
    }
}

impl Upload {
    fn new(body: ReplayBody) -> Self {
        let progress = if body.is_end_stream() { Progress::Done } else { Progress::Sending };
        Self { body, chunked: false, piece: Bytes::new(), progress }
    }

    /// How the head says what is sent.
    fn sent(&mut self, method: &Method) -> Sent {
        if self.progress == Progress::Done {
            // Servers answer 411 to a POST that says nothing of its length.
            let says = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
            return if says { Sent::Length(0) } else { Sent::Nothing };
        }
        let exact = self.body.size_hint().exact();
        self.chunked = exact.is_none();
        exact.map_or(Sent::Chunked, Sent::Length)
    }

    /// There is nothing left to send.
    fn is_over(&self, link: &Link) -> bool {
        match self.progress {
            Progress::Sending => false,
            Progress::Done => self.piece.is_empty() && link.is_flushed(),
            Progress::Broken => true,
        }
    }

    /// Sends what can be sent now. An error is the client's; that of the upstream's side shows when its answer is read.
    fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Result<(), ReplayError> {
        loop {
            let reads = self.progress == Progress::Sending && self.piece.is_empty() && link.has_room();
            let waits = reads && self.poll_body(link, cx)?.is_pending();
            match link.poll_write(cx, &mut self.piece) {
                Poll::Ready(Ok(())) if waits || self.progress != Progress::Sending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => {
                    self.progress = Progress::Broken;
                    self.piece = Bytes::new();
                    return Ok(());
                }
            }
        }
    }

    /// Puts what the body has next behind what waits to be written.
    fn poll_body(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Result<Poll<()>, ReplayError> {
        let data = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(None) => {
                self.progress = Progress::Done;
                if self.chunked {
                    link.queue().extend_from_slice(b"0\r\n\r\n");
                }
                return Ok(Poll::Ready(()));
            }
            Poll::Ready(Some(frame)) => frame?.into_data().unwrap_or_default(),
        };
        if !self.chunked {
            if self.body.is_end_stream() {
                self.progress = Progress::Done;
            }
            self.piece = data;
        } else if !data.is_empty() {
            let queue = link.queue();
            write!(queue, "{:x}\r\n", data.len()).expect("memory takes it");
            queue.extend_from_slice(&data);
            queue.extend_from_slice(b"\r\n");
        }
        Ok(Poll::Ready(()))
    }
}

impl Incoming {
    /// An answer without a body is over at once.
    fn begun(mut self) -> Self {
        if self.framing.is_over() {
            self.finish();
        }
        self
    }

    /// Nothing more comes, and nothing was missing.
    pub fn is_over(&self) -> bool {
        self.framing.is_over()
    }

    /// The length of what is still to come, where it is known.
    pub fn left(&self) -> Option<u64> {
        self.framing.left()
    }

    /// No further request goes over this connection.
    pub fn retire(&mut self) {
        self.keeps = false;
    }

    /// The next data. The upstream may be silent for `limit`, and the rest of the request is sent meanwhile.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(link) = self.link.as_deref_mut() else { return Poll::Ready(None) };
        if !self.upload.is_over(link)
            && let Err(error) = self.upload.poll(link, cx)
        {
            self.upload.progress = Progress::Broken;
            self.keeps = false;
            tracing::debug!(%error, "a request's body ended before its answer");
        }
        let wants = usize::try_from(self.framing.wants()).unwrap_or(usize::MAX).min(PIECE);
        while link.input.len() < wants && self.ended.is_none() {
            match link.poll_read(cx, wants) {
                Poll::Ready(Ok(0)) => self.ended = Some(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => self.ended = Some(Err(error)),
                Poll::Pending => break,
            }
        }
        match self.framing.next(&mut link.input) {
            Ok(Some(data)) => {
                link.silent = false;
                if self.framing.is_over() {
                    self.finish();
                }
                return Poll::Ready(Some(Ok(data)));
            }
            Ok(None) if self.framing.is_over() => {
                self.finish();
                return Poll::Ready(None);
            }
            Ok(None) => {}
            Err(error) => return self.fail(error.into()),
        }
        match self.ended.take() {
            Some(Ok(())) if self.framing.may_end() => {
                self.link = None;
                Poll::Ready(None)
            }
            Some(Ok(())) => self.fail(BodyError::CutOff),
            Some(Err(error)) => self.fail(error.into()),
            None => match link.poll_silence(cx, limit) {
                Poll::Ready(()) => self.fail(BodyError::Idle(limit)),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.link = None;
        Poll::Ready(Some(Err(error)))
    }

    /// The answer has come to its end: the connection is free, unless the request has not.
    fn finish(&mut self) {
        if let Some(link) = self.link.take()
            && self.keeps
            && self.ended.is_none()
            && self.upload.progress == Progress::Done
            && self.upload.is_over(&link)
            && link.input.is_empty()
        {
            self.upstream.keep(link);
        }
    }
}
