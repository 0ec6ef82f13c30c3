//! The connections of one worker to one upstream: last in, first out.
//!
//! A connection lives five minutes at most, so that a change of DNS is followed. HTTP/1.1 connections carry one request at a time; an
//! HTTP/2 connection is shared. Nobody listens to an idle connection of HTTP/1.1: it is looked at before it is used, and from time to time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::dial::Dialled;
use super::http1::{Link, Stream};
use super::{SendError, Upstream};
use crate::clock::Moment;
use crate::config::HttpVersion;
use crate::metrics::{Ongoing, Side};
use crate::proxy::replay::ReplayBody;
use crate::proxy::verdict::Failure;
use crate::tasks::spawn_here;

/// A connection is used no longer than this: names may lead elsewhere by then.
const OLDEST: Duration = Duration::from_secs(300);
/// An idle connection is not trusted after this time: most servers close theirs after a minute.
const LONGEST_IDLE: Duration = Duration::from_secs(50);
/// Idle connections kept by one worker.
pub const MOST_IDLE: usize = 256;
/// Idle connections are looked at so often.
const SWEEP: Duration = Duration::from_secs(10);

/// HTTP/1.1 connections without a request.
#[derive(Default)]
pub struct Idle {
    /// The last to come back is the last.
    #[expect(clippy::vec_box, reason = "a request takes it by its pointer, and gives it back so")]
    links: Vec<Box<Link>>,
    is_swept: bool,
}

#[derive(Clone)]
pub struct Shared {
    pub sender: http2::SendRequest<ReplayBody>,
    born: Moment,
    /// The same for all clones.
    pub identity: Arc<()>,
}

pub enum Connection {
    Http1(Box<Link>),
    Http2 { shared: Shared, reused: bool },
}

impl Upstream {
    /// A new one, or that of HTTP/2 which another caller has dialled meanwhile.
    pub(super) async fn connection(self: &Arc<Self>, fresh: bool) -> Result<Connection, SendError> {
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return self.dial().await;
        }
        let _one_dials = self.dialling.lock().await;
        match self.pooled(fresh, self.template.clock.moment()) {
            Some(connection) => Ok(connection),
            None => self.dial().await,
        }
    }

    /// One that is there: that of HTTP/2, or the newest of the idle ones unless it is to be `fresh`.
    pub(super) fn pooled(&self, fresh: bool, now: Moment) -> Option<Connection> {
        if let Some(shared) = &*self.shared()
            && now.since(shared.born) < OLDEST
            && !shared.sender.is_closed()
        {
            return Some(Connection::Http2 { shared: shared.clone(), reused: true });
        }
        if fresh {
            return None;
        }
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.links.pop())
            .find_map(|mut link| is_good(&mut link, now).then(|| Connection::Http1(link)))
    }

    /// A connection of HTTP/1.1 whose answer has ended waits for the next request.
    pub(super) fn keep(self: &Arc<Self>, mut link: Box<Link>) {
        link.rest(self.template.clock.moment());
        let mut idle = self.idle();
        if idle.links.len() >= MOST_IDLE {
            idle.links.remove(0);
        }
        idle.links.push(link);
        if !std::mem::replace(&mut idle.is_swept, true) {
            spawn_here(sweep(Arc::downgrade(self)));
        }
    }

    /// No further request goes over this connection of HTTP/2.
    pub(super) fn retire(&self, identity: &Arc<()>) {
        self.shared().take_if(|shared| Arc::ptr_eq(&shared.identity, identity));
    }

    async fn dial(self: &Arc<Self>) -> Result<Connection, SendError> {
        let template = &self.template;
        let limit = template.config.connect_timeout;
        let unreachable = |text: String| SendError { failure: Failure::NotSent, text };
        let dialled = tokio::time::timeout(limit, template.connect());
        let connection = dialled
            .await
            .map_err(|_| unreachable(format!("no connection within {} s", limit.as_secs())))?
            .map_err(|error| unreachable(format!("no connection: {error}")))?;
        let born = template.clock.moment();
        let counted = template.metrics.connection(Side::Upstream);
        let failed = |error: hyper::Error| unreachable(format!("no connection: {error}"));
        match connection {
            Dialled::Plain(stream) if template.config.http == HttpVersion::Http2 => {
                self.http2(TokioIo::new(stream), born, counted).await.map_err(failed)
            }
            Dialled::Plain(stream) => Ok(Connection::Http1(Box::new(Link::new(Stream::Plain(stream), born, counted)))),
            Dialled::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.http2(TokioIo::new(stream), born, counted).await.map_err(failed)
            }
            Dialled::Tls(stream) => Ok(Connection::Http1(Box::new(Link::new(Stream::Tls(stream), born, counted)))),
        }
    }

    async fn http2<T>(&self, io: T, born: Moment, counted: Ongoing) -> hyper::Result<Connection>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(Here)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(io)
            .await?;
        let name = Arc::clone(&self.template.name);
        spawn_here(async move {
            let _counted = counted;
            if let Err(error) = connection.await {
                tracing::debug!(upstream = &*name, %error, "an upstream connection ended");
            }
        });
        self.speaks_http2.store(true, Ordering::Relaxed);
        let shared = Shared { sender, born, identity: Arc::default() };
        *self.shared() = Some(shared.clone());
        Ok(Connection::Http2 { shared, reused: false })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Option<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub fn reused(&self) -> bool {
        match self {
            Self::Http1(link) => link.reused,
            Self::Http2 { reused, .. } => *reused,
        }
    }
}

fn is_good(link: &mut Link, now: Moment) -> bool {
    now.since(link.idle_since) <= LONGEST_IDLE && now.since(link.born) <= OLDEST && link.is_alive()
}

/// Lets go of idle connections that are of no use any more, as long as there are any.
async fn sweep(upstream: Weak<Upstream>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let now = upstream.template.clock.moment();
        let mut idle = upstream.idle();
        idle.links.retain_mut(|link| is_good(link, now));
        if idle.links.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}

/// Runs HTTP/2's own tasks on the worker that dialled.
#[derive(Clone, Copy)]
struct Here;

impl<F> hyper::rt::Executor<F> for Here
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        spawn_here(work);
    }
}
