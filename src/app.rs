//! The composition root: makes the parts, hands each its own section of the configuration, starts and ends them.
//!
//! `Core` is what every verb of the command line needs: the store, the providers, the vault. `App` is a running proxy.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::{Schema, SchemaGenerator};

use crate::account::{AccountKey, Alias};
use crate::admin::desk::Link;
use crate::admin::{self, Admin, Check, Desk, Explain, Readiness};
use crate::clock::Clock;
use crate::config::{self, Config, Listen};
use crate::front::{Front, Pages};
use crate::hosts::Hosts;
use crate::metrics::Metrics;
use crate::oauth::{self, Provider};
use crate::proxy::caller::Clients;
use crate::proxy::explain::{Explanation, Question, QuestionError};
use crate::proxy::{self, AccessLog, Ledger, Proxy, SigninLinks};
use crate::server::{BindError, Bound, Running, Settings, StartError as ServerStartError};
use crate::signin::{Invite, Signin, create_invite, login_url};
use crate::store::{Grant, Store, StoreError};
use crate::tasks::Tasks;
use crate::vault::Vault;

/// Requests for the admin listener and the pages have this long when everything ends.
const SIDE_DRAIN: Duration = Duration::from_secs(5);
/// Refreshes in flight have this long to be committed.
const REFRESH_DRAIN: Duration = Duration::from_secs(10);
/// Links that were handed out in error answers and may be handed out again.
const LINKS: usize = 10_000;

/// What works on grants, with or without a listener.
#[derive(Clone)]
pub struct Core {
    pub store: Store,
    pub providers: BTreeMap<String, Provider>,
    pub vault: Vault,
    pub metrics: Metrics,
    pub clock: Clock,
    pub tasks: Tasks,
}

