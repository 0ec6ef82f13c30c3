//! A connection that speaks HTTP/1: hyper while there is something to do, nothing but its stream while it waits for a request.
//!
//! hyper keeps some 20 KB for a connection: buffers, the parser's state, the room for the future that answers. So a connection that has been
//! silent for a short while is taken apart and *parked*: what stays is the stream and who the client is. The first byte, the end of
//! the stream, or a drain builds a new hyper connection on it, which does what the old one would have done.
//!
//! Why nothing can be lost:
//! - A connection is parked only while it is idle by its `Signs`: no exchange is under way, no byte of the next one has been read, and
//!   whatever was written has left.
//! - It is hyper that says when it can go: it is asked for a graceful end, flushes once more, and shuts its stream down, which
//!   `Io` does not pass on. Should anything be left to do after all, hyper does it first.
//! - What hyper has read beyond the last request, the beginning of a pipelined one, comes back from it and is what the next one reads
//!   first. Such a connection is not parked again until that request is over.
//! - TLS is parked whole. hyper's last read found no plaintext in it; a part of a record stays in it.
//! - Parked, the task waits for the socket to be readable: bytes that came at any moment after that last read make it so.
//!
//! Where memory is short, a connection that would be parked is closed, and so is one that takes as long for a head that has begun.
//!
//! In a drain a connection ends with the answer under way, which says so (`Connection: close`). One that waits for a request gets a last
//! moment: the request that is on its way may come, and its answer says the same.
//!
//! Why it costs nothing under load: no request arms a timer. A connection is looked at twice a second, and it is parked if two looks in a
//! row find it in the same wait. The same looks end what takes longer than `header_timeout`, at most one look late; that time
//! counts on through a parking.

use std::convert::Infallible;
use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::Service;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::Stream;
use super::drain::Drain;
use super::signs::{HeadTimer, Io, Signs};
use crate::process::memory::Pressure;

/// What was sent before the drain could be known has come by then.
const LAST_CALL: Duration = Duration::from_millis(250);

/// How long a client may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request, and for the silence before it.
    pub header_timeout: Duration,
    /// A silent connection stays whole for this long, at most twice. Zero: it is parked whenever it waits.
    pub park_after: Duration,
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// hyper brought it to its end.
    Done(hyper::Result<()>),
    /// No complete head within `header_timeout`.
    Overdue,
}

/// Serves `stream` to its end; once the drain begins, or `trust` is cancelled, to the end of the request under way. `requests` makes what hyper calls for each.
pub async fn serve<T: Stream, R, B>(
    builder: &Builder,
    patience: Patience,
    drain: &Drain,
    pressure: &Pressure,
    trust: Option<&CancellationToken>,
    stream: T,
    requests: impl Fn() -> R,
) -> Ended
where
    R: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let mut begun = pin!(drain.begun());
    let mut distrusted = pin!(trust.map(CancellationToken::cancelled));
    // A task's waker stays the same, so it is left there once. What it is woken for, the flag tells.
    std::future::poll_fn(|context| {
        let _: Poll<()> = begun.as_mut().poll(context);
        let _: Option<Poll<()>> = distrusted.as_mut().as_pin_mut().map(|distrusted| distrusted.poll(context));
        Poll::Ready(())
    })
    .await;
    let mut watch = Watch::new(patience, drain, pressure, trust);
    let mut io = Io::new(stream, watch.signs.clone());
    loop {
        let timer = HeadTimer::new(watch.signs.clone(), watch.looks.deadline().into_std());
        let http =
            builder.clone().timer(timer).header_read_timeout(patience.header_timeout).serve_connection(io, requests());
        io = match watch.while_active(Box::new(http)).await {
            Ok(idle) => idle,
            Err(ended) => return ended,
        };
        if watch.while_parked(&io).await.is_err() {
            return Ended::Overdue;
        }
    }
}

/// No request came in time.
struct Overdue;

/// Looks at a connection now and then.
struct Watch<'a> {
    patience: Patience,
    drain: &'a Drain,
    pressure: &'a Pressure,
    trust: Option<&'a CancellationToken>,
    signs: Arc<Signs>,
    looks: Pin<Box<Sleep>>,
    /// `looks` wakes the task.
    armed: bool,
    /// The wait that the last look found, and when it found it first.
    wait: u32,
    since: Instant,
    /// In a drain: the wait that is the last, and how long it may take.
    last_call: Option<(u32, Pin<Box<Sleep>>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Busy,
    Idle,
    Overdue,
}

