//! Accepting connections, no more than allowed, and surviving the system's own limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::sleep;

use super::Service;
use super::bind::Listener;
use super::connection::{Shared, Terms};
use super::socket::Socket;
use crate::metrics::{Metrics, Ongoing, Side};
use crate::proxy::PeerAddress;

/// After an error that the next attempt would meet again, such as no free file descriptor.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A handshake that was under way is over by then.
const SETTLED: Duration = Duration::from_millis(100);

/// Who else listens on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None but our own workers.
    Alone,
    /// Perhaps another process.
    WithOthers,
}

/// How many connections all workers of a listener hold.
pub struct Permits {
    open: AtomicUsize,
    /// The log has been told that the limit is reached.
    reported: AtomicBool,
    metrics: Metrics,
}

/// The right to hold one connection.
struct Permit {
    permits: Arc<Permits>,
    /// How many there could be when it was given.
    limit: usize,
    _counted: Ongoing,
}

/// `tokio`'s listeners under one name.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepts until the drain begins, and then once more what had come before; connections are tasks of the same drain.
pub async fn accept<S: Service>(listener: Listener, shared: Arc<Shared<S>>, permits: Arc<Permits>, sharing: Sharing) {
    let drain = shared.drain.clone();
    let acceptor = match Acceptor::new(listener) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "a listener can't be used");
            return;
        }
    };
    let serve = |(socket, address)| {
        // Without a permit the socket is closed by being dropped.
        if let Some(permit) = permits.take(&shared.terms.load()) {
            let shared = shared.clone();
            drain.spawn(async move {
                shared.serve(socket, address).await;
                drop(permit);
            });
        }
    };
    while !drain.has_begun() {
        let accepted = tokio::select! {
            () = drain.begun() => break,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept connections");
                tokio::select! {
                    () = drain.begun() => {}
                    () = sleep(BACK_OFF) => {}
                }
            }
        }
    }
    if sharing == Sharing::WithOthers && acceptor.sends_newcomers_away() {
        let settled = sleep(SETTLED);
        let mut settled = std::pin::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => break,
                accepted = acceptor.accept() => accepted.map(&serve).unwrap_or_default(),
            }
        }
    }
    acceptor.backlog().into_iter().for_each(serve);
}

/// Drops segments with SYN and without ACK, and passes all others, as a classic BPF program over the TCP header.
const NO_NEWCOMERS: [SockFilter; 5] = [
    // The byte of the flags; SYN and ACK of it; is it SYN alone?
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Whether the connection failed, rather than the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<(Socket, PeerAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(tcp(stream, address))
            }
            Self::Unix(listener) => unix(listener.accept().await?.0),
        }
    }

    /// The system gives connections that are asked for from now on to nobody, and whoever asks asks again within a second: by then this
    /// listener is closed, and another process has its port. Connections that were asked for before still come. `false`: it can't be had.
    fn sends_newcomers_away(&self) -> bool {
        match self {
            Self::Tcp(listener) => match SockRef::from(listener).attach_filter(&NO_NEWCOMERS) {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(%error, "connections may be lost to those that are asked for just now");
                    false
                }
            },
            // Its name is another process's already, if there is one.
            Self::Unix(_) => false,
        }
    }

    /// Closes the listener. What the system has accepted for it and nobody has taken yet would be reset; it is here instead.
    fn backlog(self) -> Vec<(Socket, PeerAddress)> {
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                let take = || -> io::Result<_> {
                    let (stream, address) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(tcp(TcpStream::from_std(stream)?, address))
                };
                std::iter::from_fn(|| take().ok()).collect()
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                let take = || -> io::Result<_> {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    unix(UnixStream::from_std(stream)?)
                };
                std::iter::from_fn(|| take().ok()).collect()
            }
        }
    }
}

fn tcp(stream: TcpStream, address: SocketAddr) -> (Socket, PeerAddress) {
    // A failure costs latency only, and means that the client is gone.
    let _ = stream.set_nodelay(true);
    (Socket::tcp(stream), PeerAddress::Tcp(address))
}

fn unix(stream: UnixStream) -> io::Result<(Socket, PeerAddress)> {
    let peer = stream.peer_cred()?;
    Ok((Socket::unix(stream), PeerAddress::Unix { uid: peer.uid(), gid: peer.gid() }))
}

impl Permits {
    pub fn new(metrics: Metrics) -> Self {
        Self { open: AtomicUsize::new(0), reported: AtomicBool::new(false), metrics }
    }

    fn take(self: &Arc<Self>, terms: &Terms) -> Option<Permit> {
        let limit = terms.connections;
        // What is told once of memory, whoever watches it tells.
        if terms.pressure.is_high() {
            self.metrics.overloaded("memory");
            return None;
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= limit {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.metrics.overloaded("connections");
            if !self.reported.swap(true, Ordering::Relaxed) {
                tracing::warn!(limit, "the limit of connections is reached, new ones are refused");
            }
            return None;
        }
        Some(Permit { permits: self.clone(), limit, _counted: self.metrics.connection(Side::Client) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let open = self.permits.open.fetch_sub(1, Ordering::Relaxed) - 1;
        // Told again only after some room, so that a busy listener at its limit doesn't fill the log.
        if open <= self.limit / 2 {
            self.permits.reported.store(false, Ordering::Relaxed);
        }
    }
}