/// A running proxy.
pub struct App {
    core: Core,
    readiness: Readiness,
    data: Running,
    pages: Option<Running>,
    admin: Running,
    drain_timeout: Duration,
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
    Bind(#[from] BindError),
    #[error(transparent)]
    Server(#[from] ServerStartError),
}

impl Core {
    pub async fn open(config: &Config, clock: Clock, tasks: Tasks) -> Result<Self, StartError> {
        drop(tasks.spawn_blocking(crate::tls::read_ahead));
        let metrics = Metrics::new();
        let store = Store::open(&config.store, clock.clone(), tasks.clone()).await?;
        let store = store.observed_by(metrics.clone(), clock.clone());
        let mut built = BTreeMap::new();
        for (id, provider) in &config.providers {
            let (section, provider) = (provider.clone(), Provider::new(provider, clock.clone())?);
            provider.observed_by(&metrics);
            built.insert(id.clone(), (provider, section));
        }
        let vault = Vault::new(store.clone(), &built, &config.upstreams, clock.clone(), tasks.clone(), metrics.clone());
        let providers = built.into_iter().map(|(id, (provider, _))| (id, provider)).collect();
        Ok(Self { store, providers, vault, metrics, clock, tasks })
    }

    /// The pages for people, reached at `signin.public_url`.
    pub fn signin(&self, config: &Config, signin: config::Signin) -> Signin {
        Signin::new(
            signin,
            self.providers.clone(),
            config.upstreams.clone(),
            &config.clients,
            self.store.clone(),
            self.vault.clone(),
            self.clock.clone(),
        )
    }

    /// What operators do, with or without a server.
    pub fn desk(&self, config: &Config) -> Desk {
        let links = Arc::new(Links::new(self, config));
        Desk::new(self.store.clone(), self.vault.clone(), config, move |grant, by| {
            let links = Arc::clone(&links);
            async move { links.fresh(grant, &by).await }
        })
    }

    /// What the data path goes by, made once for all workers.
    fn shared(&self, config: &Config) -> Result<Arc<proxy::Shared>, StartError> {
        let shared = proxy::Shared::new(proxy::Setup {
            server: &config.server,
            upstreams: &config.upstreams,
            clients: Arc::new(Clients::new(&config.clients, &self.clock, self.tasks.clone())?),
            hosts: Arc::new(hosts(config)),
            vault: self.vault.clone(),
            links: Arc::new(Links::new(self, config)),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })?;
        Ok(Arc::new(shared))
    }

    /// What a request would meet, by this configuration and this store. Sends nothing and writes nothing.
    pub async fn explain(
        &self,
        config: &Config,
        question: &Question,
    ) -> Result<Result<Explanation, QuestionError>, StartError> {
        Ok(self.shared(config)?.explain(question).await)
    }

    fn readiness(&self) -> Readiness {
        let store = self.store.clone();
        let providers = self.providers.clone();
        let check_store = move || {
            let store = store.clone();
            async move { store.ready().await.map_err(|error| error.to_string()) }
        };
        let check_providers = move || {
            let providers = providers.clone();
            async move {
                for provider in providers.values() {
                    provider.ready().await.map_err(|error| format!("{}: {error}", provider.id()))?;
                }
                Ok(())
            }
        };
        Readiness::new(
            self.clock.clone(),
            vec![Check::new("store", check_store), Check::new("providers", check_providers)],
        )
    }
}

impl App {
    /// A proxy that keeps no access log.
    pub async fn start(config: &Config, clock: Clock, tasks: Tasks) -> Result<Self, StartError> {
        Self::logged(config, &AccessLog::off(), clock, tasks).await
    }

    /// Binds every address before anything else is done, so that a second process on the same ports changes nothing.
    pub async fn logged(config: &Config, log: &AccessLog, clock: Clock, tasks: Tasks) -> Result<Self, StartError> {
        let data = Bound::bind("server.listen", &config.server.listen, config.server.workers)?;
        let admin = Bound::bind("admin.listen", std::slice::from_ref(&config.admin.listen), 1)?;
        let pages = match &config.signin.listen {
            Some(listen) => Some(Bound::bind("signin.listen", std::slice::from_ref(listen), 1)?),
            None => None,
        };
        let core = Core::open(config, clock, tasks).await?;
        let shared = core.shared(config)?;
        let signin = core.signin(config, config.signin.clone());
        let served_pages =
            Pages { signin, hosts: Arc::new(hosts(config)), tasks: core.tasks.clone(), clock: core.clock.clone() };
        let on_data = pages.is_none().then(|| served_pages.clone());
        let settings = Settings::from(&config.server);
        let clock = core.clock.clone();
        let explain = Arc::new(Explainer(shared.clone()));
        let ledgers = (0..config.server.workers).map(|_| Arc::new(Ledger::new(log, &clock, &core.metrics)));
        let ledgers: Arc<[_]> = ledgers.collect();
        let said = ledgers.clone();
        let make = move |worker: usize| Front {
            proxy: Proxy::new(shared.clone(), ledgers[worker].clone()),
            pages: on_data.clone(),
            clock: clock.clone(),
        };
        let data = data.start(&settings, &core.metrics, make, move |worker| said[worker].write_out())?;
        let small = Settings::small();
        let pages = match pages {
            Some(bound) => Some(bound.start_on(&core.tasks, &small, &core.metrics, served_pages)?),
            None => None,
        };
        let readiness = core.readiness();
        let setup = admin::Setup {
            desk: core.desk(config),
            readiness: readiness.clone(),
            metrics: core.metrics.clone(),
            hosts: Hosts::new([&config.server.public_url], &config.server.allowed_hosts, []),
            explain,
            memory: admin::Memory::new(core.clock.clone()),
            clock: core.clock.clone(),
        };
        let history = setup.memory.history.clone();
        core.tasks.spawn_forever(history.watch(core.metrics.clone(), core.clock.clone()));
        let service = Admin::new(&config.admin, setup);
        let admin = admin.start_on(&core.tasks, &small, &core.metrics, service)?;
        let vault = core.vault.clone();
        core.tasks.spawn_forever(async move { vault.watch().await });
        Ok(Self { core, readiness, data, pages, admin, drain_timeout: config.server.limits.drain_timeout })
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Where the data listener really listens: a port 0 is replaced by what the system chose.
    pub fn data_addresses(&self) -> &[Listen] {
        self.data.addresses()
    }

    pub fn admin_addresses(&self) -> &[Listen] {
        self.admin.addresses()
    }

    /// Readiness goes first, then requests that are under way finish, then refreshes, then the admin listener.
    pub async fn drain(self) {
        self.readiness.begin_drain();
        let drained = self.data.drain(self.drain_timeout).await;
        if drained.cut_off > 0 {
            tracing::warn!(connections = drained.cut_off, "connections were cut off at the end of the drain");
        }
        if let Some(pages) = self.pages {
            pages.drain(SIDE_DRAIN).await;
        }
        if !self.core.tasks.drain(REFRESH_DRAIN).await {
            tracing::warn!("work was still under way at the end of the drain");
        }
        self.admin.drain(SIDE_DRAIN).await;
    }
}

/// The names that are ours, on the data listener and on that of the pages.
fn hosts(config: &Config) -> Hosts {
    Hosts::new(
        [&config.server.public_url, &config.signin.public_url],
        &config.server.allowed_hosts,
        config.upstreams.values().map(|upstream| &upstream.url),
    )
}

/// `POST /v1/explain`, by what the data path goes by at this moment.
struct Explainer(Arc<proxy::Shared>);

impl Explain for Explainer {
    fn explain<'a>(
        &'a self,
        question: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Result<serde_json::Value, String>> + Send + 'a>> {
        Box::pin(async move {
            let question: Question = serde_json::from_slice(question).map_err(|error| error.to_string())?;
            let explanation = self.0.explain(&question).await.map_err(|error| error.to_string())?;
            serde_json::to_value(explanation).map_err(|error| error.to_string())
        })
    }

    fn schemas(&self, generator: &mut SchemaGenerator) -> [Schema; 2] {
        [generator.subschema_for::<Question>(), generator.subschema_for::<Explanation>()]
    }
}

/// Sign-in links for error answers: one for each account and life of its grant, made when first asked for.
struct Links {
    store: Store,
    clock: Clock,
    public_url: url::Url,
    made: Mutex<HashMap<(AccountKey, u64), (crate::clock::Moment, String)>>,
}

impl Links {
    /// Shorter than a link's own life, so that nobody is handed one that is about to lapse.
    const LIFE: Duration = Duration::from_secs(3600);

    fn new(core: &Core, config: &Config) -> Self {
        Self {
            store: core.store.clone(),
            clock: core.clock.clone(),
            public_url: config.signin.public_url.clone(),
            made: Mutex::default(),
        }
    }

    async fn make(&self, alias: &Alias) -> Option<String> {
        let grant = self.store.find(alias.as_str()).await.ok()??;
        let key = (grant.key.clone(), grant.epoch);
        let now = self.clock.moment();
        if let Some((at, link)) = self.made().get(&key)
            && now.since(*at) < Self::LIFE
        {
            return Some(link.clone());
        }
        let link = self.fresh(grant, "bearerd").await.ok()?.url;
        let mut made = self.made();
        if made.len() >= LINKS {
            made.clear();
        }
        made.insert(key, (now, link.clone()));
        Some(link)
    }

    /// A new one, for the account's own user.
    async fn fresh(&self, grant: Grant, by: &str) -> Result<Link, StoreError> {
        let mut invite = Invite::new(Some(grant.alias.clone()), &grant.key.provider, by, &self.clock);
        invite.claims = grant.challenge();
        invite.account = Some(grant.key);
        let id = create_invite(&self.store, &self.clock, &invite).await?;
        Ok(Link { url: login_url(&self.public_url, &id).to_string(), expires: invite.expires })
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashMap<(AccountKey, u64), (crate::clock::Moment, String)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SigninLinks for Links {
    fn link<'a>(&'a self, alias: &'a Alias) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>> {
        Box::pin(self.make(alias))
    }
}
