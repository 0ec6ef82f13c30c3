//! An accepted socket, TCP or Unix: peeking at what the client speaks, and closing without losing the last answer.
//!
//! A socket that is closed while bytes lie unread sends a reset, and a reset may overtake the answer: the client that still
//! uploads would see "connection reset" instead of our 401. So the write side is closed first, and what still comes is thrown
//! away until the client closes too, falls silent, or `LINGER` is over.
//!
//! An answer that only the end of its connection ends (HTTP/1.0) and that breaks off has to end in a reset, or it would look whole.
//!
//! A client that takes nothing of what is written for it is given up after `STALLED`: whatever waits for it (a request's passes, an
//! upstream's connection) is free again.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep};

const LINGER: Duration = Duration::from_secs(2);
/// What was on the way has come by then.
const SILENCE: Duration = Duration::from_millis(250);
/// How long a client may take none of the bytes that are ready for it.
const STALLED: Duration = Duration::from_secs(60);
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// The client has closed its side, or the connection broke.
    ended: bool,
    /// We have closed ours.
    shut: bool,
    lingering: Option<Lingering>,
    /// What is to be written waits for the client, until then.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    breaks_off: BreaksOff,
}

/// Whether a socket resets its connection that is dropped before it was shut down.
#[derive(Clone, Debug, Default)]
pub struct BreaksOff(Arc<AtomicBool>);

#[derive(Debug)]
struct Lingering {
    silence: Pin<Box<Sleep>>,
    until: Instant,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub fn tcp(stream: TcpStream) -> Self {
        Self::new(Stream::Tcp(stream))
    }

    pub fn unix(stream: UnixStream) -> Self {
        Self::new(Stream::Unix(stream))
    }

    fn new(stream: Stream) -> Self {
        Self {
            stream,
            ended: false,
            shut: false,
            lingering: None,
            stalled: None,
            patience: STALLED,
            breaks_off: BreaksOff::default(),
        }
    }

    /// For whoever knows that what was sent is not all.
    pub fn breaks_off(&self) -> BreaksOff {
        self.breaks_off.clone()
    }

    /// Waits for the client's first bytes, takes none of them, and tells whether they are HTTP/2's preface.
    pub async fn speaks_http2(&self) -> io::Result<bool> {
        loop {
            let ready = self.ready().await?;
            match self.peek() {
                // A part of the preface, and the rest will never come.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                verdict => return verdict,
            }
        }
    }

    /// Ready when there is something to read, or nothing more will come.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        // An error is found by whoever reads.
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(context).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(context).map(drop),
        }
    }

    async fn ready(&self) -> io::Result<Ready> {
        match &self.stream {
            Stream::Tcp(stream) => stream.ready(Interest::READABLE).await,
            Stream::Unix(stream) => stream.ready(Interest::READABLE).await,
        }
    }

    /// `WouldBlock` where it takes more bytes to tell. Inside `try_io` this clears the readiness, so that `ready` waits for new
    /// bytes instead of spinning on the old ones.
    fn peek(&self) -> io::Result<bool> {
        fn peek(socket: impl AsFd) -> io::Result<bool> {
            let mut first = [0; HTTP2_PREFACE.len()];
            let (_, count) = recv(socket, &mut first[..], RecvFlags::PEEK)?;
            if count == 0 || first[..count] != HTTP2_PREFACE[..count] {
                Ok(false)
            } else if count == HTTP2_PREFACE.len() {
                Ok(true)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        match &self.stream {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, || peek(stream)),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, || peek(stream)),
        }
    }

    fn unless_stalled(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl BreaksOff {
    pub fn set(&self, breaks_off: bool) {
        self.0.store(breaks_off, Ordering::Relaxed);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Stream::Tcp(stream) = &self.stream
            && !self.shut
            && self.breaks_off.0.load(Ordering::Relaxed)
        {
            // Nothing to lose if that fails: then it is closed as usual.
            drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let before = buffer.filled().len();
        let result = ready!(socket.read(context, buffer));
        socket.ended |= result.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let written = match &mut socket.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        socket.unless_stalled(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let written = match &mut socket.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        socket.unless_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets keep nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if !socket.shut {
            ready!(match &mut socket.stream {
                Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
                Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            })?;
            socket.shut = true;
        }
        let mut lingering = socket.lingering.take().unwrap_or_else(Lingering::begin);
        while !socket.ended && lingering.silence.as_mut().poll(context).is_pending() {
            let mut scratch = [MaybeUninit::uninit(); 4096];
            let mut unread = ReadBuf::uninit(&mut scratch);
            let Poll::Ready(result) = socket.read(context, &mut unread) else {
                socket.lingering = Some(lingering);
                return Poll::Pending;
            };
            socket.ended = result.is_err() || unread.filled().is_empty() || !lingering.go_on();
        }
        Poll::Ready(Ok(()))
    }
}

impl Lingering {
    fn begin() -> Self {
        Self { silence: Box::pin(sleep(SILENCE)), until: sleep(LINGER).deadline() }
    }

    /// After something was read: waits for silence again, unless it would take too long.
    fn go_on(&mut self) -> bool {
        self.silence.set(sleep(SILENCE));
        self.silence.deadline() <= self.until
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up_and_a_slow_one_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = Socket::unix(ours);
        socket.patience = Duration::from_millis(50);
        let error = loop {
            match socket.write(&[0; 8192]).await {
                Ok(_) => assert!(socket.stalled.is_none()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        socket.stalled = None;
        socket.patience = Duration::from_secs(60);
        let mut taken = vec![0; 1 << 20];
        let (written, read) = tokio::join!(socket.write(&[1; 8192]), theirs.read(&mut taken));
        assert!(written.is_ok() && read.is_ok() && socket.stalled.is_none());
    }
}