impl<'a> Watch<'a> {
    fn new(patience: Patience, drain: &'a Drain, pressure: &'a Pressure, trust: Option<&'a CancellationToken>) -> Self {
        let looks = Box::pin(sleep(patience.between_looks()));
        let since = looks.deadline() - patience.between_looks();
        Self {
            patience,
            drain,
            pressure,
            trust,
            signs: Arc::default(),
            looks,
            armed: false,
            wait: 1,
            since,
            last_call: None,
        }
    }

    /// Drives `connection` until it ends, or is idle and gone.
    async fn while_active<T: Stream, R, B>(&mut self, mut connection: Box<Connection<Io<T>, R>>) -> Result<Io<T>, Ended>
    where
        R: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    {
        let mut ending = false;
        let ended = std::future::poll_fn(|context| {
            loop {
                if let Poll::Ready(done) = Pin::new(&mut *connection).poll(context) {
                    return Poll::Ready(Ended::Done(done));
                }
                if !ending
                    && let Some(wait) = self.signs.wait()
                    && self.is_over(context, wait)
                {
                    ending = true;
                    Pin::new(&mut *connection).graceful_shutdown();
                    continue;
                }
                match self.look(context, !ending) {
                    Seen::Busy => return Poll::Pending,
                    Seen::Overdue => return Poll::Ready(Ended::Overdue),
                    Seen::Idle => {
                        ending = true;
                        if !self.pressure.is_high() {
                            self.signs.keep_open();
                        }
                        Pin::new(&mut *connection).graceful_shutdown();
                    }
                }
            }
        })
        .await;
        match ended {
            Ended::Done(Ok(())) if self.signs.is_kept_open() => {
                let parts = connection.into_parts();
                Ok(Io::again(parts.io, parts.read_buf))
            }
            ended => Err(ended),
        }
    }

    /// Until there is work for a new hyper connection.
    async fn while_parked<T: Stream>(&mut self, io: &Io<T>) -> Result<(), Overdue> {
        self.looks.set(sleep_until(self.overdue()));
        std::future::poll_fn(|context| {
            if io.poll_readable(context).is_ready() || self.is_over(context, self.wait) {
                return Poll::Ready(Ok(()));
            }
            self.looks.as_mut().poll(context).map(|()| Err(Overdue))
        })
        .await?;
        self.look_at(sleep(self.patience.between_looks()).deadline());
        // The new connection goes on with the same wait.
        self.wait = self.signs.next_wait();
        if let Some((wait, _)) = &mut self.last_call {
            *wait = self.wait;
        }
        Ok(())
    }

    /// The drain has begun, or the client's certificate counts no more, and nothing has come in this wait since.
    fn is_over(&mut self, context: &mut Context<'_>, wait: u32) -> bool {
        if !self.drain.has_begun() && !self.trust.is_some_and(CancellationToken::is_cancelled) {
            return false;
        }
        match &mut self.last_call {
            Some((last, time)) if *last == wait => time.as_mut().poll(context).is_ready(),
            last_call => {
                let (_, time) = last_call.insert((wait, Box::pin(sleep(LAST_CALL))));
                time.as_mut().poll(context).is_ready()
            }
        }
    }

    /// To be called when hyper can do no more for now. Until it is time for a look this reads a flag.
    fn look(&mut self, context: &mut Context<'_>, may_park: bool) -> Seen {
        if may_park && self.patience.park_after.is_zero() && self.signs.is_idle() {
            return Seen::Idle;
        }
        while !self.armed || self.looks.is_elapsed() {
            if self.looks.as_mut().poll(context).is_pending() {
                self.armed = true;
                break;
            }
            let now = self.looks.deadline();
            let seen = self.judge(now, may_park);
            self.look_at(now + self.patience.between_looks());
            if seen != Seen::Busy {
                return seen;
            }
        }
        Seen::Busy
    }

    fn look_at(&mut self, next: Instant) {
        self.looks.set(sleep_until(next.min(self.overdue())));
        self.armed = false;
    }

    fn overdue(&self) -> Instant {
        self.since + self.patience.header_timeout
    }

    fn judge(&mut self, now: Instant, may_park: bool) -> Seen {
        let wait = self.signs.wait();
        if wait != Some(self.wait) {
            (self.wait, self.since) = (wait.unwrap_or(self.wait), now);
            Seen::Busy
        } else if now >= self.overdue() || (self.signs.has_begun() && self.pressure.is_high()) {
            Seen::Overdue
        } else if may_park && self.signs.is_idle() {
            Seen::Idle
        } else {
            Seen::Busy
        }
    }
}

impl Patience {
    /// A fraction of the timeout, so that it is kept well enough.
    fn between_looks(self) -> Duration {
        let most = self.header_timeout / 4;
        let wanted = if self.park_after.is_zero() { most } else { self.park_after.min(most) };
        wanted.max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests;
