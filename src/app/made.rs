//! What serves by one configuration: made whole before any of it is put in force, so that what can't be made changes nothing.

use std::pin::Pin;
use std::sync::Arc;

use super::links::Links;
use super::{Core, StartError};
use schemars::{Schema, SchemaGenerator};

use crate::admin::Explain;
use crate::config::{Changes, Config};
use crate::front::Pages;
use crate::hosts::Hosts;
use crate::proxy::caller::Clients;
use crate::proxy::explain::{Explanation, Question};
use crate::proxy::{self, Before};

pub(super) struct Made {
    pub(super) core: Core,
    /// What the data path goes by, the same for all workers.
    pub(super) shared: Arc<proxy::Shared>,
    pub(super) pages: Pages,
    links: Arc<Links>,
}

impl Made {
    pub(super) fn first(core: Core, config: &Config) -> Result<Self, StartError> {
        let clients = Clients::new(&config.clients, &core.clock, core.tasks.clone())?;
        let links = Arc::new(Links::new(&core, config));
        Self::of(core, config, Arc::new(clients), links, None)
    }

    /// By the next configuration. What did not change stays as it is.
    pub(super) fn next(&self, config: &Config, changes: &Changes) -> Result<Self, StartError> {
        let core = self.core.next(config, changes)?;
        let clients = if changes.touch("clients") {
            let next = self.shared.clients().next(&config.clients, changes, &core.clock, core.tasks.clone());
            Arc::new(next?)
        } else {
            Arc::clone(self.shared.clients())
        };
        let links = if changes.touch("signin") { Arc::new(Links::new(&core, config)) } else { Arc::clone(&self.links) };
        Self::of(core, config, clients, links, Some(Before { shared: &self.shared, changes }))
    }

    fn of(
        core: Core,
        config: &Config,
        clients: Arc<Clients>,
        links: Arc<Links>,
        before: Option<Before<'_>>,
    ) -> Result<Self, StartError> {
        let hosts = Arc::new(hosts(config));
        let shared = proxy::Shared::new(proxy::Setup {
            server: &config.server,
            upstreams: &config.upstreams,
            clients,
            hosts: Arc::clone(&hosts),
            vault: core.vault.clone(),
            links: links.clone(),
            denials: core.denials.clone(),
            pressure: core.pressure.clone(),
            clock: core.clock.clone(),
            metrics: core.metrics.clone(),
            traces: core.traces.clone(),
            before,
        })?;
        let signin = core.signin(config, config.signin.clone());
        let pages = Pages { signin, hosts, tasks: core.tasks.clone(), clock: core.clock.clone() };
        Ok(Self { core, shared: Arc::new(shared), pages, links })
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

/// `POST /v1/explain`, by what the data path goes by.
pub(super) struct Explainer(pub(super) Arc<proxy::Shared>);

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
