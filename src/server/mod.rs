//! Listeners: accepting, TLS, HTTP versions, connection limits, draining. Knows nothing of what is served.
//!
//! The data path has workers: each is a thread with a current-thread runtime, sockets of its own on the shared port
//! (`SO_REUSEPORT`) and a service of its own, so that no request crosses a thread. A connection stays where it was accepted.
//! Other listeners run on the runtime of slow work.
//!
//! A drain: nothing more is accepted, idle connections close, requests under way finish, and what is left at the limit is cut off. Whoever
//! leaves before has let clients go already, one answer after the other.
//!
//! What is served and how connections are treated can be replaced at any time: a request keeps the service that it began with, a
//! connection its terms. Only where a client's certificate would not be believed any more does its connection end, with the request under way.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io, thread};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use self::accept::{Permits, Sharing, accept};
pub use self::bind::{BindError, Bound};
use self::bind::{Listener, SocketFile};
use self::connection::Shared;
pub use self::connection::{CurrentTerms, Terms};
pub use self::current::Current;
use self::drain::Drain;
pub use self::tls::TlsError;
use crate::config::{self, Listen};
use crate::metrics::Metrics;
use crate::process::memory::Pressure;
use crate::proxy::Peer;
use crate::tasks::Tasks;

mod accept;
mod bind;
mod connection;
mod current;
mod drain;
mod http1;
mod signs;
mod socket;
mod tls;

/// Long enough that a busy client's connections stay whole, short enough that a burst's memory is soon free.
const PARK_AFTER: Duration = Duration::from_millis(500);

const GIVE_BACK: Duration = Duration::from_secs(2);
const LARGE_BLOCK: usize = 8 << 20;

/// What a listener serves.
pub trait Service: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers one request of the connection from `peer`.
    fn handle(&self, request: Request<Incoming>, peer: &Peer) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The answer to a request whose `handle` panicked.
    fn panicked(&self) -> Response<Self::Body>;
}

/// How a listener treats its clients.
#[derive(Clone, Debug)]
pub struct Settings {
    pub tls: Option<config::Tls>,
    /// Open connections of all workers together; past it new ones are closed at once.
    pub connections: usize,
    /// For the head of a request, and for the silence before it.
    pub header_timeout: Duration,
    pub header_bytes: usize,
    /// A connection that is silent for longer gives back its memory. Zero: whenever it waits.
    pub park_after: Duration,
    /// While it is high no connection is accepted, and silent ones are closed.
    pub pressure: Pressure,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("a worker can't be started")]
    Worker(#[from] io::Error),
}

/// A listener that runs. Dropping it stops it at once.
#[derive(Debug)]
#[must_use = "dropping it stops the listener"]
pub struct Running {
    addresses: Vec<Listen>,
    phase: watch::Sender<Phase>,
    terms: CurrentTerms,
    /// From each worker: how many connections it cut off.
    workers: Vec<oneshot::Receiver<usize>>,
    _files: Vec<SocketFile>,
}

/// What a listener does. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serves,
    Leaves,
    /// For at most so long.
    Drains(Duration),
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off at the limit.
    pub cut_off: usize,
}

/// One worker's part of a listener.
struct Worker<S> {
    listeners: Vec<Listener>,
    shared: Arc<Shared<S>>,
    permits: Arc<Permits>,
    sharing: Sharing,
    phase: watch::Receiver<Phase>,
}

impl From<&config::Server> for Settings {
    fn from(server: &config::Server) -> Self {
        Self {
            tls: server.tls.clone(),
            connections: server.limits.connections,
            header_timeout: server.limits.header_timeout,
            header_bytes: server.limits.header_bytes,
            park_after: PARK_AFTER,
            pressure: Pressure::default(),
        }
    }
}

impl Settings {
    #[must_use]
    pub fn under(self, pressure: &Pressure) -> Self {
        Self { pressure: pressure.clone(), ..self }
    }

    /// For the sign-in pages' own listener: the server's TLS, and no certificate of a browser is asked for.
    pub fn pages(server: &config::Server) -> Self {
        let tls = server.tls.clone().map(|tls| config::Tls { client_ca_pem: None, ..tls });
        Self { tls, connections: server.limits.connections, ..Self::small() }
    }

    /// For a plain listener with few clients, such as the admin listener.
    pub fn small() -> Self {
        Self {
            tls: None,
            connections: 256,
            header_timeout: Duration::from_secs(10),
            header_bytes: 64 * 1024,
            park_after: PARK_AFTER,
            pressure: Pressure::default(),
        }
    }
}

