//! What is in force: everything that can be replaced while it serves, and the one place that replaces it.
//!
//! Invariants: one reload at a time; nothing is replaced before everything of the next configuration is made; a request that has begun
//! ends by what it began with.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};

use super::made::{Explainer, Made};
use super::reload::{Handle, Reloadable, Watch};
use super::{Core, StartError};
use crate::admin::{self, Admin, Readiness};
use crate::config::{Changes, Config, Loaded, ServerLimits};
use crate::front::{Front, Pages};
use crate::hosts::Hosts;
use crate::process::memory::{Status, usual_mark};
use crate::server::{Current, CurrentTerms, Settings, Terms};

pub(super) struct Live {
    core: Arc<ArcSwap<Core>>,
    /// One for each worker.
    fronts: Arc<[Arc<Current<Front>>]>,
    /// Where they have a listener of their own.
    pages: Option<(Arc<Current<Pages>>, CurrentTerms)>,
    admin: Arc<Current<Admin>>,
    terms: CurrentTerms,
    /// Beside the rest: an end waits for no reload.
    limits: ArcSwap<ServerLimits>,
    /// Where the configuration sets no mark.
    pub(super) usual_mark: Option<u64>,
    pub(super) status: Option<Status>,
    readiness: Readiness,
    /// What operators' pages remember.
    memory: admin::Memory,
    handle: Arc<Handle>,
    /// `None`: the configuration can't be read again.
    pub(super) reloadable: Option<(Loaded, Reloadable)>,
    in_force: Mutex<InForce>,
}

/// The configuration that is in force.
pub(super) struct InForce {
    config: Config,
    made: Made,
    /// As it was read last; `None`: as at the start.
    pub(super) loaded: Option<Loaded>,
    pub(super) watch: Watch,
}

impl InForce {
    pub(super) fn new(config: Config, made: Made) -> Self {
        Self { config, made, loaded: None, watch: Watch::default() }
    }
}

impl Live {
    pub(super) fn new(
        core: Arc<ArcSwap<Core>>,
        fronts: Arc<[Arc<Current<Front>>]>,
        pages: Option<(Arc<Current<Pages>>, CurrentTerms)>,
        terms: CurrentTerms,
        mut in_force: InForce,
        reloadable: Option<(Loaded, Reloadable)>,
    ) -> Arc<Self> {
        let readiness = Core::readiness(&core);
        let memory = admin::Memory::new(core.load().clock.clone());
        if let Some((loaded, _)) = &reloadable {
            in_force.watch = Watch::of(loaded.files.clone());
        }
        Arc::new_cyclic(|live: &Weak<Self>| {
            let handle = Arc::new(Handle(live.clone()));
            let admin = admin(&in_force.config, &in_force.made, &readiness, &memory, &handle);
            Self {
                core,
                fronts,
                pages,
                admin: Arc::new(Current::new(admin)),
                terms,
                limits: ArcSwap::from_pointee(in_force.config.server.limits.clone()),
                usual_mark: usual_mark(),
                status: Status::open().ok(),
                readiness,
                memory,
                handle,
                reloadable,
                in_force: Mutex::new(in_force),
            }
        })
    }

    pub(super) fn admin(&self) -> Arc<Current<Admin>> {
        Arc::clone(&self.admin)
    }

    pub(super) fn core(&self) -> Core {
        Core::clone(&self.core.load())
    }

