//! The simulated Entra ID and Microsoft Graph: real HTTP servers for the `sandbox` verb, the tests and the load tests.
//!
//! They keep the shapes of the real services where a client can see them, record what they were asked, and fail on demand
//! (`Fault`). They are no reference for security: keys are published, pages sign anybody in. They listen where they are told,
//! on the loopback interface by default, and call nobody.

mod asked;
mod content;
mod control;
mod demand;
pub mod entra;
mod fault;
pub mod graph;
mod random;
mod record;
mod tokens;
mod user;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use url::Url;

use crate::clock::Clock;
use crate::tasks::Tasks;

pub use asked::AskedClaims;
pub use entra::{Assertion, ClientAuth, Entra, EntraOptions, Grant, IdentityRequest, IdentitySource, TokenRequest};
pub use fault::{
    BatchOrder, ChallengeShape, Coding, Denial, EFFECTS, Effect, Fault, FaultTextError, Faults, Flaw, Gate, Place,
    TokenFault,
};
pub use graph::{Graph, GraphOptions, Leak, Seen};
pub use tokens::{AccessToken, RefreshState, RefreshToken, Rotation, Tokens};
pub use user::{APP, User};

/// How the sandbox is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `P`: Entra listens on P+2, Graph on P+3. `None`: free ports.
    pub port_base: Option<u16>,
    pub users: usize,
    pub rotation: Rotation,
    pub token_life: Duration,
    /// `None`: a public client.
    pub client_secret: Option<String>,
    /// The certificate (PEM) that client assertions are checked with; see `EntraOptions`.
    pub client_certificate: Option<String>,
    /// How clients reach Entra, when that is not its address.
    pub entra_origin: Option<Url>,
    /// See `EntraOptions`.
    pub loop_limit: Option<u32>,
    pub graph: GraphOptions,
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        let entra = EntraOptions::default();
        Self {
            port_base: None,
            users: 2,
            rotation: entra.rotation,
            token_life: entra.token_life,
            client_secret: entra.client_secret,
            client_certificate: entra.client_certificate,
            entra_origin: entra.origin,
            loop_limit: entra.loop_limit,
            graph: GraphOptions::default(),
            faults: Vec::new(),
        }
    }
}

/// Both servers, wired to each other.
#[derive(Clone)]
pub struct Sandbox {
    pub entra: Entra,
    pub graph: Graph,
}

impl Sandbox {
    pub fn start(options: Options, clock: &Clock, tasks: &Tasks) -> io::Result<Self> {
        let listen = |offset| {
            let port = options.port_base.map_or(Some(0), |base| base.checked_add(offset));
            port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the port base is too high"))
        };
        let defaults = EntraOptions::default();
        let entra_options = EntraOptions {
            users: User::numbered(options.users, &defaults.domain),
            rotation: options.rotation,
            token_life: options.token_life,
            client_secret: options.client_secret,
            client_certificate: options.client_certificate,
            origin: options.entra_origin,
            loop_limit: options.loop_limit,
            ..defaults
        };
        let entra = Entra::start(listen(2)?, entra_options, clock.clone(), tasks.clone())?;
        let graph = Graph::start(listen(3)?, options.graph, &entra, clock.clone(), tasks.clone())?;
        let sandbox = Self { entra, graph };
        options.faults.into_iter().for_each(|fault| sandbox.faults().push(fault));
        Ok(sandbox)
    }

    /// Both servers' faults.
    pub fn faults(&self) -> &Faults {
        self.entra.faults()
    }

    /// Signs a user in without a browser. `None`: no such user.
    pub fn grant(&self, user: &str) -> Option<Grant> {
        self.entra.grant(user, entra::DEFAULT_SCOPE)
    }

    /// What a caller hands over to act on behalf of this user; see `Entra`.
    pub fn assertion(&self, user: &str) -> String {
        self.entra.assertion(user)
    }
}

/// A record stays usable when the thread that held it has panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn written<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
