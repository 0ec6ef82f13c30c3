//! The composition root: makes the parts, hands each its own section of the configuration, starts and ends them.
//!
//! `Core` is what every verb of the command line needs: the store, the providers, the vault. `App` is a running proxy. `made` is what
//! serves by one configuration, `live` puts it in force, `reload` says when, and what came of it.

mod core;
mod links;
mod live;
mod made;
mod memory;
mod reload;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::core::Core;
use self::live::{InForce, Live};
use self::made::Made;
pub use self::reload::Reloadable;
use crate::admin::{NotReloaded, Reloaded};
use crate::clock::Clock;
use crate::config::{Config, Listen, Loaded};
use crate::front::Front;
use crate::oauth;
use crate::proxy::{self, AccessLog, Ledger, Proxy};
use crate::server::{BindError, Bound, Current, Running, Settings, StartError as ServerStartError, TlsError};
use crate::store::StoreError;
use crate::tasks::Tasks;
use crate::traces::TracesError;

/// Requests for the admin listener and the pages have this long when everything ends.
const SIDE_DRAIN: Duration = Duration::from_secs(5);
/// Refreshes in flight have this long to be committed.
const REFRESH_DRAIN: Duration = Duration::from_secs(10);

/// Spans that wait have this long to be sent.
const TRACES_DRAIN: Duration = Duration::from_secs(3);

/// A running proxy.
pub struct App {
    live: Arc<Live>,
    data: Running,
    pages: Option<Running>,
    admin: Running,
}

/// Why nothing runs. Each text names the key of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Provider(#[from] oauth::BuildError),
    #[error(transparent)]
    Upstream(#[from] proxy::TemplateError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Server(#[from] ServerStartError),
}

impl App {
    /// A proxy that keeps no access log, and the configuration that it began with.
    pub async fn start(config: &Config, clock: Clock, tasks: Tasks) -> Result<Self, StartError> {
        Self::logged(config, &AccessLog::off(), clock, tasks).await
    }

    /// The same with an access log.
    pub async fn logged(config: &Config, log: &AccessLog, clock: Clock, tasks: Tasks) -> Result<Self, StartError> {
        Self::begin(config, None, log, clock, tasks).await
    }

    /// A proxy that can be given another configuration while it runs. `loaded` came from the source of `reloadable`.
    pub async fn reloadable(
        loaded: Loaded,
        reloadable: Reloadable,
        log: &AccessLog,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, StartError> {
        let config = loaded.config.clone();
        Self::begin(&config, Some((loaded, reloadable)), log, clock, tasks).await
    }

    /// Binds every address before anything else is done, so that a second process on the same ports changes nothing.
    async fn begin(
        config: &Config,
        reloadable: Option<(Loaded, Reloadable)>,
        log: &AccessLog,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, StartError> {
        let bind = if config.server.share_port { Bound::shared } else { Bound::bind };
        let data = bind("server.listen", &config.server.listen, config.server.workers)?;
        let admin = bind("admin.listen", std::slice::from_ref(&config.admin.listen), 1)?;
        let pages = match &config.signin.listen {
            Some(listen) => Some(bind("signin.listen", std::slice::from_ref(listen), 1)?),
            None => None,
        };
        let core = Core::open(config, clock, tasks).await?.tracing(config)?;
        let made = Made::first(core.clone(), config)?;
        let ledger = |_| Arc::new(Ledger::new(log, &core.clock, &core.metrics));
        let ledgers: Arc<[_]> = (0..config.server.workers).map(ledger).collect();
        let front = |ledger: &Arc<Ledger>| {
            let pages = pages.is_none().then(|| made.pages.clone());
            let proxy = Proxy::new(made.shared.clone(), ledger.clone());
            Arc::new(Current::new(Front { proxy, pages, clock: core.clock.clone() }))
        };
        let fronts: Arc<[_]> = ledgers.iter().map(front).collect();
        let served = fronts.clone();
        let settings = Settings::from(&config.server).under(&core.pressure);
        let rests = move |worker: usize| ledgers[worker].write_out();
        let data = data.start(&settings, &core.metrics, move |worker| served[worker].clone(), rests)?;
        let small = Settings::small();
        let own_pages = pages.is_some().then(|| Arc::new(Current::new(made.pages.clone())));
        let pages = match (pages, &own_pages) {
            (Some(bound), Some(service)) => {
                Some(bound.start_on(&core.tasks, &Settings::pages(&config.server), &core.metrics, service.clone())?)
            }
            _ => None,
        };
        let current = Arc::new(ArcSwap::from_pointee(core.clone()));
        let in_force = InForce::new(config.clone(), made);
        let own_pages = own_pages.zip(pages.as_ref().map(Running::terms));
        let live = Live::new(current, fronts, own_pages, data.terms(), in_force, reloadable);
        let admin = admin.start_on(&core.tasks, &small, &core.metrics, live.admin())?;
        for address in admin.addresses() {
            core.store.is_reached_at(Some(address));
        }
        live.begin();
        Ok(Self { live, data, pages, admin })
    }

    /// What works on grants, by the configuration that is in force.
    pub fn core(&self) -> Core {
        self.live.core()
    }

    /// Where the data listener really listens: a port 0 is replaced by what the system chose.
    pub fn data_addresses(&self) -> &[Listen] {
        self.data.addresses()
    }

    /// Empty: the pages are on the data listener.
    pub fn page_addresses(&self) -> &[Listen] {
        self.pages.as_ref().map(Running::addresses).unwrap_or_default()
    }

    pub fn admin_addresses(&self) -> &[Listen] {
        self.admin.addresses()
    }

    /// Reads the configuration again and puts it in force if it has no mistake; says so in the log too. `trigger`: what brought it about.
    pub async fn reload(&self, trigger: &'static str) -> Result<Reloaded, NotReloaded> {
        self.live.clone().reload(trigger).await
    }

    /// The same without waiting for it: a reload that comes before this one has ended follows it.
    pub fn begin_reload(&self, trigger: &'static str) {
        let live = self.live.clone();
        self.live.core().tasks.spawn_forever(async move {
            // What came of it is in the log.
            drop(live.reload(trigger).await);
        });
    }

    /// Looks at the files of the configuration: what the beat does every two seconds. `None`: there is nothing to do.
    pub async fn look_at_files(&self) -> Option<Result<Reloaded, NotReloaded>> {
        self.live.look_at_files().await
    }

    /// Readiness goes first; `server.limits.drain_delay` later nothing more is accepted and requests that are under way finish, then
    /// refreshes, then the admin listener.
    pub async fn drain(self) {
        let limits = self.live.limits();
        self.live.begin_drain();
        self.data.leave();
        if let Some(pages) = &self.pages {
            pages.leave();
        }
        tokio::time::sleep(limits.drain_delay).await;
        let drained = self.data.drain(limits.drain_timeout).await;
        if drained.cut_off > 0 {
            tracing::warn!(connections = drained.cut_off, "connections were cut off at the end of the drain");
        }
        if let Some(pages) = self.pages {
            pages.drain(SIDE_DRAIN).await;
        }
        let core = self.live.core();
        core.store.keep_last_denials(&core.denials, &core.clock).await;
        if !core.tasks.drain(REFRESH_DRAIN).await {
            tracing::warn!("work was still under way at the end of the drain");
        }
        core.traces.flush(TRACES_DRAIN).await;
        // As soon as it has left its address, anybody on this machine may take that.
        core.store.is_reached_at(None);
        self.admin.drain(SIDE_DRAIN).await;
    }
}
