//! What works on grants, by one configuration: with or without a listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::StartError;
use super::links::Links;
use super::made::Made;
use crate::admin::{Check, Desk, Readiness};
use crate::audit::Denials;
use crate::clock::Clock;
use crate::config::{self, Changes, Config};
use crate::metrics::Metrics;
use crate::oauth::Provider;
use crate::process::memory::Pressure;
use crate::proxy::explain::{Explanation, Question, QuestionError};
use crate::signin::Signin;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::traces::Traces;
use crate::vault::{Unchanged, Vault};

/// What every verb of the command line needs.
#[derive(Clone)]
pub struct Core {
    pub store: Store,
    pub providers: BTreeMap<String, Provider>,
    pub vault: Vault,
    /// What clients were denied, on its way to the store.
    pub denials: Denials,
    /// Whether too much memory is in use.
    pub pressure: Pressure,
    pub metrics: Metrics,
    pub traces: Traces,
    pub clock: Clock,
    pub tasks: Tasks,
}

/// What of a provider's section can change without making us another application there.
const NOT_THE_APPLICATION: [&str; 5] = ["credentials", "token_requests", "idle_limit", "allowed_tenants", "rotation"];

impl Core {
    pub async fn open(config: &Config, clock: Clock, tasks: Tasks) -> Result<Self, StartError> {
        drop(tasks.spawn_blocking(crate::tls::read_ahead));
        let metrics = Metrics::new();
        let store = Store::open(&config.store, clock.clone(), tasks.clone()).await?;
        let store = store.observed_by(metrics.clone(), clock.clone()).keeping_audit(config.audit.keep);
        let mut built = BTreeMap::new();
        for (id, provider) in &config.providers {
            let (section, provider) = (provider.clone(), Provider::new(provider, clock.clone())?);
            provider.observed_by(&metrics);
            built.insert(id.clone(), (provider, section));
        }
        let vault = Vault::new(store.clone(), &built, &config.upstreams, clock.clone(), tasks.clone(), metrics.clone());
        let providers = built.into_iter().map(|(id, (provider, _))| (id, provider)).collect();
        Ok(Self {
            store,
            providers,
            vault,
            denials: Denials::default(),
            pressure: Pressure::default(),
            metrics,
            traces: Traces::default(),
            clock,
            tasks,
        })
    }

    /// Sends traces from now on.
    pub(super) fn tracing(self, config: &Config) -> Result<Self, StartError> {
        let traces = Traces::start(&config.traces, config.log.access, &self.clock, &self.tasks, &self.metrics)?;
        Ok(Self { traces, ..self })
    }

    /// By the next configuration, on the same store and the same memory.
    pub(super) fn next(&self, config: &Config, changes: &Changes) -> Result<Self, StartError> {
        let next = self.with_providers(config, changes)?;
        if changes.touch("traces") { next.tracing(config) } else { Ok(next) }
    }

    fn with_providers(&self, config: &Config, changes: &Changes) -> Result<Self, StartError> {
        if !changes.touch("providers") && !changes.touch("upstreams") {
            return Ok(self.clone());
        }
        let mut built = BTreeMap::new();
        for (id, section) in &config.providers {
            let known = self.providers.get(id).filter(|_| unchanged(changes, id) == Unchanged::All);
            let provider = match known {
                Some(known) => known.clone(),
                None => Provider::new(section, self.clock.clone())?,
            };
            provider.observed_by(&self.metrics);
            built.insert(id.clone(), (provider, section.clone(), unchanged(changes, id)));
        }
        let vault = self.vault.next(&built, &config.upstreams);
        let providers = built.into_iter().map(|(id, (provider, ..))| (id, provider)).collect();
        Ok(Self { providers, vault, ..self.clone() })
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
        Desk::new(self.store.clone(), self.vault.clone(), self.tasks.clone(), config, move |grant, by| {
            let links = Arc::clone(&links);
            async move { links.fresh(grant, &by).await }
        })
    }

    /// What a request would meet, by this configuration and this store. Sends nothing and writes nothing.
    pub async fn explain(
        &self,
        config: &Config,
        question: &Question,
    ) -> Result<Result<Explanation, QuestionError>, StartError> {
        Ok(Made::first(self.clone(), config)?.shared.explain(question).await)
    }

    /// Asks what is in force at the moment of asking.
    pub(super) fn readiness(current: &Arc<ArcSwap<Self>>) -> Readiness {
        let clock = current.load().clock.clone();
        let (for_store, for_providers) = (Arc::clone(current), Arc::clone(current));
        let check_store = move || {
            let store = for_store.load().store.clone();
            async move { store.ready().await.map_err(|error| error.to_string()) }
        };
        let check_providers = move || {
            let core = for_providers.load_full();
            async move {
                for provider in core.providers.values() {
                    provider.ready().await.map_err(|error| format!("{}: {error}", provider.id()))?;
                }
                Ok(())
            }
        };
        Readiness::new(clock, vec![Check::new("store", check_store), Check::new("providers", check_providers)])
    }
}

fn unchanged(changes: &Changes, provider: &str) -> Unchanged {
    let section = format!("providers.{provider}");
    if !changes.touch(&section) {
        return Unchanged::All;
    }
    let of_little_weight = changes.touch_only(&section, &NOT_THE_APPLICATION);
    if of_little_weight { Unchanged::Application } else { Unchanged::Nothing }
}
