//! One upstream as one worker sees it: a pool of its own connections, last in, first out.
//!
//! A connection is dialled only to the configured authority, by the system's resolver, and lives five minutes at most, so that a change of
//! DNS is followed. No redirect is followed and no proxy of the environment is used. HTTP/1.1 connections carry one request at a time;
//! an HTTP/2 connection is shared.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::outbound::{Destination, for_version};
use super::replay::{Replay, ReplayBody};
use super::verdict::Failure;
use crate::clock::{Clock, Moment};
use crate::config::{self, HttpVersion};
use crate::metrics::{Metrics, Ongoing, Side};
use crate::tasks::spawn_here;
use crate::tls::{TlsError, client_config};

/// A connection is used no longer than this: names may lead elsewhere by then.
const OLDEST: Duration = Duration::from_secs(300);
/// An idle connection is not trusted after this time: most servers close theirs after a minute.
const LONGEST_IDLE: Duration = Duration::from_secs(50);
/// Idle connections kept by one worker.
const MOST_IDLE: usize = 256;
/// A connection that has just delivered an answer is ready for the next request within this time, or not at all.
const READY_WITHIN: Duration = Duration::from_millis(20);

/// What all workers share of an upstream.
pub struct Template {
    pub name: Arc<str>,
    pub destination: Destination,
    pub config: config::Upstream,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    clock: Clock,
    metrics: Metrics,
}

/// One worker's connections.
pub struct Upstream {
    pub template: Arc<Template>,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<Shared>>,
    /// The upstream has agreed to HTTP/2 before: callers wait for one connection instead of dialling one each.
    speaks_http2: AtomicBool,
    dialling: tokio::sync::Mutex<()>,
}

struct Idle {
    sender: http1::SendRequest<ReplayBody>,
    since: Moment,
    born: Moment,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<ReplayBody>,
    born: Moment,
}

/// An HTTP/1.1 connection that is delivering an answer; it can be used again once the answer has ended.
pub struct Hold(Option<(Arc<Upstream>, http1::SendRequest<ReplayBody>, Moment)>);

/// Why there is no answer.
#[derive(Debug)]
pub struct SendError {
    pub failure: Failure,
    /// For the log and for the client: no secret can be in it.
    pub text: String,
}

enum Connection {
    Http1 { sender: http1::SendRequest<ReplayBody>, born: Moment, reused: bool },
    Http2 { sender: http2::SendRequest<ReplayBody>, reused: bool },
}

#[derive(Debug, thiserror::Error)]
#[error("upstreams.{upstream}: {why}")]
pub struct TemplateError {
    upstream: String,
    why: String,
}

impl Template {
    pub fn new(config: &config::Upstream, clock: &Clock, metrics: &Metrics) -> Result<Self, TemplateError> {
        let fail = |why: String| TemplateError { upstream: config.name.clone(), why };
        let host = config.url.host_str().ok_or_else(|| fail("url has no host".into()))?;
        let port = config.url.port_or_known_default().ok_or_else(|| fail("url has no port".into()))?;
        let authority = match config.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let https = config.url.scheme() == "https";
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = https.then(|| tls(config, &bare)).transpose().map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            name: config.name.as_str().into(),
            destination: Destination {
                scheme: if https { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP },
                host: HeaderValue::try_from(&authority).map_err(|error| fail(error.to_string()))?,
                authority: authority.parse().map_err(|error| fail(format!("url: {error}")))?,
            },
            config: config.clone(),
            host: bare,
            port,
            tls,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    }
}