impl Bound {
    /// Serves on threads of its own, one for each worker that was bound. `make` is called on each of them, inside its runtime,
    /// with the worker's number; `rests` likewise, whenever the worker has nothing more to do for now, and at its end.
    pub fn start<S: Service>(
        mut self,
        settings: &Settings,
        metrics: &Metrics,
        make: impl Fn(usize) -> S + Send + Sync + 'static,
        rests: impl Fn(usize) + Send + Sync + 'static,
    ) -> Result<Running, StartError> {
        let terms = CurrentTerms::new(ArcSwap::from_pointee(Terms::new(settings)?));
        self.listen()?;
        let permits = Arc::new(Permits::new(metrics.clone()));
        let (phase, phases) = watch::channel(Phase::Serves);
        let (make, rests) = (Arc::new(make), Arc::new(rests));
        let sharing = self.sharing;
        let mut running = Running { addresses: self.addresses, phase, terms, workers: Vec::new(), _files: self.files };
        for (number, listeners) in self.workers.into_iter().enumerate() {
            let (rests, ends) = (rests.clone(), AtEnd(rests.clone(), number));
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().on_thread_park(move || rests(number)).build()?;
            let (terms, permits) = (running.terms.clone(), permits.clone());
            let (make, phase) = (make.clone(), phases.clone());
            let (ended, wait) = oneshot::channel();
            let worker = move || {
                // Dropped after the runtime, also in a panic.
                let (ends, runtime) = (ends, runtime);
                let cut_off = runtime.block_on(async move {
                    let shared = Shared::new(make(number), Arc::default(), terms);
                    if number == 0 {
                        shared.drain.spawn(give_back(shared.drain.clone()));
                    }
                    Worker { listeners, shared: Arc::new(shared), permits, sharing, phase }.run().await
                });
                // Only now are the connections that were cut off really gone.
                drop(runtime);
                drop(ends);
                // Nobody may be waiting.
                let _ = ended.send(cut_off);
            };
            thread::Builder::new().name(format!("worker-{number}")).spawn(worker)?;
            running.workers.push(wait);
        }
        Ok(running)
    }

    /// Serves on the runtime of slow work.
    pub fn start_on<S: Service>(
        mut self,
        tasks: &Tasks,
        settings: &Settings,
        metrics: &Metrics,
        service: S,
    ) -> Result<Running, StartError> {
        let terms = CurrentTerms::new(ArcSwap::from_pointee(Terms::new(settings)?));
        self.listen()?;
        let permits = Arc::new(Permits::new(metrics.clone()));
        let (phase, phases) = watch::channel(Phase::Serves);
        let (ended, wait) = oneshot::channel();
        let shared = Arc::new(Shared::new(service, Arc::default(), terms.clone()));
        let listeners = self.workers.into_iter().flatten().collect();
        let worker = Worker { listeners, shared, permits, sharing: self.sharing, phase: phases };
        tasks.spawn_forever(async move {
            // Nobody may be waiting.
            let _ = ended.send(worker.run().await);
        });
        Ok(Running { addresses: self.addresses, phase, terms, workers: vec![wait], _files: self.files })
    }
}

/// What the worker of this number has still to do at its end.
struct AtEnd<F: Fn(usize)>(Arc<F>, usize);

impl<F: Fn(usize)> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)(self.1);
    }
}

impl<S: Service> Worker<S> {
    /// Serves until it is to drain. How many connections had to be cut off?
    async fn run(mut self) -> usize {
        let drain = self.shared.drain.clone();
        for listener in self.listeners {
            drain.spawn(accept(listener, self.shared.clone(), self.permits.clone(), self.sharing));
        }
        // A sender that is gone has been dropped without a drain.
        if self.phase.wait_for(|phase| *phase >= Phase::Leaves).await.is_ok() {
            drain.leave();
        }
        let drains = self.phase.wait_for(|phase| matches!(phase, Phase::Drains(_))).await;
        let limit = drains.map_or(None, |phase| if let Phase::Drains(limit) = *phase { Some(limit) } else { None });
        drain.begin();
        drain.ended(limit.unwrap_or_default()).await
    }
}

/// Lets the allocator return to the system what a burst has left behind: it looks for that when a large block is freed, and only for
/// what has been free for a second. A process with little to do would keep everything.
async fn give_back(drain: Arc<Drain>) {
    while !drain.has_begun() {
        // Nothing touches the block, so that it never has memory behind it.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
        tokio::select! {
            () = drain.begun() => {}
            () = sleep(GIVE_BACK) => {}
        }
    }
}

impl Running {
    /// The addresses as they are: a port 0 is replaced by what the system chose.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// How connections are treated that come from now on, to be replaced.
    pub fn terms(&self) -> CurrentTerms {
        Arc::clone(&self.terms)
    }

    /// A drain will follow: answers ask their clients to come back over another connection, which will find somebody else.
    pub fn leave(&self) {
        self.phase.send_if_modified(|phase| {
            let serves = *phase == Phase::Serves;
            if serves {
                *phase = Phase::Leaves;
            }
            serves
        });
    }

    /// Ends the listener; requests that are under way have `limit`.
    pub async fn drain(mut self, limit: Duration) -> Drained {
        self.phase.send_replace(Phase::Drains(limit));
        let mut cut_off = 0;
        for worker in self.workers.drain(..) {
            // A worker that died has no connections.
            cut_off += worker.await.unwrap_or_default();
        }
        Drained { cut_off }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, address) in self.addresses.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}
