//! One client connection, from the accepted socket to its end: TLS, the choice of the HTTP version, the requests.
//!
//! Invariants: nothing waits for a client without a time limit; a panic ends one request, not the connection's worker.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::drain::Drain;
use super::http1::{self as parking, Ended, Patience};
use super::socket::{BreaksOff, Socket};
use super::{Service, Settings, TlsError, tls};
use crate::process::memory::Pressure;
use crate::proxy::{Peer, PeerAddress};
use crate::tasks::spawn_here;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was opened before a drain and accepted in it has this long to begin.
const LATE: Duration = Duration::from_millis(100);
/// Room beyond one head, so that an overlong target is seen whole and answered by 414.
const HEAD_ROOM: usize = 32 * 1024;
/// What `HEAD_ROOM` comes on top of, at least: hyper's own limit on targets.
const MAX_TARGET: usize = 64 * 1024;

/// What all connections of one worker share.
pub struct Shared<S> {
    pub service: S,
    pub drain: Arc<Drain>,
    pub terms: CurrentTerms,
}

/// How the connections of a listener are treated from now on. One keeps the terms that it began with.
pub type CurrentTerms = Arc<ArcSwap<Terms>>;

/// How connections are treated: `Settings`, ready for use.
pub struct Terms {
    /// How many there may be.
    pub connections: usize,
    pub pressure: Pressure,
    tls: Option<TlsAcceptor>,
    /// Cancelled when the authorities that clients' certificates were believed by are believed no more.
    trust: CancellationToken,
    patience: Patience,
    http1: http1::Builder,
    http2: http2::Builder<Here>,
}

/// Starts the streams of an HTTP/2 connection on the connection's own thread.
#[derive(Clone, Copy, Debug)]
struct Here;

/// A connection's bytes: a socket, or TLS on one.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn socket(&self) -> &Socket;
}

/// Boxed, as TLS is, because futures keep room for each place to which a stream is moved.
impl Stream for Box<Socket> {
    fn socket(&self) -> &Socket {
        self
    }
}

impl Stream for Box<TlsStream<Socket>> {
    fn socket(&self) -> &Socket {
        self.get_ref().0
    }
}

/// What the requests of one connection share.
struct Session<S> {
    shared: Arc<Shared<S>>,
    peer: Peer,
    /// A request has come.
    used: AtomicBool,
    /// What its certificate is worth; `None`: it came without one.
    trust: Option<CancellationToken>,
    /// The certificate is worth nothing any more.
    distrusted: AtomicBool,
    /// Set where the answer under way ends with the connection, and in no other way.
    breaks_off: BreaksOff,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Terms {
    pub fn new(settings: &Settings) -> Result<Self, TlsError> {
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(settings.header_bytes.max(MAX_TARGET) + HEAD_ROOM);
        // `max_headers` stays at its default of 100: to set it moves hyper's table from the stack to the heap.
        let mut http2 = http2::Builder::new(Here);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .max_send_buf_size(64 * 1024)
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let patience = Patience { header_timeout: settings.header_timeout, park_after: settings.park_after };
        let (connections, pressure) = (settings.connections, settings.pressure.clone());
        let trust = CancellationToken::new();
        Ok(Self { connections, pressure, tls, trust, patience, http1, http2 })
    }

    /// With the TLS of others, whose sessions can be resumed here.
    #[must_use]
    pub fn with_tls_of(self, others: &Self) -> Self {
        Self { tls: others.tls.clone(), ..self }
    }

    /// Believing the same authorities as others, whose connections go on.
    #[must_use]
    pub fn with_trust_of(self, others: &Self) -> Self {
        Self { trust: others.trust.clone(), ..self }
    }

    /// Connections that a client's certificate began come to their end, whoever's terms they have that shared this trust.
    pub fn end_trust(&self) {
        self.trust.cancel();
    }
}

impl<S: Service> Shared<S> {
    pub fn new(service: S, drain: Arc<Drain>, terms: CurrentTerms) -> Self {
        Self { service, drain, terms }
    }

    /// Serves `socket` to its end.
    ///
    /// Each step is boxed, so that a connection takes the memory of the step that it is in and not that of the largest.
    pub async fn serve(self: Arc<Self>, socket: Socket, address: PeerAddress) {
        let terms = self.terms.load_full();
        let peer = Peer { address, secure: false, names: Vec::new() };
        let ended = if let Some(acceptor) = &terms.tls {
            Box::pin(self.clone().tls(&terms, acceptor, socket, peer)).await
        } else {
            match Box::pin(self.unless_draining(terms.patience.header_timeout, socket.speaks_http2())).await {
                Some(Ok(true)) => Box::pin(self.http2(&terms, Box::new(socket), peer, None)).await,
                Some(Ok(false)) => Box::pin(self.http1(&terms, Box::new(socket), peer, None)).await,
                Some(Err(_)) | None => return,
            }
        };
        if let Err(error) = ended {
            // Clients that hang up, time out or speak badly. hyper has answered where an answer was possible.
            tracing::debug!(%error, "a client's connection broke");
        }
    }

