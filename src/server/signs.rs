//! What can be seen of a hyper connection from outside, by what it does with its stream and with its timer.
//!
//! Invariant: `is_idle` is true only while hyper waits for a request, has read nothing since the last one was over, and has nothing
//! left to write. hyper starts the timer of a head exactly when the exchange before is over, bodies and all, and drops it when the head is
//! complete: that is the sign of waiting. The timer itself never fires; who keeps the time is `http1`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use hyper_util::rt::TokioIo;

use super::connection::Stream;

/// One task sets and reads them; they are atomics because a task may move between threads.
#[derive(Debug, Default)]
pub struct Signs {
    /// hyper waits for a request: from the end of the last exchange to the end of the next head.
    waiting: AtomicBool,
    /// How many times it began to.
    waits: AtomicU32,
    /// Something has been read since.
    begun: AtomicBool,
    /// All that was written has left the stream.
    flushed: AtomicBool,
    /// hyper's shutdown is only meant to make it let go of the stream.
    kept_open: AtomicBool,
}

/// A stream as hyper gets it.
#[derive(Debug)]
pub struct Io<T> {
    stream: TokioIo<T>,
    /// What an earlier hyper connection has read and not used.
    before: Bytes,
    signs: Arc<Signs>,
}

/// hyper's timer for heads.
#[derive(Debug)]
pub struct HeadTimer {
    signs: Arc<Signs>,
    /// Any moment: nothing depends on it.
    now: Instant,
}

/// Lives as long as hyper waits for a head.
#[derive(Debug)]
struct HeadWait(Arc<Signs>);

impl Signs {
    /// The wait that hyper is in; none while it has a request to answer.
    pub fn wait(&self) -> Option<u32> {
        self.waiting.load(Relaxed).then(|| self.waits.load(Relaxed))
    }

    /// The wait that will be the next.
    pub fn next_wait(&self) -> u32 {
        self.waits.load(Relaxed).wrapping_add(1)
    }

    /// A byte of the next head has been read.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// A connection that is taken apart now loses nothing.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Relaxed) && !self.begun.load(Relaxed) && self.flushed.load(Relaxed)
    }

    /// From now on a shutdown flushes and leaves the stream open.
    pub fn keep_open(&self) {
        self.kept_open.store(true, Relaxed);
    }

    pub fn is_kept_open(&self) -> bool {
        self.kept_open.load(Relaxed)
    }

    fn begin_wait(&self) {
        self.waits.store(self.next_wait(), Relaxed);
        self.begun.store(false, Relaxed);
        self.waiting.store(true, Relaxed);
    }
}

impl<T: Stream> Io<T> {
    pub fn new(stream: T, signs: Arc<Signs>) -> Self {
        signs.flushed.store(true, Relaxed);
        Self { stream: TokioIo::new(stream), before: Bytes::new(), signs }
    }

    pub fn stream(&self) -> &T {
        self.stream.inner()
    }

    /// `io` of a hyper connection that was taken apart, with what it had read too much.
    pub fn again(io: Self, before: Bytes) -> Self {
        io.signs.kept_open.store(false, Relaxed);
        // An empty part of a buffer would keep the whole.
        Self { before: if before.is_empty() { Bytes::new() } else { before }, ..io }
    }

    /// Ready when there is something to read, or nothing more will come.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.before.is_empty() { self.stream().socket().poll_readable(context) } else { Poll::Ready(()) }
    }
}

impl<T: Stream> Read for Io<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if io.before.is_empty() {
            ready!(Pin::new(&mut io.stream).poll_read(context, buffer))?;
        } else {
            let part = io.before.split_to(io.before.len().min(buffer.remaining()));
            buffer.put_slice(&part);
        }
        io.signs.begun.store(true, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: Stream> Write for Io<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        io.signs.flushed.store(false, Relaxed);
        Pin::new(&mut io.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        io.signs.flushed.store(false, Relaxed);
        Pin::new(&mut io.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        // hyper flushes only when it has written all that it has.
        let flushed = Pin::new(&mut io.stream).poll_flush(context);
        io.signs.flushed.store(flushed.is_ready(), Relaxed);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.signs.is_kept_open() {
            return self.poll_flush(context);
        }
        self.signs.waiting.store(false, Relaxed);
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl HeadTimer {
    pub fn new(signs: Arc<Signs>, now: Instant) -> Self {
        Self { signs, now }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.signs.begin_wait();
        Box::pin(HeadWait(self.signs.clone()))
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, _: Instant) {
        self.signs.begin_wait();
    }
}

impl Sleep for HeadWait {}

impl Future for HeadWait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for HeadWait {
    fn drop(&mut self) {
        self.0.waiting.store(false, Relaxed);
    }
}
