//! A connection to the upstream: plain or TLS, with what was read ahead and what waits to be written.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use super::head::Last;
use crate::clock::Moment;
use crate::metrics::Ongoing;
use crate::proxy::upstream::SendError;
use crate::proxy::verdict::Failure;

/// Room for what is read at once; an answer of mean size fits.
const ROOM: usize = 8 << 10;
/// A buffer that has become larger than this is not kept while the connection waits.
const KEPT: usize = 16 << 10;

#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Link {
    stream: Stream,
    pub(super) input: BytesMut,
    pub(super) last: Last,
    /// Heads and framing.
    pub(super) output: Vec<u8>,
    written: usize,
    /// `input` has had more room than is kept, however little of it is left.
    grown: bool,
    /// Rings when the upstream has been silent for too long. Registered once and moved on, which costs less than a new one for each request.
    pub(super) silence: Pin<Box<Sleep>>,
    /// `silence` runs for a body that waits.
    pub(super) silent: bool,
    pub(in super::super) born: Moment,
    pub(in super::super) idle_since: Moment,
    pub(in super::super) reused: bool,
    /// A byte of the request under way has left.
    begun: bool,
    _counted: Ongoing,
}

pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    pub fn new(stream: Stream, born: Moment, counted: Ongoing) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            last: Last::default(),
            output: Vec::new(),
            written: 0,
            grown: false,
            silence: Box::pin(sleep(Duration::from_secs(60))),
            silent: false,
            born,
            idle_since: born,
            reused: false,
            begun: false,
            _counted: counted,
        }
    }

    /// The upstream has neither closed the connection nor said anything that nobody asked for.
    pub fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // A task that has used up its turn would be told "nothing yet", whatever there is.
        let look = pin!(unconstrained(poll_fn(|cx| self.poll_read(cx, 0))));
        look.poll(&mut cx).is_pending()
    }

    /// Nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty() && self.stream.is_flushed()
    }

    /// Made ready to wait for the next request.
    pub(in super::super) fn rest(&mut self, now: Moment) {
        self.idle_since = now;
        self.reused = true;
        self.begun = false;
        self.silent = false;
        if std::mem::take(&mut self.grown) || self.input.capacity() > KEPT {
            self.input = BytesMut::new();
        }
        if self.output.capacity() > KEPT {
            self.output = Vec::new();
        }
    }

    /// To put more behind what waits to be written. What has left makes room: an upstream that is always a little behind would never see
    /// all of it gone.
    pub(super) fn queue(&mut self) -> &mut Vec<u8> {
        self.output.drain(..self.written);
        self.written = 0;
        &mut self.output
    }

    /// Not much waits to be written.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() - self.written < ROOM
    }

    /// What happened to a request when its connection ended, or brought something that is no answer.
    pub(super) fn died(&self, text: &str) -> SendError {
        let failure = match (self.begun, self.reused) {
            (false, _) => Failure::NotSent,
            (true, true) => Failure::ReusedDied,
            (true, false) => Failure::Died,
        };
        SendError { failure, text: text.to_owned() }
    }

    /// Reads what is there into `input`, which has room for `wants` bytes in all then. `0`: the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, wants: usize) -> Poll<io::Result<usize>> {
        self.grown |= wants > KEPT;
        match &mut self.stream {
            Stream::Plain(stream) => {
                self.input.reserve(wants.saturating_sub(self.input.len()).max(ROOM));
                poll_read_buf(Pin::new(stream), cx, &mut self.input)
            }
            Stream::Tls(stream) => {
                let mut stream = Pin::new(stream);
                let data = ready!(stream.as_mut().poll_fill_buf(cx))?;
                let length = data.len();
                self.input.reserve(wants.saturating_sub(self.input.len()).max(length));
                self.input.extend_from_slice(data);
                stream.consume(length);
                Poll::Ready(Ok(length))
            }
        }
    }

    /// Writes `output`, then `piece`. Ready when all is out.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>> {
        while self.written < self.output.len() || !piece.is_empty() {
            let parts = [IoSlice::new(&self.output[self.written..]), IoSlice::new(piece)];
            let parts = if piece.is_empty() { &parts[..1] } else { &parts[..] };
            // TLS may have sent a part when it fails, and does not say so.
            self.begun |= matches!(self.stream, Stream::Tls(_));
            let count = match ready!(self.stream.poll_write(cx, parts)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => count,
                Err(error) => {
                    self.output.clear();
                    self.written = 0;
                    return Poll::Ready(Err(error));
                }
            };
            self.begun = true;
            // Bytes that go out end a silence as bytes that come in do.
            self.silent = false;
            let head = count.min(self.output.len() - self.written);
            self.written += head;
            piece.advance(count - head);
        }
        self.output.clear();
        self.written = 0;
        if self.stream.is_flushed() { Poll::Ready(Ok(())) } else { self.stream.poll_flush(cx) }
    }

    /// Ready when the upstream has been silent for `limit` since it last sent something.
    pub(super) fn poll_silence(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        if !self.silent {
            self.silent = true;
            self.silence.as_mut().reset(Instant::now() + limit);
        }
        self.silence.as_mut().poll(cx)
    }
}

impl Stream {
    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    /// What the TLS session was given has reached the socket.
    fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(stream) => !stream.get_ref().1.wants_write(),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::{Metrics, Side};

    /// A connection, and the upstream's end of it.
    async fn linked() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let counted = Metrics::new().connection(Side::Upstream);
        (Link::new(Stream::Plain(ours.unwrap()), Clock::system().moment(), counted), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn a_dead_connection_is_seen_however_many_are_looked_at() {
        let (mut link, theirs) = linked().await;
        assert!(link.is_alive());
        drop(theirs);
        assert_eq!(std::future::poll_fn(|cx| link.poll_read(cx, 0)).await.unwrap(), 0);
        let alive = (0..1_000).filter(|_| link.is_alive()).count();
        assert_eq!(alive, 0);
    }

    #[tokio::test]
    async fn what_has_left_is_not_kept_before_what_waits() {
        let (mut link, _theirs) = linked().await;
        for _ in 0..100 {
            link.queue().extend_from_slice(&[b'x'; ROOM]);
            // The upstream takes some, and never all.
            link.written = link.output.len() - 1;
        }
        assert_eq!(link.output.len(), 1 + ROOM);
    }
}
