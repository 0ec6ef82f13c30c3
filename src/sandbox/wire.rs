//! A small HTTP/1.1 server on hyper that can also misbehave: close without a word, or send bytes that hyper would refuse
//! to. What is answered is its owner's business.
//!
//! It can go down and come up again on the same port, so that "refused" and "reset" can be tested for real. The port stays its own
//! meanwhile: nobody else can be given it.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::content::Content;
use super::locked;
use crate::tasks::Tasks;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// How a request ends.
pub(super) enum Reply {
    Answer(Response<Content>),
    /// The connection is closed without an answer.
    Close,
    /// Closed, and the server is down for so long, on the system's time.
    Down(Duration),
    /// These bytes instead of an answer, then the connection is closed.
    Raw(Bytes),
}

/// Who answers. The peer's address is in the request's extensions.
pub(super) type Service = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// One listening server; clones are the same server.
#[derive(Clone)]
pub(super) struct Server {
    address: SocketAddr,
    service: Service,
    tasks: Tasks,
    /// Has the port, whether it listens or not.
    socket: Arc<Socket>,
    running: Arc<Mutex<Option<Running>>>,
}

/// What stops a listener, and what says that it has stopped.
struct Running {
    stop: CancellationToken,
    connections: CancellationToken,
    gone: CancellationToken,
}

/// A bound port that nobody serves yet: its address is known before its service is made.
pub(super) fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let found = std::net::TcpListener::from(bound(listen)?);
    // The system lets go of a port that it chose itself as soon as nobody listens there.
    let socket = bound(found.local_addr()?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Server {
    pub fn run(listener: std::net::TcpListener, service: Service, tasks: Tasks) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let socket = Arc::new(listener.try_clone()?.into());
        let server = Self { address, service, tasks, socket, running: Arc::default() };
        server.serve(listener);
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens no more and closes every connection; returns when new ones are refused.
    pub async fn down(&self) {
        let running = locked(&self.running).take();
        if let Some(running) = running {
            running.stop.cancel();
            running.gone.cancelled().await;
            if let Err(error) = self.socket.shutdown(Shutdown::Read) {
                tracing::error!(%error, "the sandbox can't stop listening");
            }
        }
    }

    /// Listens again on the same port.
    pub fn up(&self) -> io::Result<()> {
        if locked(&self.running).is_none() {
            self.socket.listen(BACKLOG)?;
            self.serve(self.socket.try_clone()?.into());
        }
        Ok(())
    }

    /// Closes every connection, in whatever state it is; new ones are welcome.
    pub fn close_connections(&self) {
        if let Some(running) = locked(&self.running).as_mut() {
            running.connections.cancel();
            running.connections = running.stop.child_token();
        }
    }

    fn serve(&self, listener: std::net::TcpListener) {
        let stop = CancellationToken::new();
        let gone = CancellationToken::new();
        let connections = stop.child_token();
        *locked(&self.running) = Some(Running { stop: stop.clone(), connections, gone: gone.clone() });
        let server = self.clone();
        self.tasks.spawn_forever(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = server.accept(listener) => {}
            }
            gone.cancel();
        });
    }

    async fn accept(&self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the sandbox can't listen"),
        };
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.connected(stream, peer),
                // Out of file descriptors, most likely: the queue keeps the connection meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn connected(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(stop) = locked(&self.running).as_ref().map(|running| running.connections.clone()) else { return };
        let server = self.clone();
        self.tasks.spawn_forever(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = server.converse(stream, peer) => {}
            }
        });
    }

    /// Goes down now and comes up again by itself.
    fn down_for(&self, time: Duration) {
        let server = self.clone();
        self.tasks.spawn_forever(async move {
            server.down().await;
            tokio::time::sleep(time).await;
            if let Err(error) = server.up() {
                tracing::error!(%error, "the sandbox can't listen again");
            }
        });
    }

    /// Answers the requests of one connection until it ends.
    async fn converse(&self, stream: TcpStream, peer: SocketAddr) {
        // Answers are small and complete: waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        let raw = Arc::new(OnceLock::new());
        let wire = Wire { stream, raw: Arc::clone(&raw), sent: 0 };
        let respond = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let answer = (self.service)(request);
            let server = self.clone();
            let raw = Arc::clone(&raw);
            async move {
                match answer.await {
                    Reply::Answer(response) => Ok(response),
                    Reply::Close => Err(ClosedOnPurpose),
                    Reply::Down(time) => {
                        server.down_for(time);
                        Err(ClosedOnPurpose)
                    }
                    Reply::Raw(bytes) => {
                        let _ = raw.set(bytes);
                        let mut response = Response::new(Content::empty());
                        response
                            .headers_mut()
                            .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
                        Ok(response)
                    }
                }
            }
        });
        // An error here is the end of this connection and nothing more: broken clients and closing on purpose are daily bread.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(wire), respond)
            .await;
    }
}

/// The body of a request, `None` if it is longer than `limit` or breaks off.
pub(super) async fn whole(body: Incoming, limit: usize) -> Option<Bytes> {
    Limited::new(body, limit).collect().await.ok().map(http_body_util::Collected::to_bytes)
}

#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct ClosedOnPurpose;

/// The connection; once `raw` is set it is what gets written, whatever hyper says.
struct Wire {
    stream: TcpStream,
    raw: Arc<OnceLock<Bytes>>,
    sent: usize,
}

impl Wire {
    /// Writes what is left of the raw bytes. `None`: there are none, write as usual.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        let raw = self.raw.get()?;
        while self.sent < raw.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &raw[self.sent..]) {
                Poll::Ready(Ok(written)) => self.sent += written,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        Some(Poll::Ready(Ok(())))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_raw(cx) {
            Some(done) => {
                ready!(done)?;
                Poll::Ready(Ok(buf.len()))
            }
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_raw(cx) {
            Some(done) => {
                ready!(done)?;
                Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
            }
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
