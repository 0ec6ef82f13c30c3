//! The connections of one worker to one upstream: last in, first out.
//!
//! A connection lives five minutes at most, so that a change of DNS is followed. HTTP/1.1 connections carry one request at a time; an
//! HTTP/2 connection is shared.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use http::Version;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::dial::Dialled;
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
/// A connection that has just delivered an answer is ready for the next request within this time, or not at all.
const READY_WITHIN: Duration = Duration::from_millis(20);

pub struct Idle {
    sender: http1::SendRequest<ReplayBody>,
    since: Moment,
    born: Moment,
}

#[derive(Clone)]
pub struct Shared {
    pub sender: http2::SendRequest<ReplayBody>,
    born: Moment,
    /// The same for all clones.
    identity: Arc<()>,
}

/// A connection that is delivering an answer. One of HTTP/1.1 can be used again once the answer has ended.
pub struct Hold(Option<(Arc<Upstream>, Held)>);

enum Held {
    Http1(http1::SendRequest<ReplayBody>, Moment),
    Http2(Arc<()>),
}

pub enum Connection {
    Http1 { sender: http1::SendRequest<ReplayBody>, born: Moment, reused: bool },
    Http2 { shared: Shared, reused: bool },
}

impl Upstream {
    /// One that is ready: the newest of the idle ones, or a new one. `fresh`: none of the idle ones.
    pub(super) async fn connection(self: &Arc<Self>, fresh: bool) -> Result<Connection, SendError> {
        if let Some(connection) = self.pooled(fresh).await {
            return Ok(connection);
        }
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return self.dial().await;
        }
        let _one_dials = self.dialling.lock().await;
        match self.pooled(fresh).await {
            Some(connection) => Ok(connection),
            None => self.dial().await,
        }
    }

    async fn pooled(&self, fresh: bool) -> Option<Connection> {
        let now = self.template.clock.moment();
        if let Some(shared) = &*self.shared()
            && now.since(shared.born) < OLDEST
            && !shared.sender.is_closed()
        {
            return Some(Connection::Http2 { shared: shared.clone(), reused: true });
        }
        if fresh {
            return None;
        }
        loop {
            let Idle { mut sender, since, born } = self.idle().pop()?;
            if now.since(since) > LONGEST_IDLE || now.since(born) > OLDEST || sender.is_closed() {
                continue;
            }
            let ready =
                sender.is_ready() || matches!(tokio::time::timeout(READY_WITHIN, sender.ready()).await, Ok(Ok(())));
            if ready {
                return Some(Connection::Http1 { sender, born, reused: true });
            }
        }
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
            Dialled::Plain(stream) => self.http1(TokioIo::new(stream), born, counted).await.map_err(failed),
            Dialled::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.http2(TokioIo::new(stream), born, counted).await.map_err(failed)
            }
            Dialled::Tls(stream) => self.http1(TokioIo::new(stream), born, counted).await.map_err(failed),
        }
    }

    async fn http1<T>(&self, io: T, born: Moment, counted: Ongoing) -> hyper::Result<Connection>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new().handshake(io).await?;
        let name = Arc::clone(&self.template.name);
        spawn_here(async move {
            let _counted = counted;
            if let Err(error) = connection.await {
                tracing::debug!(upstream = &*name, %error, "an upstream connection ended");
            }
        });
        Ok(Connection::Http1 { sender, born, reused: false })
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

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Option<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    pub(super) fn http1(upstream: &Arc<Upstream>, sender: http1::SendRequest<ReplayBody>, born: Moment) -> Self {
        Self(Some((Arc::clone(upstream), Held::Http1(sender, born))))
    }

    pub(super) fn http2(upstream: &Arc<Upstream>, shared: Shared) -> Self {
        Self(Some((Arc::clone(upstream), Held::Http2(shared.identity))))
    }

    /// The answer has ended: the connection waits for the next request.
    pub fn give_back(mut self) {
        let Some((upstream, Held::Http1(sender, born))) = self.0.take() else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let since = upstream.template.clock.moment();
        let mut idle = upstream.idle();
        if idle.len() >= MOST_IDLE {
            idle.remove(0);
        }
        idle.push(Idle { sender, since, born });
    }

    /// No further request goes over this connection: what is at its other end has too much to do.
    pub fn retire(self) -> Self {
        if let Some((upstream, Held::Http2(identity))) = self.0 {
            upstream.shared().take_if(|shared| Arc::ptr_eq(&shared.identity, &identity));
        }
        Self(None)
    }
}

impl Connection {
    pub fn reused(&self) -> bool {
        match self {
            Self::Http1 { reused, .. } | Self::Http2 { reused, .. } => *reused,
        }
    }

    pub fn version(&self) -> Version {
        match self {
            Self::Http1 { .. } => Version::HTTP_11,
            Self::Http2 { .. } => Version::HTTP_2,
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