impl Upstream {
    pub fn new(template: Arc<Template>) -> Self {
        let speaks_http2 = AtomicBool::new(template.config.http == HttpVersion::Http2);
        Self {
            template,
            idle: Mutex::default(),
            shared: Mutex::default(),
            speaks_http2,
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// Sends one request and waits for the head of its answer. `body` is watched: as long as it moves, the upstream has time.
    pub async fn send(self: &Arc<Self>, head: Parts, body: &Replay) -> Result<(Response<Incoming>, Hold), SendError> {
        let mut request = Request::from_parts(head, body.attempt());
        // A connection that turns out to be closed has sent nothing: the request comes back and goes to another one.
        for _ in 0..MOST_IDLE {
            let connection = self.connection().await?;
            let reused = connection.reused();
            let version = connection.version();
            let (mut head, body_attempt) = request.into_parts();
            for_version(&mut head, &body_attempt, &self.template.destination, version);
            let sent = self.exchange(connection, Request::from_parts(head, body_attempt), body).await;
            match sent {
                Ok(answer) => return Ok(answer),
                Err(Unsent::Returned(returned)) if reused => request = *returned,
                Err(Unsent::Returned(_)) => {
                    return Err(SendError {
                        failure: Failure::NotSent,
                        text: "the new connection was closed at once".into(),
                    });
                }
                Err(Unsent::Failed(mut error)) => {
                    if reused && error.failure == Failure::Died {
                        error.failure = Failure::ReusedDied;
                    }
                    return Err(error);
                }
            }
        }
        Err(SendError { failure: Failure::NotSent, text: "every pooled connection was closed".into() })
    }

    async fn exchange(
        self: &Arc<Self>,
        connection: Connection,
        request: Request<ReplayBody>,
        body: &Replay,
    ) -> Result<(Response<Incoming>, Hold), Unsent> {
        match connection {
            Connection::Http1 { mut sender, born, .. } => {
                let response = self.patiently(sender.try_send_request(request), body).await?;
                Ok((response, Hold(Some((Arc::clone(self), sender, born)))))
            }
            Connection::Http2 { mut sender, .. } => {
                let response = self.patiently(sender.try_send_request(request), body).await?;
                Ok((response, Hold(None)))
            }
        }
    }

    /// Waits for the head of the answer, as long as the upstream may take, counted from the last move of the request's body.
    async fn patiently(
        &self,
        answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ReplayBody>>>>,
        body: &Replay,
    ) -> Result<Response<Incoming>, Unsent> {
        let limit = self.template.config.timeout;
        let started = self.template.clock.moment();
        let mut answer = std::pin::pin!(answer);
        loop {
            let quiet = self.template.clock.moment().since(body.progress().unwrap_or(started).max(started));
            match tokio::time::timeout(limit.saturating_sub(quiet), &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut error)) => {
                    return Err(match error.take_message() {
                        Some(request) => Unsent::Returned(Box::new(request)),
                        None => Unsent::Failed(died(&error.into_error(), body)),
                    });
                }
                Err(_) if quiet >= limit => {
                    return Err(Unsent::Failed(SendError {
                        failure: Failure::TimedOut,
                        text: format!("no answer within {} s", limit.as_secs()),
                    }));
                }
                Err(_) => {}
            }
        }
    }

    async fn connection(self: &Arc<Self>) -> Result<Connection, SendError> {
        if let Some(connection) = self.pooled().await {
            return Ok(connection);
        }
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return self.dial().await;
        }
        let _one_dials = self.dialling.lock().await;
        match self.pooled().await {
            Some(connection) => Ok(connection),
            None => self.dial().await,
        }
    }

    async fn pooled(&self) -> Option<Connection> {
        let now = self.template.clock.moment();
        if let Some(shared) = &*self.shared()
            && now.since(shared.born) < OLDEST
            && !shared.sender.is_closed()
        {
            return Some(Connection::Http2 { sender: shared.sender.clone(), reused: true });
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
        *self.shared() = Some(Shared { sender: sender.clone(), born });
        Ok(Connection::Http2 { sender, reused: false })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Option<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// The answer has ended: the connection waits for the next request.
    pub fn give_back(mut self) {
        let Some((upstream, sender, born)) = self.0.take() else {
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
}

impl Connection {
    fn reused(&self) -> bool {
        match self {
            Self::Http1 { reused, .. } | Self::Http2 { reused, .. } => *reused,
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::Http1 { .. } => Version::HTTP_11,
            Self::Http2 { .. } => Version::HTTP_2,
        }
    }
}

enum Unsent {
    /// Not a byte left; here it is again.
    Returned(Box<Request<ReplayBody>>),
    Failed(SendError),
}

enum Dialled {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Template {
    pub(super) async fn probe(&self) -> std::io::Result<String> {
        Ok(match self.connect().await? {
            Dialled::Plain(_) => "connects".to_owned(),
            Dialled::Tls(stream) => match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => "connects, HTTP/2 over TLS".to_owned(),
                _ => "connects, HTTP/1.1 over TLS".to_owned(),
            },
        })
    }

    /// Every address of the name is tried, in the resolver's order.
    async fn connect(&self) -> std::io::Result<Dialled> {
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let Some((connector, name)) = &self.tls else {
                        return Ok(Dialled::Plain(stream));
                    };
                    return Ok(Dialled::Tls(Box::new(connector.connect(name.clone(), stream).await?)));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn tls(config: &config::Upstream, host: &str) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
    let mut client = client_config(config.ca_pem.as_deref())?;
    client.alpn_protocols = match config.http {
        HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
    Ok((TlsConnector::from(Arc::new(client)), name))
}

fn died(error: &hyper::Error, body: &Replay) -> SendError {
    match body.failure() {
        Some(failure) => SendError { failure: Failure::Body, text: failure.to_string() },
        None if unprocessed(error) => {
            SendError { failure: Failure::NotSent, text: format!("the upstream refused the request unread: {error}") }
        }
        None => SendError { failure: Failure::Died, text: format!("the connection failed: {error}") },
    }
}

/// Whether HTTP/2 says that nothing of the request was processed (RFC 9113, 8.7): its stream was refused, or opened after the last
/// one that a departing server serves.
fn unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return false;
    };
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_remote() && error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_remote() && error.is_go_away(),
        _ => false,
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