    pub(super) async fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().await
    }

    pub(super) fn limits(&self) -> Arc<ServerLimits> {
        self.limits.load_full()
    }

    pub(super) fn begin_drain(&self) {
        self.readiness.begin_drain();
    }

    /// Starts what goes on beside requests.
    pub(super) fn begin(self: &Arc<Self>) {
        let core = self.core();
        watch_grants(&core);
        let (store, denials, clock) = (core.store.clone(), core.denials.clone(), core.clock.clone());
        core.tasks.spawn_forever(async move { store.keep_denials(&denials, &clock).await });
        let history = self.memory.history.clone();
        core.tasks.spawn_forever(history.watch(core.metrics.clone(), core.clock.clone()));
        self.look_at_memory();
        core.tasks.spawn_forever(super::memory::watch(Arc::downgrade(self)));
        if self.reloadable.is_some() {
            core.tasks.spawn_forever(super::reload::watch_files(Arc::downgrade(self)));
        }
    }

    /// Makes everything of `new`, then puts it in force. What needs a restart stays as it is.
    pub(super) fn replace(&self, in_force: &mut InForce, new: &Loaded, changes: &Changes) -> Result<(), StartError> {
        let config = held_back(new, &in_force.config, changes);
        let made = in_force.made.next(&config, changes)?;
        let terms = |settings: &Settings, running: &CurrentTerms| -> Result<Terms, StartError> {
            let terms = Terms::new(settings)?;
            Ok(if changes.touch("server.tls") { terms } else { terms.with_tls_of(&running.load()) })
        };
        let data_terms = terms(&Settings::from(&config.server).under(&self.core().pressure), &self.terms)?;
        let page_terms = self.pages.as_ref().map(|(_, running)| terms(&Settings::pages(&config.server), running));
        let page_terms = page_terms.transpose()?;
        let authorities = |config: &Config| config.server.tls.as_ref().and_then(|tls| tls.client_ca_pem.clone());
        let running = self.terms.load_full();
        let trusts_others = authorities(&config) != authorities(&in_force.config);
        let data_terms = if trusts_others { data_terms } else { data_terms.with_trust_of(&running) };
        let admin = admin(&config, &made, &self.readiness, &self.memory, &self.handle);
        // Nothing fails from here on.
        self.terms.store(Arc::new(data_terms));
        if trusts_others {
            running.end_trust();
        }
        self.limits.store(Arc::new(config.server.limits.clone()));
        self.look_at_memory();
        for front in &*self.fronts {
            let before = front.get();
            let pages = before.pages.is_some().then(|| made.pages.clone());
            let proxy = before.proxy.next(made.shared.clone());
            front.replace(Front { proxy, pages, clock: before.clock.clone() });
        }
        if let (Some((pages, running)), Some(terms)) = (&self.pages, page_terms) {
            running.store(Arc::new(terms));
            pages.replace(made.pages.clone());
        }
        self.admin.replace(admin);
        self.core.store(Arc::new(made.core.clone()));
        let before = std::mem::replace(&mut in_force.made, made);
        if !before.core.vault.is_same(&in_force.made.core.vault) {
            before.core.vault.retire();
            watch_grants(&in_force.made.core);
        }
        in_force.config = config;
        Ok(())
    }
}

fn watch_grants(core: &Core) {
    let vault = core.vault.clone();
    core.tasks.spawn_forever(async move { vault.watch().await });
}

fn admin(config: &Config, made: &Made, readiness: &Readiness, memory: &admin::Memory, handle: &Arc<Handle>) -> Admin {
    let setup = admin::Setup {
        desk: made.core.desk(config),
        readiness: readiness.clone(),
        metrics: made.core.metrics.clone(),
        hosts: Hosts::new([&config.server.public_url], &config.server.allowed_hosts, []),
        explain: Arc::new(Explainer(made.shared.clone())),
        reload: handle.clone(),
        memory: memory.clone(),
        clock: made.core.clock.clone(),
    };
    Admin::new(&config.admin, setup)
}

/// `new`, with what needs a restart as it is in `running`; and with it what follows from that.
fn held_back(new: &Loaded, running: &Config, changes: &Changes) -> Config {
    let mut config = new.config.clone();
    let (server, signin) = (&mut config.server, &mut config.signin);
    if changes.hold_back("server.listen") || changes.hold_back("signin.listen") {
        server.tls = server.tls.take().or_else(|| running.server.tls.clone());
    }
    let other_url = changes.hold_back("server.listen") || changes.hold_back("server.tls");
    if other_url && new.is_default("server", "public_url") {
        server.public_url = running.server.public_url.clone();
    }
    if new.is_default("signin", "public_url") {
        signin.public_url = server.public_url.clone();
    }
    server.listen.clone_from(&running.server.listen);
    server.workers = running.server.workers;
    server.share_port = running.server.share_port;
    config.admin.listen = running.admin.listen.clone();
    if changes.hold_back("admin.listen") && config.admin.token.is_none() {
        config.admin.token.clone_from(&running.admin.token);
    }
    signin.listen.clone_from(&running.signin.listen);
    config.log.access = running.log.access;
    config.store = running.store.clone();
    config
}