    async fn tls(
        self: Arc<Self>,
        terms: &Terms,
        acceptor: &TlsAcceptor,
        socket: Socket,
        mut peer: Peer,
    ) -> hyper::Result<()> {
        // A client of another protocol, plain HTTP too, ends here with a TLS alert.
        let handshake = Box::pin(self.unless_draining(HANDSHAKE_TIMEOUT, acceptor.accept(socket))).await;
        let stream = match handshake {
            Some(Ok(stream)) => Box::new(stream),
            Some(Err(error)) => {
                tracing::debug!(%error, "a client's TLS handshake failed");
                return Ok(());
            }
            None => return Ok(()),
        };
        let (_, session) = stream.get_ref();
        peer.secure = true;
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        peer.names = certificate.map(tls::names).unwrap_or_default();
        let trust = certificate.map(|_| terms.trust.clone());
        if trust.as_ref().is_some_and(CancellationToken::is_cancelled) {
            tracing::debug!("a client's certificate was judged by authorities that were replaced meanwhile");
            return Ok(());
        }
        if session.alpn_protocol() == Some(b"h2") {
            Box::pin(self.http2(terms, stream, peer, trust)).await
        } else {
            Box::pin(self.http1(terms, stream, peer, trust)).await
        }
    }

    async fn http1(
        self: Arc<Self>,
        terms: &Terms,
        stream: impl Stream,
        peer: Peer,
        trust: Option<CancellationToken>,
    ) -> hyper::Result<()> {
        let late = self.drain.has_begun();
        let session = Session::new(self.clone(), peer, trust, stream.socket().breaks_off());
        if late {
            // Its first request may be on the way, and is its last. A graceful shutdown would not wait for it.
            let requests = requests(session.clone());
            let connection = terms.http1.clone().keep_alive(false).serve_connection(TokioIo::new(stream), requests);
            tokio::select! {
                ended = Box::pin(connection) => ended,
                () = session.unused(LATE) => Ok(()),
            }
        } else {
            let requests = || requests(session.clone());
            let (pressure, trust) = (&terms.pressure, session.trust.as_ref());
            match parking::serve(&terms.http1, terms.patience, &self.drain, pressure, trust, stream, requests).await {
                Ended::Overdue => Ok(()),
                Ended::Done(done) => done,
            }
        }
    }

    async fn http2(
        self: Arc<Self>,
        terms: &Terms,
        stream: impl Stream,
        peer: Peer,
        trust: Option<CancellationToken>,
    ) -> hyper::Result<()> {
        let session = Session::new(self.clone(), peer, trust, stream.socket().breaks_off());
        let mut connection = pin!(terms.http2.serve_connection(TokioIo::new(stream), requests(session.clone())));
        tokio::select! {
            ended = self.drain.watch(connection.as_mut(), http2::Connection::graceful_shutdown) => return ended,
            // hyper waits for HTTP/2's preface for ever, and its pings start after it.
            () = session.unused(terms.patience.header_timeout) => return Ok(()),
            () = session.is_distrusted() => {}
        }
        // Streams that have begun go on to their end. What comes after the last call is nobody's.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = sleep(LATE) => session.distrusted.store(true, Ordering::Relaxed),
        }
        connection.await
    }

    /// What `work` yields, if that is within `limit` and not held up when the drain begins.
    async fn unless_draining<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let given_up = async {
            self.drain.begun().await;
            sleep(LATE).await;
        };
        tokio::select! {
            () = given_up => None,
            result = timeout(limit, work) => result.ok(),
        }
    }
}

/// What hyper calls for each request of a connection.
fn requests<S: Service>(
    session: Arc<Session<S>>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<S::Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<S::Body>, Infallible>> + Send + 'static,
> {
    service_fn(move |request| {
        let session = session.clone();
        async move { Ok(session.answer(request).await) }
    })
}

impl<S: Service> Session<S> {
    fn new(shared: Arc<Shared<S>>, peer: Peer, trust: Option<CancellationToken>, breaks_off: BreaksOff) -> Arc<Self> {
        let (used, distrusted) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { shared, peer, used, trust, distrusted, breaks_off })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<S::Body> {
        self.used.store(true, Ordering::Relaxed);
        let version = request.version();
        let service = &self.shared.service;
        let nobody;
        let peer = if self.distrusted.load(Ordering::Relaxed) {
            nobody = Peer { names: Vec::new(), ..self.peer.clone() };
            &nobody
        } else {
            &self.peer
        };
        let answer = unless_panicked(async { service.handle(request, peer).await }).await;
        let mut response = answer.unwrap_or_else(|| service.panicked());
        // hyper negotiates from here to what the client speaks, and it takes HTTP/1.0 as "close". For a client of HTTP/1.0
        // that is the only end which a body of unknown length can have; another version would announce keep-alive and then
        // close, or leave the client waiting for a close.
        let delimited = response.body().size_hint().exact().is_some();
        let ends_with_it = version <= Version::HTTP_10 && !delimited;
        self.breaks_off.set(ends_with_it);
        *response.version_mut() = if ends_with_it { Version::HTTP_10 } else { Version::HTTP_11 };
        let is_last =
            self.shared.drain.is_leaving() || self.trust.as_ref().is_some_and(CancellationToken::is_cancelled);
        if is_last && version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Until the authorities of its certificate are believed no more.
    async fn is_distrusted(&self) {
        match &self.trust {
            Some(trust) => trust.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Returns if no request has come within `limit`.
    async fn unused(&self, limit: Duration) {
        sleep(limit).await;
        if self.used.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// What `work` yields; `None` if it panicked.
async fn unless_panicked<W: Future>(work: W) -> Option<W::Output> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        // What panicked is never polled again, so no broken state can be seen.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Here {
    fn execute(&self, stream: F) {
        drop(spawn_here(stream));
    }
}
